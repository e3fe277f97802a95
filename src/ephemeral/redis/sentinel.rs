//! Who is the master: what the Sentinels say, and what the server itself says.
//!
//! 1. All Sentinels are asked at once; those that are not there cost nothing but a moment.
//! 2. Of several answers the one of the newest configuration is right (each fail-over has a higher epoch), and among
//!    those the one most Sentinels give: one that was cut off tells of a master that is long replaced.
//! 3. The server that is named must say itself that it is a master. Right after a fail-over, or when a Sentinel is
//!    mistaken, it is none, or dead; then the next answer is tried.

use std::{collections::BTreeMap, time::Duration};

use redis::{ErrorKind, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{
    line::connect,
    poll::poll,
    url::{Host, Manner, Watchers},
};

/// How long a Sentinel may take, and a server to say what it is.
pub(super) const PATIENCE: Duration = Duration::from_millis(600);

/// A connection to the master and where that is. When the first answer is `known`, `known` is not asked again.
pub(super) async fn master(
    watchers: &Watchers,
    manner: &Manner,
    known: Option<&Host>,
) -> Result<(Host, MultiplexedConnection), RedisError> {
    let mut last = RedisError::from((ErrorKind::Io, "no Sentinel names a master of this name"));
    for host in candidates(watchers).await {
        if known == Some(&host) {
            break;
        }
        match timeout(PATIENCE, stands(&host, manner)).await {
            Ok(Ok(connection)) => return Ok((host, connection)),
            Ok(Err(error)) => last = error,
            Err(_) => last = RedisError::from((ErrorKind::Io, "the master does not answer")),
        }
    }
    Err(last)
}

/// A connection to this server, if it is a master.
async fn stands(host: &Host, manner: &Manner) -> Result<MultiplexedConnection, RedisError> {
    let mut connection = connect(host, manner).await?;
    let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
        _ => Err(RedisError::from((ErrorKind::Io, "the server that the Sentinels name is no master"))),
    }
}

/// What the Sentinels say, the best answer first.
async fn candidates(watchers: &Watchers) -> Vec<Host> {
    let ask = |host: Host| {
        let (manner, name) = (watchers.manner.clone(), watchers.master.clone());
        async move { answer(&host, &manner, &name).await }
    };
    ranked(poll(watchers.hosts.clone(), PATIENCE, ask).await)
}

/// The epoch of its configuration, and the master in it.
type Answer = (u64, Host);

async fn answer(host: &Host, manner: &Manner, name: &str) -> Result<Answer, RedisError> {
    let mut sentinel = connect(host, manner).await?;
    // The address comes from the first: amid a fail-over it knows of the new master before the second does.
    let (address, state): (Option<(String, u16)>, BTreeMap<String, String>) = redis::pipe()
        .cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(name)
        .cmd("SENTINEL")
        .arg("MASTER")
        .arg(name)
        .query_async(&mut sentinel)
        .await?;
    let (name, port) = address.ok_or((ErrorKind::Io, "the Sentinel knows no master of this name"))?;
    let epoch = state.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Ok((epoch, Host { name, port }))
}

fn ranked(answers: Vec<Answer>) -> Vec<Host> {
    let mut votes: BTreeMap<Host, (u64, usize)> = BTreeMap::new();
    for (epoch, host) in answers {
        let (newest, count) = votes.entry(host).or_default();
        (*newest, *count) = ((*newest).max(epoch), *count + 1);
    }
    let mut hosts: Vec<_> = votes.into_iter().collect();
    hosts.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
    hosts.into_iter().map(|(host, _)| host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_configuration_is_right_and_then_the_majority() {
        let host = |port| Host { name: "r".to_owned(), port };
        let ports = |answers: &[(u64, u16)]| -> Vec<u16> {
            let answers = answers.iter().map(|&(epoch, port)| (epoch, host(port))).collect();
            ranked(answers).into_iter().map(|host| host.port).collect()
        };
        assert!(ports(&[]).is_empty());
        assert_eq!(ports(&[(1, 1), (1, 1), (2, 2)]), [2, 1], "one that knows more against two that were cut off");
        assert_eq!(ports(&[(1, 1), (1, 2), (1, 2)]), [2, 1]);
        assert_eq!(ports(&[(3, 1), (1, 1), (2, 2)]), [1, 2]);
    }
}
