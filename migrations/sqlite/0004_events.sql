-- What happened to people, sessions and keys: written in the transaction that did it, read with cursors by id.
CREATE TABLE events (
    id         BLOB    NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    person_id  BLOB,
    session_id BLOB,
    client_id  TEXT,
    address    TEXT,
    request_id TEXT,
    data       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX events_person ON events (person_id, id);
CREATE INDEX events_at ON events (at);

-- Mails to be sent: written in the transaction of the act they tell of. Never a code, never a password.
CREATE TABLE outbox (
    id              BLOB    NOT NULL PRIMARY KEY,
    kind            TEXT    NOT NULL,
    person_id       BLOB,
    recipient       TEXT    NOT NULL,
    locale          TEXT,
    data            TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'sent', 'dropped', 'dead')),
    attempts        INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    -- A claim moves this into the future, so the row of a dead worker comes up again by itself.
    next_attempt_at INTEGER NOT NULL,
    claimed_by      BLOB,
    finished_at     INTEGER,
    last_error      TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_pending ON outbox (next_attempt_at) WHERE state = 'pending';
