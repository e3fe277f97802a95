//! Every integration test, in one binary: linking is the slow part of a build here, and one process can share what is
//! dear (the migrated template database).
//!
//! A test is written once and appears per stack: `embedded::…` (SQLite), `pg::…` (PostgreSQL alone), `pg_redis::…`
//! (PostgreSQL and Redis), `cluster::…` and `sentinel::…` (PostgreSQL and a Redis of that kind, started by the tests; what
//! has to do with sessions runs there), or `once::…` when no stack matters. A stack that was not asked for lists its tests as ignored,
//! and so does whatever else a test needs.
//! `scripts/test` asks for all of them; a bare `cargo test` runs `embedded` and `once` and needs nothing.

mod attempts;
mod backup;
mod budgets;
mod caps;
mod change_address;
mod codes;
mod commands;
mod contract;
mod cookies;
mod courier;
mod deploy;
mod docs;
mod doctor;
mod failover;
mod faults;
mod house;
mod http;
mod http2;
mod keys;
mod limits;
mod login;
mod logout;
mod logs;
mod mail;
mod me;
mod metrics;
mod migrations;
mod nodes;
mod notices;
mod outbox;
mod password;
mod process;
mod profile;
mod recent;
mod refresh;
mod register;
mod releases;
mod required;
mod reset;
mod rotation;
mod rules;
mod sessions;
mod settings;
mod smtp;
mod sockets;
mod support;
mod systemd;
mod tls;
mod tokens;
mod topologies;
mod traces;
mod upgrades;
mod user_cli;
mod verification;

use std::{process::ExitCode, time::Duration};

use libtest_mimic::{Arguments, Trial};
use support::{Stack, StackKind, Test};

/// No test takes so long; one that does hangs, and says so instead of holding the run.
fn limit() -> Duration {
    Duration::from_secs(if support::scale::is_soak() { 1800 } else { 180 })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most tests wait for a database, a mail server or a clock rather than for a core.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    arguments.test_threads = arguments.test_threads.or(Some(3 * cores));
    let tests = [
        attempts::tests(),
        backup::tests(),
        budgets::tests(),
        caps::tests(),
        commands::tests(),
        change_address::tests(),
        codes::tests(),
        contract::tests(),
        cookies::tests(),
        courier::tests(),
        deploy::tests(),
        docs::tests(),
        doctor::tests(),
        failover::tests(),
        faults::tests(),
        house::tests(),
        http::tests(),
        http2::tests(),
        keys::tests(),
        limits::tests(),
        login::tests(),
        logout::tests(),
        logs::tests(),
        mail::tests(),
        me::tests(),
        metrics::tests(),
        migrations::tests(),
        nodes::tests(),
        notices::tests(),
        outbox::tests(),
        password::tests(),
        process::tests(),
        profile::tests(),
        recent::tests(),
        refresh::tests(),
        register::tests(),
        releases::tests(),
        required::tests(),
        reset::tests(),
        rotation::tests(),
        rules::tests(),
        sessions::tests(),
        settings::tests(),
        smtp::tests(),
        sockets::tests(),
        systemd::tests(),
        tls::tests(),
        tokens::tests(),
        topologies::tests(),
        traces::tests(),
        upgrades::tests(),
        user_cli::tests(),
        verification::tests(),
    ];
    let trials = tests.into_iter().flatten().flat_map(trials).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        support::report();
    }
    support::clean_up();
    conclusion.exit_code()
}

fn trials(test: Test) -> Vec<Trial> {
    match test {
        Test::Once(name, run) => vec![Trial::test(format!("once::{name}"), move || {
            support::counted("once", || {
                run();
                Ok(())
            })
        })],
        Test::PerStack(name, wanted, need, run) => StackKind::EVERY
            .into_iter()
            .filter(|kind| wanted.contains(kind))
            .map(|kind| {
                let name = format!("{}::{name}", kind.name());
                Trial::ignorable_test(name, move || {
                    if let Some(missing) = kind.missing().or_else(need) {
                        return Ok(libtest_mimic::Completion::ignored_with(missing));
                    }
                    support::counted(kind.name(), || {
                        let runtime =
                            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                        let outcome =
                            runtime.block_on(async { tokio::time::timeout(limit(), run(Stack::new(kind))).await });
                        runtime.shutdown_background();
                        outcome.map_err(|_| "the test did not end in time".into())
                    })?;
                    Ok(libtest_mimic::Completion::Completed)
                })
            })
            .collect(),
    }
}
