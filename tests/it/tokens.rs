//! Access tokens at `GET /me`: what a real one says, and what is refused.
//!
//! Forged tokens start from a real one and are signed anew with the server's own private key, so that exactly one thing
//! is wrong with each: a rule that was taken out lets its forgery in, since the signature would not stop it.

use std::{sync::atomic::Ordering, time::Duration};

use aws_lc_rs::hmac;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use latchkey::keys::{KeyState, TokenFault};
use p256::{
    SecretKey,
    ecdsa::{Signature, SigningKey, signature::Signer},
    elliptic_curve::sec1::ToSec1Point,
    pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{Client, Person, Stack, StackKind, Test, TestApp};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(
        &StackKind::ALL;
        a_real_token_says_exactly_what_the_contract_says,
        a_refreshed_token_tells_of_the_roles_of_today,
        a_token_is_no_good_for_another_person_or_another_session,
        a_token_dies_with_its_session,
        an_end_in_the_database_counts_even_while_the_session_is_stored,
        a_token_dies_with_what_its_person_was,
        the_second_form_of_a_signature_dies_with_the_session,
    );
    tests.extend(crate::on_stacks!(
        &[StackKind::Embedded];
        another_algorithm_in_the_header_is_refused,
        a_token_without_a_signature_is_refused,
        the_public_key_is_no_hmac_secret,
        another_type_of_token_is_refused,
        another_kid_is_refused,
        the_published_next_key_verifies,
        every_changed_character_is_refused,
        a_token_that_is_cut_off_anywhere_is_refused,
        a_token_with_more_or_fewer_than_three_parts_is_refused,
        base64_in_another_form_is_refused,
        a_header_that_brings_its_own_key_is_refused,
        members_that_nobody_knows_are_ignored,
        duplicate_members_are_refused,
        header_and_claims_are_json_objects,
        a_claim_that_is_missing_or_of_another_type_is_refused,
        a_foreign_issuer_is_refused,
        the_public_url_must_be_in_the_audience,
        account_must_be_in_the_scope,
        a_token_is_taken_until_five_seconds_after_its_end,
        a_token_may_be_ten_seconds_from_the_future,
        extreme_times_are_judged_like_others,
        a_token_longer_than_8_kib_is_refused,
        another_service_can_verify_a_token_with_the_published_keys,
        an_audience_setting_with_the_public_url_works,
        an_audience_setting_without_the_public_url_shuts_our_own_endpoints,
    ));
    tests
}

const PUBLIC_URL: &str = "http://localhost:3000";

// --- Taking tokens apart and putting them together -------------------------------------------------------------------

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// Header (0) or claims (1) of a token.
fn part(token: &str, number: usize) -> Value {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    serde_json::from_slice(&decode(parts[number])).unwrap()
}

/// Header and claims as they are, signed.
fn seal(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>, key: &SigningKey) -> String {
    sign(&format!("{}.{}", encode(header), encode(claims)), key)
}

/// Adds the signature to a text that already is base64url.
fn sign(message: &str, key: &SigningKey) -> String {
    let signature: Signature = key.sign(message.as_bytes());
    format!("{message}.{}", encode(signature.to_bytes()))
}

/// The private key of the server that goes by `kid`.
fn private_key(stack: &Stack, kid: &str) -> SigningKey {
    let pem = std::fs::read_to_string(stack.dir.path().join("jwt").join(format!("{kid}.pem"))).unwrap();
    SecretKey::from_pkcs8_pem(&pem).unwrap().into()
}

/// A key that the server has never seen.
fn foreign_key() -> SigningKey {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    SigningKey::from_slice(&bytes).unwrap()
}

fn public_jwk(key: &SigningKey) -> Value {
    let point = SecretKey::from(key).public_key().to_sec1_point(false);
    json!({"kty": "EC", "crv": "P-256", "x": encode(point.x().unwrap()), "y": encode(point.y().unwrap())})
}

/// A real token taken apart, and the key it was signed with.
struct Forge {
    header: Value,
    claims: Value,
    key: SigningKey,
}

impl Forge {
    /// Proves first that what is put together unchanged is taken: else every refusal below would prove nothing.
    async fn of(person: &Person, stack: &Stack) -> Self {
        let (header, claims) = (part(&person.access, 0), part(&person.access, 1));
        let key = private_key(stack, header["kid"].as_str().unwrap());
        let forge = Self { header, claims, key };
        assert_ne!(forge.token(), person.access, "it is a signature of our own");
        takes(&person.client, "the unchanged token", &forge.token()).await;
        forge
    }

    fn token(&self) -> String {
        seal(self.header.to_string(), self.claims.to_string(), &self.key)
    }

    fn header(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[name] = value;
        seal(header.to_string(), self.claims.to_string(), &self.key)
    }

    fn without_header(&self, name: &str) -> String {
        let mut header = self.header.clone();
        header.as_object_mut().unwrap().remove(name).expect("it was there");
        seal(header.to_string(), self.claims.to_string(), &self.key)
    }

    fn claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        seal(self.header.to_string(), claims.to_string(), &self.key)
    }

    fn without_claim(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().unwrap().remove(name).expect("it was there");
        seal(self.header.to_string(), claims.to_string(), &self.key)
    }

    fn time(&self, name: &str) -> i64 {
        self.claims[name].as_i64().unwrap()
    }
}

async fn takes(client: &Client, what: &str, token: &str) {
    let reply = client.bearer(token).get("/me").await;
    assert_eq!(reply.status, 200, "{what}: {}", String::from_utf8_lossy(&reply.body));
}

async fn refuses(client: &Client, what: &str, token: &str) {
    let reply = client.bearer(token).get("/me").await;
    let body = String::from_utf8_lossy(&reply.body);
    let told = (reply.status, reply.header("www-authenticate"), reply.header("content-type"));
    let expected = (401, "Bearer error=\"invalid_token\"", "application/problem+json");
    assert_eq!(told, expected, "{what}: {body}");
    assert_eq!(reply.json()["code"], "invalid_token", "{what}: {body}");
}

fn kid_of(app: &TestApp, state: KeyState) -> String {
    let keys: Vec<_> = app.keys.list().into_iter().filter(|key| key.state == state).collect();
    assert_eq!(keys.len(), 1, "one key is {state:?}");
    keys[0].kid.clone()
}

// --- What a real token says ------------------------------------------------------------------------------------------

async fn a_real_token_says_exactly_what_the_contract_says(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    let signed_in_at = app.clock.load(Ordering::SeqCst) / 1000;
    let kid = kid_of(&app, KeyState::Active);

    let mut ids = Vec::new();
    for now in [signed_in_at, signed_in_at + 100] {
        assert_eq!(part(&alice.access, 0), json!({"alg": "ES256", "typ": "at+jwt", "kid": kid}));
        let mut claims = part(&alice.access, 1);
        let jti = claims.as_object_mut().unwrap().remove("jti").expect("a jti");
        let expected = json!({
            "iss": PUBLIC_URL,
            "sub": alice.id.to_string(),
            "aud": PUBLIC_URL,
            "client_id": "latchkey",
            "scope": "account",
            "iat": now,
            "exp": now + 300,
            "sid": alice.session.to_string(),
            "auth_time": signed_in_at,
            "amr": ["pwd"],
            "roles": [],
        });
        assert_eq!(claims, expected);
        let id: Uuid = jti.as_str().unwrap().parse().unwrap();
        assert_eq!((id.get_version_num(), json!(id.to_string())), (7, jti));
        ids.push(id);

        // Once more after a refresh: the times move, but not the one of the sign-in.
        if now == signed_in_at {
            app.pass(Duration::from_secs(100));
            let reply = alice.client.refresh(&alice.refresh).await.is(200);
            alice.take(&reply);
        }
    }
    assert_ne!(ids[0], ids[1], "each token has an id of its own");
}

async fn a_refreshed_token_tells_of_the_roles_of_today(stack: Stack) {
    let app = stack.app().await;
    let mut alice = app.person("alice").await;
    assert_eq!(part(&alice.access, 1)["roles"], json!([]));

    app.sql(&format!(r#"UPDATE users SET roles = '["admin","editor"]' WHERE id = {}"#, app.id(alice.id))).await;
    let reply = alice.client.refresh(&alice.refresh).await.is(200);
    alice.take(&reply);
    assert_eq!(part(&alice.access, 1)["roles"], json!(["admin", "editor"]));
    assert_eq!(alice.me().await.is(200).json()["roles"], json!(["admin", "editor"]));

    app.sql(&format!("UPDATE users SET roles = '[]' WHERE id = {}", app.id(alice.id))).await;
    alice.sign_in().await;
    assert_eq!(part(&alice.access, 1)["roles"], json!([]));
}

async fn another_service_can_verify_a_token_with_the_published_keys(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let reply = app.anonymous().get("/.well-known/jwks.json").await.is(200);
    let published: JwkSet = serde_json::from_slice(&reply.body).unwrap();
    let kid = jsonwebtoken::decode_header(&alice.access).unwrap().kid.unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[PUBLIC_URL]);
    validation.set_audience(&[PUBLIC_URL]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    // The library asks the machine's clock, the server that of the test.
    validation.validate_exp = false;

    for jwk in &published.keys {
        let key = DecodingKey::from_jwk(jwk).unwrap();
        let verified = jsonwebtoken::decode::<Value>(&alice.access, &key, &validation);
        if jwk.common.key_id.as_ref() == Some(&kid) {
            let verified = verified.unwrap();
            assert_eq!(verified.header.typ.as_deref(), Some("at+jwt"));
            assert_eq!(verified.claims, part(&alice.access, 1));
        } else {
            assert!(verified.is_err(), "the other key did not sign it");
        }
    }
    assert!(published.find(&kid).is_some(), "the key that signs is published");
}

async fn an_audience_setting_with_the_public_url_works(stack: Stack) {
    let audience = format!("https://api.example.com,{PUBLIC_URL}");
    let app = stack.app_with(&[("LATCHKEY_AUDIENCE", &audience)]).await;
    let alice = app.person("alice").await;
    assert_eq!(part(&alice.access, 1)["aud"], json!(["https://api.example.com", PUBLIC_URL]));
    alice.me().await.is(200);
}

async fn an_audience_setting_without_the_public_url_shuts_our_own_endpoints(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_AUDIENCE", "https://api.example.com")]).await;
    let alice = app.person("alice").await;
    assert_eq!(part(&alice.access, 1)["aud"], json!("https://api.example.com"));
    refuses(&alice.client, "not for us", &alice.access).await;
}

// --- The header ------------------------------------------------------------------------------------------------------

async fn another_algorithm_in_the_header_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;

    // Each is a right ES256 signature of the right key: only the word in the header is wrong.
    for alg in [
        "none", "None", "NONE", "HS256", "HS384", "HS512", "RS256", "PS256", "ES384", "ES512", "ES256K", "EdDSA",
        "es256", "Es256", "ES256 ", "", "UNKNOWN",
    ] {
        refuses(&alice.client, alg, &forge.header("alg", json!(alg))).await;
    }
    for alg in [Value::Null, json!(256), json!(["ES256"]), json!({"name": "ES256"}), json!(true)] {
        refuses(&alice.client, &format!("alg {alg}"), &forge.header("alg", alg)).await;
    }
    refuses(&alice.client, "no alg", &forge.without_header("alg")).await;
}

async fn a_token_without_a_signature_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;

    for alg in ["none", "ES256"] {
        let token = forge.header("alg", json!(alg));
        let (message, signature) = token.rsplit_once('.').unwrap();
        refuses(&alice.client, &format!("{alg}, empty signature"), &format!("{message}.")).await;
        refuses(&alice.client, &format!("{alg}, no third part"), message).await;
        // "Psychic" signatures: r and s of zero verify anything where nobody checks their range.
        for zeros in [32, 64] {
            let token = format!("{message}.{}", encode(vec![0; zeros]));
            refuses(&alice.client, &format!("{alg}, {zeros} zeros"), &token).await;
        }
        let raw = decode(signature);
        let longer = format!("{message}.{}", encode([raw.as_slice(), &[0]].concat()));
        refuses(&alice.client, &format!("{alg}, a byte more"), &longer).await;
        let der = Signature::from_slice(&raw).unwrap().to_der();
        refuses(&alice.client, &format!("{alg}, DER"), &format!("{message}.{}", encode(der.as_bytes()))).await;
    }
}

async fn the_public_key_is_no_hmac_secret(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;

    let public = SecretKey::from(&forge.key).public_key();
    let pem = public.to_public_key_pem(LineEnding::LF).unwrap();
    let published = app.anonymous().get("/.well-known/jwks.json").await.is(200);
    let kid = &forge.header["kid"];
    let jwk = published.json()["keys"].as_array().unwrap().iter().find(|jwk| jwk["kid"] == *kid).unwrap().clone();
    let secrets = [
        ("point", public.to_sec1_point(false).as_bytes().to_vec()),
        ("compressed point", public.to_sec1_point(true).as_bytes().to_vec()),
        ("PEM", pem.as_bytes().to_vec()),
        ("PEM without the last line break", pem.trim_end().as_bytes().to_vec()),
        ("DER", public.to_public_key_der().unwrap().as_bytes().to_vec()),
        ("JWK", jwk.to_string().into_bytes()),
        ("JWKS", published.body.clone()),
        ("nothing", Vec::new()),
    ];
    for (what, secret) in secrets {
        for alg in ["HS256", "ES256"] {
            let unsigned = forge.header("alg", json!(alg));
            let (message, _) = unsigned.rsplit_once('.').unwrap();
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
            refuses(&alice.client, &format!("{alg} with {what}"), &format!("{message}.{}", encode(tag))).await;
        }
    }
}

async fn another_type_of_token_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;

    refuses(&alice.client, "no typ", &forge.without_header("typ")).await;
    for typ in ["JWT", "jwt", "application/at+jwt", "at+JWT", "id+jwt", "dpop+jwt", "logout+jwt", "at+jwt ", ""] {
        refuses(&alice.client, typ, &forge.header("typ", json!(typ))).await;
    }
    for typ in [Value::Null, json!(1), json!(["at+jwt"])] {
        refuses(&alice.client, &format!("typ {typ}"), &forge.header("typ", typ)).await;
    }
}

async fn another_kid_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    let active = kid_of(&app, KeyState::Active);

    refuses(&alice.client, "no kid", &forge.without_header("kid")).await;
    let next = kid_of(&app, KeyState::Next);
    refuses(&alice.client, "next, signed by active", &forge.header("kid", json!(next))).await;
    let foreign = seal(forge.header.to_string(), forge.claims.to_string(), &foreign_key());
    refuses(&alice.client, "active, signed by a stranger", &foreign).await;
    let file = stack.dir.path().join("jwt").join(format!("{active}.pem")).display().to_string();
    let changed = format!("{active}=");
    for kid in [&file, &changed, "", "unknown", "../../../../dev/null", "' OR '1'='1", &active.to_lowercase()] {
        refuses(&alice.client, kid, &forge.header("kid", json!(kid))).await;
    }
    for kid in [Value::Null, json!(0), json!([active]), json!({"kid": active})] {
        refuses(&alice.client, &format!("kid {kid}"), &forge.header("kid", kid)).await;
    }
}

async fn the_published_next_key_verifies(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let mut forge = Forge::of(&alice, &stack).await;

    // A node that lacks the active key signs with this one, and every other node must believe it.
    let next = kid_of(&app, KeyState::Next);
    forge.key = private_key(&stack, &next);
    takes(&alice.client, "signed by next", &forge.header("kid", json!(next))).await;
    refuses(&alice.client, "active, signed by next", &forge.token()).await;
}

async fn a_header_that_brings_its_own_key_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    let stranger = foreign_key();
    let members = [
        ("crit", json!(["exp"])),
        ("jwk", public_jwk(&stranger)),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/chain.pem")),
        ("x5c", json!(["MIIBszCCAVmgAwIBAgIUOw=="])),
    ];
    for (name, value) in members {
        // Signed by the server itself, so that only the member can be what is refused.
        for value in [value.clone(), Value::Null, json!([]), json!({}), json!(""), json!(false)] {
            refuses(&alice.client, &format!("{name}: {value}"), &forge.header(name, value)).await;
        }
        // The attack itself.
        for kid in [forge.header["kid"].clone(), json!("attacker"), Value::Null] {
            let mut header = forge.header.clone();
            header[name] = value.clone();
            header["kid"] = kid;
            let token = seal(header.to_string(), forge.claims.to_string(), &stranger);
            refuses(&alice.client, &format!("{name} of a stranger, {}", header["kid"]), &token).await;
        }
    }
    let own = forge.header("jwk", public_jwk(&forge.key));
    refuses(&alice.client, "even the right key", &own).await;
}

async fn members_that_nobody_knows_are_ignored(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;

    // RFC 7515 §4 and RFC 7519 §4: what is not understood must be ignored, or nothing could ever be added.
    takes(&alice.client, "header", &forge.header("made_up", json!({"a": [1, null]}))).await;
    takes(&alice.client, "claim", &forge.claim("made_up", json!({"a": [1, null]}))).await;
}

// --- The form --------------------------------------------------------------------------------------------------------

async fn every_changed_character_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    alice.me().await.is(200);

    // All at once: where the kid was changed, the key is looked up once a second for all who wait.
    let mut together = JoinSet::new();
    for (at, character) in alice.access.char_indices() {
        let other = if character == 'A' { "B" } else { "A" };
        let changed = format!("{}{other}{}", &alice.access[..at], &alice.access[at + 1..]);
        let client = alice.client.clone();
        together.spawn(async move { refuses(&client, &format!("character {at}"), &changed).await });
    }
    together.join_all().await;
    // And the one an attacker would like: other claims under the old signature.
    let mut claims = part(&alice.access, 1);
    claims["roles"] = json!(["admin"]);
    let parts: Vec<&str> = alice.access.split('.').collect();
    let promoted = format!("{}.{}.{}", parts[0], encode(claims.to_string()), parts[2]);
    refuses(&alice.client, "an administrator", &promoted).await;
    alice.me().await.is(200);
}

async fn a_token_that_is_cut_off_anywhere_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    alice.me().await.is(200);
    for length in 0..alice.access.len() {
        refuses(&alice.client, &format!("the first {length}"), &alice.access[..length]).await;
        refuses(&alice.client, &format!("the last {length}"), &alice.access[alice.access.len() - length..]).await;
    }
}

async fn a_token_with_more_or_fewer_than_three_parts_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    let token = forge.token();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts") };

    for wrong in [
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        format!(".{token}"),
        format!("{token}."),
        format!("{header}..{claims}.{signature}"),
        format!("{header}.{claims}..{signature}"),
        format!("{token}.{signature}"),
        format!("{header}.{token}"),
        format!("{header}.{header}.{claims}.{signature}"),
        format!("{header}.{claims}.{claims}.{claims}.{signature}"),
        format!("{header}.{claims}"),
        format!("{claims}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{header} .{claims}.{signature}"),
        format!("{header}.{claims}. {signature}"),
        format!("{token} {token}"),
        format!("{token},{token}"),
    ] {
        refuses(&alice.client, &wrong, &wrong).await;
    }
    // With a right signature over the wrong number of parts.
    for message in [
        header.to_owned(),
        format!("{header}."),
        format!("{header}..{claims}"),
        format!("{header}.{claims}."),
        format!("{header}.{claims}.{claims}"),
        format!(".{header}.{claims}"),
    ] {
        refuses(&alice.client, &message, &sign(&message, &forge.key)).await;
    }
}

/// The same bytes to a lax decoder: base64url with a bit set where canonical text has zeros.
fn with_loose_bits(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    assert_ne!(text.len() % 4, 0, "the last character has bits to spare");
    let last = *text.as_bytes().last().unwrap();
    let at = ALPHABET.iter().position(|character| *character == last).unwrap();
    format!("{}{}", &text[..text.len() - 1], char::from(ALPHABET[at + 1]))
}

async fn base64_in_another_form_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let mut forge = Forge::of(&alice, &stack).await;
    // Filled up until each part has bits to spare, and until each has a character that differs between the alphabets.
    let (mut header, mut claims, mut token);
    let mut tries = 0;
    loop {
        tries += 1;
        assert!(tries < 10_000, "some filling fits");
        forge.header["fill"] = json!("?>~".repeat(1 + tries % 4) + &"x".repeat(tries % 3));
        forge.claims["fill"] = json!("?>~".repeat(1 + tries % 5) + &"x".repeat(tries / 3 % 3));
        forge.claims["jti"] = json!(Uuid::from_u128(tries as u128));
        (header, claims) = (encode(forge.header.to_string()), encode(forge.claims.to_string()));
        token = forge.token();
        let both = |text: &str| text.contains(['-', '_']);
        let signature = token.rsplit_once('.').unwrap().1;
        if header.len() % 4 != 0 && claims.len() % 4 != 0 && both(&header) && both(&claims) && both(signature) {
            break;
        }
    }
    takes(&alice.client, "filled up", &token).await;
    let (message, signature) = token.rsplit_once('.').unwrap();
    let raw = decode(signature);
    let (header_json, claims_json) = (forge.header.to_string(), forge.claims.to_string());

    for (what, signature) in [
        ("one =", format!("{signature}=")),
        ("two =", format!("{signature}==")),
        ("loose bits", with_loose_bits(signature)),
        ("the other alphabet", STANDARD_NO_PAD.encode(&raw)),
        ("the other alphabet, padded", STANDARD.encode(&raw)),
        ("a character more", format!("{signature}A")),
        ("percent-encoded", format!("{signature}%3D%3D")),
        ("hexadecimal", raw.iter().map(|byte| format!("{byte:02x}")).collect()),
    ] {
        refuses(&alice.client, &format!("signature: {what}"), &format!("{message}.{signature}")).await;
    }
    // These are signed as they stand: only the form is wrong.
    for (what, header, claims) in [
        ("header: padded", URL_SAFE.encode(&header_json), claims.clone()),
        ("header: loose bits", with_loose_bits(&header), claims.clone()),
        ("header: the other alphabet", STANDARD_NO_PAD.encode(&header_json), claims.clone()),
        ("header: plain JSON", header_json.clone(), claims.clone()),
        ("claims: padded", header.clone(), URL_SAFE.encode(&claims_json)),
        ("claims: loose bits", header.clone(), with_loose_bits(&claims)),
        ("claims: the other alphabet", header.clone(), STANDARD_NO_PAD.encode(&claims_json)),
        ("claims: plain JSON", header.clone(), claims_json.clone()),
    ] {
        refuses(&alice.client, what, &sign(&format!("{header}.{claims}"), &forge.key)).await;
    }
}

async fn duplicate_members_are_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    let (header, claims) = (forge.header.to_string(), forge.claims.to_string());
    let twice = |object: &str, name: &str, value: &Value| {
        let name = json!(name);
        (format!("{{{name}:{value},{}", &object[1..]), format!("{},{name}:{value}}}", &object[..object.len() - 1]))
    };

    // The same value twice: whichever of the two counted, the token would be taken.
    for name in ["alg", "typ", "kid"] {
        let (first, last) = twice(&header, name, &forge.header[name]);
        refuses(&alice.client, &format!("{name} first"), &seal(first, &claims, &forge.key)).await;
        refuses(&alice.client, &format!("{name} last"), &seal(last, &claims, &forge.key)).await;
    }
    for name in ["iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "sid", "auth_time", "amr", "roles"] {
        let (first, last) = twice(&claims, name, &forge.claims[name]);
        refuses(&alice.client, &format!("{name} first"), &seal(&header, first, &forge.key)).await;
        refuses(&alice.client, &format!("{name} last"), &seal(&header, last, &forge.key)).await;
    }
    // The same name under another spelling of its letters.
    let (escaped, _) = twice(&claims, "sub", &forge.claims["sub"]);
    let escaped = escaped.replacen("\"sub\"", "\"\\u0073ub\"", 1);
    refuses(&alice.client, "escaped", &seal(&header, escaped, &forge.key)).await;
}

async fn header_and_claims_are_json_objects(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    let (header, claims) = (forge.header.to_string(), forge.claims.to_string());

    for wrong in ["", "null", "1", "true", "\"text\"", "{}", "[]", "{", "ES256"] {
        refuses(&alice.client, &format!("header {wrong:?}"), &seal(wrong, &claims, &forge.key)).await;
        refuses(&alice.client, &format!("claims {wrong:?}"), &seal(&header, wrong, &forge.key)).await;
    }
    for (before, after) in [("", "x"), ("", "{}"), ("x", ""), ("\u{feff}", ""), ("[", "]"), ("", ","), ("", "\0")] {
        let (header_around, claims_around) = (format!("{before}{header}{after}"), format!("{before}{claims}{after}"));
        refuses(&alice.client, &format!("header in {before:?} {after:?}"), &seal(header_around, &claims, &forge.key))
            .await;
        refuses(&alice.client, &format!("claims in {before:?} {after:?}"), &seal(&header, claims_around, &forge.key))
            .await;
    }
    let scope = br#""scope":"account"#;
    let at = claims.as_bytes().windows(scope.len()).position(|window| window == scope).unwrap() + scope.len();
    let bad_text = [&claims.as_bytes()[..at], b" \xff", &claims.as_bytes()[at..]].concat();
    refuses(&alice.client, "claims that are no UTF-8", &seal(&header, bad_text, &forge.key)).await;

    // Values without names, in the order of the fields: serde's derived code takes them, a JOSE library would not.
    let values = json!(["ES256", "at+jwt", forge.header["kid"]]);
    refuses(&alice.client, "a header without names", &seal(values.to_string(), &claims, &forge.key)).await;
    let values: Vec<Value> =
        ["iss", "sub", "aud", "client_id", "scope", "iat", "exp", "nbf", "jti", "sid", "auth_time", "amr", "roles"]
            .into_iter()
            .map(|name| forge.claims[name].clone())
            .collect();
    refuses(&alice.client, "claims without names", &seal(&header, json!(values).to_string(), &forge.key)).await;
}

async fn a_token_longer_than_8_kib_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let mut forge = Forge::of(&alice, &stack).await;
    // The longest token of at most `most` characters: four for three bytes, and one more byte makes it too long.
    let mut filled = |most: usize, more: usize| {
        forge.claims["fill"] = json!("");
        let rest = most - (forge.token().len() - encode(forge.claims.to_string()).len());
        let room = rest / 4 * 3 + [0, 0, 1, 2][rest % 4];
        forge.claims["fill"] = json!("x".repeat(room - forge.claims.to_string().len() + more));
        forge.token()
    };

    // At the door the whole header line counts, name and scheme included.
    let longest = 8 * 1024 - "authorization".len() - "Bearer ".len();
    takes(&alice.client, "8 KiB in a header", &filled(longest, 0)).await;
    let beyond = filled(9 * 1024, 0);
    alice.client.bearer(&beyond).get("/me").await.is_problem(431, "header_too_large");
    // Where a token may come by another way, its own bound holds.
    let now = app.ambient.now();
    let (longest, beyond) = (filled(8 * 1024, 0), filled(8 * 1024, 1));
    assert!(longest.len() <= 8 * 1024 && beyond.len() > 8 * 1024, "{} {}", longest.len(), beyond.len());
    assert_eq!(app.keys.verify(&longest, now).map(|token| token.person), Ok(alice.id));
    assert_eq!(app.keys.verify(&beyond, now), Err(TokenFault::Malformed));
}

// --- The claims ------------------------------------------------------------------------------------------------------

async fn a_claim_that_is_missing_or_of_another_type_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    let texts = vec![json!(1), json!(true), json!([]), json!({})];
    let numbers = vec![json!("1795344960"), json!(""), json!(true), json!([1_795_344_960]), json!({})];
    let ids = vec![json!(""), json!("alice"), json!(1), json!(true), json!([alice.id.to_string()]), json!({})];
    let lists = vec![json!(1), json!(true), json!({}), json!([1]), json!([PUBLIC_URL, 1]), json!([null])];

    // A person or a session that is not named is not found either, so the reason is asked for as well.
    let refuses = async |what: String, token: String| {
        refuses(&alice.client, &what, &token).await;
        assert_eq!(app.keys.verify(&token, app.ambient.now()), Err(TokenFault::BadClaims), "{what}");
    };
    for (name, wrong) in [
        ("iss", &texts),
        ("sub", &ids),
        ("aud", &lists),
        ("exp", &numbers),
        ("iat", &numbers),
        ("jti", &ids),
        ("sid", &ids),
        ("client_id", &texts),
        ("scope", &texts),
    ] {
        refuses(format!("no {name}"), forge.without_claim(name)).await;
        refuses(format!("{name}: null"), forge.claim(name, Value::Null)).await;
        for value in wrong {
            refuses(format!("{name}: {value}"), forge.claim(name, value.clone())).await;
        }
    }
    for value in &numbers {
        refuses(format!("nbf: {value}"), forge.claim("nbf", value.clone())).await;
    }
}

async fn a_foreign_issuer_is_refused(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    for issuer in [
        "https://other.example",
        "http://localhost:3001",
        "http://localhost",
        "https://localhost:3000",
        "http://localhost:3000/",
        "http://LOCALHOST:3000",
        "http://localhost:3000.attacker.example",
        "",
    ] {
        refuses(&alice.client, issuer, &forge.claim("iss", json!(issuer))).await;
    }
}

async fn the_public_url_must_be_in_the_audience(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    for audience in [
        json!("https://api.example.com"),
        json!("http://localhost:3000/"),
        json!(format!("{PUBLIC_URL} https://api.example.com")),
        json!("latchkey"),
        json!(""),
        json!([]),
        json!([""]),
        json!(["https://api.example.com", "http://localhost:3000/me"]),
        json!([[PUBLIC_URL]]),
    ] {
        refuses(&alice.client, &format!("{audience}"), &forge.claim("aud", audience)).await;
    }
    for audience in [json!([PUBLIC_URL]), json!(["https://api.example.com", PUBLIC_URL, "other"])] {
        takes(&alice.client, &format!("{audience}"), &forge.claim("aud", audience)).await;
    }
}

async fn account_must_be_in_the_scope(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    for scope in [
        "",
        " ",
        "accounts",
        "accoun",
        "ACCOUNT",
        "account:read",
        "my-account",
        "account,openid",
        "openid email",
        "account\topenid",
    ] {
        refuses(&alice.client, scope, &forge.claim("scope", json!(scope))).await;
    }
    for scope in ["account", "openid account", "account email", "openid account email"] {
        takes(&alice.client, scope, &forge.claim("scope", json!(scope))).await;
    }
}

async fn a_token_is_taken_until_five_seconds_after_its_end(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.pass(Duration::from_millis(304_999));
    takes(&alice.client, "4.999 s after its end", &alice.access).await;
    app.pass(Duration::from_millis(1));
    refuses(&alice.client, "5 s after its end", &alice.access).await;
    app.pass(Duration::from_secs(3600));
    refuses(&alice.client, "an hour after its end", &alice.access).await;
    // It was the token that was over, not the session.
    let access = alice.client.refresh(&alice.refresh).await.is(200).text("/access_token");
    takes(&alice.client, "a new one of the same session", &access).await;
}

async fn a_token_may_be_ten_seconds_from_the_future(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    let now = forge.time("iat");
    for name in ["iat", "nbf"] {
        takes(&alice.client, &format!("{name} an hour ago"), &forge.claim(name, json!(now - 3600))).await;
        takes(&alice.client, &format!("{name} now"), &forge.claim(name, json!(now))).await;
        takes(&alice.client, &format!("{name} in 10 s"), &forge.claim(name, json!(now + 10))).await;
        let early = forge.claim(name, json!(now + 11));
        refuses(&alice.client, &format!("{name} in 11 s"), &early).await;
        refuses(&alice.client, &format!("{name} in an hour"), &forge.claim(name, json!(now + 3600))).await;
        app.pass(Duration::from_secs(1));
        takes(&alice.client, &format!("{name} in 11 s, a second later"), &early).await;
        app.clock.fetch_sub(1000, Ordering::SeqCst);
    }
}

async fn extreme_times_are_judged_like_others(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let forge = Forge::of(&alice, &stack).await;
    takes(&alice.client, "exp at the end of time", &forge.claim("exp", json!(i64::MAX))).await;
    for (name, value) in [
        ("exp", json!(i64::MIN)),
        ("exp", json!(-1)),
        ("exp", json!(0)),
        ("iat", json!(i64::MAX)),
        ("nbf", json!(i64::MAX)),
        ("iat", json!(u64::MAX)),
        ("nbf", json!(u64::MAX)),
        ("iat", json!(1e300)),
    ] {
        refuses(&alice.client, &format!("{name}: {value}"), &forge.claim(name, value)).await;
    }
}

// --- The session -----------------------------------------------------------------------------------------------------

async fn a_token_is_no_good_for_another_person_or_another_session(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    let forge = Forge::of(&alice, &stack).await;

    refuses(&alice.client, "bob in alice's session", &forge.claim("sub", json!(bob.id))).await;
    refuses(&alice.client, "alice in bob's session", &forge.claim("sid", json!(bob.session))).await;
    refuses(&alice.client, "nobody", &forge.claim("sub", json!(Uuid::from_u128(1)))).await;
    refuses(&alice.client, "no session", &forge.claim("sid", json!(Uuid::from_u128(1)))).await;
    refuses(&alice.client, "the nil session", &forge.claim("sid", json!(Uuid::nil()))).await;
    // Both together are bob's own token: it is the pair that must fit.
    let mut claims = forge.claims.clone();
    claims["sub"] = json!(bob.id);
    claims["sid"] = json!(bob.session);
    let token = seal(forge.header.to_string(), claims.to_string(), &forge.key);
    let reply = alice.client.bearer(&token).get("/me").await.is(200);
    assert_eq!(reply.json()["id"], json!(bob.id));
}

async fn a_token_dies_with_its_session(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    assert_ne!(alice.session, other.session);
    let forge = Forge::of(&alice, &stack).await;
    let forged = forge.claim("sid", json!(other.session));
    takes(&alice.client, "the other session, while it lives", &forged).await;

    other.client.post("/logout", json!({"refresh_token": other.refresh})).await.is(204);
    refuses(&alice.client, "the token of the session that ended", &other.access).await;
    refuses(&alice.client, "another token of the session that ended", &forged).await;
    takes(&alice.client, "the session that goes on", &alice.access).await;
    takes(&alice.client, "the session that goes on, signed anew", &forge.token()).await;
}

async fn an_end_in_the_database_counts_even_while_the_session_is_stored(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = alice.elsewhere().await;
    // As after a store that lost the deletion.
    app.sql(&format!(
        "INSERT INTO ended_sessions (session_id, user_id, \"until\") VALUES ({}, {}, 9000000000000)",
        app.id(alice.session),
        app.id(alice.id)
    ))
    .await;
    refuses(&alice.client, "ended", &alice.access).await;
    takes(&other.client, "the other session", &other.access).await;
}

async fn a_token_dies_with_what_its_person_was(stack: Stack) {
    let app = stack.app().await;
    for (name, change) in [
        ("alice", "epoch = epoch + 1"),
        ("bob", "epoch = epoch - 1"),
        ("carol", "status = 'disabled'"),
        ("dave", "deleted_at = 1"),
    ] {
        let person = app.person(name).await;
        let bystander = app.person(&format!("{name}s-friend")).await;
        takes(&person.client, change, &person.access).await;
        app.sql(&format!("UPDATE users SET {change} WHERE id = {}", app.id(person.id))).await;
        refuses(&person.client, change, &person.access).await;
        takes(&bystander.client, change, &bystander.access).await;
    }
}

/// (r, n − s) is as good a signature as (r, s).
fn other_form(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (r, s) = Signature::from_slice(&decode(signature)).unwrap().split_scalars();
    let other = Signature::from_scalars(r, -*s).unwrap();
    format!("{message}.{}", encode(other.to_bytes()))
}

async fn the_second_form_of_a_signature_dies_with_the_session(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let other = other_form(&alice.access);
    assert_ne!(other, alice.access);
    assert_eq!(other_form(&other), alice.access);
    takes(&alice.client, "the second form, while the session lives", &other).await;
    takes(&alice.client, "the first form, while the session lives", &alice.access).await;

    // Logged out with the one form, and gone in both: an end is by session, never by the text of a token.
    alice.client.bearer(&alice.access).post("/logout", json!({})).await.is(204);
    refuses(&alice.client, "the first form", &alice.access).await;
    refuses(&alice.client, "the second form", &other).await;
}
