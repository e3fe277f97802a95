//! `REDIS_URL`: one scheme each for a single server, TLS, Sentinel and Cluster.
//!
//! ```text
//! redis://[user:password@]host[:port][/db]             and rediss://… over TLS
//! redis-cluster://[user:password@]host[:port][,…][?tls=true]
//! redis-sentinel://[user:password@]host[:port][,…]/master[/db][?tls=true][&sentinel_user=…][&sentinel_password=…]
//! ```
//!
//! Whatever comes from outside is percent-decoded. What this program would not follow is refused rather than left
//! unread: a setting that is misspelt, `#insecure` of other programs, a database number of a Cluster, which has none.

use std::fmt;

use percent_encoding::percent_decode_str;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError};

use crate::secret::SecretText;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is and how to get in. It prints nothing, as there may be passwords in it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(super) topology: Topology,
    pub(super) manner: Manner,
}

/// Who knows where the master of a key is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Topology {
    /// The setting.
    Single(Host),
    /// These Sentinels.
    Sentinel(Watchers),
    /// The nodes themselves, of which these are some.
    Cluster(Vec<Host>),
}

/// The Sentinels of one master.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Watchers {
    pub hosts: Vec<Host>,
    /// What they call the master.
    pub master: String,
    /// How to connect to them.
    pub manner: Manner,
}

/// A name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host {
    /// Without brackets.
    pub name: String,
    pub port: u16,
}

/// How to connect to any of several servers.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Manner {
    pub tls: bool,
    pub user: Option<String>,
    pub password: Option<SecretText>,
    pub db: u16,
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl RedisUrl {
    /// Takes one of the four forms, and nothing that would not be followed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if rest.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
            return None;
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
        let (user, password) = match login {
            Some(login) => credentials(login)?,
            None => (None, None),
        };
        let manner = |tls, db| Manner { tls, user, password, db };
        match scheme {
            "redis" | "rediss" => {
                let db = if path.is_empty() { 0 } else { digits(path)? };
                let topology = Topology::Single(Host::parse(hosts, REDIS_PORT)?);
                query.is_none().then_some(Self { topology, manner: manner(scheme == "rediss", db) })
            }
            "redis-cluster" => {
                let query = Query::parse(query, &["tls"])?;
                let topology = Topology::Cluster(Host::list(hosts, REDIS_PORT)?);
                path.is_empty().then_some(Self { topology, manner: manner(query.tls()?, 0) })
            }
            "redis-sentinel" => {
                let query = Query::parse(query, &["tls", "sentinel_user", "sentinel_password"])?;
                let (master, db) = path.split_once('/').map_or((path, None), |(master, db)| (master, Some(db)));
                let db = db.map_or(Some(0), digits)?;
                let (user, password) = (query.get("sentinel_user"), query.get("sentinel_password"));
                if user.is_some() && password.is_none() {
                    return None;
                }
                let (tls, password) = (query.tls()?, password.map(SecretText::new));
                let watchers = Watchers {
                    hosts: Host::list(hosts, SENTINEL_PORT)?,
                    master: master_name(master)?,
                    manner: Manner { tls, user: user.map(str::to_owned), password, db: 0 },
                };
                Some(Self { topology: Topology::Sentinel(watchers), manner: manner(tls, db) })
            }
            _ => None,
        }
    }
}

impl Host {
    fn list(text: &str, port: u16) -> Option<Vec<Self>> {
        text.split(',').map(|host| Self::parse(host, port)).collect()
    }

    /// `name`, `name:port`, `[v6]` or `[v6]:port`.
    pub(super) fn parse(text: &str, default: u16) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']')?;
                name.parse::<std::net::Ipv6Addr>().ok()?;
                (name, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
        };
        let is_name = |name: &str| {
            (1..=253).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        let port = port.map_or(Some(default), |port| digits(port).filter(|&port| port > 0))?;
        (text.starts_with('[') || is_name(name)).then(|| Self { name: name.to_owned(), port })
    }
}

impl Manner {
    /// What redis-rs wants to know of a connection to this host.
    pub(super) fn client(&self, host: &Host) -> Result<Client, RedisError> {
        let (name, port) = (host.name.clone(), host.port);
        let address = if self.tls {
            ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(name, port)
        };
        let mut settings = RedisConnectionInfo::default().set_db(self.db.into());
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        Client::open(address.into_connection_info()?.set_redis_settings(settings))
    }
}

/// `user:password`, or `:password` for the default user.
fn credentials(text: &str) -> Option<(Option<String>, Option<SecretText>)> {
    let (user, password) = text.split_once(':')?;
    let (user, password) = (decoded(user)?, decoded(password)?);
    (!password.is_empty()).then(|| ((!user.is_empty()).then_some(user), Some(SecretText::new(password))))
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Sentinel itself takes no other names.
fn master_name(text: &str) -> Option<String> {
    let name = decoded(text)?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (!name.is_empty() && name.bytes().all(is_name)).then_some(name)
}

/// A number of digits alone; `parse` would take a sign.
fn digits(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What stands behind the question mark: each name once, none that is not known, none that is empty.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: Option<&str>, known: &[&str]) -> Option<Self> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.into_iter().flat_map(|text| text.split('&')) {
            let (name, value) = pair.split_once('=')?;
            let value = decoded(value).filter(|value| !value.is_empty())?;
            if !known.contains(&name) || pairs.iter().any(|(seen, _)| seen == name) {
                return None;
            }
            pairs.push((name.to_owned(), value));
        }
        Some(Self(pairs))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn tls(&self) -> Option<bool> {
        match self.get("tls") {
            None | Some("false") => Some(false),
            Some("true") => Some(true),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host { name: name.to_owned(), port }
    }

    fn login(user: Option<&str>, password: &str) -> Manner {
        Manner { user: user.map(str::to_owned), password: Some(SecretText::new(password)), ..Manner::default() }
    }

    fn is(text: &str, topology: Topology, manner: Manner) {
        assert!(RedisUrl::parse(text) == Some(RedisUrl { topology, manner }), "{text}");
    }

    #[test]
    fn each_topology_has_a_form() {
        let single = |name: &str, port| Topology::Single(host(name, port));
        is("redis://r", single("r", 6379), Manner::default());
        is("redis://r:1/", single("r", 1), Manner::default());
        is("redis://[::1]:1/7", single("::1", 1), Manner { db: 7, ..Manner::default() });
        is("redis://[::1]", single("::1", 6379), Manner::default());
        is("rediss://:s@r_1.example", single("r_1.example", 6379), Manner { tls: true, ..login(None, "s") });
        is("redis://u%3A:p%40%2F%3F%23%25:+%C3%A9@r", single("r", 6379), login(Some("u:"), "p@/?#%:+é"));

        let three = Topology::Cluster(vec![host("a", 7000), host("::1", 7001), host("c", 6379)]);
        is("redis-cluster://u:p@a:7000,[::1]:7001,c", three, login(Some("u"), "p"));
        let tls = Manner { tls: true, ..Manner::default() };
        is("redis-cluster://a?tls=true", Topology::Cluster(vec![host("a", 6379)]), tls.clone());
        is("redis-cluster://a/?tls=false", Topology::Cluster(vec![host("a", 6379)]), Manner::default());

        let sentinel = |manner| {
            Topology::Sentinel(Watchers {
                hosts: vec![host("a", 26379), host("b", 5)],
                master: "my-master.1".into(),
                manner,
            })
        };
        is("redis-sentinel://a,b:5/my-master.1", sentinel(Manner::default()), Manner::default());
        is(
            "redis-sentinel://:p@a,b:5/my-master.1/3?tls=true&sentinel_user=w&sentinel_password=%26s",
            sentinel(Manner { tls: true, ..login(Some("w"), "&s") }),
            Manner { tls: true, db: 3, ..login(None, "p") },
        );
        is("redis-sentinel://a,b:5/my-master.1?sentinel_password=s", sentinel(login(None, "s")), Manner::default());
    }

    #[test]
    fn what_would_not_be_followed_is_no_url() {
        for text in [
            "",
            "r",
            "redis:r",
            "redis://",
            "redis://@r",
            "redis://u@r",
            "redis://u:@r",
            "redis://:%ff@r",
            "redis://r:0",
            "redis://r:+1",
            "redis://r:70000",
            "redis://r:",
            "redis://r/x",
            "redis://r/-1",
            "redis://r/1/2",
            "redis://r?protocol=resp3",
            "redis://r?",
            "rediss://r/#insecure",
            "redis://a,b",
            "redis://a b",
            "redis://::1",
            "redis://[::1",
            "redis://[::1]x",
            "redis://[a]",
            "REDIS://r",
            "redis+unix:///x",
            "redis-cluster://",
            "redis-cluster://a,,b",
            "redis-cluster://a/1",
            "redis-cluster://a?tls=yes",
            "redis-cluster://a?tls=true&tls=true",
            "redis-cluster://a?sentinel_password=x",
            "redis-sentinel://a",
            "redis-sentinel://a/",
            "redis-sentinel://a/m/",
            "redis-sentinel://a/m/x",
            "redis-sentinel://a/m m",
            "redis-sentinel://a/m?sentinel_user=u",
            "redis-sentinel://a/m?sentinel_password=",
            "redis-sentinel://a/m?tsl=true",
        ] {
            assert!(RedisUrl::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn it_prints_nothing() {
        assert_eq!(format!("{:?}", RedisUrl::parse("redis://u:p@r").unwrap()), "[secret]");
    }
}
