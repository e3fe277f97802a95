//! One connection to one server, that mends itself.
//!
//! ```text
//!            ┌──────────── a keeper, of its own ────────────┐
//!   connect (and once more, and again …) ──▶ held ──▶ given up, or the master is elsewhere ──▶ connect …
//!                                             │                ▲
//!   calls ──── wait for it, then send ────────┘                │ no answer, broken, or no master any more
//!         └─── at the deadline they end, whatever there is ────┘
//! ```
//!
//! No call ever connects: a keeper does, so that a call that ends takes no half-made connection with it and many calls
//! make one connection. A call that gets no answer gives the connection up: a peer that went away without a word would
//! otherwise swallow every later call until the kernel gives the socket up. What is told first is right when several say
//! so: they name the connection's number, and only the one in use can be given up. The keeper ends with its line.
//!
//! redis-rs has a `ConnectionManager` for this. It stops trying after some times and begins again only with a call, which
//! it makes wait; and it cannot ask Sentinels, or be asked by a Cluster whether it is there.

use std::{sync::Arc, time::Duration};

use redis::{AsyncConnectionConfig, ErrorKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    PATIENCE,
    question::Question,
    sentinel,
    url::{Host, Manner, Watchers},
};
use crate::ephemeral::{EphemeralError, EphemeralResult};

/// How long setting a connection up may take before the next one is tried.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// A connection that was given up sooner is not followed by the next one at once, or each call could cost one.
const SHORT_LIVED: Duration = Duration::from_secs(1);
/// How often Sentinels are asked although all is well: a master that they replaced may still answer us.
const LOOK_ROUND: Duration = Duration::from_secs(2);

/// Where the server is.
pub(super) enum Target {
    /// Always here.
    Host(Host, Manner),
    /// Wherever the Sentinels say.
    Watched(Watchers, Manner),
}

/// The line.
pub(super) struct Line {
    held: watch::Receiver<Option<Held>>,
    given_up: watch::Sender<u64>,
}

/// A connection in use.
#[derive(Clone)]
struct Held {
    number: u64,
    connection: MultiplexedConnection,
}

impl Line {
    /// A line to this target; it connects by itself. Needs a Tokio runtime.
    pub fn to(target: Target) -> Arc<Self> {
        let (sender, held) = watch::channel(None);
        let (given_up, news) = watch::channel(0);
        tokio::spawn(keep(target, sender, news));
        Arc::new(Self { held, given_up })
    }

    /// Asks, and has the answer or an error by the deadline. `asking` is for a slot of a Cluster that is on its way here.
    pub async fn ask(&self, question: &Question, asking: bool, deadline: Instant) -> EphemeralResult<Value> {
        let mut held = self.held.clone();
        let there = timeout_at(deadline, held.wait_for(Option::is_some)).await;
        let Some(Held { number, connection }) =
            there.map_err(|_| EphemeralError::Timeout)?.ok().and_then(|held| held.clone())
        else {
            // The keeper is gone, and so is the runtime.
            return Err(EphemeralError::Timeout);
        };
        let sent = Instant::now();
        match timeout_at(deadline, converse(connection, question, asking)).await {
            Ok(Err(error)) => {
                if is_the_end(&error) {
                    self.give_up(number);
                }
                Err(EphemeralError::Redis(error))
            }
            Ok(Ok(answer)) => Ok(answer),
            Err(_) => {
                // Who waited long for the connection knows nothing of how fast it is.
                if sent.elapsed() >= PATIENCE / 2 {
                    self.give_up(number);
                }
                Err(EphemeralError::Timeout)
            }
        }
    }

    fn give_up(&self, number: u64) {
        self.given_up.send_if_modified(|last| {
            let is_news = *last < number;
            *last = number.max(*last);
            is_news
        });
    }
}

async fn converse(
    mut connection: MultiplexedConnection,
    question: &Question,
    asking: bool,
) -> Result<Value, RedisError> {
    match say(&mut connection, question.by_name(), asking).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => match question.in_full() {
            Some(script) => say(&mut connection, script, asking).await,
            None => Err(error),
        },
        answer => answer,
    }
}

async fn say(connection: &mut MultiplexedConnection, command: redis::Cmd, asking: bool) -> Result<Value, RedisError> {
    if asking {
        let mut pair = redis::pipe();
        pair.cmd("ASKING").ignore().add_command(command);
        let (answer,): (Value,) = pair.query_async(connection).await?;
        return Ok(answer);
    }
    command.query_async(connection).await
}

/// Whether there is nothing to expect of this connection any more. A master that was demoted, and a replica that lost
/// its master, answer well and would refuse for ever.
fn is_the_end(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}

/// The keeper: see the head of this module.
async fn keep(target: Target, held: watch::Sender<Option<Held>>, mut given_up: watch::Receiver<u64>) {
    let mut next = None;
    for number in 1.. {
        let (at, connection) = match next.take() {
            Some(found) => found,
            None => tokio::select! {
                found = find(&target) => found,
                () = held.closed() => return,
            },
        };
        let since = Instant::now();
        held.send_replace(Some(Held { number, connection }));
        tokio::select! {
            outcome = given_up.wait_for(|last| *last >= number) => if outcome.is_err() { return },
            found = successor(&target, &at) => next = Some(found),
        }
        if next.is_none() {
            held.send_replace(None);
            tracing::warn!("the connection to Redis at {at} is given up");
            if since.elapsed() < SHORT_LIVED {
                sleep(PAUSES.0).await;
            }
        }
    }
}

/// Connects, as often as it takes. Why it did not is told once: the next reasons are mostly the same.
async fn find(target: &Target) -> (Host, MultiplexedConnection) {
    let (mut pause, mut is_told) = (PAUSES.0, false);
    loop {
        let error = match timeout(CONNECT_PATIENCE, target.connect()).await {
            Ok(Ok(found)) => {
                if is_told {
                    tracing::info!("Redis at {} is reached again", found.0);
                }
                return found;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(error, "Redis is not reached");
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSES.1);
    }
}

/// Waits until the Sentinels name another master than `at`, which then stands.
async fn successor(target: &Target, at: &Host) -> (Host, MultiplexedConnection) {
    loop {
        sleep(LOOK_ROUND).await;
        let Target::Watched(watchers, manner) = target else { return std::future::pending().await };
        if let Ok(Ok(found)) = timeout(CONNECT_PATIENCE, sentinel::master(watchers, manner, Some(at))).await
            && found.0 != *at
        {
            tracing::info!("the master of Redis is at {} now", found.0);
            return found;
        }
    }
}

impl Target {
    async fn connect(&self) -> Result<(Host, MultiplexedConnection), RedisError> {
        match self {
            Self::Host(host, manner) => Ok((host.clone(), connect(host, manner).await?)),
            Self::Watched(watchers, manner) => sentinel::master(watchers, manner, None).await,
        }
    }
}

/// A connection that was greeted; how long that may take is the caller's affair, and so is every later answer.
pub(super) async fn connect(host: &Host, manner: &Manner) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    manner.client(host)?.get_multiplexed_async_connection_with_config(&config).await
}
