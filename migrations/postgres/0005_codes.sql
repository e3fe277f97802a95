-- Registrations of the `required` mode that wait for their code: no person yet, and neither address nor name is held.
CREATE TABLE pending_registrations (
    id            UUID    NOT NULL PRIMARY KEY,
    email         TEXT    NOT NULL,
    username      TEXT,
    username_key  TEXT,
    display_name  TEXT,
    locale        TEXT,
    password_hash TEXT    NOT NULL,
    created_at    BIGINT  NOT NULL,
    expires_at    BIGINT  NOT NULL,
    CHECK ((username IS NULL) = (username_key IS NULL))
);

CREATE INDEX pending_registrations_expires_at ON pending_registrations (expires_at);

-- Fingerprints of devices the person signed in from, newest first, as a JSON array.
ALTER TABLE users ADD COLUMN devices JSONB NOT NULL DEFAULT '[]';

-- Deliveries of which nobody knows whether they arrived: the mail server took the text and the answer was lost.
ALTER TABLE outbox ADD COLUMN unacknowledged BIGINT NOT NULL DEFAULT 0;
-- When an operator asked for a mail that was given up; its day counts from then.
ALTER TABLE outbox ADD COLUMN retried_at BIGINT;

-- Notices of one kind to one person replace each other.
CREATE INDEX outbox_person ON outbox (person_id, kind) WHERE person_id IS NOT NULL;
CREATE INDEX outbox_finished_at ON outbox (finished_at) WHERE finished_at IS NOT NULL;

-- Small values that die by themselves, where there is no Redis: flows of codes, counters of mails.
CREATE TABLE ephemeral (
    key        TEXT    NOT NULL PRIMARY KEY,
    value      BYTEA   NOT NULL,
    expires_at BIGINT  NOT NULL
);

CREATE INDEX ephemeral_expires_at ON ephemeral (expires_at);
