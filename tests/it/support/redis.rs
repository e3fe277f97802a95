//! Redis servers of our own: one, a Cluster, or a pair that Sentinels watch over. Each can be killed, stopped and woken.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use redis::{ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, aio::MultiplexedConnection};
use tempfile::TempDir;

/// The password of every server here; whoever does not decode a URL does not get in.
pub const REDIS_PASSWORD: &str = "p@s:s/w?r#d %41";
/// And that of Sentinels.
const SENTINEL_PASSWORD: &str = "s&nti=nel+1%";
/// In options: the port behind the server's own.
const NEXT_PORT: &str = "{next port}";
/// What Sentinels call the master.
const MASTER: &str = "lk-master";

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

static BINARY: LazyLock<Option<&'static str>> = LazyLock::new(|| {
    ["redis-server", "valkey-server"].into_iter().find(|name| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    })
});

/// What is not there for tests that start servers of their own. Where CI is true nothing may be missing, so they run,
/// and fail.
#[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
pub fn redis_missing() -> Option<&'static str> {
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    (BINARY.is_none() && !is_ci).then_some("there is no redis-server on the PATH")
}

/// One server with a folder of its own. It ends with this value, and with this process however that ends.
pub struct RedisServer {
    pub port: u16,
    /// Begins to listen anew with the same.
    arguments: Vec<String>,
    /// A shell that ends the server when its input ends, as it does when we are gone.
    shell: Child,
    id: String,
    /// Sentinel's answers need another password.
    password: Option<&'static str>,
    pub dir: TempDir,
}

impl RedisServer {
    /// A server with a password and these options.
    pub async fn start(options: &[&str]) -> Self {
        let password = ["--requirepass", REDIS_PASSWORD, "--masterauth", REDIS_PASSWORD];
        Self::start_as(&[&password[..], options].concat(), Some(REDIS_PASSWORD)).await
    }

    /// A server with nothing but these options.
    pub async fn bare(options: &[&str]) -> Self {
        Self::start_as(options, None).await
    }

    /// A bare server that speaks TLS too, at [`RedisServer::tls_port`].
    pub async fn with_tls(certificate: &str, key: &str, options: &[&str]) -> Self {
        let tls = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no"];
        Self::bare(&[&tls[..], &["--tls-port", NEXT_PORT], options].concat()).await
    }

    pub fn tls_port(&self) -> u16 {
        self.port + 1
    }

    async fn start_as(options: &[&str], password: Option<&'static str>) -> Self {
        // Somebody may take the port between the look and the bind.
        let mut said = String::new();
        for _ in 0..5 {
            let dir = TempDir::new().unwrap();
            let port = free_port();
            let (number, folder) = (port.to_string(), dir.path().display().to_string());
            let ours = ["--port", &number, "--bind", "127.0.0.1", "--dir", &folder, "--logfile", "log", "--save", ""];
            let more = ["--appendonly", "no", "--repl-diskless-sync-delay", "0", "--daemonize", "no"];
            let all = ours.iter().chain(&more).chain(options);
            let next = (port + 1).to_string();
            let arguments = all.map(|&text| if text == NEXT_PORT { next.clone() } else { text.to_owned() }).collect();
            match Self::run(arguments, port, dir, password).await {
                Ok(server) => return server,
                Err(log) => said = log,
            }
        }
        panic!("no Redis server starts; the last one said:\n{said}")
    }

    /// The server, or what it said before it ended.
    async fn run(
        arguments: Vec<String>,
        port: u16,
        dir: TempDir,
        password: Option<&'static str>,
    ) -> Result<Self, String> {
        let (shell, id) = spawn(&arguments);
        let server = Self { port, arguments, shell, id, password, dir };
        if server.is_there().await { Ok(server) } else { Err(server.log()) }
    }

    /// Waits until it answers; `false` when it ended instead.
    async fn is_there(&self) -> bool {
        for _ in 0..200 {
            if self.try_connect().await.is_some() {
                return true;
            }
            if !is_alive(&self.id) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("a Redis server does not answer; it said:\n{}", self.log())
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        let mut settings = RedisConnectionInfo::default();
        if let Some(password) = self.password {
            settings = settings.set_password(password);
        }
        let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), self.port);
        let info = address.into_connection_info().unwrap().set_redis_settings(settings);
        let connect = async {
            let mut connection = redis::Client::open(info).ok()?.get_multiplexed_async_connection().await.ok()?;
            let pong = redis::cmd("PING").query_async::<String>(&mut connection).await;
            (pong.ok()? == "PONG").then_some(connection)
        };
        tokio::time::timeout(Duration::from_secs(1), connect).await.ok().flatten()
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.unwrap_or_else(|| panic!("the Redis server is away; it said:\n{}", self.log()))
    }

    /// Runs one command, given in words.
    pub async fn run_command<T: FromRedisValue>(&self, words: &str) -> T {
        let mut parts = words.split(' ');
        let mut command = redis::cmd(parts.next().unwrap());
        command.arg(parts.collect::<Vec<_>>());
        command.query_async(&mut self.connect().await).await.unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    /// A field of INFO.
    pub async fn info(&self, field: &str) -> String {
        let info: String = self.run_command("INFO").await;
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field}")).trim().to_owned()
    }

    /// Whether it says itself that it is a master. A server that is away is none.
    pub async fn is_master(&self) -> bool {
        let Some(mut connection) = self.try_connect().await else { return false };
        let role = redis::cmd("ROLE").query_async::<Vec<redis::Value>>(&mut connection).await;
        role.is_ok_and(|role| role.first() == Some(&redis::Value::BulkString(b"master".to_vec())))
    }

    /// `kill -9`.
    pub fn kill(&self) {
        signal("KILL", &self.id);
        while is_alive(&self.id) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// It keeps its sockets and says nothing any more.
    pub fn freeze(&self) {
        signal("STOP", &self.id);
    }

    pub fn thaw(&self) {
        signal("CONT", &self.id);
    }

    /// Starts again at the same port, after [`RedisServer::kill`].
    pub async fn restart(&mut self) {
        let (shell, id) = spawn(&self.arguments);
        let mut old = std::mem::replace(&mut self.shell, shell);
        self.id = id;
        end(&mut old);
        assert!(self.is_there().await, "the Redis server does not start again:\n{}", self.log());
    }

    /// `redis://` with the password.
    pub fn url(&self) -> String {
        match self.password {
            Some(password) => format!("redis://:{}@127.0.0.1:{}/", encoded(password), self.port),
            None => format!("redis://127.0.0.1:{}/", self.port),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}

/// The server of these arguments in the background of a shell, and its process id.
fn spawn(arguments: &[String]) -> (Child, String) {
    let binary = BINARY.expect("a redis-server on the PATH; CI is true, so it must be there");
    // What a terminal or a runner sends to all of us must not end the shell before its server.
    let script = r#"trap '' INT TERM HUP; "$@" >/dev/null 2>&1 & echo $!; cat >/dev/null; kill -KILL $!"#;
    let mut shell = Command::new("sh")
        .args(["-c", script, "sh", binary])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let mut id = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut id).unwrap();
    (shell, id.trim().to_owned())
}

fn end(shell: &mut Child) {
    drop(shell.stdin.take());
    let _ = shell.wait();
}

fn signal(name: &str, id: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), id]).stderr(Stdio::null()).status();
}

/// A process that ended and was not waited for is none.
fn is_alive(id: &str) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", id]).output().expect("ps");
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// Below the ports that outgoing connections get, with that of the Cluster bus (ten thousand above) and the next one.
fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(u16::try_from(std::process::id() * 131 % 4000).unwrap() * 2));
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = 10_500 + NEXT.fetch_add(2, Ordering::SeqCst) % 8000;
        if is_free(port) && is_free(port + 1) && is_free(port + 10_000) {
            return port;
        }
    }
}

/// Waits for something of servers that talk to each other.
async fn until<F: Future<Output = bool>>(what: &str, probe: impl Fn() -> F) {
    for _ in 0..600 {
        if probe().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within thirty seconds: {what}");
}

/// Three masters with a third of the slots each, then, if wanted, a replica of each in the same order.
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// The masters alone. A node that is slow stays in: nobody else's test should see a fail-over.
    pub async fn of_masters() -> Self {
        Self::start(3, "30000").await
    }

    /// With replicas, and quick to replace a master.
    pub async fn with_replicas() -> Self {
        Self::start(6, "1500").await
    }

    async fn start(count: usize, timeout: &str) -> Self {
        let options =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", timeout, "--cluster-announce-ip", "127.0.0.1"];
        // People in the slots of other masters are served while one is away.
        let more = ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"];
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(RedisServer::start(&[&options[..], &more[..]].concat()).await);
        }
        let slots = ["0 5460", "5461 10922", "10923 16383"];
        for (number, node) in nodes.iter().enumerate() {
            let () = node.run_command(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
            if let Some(slots) = slots.get(number) {
                let () = node.run_command(&format!("CLUSTER ADDSLOTSRANGE {slots}")).await;
            }
        }
        for node in &nodes[1..] {
            let () = node.run_command(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port)).await;
        }
        let cluster = Self { nodes };
        until("all nodes know each other", || cluster.agrees(count)).await;
        for (replica, master) in cluster.nodes[3.min(count)..].iter().zip(&cluster.nodes) {
            let id: String = master.run_command("CLUSTER MYID").await;
            let () = replica.run_command(&format!("CLUSTER REPLICATE {id}")).await;
        }
        for replica in &cluster.nodes[3.min(count)..] {
            until("the replica follows", || async {
                !replica.is_master().await && replica.info("master_link_status").await == "up"
            })
            .await;
        }
        if count > 3 {
            until("all nodes know the replicas", || cluster.knows_replicas()).await;
        }
        cluster
    }

    async fn agrees(&self, count: usize) -> bool {
        for node in &self.nodes {
            let info: String = node.run_command("CLUSTER INFO").await;
            let has = |line: &str| info.lines().any(|known| known.trim() == line);
            if !has("cluster_state:ok") || !has(&format!("cluster_known_nodes:{count}")) || !has("cluster_size:3") {
                return false;
            }
        }
        true
    }

    async fn knows_replicas(&self) -> bool {
        for node in &self.nodes {
            let nodes: String = node.run_command("CLUSTER NODES").await;
            if nodes.lines().filter(|line| line.contains("slave")).count() != 3 {
                return false;
            }
        }
        true
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().take(2).map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://:{}@{}", encoded(REDIS_PASSWORD), hosts.join(","))
    }

    /// The node that has this key.
    pub async fn owner(&self, key: &str) -> usize {
        let slot: u16 = self.nodes[0].run_command(&format!("CLUSTER KEYSLOT {key}")).await;
        [5460, 10922, 16383].iter().position(|&last| slot <= last).unwrap()
    }
}

/// A master, its replica, and three Sentinels.
pub struct SentinelSet {
    /// The first one is the master at the beginning.
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl SentinelSet {
    /// Nobody else's test should see a fail-over.
    pub async fn calm() -> Self {
        Self::start("60000").await
    }

    /// Quick to replace the master.
    pub async fn quick() -> Self {
        Self::start("1000").await
    }

    async fn start(down_after: &str) -> Self {
        let master = RedisServer::start(&[]).await;
        let of = format!("127.0.0.1 {}", master.port);
        let replica = RedisServer::start(&["--replicaof", &of]).await;
        until("the replica follows", || async { replica.info("master_link_status").await == "up" }).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(sentinel(&of, down_after).await);
        }
        let set = Self { servers: vec![master, replica], sentinels };
        until("the Sentinels know each other and the replica", || set.agrees()).await;
        set
    }

    async fn agrees(&self) -> bool {
        for sentinel in &self.sentinels {
            let state: std::collections::BTreeMap<String, String> =
                sentinel.run_command(&format!("SENTINEL MASTER {MASTER}")).await;
            if state["num-other-sentinels"] != "2" || state["num-slaves"] != "1" {
                return false;
            }
        }
        true
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        let (password, own) = (encoded(REDIS_PASSWORD), encoded(SENTINEL_PASSWORD));
        format!("redis-sentinel://:{password}@{}/{MASTER}?sentinel_password={own}", hosts.join(","))
    }

    /// Tells every Sentinel that this is the master.
    pub async fn point_at(&self, server: &RedisServer) {
        for sentinel in &self.sentinels {
            let () = sentinel.run_command(&format!("SENTINEL REMOVE {MASTER}")).await;
            let () = sentinel.run_command(&format!("SENTINEL MONITOR {MASTER} 127.0.0.1 {} 2", server.port)).await;
        }
    }
}

/// A URL as of a [`SentinelSet`] with other Sentinels.
pub fn sentinel_url(hosts: &str) -> String {
    format!(
        "redis-sentinel://:{}@{hosts}/{MASTER}?sentinel_password={}",
        encoded(REDIS_PASSWORD),
        encoded(SENTINEL_PASSWORD)
    )
}

/// A Sentinel of the master at `of`.
pub async fn sentinel(of: &str, down_after: &str) -> RedisServer {
    for _ in 0..5 {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let file = dir.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.path().display()),
            "logfile log".to_owned(),
            format!("requirepass \"{SENTINEL_PASSWORD}\""),
            format!("sentinel monitor {MASTER} {of} 2"),
            format!("sentinel auth-pass {MASTER} \"{REDIS_PASSWORD}\""),
            format!("sentinel down-after-milliseconds {MASTER} {down_after}"),
            format!("sentinel failover-timeout {MASTER} 5000"),
        ];
        std::fs::write(&file, lines.join("\n")).unwrap();
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        if let Ok(server) = RedisServer::run(arguments, port, dir, Some(SENTINEL_PASSWORD)).await {
            return server;
        }
    }
    panic!("no Sentinel starts")
}
