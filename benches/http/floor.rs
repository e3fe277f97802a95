//! The floors: bare handlers that do what ours cannot do without, through the same libraries and the same accept loop.
//!
//! - `/json`: an answer of the same shape as `/me`, and nothing else.
//! - `/read/{n}`: the same with the person read by primary key.
//! - `/both/{n}`: that read and one of the session, at the same time.
//! - `/move/{n}`: the script (or, embedded, the update) that moves a session, that read, and one signature.
//! - `/address/{n}`: the person searched by address.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use latchkey::{
    accounts::{Person, User},
    ambient::Ambient,
    http::{Gate, serve},
};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions, PgPool, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::people::{self, NONCE};

/// Where people and sessions are, as JSON on standard input.
#[derive(Serialize, Deserialize)]
pub struct Settings {
    pub postgres: Option<String>,
    pub redis: Option<String>,
    pub prefix: String,
    pub sqlite: std::path::PathBuf,
    /// Sessions that are moved begin here, and there are so many.
    pub moved: (u64, u64),
}

#[derive(Clone)]
struct Floor(Arc<Parts>);

struct Parts {
    store: Store,
    settings: Settings,
    generations: Vec<AtomicU32>,
    pair: EcdsaKeyPair,
    ambient: Ambient,
}

enum Store {
    Shared(PgPool, MultiplexedConnection, String),
    Embedded { read: SqlitePool, write: SqlitePool },
}

/// Serves until it is killed.
pub fn run() {
    let settings: Settings = serde_json::from_reader(io::stdin()).expect("settings");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let floor = Floor(Arc::new(Parts {
            store: Store::open(&settings).await,
            generations: (0..settings.moved.1).map(|_| AtomicU32::new(0)).collect(),
            settings,
            pair: key,
            ambient: Ambient::system(),
        }));
        let router = Router::new()
            .route("/json", get(plain))
            .route("/read/{n}", get(read))
            .route("/both/{n}", get(both))
            .route("/move/{n}", get(moved))
            .route("/address/{n}", get(address))
            .with_state(floor);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let serving = serve(listener, router, Gate::default(), stopped).expect("a listener");
        println!("{}", serving.address);
        serving.drained().await;
    });
}

impl Store {
    /// With the options of `db/connect.rs`.
    async fn open(settings: &Settings) -> Self {
        if let (Some(postgres), Some(redis)) = (&settings.postgres, &settings.redis) {
            let options: PgConnectOptions = postgres.parse().expect("a URL");
            let pool = PgPoolOptions::new().max_connections(10).test_before_acquire(false);
            let pool = pool.connect_with(options.disable_statement_logging()).await.expect("PostgreSQL answers");
            let client = redis::Client::open(redis.as_str()).expect("a URL");
            let mut redis = client.get_multiplexed_async_connection().await.expect("Redis answers");
            let script = include_str!("../../src/ephemeral/lua/rotate.lua");
            let name = redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(&mut redis).await.expect("a script");
            return Self::Shared(pool, redis, name);
        }
        let options = SqliteConnectOptions::new()
            .filename(&settings.sqlite)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).test_before_acquire(false);
        let write = pool(1).connect_with(options.clone()).await.expect("SQLite opens");
        Self::Embedded { read: pool(4).connect_lazy_with(options), write }
    }
}

type Answer = Result<Json<Value>, StatusCode>;
type Shown = Result<Json<User>, StatusCode>;

/// Whatever goes wrong is a 500, and the client ends the bench.
fn failed(error: impl std::fmt::Display) -> StatusCode {
    eprintln!("floor: {error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

#[derive(Serialize)]
struct Plain {
    id: uuid::Uuid,
    email: &'static str,
    email_verified: bool,
    username: Option<&'static str>,
    display_name: Option<&'static str>,
    roles: Vec<String>,
    status: &'static str,
    created_at: &'static str,
    updated_at: &'static str,
    last_login_at: Option<&'static str>,
}

async fn plain() -> Json<Plain> {
    Json(Plain {
        id: people::person(0),
        email: "p0@bench.example",
        email_verified: true,
        username: None,
        display_name: None,
        roles: Vec::new(),
        status: "active",
        created_at: "2026-11-22T10:56:00.123Z",
        updated_at: "2026-11-22T10:56:00.123Z",
        last_login_at: None,
    })
}

impl Parts {
    async fn person(&self, n: u64) -> Result<Person, StatusCode> {
        const BY_ID: &str = "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                                    created_at, updated_at, last_login_at FROM users WHERE id = $1";
        let person = match &self.store {
            Store::Shared(pool, ..) => sqlx::query_as(BY_ID).bind(people::person(n)).fetch_one(pool).await,
            Store::Embedded { read, .. } => sqlx::query_as(BY_ID).bind(people::person(n)).fetch_one(read).await,
        };
        person.map_err(failed)
    }

    async fn session(&self, n: u64) -> Result<Vec<u8>, StatusCode> {
        match &self.store {
            Store::Shared(_, redis, _) => {
                let mut get = redis::cmd("HGET");
                get.arg(people::key(&self.settings.prefix, n)).arg(people::session(n).as_bytes());
                get.query_async(&mut redis.clone()).await.map_err(failed)
            }
            Store::Embedded { read, .. } => {
                sqlx::query_scalar("SELECT record FROM sessions WHERE user_id = $1 AND session_id = $2")
                    .bind(people::person(n))
                    .bind(people::session(n))
                    .fetch_one(read)
                    .await
                    .map_err(failed)
            }
        }
    }

    /// Moves the session `n` on by one generation, with the server's own script.
    async fn rotate(&self, n: u64) -> Result<(), StatusCode> {
        let now = self.ambient.now();
        match &self.store {
            Store::Shared(_, redis, script) => {
                let (from, count) = self.settings.moved;
                let generation = self.generations[((n - from) % count) as usize].fetch_add(1, Ordering::Relaxed);
                let mut eval = redis::cmd("EVALSHA");
                eval.arg(script).arg(2).arg(people::key(&self.settings.prefix, n));
                eval.arg(format!("{}:{{{}}}:r:x", self.settings.prefix, people::person(n)));
                eval.arg(now.millis()).arg(people::session(n).as_bytes()).arg(generation);
                eval.arg(&people::token(n, NONCE).nonce_hash()).arg("0").arg(7 * 86400).arg(30_000).arg(30 * 86400);
                let (name, _): (String, Vec<u8>) = eval.arg(0).query_async(&mut redis.clone()).await.map_err(failed)?;
                if name == "moved" { Ok(()) } else { Err(failed(name)) }
            }
            Store::Embedded { write, .. } => {
                let record = people::record(now).pack();
                sqlx::query("UPDATE sessions SET record = $3, expires_at = $4 WHERE user_id = $1 AND session_id = $2")
                    .bind(people::person(n))
                    .bind(people::session(n))
                    .bind(record)
                    .bind(now.after(Duration::from_secs(7 * 86400)))
                    .execute(write)
                    .await
                    .map(drop)
                    .map_err(failed)
            }
        }
    }

    fn sign(&self) -> String {
        // As long as what the server signs.
        let signature = self.pair.sign(&SystemRandom::new(), &[b'x'; 640]).expect("a signature");
        URL_SAFE_NO_PAD.encode(signature)
    }
}

async fn read(State(floor): State<Floor>, Path(n): Path<u64>) -> Shown {
    Ok(Json(floor.0.person(n).await?.into()))
}

async fn both(State(floor): State<Floor>, Path(n): Path<u64>) -> Shown {
    let (person, session) = tokio::join!(floor.0.person(n), floor.0.session(n));
    session?;
    Ok(Json(person?.into()))
}

async fn moved(State(floor): State<Floor>, Path(n): Path<u64>) -> Answer {
    let person = floor.0.person(n).await?;
    floor.0.rotate(n).await?;
    Ok(Json(json!({ "access_token": floor.0.sign(), "token_type": "Bearer", "session_id": person.id })))
}

async fn address(State(floor): State<Floor>, Path(n): Path<u64>) -> Shown {
    const BY_ADDRESS: &str = "SELECT id, email, email_verified, username, display_name, roles, status, epoch,
                                     created_at, updated_at, last_login_at
                              FROM users WHERE email = $1 AND deleted_at IS NULL";
    let person: Result<Person, _> = match &floor.0.store {
        Store::Shared(pool, ..) => sqlx::query_as(BY_ADDRESS).bind(people::address(n)).fetch_one(pool).await,
        Store::Embedded { read, .. } => sqlx::query_as(BY_ADDRESS).bind(people::address(n)).fetch_one(read).await,
    };
    Ok(Json(person.map_err(failed)?.into()))
}
