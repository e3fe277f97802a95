//! Signs of life. `/health` is public and touches nothing; the internal ones say more.
//!
//! `/health/live` is for probes: an orchestrator that probed the database would take every node out at once when the
//! database stumbles. `/health/ready` is for people and alerts.

use std::time::Instant;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::metrics::metrics;
use crate::app::App;

/// The public route.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health))
}

/// The routes of the internal listener.
pub fn internal_routes() -> Router<App> {
    Router::new().route("/health/live", get(live)).route("/health/ready", get(ready)).route("/metrics", get(metrics))
}

#[derive(Serialize, ToSchema)]
struct Health {
    #[schema(example = "ok")]
    status: &'static str,
    #[schema(example = "0.1.0")]
    version: &'static str,
}

/// Whether the process serves. It touches nothing else.
#[utoipa::path(get, path = "/health", tag = "about", responses((status = 200, body = Health)))]
async fn health() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

async fn live(State(app): State<App>) -> Response {
    let status = if app.is_stopping() { "stopping" } else { "ok" };
    answer(!app.is_stopping(), Live { status })
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize)]
struct Checks {
    database: Check,
    sessions: Check,
    mail: Check,
}

#[derive(Serialize)]
struct Check {
    status: &'static str,
    latency_ms: f64,
}

impl Check {
    async fn of<T, E>(probe: impl Future<Output = Result<T, E>>) -> Self {
        let started = Instant::now();
        let status = if probe.await.is_ok() { "ok" } else { "down" };
        let latency_ms = (started.elapsed().as_secs_f64() * 10_000.0).round() / 10.0;
        Self { status, latency_ms }
    }
}

async fn ready(State(app): State<App>) -> Response {
    let (database, sessions, mail) =
        tokio::join!(Check::of(app.db.ping()), Check::of(app.ephemeral.ping()), Check::of(app.post.transport.probe()),);
    let ok = [&database, &sessions, &mail].iter().all(|check| check.status == "ok") && !app.is_stopping();
    let status = if ok { "ok" } else { "down" };
    answer(ok, Ready { status, checks: Checks { database, sessions, mail } })
}

fn answer(ok: bool, body: impl Serialize) -> Response {
    if ok {
        Json(body).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], Json(body)).into_response()
    }
}
