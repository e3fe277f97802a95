//! The claims of an access token (RFC 9068 §2.2).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// The public URL of the server that signed it.
    pub iss: String,
    /// The person.
    pub sub: Uuid,
    /// Who may accept it.
    pub aud: Audience,
    /// The client it was given to.
    pub client_id: String,
    /// What it is for, words parted by spaces.
    pub scope: String,
    /// When it was signed, seconds since the Unix epoch.
    pub iat: i64,
    /// When it dies.
    pub exp: i64,
    /// Not to be taken before, if present; we make none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Its own id, a UUIDv7.
    pub jti: Uuid,
    /// The session it belongs to.
    pub sid: Uuid,
    /// When the person last proved who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    /// How (RFC 8176).
    #[serde(default)]
    pub amr: Vec<String>,
    /// The person's roles when it was signed.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// One audience or several: a JWT may say either (RFC 7519 §4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// A plain string.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl Audience {
    /// The usual form: a plain string when there is one.
    #[must_use]
    pub fn new(audience: &[String]) -> Self {
        match audience {
            [one] => Self::One(one.clone()),
            many => Self::Many(many.to_vec()),
        }
    }

    /// Whether `name` is among them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}
