-- People are searched by how an address or a username begins. The unique keys are ordered as the database's language has
-- it, where what begins alike need not stand together; these are ordered byte by byte.
CREATE INDEX users_email_prefix ON users (email COLLATE "C") WHERE deleted_at IS NULL;
CREATE INDEX users_username_prefix ON users (username_key COLLATE "C") WHERE deleted_at IS NULL;
