//! The real [`App`] on a stack, with a clock that stands until it is moved, and a door to its database.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    time::Duration,
};

use axum::Router;
use latchkey::{
    ambient::Ambient,
    app::{App, StartError},
    config::{Config, Given},
    hashing::HashMemory,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use super::{Client, Person, Stack, StackKind};

/// 2026-11-22T10:56:00Z.
const START: i64 = 1_795_344_960_000;

/// A server under test.
pub struct TestApp {
    pub app: App,
    pub router: Router,
    pub clock: Arc<AtomicI64>,
    pub settings: Vec<(String, String)>,
    kind: StackKind,
}

/// A way into the database beside the app.
enum Door {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Deref for TestApp {
    type Target = App;

    fn deref(&self) -> &App {
        &self.app
    }
}

impl TestApp {
    pub(super) async fn start(stack: &Stack, settings: &[(&str, &str)]) -> Self {
        Self::try_start(stack, settings).await.unwrap_or_else(|error| panic!("the app does not start: {error:?}"))
    }

    /// As [`Stack::app_with`], for settings that may be refused.
    pub async fn try_start(stack: &Stack, settings: &[(&str, &str)]) -> Result<Self, StartError> {
        let mut all = stack.settings().await;
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let config = Config::from_given(&Given::from_pairs(all.clone())).unwrap_or_else(|faults| panic!("{faults}"));
        let clock = Arc::new(AtomicI64::new(START));
        // Nodes of one test draw different dice.
        let seed = rand_seed();
        let app = App::build(config, Ambient::manual(Arc::clone(&clock), seed)).await?;
        Ok(Self { router: app.router(), app, clock, settings: all, kind: stack.kind })
    }

    /// Moves the clock forward.
    pub fn pass(&self, duration: Duration) {
        self.clock.fetch_add(i64::try_from(duration.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Somebody without any credential.
    pub fn anonymous(&self) -> Client {
        Client::of(self.router.clone())
    }

    /// A registered person, signed in.
    pub async fn person(&self, name: &str) -> Person {
        self.anonymous().register(name).await
    }

    /// Keeps the one hashing thread of the app busy until told to let go.
    pub async fn hold_hashing(&self) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
        let (release, held) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let hasher = self.hasher.clone();
        let holder = tokio::spawn(async move {
            let work = move |_: &mut HashMemory| {
                let _ = begun.send(());
                let _ = held.recv_timeout(Duration::from_secs(60));
            };
            hasher.run(work).await.unwrap();
        });
        has_begun.await.unwrap();
        (release, holder)
    }

    /// Runs SQL beside the app, as another program would.
    pub async fn sql(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.connect().await {
            Door::Sqlite(mut door) => sqlx::raw_sql(sql).execute(&mut door).await.map(drop),
            Door::Postgres(mut door) => sqlx::raw_sql(sql).execute(&mut door).await.map(drop),
        }
        .expect("good SQL");
    }

    /// One number out of the database.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.connect().await {
            Door::Sqlite(mut door) => sqlx::query_scalar(sql).fetch_one(&mut door).await.expect("good SQL"),
            Door::Postgres(mut door) => sqlx::query_scalar(sql).fetch_one(&mut door).await.expect("good SQL"),
        }
    }

    /// One text out of the database.
    pub async fn text(&self, sql: &str) -> String {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.connect().await {
            Door::Sqlite(mut door) => sqlx::query_scalar(sql).fetch_one(&mut door).await.expect("good SQL"),
            Door::Postgres(mut door) => sqlx::query_scalar(sql).fetch_one(&mut door).await.expect("good SQL"),
        }
    }

    async fn connect(&self) -> Door {
        if self.kind == StackKind::Embedded {
            Door::Sqlite(SqliteConnection::connect(&self.database()).await.expect("the file opens"))
        } else {
            Door::Postgres(PgConnection::connect(&self.database()).await.expect("PostgreSQL answers"))
        }
    }

    /// How many events of this kind there are.
    pub async fn events(&self, kind: &str) -> i64 {
        self.number(&format!("SELECT COUNT(*) FROM events WHERE kind = '{kind}'")).await
    }

    /// An id as a literal of this database.
    pub fn id(&self, id: Uuid) -> String {
        if self.kind == StackKind::Embedded { format!("x'{}'", id.simple()) } else { format!("'{id}'") }
    }

    fn database(&self) -> String {
        let setting =
            |name: &str| self.settings.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match self.kind {
            StackKind::Embedded => format!("sqlite://{}/latchkey.db", setting("LATCHKEY_DATA_DIR").unwrap()),
            _ => setting("DATABASE_URL").unwrap(),
        }
    }
}

fn rand_seed() -> u64 {
    use std::sync::atomic::AtomicU64;
    static SEED: AtomicU64 = AtomicU64::new(1);
    SEED.fetch_add(1, Ordering::SeqCst)
}
