//! Keys and secret: what a start makes, takes in and refuses, and how the ring moves tokens from key to key.
//!
//! What the server should do with a key is worked out here a second time, with p256 and SHA-256 alone: thumbprints,
//! the forms of key files, public halves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use aws_lc_rs::{
    digest,
    encoding::AsDer,
    rand::SystemRandom,
    signature::{
        ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use latchkey::{
    app::StartError,
    keys::{KeyFiles, KeyState, RingError},
};
use p256::{
    SecretKey,
    elliptic_curve::sec1::ToSec1Point,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{Client, Process, Stack, StackKind, Test, TestApp};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(
        &[StackKind::Embedded];
        the_first_start_makes_an_active_and_a_next_key_and_a_secret,
        the_published_keys_are_public_halves_and_nothing_else,
        a_second_start_changes_nothing,
        an_operators_key_in_an_empty_ring_becomes_active,
        an_operators_key_beside_others_becomes_next,
        of_several_operators_keys_in_an_empty_ring_one_becomes_active,
        one_key_in_two_files_is_one_key,
        group_readable_files_and_links_are_fine,
        dotfiles_and_the_readme_are_passed_over,
        every_unusable_file_is_a_start_fault_by_its_name,
        all_unusable_files_are_told_at_once_and_nothing_is_taken_in,
        a_key_file_that_others_may_use_is_refused,
        an_unusable_secret_file_is_a_start_fault,
        a_foreign_secret_is_refused,
        the_secret_can_be_changed_without_a_logout,
        without_a_loopback_http_url_nothing_is_made_unasked,
        keys_generate_makes_what_a_production_start_wants,
        keys_generate_adds_nothing_to_a_whole_ring,
        a_node_without_the_active_key_signs_with_the_newest_published_one,
        a_node_without_any_private_key_verifies_and_cannot_sign,
        a_retiring_key_verifies_until_its_hour,
        a_retired_key_is_gone_at_once_and_stays_gone,
        a_ring_that_cannot_be_read_again_stays_as_it_was,
    );
    tests.extend(crate::on_stacks!(
        &StackKind::SHARED;
        two_nodes_that_start_at_once_make_one_ring,
        a_node_that_lost_the_race_for_the_ring_keeps_the_file_of_the_active_key,
        a_node_with_a_foreign_secret_does_not_join,
        a_node_with_an_empty_folder_verifies_what_others_signed,
        a_key_of_another_node_is_known_after_the_next_reading,
    ));
    tests
}

// --- Files -----------------------------------------------------------------------------------------------------------

fn jwt(stack: &Stack) -> PathBuf {
    stack.dir.path().join("jwt")
}

/// Puts a file into a folder of keys that may not be there yet.
fn put(dir: &Path, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Names and contents of all files in a folder.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

// --- Keys ------------------------------------------------------------------------------------------------------------

fn new_key() -> SecretKey {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    SecretKey::from_slice(&bytes).unwrap()
}

/// RFC 7638 §3: the required members in the order of their names, without any space.
fn thumbprint(key: &SecretKey) -> String {
    let (x, y) = coordinates(key);
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

fn coordinates(key: &SecretKey) -> (String, String) {
    let point = key.public_key().to_sec1_point(false);
    (URL_SAFE_NO_PAD.encode(point.x().unwrap()), URL_SAFE_NO_PAD.encode(point.y().unwrap()))
}

fn pkcs8(key: &SecretKey) -> String {
    key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

fn sec1(key: &SecretKey) -> String {
    key.to_sec1_pem(LineEnding::LF).unwrap().to_string()
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// What `openssl ecparam` writes before a key: the curve's object identifier.
const PARAMETERS: &str = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";

/// Every form an operator may bring a P-256 key in. The last ones are only there where there is an openssl.
fn forms() -> Vec<(&'static str, String, SecretKey)> {
    let keys: Vec<SecretKey> = (0..5).map(|_| new_key()).collect();
    let mut forms = vec![
        ("PKCS#8", pkcs8(&keys[0]), keys[0].clone()),
        ("SEC1", sec1(&keys[1]), keys[1].clone()),
        ("SEC1 behind its parameters", format!("{PARAMETERS}{}", sec1(&keys[2])), keys[2].clone()),
        ("text around", format!("made by hand\n{}\nkeep it safe\n", pkcs8(&keys[3])), keys[3].clone()),
        ("no line break at the end", pkcs8(&keys[4]).trim_end().to_owned(), keys[4].clone()),
    ];
    let calls: [(&str, &[&str]); 3] = [
        ("openssl ecparam", &["ecparam", "-name", "prime256v1", "-genkey"]),
        ("openssl ecparam -noout", &["ecparam", "-name", "prime256v1", "-genkey", "-noout"]),
        ("openssl genpkey", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ];
    for (name, arguments) in calls {
        if let Some(text) = openssl(arguments) {
            // Read back by openssl too, into the one form that every reader agrees about.
            let dir = tempfile::TempDir::new().unwrap();
            let path = put(dir.path(), "key", &text, 0o600);
            let plain = openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", path.to_str().unwrap()]).unwrap();
            let key = SecretKey::from_pkcs8_pem(&plain).unwrap();
            forms.push((name, text, key));
        }
    }
    forms
}

/// What openssl writes, if there is one.
fn openssl(arguments: &[&str]) -> Option<String> {
    let program = Path::new("/usr/bin/openssl");
    if !program.exists() {
        return None;
    }
    let output = Command::new(program).args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

// --- Nodes -----------------------------------------------------------------------------------------------------------

/// Starts a node where another one was: that one's hold on the embedded file ends a moment after it.
async fn try_start(stack: &Stack, settings: &[(&str, &str)]) -> Result<TestApp, StartError> {
    for _ in 0..200 {
        match TestApp::try_start(stack, settings).await {
            Err(StartError::Locked(_)) => {}
            outcome => return outcome,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the node before does not end");
}

async fn start(stack: &Stack, settings: &[(&str, &str)]) -> TestApp {
    try_start(stack, settings).await.unwrap_or_else(|error| panic!("the node does not start: {error:?}"))
}

async fn refusal(stack: &Stack, settings: &[(&str, &str)]) -> StartError {
    try_start(stack, settings).await.err().expect("the start is refused")
}

/// All that an operator or a log could see of an error.
fn told(error: &StartError) -> String {
    let mut text = format!("{error}\n{error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!("\n{error}\n{error:?}");
        cause = error.source();
    }
    text
}

/// The files that a start found fault with, by their names.
fn faulty(error: &StartError) -> BTreeSet<String> {
    let StartError::Keys(RingError::Files(faults)) = error else { panic!("another error: {error:?}") };
    let shown = error.to_string();
    for fault in &faults.0 {
        assert!(shown.contains(fault.path.to_str().unwrap()), "{shown}");
        assert!(shown.contains(fault.expected) && !fault.expected.is_empty(), "{shown}");
    }
    faults.0.iter().map(|fault| fault.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Kids by state.
fn ring(app: &TestApp) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut ring: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for key in app.keys.list() {
        ring.entry(key.state.as_str()).or_default().insert(key.kid);
    }
    ring
}

fn the_one(app: &TestApp, state: KeyState) -> String {
    let kids = ring(app).remove(state.as_str()).unwrap_or_default();
    assert_eq!(kids.len(), 1, "one key is {state:?}: {kids:?}");
    kids.into_iter().next().unwrap()
}

/// The kids in the published set.
async fn published(app: &TestApp) -> BTreeSet<String> {
    let set = app.anonymous().get("/.well-known/jwks.json").await.is(200).json();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn header(token: &str) -> Value {
    let (header, _) = token.split_once('.').unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

fn kid(token: &str) -> String {
    header(token)["kid"].as_str().unwrap().to_owned()
}

async fn takes(client: &Client, token: &str) {
    client.bearer(token).get("/me").await.is(200);
}

async fn refuses(client: &Client, token: &str) {
    client.bearer(token).get("/me").await.is_problem(401, "invalid_token");
}

/// The access token of a new session.
async fn sign_in(app: &TestApp, name: &str) -> String {
    let reply = app.anonymous().login(&format!("{name}@example.com"), crate::support::PASSWORD).await.is(200);
    reply.text("/access_token")
}

/// No token but the present one is answered: whatever moves a chain shows at once.
const STRICT: (&str, &str) = ("LATCHKEY_REFRESH_GRACE", "0s");

fn secret() -> String {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    STANDARD.encode(bytes)
}

// --- The first start, and the second ---------------------------------------------------------------------------------

async fn the_first_start_makes_an_active_and_a_next_key_and_a_secret(stack: Stack) {
    assert!(!jwt(&stack).exists());
    let app = stack.app().await;
    let (active, next) = (the_one(&app, KeyState::Active), the_one(&app, KeyState::Next));
    let list = app.keys.list();
    assert_eq!(list.len(), 2);
    assert!(list.iter().all(|key| key.held && key.verify_until.is_none()), "{list:?}");
    assert_eq!(app.number("SELECT COUNT(*) FROM signing_keys").await, 2);
    assert_eq!(app.events("key_published").await, 2);

    let dir = jwt(&stack);
    assert_eq!(mode(&dir), 0o700);
    let files = [format!("{active}.pem"), format!("{next}.pem"), "secret".to_owned()];
    assert_eq!(content(&dir).into_keys().collect::<BTreeSet<_>>(), files.iter().cloned().collect());
    for file in &files {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    for kid in [&active, &next] {
        let text = fs::read_to_string(dir.join(format!("{kid}.pem"))).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"), "PKCS#8");
        assert_eq!(thumbprint(&SecretKey::from_pkcs8_pem(&text).unwrap()), *kid);
    }
    let secret = fs::read_to_string(dir.join("secret")).unwrap();
    assert_eq!(STANDARD.decode(&secret).expect("base64 and nothing else").len(), 32);
    // A node that comes a moment later does not write over what is there.
    let before = content(&dir);
    KeyFiles::new(&dir).make_secret(&app.ambient).unwrap();
    assert!(content(&dir) == before);
    assert_eq!(kid(&app.person("alice").await.access), active);
}

async fn the_published_keys_are_public_halves_and_nothing_else(stack: Stack) {
    let app = stack.app().await;
    let reply = app.anonymous().get("/.well-known/jwks.json").await.is(200);
    assert_eq!(reply.header("cache-control"), "public, max-age=300");
    assert_eq!(reply.header("content-type"), "application/json");
    let set = reply.json();
    assert_eq!(set.as_object().unwrap().len(), 1, "nothing beside `keys`");
    let published = set["keys"].as_array().unwrap();
    assert_eq!(published.len(), 2);
    for key in app.keys.list() {
        let text = fs::read_to_string(jwt(&stack).join(format!("{}.pem", key.kid))).unwrap();
        let private = SecretKey::from_pkcs8_pem(&text).unwrap();
        let (x, y) = coordinates(&private);
        // Exactly these members: no `d` above all.
        let expected = json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": key.kid, "alg": "ES256", "use": "sig",
        });
        assert!(published.contains(&expected), "{set}\n{expected}");
        // Nor has the database more than that.
        let row = app.text(&format!("SELECT public_jwk FROM signing_keys WHERE kid = '{}'", key.kid)).await;
        assert_eq!(serde_json::from_str::<Value>(&row).unwrap(), expected);
    }
}

async fn a_second_start_changes_nothing(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (access, refresh) = (alice.access.clone(), alice.refresh.clone());
    let (before, files) = (format!("{:?}", app.keys.list()), content(&jwt(&stack)));
    drop((app, alice));

    for _ in 0..2 {
        let app = start(&stack, &[]).await;
        assert_eq!(format!("{:?}", app.keys.list()), before);
        assert!(content(&jwt(&stack)) == files, "no file was touched");
        assert_eq!(app.events("key_published").await, 2);
        assert_eq!(app.number("SELECT COUNT(*) FROM secret_checks").await, 1);
        takes(&app.anonymous(), &access).await;
    }
    let app = start(&stack, &[]).await;
    app.anonymous().refresh(&refresh).await.is(200);
}

// --- Keys that an operator brings ------------------------------------------------------------------------------------

async fn an_operators_key_in_an_empty_ring_becomes_active(_: Stack) {
    for (index, (form, text, key)) in forms().into_iter().enumerate() {
        let stack = Stack::new(StackKind::Embedded);
        // The name of the file says nothing.
        let name = ["signing key.pem", "tls.key", "0", "secret.pem", "ключ", "README"][index % 6];
        put(&jwt(&stack), name, &text, 0o600);
        let app = stack.app().await;
        let list = app.keys.list();
        let states: Vec<_> = list.iter().map(|key| (key.kid.clone(), key.state, key.held)).collect();
        assert_eq!(states, [(thumbprint(&key), KeyState::Active, true)], "{form}");
        assert_eq!(published(&app).await, names([thumbprint(&key).as_str()]), "{form}");
        assert_eq!(app.events("key_published").await, 1, "{form}");
        // It stays the operator's file: not renamed, not rewritten, none put beside it.
        let files = content(&jwt(&stack));
        assert_eq!(files.keys().cloned().collect::<BTreeSet<_>>(), names([name, "secret"]), "{form}");
        assert_eq!(files[name], text.as_bytes(), "{form}");
        let alice = app.person("alice").await;
        assert_eq!(kid(&alice.access), thumbprint(&key), "{form}");
        alice.me().await.is(200);
    }
}

async fn an_operators_key_beside_others_becomes_next(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let before = ring(&app);
    let access = alice.access.clone();
    drop((app, alice));

    let mut expected = before.clone();
    for (index, (_, text, key)) in forms().into_iter().enumerate() {
        put(&jwt(&stack), &format!("{index} of the operator"), text, 0o600);
        expected.get_mut("next").unwrap().insert(thumbprint(&key));
    }
    let app = start(&stack, &[]).await;
    assert_eq!(ring(&app), expected);
    assert!(expected["next"].len() > before["next"].len());
    assert!(app.keys.list().iter().all(|key| key.held));
    assert_eq!(published(&app).await, expected.into_values().flatten().collect());
    // What signed goes on signing.
    takes(&app.anonymous(), &access).await;
    assert_eq!(names([kid(&sign_in(&app, "alice").await).as_str()]), before["active"]);
}

async fn of_several_operators_keys_in_an_empty_ring_one_becomes_active(stack: Stack) {
    let keys: Vec<SecretKey> = (0..4).map(|_| new_key()).collect();
    for (index, key) in keys.iter().enumerate() {
        put(&jwt(&stack), &format!("{index}.pem"), pkcs8(key), 0o600);
    }
    let app = stack.app().await;
    let ring = ring(&app);
    assert_eq!((ring["active"].len(), ring["next"].len(), ring.len()), (1, 3, 2));
    let all: BTreeSet<String> = ring.into_values().flatten().collect();
    assert_eq!(all, keys.iter().map(thumbprint).collect());
    app.person("alice").await.me().await.is(200);
}

async fn one_key_in_two_files_is_one_key(stack: Stack) {
    let key = new_key();
    put(&jwt(&stack), "a.pem", pkcs8(&key), 0o600);
    put(&jwt(&stack), "b.pem", sec1(&key), 0o600);
    let app = stack.app().await;
    assert_eq!(app.keys.list().len(), 1);
    assert_eq!(the_one(&app, KeyState::Active), thumbprint(&key));
    assert_eq!(app.events("key_published").await, 1);
}

async fn group_readable_files_and_links_are_fine(stack: Stack) {
    let (grouped, linked, mounted) = (new_key(), new_key(), new_key());
    put(&jwt(&stack), "grouped.pem", pkcs8(&grouped), 0o640);
    let elsewhere = put(&stack.dir.path().join("elsewhere"), "key", pkcs8(&linked), 0o400);
    symlink(elsewhere, jwt(&stack).join("linked.pem")).unwrap();
    // As Kubernetes mounts a secret.
    put(&jwt(&stack).join("..2026_11_22"), "mounted.pem", sec1(&mounted), 0o440);
    symlink("..2026_11_22", jwt(&stack).join("..data")).unwrap();
    symlink("..data/mounted.pem", jwt(&stack).join("mounted.pem")).unwrap();
    let shared = put(&stack.dir.path().join("elsewhere"), "secret", secret(), 0o640);
    symlink(shared, jwt(&stack).join("secret")).unwrap();

    let app = stack.app().await;
    let kids: BTreeSet<String> = app.keys.list().into_iter().map(|key| key.kid).collect();
    assert_eq!(kids, [&grouped, &linked, &mounted].into_iter().map(thumbprint).collect());
    app.person("alice").await.me().await.is(200);
}

async fn dotfiles_and_the_readme_are_passed_over(stack: Stack) {
    let (hidden, dir) = (new_key(), jwt(&stack));
    put(&dir, "README.md", "# Keys\n", 0o644);
    put(&dir, ".gitignore", "*\n", 0o644);
    put(&dir, ".hidden.pem", pkcs8(&hidden), 0o644);
    put(&dir.join(".git"), "HEAD", "ref: refs/heads/main\n", 0o644);
    let app = stack.app().await;
    // As if the folder were empty.
    assert_eq!(app.keys.list().len(), 2);
    the_one(&app, KeyState::Active);
    assert!(!published(&app).await.contains(&thumbprint(&hidden)));
}

// --- Files that are refused ------------------------------------------------------------------------------------------

fn other_curve(algorithm: &'static EcdsaSigningAlgorithm) -> (String, String) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let pkcs8 = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
    let sec1 = AsDer::as_der(&pair.private_key()).unwrap();
    (pkcs8, pem("EC PRIVATE KEY", sec1.as_ref()))
}

/// What does not belong into the folder, by the name it is put under.
fn unusable() -> Vec<(&'static str, Vec<u8>)> {
    let key = new_key();
    let (p384, p384_sec1) = other_curve(&ECDSA_P384_SHA384_FIXED_SIGNING);
    // 32 bytes as well: only the curve's name tells them apart.
    let (k256, k256_sec1) = other_curve(&ECDSA_P256K1_SHA256_FIXED_SIGNING);
    let ed25519 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
    let der = key.to_pkcs8_der().unwrap();
    let whole = pkcs8(&key);
    let public = key.public_key().to_public_key_pem(LineEnding::LF).unwrap();
    let mut noise = [0; 160];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    let mut files = vec![
        ("p384.pem", p384.into_bytes()),
        ("p384-sec1.pem", p384_sec1.into_bytes()),
        ("k256.pem", k256.into_bytes()),
        ("k256-sec1.pem", k256_sec1.into_bytes()),
        ("ed25519.pem", pem("PRIVATE KEY", ed25519.as_ref()).into_bytes()),
        ("public.pem", public.into_bytes()),
        ("encrypted.pem", pem("ENCRYPTED PRIVATE KEY", &noise).into_bytes()),
        ("noise.pem", pem("PRIVATE KEY", &noise).into_bytes()),
        ("noise-sec1.pem", pem("EC PRIVATE KEY", &noise).into_bytes()),
        ("certificate.pem", pem("CERTIFICATE", &noise).into_bytes()),
        ("half.pem", pem("PRIVATE KEY", &der.as_bytes()[..der.as_bytes().len() / 2]).into_bytes()),
        ("cut.pem", whole.as_bytes()[..whole.len() - 20].to_vec()),
        ("parameters.pem", PARAMETERS.as_bytes().to_vec()),
        ("der.key", der.as_bytes().to_vec()),
        ("notes.txt", b"remember to back these up, the safe opens with 4711".to_vec()),
        ("empty.pem", Vec::new()),
        ("<kid>.pem.bak", b"-----BEGIN PRIVATE KEY-----\n".to_vec()),
    ];
    let dir = tempfile::TempDir::new().unwrap();
    let path = put(dir.path(), "key", whole, 0o600);
    let path = path.to_str().unwrap();
    for (name, arguments) in [
        ("openssl-p384.pem", ["ecparam", "-name", "secp384r1", "-genkey", "-noout"].as_slice()),
        ("openssl-p384-parameters.pem", &["ecparam", "-name", "secp384r1", "-genkey"]),
        ("openssl-encrypted.pem", &["pkcs8", "-topk8", "-passout", "pass:long enough", "-in", path]),
        ("openssl-old-encrypted.pem", &["ec", "-aes256", "-passout", "pass:long enough", "-in", path]),
        ("openssl-public.pem", &["ec", "-pubout", "-in", path]),
        ("openssl-x25519.pem", &["genpkey", "-algorithm", "X25519"]),
    ] {
        files.extend(openssl(arguments).map(|text| (name, text.into_bytes())));
    }
    files
}

/// Pieces of a file that must not turn up in an error: every line of some length, armour aside.
fn pieces(content: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    let lines = text.lines().filter(|line| line.len() >= 16 && !line.starts_with("-----"));
    lines.map(|line| line.chars().take(16).collect()).collect()
}

async fn every_unusable_file_is_a_start_fault_by_its_name(stack: Stack) {
    let dir = jwt(&stack);
    for (name, bytes) in unusable() {
        let path = put(&dir, name, &bytes, 0o600);
        let error = refusal(&stack, &[]).await;
        assert_eq!(faulty(&error), names([name]));
        let told = told(&error);
        for piece in pieces(&bytes) {
            assert!(!told.contains(&piece), "{name}: {told}");
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "the file is left alone");
        fs::remove_file(path).unwrap();
    }
    fs::create_dir(dir.join("old keys")).unwrap();
    assert_eq!(faulty(&refusal(&stack, &[]).await), names(["old keys"]));
    fs::remove_dir(dir.join("old keys")).unwrap();
    symlink("nowhere", dir.join("dangling.pem")).unwrap();
    assert_eq!(faulty(&refusal(&stack, &[]).await), names(["dangling.pem"]));
    fs::remove_file(dir.join("dangling.pem")).unwrap();

    // None of the refused starts made a key.
    assert!(content(&dir).keys().all(|name| name == "secret"));
    let app = start(&stack, &[]).await;
    assert_eq!((app.keys.list().len(), app.events("key_published").await), (2, 2));
}

async fn all_unusable_files_are_told_at_once_and_nothing_is_taken_in(stack: Stack) {
    let (good, dir) = (new_key(), jwt(&stack));
    put(&dir, "a good one.pem", pkcs8(&good), 0o600);
    put(&dir, "readable.pem", pkcs8(&new_key()), 0o644);
    let unusable = unusable();
    for (name, bytes) in &unusable {
        put(&dir, name, bytes, 0o600);
    }
    let error = refusal(&stack, &[]).await;
    let mut expected = names(unusable.iter().map(|(name, _)| *name));
    expected.insert("readable.pem".to_owned());
    assert_eq!(faulty(&error), expected);
    assert!(!error.to_string().contains("a good one"), "{error}");

    for name in &expected {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let app = start(&stack, &[]).await;
    assert_eq!(app.keys.list().len(), 1);
    assert_eq!(the_one(&app, KeyState::Active), thumbprint(&good));
}

async fn a_key_file_that_others_may_use_is_refused(stack: Stack) {
    let (key, dir) = (new_key(), jwt(&stack));
    for open in [0o604, 0o644, 0o666, 0o602, 0o601] {
        put(&dir, "mine.pem", pkcs8(&key), open);
        let error = refusal(&stack, &[]).await;
        assert_eq!(faulty(&error), names(["mine.pem"]), "{open:o}");
        assert!(error.to_string().contains("chmod"), "it says what to do: {error}");
        assert!(pieces(pkcs8(&key).as_bytes()).iter().all(|piece| !told(&error).contains(piece)));
    }
    // The file that a link leads to is what counts.
    fs::remove_file(dir.join("mine.pem")).unwrap();
    let elsewhere = put(&stack.dir.path().join("elsewhere"), "key", pkcs8(&key), 0o644);
    symlink(&elsewhere, dir.join("mine.pem")).unwrap();
    assert_eq!(faulty(&refusal(&stack, &[]).await), names(["mine.pem"]));

    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
    let app = start(&stack, &[]).await;
    assert_eq!(the_one(&app, KeyState::Active), thumbprint(&key));
}

// --- The secret ------------------------------------------------------------------------------------------------------

async fn an_unusable_secret_file_is_a_start_fault(stack: Stack) {
    let dir = jwt(&stack);
    for (what, text, mode) in [
        ("31 bytes", STANDARD.encode([7; 31]), 0o600),
        ("no base64", "correct horse battery staple, and some more of it".to_owned(), 0o600),
        ("empty", String::new(), 0o600),
        ("a short one behind a good one", format!("{},{}", secret(), STANDARD.encode([7; 16])), 0o600),
        ("readable by others", secret(), 0o644),
    ] {
        put(&dir, "secret", &text, mode);
        let error = refusal(&stack, &[]).await;
        assert_eq!(faulty(&error), names(["secret"]), "{what}");
        for piece in pieces(text.as_bytes()) {
            assert!(!told(&error).contains(&piece), "{what}: {}", told(&error));
        }
        assert_eq!(fs::read_to_string(dir.join("secret")).unwrap(), text, "{what}: it is left alone");
    }
    put(&dir, "secret", format!("{}\n", secret()), 0o600);
    start(&stack, &[]).await.person("alice").await;
}

async fn a_foreign_secret_is_refused(stack: Stack) {
    let app = stack.app().await;
    let refresh = app.person("alice").await.refresh;
    drop(app);
    let path = jwt(&stack).join("secret");
    let own = fs::read_to_string(&path).unwrap();

    // Twice: a refused secret is not remembered as one that was used here.
    for foreign in [secret(), secret()] {
        for _ in 0..2 {
            put(&jwt(&stack), "secret", &foreign, 0o600);
            let error = refusal(&stack, &[]).await;
            assert!(matches!(error, StartError::Keys(RingError::ForeignSecret)), "{error:?}");
            assert!(error.to_string().contains("LATCHKEY_SECRET"), "it says what to do: {error}");
            assert!(!told(&error).contains(&foreign[..16]));
            // The one in the settings counts before the file.
            let error = refusal(&stack, &[("LATCHKEY_SECRET", &secret())]).await;
            assert!(matches!(error, StartError::Keys(RingError::ForeignSecret)), "{error:?}");
        }
    }
    // One that was made anew because the file was lost would be foreign as well, so none is: it would lie in the way of
    // the right one.
    fs::remove_file(&path).unwrap();
    let error = refusal(&stack, &[]).await;
    assert!(matches!(error, StartError::Keys(RingError::ForeignSecret)), "{error:?}");
    assert!(!path.exists(), "a refused start leaves nothing behind");

    let app = start(&stack, &[("LATCHKEY_SECRET", &own)]).await;
    app.anonymous().refresh(&refresh).await.is(200);
}

async fn the_secret_can_be_changed_without_a_logout(stack: Stack) {
    let (old, new) = (secret(), secret());
    let app = start(&stack, &[("LATCHKEY_SECRET", &old)]).await;
    let alice = app.person("alice").await;
    let resting = alice.elsewhere().await.refresh;
    let mut token = alice.refresh.clone();
    drop((app, alice));
    assert!(!jwt(&stack).join("secret").exists(), "no second secret in a file");

    // Step by step as the nodes are restarted one by one, and back a step as long as there are both.
    let (old_new, new_old) = (format!("{old},{new}"), format!("{new},{old}"));
    for step in [&old_new, &new_old, &old_new, &new_old] {
        let app = start(&stack, &[("LATCHKEY_SECRET", step)]).await;
        token = app.anonymous().refresh(&token).await.is(200).text("/refresh_token");
    }

    // Only what the new one made lives on without the old one.
    let app = start(&stack, &[("LATCHKEY_SECRET", &new)]).await;
    app.anonymous().refresh(&resting).await.is_problem(401, "invalid_refresh_token");
    app.anonymous().refresh(&token).await.is(200);
    drop(app);
    // Somebody else's secret is still foreign, and a known one beside it still opens the door to it.
    let other = secret();
    let error = refusal(&stack, &[("LATCHKEY_SECRET", &other)]).await;
    assert!(matches!(error, StartError::Keys(RingError::ForeignSecret)), "{error:?}");
    start(&stack, &[("LATCHKEY_SECRET", &format!("{new},{other}"))]).await;
    start(&stack, &[("LATCHKEY_SECRET", &other)]).await;
}

// --- Production ------------------------------------------------------------------------------------------------------

const MAIL: (&str, &str) = ("SMTP_URL", "smtp://localhost");

async fn without_a_loopback_http_url_nothing_is_made_unasked(stack: Stack) {
    for url in ["https://auth.example.com", "https://localhost", "http://auth.example.com", "http://192.0.2.7:3000"] {
        let error = refusal(&stack, &[("LATCHKEY_PUBLIC_URL", url), MAIL]).await;
        assert!(matches!(error, StartError::Keys(RingError::NoSecret)), "{url}: {error:?}");
        assert!(error.to_string().contains("latchkey keys generate"), "{url}: {error}");
        let given = secret();
        let error = refusal(&stack, &[("LATCHKEY_PUBLIC_URL", url), MAIL, ("LATCHKEY_SECRET", &given)]).await;
        assert!(matches!(error, StartError::Keys(RingError::NoKey)), "{url}: {error:?}");
        assert!(error.to_string().contains("latchkey keys generate"), "{url}: {error}");
        assert!(!jwt(&stack).exists(), "{url}: nothing was written");
        // The secret of that try is the one this database now knows: start from nothing again.
        fs::remove_dir_all(stack.dir.path().join("data")).unwrap();
    }
    // The operator's own key and secret are all that is asked for.
    put(&jwt(&stack), "mine.pem", pkcs8(&new_key()), 0o600);
    put(&jwt(&stack), "secret", secret(), 0o600);
    let app = start(&stack, &[("LATCHKEY_PUBLIC_URL", "https://auth.example.com"), MAIL]).await;
    assert_eq!(app.keys.list().len(), 1, "and nothing is made beside them");
    app.person("alice").await.me().await.is(200);
}

/// Runs `latchkey keys generate` as an operator would; answers what it printed.
async fn generate(stack: &Stack, settings: &[(&str, &str)]) -> String {
    let mut all = stack.settings().await;
    all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let output = Process::command(stack.dir.path(), &all).args(["keys", "generate"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn keys_generate_makes_what_a_production_start_wants(stack: Stack) {
    let production = [("LATCHKEY_PUBLIC_URL", "https://auth.example.com"), MAIL];
    refusal(&stack, &production).await;
    let printed = generate(&stack, &production).await;

    let app = start(&stack, &production).await;
    let (active, next) = (the_one(&app, KeyState::Active), the_one(&app, KeyState::Next));
    assert!(app.keys.list().iter().all(|key| key.held));
    assert!(printed.contains(&active) && printed.contains(&next), "{printed}");
    for (name, bytes) in content(&jwt(&stack)) {
        assert_eq!(mode(&jwt(&stack).join(&name)), 0o600, "{name}");
        let text = String::from_utf8(bytes).unwrap();
        assert!(pieces(text.as_bytes()).iter().all(|piece| !printed.contains(piece)), "{name} is printed");
    }
    assert_eq!(mode(&jwt(&stack)), 0o700);
    let alice = app.person("alice").await;
    assert_eq!(kid(&alice.access), active);
    alice.me().await.is(200);
}

async fn keys_generate_adds_nothing_to_a_whole_ring(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (before, files) = (ring(&app), content(&jwt(&stack)));
    // Beside a running server: the lock is between servers.
    generate(&stack, &[]).await;
    app.keys.reload(&app.db).await.unwrap();
    assert_eq!(ring(&app), before);
    assert!(content(&jwt(&stack)) == files, "no file was touched");

    // But it makes up for a next key that is missing.
    let next = the_one(&app, KeyState::Next);
    fs::remove_file(jwt(&stack).join(format!("{next}.pem"))).unwrap();
    app.sql(&format!("UPDATE signing_keys SET state = 'retired' WHERE kid = '{next}'")).await;
    generate(&stack, &[]).await;
    app.keys.reload(&app.db).await.unwrap();
    assert_ne!(the_one(&app, KeyState::Next), next);
    assert_eq!(ring(&app)["active"], before["active"]);
    alice.me().await.is(200);
}

// --- The ring in motion ----------------------------------------------------------------------------------------------

async fn a_node_without_the_active_key_signs_with_the_newest_published_one(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let (active, next) = (the_one(&app, KeyState::Active), the_one(&app, KeyState::Next));
    drop(app);
    let active_file = jwt(&stack).join(format!("{active}.pem"));
    let active_pem = fs::read(&active_file).unwrap();
    fs::remove_file(&active_file).unwrap();

    let app = start(&stack, &[]).await;
    assert_eq!((the_one(&app, KeyState::Active), the_one(&app, KeyState::Next)), (active.clone(), next.clone()));
    let held: Vec<_> = app.keys.list().into_iter().filter(|key| key.held).map(|key| key.kid).collect();
    assert_eq!(held, [next.as_str()]);
    let token = sign_in(&app, "alice").await;
    assert_eq!(kid(&token), next);
    takes(&app.anonymous(), &token).await;
    assert_eq!(published(&app).await, names([active.as_str(), next.as_str()]));
    drop(app);

    // Of two published keys it is the newer one, whatever the order of their names.
    let newer = new_key();
    put(&jwt(&stack), "newer.pem", pkcs8(&newer), 0o600);
    let app = start(&stack, &[]).await;
    for (older, kid_of_newest) in [(&next, thumbprint(&newer)), (&thumbprint(&newer), next.clone())] {
        app.sql(&format!("UPDATE signing_keys SET published_at = 2000 WHERE kid = '{kid_of_newest}'")).await;
        app.sql(&format!("UPDATE signing_keys SET published_at = 1000 WHERE kid = '{older}'")).await;
        app.keys.reload(&app.db).await.unwrap();
        assert_eq!(kid(&sign_in(&app, "alice").await), kid_of_newest);
    }
    drop(app);

    // With its file back, the active key signs.
    put(&jwt(&stack), &format!("{active}.pem"), active_pem, 0o600);
    let app = start(&stack, &[]).await;
    assert_eq!(kid(&sign_in(&app, "alice").await), active);
    takes(&app.anonymous(), &token).await;
}

async fn a_node_without_any_private_key_verifies_and_cannot_sign(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (access, refresh) = (alice.access.clone(), alice.refresh.clone());
    let (before, files) = (ring(&app), content(&jwt(&stack)));
    drop((app, alice));
    for kid in before.values().flatten() {
        fs::remove_file(jwt(&stack).join(format!("{kid}.pem"))).unwrap();
    }

    let app = start(&stack, &[STRICT]).await;
    assert_eq!(ring(&app), before, "a ring with keys is never made anew");
    assert!(app.keys.list().iter().all(|key| !key.held));
    assert!(content(&jwt(&stack)).keys().all(|name| name == "secret"));
    let somebody = app.anonymous();
    takes(&somebody, &access).await;
    let reply = somebody.login("alice@example.com", crate::support::PASSWORD).await.is_problem(503, "unavailable");
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(app.number("SELECT COUNT(*) FROM sessions").await, 1, "no session that its person knows nothing of");
    somebody.refresh(&refresh).await.is_problem(503, "unavailable");
    drop((app, somebody));

    // The chain was not moved either: else this would look like theft.
    for (name, bytes) in files.into_iter().filter(|(name, _)| name != "secret") {
        put(&jwt(&stack), &name, bytes, 0o600);
    }
    let app = start(&stack, &[STRICT]).await;
    app.anonymous().refresh(&refresh).await.is(200);
}

async fn a_retiring_key_verifies_until_its_hour(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (old, new) = (the_one(&app, KeyState::Active), the_one(&app, KeyState::Next));
    let until = app.ambient.now().millis() + 60_000;
    app.sql(&format!(
        "UPDATE signing_keys SET state = 'retiring', verify_until = {until} WHERE kid = '{old}';
         UPDATE signing_keys SET state = 'active', active_at = {} WHERE kid = '{new}'",
        app.ambient.now().millis()
    ))
    .await;
    assert_eq!(kid(&sign_in(&app, "alice").await), old, "nothing changes before the table is read");
    app.keys.reload(&app.db).await.unwrap();
    assert_eq!((the_one(&app, KeyState::Retiring), the_one(&app, KeyState::Active)), (old.clone(), new.clone()));

    let other = alice.elsewhere().await;
    assert_eq!((kid(&alice.access), kid(&other.access)), (old.clone(), new.clone()));
    // The SQL above let half a second pass.
    for pass in [0, 59_499] {
        app.pass(Duration::from_millis(pass));
        takes(&alice.client, &alice.access).await;
        takes(&other.client, &other.access).await;
        assert_eq!(published(&app).await, names([old.as_str(), new.as_str()]));
    }
    app.pass(Duration::from_millis(1));
    refuses(&alice.client, &alice.access).await;
    takes(&other.client, &other.access).await;
    assert_eq!(published(&app).await, names([new.as_str()]));
    // The session is not over: its next token is signed with the new key.
    let access = alice.client.refresh(&alice.refresh).await.is(200).text("/access_token");
    assert_eq!(kid(&access), new);
    takes(&alice.client, &access).await;
}

async fn a_retired_key_is_gone_at_once_and_stays_gone(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (old, new) = (the_one(&app, KeyState::Active), the_one(&app, KeyState::Next));
    app.sql(&format!(
        "UPDATE signing_keys SET state = 'retired' WHERE kid = '{old}';
         UPDATE signing_keys SET state = 'active' WHERE kid = '{new}'"
    ))
    .await;
    alice.me().await.is(200);
    app.keys.reload(&app.db).await.unwrap();
    refuses(&alice.client, &alice.access).await;
    assert_eq!(published(&app).await, names([new.as_str()]));
    let token = sign_in(&app, "alice").await;
    assert_eq!(kid(&token), new);
    let access = alice.access.clone();
    drop((app, alice));

    // Its file is still there, and does not bring it back: not as `next`, and not when it is the only one.
    assert!(jwt(&stack).join(format!("{old}.pem")).exists());
    let app = start(&stack, &[]).await;
    assert_eq!((the_one(&app, KeyState::Retired), the_one(&app, KeyState::Active)), (old, new.clone()));
    assert_eq!(app.keys.list().len(), 2);
    refuses(&app.anonymous(), &access).await;
    takes(&app.anonymous(), &token).await;
    drop(app);
    fs::remove_file(jwt(&stack).join(format!("{new}.pem"))).unwrap();
    let app = start(&stack, &[]).await;
    app.anonymous().login("alice@example.com", crate::support::PASSWORD).await.is_problem(503, "unavailable");
}

async fn a_ring_that_cannot_be_read_again_stays_as_it_was(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let (before, kids) = (ring(&app), published(&app).await);
    app.sql("ALTER TABLE signing_keys RENAME TO lost").await;
    assert!(app.keys.reload(&app.db).await.is_err());
    assert_eq!((ring(&app), published(&app).await), (before, kids));
    alice.me().await.is(200);
    let token = sign_in(&app, "alice").await;
    takes(&alice.client, &token).await;
    app.sql("ALTER TABLE lost RENAME TO signing_keys").await;
    app.keys.reload(&app.db).await.unwrap();
    alice.me().await.is(200);
}

// --- Several nodes ---------------------------------------------------------------------------------------------------

async fn two_nodes_that_start_at_once_make_one_ring(stack: Stack) {
    for round in 0..5 {
        let (one, other) = tokio::join!(TestApp::try_start(&stack, &[]), TestApp::try_start(&stack, &[]));
        let (one, other) = (one.expect("the one starts"), other.expect("the other starts"));
        for app in [&one, &other] {
            app.keys.reload(&app.db).await.unwrap();
        }
        assert_eq!(one.number("SELECT COUNT(*) FROM signing_keys WHERE state = 'active'").await, 1);
        assert_eq!(one.number("SELECT COUNT(*) FROM secret_checks WHERE genesis").await, 1);
        let kids = [the_one(&one, KeyState::Active), the_one(&one, KeyState::Next)];
        assert_eq!(ring(&one), ring(&other));
        assert_eq!(one.keys.list().len(), 2);
        // Both hold both keys, and the loser left nothing of its own behind.
        for app in [&one, &other] {
            assert!(app.keys.list().iter().all(|key| key.held), "{:?}", app.keys.list());
        }
        let files = kids.iter().map(|kid| format!("{kid}.pem")).chain(["secret".to_owned()]).collect();
        assert_eq!(content(&jwt(&stack)).into_keys().collect::<BTreeSet<_>>(), files);

        let name = format!("alice{round}");
        let alice = one.person(&name).await;
        takes(&other.anonymous(), &alice.access).await;
        takes(&one.anonymous(), &sign_in(&other, &name).await).await;
        other.anonymous().refresh(&alice.refresh).await.is(200);

        one.sql("DELETE FROM signing_keys; DELETE FROM secret_checks").await;
        fs::remove_dir_all(jwt(&stack)).unwrap();
    }
}

/// The other node is played by the test, so that it does the one thing that is hard to hit in time: it starts between
/// the moment the first node has written its files and the moment that one reaches the table, finds a key in the
/// folder, and takes it in as an operator's.
async fn a_node_that_lost_the_race_for_the_ring_keeps_the_file_of_the_active_key(stack: Stack) {
    let url = stack.database_url().await;
    let mut other = PgConnection::connect(&url).await.unwrap();
    // Reads pass, inserts wait.
    sqlx::raw_sql("BEGIN; LOCK TABLE signing_keys IN EXCLUSIVE MODE").execute(&mut other).await.unwrap();
    let win = async {
        let dir = jwt(&stack);
        let key_files = || {
            let files = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
            files.filter(|path| path.extension().is_some_and(|end| end == "pem")).collect::<Vec<_>>()
        };
        // If no file shows up before the table is reached, there is nothing to take in, and all is well.
        let mut found = Vec::new();
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            found = key_files();
            if found.len() == 2 {
                break;
            }
        }
        if let Some(path) = found.first() {
            let key = SecretKey::from_pkcs8_pem(&fs::read_to_string(path).unwrap()).unwrap();
            let (kid, (x, y)) = (thumbprint(&key), coordinates(&key));
            let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "alg": "ES256", "use": "sig"});
            let insert = format!(
                "INSERT INTO signing_keys (kid, alg, \"use\", public_jwk, state, published_at, active_at)
                 VALUES ('{kid}', 'ES256', 'sig', '{jwk}', 'active', 1, 1)"
            );
            sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut other).await.unwrap();
        }
        sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    };
    let (app, ()) = tokio::join!(TestApp::try_start(&stack, &[]), win);
    let app = app.unwrap_or_else(|error| panic!("the node does not start: {error:?}"));

    let active = the_one(&app, KeyState::Active);
    assert!(jwt(&stack).join(format!("{active}.pem")).exists(), "the only private half of the active key is gone");
    assert!(app.keys.list().iter().any(|key| key.kid == active && key.held));
    assert_eq!(kid(&app.person("alice").await.access), active);
    // Nor is there a file in no ring: the next start would take it for an operator's.
    let kids: BTreeSet<String> = ring(&app).into_values().flatten().collect();
    let files = content(&jwt(&stack)).into_keys().filter_map(|name| Some(name.strip_suffix(".pem")?.to_owned()));
    assert_eq!(files.collect::<BTreeSet<_>>(), kids);
}

async fn a_node_with_a_foreign_secret_does_not_join(stack: Stack) {
    let app = stack.app().await;
    let before = ring(&app);
    let own_folder = stack.dir.path().join("jwt2").display().to_string();
    // With a folder of its own a second node would make a secret of its own.
    let error = refusal(&stack, &[("LATCHKEY_JWT_DIR", &own_folder)]).await;
    assert!(matches!(error, StartError::Keys(RingError::ForeignSecret)), "{error:?}");
    assert!(!fs::exists(&own_folder).unwrap(), "a refused start leaves nothing behind");
    let error = refusal(&stack, &[("LATCHKEY_SECRET", &secret())]).await;
    assert!(matches!(error, StartError::Keys(RingError::ForeignSecret)), "{error:?}");
    app.keys.reload(&app.db).await.unwrap();
    assert_eq!(ring(&app), before);
    app.person("alice").await.me().await.is(200);
}

async fn a_node_with_an_empty_folder_verifies_what_others_signed(stack: Stack) {
    let shared = secret();
    let own_folder = stack.dir.path().join("jwt2");
    let (path, shared) = (own_folder.display().to_string(), ("LATCHKEY_SECRET", shared.as_str()));
    let one = stack.app_with(&[shared, STRICT]).await;
    let alice = one.person("alice").await;
    let (active, next) = (the_one(&one, KeyState::Active), the_one(&one, KeyState::Next));

    let other = stack.app_with(&[shared, STRICT, ("LATCHKEY_JWT_DIR", &path)]).await;
    assert_eq!(ring(&other), ring(&one), "it makes no keys of its own");
    assert!(other.keys.list().iter().all(|key| !key.held));
    assert_eq!(published(&other).await, published(&one).await);
    let somebody = other.anonymous();
    takes(&somebody, &alice.access).await;
    let reply = somebody.login("alice@example.com", crate::support::PASSWORD).await.is_problem(503, "unavailable");
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(one.events("signed_in").await, 1, "no session that its person knows nothing of");
    somebody.refresh(&alice.refresh).await.is_problem(503, "unavailable");
    // The chain was not moved: else the same token would look like theft at a node that can sign.
    one.anonymous().refresh(&alice.refresh).await.is(200);

    // With one file it signs, with both as all do.
    for kid_of_file in [&next, &active] {
        let name = format!("{kid_of_file}.pem");
        put(&own_folder, &name, fs::read(jwt(&stack).join(&name)).unwrap(), 0o600);
        let other = stack.app_with(&[shared, ("LATCHKEY_JWT_DIR", &path)]).await;
        let token = sign_in(&other, "alice").await;
        assert_eq!(kid(&token), *kid_of_file);
        takes(&one.anonymous(), &token).await;
        takes(&other.anonymous(), &token).await;
    }
    one.keys.reload(&one.db).await.unwrap();
    assert_eq!((ring(&one).len(), one.keys.list().len()), (2, 2));
}

async fn a_key_of_another_node_is_known_after_the_next_reading(stack: Stack) {
    let shared = secret();
    let own_folder = stack.dir.path().join("jwt2");
    let (path, shared) = (own_folder.display().to_string(), ("LATCHKEY_SECRET", shared.as_str()));
    let one = stack.app_with(&[shared]).await;
    one.person("alice").await;

    let key = new_key();
    put(&own_folder, "mine.pem", sec1(&key), 0o600);
    let other = stack.app_with(&[shared, ("LATCHKEY_JWT_DIR", &path)]).await;
    let token = sign_in(&other, "alice").await;
    assert_eq!(kid(&token), thumbprint(&key));
    takes(&other.anonymous(), &token).await;

    assert!(!published(&one).await.contains(&thumbprint(&key)));
    one.keys.reload(&one.db).await.unwrap();
    takes(&one.anonymous(), &token).await;
    assert!(published(&one).await.contains(&thumbprint(&key)));
    assert!(one.keys.list().iter().any(|held| held.kid == thumbprint(&key) && !held.held));
}
