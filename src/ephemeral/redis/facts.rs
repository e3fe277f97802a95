//! What Redis says of itself, for `latchkey doctor`: asked on connections of their own, past the lines of the store.

use std::collections::BTreeMap;

use redis::{ErrorKind, RedisError, aio::MultiplexedConnection};

use super::{
    cluster,
    line::connect,
    poll::poll,
    sentinel,
    url::{Host, Manner, RedisUrl, Topology},
};
use crate::{ambient::Ambient, db::Timestamp, ephemeral::EphemeralError};

/// Every server that has keys of ours, and who watches them.
#[derive(Clone, Debug)]
pub struct RedisFacts {
    /// Each master.
    pub servers: Vec<ServerFacts>,
    /// What the settings say it is.
    pub topology: TopologyFacts,
}

/// What is to be known beyond the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyFacts {
    /// One server.
    Single,
    /// Sentinels: how many of how many answer.
    Sentinel(usize, usize),
    /// A Cluster; whether somebody has each slot.
    Cluster(bool),
}

/// One server.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Where it is.
    pub at: String,
    /// As it says it; empty when it does not.
    pub version: String,
    /// `noeviction`, or it throws sessions away; `None` when it does not say.
    pub policy: Option<String>,
    /// Bytes in use, and how many it may use; zero is any number.
    pub memory: (u64, u64),
    /// Whether it is a master.
    pub is_master: bool,
    /// Whether it is a node of a Cluster.
    pub is_cluster: bool,
    /// Whether it keeps an append-only file.
    pub appends: bool,
    /// Whether the last attempts to write to its disk went well.
    pub writes_well: bool,
    /// Replicas that are connected.
    pub replicas: u64,
    /// Its clock, between two looks at ours.
    pub clock: [Timestamp; 3],
}

impl RedisUrl {
    /// Asks every master of this setting. It takes as long as it takes.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub async fn facts(&self, ambient: &Ambient) -> Result<RedisFacts, EphemeralError> {
        self.ask_all(ambient).await.map_err(EphemeralError::Redis)
    }

    async fn ask_all(&self, ambient: &Ambient) -> Result<RedisFacts, RedisError> {
        let manner = &self.manner;
        match &self.topology {
            Topology::Single(host) => {
                let servers = vec![ask(host, connect(host, manner).await?, ambient).await?];
                Ok(RedisFacts { servers, topology: TopologyFacts::Single })
            }
            Topology::Sentinel(watchers) => {
                let (host, connection) = sentinel::master(watchers, manner, None).await?;
                let servers = vec![ask(&host, connection, ambient).await?];
                let greet = |host: Host| {
                    let manner = watchers.manner.clone();
                    async move { connect(&host, &manner).await.map(drop) }
                };
                let there = poll(watchers.hosts.clone(), sentinel::PATIENCE, greet).await.len();
                Ok(RedisFacts { servers, topology: TopologyFacts::Sentinel(there, watchers.hosts.len()) })
            }
            Topology::Cluster(seeds) => {
                let nobody = || RedisError::from((ErrorKind::Io, "no node tells who has which slots"));
                let (masters, is_whole) = cluster::masters(seeds.clone(), manner.clone()).await.ok_or_else(nobody)?;
                let servers = masters.iter().map(|host| reach(host, manner, ambient));
                let servers = futures_util::future::try_join_all(servers).await?;
                Ok(RedisFacts { servers, topology: TopologyFacts::Cluster(is_whole) })
            }
        }
    }
}

async fn reach(host: &Host, manner: &Manner, ambient: &Ambient) -> Result<ServerFacts, RedisError> {
    ask(host, connect(host, manner).await?, ambient).await
}

async fn ask(host: &Host, mut connection: MultiplexedConnection, ambient: &Ambient) -> Result<ServerFacts, RedisError> {
    let before = ambient.now();
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
    let clock = [before, Timestamp::from_millis(seconds * 1000 + micros / 1000), ambient.now()];
    // Not CONFIG, which users are often not allowed; INFO has the policy as well.
    let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
    Ok(read(host.to_string(), &info, clock))
}

fn read(at: String, info: &str, clock: [Timestamp; 3]) -> ServerFacts {
    let fields: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let text = |name: &str| fields.get(name).copied().filter(|text| !text.is_empty());
    let number = |name: &str| text(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    let is_well = |name: &str| text(name).is_none_or(|text| text == "ok");
    ServerFacts {
        at,
        version: text("redis_version").unwrap_or_default().to_owned(),
        policy: text("maxmemory_policy").map(str::to_owned),
        memory: (number("used_memory"), number("maxmemory")),
        is_master: text("role").is_none_or(|role| role == "master"),
        is_cluster: number("cluster_enabled") == 1,
        appends: number("aof_enabled") == 1,
        writes_well: ["rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"]
            .into_iter()
            .all(is_well),
        replicas: number("connected_slaves"),
        clock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read_and_what_it_does_not_say_is_no_fault() {
        let clock = [Timestamp::from_millis(0); 3];
        let info = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:10\r\nmaxmemory:20\r\n\
                    maxmemory_policy:allkeys-lru\r\nrole:slave\r\naof_enabled:1\r\naof_last_write_status:err\r\n\
                    cluster_enabled:1\r\nconnected_slaves:2\r\n";
        let facts = read("r:1".to_owned(), info, clock);
        assert_eq!((facts.version.as_str(), facts.policy.as_deref()), ("7.0.15", Some("allkeys-lru")));
        assert_eq!((facts.memory, facts.replicas), ((10, 20), 2));
        assert!(!facts.is_master && facts.is_cluster && facts.appends && !facts.writes_well);
        let silent = read("r:1".to_owned(), "", clock);
        assert!(silent.policy.is_none() && silent.is_master && silent.writes_well && !silent.appends);
    }
}
