//! The one list of settings.

/// One setting: its name, its default as it would be written, and what it does.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// What is in effect when it is not set; empty when that is not one value.
    pub default: &'static str,
    /// What an empty default means, in words.
    pub unset: &'static str,
    /// One line for `.env.example`.
    pub help: &'static str,
    /// Never printed, and also taken as `<name>_FILE`.
    pub secret: bool,
}

const fn plain(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, default, unset: "", help, secret: false }
}

const fn open(name: &'static str, unset: &'static str, help: &'static str) -> Setting {
    Setting { name, default: "", unset, help, secret: false }
}

const fn secret(name: &'static str, unset: &'static str, help: &'static str) -> Setting {
    Setting { name, default: "", unset, help, secret: true }
}

/// Every setting, in the order of `.env.example`.
pub const SETTINGS: &[Setting] = &[
    plain("LATCHKEY_PUBLIC_URL", "http://localhost:3000", "Issuer and base of every link: scheme, host, port, no path"),
    plain("LATCHKEY_LISTEN", "127.0.0.1:3000", "Public listener; port 0 takes any free one"),
    plain("LATCHKEY_INTERNAL_LISTEN", "127.0.0.1:3001", "Listener for probes and operators; `off` for none"),
    open(
        "LATCHKEY_TLS_CERT",
        "(plain HTTP)",
        "Certificate of the public listener with those between it and its authority, PEM; read again when it changes",
    ),
    open("LATCHKEY_TLS_KEY", "(plain HTTP)", "Its private key, PEM, which others on the machine cannot read"),
    plain("LATCHKEY_DATA_DIR", "./data", "Home of the SQLite file and of mail that goes to files"),
    plain("LATCHKEY_JWT_DIR", "./jwt", "Home of private keys and the server secret"),
    secret(
        "DATABASE_URL",
        "(SQLite in LATCHKEY_DATA_DIR)",
        "postgres://user:password@host/database; without it SQLite in LATCHKEY_DATA_DIR",
    ),
    plain("LATCHKEY_DB_POOL", "10", "Connections to PostgreSQL"),
    secret(
        "REDIS_URL",
        "(sessions in the database)",
        "redis://[user:password@]host[:port][/db], rediss://…, redis-cluster://host:port,… or redis-sentinel://host:port,…/master; without it sessions live in the database",
    ),
    plain("LATCHKEY_REDIS_PREFIX", "lk", "Every Redis key starts with it"),
    secret(
        "SMTP_URL",
        "(mail goes to files in LATCHKEY_DATA_DIR/mail)",
        "smtp://[user:password@]host[:port][?tls=none] or smtps://; without it mail goes to files in LATCHKEY_DATA_DIR/mail",
    ),
    plain("LATCHKEY_MAIL_FROM", "Latchkey <no-reply@localhost>", "Sender of every mail"),
    open("LATCHKEY_SUPPORT", "(none)", "Address or URL where people find help; stands in mails and pages"),
    open("LATCHKEY_TEMPLATES", "(the compiled-in ones)", "Folder whose mail templates replace the compiled-in ones"),
    plain("LATCHKEY_LOCALE", "en", "Language of mails for who asked for none"),
    plain(
        "LATCHKEY_EMAIL_VERIFICATION",
        "optional",
        "off, optional (a code is mailed at registration) or required (no account before the address is proved)",
    ),
    secret(
        "LATCHKEY_SECRET",
        "(the file `secret` in LATCHKEY_JWT_DIR)",
        "base64 of 32 bytes or more; comma list: the first signs, all verify; without it the file `secret` in LATCHKEY_JWT_DIR",
    ),
    secret("LATCHKEY_PEPPER", "(none)", "Argon2 secret as id:base64; comma list: the first is used, all verify"),
    open("LATCHKEY_AUDIENCE", "(the public URL)", "`aud` of access tokens, comma list; without it the public URL"),
    plain("LATCHKEY_ACCESS_TTL", "5m", "Lifetime of an access token: 90s, 5m, 12h, 7d"),
    plain("LATCHKEY_REFRESH_IDLE_TTL", "7d", "A session that is not refreshed for so long is dead"),
    plain("LATCHKEY_REFRESH_ABSOLUTE_TTL", "30d", "A session is dead so long after its login, whatever happens"),
    plain(
        "LATCHKEY_REFRESH_GRACE",
        "30s",
        "How long the refresh token before the current one is still answered; 0s is strict",
    ),
    plain("LATCHKEY_MAX_SESSIONS", "50", "Sessions a person may have; the least recently used goes"),
    plain("LATCHKEY_REGISTRATION", "open", "open or closed"),
    open(
        "LATCHKEY_REGISTRATION_DOMAINS",
        "(every domain)",
        "Comma list of domains whose addresses may register; empty is all",
    ),
    plain(
        "LATCHKEY_PASSWORD_MIN_LENGTH",
        "8",
        "Least number of characters; NIST SP 800-63B-4 asks for 15 where the password is the only factor",
    ),
    plain("LATCHKEY_ARGON2_MEMORY_KIB", "19456", "Argon2id memory, 7168 to 262144 KiB"),
    plain("LATCHKEY_ARGON2_ITERATIONS", "2", "Argon2id passes, 1 to 10"),
    plain("LATCHKEY_ARGON2_PARALLELISM", "1", "Argon2id lanes, 1 to 8"),
    open("LATCHKEY_HASH_THREADS", "(the cores of the cgroup)", "Threads that hash; without it the cores of the cgroup"),
    open("LATCHKEY_HASH_QUEUE", "(64 for each thread)", "Hashes that may wait; without it 64 for each thread"),
    plain(
        "LATCHKEY_LIMIT_REGISTER",
        "10/1h:5",
        "Requests to /register of one client network, as N/period[:burst], or off",
    ),
    plain("LATCHKEY_LIMIT_LOGIN", "60/1m", "Requests to /login of one client network, or off"),
    plain("LATCHKEY_LIMIT_REFRESH", "600/1m", "Requests to /refresh of one client network, or off"),
    plain("LATCHKEY_LIMIT_LOGOUT", "600/1m", "Requests to /logout of one client network, or off"),
    plain("LATCHKEY_LIMIT_CODES", "20/1m", "Requests of one client network that ask for a code or use one, or off"),
    plain(
        "LATCHKEY_LIMIT_ACCOUNT",
        "on",
        "Whether attempts of passwords by account and refreshes by session are counted; off is for load tests only",
    ),
    plain(
        "LATCHKEY_MAX_CONNECTIONS_PER_ADDRESS",
        "4096",
        "Connections of one address, or off; trusted proxies may have more",
    ),
    open(
        "LATCHKEY_TRUSTED_PROXIES",
        "(none)",
        "Addresses and networks of proxies whose word on a client's address is taken; comma list",
    ),
    plain("LATCHKEY_PROXY_HEADER", "x-forwarded-for", "The header they write: x-forwarded-for or forwarded"),
    plain("LATCHKEY_PRODUCT_NAME", "Latchkey", "Shown to people, and refused inside passwords"),
    plain("LATCHKEY_DELETED_RETENTION", "30d", "How long the data of a deleted person is kept"),
    plain("LATCHKEY_EVENT_RETENTION", "90d", "How long events are kept"),
    open(
        "LATCHKEY_CORS_ORIGINS",
        "(none)",
        "Origins whose pages may call the API with credentials, as https://app.example.com; comma list",
    ),
    plain("LATCHKEY_LOG", "auto", "auto (pretty on a terminal, JSON in a pipe), pretty or json"),
    plain(
        "RUST_LOG",
        "warn,latchkey=info",
        "Which log lines are written: comma list of levels and target=level; libraries never tell more than info",
    ),
    open(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "(no traces)",
        "Collector of traces, OTLP as JSON over http:// or https://, as http://localhost:4318; without it there are none",
    ),
    secret("OTEL_EXPORTER_OTLP_HEADERS", "(none)", "Headers that the collector wants, as name=value; comma list"),
    open("OTEL_SERVICE_NAME", "(latchkey)", "What this service is called in traces; without it latchkey"),
    open("OTEL_RESOURCE_ATTRIBUTES", "(none)", "More about this process for its traces, as key=value; comma list"),
    plain(
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        "Which requests are traced: always_on, always_off, traceidratio or the same behind parentbased_; only trusted proxies are parents",
    ),
    open("OTEL_TRACES_SAMPLER_ARG", "(1)", "The share for traceidratio, from 0 to 1"),
];
