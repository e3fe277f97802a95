//! JSON bodies, read strictly (RFC 8259; the stricter reading of RFC 7493 for duplicate names).
//!
//! 1. At most 16 KiB, within the time for a request: 413, 408.
//! 2. `Content-Type: application/json` (for a PATCH also `application/merge-patch+json`), unless the body is empty: 415.
//! 3. One well-formed value without duplicate names, lone surrogates, more than 32 levels or trailing text: 400.
//! 4. The fields of the endpoint, all faults at once: 422.

use std::{fmt, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, Method, header::CONTENT_TYPE},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Fields, FromFields, MOST_BODY_BYTES};
use crate::error::{ApiError, Code};

/// With the ten seconds that headers may take, a whole request has fifteen.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
const DEEPEST: usize = 32;

/// A request body. An empty one is an object without fields.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<S: Sync, T: FromFields> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Fields::read(Value::Object(Map::new())).map(Self);
        }
        if !is_json(&parts.method, &parts.headers) {
            return Err(Code::UnsupportedMediaType.into());
        }
        Fields::read(parse(&bytes).ok_or(Code::MalformedJson)?).map(Self)
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let limited = Limited::new(body, MOST_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_PATIENCE, limited).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Code::BodyTooLarge.into()),
        Ok(Err(_)) => Err(Code::MalformedJson.into()),
        Err(_) => Err(Code::RequestTimeout.into()),
    }
}

fn is_json(method: &Method, headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(essence) = value.and_then(|text| text.split(';').next()).map(str::trim) else { return false };
    essence.eq_ignore_ascii_case("application/json")
        || (method == Method::PATCH && essence.eq_ignore_ascii_case("application/merge-patch+json"))
}

/// One strict JSON value, or `None`.
fn parse(bytes: &[u8]) -> Option<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// A value `depth` levels down.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == DEEPEST { Err(E::custom("too deep")) } else { Ok(Self { depth: self.depth + 1 }) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if values.insert(name, value).is_some() {
                return Err(de::Error::custom("duplicate name"));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strict_json_is_json() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(32).as_bytes()).is_some());
        assert!(parse(br#" {"a":{"a":1},"b":[{"a":2}]} "#).is_some(), "the same name on other levels is fine");
        for bad in [
            nested(33).as_bytes(),
            nested(16000).as_bytes(),
            br#"{"a":1,"a":2}"#,
            br#"{"a":1,"\u0061":2}"#,
            br#"{"x":{"a":1,"a":1}}"#,
            br#""\ud800""#,
            br#""\udc00\ud800""#,
            b"\"\xff\"",
            b"\"\xed\xa0\x80\"",
            b"{} {}",
            b"{}x",
            b"{'a':1}",
            b"{\"a\":1,}",
            b"NaN",
            b"\xef\xbb\xbf{}",
            b"{",
            b" ",
        ] {
            assert!(parse(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
