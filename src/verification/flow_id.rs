//! The name of a flow.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{ambient::Ambient, secret::ServerSecrets};

/// The public name of a flow: a tag that all flows of one address share, and 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId([u8; 20]);

impl FlowId {
    /// A new one for this address.
    #[must_use]
    pub fn draw(address: &str, secrets: &ServerSecrets, ambient: &Ambient) -> Self {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&secrets.flow_tag(address));
        id[4..].copy_from_slice(&ambient.bytes::<16>());
        Self(id)
    }

    /// The flow id in this text, if it is one: base64url without padding, in its one canonical form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The random part.
    #[must_use]
    pub fn nonce(&self) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&self.0[4..]);
        nonce
    }

    /// The tag that all flows of the address share.
    pub(super) fn tag(&self) -> &[u8] {
        &self.0[..4]
    }

    pub(super) fn bytes(&self) -> &[u8; 20] {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Display for FlowId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_id_has_one_text() {
        let id = FlowId([255; 20]);
        let text = id.to_string();
        assert_eq!((text.len(), FlowId::parse(&text)), (27, Some(id)));
        let last = format!("{}9", &text[..26]);
        assert!(FlowId::parse(&last).is_none(), "loose bits at the end");
        assert!(FlowId::parse(&format!("{text}=")).is_none());
    }
}
