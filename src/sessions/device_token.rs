//! The device token: tells a device that a person signed in from before, and proves no identity.
//!
//! ```text
//! lkd_ base64url( version 1 | key id 1 | person 16 | device 16 | made at 6 | MAC 16 )
//! ```
//!
//! Who holds one has attempts of their own: a stranger who guesses all day at a person's password does not keep the
//! person's own devices waiting. So it is worth nothing without the password, needs no row anywhere, and is void for
//! everybody but its person, after 400 days, and when a first proof of the address wiped what was there before.

use std::time::Duration;

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::{
    app::App,
    db::Timestamp,
    http::cookie,
    secret::{SecretText, ServerSecrets, Usage},
};

/// Where browsers keep it.
pub(super) const COOKIE: &str = "__Host-latchkey_device";
/// So that secret scanners can find one.
const PREFIX: &str = "lkd_";
const VERSION: u8 = 1;
const MAC: usize = 16;
const BODY: usize = 1 + 1 + 16 + 16 + 6;
/// The longest that browsers keep a cookie.
pub const LIFETIME: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// What a device token says, once its MAC was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceToken {
    /// The person it is good for.
    pub person: Uuid,
    /// Drawn when it was made.
    pub device: [u8; 16],
    /// When it was made.
    pub made_at: Timestamp,
}

impl DeviceToken {
    /// The text for the client.
    #[must_use]
    pub fn render(&self, secrets: &ServerSecrets) -> SecretText {
        let (mut bytes, tag) = secrets.tag(Usage::Device, |key_id| {
            let mut body = Vec::with_capacity(BODY + MAC);
            body.extend([VERSION, key_id]);
            body.extend(self.person.as_bytes());
            body.extend(self.device);
            body.extend(&self.made_at.millis().to_be_bytes()[2..]);
            body
        });
        bytes.extend(&tag[..MAC]);
        SecretText::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The token that came with a request: in its body, else in its cookie.
    #[must_use]
    pub fn shown(given: Option<&SecretText>, headers: &HeaderMap, app: &App) -> Option<Self> {
        let text = given.map(SecretText::expose).or_else(|| cookie(headers, COOKIE))?;
        Self::parse(text, &app.secrets, app.ambient.now())
    }

    /// Reads a token that one of our secrets made and that is not too old; `None` for everything else.
    #[must_use]
    pub fn parse(text: &str, secrets: &ServerSecrets, now: Timestamp) -> Option<Self> {
        let mut bytes = [0; BODY + MAC];
        let length = URL_SAFE_NO_PAD.decode_slice(text.strip_prefix(PREFIX)?, &mut bytes).ok()?;
        let (body, mac) = bytes[..length].split_at_checked(BODY).filter(|(_, mac)| mac.len() == MAC)?;
        if body[0] != VERSION || !secrets.verifies(Usage::Device, body[1], body, mac) {
            return None;
        }
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&body[34..40]);
        let made_at = Timestamp::from_millis(i64::from_be_bytes(millis));
        (made_at.after(LIFETIME) > now).then_some(Self {
            person: Uuid::from_slice(&body[2..18]).ok()?,
            device: body[18..34].try_into().ok()?,
            made_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretBytes;

    fn token() -> DeviceToken {
        DeviceToken { person: Uuid::from_u128(1), device: [2; 16], made_at: Timestamp::from_millis(1_795_344_960_123) }
    }

    #[test]
    fn a_token_comes_back_as_it_went_for_400_days() {
        let secrets = ServerSecrets::new(&[SecretBytes::new(vec![7; 32])]);
        let (text, token) = (token().render(&secrets), token());
        let last = token.made_at.after(LIFETIME).before(Duration::from_millis(1));
        assert_eq!(DeviceToken::parse(text.expose(), &secrets, last), Some(token));
        assert_eq!(DeviceToken::parse(text.expose(), &secrets, token.made_at.after(LIFETIME)), None);
    }

    #[test]
    fn a_changed_foreign_or_refresh_token_is_none() {
        let secrets = ServerSecrets::new(&[SecretBytes::new(vec![7; 32])]);
        let foreign = ServerSecrets::new(&[SecretBytes::new(vec![8; 32])]);
        let text = token().render(&secrets);
        let now = token().made_at;
        assert_eq!(DeviceToken::parse(text.expose(), &foreign, now), None);
        for at in 4..text.expose().len() {
            let mut changed = text.expose().to_owned().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(DeviceToken::parse(std::str::from_utf8(&changed).unwrap(), &secrets, now), None, "{at}");
        }
        for bad in ["", "lkd_", &text.expose()[4..], &text.expose().replace("lkd_", "lkr_")] {
            assert_eq!(DeviceToken::parse(bad, &secrets, now), None);
        }
    }
}
