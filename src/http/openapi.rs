//! The API document (OpenAPI 3.1), made from the handlers.
//!
//! utoipa collects what stands on the handlers; here it is completed: version, server, security scheme, the schema of
//! problems, the problems that every operation can answer, and an example of each problem out of the one table. It is
//! completed as JSON, since that is what it becomes, and the builder types of utoipa change with every release.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use crate::error::Code;

const PROBLEM: &str = "application/problem+json";
/// Whoever asks for whatever.
const EVERYWHERE: [Code; 3] = [Code::HeaderTooLarge, Code::Internal, Code::Unavailable];
/// Whoever sends a body.
const WITH_A_BODY: [Code; 6] = [
    Code::BodyTooLarge,
    Code::RequestTimeout,
    Code::UnsupportedMediaType,
    Code::MalformedJson,
    Code::InvalidBody,
    Code::UnknownField,
];

/// The responses for these codes, one a status; the description lists the codes.
pub(crate) fn problem_responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status().to_string()).or_default().push(code.as_str());
    }
    let response = |codes: Vec<&str>| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(codes.join(", ")).content(PROBLEM, content).build()
    };
    by_status.into_iter().map(|(status, codes)| (status, response(codes).into())).collect()
}

/// The document as JSON.
#[must_use]
pub fn document(collected: &OpenApi, public_url: &str) -> Value {
    let mut document = serde_json::to_value(collected).unwrap_or_default();
    document["openapi"] = "3.1.0".into();
    document["info"] = json!({
        "title": "Latchkey",
        "version": env!("CARGO_PKG_VERSION"),
        "summary": "A self-contained auth server",
        "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
    });
    document["tags"] = json!([
        {"name": "sessions", "description": "Register, sign in, refresh, sign out"},
        {"name": "me", "description": "What a signed-in person sees and changes"},
        {"name": "keys", "description": "What other services need to verify tokens"},
        {"name": "about", "description": "This server"},
    ]);
    document["servers"] = json!([{"url": public_url}]);
    document["components"]["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The access token (RFC 6750)"},
        "refresh_cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-latchkey_refresh",
            "description": "The refresh token in cookie transport; only with an `Origin` that is ours or listed"},
    });
    document["components"]["schemas"]["Problem"] = problem_schema();
    let paths = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    for (method, operation) in paths.filter_map(Value::as_object_mut).flatten() {
        let bodies = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
        for body in bodies.into_iter().flat_map(Map::values_mut) {
            // utoipa says of a body that may be missing that it may be `null`, which is another thing.
            let named = body["schema"]["oneOf"]
                .as_array()
                .and_then(|either| either.iter().find(|one| one.get("$ref").is_some()));
            if let Some(named) = named.cloned() {
                body["schema"] = named;
            }
        }
        if operation["operationId"] == "login" {
            // Two names that exclude each other make no example by themselves.
            operation["requestBody"]["content"]["application/json"]["example"] =
                json!({"email": "alice@example.com", "password": "correct horse battery"});
        }
        if method == "patch" {
            // RFC 7396 has a media type of its own, which says the same.
            let content = operation["requestBody"]["content"]["application/json"].clone();
            operation["requestBody"]["content"]["application/merge-patch+json"] = content;
        }
        complete(operation);
    }
    for (name, schema) in document["components"]["schemas"].as_object_mut().into_iter().flatten() {
        if name.ends_with("Request") {
            close(name, schema);
        }
    }
    document
}

/// Says of a request body what the handler insists on and a derived schema cannot know.
fn close(name: &str, schema: &mut Value) {
    schema["additionalProperties"] = false.into();
    match name {
        "LoginRequest" => {
            let one = |name: &str| json!({"required": [name], "properties": {name: {"type": "string"}}});
            schema["oneOf"] = json!([one("email"), one("username")]);
            schema["properties"]["refresh_transport"]["enum"] = json!(["body", "cookie", null]);
        }
        "UpdateRequest" => {
            schema["dependentSchemas"] =
                json!({"username": {"required": ["password"], "properties": {"password": {"type": "string"}}}});
        }
        _ => {}
    }
}

fn complete(operation: &mut Value) {
    let mut codes: Vec<Code> = EVERYWHERE.to_vec();
    if operation.get("requestBody").is_some() {
        codes.extend(WITH_A_BODY);
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for code in codes {
        let response = responses.entry(code.status().to_string()).or_insert_with(
            || json!({"description": "", "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}),
        );
        let known = response["description"].as_str().unwrap_or_default().to_owned();
        if known.is_empty() {
            response["description"] = code.as_str().into();
        } else if !known.split(", ").any(|known| known == code.as_str()) {
            response["description"] = format!("{known}, {code}").into();
        }
    }
    for response in responses.values_mut().filter(|response| response["content"].get(PROBLEM).is_some()) {
        let listed = response["description"].as_str().unwrap_or_default().to_owned();
        let examples: Map<String, Value> =
            listed.split(", ").filter_map(named).map(|code| (code.as_str().to_owned(), example(code))).collect();
        response["content"][PROBLEM]["examples"] = examples.into();
    }
}

fn named(word: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.as_str() == word)
}

fn example(code: Code) -> Value {
    let mut value = json!({
        "type": format!("/docs/errors#{code}"),
        "title": code.title(),
        "status": code.status(),
        "code": code.as_str(),
        "detail": code.detail(),
        "request_id": "01a202e6-0a00-7bc1-bceb-d88cc5e6f936",
    });
    if code.status() == 422 {
        value["errors"] = json!([{"field": "password", "code": "too_short", "detail": "Use a longer password."}]);
    }
    json!({"summary": code.title(), "value": value})
}

fn problem_schema() -> Value {
    let words: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "description": "A problem (RFC 9457). `code` is the stable word to match on.",
        "required": ["type", "title", "status", "code", "detail", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": text,
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": unique(words)},
            "detail": text,
            "request_id": text,
            "errors": {
                "type": "array",
                "description": "Every reason at once; only with 422.",
                "items": {
                    "type": "object",
                    "required": ["field", "code", "detail"],
                    "properties": {"field": text, "code": text, "detail": text},
                },
            },
        },
    })
}

fn unique(mut words: Vec<&str>) -> Vec<&str> {
    words.sort_unstable();
    words.dedup();
    words
}
