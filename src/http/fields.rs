//! Taking a JSON object apart, field by field, with every fault told at once.
//!
//! Serde's derive stops at the first fault and words it with parts of the request in it. A request type says instead
//! which fields it has ([`FromFields`]); what is left over is unknown, what has the wrong shape is noted, and a body
//! with any fault is refused as a whole.

use serde_json::{Map, Value};

use crate::{
    error::{ApiError, Code, FieldFault},
    secret::SecretText,
};

/// A request body that can be read from a JSON object.
pub trait FromFields: Sized {
    /// Takes its fields; `None` when a required one is missing or wrong, which `fields` has noted by then.
    fn from_fields(fields: &mut Fields) -> Option<Self>;
}

/// The fields of a JSON object that nobody has taken yet.
#[derive(Debug)]
pub struct Fields {
    left: Map<String, Value>,
    faults: Vec<FieldFault>,
}

/// Every field name of the API. Only these are named in an answer: a client's own words are never sent back.
const KNOWN: &[&str] = &[
    "all",
    "amr",
    "code",
    "created_at",
    "current_password",
    "device_token",
    "display_name",
    "email",
    "email_verified",
    "epoch",
    "flow_id",
    "id",
    "last_login_at",
    "locale",
    "new_email",
    "new_password",
    "password",
    "password_hash",
    "refresh_token",
    "refresh_transport",
    "roles",
    "scope",
    "status",
    "updated_at",
    "username",
];

impl Fields {
    /// Reads `value` as a `T`.
    ///
    /// # Errors
    /// 422 `invalid_body` or `unknown_field` with every reason.
    pub fn read<T: FromFields>(value: Value) -> Result<T, ApiError> {
        let Value::Object(left) = value else { return Err(Code::InvalidBody.into()) };
        let mut fields = Self { left, faults: Vec::new() };
        let body = T::from_fields(&mut fields);
        fields.finish(body)
    }

    /// A string that must be there.
    pub fn required(&mut self, name: &'static str) -> Option<String> {
        match self.left.remove(name) {
            Some(Value::String(text)) => Some(text),
            None | Some(Value::Null) => self.fault(name, "missing", "This field is required."),
            Some(_) => self.fault(name, "wrong_type", "This must be a string."),
        }
    }

    /// A string that may be missing or `null`.
    pub fn optional(&mut self, name: &'static str) -> Option<String> {
        match self.left.get(name) {
            None => None,
            Some(Value::Null) => {
                self.left.remove(name);
                None
            }
            Some(_) => self.required(name),
        }
    }

    /// A member of a merge patch (RFC 7396): `None` when it is not there, `Some(None)` when it is `null` and so to be
    /// removed.
    pub fn patch(&mut self, name: &'static str) -> Option<Option<String>> {
        match self.left.get(name)? {
            Value::Null => {
                self.left.remove(name);
                Some(None)
            }
            _ => self.required(name).map(Some),
        }
    }

    /// A secret string that must be there.
    pub fn secret(&mut self, name: &'static str) -> Option<SecretText> {
        self.required(name).map(SecretText::new)
    }

    /// A secret string that may be missing or `null`.
    pub fn optional_secret(&mut self, name: &'static str) -> Option<SecretText> {
        self.optional(name).map(SecretText::new)
    }

    /// `true` or `false`; missing and `null` are `false`.
    pub fn flag(&mut self, name: &'static str) -> bool {
        match self.left.remove(name) {
            Some(Value::Bool(flag)) => flag,
            None | Some(Value::Null) => false,
            Some(_) => self.fault(name, "wrong_type", "This must be true or false.").unwrap_or(false),
        }
    }

    /// Notes a fault of shape that only the whole body shows.
    pub fn fault<T>(&mut self, name: &'static str, code: &'static str, detail: &'static str) -> Option<T> {
        self.faults.push(FieldFault::new(name, code, detail));
        None
    }

    fn finish<T>(mut self, body: Option<T>) -> Result<T, ApiError> {
        let mut code = (!self.faults.is_empty()).then_some(Code::InvalidBody);
        if !self.left.is_empty() {
            code = code.or(Some(Code::UnknownField));
            let known = KNOWN.iter().filter(|name| self.left.contains_key(**name));
            let mut names: Vec<&'static str> = known.copied().collect();
            if names.len() < self.left.len() {
                names.push("(unknown)");
            }
            for name in names {
                let _ = self.fault::<()>(name, "unknown_field", "This endpoint does not take this field.");
            }
        }
        match (code, body) {
            (None, Some(body)) => Ok(body),
            (code, _) => Err(ApiError::fields(code.unwrap_or(Code::InvalidBody), self.faults)),
        }
    }
}
