//! How each kind of setting is understood. A parser answers `None` for text it does not take; what was expected stands
//! in one place beside the name, so that no value (it may be a secret) ever gets into a message.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use axum::http::Uri;
use base64::{Engine, engine::general_purpose::STANDARD};

use ipnet::IpNet;
use lettre::{Address, message::Mailbox};

use super::{EmailVerification, Fault, Faults, Given, LimitSettings, LogFormat, Pepper, SETTINGS};
use crate::{
    http::{ProxyHeader, Quota},
    secret::{SecretBytes, SecretText},
};

/// Collects values and faults; nothing stops at the first.
pub(super) struct Reader<'a> {
    given: &'a Given,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(given: &'a Given) -> Self {
        Self { given, faults: Vec::new() }
    }

    pub(super) fn fault(&mut self, name: &str, expected: impl Into<String>) {
        self.faults.push(Fault { name: name.to_owned(), expected: expected.into() });
    }

    pub(super) fn finish(self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(Faults(self.faults)) }
    }

    /// Only names with our prefix: the rest of the environment is not ours to judge.
    pub(super) fn refuse_unknown_names(&mut self) {
        let unknown: Vec<String> = self
            .given
            .names()
            .filter(|name| name.starts_with("LATCHKEY_"))
            .filter(|name| {
                !SETTINGS.iter().any(|setting| {
                    setting.name == *name || (setting.secret && name.strip_suffix("_FILE") == Some(setting.name))
                })
            })
            .map(str::to_owned)
            .collect();
        for name in unknown {
            self.fault(&name, "there is no such setting; check the spelling against `.env.example`");
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let default = || SETTINGS.iter().find(|setting| setting.name == name).map(|setting| setting.default);
        self.given.get(name).or_else(default).filter(|text| !text.is_empty())
    }

    /// A setting that has a default.
    pub(super) fn required<T>(&mut self, name: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        let value = self.text(name).and_then(parse);
        if value.is_none() {
            self.fault(name, expectation(name));
        }
        value
    }

    /// A setting that may be missing: the outer `None` is a fault, the inner one "not set".
    #[expect(clippy::option_option, reason = "a fault and an absence are two things")]
    pub(super) fn optional<T>(&mut self, name: &str, parse: fn(&str) -> Option<T>) -> Option<Option<T>> {
        match self.text(name) {
            None => Some(None),
            Some(_) => self.required(name, parse).map(Some),
        }
    }

    pub(super) fn within(&mut self, name: &str, least: u32, most: u32) -> Option<u32> {
        let value = self.text(name).and_then(|text| text.parse().ok());
        let value = value.filter(|value| (least..=most).contains(value));
        if value.is_none() {
            self.fault(name, format!("a whole number from {least} to {most}"));
        }
        value
    }

    /// A duration of one second or more.
    pub(super) fn lifetime(&mut self, name: &str) -> Option<Duration> {
        let value = self.text(name).and_then(duration).filter(|value| !value.is_zero());
        if value.is_none() {
            self.fault(name, "a duration of 1s or more, as 90s, 5m, 12h or 7d");
        }
        value
    }

    pub(super) fn list<T>(&mut self, name: &str, parse: fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let Some(text) = self.text(name) else { return Some(Vec::new()) };
        let list: Option<Vec<T>> = text.split(',').map(str::trim).map(parse).collect();
        if list.is_none() {
            self.fault(name, expectation(name));
        }
        list
    }

    pub(super) fn hash_threads(&mut self) -> Option<NonZeroUsize> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.optional("LATCHKEY_HASH_THREADS", |text| text.parse().ok().filter(|n: &NonZeroUsize| n.get() <= 1024))
            .map(|given| given.unwrap_or(cores))
    }

    pub(super) fn limits(&mut self) -> Option<LimitSettings> {
        let mut quota = |name| self.required(name, quota_or_off);
        let (register, login) = (quota("LATCHKEY_LIMIT_REGISTER"), quota("LATCHKEY_LIMIT_LOGIN"));
        let (refresh, logout) = (quota("LATCHKEY_LIMIT_REFRESH"), quota("LATCHKEY_LIMIT_LOGOUT"));
        let codes = quota("LATCHKEY_LIMIT_CODES");
        let account = self.required("LATCHKEY_LIMIT_ACCOUNT", on_or_off);
        let connections = self.required("LATCHKEY_MAX_CONNECTIONS_PER_ADDRESS", count_or_off);
        Some(LimitSettings {
            register: register?,
            login: login?,
            refresh: refresh?,
            logout: logout?,
            codes: codes?,
            account: account?,
            connections: connections?,
        })
    }

    /// A secret from `name` or from the file that `<name>_FILE` names.
    pub(super) fn secret_text(&mut self, name: &str) -> Option<Option<SecretText>> {
        let file_name = format!("{name}_FILE");
        match (self.given.get(name), self.given.get(&file_name)) {
            (None, None) => Some(None),
            (Some(text), None) => Some(Some(SecretText::new(text))),
            (None, Some(path)) => {
                let Ok(text) = std::fs::read_to_string(path) else {
                    self.fault(&file_name, "the path of a file that can be read");
                    return None;
                };
                Some(Some(SecretText::new(text.trim_end())))
            }
            (Some(_), Some(_)) => {
                self.fault(name, format!("either {name} or {file_name}, not both"));
                None
            }
        }
    }

    #[expect(clippy::option_option, reason = "a fault and an absence are two things")]
    pub(super) fn secret<T>(&mut self, name: &str, parse: fn(&str) -> Option<T>) -> Option<Option<T>> {
        let Some(text) = self.secret_text(name)? else { return Some(None) };
        let value = parse(text.expose());
        if value.is_none() {
            self.fault(name, expectation(name));
        }
        value.map(Some)
    }

    pub(super) fn secret_list<T>(&mut self, name: &str, parse: fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let Some(text) = self.secret_text(name)? else { return Some(Vec::new()) };
        let list: Option<Vec<T>> = text.expose().split(',').map(str::trim).map(parse).collect();
        if list.is_none() {
            self.fault(name, expectation(name));
        }
        list
    }
}

fn expectation(name: &str) -> &'static str {
    match name {
        "LATCHKEY_PUBLIC_URL" => {
            "http:// or https:// with a host and perhaps a port, and nothing behind it, not even a slash"
        }
        "LATCHKEY_LISTEN" => "an IP address and a port, as 127.0.0.1:3000 or [::1]:3000",
        "LATCHKEY_INTERNAL_LISTEN" => "an IP address and a port, as 127.0.0.1:3001, or off",
        "LATCHKEY_DATA_DIR" | "LATCHKEY_JWT_DIR" => "the path of a folder",
        "DATABASE_URL" => "postgres://user:password@host/database",
        "REDIS_URL" => {
            "redis://[user:password@]host[:port][/db], rediss://… for TLS, \
             redis-cluster://[user:password@]host:port[,host:port…][?tls=true] or \
             redis-sentinel://[user:password@]host:port[,host:port…]/master[/db]\
             [?tls=true][&sentinel_user=…&sentinel_password=…]; special characters percent-encoded"
        }
        "SMTP_URL" => "smtp://[user:password@]host[:port][?tls=none] or smtps://…",
        "LATCHKEY_MAIL_FROM" => "Name <address@domain> or an address alone",
        "LATCHKEY_SUPPORT" => "an e-mail address, or a URL with http:// or https://",
        "LATCHKEY_TEMPLATES" => "the path of a folder",
        "LATCHKEY_LOCALE" => "a language tag as en or de-AT",
        "LATCHKEY_EMAIL_VERIFICATION" => "off, optional or required",
        "LATCHKEY_REDIS_PREFIX" => "1 to 32 letters, digits, `-`, `_` or `:`",
        "LATCHKEY_SECRET" => {
            "base64 of 32 random bytes or more, perhaps a comma list; `openssl rand -base64 32` makes one"
        }
        "LATCHKEY_PEPPER" => {
            "id:base64 with an id of 1 to 8 letters or digits and 16 bytes or more, perhaps a comma list"
        }
        "LATCHKEY_REFRESH_GRACE" => "a duration, as 30s, or 0s for none",
        "LATCHKEY_REGISTRATION" => "open or closed",
        "LATCHKEY_REGISTRATION_DOMAINS" => "a comma list of domain names",
        "LATCHKEY_HASH_THREADS" => "a whole number from 1 to 1024",
        "LATCHKEY_HASH_QUEUE" => "a whole number from 1 to 1000000",
        "LATCHKEY_PRODUCT_NAME" => {
            "1 to 64 characters without line breaks, control characters or marks of writing direction"
        }
        "LATCHKEY_LIMIT_REGISTER"
        | "LATCHKEY_LIMIT_LOGIN"
        | "LATCHKEY_LIMIT_REFRESH"
        | "LATCHKEY_LIMIT_LOGOUT"
        | "LATCHKEY_LIMIT_CODES" => "N/period[:burst] as 60/1m or 10/1h:5, or off",
        "LATCHKEY_LIMIT_ACCOUNT" => "on or off",
        "LATCHKEY_MAX_CONNECTIONS_PER_ADDRESS" => "a whole number from 1 to 1000000, or off",
        "LATCHKEY_TRUSTED_PROXIES" => "a comma list of addresses and networks as 10.0.0.0/8 or 2001:db8::/32",
        "LATCHKEY_PROXY_HEADER" => "x-forwarded-for or forwarded",
        "LATCHKEY_CORS_ORIGINS" => "a comma list of origins: scheme, host, perhaps port, nothing behind",
        "LATCHKEY_LOG" => "auto, pretty or json",
        "RUST_LOG" => "directives as warn or latchkey=debug, perhaps a comma list",
        _ => "a value as in `.env.example`",
    }
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let number: u64 = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
    // Ten years: a bound that keeps every later sum of milliseconds far from overflow.
    number.checked_mul(unit).filter(|&seconds| seconds <= 3650 * 24 * 60 * 60).map(Duration::from_secs)
}

pub(super) fn open_or_closed(text: &str) -> Option<bool> {
    match text {
        "open" => Some(true),
        "closed" => Some(false),
        _ => None,
    }
}

pub(super) fn domain(text: &str) -> Option<String> {
    crate::names::canonical_domain(text)
}

pub(super) fn count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| (1..=1_000_000).contains(count))
}

/// `N/period[:burst]`; without a burst it is N.
#[expect(clippy::option_option, reason = "a fault and `off` are two things")]
pub(super) fn quota_or_off(text: &str) -> Option<Option<Quota>> {
    if text == "off" {
        return Some(None);
    }
    let (count, rest) = text.split_once('/')?;
    let (period, burst) = rest.split_once(':').map_or((rest, count), |(period, burst)| (period, burst));
    let number = |text: &str| text.parse().ok().filter(|number: &NonZeroU32| number.get() <= 1_000_000);
    let period = duration(period).filter(|period| !period.is_zero())?;
    let (count, burst) = (number(count)?, number(burst)?);
    // The time in which a burst comes back; the governor counts it in nanoseconds of 64 bits.
    let whole = u128::from(period.as_secs()) * u128::from(burst.get()) / u128::from(count.get());
    (whole <= 3650 * 24 * 60 * 60).then_some(Some(Quota { count, period, burst }))
}

pub(super) fn on_or_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

#[expect(clippy::option_option, reason = "a fault and `off` are two things")]
pub(super) fn count_or_off(text: &str) -> Option<Option<usize>> {
    if text == "off" { Some(None) } else { count(text).map(Some) }
}

/// A network, or an address alone.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network: IpNet = text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))?;
    // Peers are compared in their folded form. And who trusts everybody would believe every client about itself.
    let folded = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(address) => IpNet::new(address.into(), v6.prefix_len() - 96).ok()?,
            None => network,
        },
        _ => network,
    };
    (folded.prefix_len() > 0).then(|| folded.trunc())
}

pub(super) fn proxy_header(text: &str) -> Option<ProxyHeader> {
    match text.to_ascii_lowercase().as_str() {
        "x-forwarded-for" => Some(ProxyHeader::XForwardedFor),
        "forwarded" => Some(ProxyHeader::Forwarded),
        _ => None,
    }
}

pub(super) fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

#[expect(clippy::option_option, reason = "a fault and `off` are two things")]
pub(super) fn address_or_off(text: &str) -> Option<Option<SocketAddr>> {
    if text == "off" { Some(None) } else { address(text).map(Some) }
}

#[expect(clippy::unnecessary_wraps, reason = "every parser has this shape")]
pub(super) fn path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

pub(super) fn database_url(text: &str) -> Option<SecretText> {
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"))?;
    (!rest.is_empty() && text.parse::<sqlx::postgres::PgConnectOptions>().is_ok()).then(|| SecretText::new(text))
}

pub(super) fn mailbox(text: &str) -> Option<Mailbox> {
    let mailbox: Mailbox = text.parse().ok()?;
    let Mailbox { name, email } = mailbox;
    let is_harmless = |name: &String| !name.chars().any(crate::names::is_unsafe);
    crate::names::canonical_email(email.as_ref()).filter(|_| name.as_ref().is_none_or(is_harmless))?;
    // As A-labels: not every mail server takes an address in another script (RFC 6531).
    let domain = crate::names::canonical_domain(email.domain())?;
    Some(Mailbox::new(name, Address::new(email.user(), domain).ok()?))
}

pub(super) fn support(text: &str) -> Option<String> {
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    let fits = (is_url && text.parse::<Uri>().is_ok()) || crate::names::canonical_email(text).is_some();
    (fits && text.len() <= 256).then(|| text.to_owned())
}

pub(super) fn email_verification(text: &str) -> Option<EmailVerification> {
    match text {
        "off" => Some(EmailVerification::Off),
        "optional" => Some(EmailVerification::Optional),
        "required" => Some(EmailVerification::Required),
        _ => None,
    }
}

pub(super) fn redis_prefix(text: &str) -> Option<String> {
    let fits = (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':'));
    fits.then(|| text.to_owned())
}

pub(super) fn server_secret(text: &str) -> Option<SecretBytes> {
    STANDARD.decode(text).ok().filter(|bytes| bytes.len() >= 32).map(SecretBytes::new)
}

/// Whether these bytes were typed rather than drawn. 32 random bytes practically never hold fewer than 20 different ones;
/// words, counters and repetitions hold fewer, or nothing but ASCII.
pub(super) fn is_sample(bytes: &[u8]) -> bool {
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    different.len() < 20
        || bytes.iter().all(u8::is_ascii)
        || bytes.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1))
}

pub(super) fn pepper(text: &str) -> Option<Pepper> {
    let (id, key) = text.split_once(':')?;
    let fits = (1..=8).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    let key = STANDARD.decode(key).ok().filter(|bytes| bytes.len() >= 16)?;
    fits.then(|| Pepper { id: id.to_owned(), key: SecretBytes::new(key) })
}

pub(super) fn product_name(text: &str) -> Option<String> {
    // It stands in subjects of mails and on pages: nothing that turns a line around or breaks it.
    let fits = (1..=64).contains(&text.chars().count()) && !text.chars().any(crate::names::is_unsafe);
    fits.then(|| text.to_owned())
}

/// The text of a filter that tracing-subscriber understands.
pub(super) fn log_filter(text: &str) -> Option<String> {
    text.parse::<tracing_subscriber::filter::Targets>().is_ok().then(|| text.to_owned())
}

pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "auto" => Some(LogFormat::Auto),
        "pretty" => Some(LogFormat::Pretty),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}
