//! The refresh token: opaque to clients, self-checking for us.
//!
//! ```text
//! lkr_ base64url( version 1 | key id 1 | person 16 | session 16 | grant 1 | generation 4 | nonce 16 | MAC 16 )
//! ```
//!
//! The MAC is the first half of HMAC-SHA-256 over all before it, under a key derived from the server secret. Garbage is
//! refused without any I/O. The nonce is drawn at login and the store keeps half of its SHA-256: who has the secret and
//! a log cannot make a token, and neither can who has a copy of the store. There is one text for one token: base64url
//! without padding and with zero trailing bits, which the decoder insists on. The same token again (a lost answer, two
//! tabs) is made anew from nonce and generation; nothing but the generation changes along a chain.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::{
    ephemeral::NONCE_HASH,
    secret::{SecretText, ServerSecrets, Usage},
};

/// So that secret scanners can find one.
const PREFIX: &str = "lkr_";
const VERSION: u8 = 1;
const MAC: usize = 16;
const BODY: usize = 1 + 1 + 16 + 16 + 1 + 4 + 16;

/// What a refresh token says, once its MAC was found right.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// The person.
    pub person: Uuid,
    /// The session.
    pub session: Uuid,
    /// The grant in the session; today there is only number 0.
    pub grant: u8,
    /// The place in the chain.
    pub generation: u32,
    /// Drawn at login.
    pub nonce: [u8; 16],
}

impl RefreshToken {
    /// The text for the client.
    #[must_use]
    pub fn render(&self, secrets: &ServerSecrets) -> SecretText {
        let (mut bytes, tag) = secrets.tag(Usage::Refresh, |key_id| {
            let mut body = Vec::with_capacity(BODY + MAC);
            body.extend([VERSION, key_id]);
            body.extend(self.person.as_bytes());
            body.extend(self.session.as_bytes());
            body.push(self.grant);
            body.extend(self.generation.to_be_bytes());
            body.extend(self.nonce);
            body
        });
        bytes.extend(&tag[..MAC]);
        SecretText::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads a token that one of our secrets made; `None` for everything else.
    #[must_use]
    pub fn parse(text: &str, secrets: &ServerSecrets) -> Option<Self> {
        let mut bytes = [0; BODY + MAC];
        let encoded = text.strip_prefix(PREFIX)?;
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes).ok()?;
        let (body, mac) = bytes[..length].split_at_checked(BODY).filter(|(_, mac)| mac.len() == MAC)?;
        if body[0] != VERSION || !secrets.verifies(Usage::Refresh, body[1], body, mac) {
            return None;
        }
        Some(Self {
            person: Uuid::from_slice(&body[2..18]).ok()?,
            session: Uuid::from_slice(&body[18..34]).ok()?,
            grant: body[34],
            generation: u32::from_be_bytes(body[35..39].try_into().ok()?),
            nonce: body[39..55].try_into().ok()?,
        })
    }

    /// What the store keeps of the nonce.
    #[must_use]
    pub fn nonce_hash(&self) -> [u8; NONCE_HASH] {
        let mut half = [0; NONCE_HASH];
        half.copy_from_slice(&digest::digest(&digest::SHA256, &self.nonce).as_ref()[..NONCE_HASH]);
        half
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::SecretBytes;

    fn secrets() -> ServerSecrets {
        ServerSecrets::new(&[SecretBytes::new(vec![7; 32])])
    }

    fn token(generation: u32) -> RefreshToken {
        RefreshToken { person: Uuid::from_u128(1), session: Uuid::from_u128(2), grant: 0, generation, nonce: [3; 16] }
    }

    #[test]
    fn a_token_comes_back_as_it_went() {
        let text = token(7).render(&secrets());
        assert_eq!(text.expose().len(), 99);
        assert!(RefreshToken::parse(text.expose(), &secrets()) == Some(token(7)));
        assert!(token(7).render(&secrets()) == text, "the same token has the same text");
    }

    #[test]
    fn every_change_of_one_character_is_refused() {
        let secrets = secrets();
        let text = token(7).render(&secrets).expose().to_owned();
        for at in 0..text.len() {
            for other in (0u8..=127).map(char::from).filter(|other| !text[at..].starts_with(*other)) {
                let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                assert!(RefreshToken::parse(&changed, &secrets).is_none(), "{at}: {other:?}");
            }
            let shorter = format!("{}{}", &text[..at], &text[at + 1..]);
            assert!(RefreshToken::parse(&shorter, &secrets).is_none(), "without {at}");
        }
        for longer in [format!("{text}="), format!("{text}A"), format!(" {text}"), format!("{text}\n")] {
            assert!(RefreshToken::parse(&longer, &secrets).is_none(), "{longer:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_token(text in "(lkr_)?[A-Za-z0-9_=-]{0,120}") {
            prop_assert!(RefreshToken::parse(&text, &secrets()).is_none());
        }
    }
}
