//! Latchkey: a self-contained auth server.
//!
//! # A tour
//!
//! A request comes in through [`http`]: the accept loop (`http/serve.rs`), then the envelope (`http/envelope.rs`), which
//! gives it an id, a log line and, if something goes wrong, an RFC 9457 body out of the one table in [`error`].
//! Its route belongs to a **slice**: [`accounts`] (people), [`sessions`] (login, refresh, logout), [`passwords`]
//! (which ones are taken, and forgotten ones), [`verification`] (codes by mail, and the worker that sends all mail). A
//! slice goes from handler to domain function to store, in one folder.
//!
//! Slices stand on a flat **kernel** that knows none of them:
//!
//! - [`db`]: SQLite or PostgreSQL from one SQL text; [`events`] and [`mail`] are tables that acts write to.
//! - [`mail`]: the outbox, templates, and handing mails over.
//! - [`ephemeral`]: sessions, flows of codes and counters, in Redis or in the database, and the rules of refreshes and
//!   attempts.
//! - [`hashing`]: Argon2id on threads of its own.
//! - [`keys`]: the ring of ES256 keys; signing and verifying access tokens.
//! - [`backup`]: taking one, and what must not live again after a restore.
//! - `generations`: bounded maps of what was used lately; `allocator`: giving memory back; [`clocks`]: comparing them at
//!   start.
//! - [`names`]: canonical addresses and usernames.
//! - [`ambient`]: the only doors to time and randomness; [`secret`]: things that must not be printed.
//! - [`metrics`]: what is counted, for Prometheus.
//! - [`config`]: every setting; [`app`]: how it is all put together; [`cli`]: the commands.

#![deny(missing_docs)]

pub mod accounts;
mod allocator;
pub mod ambient;
pub mod app;
pub mod backup;
pub mod cli;
pub mod clocks;
pub mod config;
pub mod db;
pub mod ephemeral;
pub mod error;
pub mod events;
mod generations;
pub mod hashing;
pub mod http;
pub mod keys;
pub mod mail;
pub mod metrics;
pub mod names;
pub mod passwords;
pub mod secret;
pub mod sessions;
mod telemetry;
pub mod verification;

/// The client that every session belongs to until clients of their own come.
pub const BUILT_IN_CLIENT: &str = "latchkey";
/// What its access tokens are for: Latchkey's own endpoints.
pub const BUILT_IN_SCOPE: &str = "account";
