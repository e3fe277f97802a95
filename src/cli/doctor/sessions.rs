//! Where sessions live: Redis, what it is and whether it keeps what it is given.

use super::{Case, Finding, database::judge_clock, reason};
use crate::{
    clocks,
    ephemeral::{EphemeralError, RedisFacts, ServerFacts, TopologyFacts},
};

const NAME: &str = "sessions";
/// The oldest Redis that we run on.
const OLDEST: (u32, u32) = (6, 2);

pub(super) async fn check(case: &Case) -> Vec<Finding> {
    let Some(url) = &case.config.redis_url else {
        return vec![Finding::ok(NAME, "sessions live in the database (no REDIS_URL)")];
    };
    match url.facts(&case.ambient).await {
        Ok(facts) => judge(&facts),
        Err(error) => {
            let found = format!("Redis does not answer: {}", words(&error));
            let mend = "see whether it runs, whether host, user, password and TLS in REDIS_URL are right, and whether the \
                        user may run INFO, TIME and, with Sentinels or a Cluster, ROLE, SENTINEL, CLUSTER";
            vec![Finding::failure(NAME, found, mend)]
        }
    }
}

fn words(error: &EphemeralError) -> String {
    match error {
        // Its own words are "Redis failed".
        EphemeralError::Redis(error) => error.to_string(),
        error => reason(error),
    }
}

fn judge(facts: &RedisFacts) -> Vec<Finding> {
    let mut findings = topology(facts);
    for server in &facts.servers {
        findings.push(Finding::ok(NAME, format!("Redis {} at {} answers", server.version, server.at)));
        findings.extend(judge_server(server, &facts.topology));
        let [before, theirs, after] = server.clock;
        findings.push(judge_clock(NAME, &format!("Redis at {}", server.at), clocks::judge(before, theirs, after)));
    }
    findings
}

fn topology(facts: &RedisFacts) -> Vec<Finding> {
    match facts.topology {
        TopologyFacts::Single => Vec::new(),
        TopologyFacts::Sentinel(there, all) if 2 * there > all => {
            vec![Finding::ok(NAME, format!("{there} of {all} Sentinels answer"))]
        }
        TopologyFacts::Sentinel(there, all) => {
            let found = format!("only {there} of {all} Sentinels answer: no fail-over can be decided");
            vec![Finding::warning(NAME, found, "start the others, or take those that are gone out of REDIS_URL")]
        }
        TopologyFacts::Cluster(true) => vec![Finding::ok(NAME, "every slot of the Cluster has a master")],
        TopologyFacts::Cluster(false) => {
            let found = "some slots of the Cluster have no master: people whose sessions lie there get 503";
            vec![Finding::failure(NAME, found, "`redis-cli --cluster check` tells which, `--cluster fix` mends it")]
        }
    }
}

fn judge_server(server: &ServerFacts, topology: &TopologyFacts) -> Vec<Finding> {
    let (at, mut findings) = (&server.at, Vec::new());
    if version(&server.version).is_some_and(|version| version < OLDEST) {
        findings.push(Finding::failure(
            NAME,
            format!("Redis at {at} is older than 6.2"),
            "take 6.2 or later, or Valkey",
        ));
    }
    match server.policy.as_deref() {
        Some("noeviction") => {}
        Some(policy) => {
            let found = format!("Redis at {at} has maxmemory-policy {policy}: when it is full it signs people out");
            let mend = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf";
            findings.push(Finding::failure(NAME, found, mend));
        }
        None => {
            let found = format!("Redis at {at} does not tell its maxmemory-policy");
            findings.push(Finding::warning(NAME, found, "see that it is noeviction"));
        }
    }
    let (used, most) = server.memory;
    if most > 0 && used > most / 10 * 8 {
        let found = format!("Redis at {at} uses {} of {} MiB: when it is full nobody signs in", used >> 20, most >> 20);
        findings.push(Finding::warning(NAME, found, "raise maxmemory"));
    }
    if !server.is_master {
        let found = format!("Redis at {at} is a replica, which takes no writes");
        findings.push(Finding::failure(
            NAME,
            found,
            "let REDIS_URL name the master, or the Sentinels (redis-sentinel://)",
        ));
    }
    if server.is_cluster != matches!(topology, TopologyFacts::Cluster(_)) {
        let found = format!("Redis at {at} and REDIS_URL disagree on whether this is a Cluster");
        findings.push(Finding::failure(
            NAME,
            found,
            "redis-cluster://host:port,… is for a Cluster, redis:// for one server",
        ));
    }
    if !server.writes_well {
        let found = format!("Redis at {at} could not write to its disk");
        findings.push(Finding::failure(NAME, found, "see its log; by default it takes no writes until it can"));
    }
    if !server.appends {
        let found =
            format!("Redis at {at} keeps no append-only file: after a restart of it people may have to sign in again");
        findings.push(Finding::warning(NAME, found, "appendonly yes, if that matters"));
    }
    if server.replicas == 0 && *topology != TopologyFacts::Single {
        let found = format!("Redis at {at} has no replica that could take over");
        findings.push(Finding::warning(NAME, found, "start one"));
    }
    findings
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Timestamp;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("6.0.16").unwrap() < OLDEST && version("6.2.0").unwrap() >= OLDEST);
        assert!(version("7.0.15").unwrap() > OLDEST && version("10.1").unwrap() > OLDEST);
        assert_eq!(version("unstable"), None);
    }

    #[test]
    fn what_loses_sessions_is_a_failure_and_what_may_is_a_warning() {
        let at = Timestamp::from_millis(0);
        let good = ServerFacts {
            at: "r:1".to_owned(),
            version: "7.0.15".to_owned(),
            policy: Some("noeviction".to_owned()),
            memory: (10, 0),
            is_master: true,
            is_cluster: false,
            appends: true,
            writes_well: true,
            replicas: 1,
            clock: [at; 3],
        };
        let levels = |server: &ServerFacts, topology: TopologyFacts| {
            judge_server(server, &topology).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        use crate::cli::doctor::Level::{Failure, Warning};
        assert_eq!(levels(&good, TopologyFacts::Single), []);
        for (bad, level) in [
            (ServerFacts { policy: Some("allkeys-lru".to_owned()), ..good.clone() }, Failure),
            (ServerFacts { policy: None, ..good.clone() }, Warning),
            (ServerFacts { version: "6.0.16".to_owned(), ..good.clone() }, Failure),
            (ServerFacts { memory: (90, 100), ..good.clone() }, Warning),
            (ServerFacts { is_master: false, ..good.clone() }, Failure),
            (ServerFacts { is_cluster: true, ..good.clone() }, Failure),
            (ServerFacts { writes_well: false, ..good.clone() }, Failure),
            (ServerFacts { appends: false, ..good.clone() }, Warning),
        ] {
            assert_eq!(levels(&bad, TopologyFacts::Single), [level], "{bad:?}");
        }
        let alone = ServerFacts { replicas: 0, ..good };
        assert_eq!(levels(&alone, TopologyFacts::Single), []);
        assert_eq!(levels(&alone, TopologyFacts::Sentinel(3, 3)), [Warning]);
        assert_eq!(levels(&alone, TopologyFacts::Cluster(true)), [Failure, Warning], "it is no node of one");
    }
}
