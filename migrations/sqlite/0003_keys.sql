-- The key ring: public halves and states. Private keys are files and never come here.
CREATE TABLE signing_keys (
    kid          TEXT    NOT NULL PRIMARY KEY,
    alg          TEXT    NOT NULL CHECK (alg IN ('ES256')),
    "use"        TEXT    NOT NULL CHECK ("use" IN ('sig')),
    public_jwk   TEXT    NOT NULL,
    -- next: published; active: signs; retiring: verifies until verify_until; retired: history.
    state        TEXT    NOT NULL CHECK (state IN ('next', 'active', 'retiring', 'retired')),
    published_at INTEGER NOT NULL,
    active_at    INTEGER,
    verify_until INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys (state) WHERE state = 'active';

-- One value per server secret this database has been used with. A node none of whose secrets is here does not start:
-- its tokens would be foreign to the others. The first one is `genesis`, so that two first nodes cannot both be right.
CREATE TABLE secret_checks (
    check_value BLOB    NOT NULL PRIMARY KEY,
    genesis     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX secret_checks_one_genesis ON secret_checks (genesis) WHERE genesis;
