//! `/openapi.json`, `/docs` and `/docs/errors`, all out of the binary: no request leaves the server.
//!
//! `/docs` is Scalar. Its page is ours and not the crate's, because that one starts the script inline, which the content
//! security policy of a page with a "try it" console should not allow: script comes from this origin alone. Styles must
//! be allowed inline, since Scalar makes them at run time; its fonts are left at the system's, as they would come from
//! its own host.

use std::fmt::Write;

use axum::{
    extract::State,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{Html, IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, error::Code};

const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TABLE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The script changes with the program only.
const ASSET_CACHE: &str = "public, max-age=86400";

/// Packed by the build script (`docs/pack.rs`).
const SCALAR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/scalar.js.gz"));

/// The routes.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(openapi)).merge(pages())
}

/// Pages and assets are no operations of the API, so they are not in its document.
fn pages() -> OpenApiRouter<App> {
    use axum::routing::get;
    OpenApiRouter::new()
        .route("/docs", get(docs))
        .route("/docs/start.js", get(start))
        .route("/docs/scalar.js", get(scalar))
        .route("/docs/errors", get(errors))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "about",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn openapi(State(app): State<App>) -> Response {
    ([(CONTENT_TYPE, "application/json")], app.openapi().to_string()).into_response()
}

async fn docs() -> Response {
    let page = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Latchkey API</title>
<link rel="icon" href="data:,">
</head>
<body>
<div id="app"></div>
<noscript>This page needs a script, which comes from this server. The same is in <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/start.js"></script>
<script src="/docs/scalar.js"></script>
</body>
</html>
"#;
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(page)).into_response()
}

async fn start() -> Response {
    // It stands before the script that it starts: a library in there asks, when it is loaded, whether it may compile code
    // from text, which our policy forbids and reports. The bar for developers would send the document to Scalar's host.
    script(
        "globalThis.__zod_globalConfig = {jitless: true};\n\
         addEventListener('DOMContentLoaded', () => Scalar.createApiReference('#app', {url: '/openapi.json', \
         withDefaultFonts: false, telemetry: false, showDeveloperTools: 'never', hideClientButton: true, \
         defaultOpenAllTags: true, agent: {disabled: true}, mcp: {disabled: true}, documentDownloadType: 'json'}));\n",
    )
}

async fn scalar() -> Response {
    // Packed whatever the client says it takes: without a word about it any coding will do (RFC 9110 §12.5.3), and what
    // runs this script unpacks it.
    let mut response = script(SCALAR);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

fn script(text: impl Into<axum::body::Body>) -> Response {
    let headers = [(CONTENT_TYPE, "text/javascript; charset=utf-8"), (CACHE_CONTROL, ASSET_CACHE)];
    (headers, text.into()).into_response()
}

/// Every code of the table, so that the `type` of a problem leads somewhere.
async fn errors() -> Response {
    let mut rows = String::new();
    let mut seen: Vec<&str> = Vec::new();
    for code in Code::ALL {
        // A word that is answered with two statuses has one element to lead to.
        let id = if seen.contains(&code.as_str()) { String::new() } else { format!(" id=\"{code}\"") };
        seen.push(code.as_str());
        let (status, title, detail) = (code.status(), code.title(), code.detail());
        let _ = writeln!(rows, "<tr{id}><td><code>{code}</code><td>{status}<td>{title}<td>{detail}");
    }
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Latchkey problems</title>\n\
         <style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}}\
         table{{border-collapse:collapse;width:100%}}td,th{{border-bottom:1px solid #8884;padding:.4rem .6rem;text-align:left;\
         vertical-align:top}}tr:target{{background:#fd03}}</style>\n</head>\n<body>\n<h1>Problems</h1>\n\
         <p>Every problem this server answers (RFC 9457). The code is the stable word to match on.\n\
         <table>\n<tr><th>Code<th>Status<th>Title<th>What to do\n{rows}</table>\n</body>\n</html>\n"
    );
    ([(CONTENT_SECURITY_POLICY, TABLE_POLICY)], Html(page)).into_response()
}
