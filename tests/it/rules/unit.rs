use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use latchkey::{
    names,
    passwords::policy::{self, Context},
    secret::{SecretBytes, SecretText, ServerSecrets},
    sessions::RefreshToken,
};
use uuid::Uuid;

use crate::{once, support::Test};

pub fn tests() -> Vec<Test> {
    once![
        texts_that_shrink_and_labels_that_are_too_long_are_no_addresses,
        control_characters_of_every_kind_are_in_no_name,
        a_very_long_password_is_refused_before_it_is_looked_at,
        a_token_of_another_version_is_refused_though_we_signed_it,
        the_store_keeps_half_of_a_digest_and_not_the_nonce,
    ]
}

fn texts_that_shrink_and_labels_that_are_too_long_are_no_addresses() {
    // Soft hyphens, which UTS 46 drops: the address would be five letters long.
    assert_eq!(names::canonical_email(&format!("a@{}c.de", "\u{ad}".repeat(600))), None);
    assert_eq!(names::canonical_email(&format!("a@{}c.de", "\u{ad}".repeat(6))).as_deref(), Some("a@c.de"));
    for domain in ["c..de".to_owned(), ".c.de".to_owned(), format!("{}.de", "b".repeat(64))] {
        assert_eq!(names::canonical_email(&format!("a@{domain}")), None, "{domain}");
    }
    assert!(names::canonical_email(&format!("a@{}.de", "b".repeat(63))).is_some());
}

fn control_characters_of_every_kind_are_in_no_name() {
    for c in ['\t', '\u{7}', '\u{8}', '\u{b}', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}'] {
        assert_eq!(names::display_name(&format!("a{c}b")), None, "{c:?}");
    }
}

fn a_very_long_password_is_refused_before_it_is_looked_at() {
    let context = Context { min_length: 8, product_name: "Latchkey", email: None, names: [None, None] };
    // Whoever looked at it would find forbidden characters as well.
    let password = SecretText::new("\0".repeat(2049));
    let reasons = policy::check("password", &password, &context).unwrap_err();
    assert_eq!(reasons.iter().map(|reason| reason.code).collect::<Vec<_>>(), ["too_long"]);
}

fn a_token_of_another_version_is_refused_though_we_signed_it() {
    let secrets = ServerSecrets::new(&[SecretBytes::new(vec![7; 32])]);
    let text = |version: u8| {
        let (mut bytes, tag) =
            secrets.tag(latchkey::secret::Usage::Refresh, |key_id| [vec![version, key_id], vec![1; 53]].concat());
        bytes.extend(&tag[..16]);
        format!("lkr_{}", URL_SAFE_NO_PAD.encode(bytes))
    };
    assert!(RefreshToken::parse(&text(1), &secrets).is_some());
    for version in [0, 2, 255] {
        assert!(RefreshToken::parse(&text(version), &secrets).is_none(), "{version}");
    }
}

fn the_store_keeps_half_of_a_digest_and_not_the_nonce() {
    let (person, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let token = RefreshToken { person, session, grant: 0, generation: 0, nonce: [3; 16] };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[3; 16]);
    assert_eq!(token.nonce_hash(), digest.as_ref()[..16]);
}
