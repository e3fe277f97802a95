//! Every setting: read once, checked as a whole, all faults told at once.
//!
//! [`Config::from_given`] takes the environment as [`Given`], so that tests pass pairs and nothing else in the program
//! reads it. `SETTINGS` (in `config/settings.rs`) is the one list of names, defaults and meanings: `.env.example`,
//! `config check` and the refusal of unknown names are made from it. An empty value counts as not set, because that is
//! what compose files and shells leave behind for a variable that has none.

mod parse;
mod provisions;
mod public_url;
mod settings;
mod traces;
mod values;

use std::{collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

pub use provisions::Provisions;
pub use public_url::PublicUrl;
pub use settings::{SETTINGS, Setting};
pub use traces::{Endpoint, Sampler, TraceSettings};
pub use values::{
    EmailVerification, LimitSettings, LogFormat, MailSettings, PasswordSettings, Pepper, Registration, TokenSettings,
};

use crate::{
    ephemeral::RedisUrl,
    http::{TlsFiles, TrustedProxies},
    mail::SmtpServer,
    secret::{SecretBytes, SecretText},
};

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Issuer and base of every link.
    pub public_url: PublicUrl,
    /// Where people's clients connect.
    pub listen: SocketAddr,
    /// Where probes and operators connect; `None` is `off`.
    pub internal_listen: Option<SocketAddr>,
    /// Certificate and key of the public listener; `None` is plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Home of the SQLite file and of mail that goes to files.
    pub data_dir: PathBuf,
    /// Home of private keys and the server secret.
    pub jwt_dir: PathBuf,
    /// PostgreSQL, or the SQLite file when `None`.
    pub database_url: Option<SecretText>,
    /// Redis, or the database when `None`.
    pub redis_url: Option<RedisUrl>,
    /// The mail server, or files when `None`.
    pub smtp: Option<SmtpServer>,
    /// What mails look like.
    pub mail: MailSettings,
    /// Whether an address must be proved.
    pub email_verification: EmailVerification,
    /// Every Redis key starts with it.
    pub redis_prefix: String,
    /// Connections to PostgreSQL.
    pub db_pool: u32,
    /// The server secrets, first the one that makes; `None` means the file in `jwt_dir`.
    pub secrets: Option<Vec<SecretBytes>>,
    /// Tokens: audience and lifetimes.
    pub tokens: TokenSettings,
    /// Who may register.
    pub registration: Registration,
    /// Password rules and hashing.
    pub passwords: PasswordSettings,
    /// Shown to people, and refused inside passwords.
    pub product_name: String,
    /// How long the data of a deleted person is kept.
    pub deleted_retention: Duration,
    /// How long events are kept.
    pub event_retention: Duration,
    /// How often a client may ask.
    pub limits: LimitSettings,
    /// Whom to believe about a client's address.
    pub proxies: TrustedProxies,
    /// Origins whose pages may call the API.
    pub cors_origins: Vec<PublicUrl>,
    /// How log lines look.
    pub log: LogFormat,
    /// Which log lines are written.
    pub log_filter: String,
    /// Where spans go; `None` makes none.
    pub traces: Option<TraceSettings>,
}

/// One thing that is wrong with the settings: its name and what was expected, never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting.
    pub name: String,
    /// What would be right.
    pub expected: String,
}

/// Every fault of the settings at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} fault(s) in the settings:", self.0.len())?;
        for fault in &self.0 {
            writeln!(f, "  {}: {}", fault.name, fault.expected)?;
        }
        f.write_str(
            "`.env.example` has every setting with its default; `latchkey config check` shows what is in effect.",
        )
    }
}

/// What was given for the settings, before it is understood: names with values, secrets still readable.
#[derive(Clone, Default)]
pub struct Given(BTreeMap<String, String>);

impl Given {
    /// The process environment over the `.env` file of the working directory.
    ///
    /// # Errors
    /// When `.env` is there and cannot be read or is malformed.
    pub fn from_process() -> Result<Self, Faults> {
        let mut given = BTreeMap::new();
        match dotenvy::from_path_iter(".env") {
            Ok(lines) => {
                for line in lines {
                    let (name, value) = line.map_err(|_| dot_env_fault("a line that is not NAME=value"))?;
                    given.insert(name, value);
                }
            }
            Err(error) if error.not_found() => {}
            Err(_) => return Err(dot_env_fault("the file is there but cannot be read")),
        }
        // `vars` would panic at a variable that is no Unicode; what is left of one here is refused where it is parsed.
        given.extend(
            std::env::vars_os()
                .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())),
        );
        Ok(Self(given))
    }

    /// Settings from pairs, for tests and embedders.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The value of `name`, if it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn dot_env_fault(expected: &str) -> Faults {
    Faults(vec![Fault { name: ".env".into(), expected: expected.into() }])
}

impl Config {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// Every fault at once: bad values, unknown `LATCHKEY_` names, combinations that make no sense.
    pub fn from_given(given: &Given) -> Result<Self, Faults> {
        let mut reader = parse::Reader::new(given);
        reader.refuse_unknown_names();

        let public_url = reader.required("LATCHKEY_PUBLIC_URL", PublicUrl::parse);
        let audience = reader.list("LATCHKEY_AUDIENCE", |text| Some(text.to_owned()));
        let access_ttl = reader.lifetime("LATCHKEY_ACCESS_TTL");
        let idle = reader.lifetime("LATCHKEY_REFRESH_IDLE_TTL");
        let absolute = reader.lifetime("LATCHKEY_REFRESH_ABSOLUTE_TTL");
        let grace = reader.required("LATCHKEY_REFRESH_GRACE", parse::duration);
        let max_sessions = reader.within("LATCHKEY_MAX_SESSIONS", 1, 1000);
        let registration = reader.required("LATCHKEY_REGISTRATION", parse::open_or_closed);
        let domains = reader.list("LATCHKEY_REGISTRATION_DOMAINS", parse::domain);
        let min_length = reader.within("LATCHKEY_PASSWORD_MIN_LENGTH", 8, 64);
        let memory = reader.within("LATCHKEY_ARGON2_MEMORY_KIB", 7 * 1024, 256 * 1024);
        let iterations = reader.within("LATCHKEY_ARGON2_ITERATIONS", 1, 10);
        let parallelism = reader.within("LATCHKEY_ARGON2_PARALLELISM", 1, 8);
        let peppers = reader.secret_list("LATCHKEY_PEPPER", parse::pepper);
        let secrets = reader.secret_list("LATCHKEY_SECRET", parse::server_secret);
        let threads = reader.hash_threads();
        let queue = reader.optional("LATCHKEY_HASH_QUEUE", parse::count);
        let listen = reader.required("LATCHKEY_LISTEN", parse::address);
        let internal = reader.required("LATCHKEY_INTERNAL_LISTEN", parse::address_or_off);
        let tls = reader.tls();
        let data_dir = reader.required("LATCHKEY_DATA_DIR", parse::path);
        let jwt_dir = reader.required("LATCHKEY_JWT_DIR", parse::path);
        let database_url = reader.secret("DATABASE_URL", parse::database_url);
        let redis_url = reader.secret("REDIS_URL", RedisUrl::parse);
        let smtp = reader.secret("SMTP_URL", SmtpServer::parse);
        let from = reader.required("LATCHKEY_MAIL_FROM", parse::mailbox);
        let support = reader.optional("LATCHKEY_SUPPORT", parse::support);
        let templates = reader.optional("LATCHKEY_TEMPLATES", parse::path);
        let locale = reader.required("LATCHKEY_LOCALE", crate::names::locale);
        let email_verification = reader.required("LATCHKEY_EMAIL_VERIFICATION", parse::email_verification);
        let redis_prefix = reader.required("LATCHKEY_REDIS_PREFIX", parse::redis_prefix);
        let db_pool = reader.within("LATCHKEY_DB_POOL", 1, 1000);
        let product_name = reader.required("LATCHKEY_PRODUCT_NAME", parse::product_name);
        let deleted_retention = reader.lifetime("LATCHKEY_DELETED_RETENTION");
        let limits = reader.limits();
        let networks = reader.list("LATCHKEY_TRUSTED_PROXIES", parse::network);
        let header = reader.required("LATCHKEY_PROXY_HEADER", parse::proxy_header);
        let cors_origins = reader.list("LATCHKEY_CORS_ORIGINS", PublicUrl::parse);
        let event_retention = reader.lifetime("LATCHKEY_EVENT_RETENTION");
        let log = reader.required("LATCHKEY_LOG", parse::log_format);
        let log_filter = reader.required("RUST_LOG", parse::log_filter);
        let traces = reader.traces();

        if let (Some(public_url), Some(None)) = (&public_url, &smtp)
            && public_url.is_https()
        {
            reader.fault("SMTP_URL", "required with an https public URL: mail to files is for development only");
        }
        if let (Some(public_url), Some(secrets)) = (&public_url, &secrets)
            && public_url.is_https()
            && secrets.iter().any(|secret| parse::is_sample(secret.expose()))
        {
            reader.fault("LATCHKEY_SECRET", "random bytes, not a sample: `openssl rand -base64 32` makes some");
        }
        reader.finish()?;

        // Every `?` below is for a value whose absence was a fault above.
        let threads = threads.unwrap_or(NonZeroUsize::MIN);
        (|| {
            let public_url = public_url?;
            let audience = audience.filter(|list| !list.is_empty());
            Some(Self {
                tokens: TokenSettings {
                    audience: audience.unwrap_or_else(|| vec![public_url.as_str().to_owned()]),
                    access_ttl: access_ttl?,
                    refresh_idle_ttl: idle?,
                    refresh_absolute_ttl: absolute?,
                    refresh_grace: grace?,
                    max_sessions: usize::try_from(max_sessions?).ok()?,
                },
                registration: Registration { open: registration?, domains: domains? },
                passwords: PasswordSettings {
                    min_length: usize::try_from(min_length?).ok()?,
                    memory_kib: memory?,
                    iterations: iterations?,
                    parallelism: parallelism?,
                    peppers: peppers?,
                    hash_threads: threads,
                    hash_queue: queue?.unwrap_or(64 * threads.get()),
                },
                public_url,
                listen: listen?,
                internal_listen: internal?,
                tls: tls?,
                data_dir: data_dir?,
                jwt_dir: jwt_dir?,
                database_url: database_url?,
                redis_url: redis_url?,
                smtp: smtp?,
                mail: MailSettings { from: from?, support: support?, templates: templates?, locale: locale? },
                email_verification: email_verification?,
                redis_prefix: redis_prefix?,
                db_pool: db_pool?,
                secrets: secrets.filter(|list| !list.is_empty()),
                product_name: product_name?,
                deleted_retention: deleted_retention?,
                event_retention: event_retention?,
                limits: limits?,
                proxies: TrustedProxies { networks: networks?, header: header? },
                cors_origins: cors_origins?,
                log: log?,
                log_filter: log_filter?,
                traces: traces?,
            })
        })()
        .ok_or_else(|| Faults(vec![Fault { name: "(settings)".into(), expected: "a value for each".into() }]))
    }

    /// Things that work and that an operator should know about.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self.passwords.is_below_floor() {
            warnings.push(
                "the LATCHKEY_ARGON2_ settings are below the OWASP floor (19456 KiB with 2 iterations, or an equal)",
            );
        }
        if !self.public_url.is_https() && !self.public_url.is_loopback() {
            warnings.push(
                "LATCHKEY_PUBLIC_URL is plain http on a name that is not this machine: passwords travel in the clear",
            );
        }
        if self.public_url.is_https() && self.mail.from.email.domain() == "localhost" {
            warnings.push("LATCHKEY_MAIL_FROM is an address at localhost: most mail servers will not take it");
        }
        if !self.tokens.audience.iter().any(|audience| audience == self.public_url.as_str()) {
            warnings.push("LATCHKEY_AUDIENCE does not hold the public URL: access tokens will not work at /me");
        }
        warnings
    }
}

/// Every setting with what is in effect, secrets redacted: the text of `latchkey config check`.
#[must_use]
pub fn effective(given: &Given) -> Vec<(&'static str, String)> {
    SETTINGS
        .iter()
        .map(|setting| {
            let file = format!("{}_FILE", setting.name);
            let value = match (given.get(setting.name), given.get(&file)) {
                (Some(_), _) if setting.secret => "[set]".to_owned(),
                (None, Some(_)) if setting.secret => "[set, from a file]".to_owned(),
                (Some(value), _) => value.to_owned(),
                (None, _) if setting.default.is_empty() => setting.unset.to_owned(),
                (None, _) => setting.default.to_owned(),
            };
            (setting.name, value)
        })
        .collect()
}

/// The text of `.env.example`: every setting, its default, one line on it.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# Every setting of Latchkey with its default. Copy to `.env` (read from the working directory only) and uncomment.\n\
         # Each secret can also be given as NAME_FILE, a path to a file that holds it.\n",
    );
    for setting in SETTINGS {
        let _ = fmt::Write::write_fmt(
            &mut text,
            format_args!("\n# {}\n#{}={}\n", setting.help, setting.name, setting.default),
        );
    }
    text
}
