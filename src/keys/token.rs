//! Signing and verifying access tokens (JWS compact, RFC 7515; profile RFC 9068, advice RFC 8725).

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, ParsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, Header,
    jwk::{AlgorithmParameters, Jwk},
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{AccessClaims, PrivateKey};
use crate::db::Timestamp;

/// The longest token that is looked at. Ours have 600 bytes; 8 KiB is what a header line may have.
pub const MOST_TOKEN_BYTES: usize = 8 * 1024;

const TYPE: &str = "at+jwt";
/// Seconds that `exp` may be over.
const EXPIRY_LEEWAY: i64 = 5;
/// Seconds that `iat` and `nbf` may be ahead.
const FUTURE_LEEWAY: i64 = 10;
/// How much longer than its lifetime a token may be taken: signed by a clock that is ahead, judged with leeway.
pub(super) const LEEWAY: Duration = Duration::from_secs((EXPIRY_LEEWAY + FUTURE_LEEWAY).unsigned_abs());
/// What Latchkey's own endpoints want in `scope`.
const ACCOUNT: &str = "account";

/// Why a token was refused: for the log. A client is told `invalid_token`, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("access token refused: {self:?}")]
#[expect(missing_docs, reason = "the names say it")]
pub enum TokenFault {
    Malformed,
    ForeignHeader,
    UnknownKey,
    RetiredKey,
    BadSignature,
    BadClaims,
    ForeignIssuer,
    ForeignAudience,
    WrongScope,
    Expired,
    FromTheFuture,
}

/// A key that signs, parsed once, with the header of its tokens rendered once.
pub struct Signer {
    pub(super) kid: String,
    header: String,
    pair: EcdsaKeyPair,
}

impl Signer {
    pub(super) fn new(key: &PrivateKey) -> Option<Self> {
        let (scalar, point) = key.parts();
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &scalar, &point).ok()?;
        let header = Header { typ: Some(TYPE.to_owned()), kid: Some(key.kid.clone()), ..Header::new(Algorithm::ES256) };
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).ok()?);
        Some(Self { kid: key.kid.clone(), header, pair })
    }

    /// The signed token, or `None` when the library has no randomness.
    #[must_use]
    pub fn sign(&self, claims: &AccessClaims) -> Option<String> {
        let claims = serde_json::to_vec(claims).ok()?;
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 96);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        // The library takes no other randomness; a nonce is not what a test would want to repeat.
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes()).ok()?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Some(token)
    }
}

/// A key that verifies, parsed once.
pub(super) fn verifying_key(jwk: &Jwk) -> Option<ParsedPublicKey> {
    let AlgorithmParameters::EllipticCurve(parameters) = &jwk.algorithm else { return None };
    let mut point = vec![4];
    for coordinate in [&parameters.x, &parameters.y] {
        point.extend(URL_SAFE_NO_PAD.decode(coordinate).ok().filter(|bytes| bytes.len() == 32)?);
    }
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).ok()
}

/// The parts of a header that decide, and the presence of those that refuse.
#[derive(Deserialize)]
struct Head {
    alg: String,
    typ: String,
    kid: String,
    #[serde(default)]
    crit: Present,
    #[serde(default)]
    jwk: Present,
    #[serde(default)]
    jku: Present,
    #[serde(default)]
    x5u: Present,
    #[serde(default)]
    x5c: Present,
}

/// Whether a member is there, `null` included.
#[derive(Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// A token whose signature is right; what it claims is still to be judged.
pub(super) fn authentic(
    token: &str,
    key_of: impl FnOnce(&str) -> Result<std::sync::Arc<ParsedPublicKey>, TokenFault>,
) -> Result<AccessClaims, TokenFault> {
    if token.len() > MOST_TOKEN_BYTES {
        return Err(TokenFault::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
    let (head, claims) = message.split_once('.').ok_or(TokenFault::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed);

    let head: Head = object(&decode(head)?).ok_or(TokenFault::ForeignHeader)?;
    let foreign = [&head.crit, &head.jwk, &head.jku, &head.x5u, &head.x5c].iter().any(|member| member.0);
    if head.alg != "ES256" || head.typ != TYPE || foreign {
        return Err(TokenFault::ForeignHeader);
    }
    let key = key_of(&head.kid)?;
    key.verify_sig(message.as_bytes(), &decode(signature)?).map_err(|_| TokenFault::BadSignature)?;
    object(&decode(claims)?).ok_or(TokenFault::BadClaims)
}

/// A JSON object as a `T`. Serde would take an array of the members' values for one as well.
fn object<T: serde::de::DeserializeOwned>(json: &[u8]) -> Option<T> {
    (json.trim_ascii_start().first() == Some(&b'{')).then(|| serde_json::from_slice(json).ok())?
}

/// Judges for whom an authentic token is, for Latchkey's own endpoints. That stands as long as the token does.
pub(super) fn judge(claims: &AccessClaims, issuer: &str) -> Result<(), TokenFault> {
    if claims.iss != issuer {
        return Err(TokenFault::ForeignIssuer);
    }
    if !claims.aud.contains(issuer) {
        return Err(TokenFault::ForeignAudience);
    }
    if !claims.scope.split(' ').any(|word| word == ACCOUNT) {
        return Err(TokenFault::WrongScope);
    }
    Ok(())
}

/// Judges the times of a token, in seconds since the Unix epoch.
pub(super) fn judge_times(exp: i64, iat: i64, nbf: Option<i64>, now: Timestamp) -> Result<(), TokenFault> {
    let now = now.seconds();
    if now >= exp.saturating_add(EXPIRY_LEEWAY) {
        return Err(TokenFault::Expired);
    }
    let latest = now.saturating_add(FUTURE_LEEWAY);
    if iat > latest || nbf.is_some_and(|not_before| not_before > latest) {
        return Err(TokenFault::FromTheFuture);
    }
    Ok(())
}
