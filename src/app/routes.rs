//! Every route by its template, for metrics: what is not here has no series of its own.

use std::sync::LazyLock;

use super::App;
use crate::http::Limits;

/// Pages, assets and the internal listener, which are no operations of the API and so not in its document.
const OTHERS: [&str; 11] = [
    "/.well-known/change-password",
    "/docs",
    "/docs/errors",
    "/docs/scalar.js",
    "/docs/start.js",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/reset",
    "/reset.css",
    "/reset.js",
];

/// In order.
pub(super) static ROUTES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let (_, collected) = App::routes(&Limits::default()).split_for_parts();
    let mut routes: Vec<String> = collected.paths.paths.into_keys().collect();
    routes.extend(OTHERS.map(str::to_owned));
    routes.sort_unstable();
    routes
});
