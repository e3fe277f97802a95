//! The key ring: which ES256 keys sign and verify access tokens (RFC 7519, 9068; JWK RFC 7517).
//!
//! 1. Private keys are files (`keys/files.rs`); public halves and states are rows of `signing_keys` (`keys/store.rs`),
//!    so every node verifies what any node signed, whichever private keys it holds.
//! 2. At start: files whose key is in no row are taken in (`active` in an empty ring, else `next`); an empty ring on a
//!    development URL gets one `active` and one `next`. The conditional insert of the active key decides which of two
//!    nodes that start at once makes the ring; the other finds its rows and, in a shared folder, its files.
//! 3. Every two seconds the table is read; what changed is in force from then on, and a private key that is missing is
//!    looked for in the folder again (`keys/reading.rs`). Without the database a node goes on with what it had.
//! 4. Tokens are signed with the `active` key; a node that lacks that file signs with the newest published key it holds
//!    and warns; with none it cannot sign, and verifies all the same.
//! 5. A token whose signature was found right is remembered for as long as it is used (`keys/verified.rs`).
//! 6. `latchkey keys rotate` and `keys retire` move keys from state to state in the table alone (`keys/rotation.rs`).
//! 7. After a restore the ring begins anew: no key from before signs or verifies any more (`keys/renewal.rs`).
//!
//! jsonwebtoken gives the types (`Jwk`, thumbprint, header). Its `encode` and `decode` parse the EC key for every token
//! and compare with the system clock, so the two calls they end in, one ECDSA sign and one verify by aws-lc-rs, are
//! made here with keys that were parsed once (`keys/token.rs`).

mod claims;
mod files;
mod reading;
mod renewal;
mod ring;
mod rotation;
mod secrets;
mod store;
mod token;
mod verified;

pub use claims::{AccessClaims, Audience};
pub(crate) use files::read_private;
pub use files::{FileFault, FileFaults, KeyFiles, PrivateKey};
pub use renewal::Renewal;
pub use ring::{KeyRing, KeyState, NoSigningKey, RingError, RingKey};
pub use rotation::{JWKS_MAX_AGE, Retirement, Rotation, RotationError, retire, sweep};
pub use secrets::{check_secrets, knows_secrets, open_secrets, server_secrets};
pub use token::{MOST_TOKEN_BYTES, Signer, TokenFault};
pub use verified::VerifiedToken;
