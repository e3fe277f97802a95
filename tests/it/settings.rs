//! The settings: all faults at once, nothing unknown, nothing secret shown.

use latchkey::config::{self, Config, Given, SETTINGS};

use crate::{once, support::Test};

pub fn tests() -> Vec<Test> {
    once![
        nothing_set_is_enough,
        every_bad_value_is_a_fault_by_its_name,
        all_faults_are_told_at_once_and_no_value_with_them,
        unknown_names_are_faults_and_foreign_ones_are_not,
        secrets_come_from_files_too,
        an_https_url_refuses_mail_to_files,
        an_https_url_refuses_secrets_that_were_typed,
        the_example_file_has_every_setting_with_its_default,
        check_shows_what_is_in_effect_and_no_secret,
        good_values_are_taken,
    ]
}

fn config(pairs: &[(&str, &str)]) -> Result<Config, config::Faults> {
    Config::from_given(&Given::from_pairs(pairs.iter().copied()))
}

fn faults(pairs: &[(&str, &str)]) -> Vec<String> {
    config(pairs).map(|_| Vec::new()).unwrap_or_else(|faults| faults.0.into_iter().map(|fault| fault.name).collect())
}

/// 32 bytes that were drawn, for these tests.
const DRAWN: &str = "9WPcZ0Qq1yE8mJtX3vB7Kd5Rf2Hs6Ln4UoAaGxTiVhY=";
/// 32 bytes that were typed.
const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn nothing_set_is_enough() {
    let config = config(&[]).unwrap();
    assert_eq!(config.public_url.as_str(), "http://localhost:3000");
    assert_eq!(config.tokens.audience, ["http://localhost:3000"]);
    assert_eq!((config.passwords.memory_kib, config.passwords.iterations, config.passwords.parallelism), (19456, 2, 1));
    assert_eq!(config.passwords.hash_queue, 64 * config.passwords.hash_threads.get());
    assert!(config.warnings().is_empty());
    // An empty value is what shells and compose files leave for "not set".
    let empty: Vec<(&str, &str)> = SETTINGS.iter().map(|setting| (setting.name, "")).collect();
    assert!(super::settings::config(&empty).is_ok());
}

fn every_bad_value_is_a_fault_by_its_name() {
    for (name, values) in [
        (
            "LATCHKEY_PUBLIC_URL",
            &["localhost:3000", "ftp://x", "http://x/", "http://x/path", "http://", "http://u:p@x", "https://x?y"][..],
        ),
        ("LATCHKEY_LISTEN", &["3000", "localhost:3000", "127.0.0.1", "127.0.0.1:70000", "off"]),
        ("LATCHKEY_INTERNAL_LISTEN", &["3001", "no"]),
        ("DATABASE_URL", &["mysql://x/y", "postgres://", "/var/lib/x.db"]),
        (
            "REDIS_URL",
            &[
                "http://x",
                "6379",
                "redis://x?protocol=resp3",
                "rediss://x/#insecure",
                "redis-cluster://x/1",
                "redis-cluster://x?tsl=true",
                "redis-sentinel://x",
            ],
        ),
        ("SMTP_URL", &["mail.example.com", "smtp://", "smtp://x/path", "smtp://x?tls=maybe", "smtps://x?tls=none"]),
        (
            "LATCHKEY_SECRET",
            &["short", "MDEyMw==", "not base64 at all but long enough to be one", &format!("{SECRET},x")],
        ),
        ("LATCHKEY_PEPPER", &["x", "id:", "toolongid:MDEyMzQ1Njc4OWFiY2RlZg==", "a:MDEy", ":MDEyMzQ1Njc4OWFiY2RlZg=="]),
        ("LATCHKEY_ACCESS_TTL", &["5", "0s", "5 m", "-5m", "5w", "m", "99999d", "1.5h"]),
        ("LATCHKEY_REFRESH_IDLE_TTL", &["0d"]),
        ("LATCHKEY_REFRESH_ABSOLUTE_TTL", &["x"]),
        ("LATCHKEY_REFRESH_GRACE", &["x", "30"]),
        ("LATCHKEY_MAX_SESSIONS", &["0", "-1", "x", "100000"]),
        ("LATCHKEY_REGISTRATION", &["yes", "OPEN"]),
        ("LATCHKEY_REGISTRATION_DOMAINS", &["a b", "example.com,,example.org", "@example.com"]),
        ("LATCHKEY_PASSWORD_MIN_LENGTH", &["7", "65", "x"]),
        ("LATCHKEY_ARGON2_MEMORY_KIB", &["7167", "262145", "19 MiB"]),
        ("LATCHKEY_ARGON2_ITERATIONS", &["0", "11"]),
        ("LATCHKEY_ARGON2_PARALLELISM", &["0", "9"]),
        ("LATCHKEY_HASH_THREADS", &["0", "x", "5000"]),
        ("LATCHKEY_HASH_QUEUE", &["0", "x"]),
        ("LATCHKEY_REDIS_PREFIX", &["a b", "{x}"]),
        ("LATCHKEY_DB_POOL", &["0", "x"]),
        (
            "LATCHKEY_PRODUCT_NAME",
            &["a\nb", "a\u{1b}[2Jb", "\u{202e}yekhctaL", "a\u{2028}b", "a\u{2066}b", &"x".repeat(65)],
        ),
        ("LATCHKEY_EVENT_RETENTION", &["0s"]),
        ("LATCHKEY_DELETED_RETENTION", &["0s"]),
        ("LATCHKEY_CORS_ORIGINS", &["*", "https://a.example/", "https://*.example.com", "a.example"]),
        ("LATCHKEY_LOG", &["loud"]),
        ("RUST_LOG", &["latchkey=noisy", "a=b=c", "latchkey[request{person=1}]=trace"]),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &["localhost:4318", "grpc://x", "http://u:p@x", "http://x?y", "http://x:0"]),
        ("OTEL_EXPORTER_OTLP_HEADERS", &["x", "a b=c", "=x", "host=x", "Content-Length=1", "a=%0d%0ab:c"]),
        ("OTEL_RESOURCE_ATTRIBUTES", &["x", "=x", "a=%ff"]),
        ("OTEL_TRACES_SAMPLER", &["sometimes", "jaeger_remote", "ALWAYS_ON"]),
        ("OTEL_TRACES_SAMPLER_ARG", &["1.5", "-1", "x", "NaN"]),
    ] {
        for value in values {
            assert_eq!(faults(&[(name, value)]), [name], "{value}");
        }
    }
}

fn all_faults_are_told_at_once_and_no_value_with_them() {
    let faults = config(&[
        ("LATCHKEY_LISTEN", "canary1"),
        ("DATABASE_URL", "postgres//user:canary2@host"),
        ("LATCHKEY_SECRET", "canary3"),
        ("LATCHKEY_ACCESS_TTL", "canary4"),
        ("LATCHKEY_NO_SUCH", "canary5"),
        ("REDIS_URL", "redis-cluster://:canary6@canary7/canary8"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "canary9"),
        ("OTEL_TRACES_SAMPLER", "canary10"),
    ])
    .unwrap_err();
    let text = faults.to_string();
    for name in [
        "LATCHKEY_LISTEN",
        "DATABASE_URL",
        "LATCHKEY_SECRET",
        "LATCHKEY_ACCESS_TTL",
        "LATCHKEY_NO_SUCH",
        "REDIS_URL",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_TRACES_SAMPLER",
    ] {
        assert!(text.contains(name), "{text}");
    }
    assert!(!text.contains("canary"), "{text}");
    assert_eq!(faults.0.len(), 8);
}

fn unknown_names_are_faults_and_foreign_ones_are_not() {
    assert_eq!(faults(&[("LATCHKEY_LISTEN_FILE", "/x")]), ["LATCHKEY_LISTEN_FILE"], "only secrets come from files");
    assert_eq!(faults(&[("LATCHKEY_Listen", "x"), ("LATCHKEY_", "y")]), ["LATCHKEY_", "LATCHKEY_Listen"]);
    assert!(faults(&[("PATH", "/bin"), ("HOME", "/"), ("MY_LATCHKEY_X", "1")]).is_empty());
}

fn secrets_come_from_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let path = path.display().to_string();
    assert_eq!(config(&[("LATCHKEY_SECRET_FILE", &path)]).unwrap().secrets.unwrap().len(), 1);
    assert_eq!(faults(&[("LATCHKEY_SECRET_FILE", &path), ("LATCHKEY_SECRET", SECRET)]), ["LATCHKEY_SECRET"]);
    assert_eq!(faults(&[("DATABASE_URL_FILE", "/no/such/file")]), ["DATABASE_URL_FILE"]);
    std::fs::write(dir.path().join("url"), "postgres://u:p@h/d").unwrap();
    let url = dir.path().join("url").display().to_string();
    assert!(config(&[("DATABASE_URL_FILE", &url)]).unwrap().database_url.is_some());
}

fn an_https_url_refuses_mail_to_files() {
    let https = ("LATCHKEY_PUBLIC_URL", "https://id.example.com");
    assert_eq!(faults(&[https]), ["SMTP_URL"]);
    assert!(faults(&[https, ("SMTP_URL", "smtp://mail.example.com:587")]).is_empty());
}

fn an_https_url_refuses_secrets_that_were_typed() {
    let with = |secret: &str| {
        faults(&[
            ("LATCHKEY_PUBLIC_URL", "https://id.example.com"),
            ("SMTP_URL", "smtp://mail.example.com"),
            ("LATCHKEY_SECRET", secret),
        ])
    };
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let counter = "gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8=";
    for typed in [SECRET, zeros, counter] {
        assert_eq!(with(typed), ["LATCHKEY_SECRET"], "{typed}");
        assert!(faults(&[("LATCHKEY_SECRET", typed)]).is_empty(), "on a development URL it is nobody's business");
    }
    assert!(with(DRAWN).is_empty());
}

fn the_example_file_has_every_setting_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    #[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
    if std::env::var("LATCHKEY_TEST_UPDATE").is_ok() {
        std::fs::write(path, config::example()).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    assert!(file == config::example(), ".env.example differs from the code; LATCHKEY_TEST_UPDATE=1 writes it anew");
    // What it says is what is in effect: uncommented as it stands, it changes nothing.
    let uncommented = file.lines().filter_map(|line| line.strip_prefix('#')).filter_map(|line| line.split_once('='));
    let pairs: Vec<(&str, &str)> = uncommented.filter(|(name, _)| !name.contains(' ')).collect();
    assert_eq!(pairs.len(), SETTINGS.len());
    assert_eq!(format!("{:?}", config(&pairs).unwrap()), format!("{:?}", config(&[]).unwrap()));
}

fn check_shows_what_is_in_effect_and_no_secret() {
    let given = Given::from_pairs([
        ("DATABASE_URL", "postgres://u:canary@h/d"),
        ("REDIS_URL", "redis-sentinel://u:canary@h/m?sentinel_password=canary"),
        ("LATCHKEY_SECRET", SECRET),
        ("LATCHKEY_LISTEN", "0.0.0.0:80"),
    ]);
    let shown = config::effective(&given);
    assert_eq!(shown.len(), SETTINGS.len());
    let value = |name: &str| shown.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    assert_eq!(value("DATABASE_URL"), "[set]");
    assert_eq!(value("REDIS_URL"), "[set]");
    assert_eq!(value("LATCHKEY_SECRET"), "[set]");
    assert_eq!(value("LATCHKEY_LISTEN"), "0.0.0.0:80");
    assert_eq!(value("LATCHKEY_ACCESS_TTL"), "5m");
    assert!(!format!("{shown:?}").contains("canary"));
    let config = Config::from_given(&given).unwrap();
    assert!(!format!("{config:?}").contains("canary"), "{config:?}");
}

fn good_values_are_taken() {
    let config = config(&[
        ("LATCHKEY_PUBLIC_URL", "https://ID.Example.com:8443"),
        ("SMTP_URL", "smtps://user:secret@mail.example.com"),
        ("LATCHKEY_INTERNAL_LISTEN", "off"),
        ("LATCHKEY_SECRET", &format!("{DRAWN}, {DRAWN}")),
        ("LATCHKEY_PEPPER", "p1:MDEyMzQ1Njc4OWFiY2RlZg=="),
        ("LATCHKEY_REFRESH_GRACE", "0s"),
        ("LATCHKEY_ARGON2_MEMORY_KIB", "7168"),
        ("LATCHKEY_AUDIENCE", "https://api.example.com"),
        ("LATCHKEY_MAIL_FROM", "Keys <keys@example.com>"),
        ("REDIS_URL", "rediss://:secret@redis.example.com:6380/2"),
        ("RUST_LOG", "warn,latchkey=debug,off"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example.com/otlp"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20secret, x-tenant=a"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ])
    .unwrap();
    let traces = config.traces.as_ref().unwrap();
    assert_eq!((traces.headers.len(), traces.endpoint.path.as_str()), (2, "/otlp/v1/traces"));
    assert_eq!((traces.sampler.by_parent, traces.sampler.ratio), (true, 0.25));
    assert!(!format!("{config:?}").contains("Bearer"));
    assert_eq!(config.public_url.as_str(), "https://id.example.com:8443");
    assert_eq!(config.internal_listen, None);
    assert_eq!(config.secrets.as_ref().unwrap().len(), 2);
    assert!(config.tokens.refresh_grace.is_zero());
    assert_eq!(
        config.warnings().len(),
        2,
        "below the OWASP floor; tokens that do not work at /me: {:?}",
        config.warnings()
    );
    for (url, loopback) in [
        ("http://127.0.0.1:3000", true),
        ("http://[::1]:3000", true),
        ("http://app.localhost", true),
        ("http://intranet", false),
    ] {
        let config = super::settings::config(&[("LATCHKEY_PUBLIC_URL", url)]).unwrap();
        assert_eq!((config.public_url.is_loopback(), config.warnings().is_empty()), (loopback, loopback), "{url}");
    }
}
