//! A person, as the program knows one and as a client sees one.

use serde::Serialize;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::Timestamp;

/// Whether a person may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Yes.
    Active,
    /// No, until an operator says otherwise.
    Disabled,
}

impl TryFrom<String> for Status {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "active" => Ok(Self::Active),
            "disabled" => Ok(Self::Disabled),
            _ => Err(format!("no status: {text}")),
        }
    }
}

/// A person who is not deleted.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Person {
    /// UUIDv7, or whatever UUID an import brought.
    pub id: Uuid,
    /// Canonical; `None` for people who came without one.
    pub email: Option<String>,
    /// Whether the person proved to own it.
    pub email_verified: bool,
    /// As the person wrote it.
    pub username: Option<String>,
    /// What others are shown.
    pub display_name: Option<String>,
    /// Role names.
    pub roles: Json<Vec<String>>,
    /// Whether the person may sign in.
    #[sqlx(try_from = "String")]
    pub status: Status,
    /// Sessions live only while they carry this number.
    pub epoch: i64,
    /// When the person was made.
    pub created_at: Timestamp,
    /// When the profile last changed.
    pub updated_at: Timestamp,
    /// When the person last signed in.
    pub last_login_at: Option<Timestamp>,
}

/// A person with what a login is checked against.
#[derive(Clone, sqlx::FromRow)]
pub struct Credentials {
    /// The person.
    #[sqlx(flatten)]
    pub person: Person,
    /// PHC string, or `None` when there is no password.
    pub password_hash: Option<String>,
    /// Fingerprints of devices the person signed in from, the latest first.
    pub devices: Json<Vec<String>>,
    /// Device tokens that are older are void.
    pub devices_since: Timestamp,
}

/// A person as far as mail is concerned.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Addressee {
    /// The person.
    pub id: Uuid,
    /// The person's epoch now.
    pub epoch: i64,
    /// The address, canonical.
    pub email: Option<String>,
    /// Whether it was proved to be the person's.
    pub email_verified: bool,
    /// As the person wrote it.
    pub username: Option<String>,
    /// What others are shown.
    pub display_name: Option<String>,
    /// The language of mails, if one was given.
    pub locale: Option<String>,
    /// Device tokens that are older are void.
    pub devices_since: Timestamp,
    /// Whether the person may sign in.
    pub is_active: bool,
}

/// A person, as clients see one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct User {
    id: Uuid,
    #[schema(example = "alice@example.com")]
    email: Option<String>,
    email_verified: bool,
    #[schema(example = "alice")]
    username: Option<String>,
    #[schema(example = "Alice")]
    display_name: Option<String>,
    roles: Vec<String>,
    status: Status,
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T10:56:00.123Z")]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T10:56:00.123Z")]
    updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-11-22T10:56:00.123Z")]
    last_login_at: Option<Timestamp>,
}

impl From<Person> for User {
    fn from(person: Person) -> Self {
        Self {
            id: person.id,
            email: person.email,
            email_verified: person.email_verified,
            username: person.username,
            display_name: person.display_name,
            roles: person.roles.0,
            status: person.status,
            created_at: person.created_at,
            updated_at: person.updated_at,
            last_login_at: person.last_login_at,
        }
    }
}
