//! HTTP as Latchkey speaks it: bodies in, problems out, headers, and the sockets below.
//!
//! A request passes `envelope` (request id, size of headers and body, the log line, response headers, problems) and
//! then its route. The refusals of the contract come in this order because the pieces stand in this order: 431 and 413
//! in the envelope, 429 in [`Limit`], then 415, 400 and 422 in [`Json`], then what the handler says.

mod bearer;
pub mod client_address;
mod connection;
mod context;
mod cookies;
mod cors;
mod docs;
mod envelope;
mod fields;
mod finish;
mod frames;
mod health;
mod json;
mod language;
mod limits;
mod metrics;
pub mod openapi;
mod path;
mod patience;
mod refusals;
mod serve;
mod tls;
mod well_known;

pub use bearer::Bearer;
pub use client_address::{ProxyHeader, TrustedProxies};
pub use context::Peer;
pub use cookies::{Origins, cookie, set_cookie};
pub use cors::Cors;
pub use docs::routes as docs_routes;
pub use envelope::{Envelope, MOST_BODY_BYTES, envelope, method_not_allowed, not_found};
pub use fields::{Fields, FromFields};
pub use finish::{Finish, finish, nothing_left};
pub use health::{internal_routes, routes as health_routes};
pub use json::Json;
pub use language::AcceptLanguage;
pub use limits::{Limit, Limits, Quota};
pub use metrics::Probe;
pub use path::PathId;
pub use refusals::Refusals;
pub use serve::{Gate, Serving, serve, serve_tls};
pub use tls::{Certificates, LOOK_PERIOD, Look, Pair, TlsFault, TlsFiles};
pub use well_known::routes as well_known_routes;
