//! What the server says of itself: the API document, its pages, discovery, CORS, OPTIONS.

use std::collections::BTreeSet;

use axum::{body::Body, http::Method};
use latchkey::{app::api_document, error::Code};
use serde_json::{Value, json};

use crate::{
    on_stacks, once,
    support::{Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    let mut tests = once![
        the_document_lists_every_operation_with_its_problems,
        the_document_is_the_one_that_was_reviewed,
        no_two_operations_share_a_body_by_accident,
        the_document_refers_to_nothing_that_is_not_there,
    ];
    tests.extend(on_stacks![&[StackKind::Embedded];
        the_document_and_its_pages_come_out_of_the_binary,
        every_code_has_an_element_on_the_errors_page,
        discovery_is_true_for_what_is_there,
        jwks_and_discovery_answer_304_to_who_has_them,
        options_tell_what_a_path_allows,
        only_listed_origins_may_read_answers,
    ]);
    tests
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .iter()
                .map(move |(method, operation)| (path.clone(), method.clone(), operation.clone()))
        })
        .collect()
}

/// Who may call each operation. A new one must be listed here.
pub const OPERATIONS: &[(&str, &str, &str)] = &[
    ("/.well-known/jwks.json", "get", "anybody"),
    ("/.well-known/oauth-authorization-server", "get", "anybody"),
    ("/email/verify", "post", "anybody"),
    ("/email/verify/resend", "post", "anybody"),
    ("/health", "get", "anybody"),
    ("/login", "post", "anybody"),
    ("/logout", "post", "anybody"),
    ("/me", "delete", "person"),
    ("/me", "get", "person"),
    ("/me", "patch", "person"),
    ("/me/delete", "post", "person"),
    ("/me/email", "post", "person"),
    ("/me/email/confirm", "post", "anybody"),
    ("/me/password", "put", "person"),
    ("/me/sessions", "delete", "person"),
    ("/me/sessions", "get", "person"),
    ("/me/sessions/{id}", "delete", "person"),
    ("/openapi.json", "get", "anybody"),
    ("/password/forgot", "post", "anybody"),
    ("/password/reset", "post", "anybody"),
    ("/refresh", "post", "anybody"),
    ("/register", "post", "anybody"),
];

fn the_document_lists_every_operation_with_its_problems() {
    let document = api_document("http://localhost:3000");
    assert_eq!((&document["openapi"], &document["info"]["title"]), (&json!("3.1.0"), &json!("Latchkey")));
    let found = operations(&document);
    let listed: Vec<(&str, &str)> = OPERATIONS.iter().map(|(path, method, _)| (*path, *method)).collect();
    assert_eq!(found.iter().map(|(path, method, _)| (path.as_str(), method.as_str())).collect::<Vec<_>>(), listed);
    for ((path, method, operation), (_, _, who)) in found.iter().zip(OPERATIONS) {
        let label = format!("{method} {path}");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{label}");
        assert_eq!(
            operation["security"].is_array(),
            *who == "person" || ["/logout", "/me/email/confirm", "/refresh"].contains(&path.as_str()),
            "{label}"
        );
        for (status, response) in operation["responses"].as_object().unwrap() {
            let problem = &response["content"]["application/problem+json"];
            if !status.starts_with(['4', '5']) {
                continue;
            }
            let codes = response["description"].as_str().unwrap().split(", ");
            let examples: BTreeSet<&str> =
                problem["examples"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(codes.collect::<BTreeSet<_>>(), examples, "{label} {status}");
        }
    }
}

fn the_document_is_the_one_that_was_reviewed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/snapshots/openapi.json");
    let document = format!("{:#}\n", api_document("http://localhost:3000"));
    #[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
    if std::env::var("LATCHKEY_TEST_UPDATE").is_ok() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/snapshots")).unwrap();
        std::fs::write(path, &document).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(document == reviewed, "the API document changed; LATCHKEY_TEST_UPDATE=1 writes it anew, for you to review");
}

/// Two types of one name would be one schema, and one of the two operations would be documented with the other's body.
fn no_two_operations_share_a_body_by_accident() {
    let document = api_document("http://localhost:3000");
    let mut users: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for (path, method, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let names = schema.to_string().split("#/components/schemas/").skip(1).map(str::to_owned).collect::<Vec<_>>();
        for name in names {
            let name = name.split('"').next().unwrap().to_owned();
            users.entry(name).or_default().push(format!("{method} {path}"));
        }
    }
    assert!(users.len() > 8, "{users:?}");
    users.retain(|_, users| users.len() > 1);
    let shared: Vec<&str> = users.keys().map(String::as_str).collect();
    assert_eq!(shared, ["AddressRequest", "CodeRequest", "DeleteRequest"], "{users:?}");
}

fn the_document_refers_to_nothing_that_is_not_there() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if let ("$ref", Value::String(target)) = (name.as_str(), value) {
                        found.push(target.clone());
                    }
                    walk(value, found);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let document = api_document("http://localhost:3000");
    let mut references = Vec::new();
    walk(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

async fn the_document_and_its_pages_come_out_of_the_binary(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_PUBLIC_URL", "http://localhost:4000")]).await;
    let client = app.anonymous();
    let document = client.get("/openapi.json").await.is(200);
    assert_eq!(document.header("content-type"), "application/json");
    assert_eq!(document.json()["servers"][0]["url"], "http://localhost:4000");
    for path in ["/docs", "/docs/errors"] {
        let page = client.get(path).await.is(200);
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(
            !policy.contains("http") && !policy.contains('*') && !policy.contains("script-src 'unsafe"),
            "{policy}"
        );
        let html = String::from_utf8(page.body.clone()).unwrap();
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script>"), "{html}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    }
    for path in ["/docs/scalar.js", "/docs/start.js"] {
        let script = client.get(path).await.is(200);
        assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
        assert_eq!(script.header("cache-control"), "public, max-age=86400");
    }
    let packed = client.get("/docs/scalar.js").await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() < 2_000_000, "{}", packed.body.len());
    client.get("/docs/nothing.js").await.is_problem(404, "not_found");
}

async fn every_code_has_an_element_on_the_errors_page(stack: Stack) {
    let app = stack.app().await;
    let html = String::from_utf8(app.anonymous().get("/docs/errors").await.is(200).body).unwrap();
    for code in Code::ALL {
        assert_eq!(html.matches(&format!("id=\"{code}\"")).count(), 1, "{code}");
        assert!(html.contains(code.title()));
    }
}

async fn discovery_is_true_for_what_is_there(stack: Stack) {
    let app = stack.app().await;
    let reply = app.anonymous().get("/.well-known/oauth-authorization-server").await.is(200);
    assert_eq!(
        reply.json(),
        json!({
            "issuer": "http://localhost:3000",
            "jwks_uri": "http://localhost:3000/.well-known/jwks.json",
            "response_types_supported": [],
            "grant_types_supported": [],
            "token_endpoint_auth_methods_supported": [],
            "service_documentation": "http://localhost:3000/docs",
        })
    );
    for path in [reply.text("/jwks_uri"), reply.text("/service_documentation")] {
        app.anonymous().get(path.strip_prefix("http://localhost:3000").unwrap()).await.is(200);
    }
}

async fn jwks_and_discovery_answer_304_to_who_has_them(stack: Stack) {
    let app = stack.app().await;
    for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server"] {
        let client = app.anonymous();
        let first = client.get(path).await.is(200);
        let etag = first.header("etag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10, "{etag}");
        assert_eq!(first.header("cache-control"), "public, max-age=300");
        for known in [etag.clone(), format!("\"other\", {etag}"), format!("W/{etag}"), "*".to_owned()] {
            let reply = client.with("if-none-match", &known).get(path).await.is(304);
            assert!(reply.body.is_empty());
            assert_eq!((reply.header("etag"), reply.header("cache-control")), (etag.as_str(), "public, max-age=300"));
        }
        for unknown in ["\"other\"", "", &etag[1..]] {
            client.with("if-none-match", unknown).get(path).await.is(200);
        }
        let head = client.send(Method::HEAD, path, Body::empty()).await.is(200);
        assert_eq!((head.header("etag"), head.body.len()), (etag.as_str(), 0));
    }
    // Another ring is another validator.
    let before = app.anonymous().get("/.well-known/jwks.json").await.header("etag").to_owned();
    app.sql("UPDATE signing_keys SET state = 'retired' WHERE state = 'next'").await;
    app.keys.reload(&app.db).await.unwrap();
    assert_ne!(app.anonymous().get("/.well-known/jwks.json").await.header("etag"), before);
}

async fn options_tell_what_a_path_allows(stack: Stack) {
    let app = stack.app().await;
    for (path, allowed) in [("/login", "POST"), ("/health", "GET,HEAD"), ("/me", "DELETE,GET,HEAD,PATCH")] {
        let reply = app.anonymous().send(Method::OPTIONS, path, Body::empty()).await.is(204);
        let mut methods: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), "");
    }
    app.anonymous().send(Method::OPTIONS, "/nothing", Body::empty()).await.is_problem(404, "not_found");
}

async fn only_listed_origins_may_read_answers(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_CORS_ORIGINS", "https://app.example.com, http://localhost:5173")]).await;
    let from = |origin: &str| app.anonymous().with("origin", origin);
    for origin in ["https://app.example.com", "http://localhost:5173"] {
        let preflight = from(origin).with("access-control-request-method", "PATCH");
        let reply = preflight.send(Method::OPTIONS, "/me", Body::empty()).await.is(204);
        assert_eq!(reply.header("access-control-allow-origin"), origin);
        assert_eq!(reply.header("access-control-allow-credentials"), "true");
        assert_eq!(reply.header("access-control-max-age"), "600");
        assert!(reply.header("access-control-allow-methods").contains("PATCH"));
        assert!(reply.header("access-control-allow-headers").contains("authorization"));
        for reply in [from(origin).get("/health").await.is(200), from(origin).get("/me").await.is(401)] {
            assert_eq!(reply.header("access-control-allow-origin"), origin);
            assert_eq!(reply.header("vary"), "Origin");
            let exposed = reply.header("access-control-expose-headers");
            assert_eq!(exposed, "Retry-After, RateLimit, RateLimit-Policy, X-Request-Id");
        }
    }
    for origin in [
        "https://evil.example.com",
        "https://app.example.com.evil.com",
        "https://APP.example.com",
        "null",
        "http://app.example.com",
    ] {
        let preflight = from(origin).with("access-control-request-method", "GET");
        for reply in
            [from(origin).get("/health").await.is(200), preflight.send(Method::OPTIONS, "/me", Body::empty()).await]
        {
            assert_eq!(reply.header("access-control-allow-origin"), "", "{origin}");
            assert_eq!(reply.header("access-control-allow-credentials"), "", "{origin}");
            assert_eq!(reply.header("vary"), "Origin");
        }
    }
    let silent = stack
        .app_with(&[
            ("LATCHKEY_DATA_DIR", &stack.dir.path().join("other").display().to_string()),
            ("LATCHKEY_JWT_DIR", &stack.dir.path().join("other-jwt").display().to_string()),
        ])
        .await;
    let reply = silent.anonymous().with("origin", "https://app.example.com").get("/health").await.is(200);
    assert_eq!((reply.header("access-control-allow-origin"), reply.header("vary")), ("", ""));
}
