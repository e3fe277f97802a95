-- People. Instants are milliseconds since the Unix epoch, ids 16 bytes; see migrations/README.md.
CREATE TABLE users (
    id             BLOB    NOT NULL PRIMARY KEY,
    -- The canonical form: it is the unique key, and what mail goes to. Null for people who came without one.
    email          TEXT,
    email_verified INTEGER NOT NULL,
    -- As the person wrote it, and lower-cased: the second one is the unique key.
    username       TEXT,
    username_key   TEXT,
    display_name   TEXT,
    locale         TEXT,
    -- JSON array of role names.
    roles          TEXT    NOT NULL,
    status         TEXT    NOT NULL CHECK (status IN ('active', 'disabled')),
    -- Sessions, flows and pending factors live only while the epoch they were made under equals this one.
    epoch          INTEGER NOT NULL,
    -- PHC string; null when the person has no password.
    password_hash  TEXT,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    last_login_at  INTEGER,
    -- Set by a soft delete; the row's keys are free again from then on.
    deleted_at     INTEGER,
    CHECK ((username IS NULL) = (username_key IS NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX users_email_key ON users (email) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX users_username_key ON users (username_key) WHERE deleted_at IS NULL;
CREATE INDEX users_deleted_at ON users (deleted_at) WHERE deleted_at IS NOT NULL;
