//! What a token costs: signing, checking for the first time and again, refresh tokens, the JWK set.
//!
//! 1. The key ring of a fresh folder signs and checks access tokens, as the server does.
//! 2. Beside it the same bytes by bare `aws-lc-rs`, by `p256`, and the same claims by `jsonwebtoken` as it comes, with the
//!    same key.
//! 3. Ratios to bare `aws-lc-rs`, measured by turns: absolute times move here from run to run.

#[path = "support/ratio.rs"]
mod ratio;
mod support;

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use criterion::Criterion;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use latchkey::{
    BUILT_IN_CLIENT, BUILT_IN_SCOPE,
    ambient::Ambient,
    db::{Db, Timestamp},
    keys::{AccessClaims, Audience, KeyFiles, KeyRing, Signer},
    secret::{SecretBytes, ServerSecrets},
    sessions::RefreshToken,
};
use p256::{
    ecdsa::{
        Signature, SigningKey, VerifyingKey,
        signature::{Signer as _, Verifier as _},
    },
    pkcs8::DecodePrivateKey,
};
use tempfile::TempDir;
use uuid::Uuid;

const ISSUER: &str = "https://accounts.example.com";
/// Tokens that are checked for the first time before all are forgotten again.
const UNSEEN: usize = 256;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    println!("{}", support::machine());
    let bench = Bench::open();
    bench.access_tokens(&mut criterion);
    bench.refresh_tokens(&mut criterion);
    bench.jwks(&mut criterion);
    criterion.final_summary();
    bench.ratios();
}

struct Bench {
    ambient: Ambient,
    ring: KeyRing,
    signer: std::sync::Arc<Signer>,
    claims: AccessClaims,
    /// A token with these claims.
    token: String,
    /// PKCS#8 of the key that signed it.
    pem: String,
    _dir: TempDir,
}

impl Bench {
    fn open() -> Self {
        let dir = TempDir::new().expect("a folder");
        let (ambient, keys) = (Ambient::system(), dir.path().join("jwt"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ring = runtime.block_on(async {
            let db = Db::open_sqlite(&dir.path().join("latchkey.db")).await.expect("a database");
            db.migrate().await.expect("migrations");
            let ring = KeyRing::open(&db, &KeyFiles::new(&keys), ISSUER, true, &ambient).await.expect("a ring");
            db.close().await;
            ring
        });
        let signer = ring.signer().expect("a key that signs");
        let claims = claims(&ambient);
        let token = signer.sign(&claims).expect("a token");
        let header = jsonwebtoken::decode_header(&token).expect("a header");
        let pem = fs::read_to_string(keys.join(format!("{}.pem", header.kid.expect("a kid")))).expect("the key's file");
        Self { ambient, ring, signer, claims, token, pem, _dir: dir }
    }

    /// What is signed, and the signature.
    fn parts(&self) -> (&[u8], Vec<u8>) {
        let (message, signature) = self.token.rsplit_once('.').expect("a token");
        (message.as_bytes(), URL_SAFE_NO_PAD.decode(signature).expect("base64url"))
    }

    fn bare_pair(&self) -> EcdsaKeyPair {
        let der = pem_body(&self.pem);
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("the key")
    }

    fn now(&self) -> Timestamp {
        self.ambient.now()
    }

    /// Tokens that differ in their ids alone.
    fn unseen(&self) -> Vec<String> {
        let sign = |_| {
            let claims = AccessClaims { jti: self.ambient.uuid(), ..self.claims.clone() };
            self.signer.sign(&claims).expect("a token")
        };
        (0..UNSEEN).map(sign).collect()
    }

    /// The time of `times` checks of tokens that nobody remembers.
    fn first_checks(&self, tokens: &[String], times: u64) -> Duration {
        let (mut taken, mut left) = (Duration::ZERO, times);
        while left > 0 {
            // What was used since the last time is kept once.
            self.ring.forget_unused();
            self.ring.forget_unused();
            let batch = usize::try_from(left).unwrap_or(usize::MAX).min(tokens.len());
            let (began, now) = (Instant::now(), self.now());
            for token in &tokens[..batch] {
                black_box(self.ring.verify(token, now).expect("a good token"));
            }
            taken += began.elapsed();
            left -= batch as u64;
        }
        taken
    }

    fn access_tokens(&self, criterion: &mut Criterion) {
        let (message, signature) = self.parts();
        let (pair, random) = (self.bare_pair(), SystemRandom::new());
        let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()).expect("the key");
        let signing = SigningKey::from_pkcs8_pem(&self.pem).expect("the key");
        let (verifying, parsed) =
            (VerifyingKey::from(&signing), Signature::from_slice(&signature).expect("a signature"));
        let encoding = EncodingKey::from_ec_der(&pem_body(&self.pem));
        let kid = jsonwebtoken::decode_header(&self.token).expect("a header").kid.expect("a kid");
        let keys = self.ring.jwks(self.now());
        let decoding = DecodingKey::from_jwk(keys.find(&kid).expect("the key that signed")).expect("the key");
        let header = Header { typ: Some("at+jwt".to_owned()), ..Header::new(Algorithm::ES256) };
        let mut checks = Validation::new(Algorithm::ES256);
        checks.set_audience(&[ISSUER]);
        checks.set_issuer(&[ISSUER]);

        let mut group = criterion.benchmark_group("sign an access token");
        group.bench_function("ours", |bencher| bencher.iter(|| self.signer.sign(&self.claims).expect("a token")));
        group.bench_function("aws-lc-rs, the signature alone", |bencher| {
            bencher.iter(|| pair.sign(&random, message).expect("a signature"));
        });
        group.bench_function("jsonwebtoken", |bencher| {
            bencher.iter(|| jsonwebtoken::encode(&header, &self.claims, &encoding).expect("a token"));
        });
        group.bench_function("p256, the signature alone", |bencher| {
            bencher.iter(|| -> Signature { signing.sign(message) });
        });
        group.finish();

        let tokens = self.unseen();
        let mut group = criterion.benchmark_group("verify an access token");
        group.bench_function("ours, seen for the first time", |bencher| {
            bencher.iter_custom(|times| self.first_checks(&tokens, times));
        });
        group.bench_function("ours, seen before", |bencher| {
            let now = self.now();
            bencher.iter(|| self.ring.verify(&self.token, now).expect("a good token"));
        });
        group.bench_function("aws-lc-rs, the signature alone", |bencher| {
            bencher.iter(|| public.verify_sig(message, &signature).expect("a good signature"));
        });
        group.bench_function("jsonwebtoken", |bencher| {
            bencher
                .iter(|| jsonwebtoken::decode::<AccessClaims>(&self.token, &decoding, &checks).expect("a good token"));
        });
        group.bench_function("p256, the signature alone", |bencher| {
            bencher.iter(|| verifying.verify(message, &parsed).expect("a good signature"));
        });
        group.finish();
    }

    fn refresh_tokens(&self, criterion: &mut Criterion) {
        let secrets = ServerSecrets::new(&[SecretBytes::new(self.ambient.bytes::<32>().to_vec())]);
        let token = RefreshToken {
            person: self.ambient.uuid(),
            session: self.ambient.uuid(),
            grant: 0,
            generation: 7,
            nonce: self.ambient.bytes(),
        };
        let text = token.render(&secrets);
        let mut group = criterion.benchmark_group("refresh token");
        group.bench_function("make", |bencher| bencher.iter(|| token.render(&secrets)));
        group.bench_function("check", |bencher| {
            bencher.iter(|| RefreshToken::parse(text.expose(), &secrets).expect("a good token"));
        });
        group.finish();
    }

    fn jwks(&self, criterion: &mut Criterion) {
        criterion.bench_function("render the JWK set", |bencher| {
            bencher.iter(|| serde_json::to_vec(&self.ring.jwks(self.now())).expect("JSON"));
        });
    }

    fn ratios(&self) {
        println!("\nRatios, by turns; {}", support::machine());
        let (message, signature) = self.parts();
        let (pair, random) = (self.bare_pair(), SystemRandom::new());
        let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()).expect("the key");
        let times = 2000;
        let taken = ratio::interleaved(&mut [
            &mut || timed(times, || _ = black_box(self.signer.sign(&self.claims))),
            &mut || timed(times, || _ = black_box(pair.sign(&random, message))),
        ]);
        ratio::say("sign: ours / bare aws-lc-rs", taken[0], taken[1], times, "target: 1.15 or less");

        let (tokens, times) = (self.unseen(), 4 * UNSEEN);
        let taken = ratio::interleaved(&mut [&mut || self.first_checks(&tokens, times as u64), &mut || {
            timed(times, || _ = black_box(public.verify_sig(message, &signature)))
        }]);
        ratio::say("verify, first time: ours / bare aws-lc-rs", taken[0], taken[1], times, "target: 1.15 or less");

        let (now, times) = (self.now(), 20_000);
        let again = &mut || timed(times, || _ = black_box(self.ring.verify(&self.token, now)));
        let taken = ratio::interleaved(&mut [again]);
        println!("{:<44} {:>10.2} µs   target: 2 µs or less", "verify, seen before", taken[0] * 1e6 / times as f64);
    }
}

/// How long it takes to do this so often.
fn timed(times: usize, mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        work();
    }
    began.elapsed()
}

/// Claims as the server makes them.
fn claims(ambient: &Ambient) -> AccessClaims {
    let now = ambient.now();
    AccessClaims {
        iss: ISSUER.to_owned(),
        sub: ambient.uuid(),
        aud: Audience::One(ISSUER.to_owned()),
        client_id: BUILT_IN_CLIENT.to_owned(),
        scope: BUILT_IN_SCOPE.to_owned(),
        iat: now.seconds(),
        exp: now.after(Duration::from_secs(3600)).seconds(),
        nbf: None,
        jti: Uuid::from_bytes(ambient.bytes()),
        sid: ambient.uuid(),
        auth_time: Some(now.seconds()),
        amr: vec!["pwd".to_owned()],
        roles: Vec::new(),
    }
}

/// The bytes of a PEM block.
fn pem_body(pem: &str) -> Vec<u8> {
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}
