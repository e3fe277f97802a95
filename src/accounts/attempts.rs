//! Whose attempts of passwords are counted together (`security.md` §5). The rule itself is `ephemeral::Attempts`.
//!
//! At a login it is the name as it was given, in its canonical form, whether anybody has it or not: an answer that told
//! the two apart would tell who has an account. A device that its person signed in from before has attempts of its own.
//! Behind an access token it is the session, so that a stolen one is no oracle for the password.

use uuid::Uuid;

use super::Login;
use crate::{
    app::App,
    ephemeral::{Attempts, Key},
    names,
    secret::ServerSecrets,
};

/// Failures in a row after which only known devices may try a name without a long wait.
pub const LOCK: u32 = 100;

fn bucket(secrets: &ServerSecrets, kind: &str, what: &[u8]) -> Key<Attempts> {
    let id: [u8; 16] = secrets.throttle(&[kind.as_bytes(), &[0], what].concat());
    Key::new(&id, &id)
}

/// The attempts at this name.
#[must_use]
pub fn of_name(app: &App, login: &Login) -> Key<Attempts> {
    let (kind, key) = match login {
        Login::Email(text) => ("email", names::canonical_email(text).unwrap_or_else(|| text.to_lowercase())),
        Login::Username(text) => ("username", text.to_ascii_lowercase()),
    };
    bucket(&app.secrets, kind, key.as_bytes())
}

/// The attempts at every name of a person.
#[must_use]
pub fn of_names(app: &App, email: Option<&str>, username: Option<&str>) -> Vec<Key<Attempts>> {
    let email = email.map(|email| of_name(app, &Login::Email(email.to_owned())));
    let username = username.map(|username| of_name(app, &Login::Username(username.to_owned())));
    email.into_iter().chain(username).collect()
}

/// Buckets that the devices of one person share.
const OF_DEVICES: u8 = 8;

/// The attempts from a device of a person: one bucket of eight, so that who had the password for an hour and collected
/// device tokens has no more attempts than with eight of them.
#[must_use]
pub fn of_device(app: &App, person: Uuid, device: &[u8; 16]) -> Key<Attempts> {
    bucket(&app.secrets, "device", &[&person.as_bytes()[..], &[device[0] % OF_DEVICES]].concat())
}

/// The attempts from every device of a person.
#[must_use]
pub fn of_devices(app: &App, person: Uuid) -> Vec<Key<Attempts>> {
    (0..OF_DEVICES).map(|number| of_device(app, person, &[number; 16])).collect()
}

/// The attempts of whoever holds an access token of this session.
#[must_use]
pub fn of_session(app: &App, session: Uuid) -> Key<Attempts> {
    bucket(&app.secrets, "session", session.as_bytes())
}
