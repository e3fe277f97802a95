//! A Cluster: one [`Line`] a master, and the table of who has which slots.
//!
//! 1. A question goes to the line of its slot. `MOVED` and `ASK` are followed at once, within the same deadline.
//! 2. Whatever hints that the table is old (`MOVED`, a line that fails, a slot nobody has) wakes the surveyor, a task of
//!    its own: it asks several nodes at once who has what and takes the newest answer.
//! 3. Lines of masters that stay are kept with their connections.
//!
//! redis-rs has a client of Clusters. It was not taken because there one task serves all nodes: while it looks for the
//! new owner of a slot, which may mean to wait for a node that is silent, nobody is served, those of other masters
//! neither; and it loads a script that one node lacks on every master, silent ones included. Here a master that is
//! silent costs those whose sessions it has, and nobody else.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    line::{Line, Target, connect},
    poll::poll,
    question::{Question, SLOTS},
    url::{Host, Manner},
};
use crate::ephemeral::{EphemeralError, EphemeralResult};

/// How often one question may be sent on.
const REDIRECTS: usize = 4;
/// How long a node may take to tell who has what.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two surveys, however many questions fail meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// How old the table may become without a reason.
const AGE: Duration = Duration::from_secs(10);
/// How many nodes are asked in one survey.
const ASKED: usize = 8;

/// The Cluster.
pub(super) struct Cluster {
    table: watch::Receiver<Option<Arc<Table>>>,
    lines: Lines,
    doubt: Arc<Notify>,
}

/// Which line has which slots.
struct Table {
    /// By the last slot of each range; a slot that nobody has lies in a range without a line.
    ranges: BTreeMap<u16, (u16, Arc<Line>)>,
}

impl Cluster {
    /// A Cluster of which these nodes are known. Needs a Tokio runtime.
    pub fn of(seeds: Vec<Host>, manner: Manner) -> Arc<Self> {
        let (sender, table) = watch::channel(None);
        let (doubt, lines) = (Arc::new(Notify::new()), Lines::new(manner.clone()));
        let surveyor = Surveyor { seeds, manner, known: Vec::new(), round: 0, lines: lines.clone() };
        tokio::spawn(surveyor.work(sender, Arc::clone(&doubt)));
        Arc::new(Self { table, lines, doubt })
    }

    /// Asks whoever has the slot, and has the answer or an error by the deadline.
    pub async fn ask(&self, slot: u16, question: &Question, deadline: Instant) -> EphemeralResult<Value> {
        let table = self.table(deadline).await?;
        let mut line = table.line(slot);
        let mut asking = false;
        for _ in 0..=REDIRECTS {
            let Some(there) = line else { break };
            let error = match there.ask(question, asking, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(EphemeralError::Redis(error)) => error,
                Err(error) => {
                    self.doubt.notify_one();
                    return Err(error);
                }
            };
            let Some(host) = redirected(&error) else {
                if is_doubtful(&error) {
                    self.doubt.notify_one();
                }
                return Err(EphemeralError::Redis(error));
            };
            asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
            if !asking {
                self.doubt.notify_one();
            }
            line = Some(self.lines.to(&host));
        }
        self.doubt.notify_one();
        Err(EphemeralError::Nobody)
    }

    /// Asks whoever answers first.
    pub async fn ask_any(&self, question: &Question, deadline: Instant) -> EphemeralResult<Value> {
        let table = self.table(deadline).await?;
        let answers = table.lines().map(|line| Box::pin(async move { line.ask(question, false, deadline).await }));
        futures_util::future::select_ok(answers).await.map(|(answer, _)| answer)
    }

    /// Asks every master; the first error counts, and so does a slot that nobody has.
    pub async fn ask_all(&self, question: &Question, deadline: Instant) -> EphemeralResult<()> {
        let table = self.table(deadline).await?;
        let answers = table.lines().map(|line| async move { line.ask(question, false, deadline).await.map(drop) });
        let outcome = futures_util::future::join_all(answers).await.into_iter().collect::<EphemeralResult<()>>();
        if outcome.is_err() || !table.is_whole() {
            self.doubt.notify_one();
        }
        outcome.and(if table.is_whole() { Ok(()) } else { Err(EphemeralError::Nobody) })
    }

    async fn table(&self, deadline: Instant) -> EphemeralResult<Arc<Table>> {
        let mut table = self.table.clone();
        let there = timeout_at(deadline, table.wait_for(Option::is_some)).await;
        there.map_err(|_| EphemeralError::Timeout)?.ok().and_then(|table| table.clone()).ok_or(EphemeralError::Timeout)
    }
}

/// Where the node says that the slot is.
fn redirected(error: &RedisError) -> Option<Host> {
    let (address, _) = error.redirect_node()?;
    let (name, port) = address.rsplit_once(':')?;
    // Without a name it would be "where you asked"; the surveyor finds out.
    (!name.is_empty())
        .then(|| Some(Host { name: name.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? }))?
}

/// Whether the table may be the reason.
fn is_doubtful(error: &RedisError) -> bool {
    error.is_cluster_error()
        || error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}

impl Table {
    fn line(&self, slot: u16) -> Option<Arc<Line>> {
        let (_, (first, line)) = self.ranges.range(slot..).next()?;
        (*first <= slot).then(|| Arc::clone(line))
    }

    /// Each line once.
    fn lines(&self) -> impl Iterator<Item = Arc<Line>> {
        let lines: BTreeMap<_, _> = self.ranges.values().map(|(_, line)| (Arc::as_ptr(line), line)).collect();
        lines.into_values().cloned().collect::<Vec<_>>().into_iter()
    }

    fn is_whole(&self) -> bool {
        self.ranges.iter().map(|(last, (first, _))| usize::from(last - first) + 1).sum::<usize>() == usize::from(SLOTS)
    }
}

/// The lines that there are, by where they lead.
#[derive(Clone)]
struct Lines {
    manner: Manner,
    lines: Arc<Mutex<BTreeMap<Host, Arc<Line>>>>,
}

impl Lines {
    fn new(manner: Manner) -> Self {
        Self { manner, lines: Arc::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Host, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to(&self, host: &Host) -> Arc<Line> {
        let line = || Line::to(Target::Host(host.clone(), self.manner.clone()));
        Arc::clone(self.held().entry(host.clone()).or_insert_with(line))
    }

    /// The table of this map. Lines that lead to none of its masters end with the last question on them.
    fn table(&self, map: &Map) -> Table {
        let ranges = map.iter().map(|range| (range.last, (range.first, self.to(&range.master)))).collect();
        self.held().retain(|host, _| map.iter().any(|range| range.master == *host));
        Table { ranges }
    }
}

/// Slots, their master, and its replicas.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    first: u16,
    last: u16,
    master: Host,
    replicas: Vec<Host>,
}

/// All ranges, in order.
type Map = Vec<Range>;

/// Finds out who has which slots.
struct Surveyor {
    seeds: Vec<Host>,
    manner: Manner,
    /// Every node of the last map.
    known: Vec<Host>,
    round: usize,
    lines: Lines,
}

impl Surveyor {
    async fn work(mut self, table: watch::Sender<Option<Arc<Table>>>, doubt: Arc<Notify>) {
        while !table.is_closed() {
            let Some(map) = self.survey().await else {
                sleep(PAUSE).await;
                continue;
            };
            self.known =
                map.iter().flat_map(|range| std::iter::once(&range.master).chain(&range.replicas)).cloned().collect();
            self.known.sort_unstable();
            self.known.dedup();
            table.send_replace(Some(Arc::new(self.lines.table(&map))));
            sleep(PAUSE).await;
            tokio::select! {
                _ = timeout(AGE, doubt.notified()) => {}
                () = table.closed() => {}
            }
        }
    }

    /// What the nodes say; `None` when none of them says anything.
    async fn survey(&mut self) -> Option<Map> {
        let mut nodes: Vec<Host> = self.seeds.iter().chain(&self.known).cloned().collect();
        nodes.sort_unstable();
        nodes.dedup();
        // Of many, others each time.
        let from = self.round * ASKED % nodes.len().max(1);
        nodes.rotate_left(from);
        self.round = self.round.wrapping_add(1);
        let ask = |node: Host| {
            let manner = self.manner.clone();
            async move { answer(&node, &manner).await }
        };
        best(poll(nodes.into_iter().take(ASKED), PATIENCE, ask).await)
    }
}

/// Every master, and whether somebody has each slot; `None` when no node tells.
pub(super) async fn masters(seeds: Vec<Host>, manner: Manner) -> Option<(Vec<Host>, bool)> {
    let lines = Lines::new(manner.clone());
    let map = Surveyor { seeds, manner, known: Vec::new(), round: 0, lines }.survey().await?;
    let slots: usize = map.iter().map(|range| usize::from(range.last - range.first) + 1).sum();
    let mut masters: Vec<Host> = map.into_iter().map(|range| range.master).collect();
    masters.sort_unstable();
    masters.dedup();
    Some((masters, slots == usize::from(SLOTS)))
}

/// The newest epoch a node heard of, and its map.
type Answer = (u64, Map);

/// Each fail-over has a higher epoch, which a node that was cut off has not heard of; a node that has may still be a
/// moment behind, so among those the majority is right.
fn best(answers: Vec<Answer>) -> Option<Map> {
    let mut votes: BTreeMap<Answer, usize> = BTreeMap::new();
    for answer in answers {
        *votes.entry(answer).or_default() += 1;
    }
    votes.into_iter().max_by_key(|((epoch, _), count)| (*epoch, *count)).map(|((_, map), _)| map)
}

async fn answer(node: &Host, manner: &Manner) -> Result<Answer, RedisError> {
    let mut connection = connect(node, manner).await?;
    let (info, slots): (String, Vec<Vec<Value>>) =
        redis::pipe().cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
    let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:")?.trim().parse().ok());
    let mut map: Map = slots.into_iter().filter_map(|range| range_of(range, node)).collect();
    map.sort_unstable();
    if map.is_empty() {
        return Err(RedisError::from((ErrorKind::Io, "the node knows of no slots")));
    }
    Ok((epoch.unwrap_or(0), map))
}

/// `first, last, [name, port, …] of the master, [name, port, …] of each replica`. No name is "where you asked".
fn range_of(parts: Vec<Value>, asked: &Host) -> Option<Range> {
    let host = |node: Value| -> Option<Host> {
        let mut parts: std::vec::IntoIter<Value> = redis::from_redis_value::<Vec<Value>>(node).ok()?.into_iter();
        let name: Option<String> = redis::from_redis_value(parts.next()?).ok()?;
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| asked.name.clone());
        // A name that its owner has not told yet.
        let port = redis::from_redis_value(parts.next()?).ok()?;
        (name != "?").then_some(Host { name, port })
    };
    let mut parts = parts.into_iter();
    let first = redis::from_redis_value(parts.next()?).ok()?;
    let last = redis::from_redis_value(parts.next()?).ok()?;
    let master = host(parts.next()?)?;
    // In an order of their own, so that nodes that agree say the same.
    let mut replicas: Vec<Host> = parts.filter_map(host).collect();
    replicas.sort_unstable();
    (first <= last && last < SLOTS).then_some(Range { first, last, master, replicas })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16, port: u16) -> Range {
        Range { first, last, master: Host { name: "r".to_owned(), port }, replicas: Vec::new() }
    }

    #[test]
    fn the_newest_epoch_is_right_and_then_the_majority() {
        let (old, new) = (vec![range(0, 16383, 1)], vec![range(0, 16383, 2)]);
        assert_eq!(best(vec![]), None);
        assert_eq!(best(vec![(1, old.clone()), (1, old.clone()), (2, new.clone())]), Some(new.clone()));
        assert_eq!(best(vec![(2, old.clone()), (2, new.clone()), (2, new.clone())]), Some(new));
    }

    #[tokio::test]
    async fn a_slot_has_the_line_of_its_range_or_none() {
        let lines = Lines::new(Manner::default());
        let table = lines.table(&vec![range(0, 5, 1), range(10, 16383, 2)]);
        let is = |slot, port| {
            let line = lines.to(&range(0, 0, port).master);
            table.line(slot).is_some_and(|there| Arc::ptr_eq(&there, &line))
        };
        assert!(is(0, 1) && is(5, 1) && is(10, 2) && is(16383, 2));
        assert!(table.line(6).is_none() && table.line(9).is_none() && !table.is_whole());
        assert_eq!(table.lines().count(), 2);
        let whole = lines.table(&vec![range(0, 16383, 2)]);
        assert!(whole.is_whole());
        assert_eq!(lines.held().len(), 1, "the other line is given back");
    }

    #[test]
    fn a_range_is_read_as_servers_of_any_version_write_it() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |name: Value, port| Value::Array(vec![name, Value::Int(port), text("id"), Value::Array(vec![])]);
        let asked = Host { name: "asked".to_owned(), port: 1 };
        let read = |name| range_of(vec![Value::Int(0), Value::Int(9), node(name, 7)], &asked);
        assert_eq!(read(text("r")), Some(range(0, 9, 7)));
        assert_eq!(read(text("")).unwrap().master.name, "asked");
        assert_eq!(read(Value::Nil).unwrap().master.name, "asked");
        assert_eq!(read(text("?")), None);
        assert_eq!(range_of(vec![Value::Int(0), Value::Int(9)], &asked), None);
        assert_eq!(range_of(vec![Value::Int(9), Value::Int(0), node(text("r"), 7)], &asked), None);
    }
}
