//! The commands. `latchkey` alone is `latchkey serve`.
//!
//! Exit codes: 0 fine, 1 failed, 2 bad usage or settings.

mod backup;
mod complete;
mod doctor;
mod hash;
mod health;
mod keys;
mod mail;
mod renewal;
mod systemd;
mod user;

use std::{io, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::systemd::Handed;

use crate::{
    ambient::Ambient,
    app::{self, App, StartError, open_database},
    config::{self, Config, Given, Provisions},
    http::{Certificates, Gate, nothing_left, serve, serve_tls},
    telemetry,
};

const BAD_SETTINGS: u8 = 2;
/// How long a stop waits for mails that are on their way: a delivery gives up after ten seconds.
const COURIER_PATIENCE: Duration = Duration::from_secs(15);
/// The same for work whose client hung up: as long as a wait for a hash and a transaction.
const LEFT_PATIENCE: Duration = Duration::from_secs(10);

/// A self-contained auth server.
///
/// Settings come from the environment and from a `.env` file in the working directory; with none at all Latchkey runs on
/// an embedded database in ./data. `.env.example` lists every setting, `latchkey config check` shows what is in effect.
#[derive(Debug, Parser)]
#[command(name = "latchkey", version, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default)
    Serve,
    /// Bring the database schema up to date and exit
    Migrate,
    /// Signing keys and the server secret
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Mails that wait, went, or were given up
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// People: make accounts, find, disable and enable them
    #[command(subcommand)]
    User(user::UserCommand),
    /// The settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check everything that a server needs, and say how to mend what is wrong
    Doctor(doctor::DoctorCommand),
    /// Ask the server on this machine whether it serves; exit code 0 or 1, within three seconds
    Health(health::HealthCommand),
    /// The cost of password hashes
    #[command(subcommand)]
    Hash(hash::HashCommand),
    /// Copy the embedded database into a file, while a server uses it
    ///
    /// The file is whole and examined when it has its name. Private keys and the server secret are not in it, and a
    /// restore needs none. With PostgreSQL, `pg_dump` does this; deploy/backup.md says how.
    Backup(backup::BackupCommand),
    /// Put a backup into the place of the database; the server must not run
    ///
    /// What was revoked after the backup does not live again: every session, code and device token ends, and new keys
    /// sign. The database that was there is kept under another name. A backup of an older Latchkey is brought up to
    /// date.
    Restore(backup::RestoreCommand),
    /// Print the completions of a shell
    ///
    /// bash: latchkey completions bash >/etc/bash_completion.d/latchkey
    /// zsh: latchkey completions zsh >"${fpath[1]}/_latchkey"
    /// fish: latchkey completions fish >~/.config/fish/completions/latchkey.fish
    #[command(verbatim_doc_comment)]
    #[expect(rustdoc::broken_intra_doc_links, reason = "zsh's brackets, in a text for terminals")]
    Completions {
        /// Which shell
        shell: complete::Shell,
    },
    /// Print the API document (OpenAPI 3.1)
    Openapi,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show the effective settings, secrets redacted, and every fault
    Check,
}

/// What can be asked for, as the manual pages and the completions of shells are made from it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    // Whatever is made is for this user alone, also in a folder that others can look into.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    if let Command::Completions { shell } = command {
        return ended(complete::print(shell));
    }
    let given = match Given::from_process() {
        Ok(given) => given,
        Err(faults) => return bad_settings(&faults),
    };
    let settings = match command {
        Command::Serve | Command::Config(ConfigCommand::Check) => Config::for_server(&given),
        // Whoever runs these need not be able to read the key of the certificate.
        _ => Config::from_given(&given).map(|config| (config, Provisions::default())),
    };
    if let Command::Config(ConfigCommand::Check) = command {
        return check(&given, settings);
    }
    let (config, provisions) = match settings {
        Ok(settings) => settings,
        Err(faults) => return bad_settings(&faults),
    };
    let handed = match Handed::take(&provisions) {
        Ok(handed) => handed,
        Err(error) => return failed(error.as_ref()),
    };
    match &command {
        Command::Openapi => {
            println!("{:#}", app::api_document(config.public_url.as_str()));
            return ExitCode::SUCCESS;
        }
        Command::Health(command) => return ended(health::run(&config, command)),
        // It tells of what it finds in its own words, so nothing is logged.
        Command::Doctor(_) => {}
        _ => telemetry::start(&config, matches!(command, Command::Serve)),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let outcome = runtime.block_on(perform(config, provisions, handed, command));
    // Nobody waits for a hash that is still under way.
    runtime.shutdown_background();
    telemetry::flush();
    ended(outcome)
}

async fn perform(config: Config, provisions: Provisions, handed: Handed, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve => run_server(config, provisions, handed).await,
        Command::Migrate => migrate(&config).await,
        Command::Keys(command) => keys::run(&config, command).await,
        Command::Mail(command) => mail::run(&config, command).await,
        Command::User(command) => user::run(&config, command).await,
        Command::Doctor(command) => doctor::run(config, command).await,
        Command::Hash(command) => hash::run(&config, command).await,
        Command::Backup(command) => backup::take(&config, command).await,
        Command::Restore(command) => backup::restore(&config, command).await,
        Command::Config(ConfigCommand::Check) | Command::Openapi | Command::Health(_) | Command::Completions { .. } => {
            Ok(())
        }
    }
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error.as_ref()),
    }
}

fn bad_settings(faults: &config::Faults) -> ExitCode {
    eprintln!("latchkey: {faults}");
    ExitCode::from(BAD_SETTINGS)
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprint!("latchkey: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

fn check(given: &Given, settings: Result<(Config, Provisions), config::Faults>) -> ExitCode {
    for (name, value) in config::effective(given) {
        println!("{name}={value}");
    }
    match settings {
        Ok((config, provisions)) => {
            let now = Ambient::system().now();
            for warning in config.warnings().into_iter().chain(provisions.warnings(&config, now)) {
                eprintln!("warning: {warning}");
            }
            ExitCode::SUCCESS
        }
        Err(faults) => bad_settings(&faults),
    }
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    // On an embedded database nobody swaps the program under a server, so whoever asks for this took it for stopped.
    let _lock = app::lock(config, std::fs::File::try_lock_shared).map_err(|error| match error {
        StartError::Locked(dir) => anyhow::anyhow!(
            "a Latchkey server is running on {dir}: stop it first; it brings the schema up to date when it starts again"
        ),
        error => error.into(),
    })?;
    let db = open_database(config).await?;
    db.migrate().await?;
    db.close().await;
    println!("The database schema is up to date.");
    Ok(())
}

async fn run_server(config: Config, provisions: Provisions, handed: Handed) -> anyhow::Result<()> {
    app::warm_up();
    let ambient = Ambient::system();
    for warning in config.warnings().into_iter().chain(provisions.warnings(&config, ambient.now())) {
        tracing::warn!("{warning}");
    }
    raise_file_limit(config.limits.connections);
    let exporting = telemetry::export(&config);
    // From here on they do not end the process by themselves.
    let hangups = signal(SignalKind::hangup())?;
    let mut stops = std::pin::pin!(stop_asked()?);
    let app = tokio::select! {
        app = App::build(config, ambient) => app?,
        // Somebody else's migration may be waited for here for minutes.
        () = &mut stops => return Ok(()),
    };
    let config = &app.config;
    let (stop, stopped) = watch::channel(false);
    // Both sockets before either serves: a port that is taken is found before anybody is answered.
    let public = listen(handed.public, "LATCHKEY_LISTEN", config.listen).await?;
    let internal = match (handed.internal, config.internal_listen) {
        (None, None) => None,
        // The address is of no matter when a socket was handed over.
        (handed, address) => Some(listen(handed, "LATCHKEY_INTERNAL_LISTEN", address.unwrap_or(config.listen)).await?),
    };
    let gate = Gate::new(config.limits.connections, config.proxies.clone(), app.refusals.clone());
    let certificates = config.tls.clone().zip(provisions.tls).map(|(files, pair)| Certificates::new(files, pair));
    let public = match &certificates {
        Some(certificates) => serve_tls(public, app.router(), gate, certificates.clone(), stopped)?,
        None => serve(public, app.router(), gate, stopped)?,
    };
    let internal = match internal {
        // The probes' listener stays until the public one is drained.
        Some(listener) => {
            let (stop, stopped) = watch::channel(false);
            Some((stop, serve(listener, app.internal_router(), Gate::default(), stopped)?))
        }
        None => None,
    };
    let courier = app.spawn_jobs();
    tokio::spawn(renewal::run(app.clone(), certificates, hangups));
    greet(&app, public.address, internal.as_ref().map(|(_, serving)| serving.address));
    let notify = provisions.notify.as_deref();
    systemd::tell(notify, systemd::READY);

    stops.await;
    tracing::info!("stopping: no new connections, running requests have 30 s");
    systemd::tell(notify, systemd::STOPPING);
    app.begin_stop();
    for (stop, serving) in std::iter::once((stop, public)).chain(internal) {
        let _ = stop.send(true);
        serving.drained().await;
    }
    if tokio::time::timeout(LEFT_PATIENCE, nothing_left()).await.is_err() {
        tracing::warn!("work whose clients had hung up did not end in time and was cut off");
    }
    if tokio::time::timeout(COURIER_PATIENCE, courier).await.is_err() {
        tracing::warn!("a mail was still on its way; it may be sent again after the next start");
    }
    app.db.close().await;
    if let Some(exporting) = exporting {
        exporting.stop().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// The socket that was handed over, else one of our own.
async fn listen(
    handed: Option<std::net::TcpListener>,
    name: &str,
    address: std::net::SocketAddr,
) -> anyhow::Result<TcpListener> {
    if let Some(listener) = handed {
        return Ok(TcpListener::from_std(listener)?);
    }
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!("cannot listen on {address}: {error}; free the port or set {name} to another one")
    })
}

/// Takes as many file descriptors as this process may have: the usual soft limit of 1024 is one client's connections.
fn raise_file_limit(most_of_one: Option<usize>) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let granted = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let most_of_one = most_of_one.and_then(|most| u64::try_from(most).ok());
    if granted.zip(most_of_one).is_some_and(|(granted, most)| most >= granted) {
        tracing::warn!(
            granted,
            "one address may take every file descriptor: lower LATCHKEY_MAX_CONNECTIONS_PER_ADDRESS or raise `ulimit -n`"
        );
    }
}

/// Says where everything is: as text on a terminal, as one log line in a pipe.
fn greet(app: &App, public: std::net::SocketAddr, internal: Option<std::net::SocketAddr>) {
    let config = &app.config;
    let data = match (&config.database_url, config.data_dir.join("latchkey.db")) {
        (Some(_), _) => "PostgreSQL (DATABASE_URL)".to_owned(),
        (None, path) => format!("SQLite in {}", path.display()),
    };
    let sessions = if config.redis_url.is_some() { "Redis (REDIS_URL)" } else { "the same database" };
    let mail = match &config.smtp {
        Some(server) => format!("by {}:{} (SMTP_URL)", server.host, server.port),
        None => format!("files in {}", config.data_dir.join("mail").display()),
    };
    let internal = internal.map_or_else(|| "off".to_owned(), |address| format!("http://{address}"));
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", connectable(public));
    let keys = config.jwt_dir.display().to_string();
    let register = format!(
        "curl -s {base}/register -H 'content-type: application/json' \
         -d '{{\"email\":\"alice@example.com\",\"password\":\"correct horse battery\"}}'"
    );
    let login = format!(
        "TOKEN=$(curl -s {base}/login -H 'content-type: application/json' \
         -d '{{\"email\":\"alice@example.com\",\"password\":\"correct horse battery\"}}' \
         | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')"
    );
    let me = format!("curl -s {base}/me -H \"authorization: Bearer $TOKEN\"");
    if !telemetry::is_pretty(config.log) {
        tracing::info!(listen = base, internal, data, sessions, keys, mail, register, login, me, "listening");
        return;
    }
    println!(
        "\nLatchkey {} listens on {base}\n\n\
         \x20 internal   {internal}   (/health/live, /health/ready)\n\
         \x20 data       {data}\n\
         \x20 sessions   {sessions}\n\
         \x20 keys       {keys}\n\
         \x20 mail       {mail}\n\n\
         Try next:\n\n  {register}\n\n  {login}\n\n  {me}\n",
        env!("CARGO_PKG_VERSION"),
    );
}

/// An address that a client on this machine can connect to.
fn connectable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let mut address = address;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Ready when SIGTERM or SIGINT came.
fn stop_asked() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
