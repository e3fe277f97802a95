//! A stack of the bench's own: a folder, a database, a Redis prefix; filled in bulk, and taken away at the end.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use latchkey::{
    BUILT_IN_CLIENT, BUILT_IN_SCOPE,
    ambient::Ambient,
    config::{Config, Given},
    db::{Db, Timestamp},
    hashing::{Hasher, Policy},
    keys::{self, AccessClaims, Audience, KeyFiles, KeyRing, Signer},
    secret::{SecretText, ServerSecrets},
};
use redis::aio::MultiplexedConnection;
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, QueryBuilder, Sqlite, SqliteConnection,
    postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;

use crate::{
    floor,
    people::{self, NONCE, PASSWORD},
    process::Process,
};

/// The default, since every server here has it.
const ISSUER: &str = "http://localhost:3000";
const BATCH: usize = 10_000;

/// Where PostgreSQL and Redis are, if anywhere.
#[derive(Clone)]
pub struct Urls {
    pub postgres: String,
    pub redis: String,
}

impl Urls {
    /// What scripts/test and scripts/bench set.
    #[expect(clippy::disallowed_methods, reason = "a bench has settings of its own")]
    pub fn given() -> Option<Self> {
        let url = |name| std::env::var(name).ok();
        Some(Self { postgres: url("LATCHKEY_TEST_DATABASE_URL")?, redis: url("LATCHKEY_TEST_REDIS_URL")? })
    }

    /// The same with another database of Redis: as many keys as its own, and no more.
    pub fn numbered(&self, number: usize) -> Self {
        Self { redis: with_database(&self.redis, &number.to_string()), ..self.clone() }
    }
}

pub struct Stack {
    pub dir: TempDir,
    urls: Option<Urls>,
    database: String,
    pub prefix: String,
    ambient: Ambient,
}

/// What makes tokens that the server takes for its own.
pub struct Mint {
    signer: std::sync::Arc<Signer>,
    secrets: ServerSecrets,
    ambient: Ambient,
}

impl Stack {
    pub async fn new(urls: Option<Urls>) -> Self {
        static STACKS: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}_{}", std::process::id(), STACKS.fetch_add(1, Ordering::Relaxed));
        let dir = TempDir::new().expect("a folder");
        let (database, prefix) = (format!("lk_bench_{id}"), format!("b{id}"));
        let stack = Self { dir, urls, database, prefix, ambient: Ambient::system() };
        if let Some(urls) = &stack.urls {
            admin(&urls.postgres, &format!("CREATE DATABASE {}", stack.database)).await;
        }
        stack
    }

    pub fn is_shared(&self) -> bool {
        self.urls.is_some()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn database_url(&self) -> Option<String> {
        self.urls.as_ref().map(|urls| with_database(&urls.postgres, &self.database))
    }

    /// The settings of the server: the defaults, but for what keeps a bench from asking as often as it likes, and for
    /// mail, which would be written beside what is measured.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> = [
            ("LATCHKEY_INTERNAL_LISTEN", "off"),
            ("LATCHKEY_LIMIT_REGISTER", "off"),
            ("LATCHKEY_LIMIT_LOGIN", "off"),
            ("LATCHKEY_LIMIT_REFRESH", "off"),
            ("LATCHKEY_LIMIT_LOGOUT", "off"),
            ("LATCHKEY_LIMIT_CODES", "off"),
            ("LATCHKEY_LIMIT_ACCOUNT", "off"),
            ("LATCHKEY_MAX_CONNECTIONS_PER_ADDRESS", "off"),
            ("LATCHKEY_EMAIL_VERIFICATION", "off"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (name, folder) in [("LATCHKEY_DATA_DIR", "data"), ("LATCHKEY_JWT_DIR", "jwt")] {
            settings.push((name.to_owned(), self.path(folder).display().to_string()));
        }
        if let (Some(url), Some(urls)) = (self.database_url(), &self.urls) {
            settings.push(("DATABASE_URL".to_owned(), url));
            settings.push(("REDIS_URL".to_owned(), urls.redis.clone()));
            settings.push(("LATCHKEY_REDIS_PREFIX".to_owned(), self.prefix.clone()));
        }
        settings
    }

    pub fn server(&self) -> Process {
        Process::server(self.dir.path(), &self.settings())
    }

    /// The bare handlers on this stack; the sessions that they move are these.
    pub fn floor(&self, moved: (u64, u64)) -> Process {
        Process::floor(&floor::Settings {
            postgres: self.database_url(),
            redis: self.urls.as_ref().map(|urls| urls.redis.clone()),
            prefix: self.prefix.clone(),
            sqlite: self.path("data/latchkey.db"),
            moved,
        })
    }

    /// With the keys and the secret that the server made at its first start.
    pub async fn mint(&self) -> Mint {
        let files = KeyFiles::new(&self.path("jwt"));
        let db = match self.database_url() {
            Some(url) => Db::open_postgres(&SecretText::new(url), 1).await,
            None => Db::open_sqlite(&self.path("data/latchkey.db")).await,
        }
        .expect("the database opens");
        let ring = KeyRing::open(&db, &files, ISSUER, false, &self.ambient).await.expect("the server's ring");
        db.close().await;
        Mint {
            signer: ring.signer().expect("a key that signs"),
            secrets: keys::server_secrets(None, &files, false, &self.ambient).expect("the server's secret"),
            ambient: self.ambient.clone(),
        }
    }

    /// Makes these people, each with one session; all have the same password.
    pub async fn fill(&self, numbers: std::ops::Range<u64>) {
        let now = self.ambient.now();
        let passwords = Config::from_given(&Given::default()).expect("the defaults").passwords;
        let hasher = Hasher::start(Policy::new(&passwords), passwords.hash_threads, 1, self.ambient.clone());
        let hash = hasher.hash(SecretText::new(PASSWORD)).await.expect("a hash");
        let numbers: Vec<_> = numbers.collect();
        match &self.urls {
            Some(urls) => {
                let url = self.database_url().expect("a database");
                let mut postgres = PgConnection::connect(&url).await.expect("PostgreSQL answers");
                let mut redis = connect(&urls.redis).await;
                for numbers in numbers.chunks(BATCH) {
                    fill_postgres(&mut postgres, numbers, &hash, now).await;
                    self.fill_redis(&mut redis, numbers, now).await;
                }
                postgres.execute("ANALYZE").await.expect("statistics");
            }
            None => {
                let mut sqlite = self.sqlite().await;
                for numbers in numbers.chunks(BATCH) {
                    fill_sqlite(&mut sqlite, numbers, &hash, now).await;
                }
                // What was not yet written into the file would be written while something is measured.
                sqlite.execute("ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)").await.expect("statistics");
                sqlite.close().await.expect("a clean end");
            }
        }
    }

    async fn sqlite(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path("data/latchkey.db"));
        let options = options.busy_timeout(std::time::Duration::from_secs(5));
        SqliteConnection::connect_with(&options).await.expect("SQLite opens")
    }

    async fn fill_redis(&self, redis: &mut MultiplexedConnection, numbers: &[u64], now: Timestamp) {
        let record = people::record(now).pack();
        let mut pipe = redis::pipe();
        for &n in numbers {
            let key = people::key(&self.prefix, n);
            pipe.hset(&key, people::session(n).as_bytes(), &record).ignore();
            pipe.pexpire(&key, 7 * 86_400_000 + 3_600_000).ignore();
        }
        let () = pipe.query_async(redis).await.expect("Redis takes the sessions");
    }

    /// Bytes on disk of a person, indexes included, and of a session, where it is.
    pub async fn sizes(&self, count: u64) -> (f64, f64) {
        let Some(urls) = &self.urls else {
            let mut sqlite = self.sqlite().await;
            let mut size = async |prefix: &str| -> f64 {
                let sum = sqlx::query_scalar("SELECT COALESCE(SUM(pgsize), 0) FROM dbstat WHERE name LIKE $1");
                // Without the module there is the file as a whole.
                sum.bind(format!("%{prefix}%")).fetch_one(&mut sqlite).await.unwrap_or(0i64) as f64
            };
            let (people, sessions) = (size("users").await, size("sessions").await);
            if people > 0.0 {
                return (people / count as f64, sessions / count as f64);
            }
            let file = fs::metadata(self.path("data/latchkey.db")).map_or(0, |file| file.len());
            return (file as f64 / count as f64, f64::NAN);
        };
        let url = self.database_url().expect("a database");
        let mut postgres = PgConnection::connect(&url).await.expect("PostgreSQL answers");
        let people: i64 = sqlx::query_scalar("SELECT pg_total_relation_size('users')")
            .fetch_one(&mut postgres)
            .await
            .expect("a size");
        let mut redis = connect(&urls.redis).await;
        let (mut bytes, asked) = (0.0, 1000.min(count));
        for step in 0..asked {
            let key = people::key(&self.prefix, step * count / asked);
            let usage = redis::cmd("MEMORY").arg("USAGE").arg(key).query_async(&mut redis).await;
            bytes += usage.unwrap_or(0.0f64);
        }
        (people as f64 / count as f64, bytes / asked as f64)
    }

    /// Takes away what lies on servers; the folder goes by itself.
    async fn clear(&self) {
        let Some(urls) = &self.urls else { return };
        admin(&urls.postgres, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database)).await;
        let (mut redis, mut cursor) = (connect(&urls.redis).await, 0u64);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}:*", self.prefix)).arg("COUNT").arg(10_000);
            let Ok((next, found)) = scan.query_async::<(u64, Vec<String>)>(&mut redis).await else { return };
            if !found.is_empty() {
                let _: Result<u64, _> = redis::cmd("UNLINK").arg(found).query_async(&mut redis).await;
            }
            if next == 0 {
                return;
            }
            cursor = next;
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // In a thread with a runtime of its own: a drop cannot wait for the one it is dropped in.
        std::thread::scope(|scope| {
            let clear = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(self.clear());
            };
            let _ = scope.spawn(clear).join();
        });
    }
}

impl Mint {
    /// An access token of the session `n`, for an hour.
    pub fn access(&self, n: u64) -> String {
        let now = self.ambient.now();
        let claims = AccessClaims {
            iss: ISSUER.to_owned(),
            sub: people::person(n),
            aud: Audience::One(ISSUER.to_owned()),
            client_id: BUILT_IN_CLIENT.to_owned(),
            scope: BUILT_IN_SCOPE.to_owned(),
            iat: now.seconds(),
            exp: now.seconds() + 3600,
            nbf: None,
            jti: self.ambient.uuid(),
            sid: people::session(n),
            auth_time: Some(now.seconds()),
            amr: vec!["pwd".to_owned()],
            roles: Vec::new(),
        };
        self.signer.sign(&claims).expect("a token")
    }

    /// The first refresh token of the session `n`.
    pub fn refresh(&self, n: u64) -> String {
        people::token(n, NONCE).render(&self.secrets).expose().to_owned()
    }
}

async fn fill_postgres(postgres: &mut PgConnection, numbers: &[u64], hash: &str, now: Timestamp) {
    let ids: Vec<_> = numbers.iter().map(|&n| people::person(n)).collect();
    let addresses: Vec<_> = numbers.iter().map(|&n| people::address(n)).collect();
    sqlx::query(
        "INSERT INTO users (id, email, email_verified, roles, status, epoch, password_hash, created_at, updated_at)
         SELECT id, email, TRUE, '[]', 'active', 0, $3, $4, $4 FROM UNNEST($1::uuid[], $2::text[]) AS new (id, email)",
    )
    .bind(ids)
    .bind(addresses)
    .bind(hash)
    .bind(now)
    .execute(postgres)
    .await
    .expect("PostgreSQL takes the people");
}

async fn fill_sqlite(sqlite: &mut SqliteConnection, numbers: &[u64], hash: &str, now: Timestamp) {
    let (record, until) = (people::record(now), people::record(now).expires_at());
    let mut transaction = sqlite.begin().await.expect("a transaction");
    for numbers in numbers.chunks(500) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO users (id, email, email_verified, roles, status, epoch, password_hash, created_at, updated_at) ",
        );
        insert.push_values(numbers, |mut row, &n| {
            row.push_bind(people::person(n)).push_bind(people::address(n)).push("TRUE, '[]', 'active', 0");
            row.push_bind(hash.to_owned()).push_bind(now).push_bind(now);
        });
        insert.build().execute(&mut *transaction).await.expect("SQLite takes the people");
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO sessions (user_id, session_id, record, expires_at) ");
        insert.push_values(numbers, |mut row, &n| {
            row.push_bind(people::person(n)).push_bind(people::session(n));
            row.push_bind(record.pack()).push_bind(until);
        });
        insert.build().execute(&mut *transaction).await.expect("SQLite takes the sessions");
    }
    transaction.commit().await.expect("a commit");
}

async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    // A pipeline of ten thousand takes longer than a call of the server may.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await.expect("Redis answers")
}

async fn admin(url: &str, sql: &str) {
    let options: PgConnectOptions = url.parse().expect("a URL");
    let mut connection = PgConnection::connect_with(&options).await.expect("PostgreSQL answers");
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.expect("a clean end");
}

/// The URL with another database.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let base = base[authority..].find('/').map_or(base, |at| &base[..authority + at]);
    format!("{base}/{name}{query}")
}
