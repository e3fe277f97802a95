//! The stacks: where people and sessions live in a test.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use redis::aio::MultiplexedConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use super::{
    TestApp,
    redis::{RedisCluster, RedisServer, SentinelSet, redis_missing},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackKind {
    /// SQLite, sessions in the same file.
    Embedded,
    /// PostgreSQL, sessions in the same database.
    Pg,
    /// PostgreSQL and Redis.
    PgRedis,
    /// PostgreSQL and a Redis Cluster of our own.
    Cluster,
    /// PostgreSQL and a pair of Redis servers of our own, with Sentinels.
    Sentinel,
}

impl StackKind {
    pub const EVERY: [Self; 5] = [Self::Embedded, Self::Pg, Self::PgRedis, Self::Cluster, Self::Sentinel];
    /// One for each kind of store, whatever its topology.
    pub const ALL: [Self; 3] = [Self::Embedded, Self::Pg, Self::PgRedis];
    /// Where sessions may live: what has to do with them runs on all.
    pub const SESSIONS: [Self; 5] = Self::EVERY;
    /// Stacks on which several nodes can serve.
    pub const SHARED: [Self; 2] = [Self::Pg, Self::PgRedis];
    pub const REDIS: [Self; 1] = [Self::PgRedis];
    /// Redis in every topology.
    pub const REDISES: [Self; 3] = [Self::PgRedis, Self::Cluster, Self::Sentinel];

    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Pg => "pg",
            Self::PgRedis => "pg_redis",
            Self::Cluster => "cluster",
            Self::Sentinel => "sentinel",
        }
    }

    /// What is not there for it, if anything.
    pub fn missing(self) -> Option<&'static str> {
        let (postgres, redis) = (postgres_url().is_none(), redis_url().is_none());
        match self {
            Self::Embedded => None,
            _ if postgres => Some("LATCHKEY_TEST_DATABASE_URL is not set; scripts/test sets it"),
            Self::Pg => None,
            // Who runs without Redis does not want those either.
            _ if redis => Some("LATCHKEY_TEST_REDIS_URL is not set; scripts/test sets it"),
            Self::PgRedis => None,
            Self::Cluster | Self::Sentinel => redis_missing(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
pub fn postgres_url() -> Option<String> {
    std::env::var("LATCHKEY_TEST_DATABASE_URL").ok()
}

#[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
pub fn redis_url() -> Option<String> {
    std::env::var("LATCHKEY_TEST_REDIS_URL").ok()
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One test's own place on a stack: a folder, a database, a Redis prefix.
pub struct Stack {
    pub kind: StackKind,
    pub dir: TempDir,
    number: u32,
    database: tokio::sync::OnceCell<String>,
}

impl Stack {
    pub fn new(kind: StackKind) -> Self {
        Self {
            kind,
            dir: TempDir::new().expect("a temporary folder"),
            number: NUMBER.fetch_add(1, Ordering::SeqCst),
            database: tokio::sync::OnceCell::new(),
        }
    }

    /// The settings of a server on this stack, cheap hashes and free ports included.
    pub async fn settings(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let mut settings = vec![
            ("LATCHKEY_DATA_DIR".to_owned(), path("data")),
            ("LATCHKEY_JWT_DIR".to_owned(), path("jwt")),
            ("LATCHKEY_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("LATCHKEY_INTERNAL_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("LATCHKEY_ARGON2_MEMORY_KIB".to_owned(), "7168".to_owned()),
            ("LATCHKEY_ARGON2_ITERATIONS".to_owned(), "1".to_owned()),
            ("LATCHKEY_DB_POOL".to_owned(), "5".to_owned()),
            // A test knocks as often as it likes, unless limits are its subject.
            ("LATCHKEY_LIMIT_REGISTER".to_owned(), "off".to_owned()),
            ("LATCHKEY_LIMIT_LOGIN".to_owned(), "off".to_owned()),
            ("LATCHKEY_LIMIT_REFRESH".to_owned(), "off".to_owned()),
            ("LATCHKEY_LIMIT_LOGOUT".to_owned(), "off".to_owned()),
            ("LATCHKEY_LIMIT_CODES".to_owned(), "off".to_owned()),
            ("LATCHKEY_LIMIT_ACCOUNT".to_owned(), "off".to_owned()),
        ];
        if self.kind != StackKind::Embedded {
            settings.push(("DATABASE_URL".to_owned(), self.database_url().await));
        }
        let redis = match self.kind {
            StackKind::Embedded | StackKind::Pg => return settings,
            StackKind::PgRedis => redis_url().expect("checked before the test"),
            StackKind::Cluster => CLUSTER.get(RedisCluster::of_masters).await.url(),
            StackKind::Sentinel => SENTINEL.get(SentinelSet::calm).await.url(),
        };
        settings.push(("REDIS_URL".to_owned(), redis));
        settings.push(("LATCHKEY_REDIS_PREFIX".to_owned(), self.redis_prefix()));
        settings
    }

    /// A connection past the app to each Redis master of this stack.
    pub async fn redis_masters(&self) -> Vec<MultiplexedConnection> {
        match self.kind {
            StackKind::Embedded | StackKind::Pg => Vec::new(),
            StackKind::PgRedis => {
                let client = redis::Client::open(redis_url().expect("checked before the test")).unwrap();
                vec![client.get_multiplexed_async_connection().await.expect("Redis answers")]
            }
            StackKind::Cluster => {
                let cluster = CLUSTER.get(RedisCluster::of_masters).await;
                futures_util::future::join_all(cluster.nodes.iter().map(RedisServer::connect)).await
            }
            StackKind::Sentinel => vec![SENTINEL.get(SentinelSet::calm).await.servers[0].connect().await],
        }
    }

    pub fn redis_prefix(&self) -> String {
        format!("t{}-{}", std::process::id(), self.number)
    }

    /// The URL of this test's own database, cloned from the migrated template.
    pub async fn database_url(&self) -> String {
        self.database
            .get_or_init(|| async {
                let (name, template) = (self.database_name(), template().await);
                admin(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
                with_database(&name)
            })
            .await
            .clone()
    }

    /// An empty database beside that of this test, for what is restored; it goes with it.
    pub async fn empty_database(&self) -> String {
        let _ = self.database_url().await;
        let name = format!("{}_b", self.database_name());
        admin(&format!("CREATE DATABASE {name}")).await;
        with_database(&name)
    }

    fn database_name(&self) -> String {
        format!("lk_test_{}_{}", std::process::id(), self.number)
    }

    /// An app on this stack with the settings of the stack.
    pub async fn app(&self) -> TestApp {
        self.app_with(&[]).await
    }

    /// An app on this stack; `settings` win over those of the stack. A second call makes a second node.
    pub async fn app_with(&self, settings: &[(&str, &str)]) -> TestApp {
        TestApp::start(self, settings).await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.database.get().is_some() {
            let name = self.database_name();
            let drop = |name| async move { admin(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await };
            // In a thread with a runtime of its own: a drop cannot wait for this one.
            let both = move || {
                block_on(drop(format!("{name}_b")));
                block_on(drop(name));
            };
            let _ = std::thread::spawn(both).join();
        }
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

fn with_database(name: &str) -> String {
    let url = postgres_url().expect("checked before the test");
    let (base, query) = url.split_once('?').map_or((url.as_str(), None), |(base, query)| (base, Some(query)));
    let authority_at = base.find("://").map_or(0, |at| at + 3);
    let base = base[authority_at..].find('/').map_or(base, |at| &base[..authority_at + at]);
    match query {
        Some(query) => format!("{base}/{name}?{query}"),
        None => format!("{base}/{name}"),
    }
}

async fn admin(sql: &str) {
    let options: PgConnectOptions = postgres_url().expect("checked before the test").parse().expect("a URL");
    let mut connection = PgConnection::connect_with(&options).await.expect("PostgreSQL answers");
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.expect("a clean end");
}

static TEMPLATE: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();

/// The name of a database that has every migration: cloning it is much faster than migrating anew.
async fn template() -> &'static str {
    TEMPLATE
        .get_or_init(|| async {
            let name = format!("lk_template_{}", std::process::id());
            admin(&format!("CREATE DATABASE {name}")).await;
            let url = latchkey::secret::SecretText::new(with_database(&name));
            let db = latchkey::db::Db::open_postgres(&url, 1).await.expect("the template opens");
            db.migrate().await.expect("migrations run");
            db.close().await;
            name
        })
        .await
}

/// Servers that all tests of a stack share; the first one starts them.
struct Shared<T>(tokio::sync::Mutex<Option<Arc<T>>>);

static CLUSTER: Shared<RedisCluster> = Shared(tokio::sync::Mutex::const_new(None));
static SENTINEL: Shared<SentinelSet> = Shared(tokio::sync::Mutex::const_new(None));

impl<T> Shared<T> {
    async fn get<F: Future<Output = T>>(&self, start: impl FnOnce() -> F) -> Arc<T> {
        let mut servers = self.0.lock().await;
        match &*servers {
            Some(servers) => Arc::clone(servers),
            None => Arc::clone(servers.insert(Arc::new(start().await))),
        }
    }

    fn stop(&self) {
        if let Ok(mut servers) = self.0.try_lock() {
            servers.take();
        }
    }
}

/// Ends the servers that were started for stacks.
pub fn stop_servers() {
    CLUSTER.stop();
    SENTINEL.stop();
}

pub fn drop_template() {
    if let Some(name) = TEMPLATE.get() {
        block_on(admin(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
    }
}
