//! How it is all put together.
//!
//! [`App::build`] opens what the settings name, in the order in which a fault is cheapest to find: folders and lock,
//! database and schema, secret, keys, ephemeral store, hashing threads. The layers around the routes, from outside in:
//!
//! 1. `envelope`: everything below it, refusals and panics included, gets an id, headers, a body and a log line. CORS and
//!    panics are its affair as well: axum copies what is around a route for every request, and each layer those below it.
//! 2. the limits of each client network, before anything of the body is read.
//! 3. routes, with our own answers for unknown paths and methods.

mod routes;

use std::{
    fs, io,
    ops::Deref,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, middleware};
use tokio::task::JoinHandle;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    accounts, allocator,
    ambient::Ambient,
    clocks::{self, ClockError},
    config::Config,
    db::{self, Db, OpenError},
    ephemeral::{Ephemeral, RedisStore, SqlStore},
    events,
    hashing::{Hasher, Policy},
    http::{self, Limits, Probe, Refusals},
    keys::{self, KeyFiles, KeyRing, RingError},
    mail::{Post, PostError, outbox},
    metrics::Metrics,
    passwords,
    secret::ServerSecrets,
    sessions,
    verification::{self, courier},
};

/// How often a node looks whether the ring changed.
const RING_PERIOD: Duration = Duration::from_secs(2);
/// How often what is kept of callers in memory and not asked for any more is dropped.
const RECENT_PERIOD: Duration = Duration::from_secs(2);
/// The same for tokens whose signature was checked and for idle connections, and how often freed memory is given back.
const VERIFIED_PERIOD: Duration = Duration::from_secs(30);
/// How often what is dead is swept.
const SWEEP_PERIOD: Duration = Duration::from_secs(10 * 60);

/// Begins what takes a core some ten milliseconds when it is first used, beside a start that waits for stores: the seeding
/// of the dice (AWS-LC measures the jitter of the CPU) and the gauging of the clock of the limits. Whoever needs one of
/// them before it is done waits for it.
pub fn warm_up() {
    let work = || {
        let _ = Ambient::system().bytes::<1>();
        let _ = governor::clock::DefaultClock::default();
    };
    // Without a thread it happens when it is needed.
    let _ = std::thread::Builder::new().name("latchkey-warm".to_owned()).spawn(work);
}

/// Everything a handler may need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

/// The parts of an [`App`].
#[derive(Debug)]
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// Time and randomness.
    pub ambient: Ambient,
    /// People, ends, events, keys, mails.
    pub db: Db,
    /// Sessions.
    pub ephemeral: Ephemeral,
    /// The hashing threads.
    pub hasher: Hasher,
    /// The key ring.
    pub keys: KeyRing,
    /// What was read of callers a moment ago.
    pub recent: accounts::Recent,
    /// The server secrets.
    pub secrets: ServerSecrets,
    /// What it takes to send a mail.
    pub post: Post,
    /// How often each problem was answered.
    pub refusals: Refusals,
    /// What else is counted.
    pub metrics: Arc<Metrics>,
    /// What the stores said when metrics were last asked for.
    pub probe: Probe,
    stopping: AtomicBool,
    /// Held as long as the server runs; a second server on the same file does not start.
    _lock: Option<fs::File>,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made or locked.
    #[error("cannot use the data folder {path}: is it writable by this user?")]
    DataDir {
        /// The folder.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else has the embedded database.
    #[error(
        "another Latchkey server is running on {0}: stop it, or give this one a LATCHKEY_DATA_DIR of its own; \
         several servers need DATABASE_URL"
    )]
    Locked(String),
    /// The database.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// Mails.
    #[error(transparent)]
    Post(#[from] PostError),
    /// Keys and secret.
    #[error(transparent)]
    Keys(#[from] RingError),
    /// Clocks that are apart, or a Redis that does not answer.
    #[error(transparent)]
    Clocks(#[from] ClockError),
}

/// Opens the database that the settings name.
///
/// # Errors
/// When the data folder or the database cannot be used.
pub async fn open_database(config: &Config) -> Result<Db, StartError> {
    if config.database_url.is_none() || config.smtp.is_none() {
        make_data_dir(config)?;
    }
    if let Some(url) = &config.database_url {
        return Ok(Db::open_postgres(url, config.db_pool).await?);
    }
    Ok(Db::open_sqlite(&config.data_dir.join("latchkey.db")).await?)
}

/// The ephemeral store that the settings name; Redis is connected to behind this.
#[must_use]
pub fn open_ephemeral(config: &Config, db: &Db) -> Ephemeral {
    let longest = config.tokens.refresh_absolute_ttl;
    match &config.redis_url {
        Some(url) => Ephemeral::Redis(Box::new(RedisStore::new(url, &config.redis_prefix, longest))),
        None => Ephemeral::Sql(SqlStore::new(db.clone(), longest)),
    }
}

/// Nobody else on the machine has business with password hashes, so the folder is closed to others when it is made.
fn make_data_dir(config: &Config) -> Result<(), StartError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .map_err(|source| data_dir_error(&config.data_dir, source))
}

fn data_dir_error(path: &Path, source: io::Error) -> StartError {
    StartError::DataDir { path: path.display().to_string(), source }
}

/// The lock between servers on one embedded database. A server takes it alone (`fs::File::try_lock`); commands that
/// cannot work beside one share it (`fs::File::try_lock_shared`).
///
/// # Errors
/// When it cannot be had, or the data folder cannot be used.
pub fn lock(
    config: &Config,
    take: fn(&fs::File) -> Result<(), fs::TryLockError>,
) -> Result<Option<fs::File>, StartError> {
    if config.database_url.is_some() {
        return Ok(None);
    }
    make_data_dir(config)?;
    let path = config.data_dir.join("latchkey.lock");
    let file = fs::File::create(&path).map_err(|source| data_dir_error(&config.data_dir, source))?;
    match take(&file) {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(StartError::Locked(config.data_dir.display().to_string())),
        Err(fs::TryLockError::Error(source)) => Err(data_dir_error(&config.data_dir, source)),
    }
}

/// The API document (OpenAPI 3.1) of a server at `public_url`, made from the handlers.
#[must_use]
pub fn api_document(public_url: &str) -> serde_json::Value {
    let (_, collected) = App::routes(&Limits::default()).split_for_parts();
    http::openapi::document(&collected, public_url)
}

/// Whether keys and secret may be made without being asked for: only where nobody but this machine relies on them.
#[must_use]
pub fn may_make_keys(config: &Config) -> bool {
    !config.public_url.is_https() && config.public_url.is_loopback()
}

impl App {
    /// Opens and checks everything; nothing serves yet.
    ///
    /// # Errors
    /// The first part that cannot be used, with what to do about it.
    pub async fn build(config: Config, ambient: Ambient) -> Result<Self, StartError> {
        let post = Post::open(&config)?;
        let lock = lock(&config, fs::File::try_lock)?;
        let db = open_database(&config).await?;
        db.migrate().await?;

        let files = KeyFiles::new(&config.jwt_dir);
        let may_make = may_make_keys(&config);
        let secrets = keys::open_secrets(&db, config.secrets.as_deref(), &files, may_make, &ambient).await?;
        let ring = KeyRing::open(&db, &files, config.public_url.as_str(), may_make, &ambient).await?;

        let ephemeral = open_ephemeral(&config, &db);
        // A clock that a test moves is nobody else's.
        if ambient.is_system() {
            clocks::compare(&ambient, &db, &ephemeral).await?;
        }
        let passwords = &config.passwords;
        let hasher =
            Hasher::start(Policy::new(passwords), passwords.hash_threads, passwords.hash_queue, ambient.clone());
        let metrics = Arc::new(Metrics::new(&routes::ROUTES, ambient.now()));
        Ok(Self(Arc::new(Parts {
            config,
            ambient,
            db,
            ephemeral,
            hasher,
            keys: ring,
            recent: accounts::Recent::default(),
            secrets,
            post,
            refusals: Refusals::default(),
            metrics,
            probe: Probe::default(),
            stopping: AtomicBool::new(false),
            _lock: lock,
        })))
    }

    /// The public routes.
    pub fn router(&self) -> Router {
        let (router, _) = Self::routes(&Limits::new(&self.config.limits, &self.metrics.limits)).split_for_parts();
        self.wrap(router)
    }

    /// The API document of this server.
    #[must_use]
    pub fn openapi(&self) -> serde_json::Value {
        api_document(self.config.public_url.as_str())
    }

    /// The routes of the internal listener.
    pub fn internal_router(&self) -> Router {
        self.wrap(http::internal_routes())
    }

    fn routes(limits: &Limits) -> OpenApiRouter<Self> {
        OpenApiRouter::new()
            .merge(accounts::routes(limits))
            .merge(sessions::routes(limits))
            .merge(passwords::routes(limits))
            .merge(verification::routes(limits))
            .merge(http::well_known_routes())
            .merge(http::docs_routes())
            .merge(http::health_routes())
    }

    /// Puts the layers around these routes.
    pub fn wrap(&self, router: Router<Self>) -> Router {
        let envelope = http::Envelope {
            ambient: self.ambient.clone(),
            public_url: self.config.public_url.as_str().to_owned(),
            https: self.config.public_url.is_https(),
            proxies: self.config.proxies.clone(),
            refusals: self.refusals.clone(),
            metrics: Arc::clone(&self.metrics),
            cors: http::Cors::new(&self.config.cors_origins),
        };
        router
            .fallback(http::not_found)
            .method_not_allowed_fallback(http::method_not_allowed)
            .layer(middleware::from_fn_with_state(Arc::new(envelope), http::envelope))
            .with_state(self.clone())
    }

    /// Starts what runs beside the requests. Each job is harmless to run on every node: what is swept twice is gone once.
    ///
    /// Tells when the worker of mails has come to its end after a stop: what it has in hand should not be sent twice.
    pub fn spawn_jobs(&self) -> JoinHandle<()> {
        let app = self.clone();
        tokio::spawn(async move {
            while !app.is_stopping() {
                tokio::time::sleep(RING_PERIOD).await;
                if let Err(error) = app.keys.reload(&app.db).await {
                    tracing::warn!(%error, "cannot read the key ring; going on with what is known");
                }
            }
        });
        let app = self.clone();
        tokio::spawn(async move {
            let (mut passed, period, mut memory) = (Duration::ZERO, RECENT_PERIOD, allocator::Watch::default());
            while !app.is_stopping() {
                tokio::time::sleep(period).await;
                app.recent.turn();
                passed += period;
                if passed >= VERIFIED_PERIOD {
                    passed = Duration::ZERO;
                    app.keys.forget_unused();
                    app.db.forget_idle();
                    memory.give_back(VERIFIED_PERIOD);
                }
            }
        });
        let app = self.clone();
        tokio::spawn(async move {
            while !app.is_stopping() {
                tokio::time::sleep(SWEEP_PERIOD).await;
                app.sweep().await;
            }
        });
        tokio::spawn(courier::run(self.clone()))
    }

    /// Removes what is dead: sessions, remembered ends, old events. In small transactions, until there is no more.
    pub async fn sweep(&self) {
        let now = self.ambient.now();
        macro_rules! sweep {
            ($what:literal, $batch:expr) => {
                loop {
                    match $batch.await {
                        Ok(db::SWEEP_BATCH) => {}
                        Ok(_) => break,
                        Err(error) => break tracing::warn!(%error, "cannot sweep {}", $what),
                    }
                }
            };
        }
        sweep!("sessions", self.ephemeral.sweep(now));
        sweep!("remembered ends", sessions::sweep(&self.db, now));
        sweep!("pending registrations", verification::sweep(&self.db, now));
        sweep!("mails that came to their end", outbox::sweep(&self.db, now));
        sweep!("deleted people", accounts::sweep(&self.db, now, self.config.deleted_retention));
        sweep!("outlived signing keys", keys::sweep(&self.db, &self.ambient));
        sweep!("events", events::sweep(&self.db, &self.ambient, self.config.event_retention));
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Says that a stop was asked for: `/health/live` answers 503 from now on.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
