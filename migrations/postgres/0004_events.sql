-- What happened to people, sessions and keys: written in the transaction that did it, read with cursors by id.
CREATE TABLE events (
    id         UUID    NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    kind       TEXT    NOT NULL,
    person_id  UUID,
    session_id UUID,
    client_id  TEXT,
    address    TEXT,
    request_id TEXT,
    data       JSONB    NOT NULL
);

CREATE INDEX events_person ON events (person_id, id);
CREATE INDEX events_at ON events (at);

-- Mails to be sent: written in the transaction of the act they tell of. Never a code, never a password.
CREATE TABLE outbox (
    id              UUID    NOT NULL PRIMARY KEY,
    kind            TEXT    NOT NULL,
    person_id       UUID,
    recipient       TEXT    NOT NULL,
    locale          TEXT,
    data            JSONB    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'sent', 'dropped', 'dead')),
    attempts        BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    -- A claim moves this into the future, so the row of a dead worker comes up again by itself.
    next_attempt_at BIGINT NOT NULL,
    claimed_by      UUID,
    finished_at     BIGINT,
    last_error      TEXT
);

CREATE INDEX outbox_pending ON outbox (next_attempt_at) WHERE state = 'pending';
