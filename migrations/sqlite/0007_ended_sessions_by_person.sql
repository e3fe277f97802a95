-- The list of a person's sessions leaves out those whose end is known here: a store that lost writes may still have them.
CREATE INDEX ended_sessions_user_id ON ended_sessions (user_id);
