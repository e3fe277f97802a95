-- Sessions that somebody was told are over (logout, revoke, theft). Redis may lose a deletion; this row may not.
-- Kept until the session could not be alive any more.
CREATE TABLE ended_sessions (
    session_id UUID    NOT NULL PRIMARY KEY,
    user_id    UUID    NOT NULL,
    "until"    BIGINT NOT NULL
);

CREATE INDEX ended_sessions_until ON ended_sessions ("until");

-- The sessions themselves, when there is no Redis. `record` is the packed form that Redis would hold.
CREATE TABLE sessions (
    user_id    UUID    NOT NULL,
    session_id UUID    NOT NULL,
    record     BYTEA   NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, session_id)
);

CREATE INDEX sessions_expires_at ON sessions (expires_at);
