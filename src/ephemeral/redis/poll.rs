//! Asking several servers the same at once, of which some may be silent.

use std::time::Duration;

use redis::RedisError;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::url::Host;

/// How long the others are waited for when one has answered.
const COURTESY: Duration = Duration::from_millis(200);

/// What `ask` comes to with each of `hosts`, as far as they answer within `patience`, and not long after the first.
pub(super) async fn poll<T, F>(
    hosts: impl IntoIterator<Item = Host>,
    patience: Duration,
    ask: impl Fn(Host) -> F,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, RedisError>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for host in hosts {
        let (name, answer) = (host.to_string(), ask(host));
        asked.spawn(async move {
            let answer = timeout(patience, answer).await.ok()?;
            answer.inspect_err(|error| tracing::debug!(%error, "{name} does not tell where Redis is")).ok()
        });
    }
    let mut answers = Vec::new();
    let mut deadline = Instant::now() + patience;
    while let Ok(Some(answer)) = timeout_at(deadline, asked.join_next()).await {
        if let Ok(Some(answer)) = answer {
            answers.push(answer);
            deadline = deadline.min(Instant::now() + COURTESY);
        }
    }
    answers
}
