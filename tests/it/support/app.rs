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
    verification::courier,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use super::{Client, Person, Received, Stack, StackKind};

/// 2026-11-22T10:56:00Z.
const START: i64 = 1_795_344_960_000;

/// A server under test.
pub struct TestApp {
    pub app: App,
    pub router: Router,
    pub clock: Arc<AtomicI64>,
    set_by: Arc<AtomicI64>,
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
        let set_by = Arc::default();
        let app = App::build(config, Ambient::manual(Arc::clone(&clock), Arc::clone(&set_by), seed)).await?;
        Ok(Self { router: app.router(), app, clock, set_by, settings: all, kind: stack.kind })
    }

    /// Moves the clock forward.
    pub fn pass(&self, duration: Duration) {
        self.clock.fetch_add(i64::try_from(duration.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Sets the clock, so that it shows so many milliseconds more or less though no time passed.
    pub fn set_clock(&self, by: i64) {
        self.clock.fetch_add(by, Ordering::SeqCst);
        self.set_by.fetch_add(by, Ordering::SeqCst);
    }

    /// Somebody without any credential.
    pub fn anonymous(&self) -> Client {
        Client::of(self.router.clone())
    }

    /// A registered person, signed in.
    pub async fn person(&self, name: &str) -> Person {
        self.anonymous().register(name).await
    }

    /// Brings every mail that is due to its outcome, as the worker would.
    pub async fn deliver(&self) {
        let worker = self.ambient.uuid();
        while courier::round(&self.app, worker).await.expect("the database answers") > 0 {}
    }

    /// How many mails were posted besides the codes that verify an address, which every registration posts.
    pub async fn notices(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM outbox WHERE kind <> 'verify_address'").await
    }

    /// The mails of this kind that were written to this address, the oldest first.
    pub fn mails_to(&self, kind: &str, address: &str) -> Vec<Received> {
        let folder = std::path::Path::new(&self.setting("LATCHKEY_DATA_DIR").unwrap()).join("mail");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let ending = format!("-{kind}.eml");
        let mut paths: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(&ending))
            .collect();
        paths.sort();
        let mails = paths.iter().map(|path| Received::from_raw(&std::fs::read_to_string(path).unwrap()));
        mails.filter(|mail| mail.header("To").as_deref() == Some(address)).collect()
    }

    /// The last mail of this kind to this address, after everything due was delivered.
    pub async fn mail_to(&self, kind: &str, address: &str) -> Received {
        self.deliver().await;
        self.mails_to(kind, address).pop().unwrap_or_else(|| panic!("no {kind} to {address}"))
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

    /// Runs SQL beside the app, as another program would, and lets pass how long the app may not feel it.
    pub async fn sql(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.connect().await {
            Door::Sqlite(mut door) => sqlx::raw_sql(sql).execute(&mut door).await.map(drop),
            Door::Postgres(mut door) => sqlx::raw_sql(sql).execute(&mut door).await.map(drop),
        }
        .expect("good SQL");
        self.pass(Duration::from_millis(500));
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

    /// Ends it, and lets go of its database.
    pub async fn stop(self) {
        self.app.db.close().await;
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

    fn setting(&self, name: &str) -> Option<String> {
        self.settings.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    fn database(&self) -> String {
        match self.kind {
            StackKind::Embedded => format!("sqlite://{}/latchkey.db", self.setting("LATCHKEY_DATA_DIR").unwrap()),
            _ => self.setting("DATABASE_URL").unwrap(),
        }
    }
}

fn rand_seed() -> u64 {
    use std::sync::atomic::AtomicU64;
    static SEED: AtomicU64 = AtomicU64::new(1);
    SEED.fetch_add(1, Ordering::SeqCst)
}
