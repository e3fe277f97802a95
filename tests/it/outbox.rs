//! The outbox and its worker: nothing is lost and nothing sent twice, whatever is away or dies, with as many workers as
//! there are; operators see what was given up and can have it tried again.

use std::{collections::BTreeSet, path::Path, process::Output, sync::atomic::Ordering, time::Duration};

use axum::http::Method;
use latchkey::{
    ambient::Ambient,
    mail::outbox::{self, Listed, Outcome},
    verification::courier,
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::{task::JoinSet, time::timeout};
use uuid::Uuid;

use crate::{
    faults::behind_with,
    smtp::{mailing, register, row, set},
    support::{Mode, Mood, PASSWORD, Process, Sink, Stack, StackKind, Test, TestApp, eventually, json_body, scale},
};

pub fn tests() -> Vec<Test> {
    let mut tests = crate::on_stacks!(&StackKind::ALL;
        a_mail_server_that_was_away_costs_no_mail_and_makes_none_twice,
        what_was_given_up_after_a_day_is_listed_and_can_be_tried_again,
        the_row_of_a_worker_that_died_comes_up_again_within_a_minute,
        workers_at_once_claim_different_rows,
        a_code_that_comes_a_day_late_is_not_mailed,
        what_waits_can_be_tried_at_once,
        a_finished_row_is_kept_for_a_while,
        a_mail_leaves_by_itself_and_survives_a_stop,
        a_mail_survives_a_kill_in_the_middle_of_it,
    );
    tests.extend(crate::on_stacks!(&StackKind::SHARED;
        rounds_of_two_nodes_send_each_mail_once,
        a_claim_waits_for_no_other,
        a_worker_takes_no_more_than_it_asks_for,
        the_worker_recovers_from_a_database_that_was_away,
        an_outcome_is_written_down_though_the_database_was_away,
    ));
    tests.extend(crate::on_stacks!(&StackKind::REDIS; codes_wait_for_redis_and_notices_do_not));
    tests
}

/// How many rows are in this state.
async fn count(app: &TestApp, state: &str) -> i64 {
    app.number(&format!("SELECT COUNT(*) FROM outbox WHERE state = '{state}'")).await
}

fn names(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{prefix}{number}"))
}

/// Moves the clock of the app to where that of a process stands, and so much further.
fn catch_up(app: &TestApp, and: Duration) {
    app.clock.store(Ambient::system().now().after(and).millis(), Ordering::SeqCst);
}

// --- nothing lost, nothing twice ---------------------------------------------

async fn a_mail_server_that_was_away_costs_no_mail_and_makes_none_twice(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    sink.set(Mood::Closed);
    for round in 0..20 {
        register(&app, [format!("person{round}")]).await;
        app.deliver().await;
        app.pass(Duration::from_secs(30));
    }
    assert_eq!((count(&app, "pending").await, sink.mails().len()), (20, 0));
    sink.set(Mood::Accept);
    // The longest wait.
    app.pass(Duration::from_secs(5 * 60));
    app.deliver().await;
    let mails = sink.mails();
    let to: BTreeSet<_> = mails.iter().flat_map(|mail| mail.to.clone()).collect();
    let ids: BTreeSet<_> = mails.iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!((mails.len(), to.len(), ids.len(), count(&app, "sent").await), (20, 20, 20, 20));
    app.pass(Duration::from_secs(60 * 60));
    app.deliver().await;
    assert_eq!(sink.mails().len(), 20);
}

/// `latchkey mail …` beside the server.
fn mail_command(dir: &Path, settings: &[(String, String)], arguments: &[&str]) -> Output {
    Process::command(dir, settings).arg("mail").args(arguments).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn what_was_given_up_after_a_day_is_listed_and_can_be_tried_again(stack: Stack) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    // So that a day later it is as late here as for the commands.
    app.clock.store(Ambient::system().now().before(DAY).millis(), Ordering::SeqCst);
    let alice = app.person("alice").await;
    let change = json_body(&json!({"current_password": PASSWORD, "new_password": "another good one"}));
    let bearer = alice.client.bearer(&alice.access).with("content-type", "application/json");
    bearer.send(Method::PUT, "/me/password", change).await.is(204);
    sink.set(Mood::Temporary);
    app.deliver().await;
    app.pass(DAY - Duration::from_secs(1));
    app.deliver().await;
    assert_eq!(count(&app, "pending").await, 2, "a second before the day is over");
    app.pass(Duration::from_secs(5 * 60));
    app.deliver().await;
    assert_eq!(count(&app, "dead").await, 2, "a code, for which nobody waits any more, and a notice");
    app.pass(DAY);
    app.deliver().await;
    assert_eq!(count(&app, "dead").await, 2);

    let mail = |arguments: &[&str]| mail_command(stack.dir.path(), &app.settings, arguments);
    let listed = lines(&mail(&["list"]));
    assert_eq!(listed, lines(&mail(&["list", "--state", "dead"])));
    assert_eq!(lines(&mail(&["list", "--state", "sent"])), [] as [Value; 0]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    for line in &listed {
        assert_eq!((&line["state"], &line["recipient"]), (&json!("dead"), &json!("alice@example.com")), "{line}");
        assert!(line["created_at"].is_string() && line["attempts"].as_i64() >= Some(3), "{line}");
    }
    let notice = listed.iter().find(|line| line["kind"] == "password_changed").expect("the notice");
    assert!(notice["last_error"].as_str().is_some_and(|error| error.contains("451")), "{notice}");
    assert_eq!(listed.iter().filter(|line| line["kind"] == "verify_address").count(), 1);

    for (arguments, code) in [
        (&["retry", "00000000-0000-7000-8000-000000000000"][..], 1),
        (&["retry"], 2),
        (&["retry", "x"], 2),
        (&["list", "--state", "lost"], 2),
    ] {
        let ended = mail(arguments);
        assert_eq!((ended.status.code(), ended.stderr.is_empty()), (Some(code), false), "{ended:?}");
    }
    assert_eq!(count(&app, "dead").await, 2);

    sink.set(Mood::Accept);
    let before = Ambient::system().now();
    assert!(mail(&["retry", notice["id"].as_str().unwrap()]).status.success());
    catch_up(&app, Duration::from_secs(1));
    app.deliver().await;
    assert_eq!((count(&app, "sent").await, count(&app, "dead").await, sink.mails().len()), (1, 1, 1));
    assert!(mail(&["retry", "--all"]).status.success());
    assert_eq!(count(&app, "pending").await, 1);
    // The act was a day ago and its mail says so; only the day for trying begins anew.
    assert!(row(&app).await.created_at < before);
    let begun = format!("SELECT COUNT(*) FROM outbox WHERE retried_at >= {}", before.millis());
    assert_eq!(app.number(&begun).await, 2);
    catch_up(&app, Duration::from_secs(1));
    app.deliver().await;
    let [first, second] = sink.mails().try_into().expect("both, once");
    assert!(first.text().contains("was changed") && second.code().is_some());
    assert_eq!(count(&app, "sent").await, 2);
    assert_eq!(mail(&["retry", notice["id"].as_str().unwrap()]).status.code(), Some(1), "what was sent stays so");
    catch_up(&app, Duration::from_secs(60 * 60));
    register(&app, ["bob".to_owned()]).await;
    app.deliver().await;
    assert_eq!(sink.mails().len(), 3, "the new one, and none of the old ones again");
}

async fn a_code_that_comes_a_day_late_is_not_mailed(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    register(&app, ["alice".to_owned()]).await;
    app.pass(Duration::from_secs(24 * 60 * 60));
    app.deliver().await;
    assert_eq!((count(&app, "dead").await, sink.mails().len()), (1, 0));
}

async fn what_waits_can_be_tried_at_once(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    register(&app, names("person", 2)).await;
    sink.set(Mood::Closed);
    app.deliver().await;
    sink.set(Mood::Accept);
    app.deliver().await;
    assert_eq!(sink.mails().len(), 0, "not before their time");
    let now = app.ambient.now();
    assert_eq!(outbox::retry(&app.db, now, Some(row(&app).await.id)).await.unwrap(), 1);
    app.deliver().await;
    assert_eq!((sink.mails().len(), sink.mails()[0].to[0].as_str()), (1, "person1@example.com"));
    // What a worker has in hand is left to it.
    app.pass(Duration::from_secs(5));
    assert_eq!(outbox::claim(&app.db, app.ambient.now(), app.ambient.uuid(), 8).await.unwrap().len(), 1);
    assert_eq!(outbox::retry(&app.db, app.ambient.now(), None).await.unwrap(), 0);
}

async fn the_row_of_a_worker_that_died_comes_up_again_within_a_minute(stack: Stack) {
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    register(&app, ["alice".to_owned()]).await;
    let [died, late] = [app.ambient.uuid(), app.ambient.uuid()];
    let now = || app.ambient.now();
    let [lost] = outbox::claim(&app.db, now(), died, 8).await.unwrap().try_into().expect("one row");
    app.deliver().await;
    assert_eq!(sink.mails().len(), 0, "somebody has it");
    app.pass(Duration::from_secs(40));
    app.deliver().await;
    assert_eq!(sink.mails().len(), 0, "a worker may take 40 s over it");
    app.pass(Duration::from_secs(15));
    let [held] = outbox::claim(&app.db, now(), late, 8).await.unwrap().try_into().expect("the row again");
    assert_eq!((held.id, held.attempts), (lost.id, 2));

    // Whoever lost the claim has nothing to say any more.
    for outcome in [Outcome::Sent, Outcome::Dropped("x"), Outcome::Refused("x".into()), Outcome::Unknown("x".into())] {
        outbox::conclude(&app.db, now(), died, &lost, &outcome).await.unwrap();
        let Listed { state, last_error, .. } = row(&app).await;
        assert_eq!((state.as_str(), last_error), ("pending", None), "{outcome:?}");
    }
    outbox::conclude(&app.db, now(), late, &held, &Outcome::Refused("y".into())).await.unwrap();
    app.pass(Duration::from_secs(10));
    app.deliver().await;
    assert_eq!((sink.mails().len(), row(&app).await.state.as_str()), (1, "sent"));
    // Nor can what is over begin again.
    outbox::conclude(&app.db, now(), late, &held, &Outcome::Refused("z".into())).await.unwrap();
    assert_eq!(row(&app).await.state, "sent");
}

async fn workers_at_once_claim_different_rows(stack: Stack) {
    let app = stack.app().await;
    register(&app, names("person", 30)).await;
    let mut race = JoinSet::new();
    for _ in 0..6 {
        let (app, worker) = (app.app.clone(), app.ambient.uuid());
        race.spawn(async move { outbox::claim(&app.db, app.ambient.now(), worker, 4).await.unwrap() });
    }
    let mut claimed = BTreeSet::new();
    while let Some(rows) = race.join_next().await {
        let rows = rows.unwrap();
        assert_eq!(rows.len(), 4, "as many as there is room for, and no more");
        for row in rows {
            assert!(claimed.insert(row.id), "two have {}", row.id);
        }
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE attempts = 1 AND claimed_by IS NOT NULL").await, 24);
}

async fn a_claim_waits_for_no_other(stack: Stack) {
    let app = stack.app().await;
    register(&app, names("person", 4)).await;
    let mut other = PgConnection::connect(&stack.database_url().await).await.unwrap();
    let mut tx = other.begin().await.unwrap();
    let hold = sqlx::query_scalar("SELECT id FROM outbox ORDER BY id LIMIT 2 FOR UPDATE");
    let held: Vec<Uuid> = hold.fetch_all(&mut *tx).await.unwrap();
    let claim = outbox::claim(&app.db, app.ambient.now(), app.ambient.uuid(), 8);
    let rows = timeout(Duration::from_secs(2), claim).await.expect("it waits for nobody").unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| !held.contains(&row.id)));
}

async fn a_worker_takes_no_more_than_it_asks_for(stack: Stack) {
    let app = stack.app().await;
    let insert = |rows: u32| {
        format!(
            "INSERT INTO outbox (id, kind, recipient, data, state, attempts, created_at, next_attempt_at)
             SELECT gen_random_uuid(), 'verify_address', 'alice@example.com', '{{}}', 'pending', 0, 0, 0
             FROM generate_series(1, {rows})"
        )
    };
    // What PostgreSQL knows of the table is from a quiet time, so it plans for one row.
    app.sql(&insert(1)).await;
    app.sql("ANALYZE outbox").await;
    app.sql(&insert(40)).await;
    let rows = outbox::claim(&app.db, app.ambient.now(), app.ambient.uuid(), 8).await.unwrap();
    assert_eq!((rows.len(), app.number("SELECT COUNT(*) FROM outbox WHERE attempts = 1").await), (8, 8));
}

async fn rounds_of_two_nodes_send_each_mail_once(stack: Stack) {
    let sink = Sink::start().await;
    let nodes = [mailing(&stack, &sink).await, mailing(&stack, &sink).await];
    for race in 0..scale::races() {
        register(&nodes[race % 2], names(&format!("person{race}x"), scale::race())).await;
        let mut rounds = JoinSet::new();
        for number in 0..6 {
            let app = nodes[number % 2].app.clone();
            rounds.spawn(async move {
                let worker = app.ambient.uuid();
                while courier::round(&app, worker).await.unwrap() > 0 {}
            });
        }
        while let Some(round) = rounds.join_next().await {
            round.unwrap();
        }
        let mails = sink.mails();
        let to: BTreeSet<_> = mails.iter().flat_map(|mail| mail.to.clone()).collect();
        let expected = (race + 1) * scale::race();
        assert_eq!((mails.len(), to.len()), (expected, expected));
    }
    let twice = "SELECT COUNT(*) FROM outbox WHERE state <> 'sent' OR attempts <> 1";
    assert_eq!(nodes[0].number(twice).await, 0);
}

async fn a_finished_row_is_kept_for_a_while(stack: Stack) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let sink = Sink::start().await;
    let app = mailing(&stack, &sink).await;
    register(&app, ["sent".to_owned()]).await;
    app.deliver().await;
    register(&app, ["dead".to_owned()]).await;
    sink.set(Mood::LoseAck);
    for _ in 0..2 {
        app.deliver().await;
        app.pass(Duration::from_secs(60));
    }
    register(&app, ["pending".to_owned()]).await;
    for (days, left) in [(6, 3), (2, 2), (21, 2), (2, 1), (300, 1)] {
        app.pass(DAY * days);
        app.sweep().await;
        assert_eq!(app.number("SELECT COUNT(*) FROM outbox").await, left, "{days} days later");
    }
    assert_eq!(count(&app, "pending").await, 1, "nothing that waits is swept");
}

// --- the program -------------------------------------------------------------

async fn a_mail_leaves_by_itself_and_survives_a_stop(stack: Stack) {
    let sink = Sink::start().await;
    let mut settings = stack.settings().await;
    settings.push(set("SMTP_URL", sink.url()));
    let mut process = Process::start(stack.dir.path(), &settings);
    let client = process.client();
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    let flow = client.post("/register", body).await.is(201).text("/verification/flow_id");
    let code = sink.wait_for(1).await[0].code().unwrap();
    client.post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);

    // SIGTERM while the server has the text and has not answered yet.
    sink.set(Mood::LateAck(Duration::from_secs(3)));
    client.post("/password/forgot", json!({"email": "alice@example.com"})).await.is(202);
    sink.wait_for(2).await;
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0), "{}", process.output());
    let app = mailing(&stack, &sink).await;
    assert_eq!((count(&app, "sent").await, count(&app, "pending").await), (2, 0));
    catch_up(&app, Duration::from_secs(60 * 60));
    app.deliver().await;
    assert_eq!(sink.mails().len(), 2);
}

async fn a_mail_survives_a_kill_in_the_middle_of_it(stack: Stack) {
    let sink = Sink::start().await;
    let mut settings = stack.settings().await;
    settings.push(set("SMTP_URL", sink.url()));
    for (number, mood, last, mails) in [
        // Killed when the server has the text, and when it has not.
        (0, Mood::LateAck(Duration::from_secs(60)), "DATA", 2),
        (1, Mood::TarPit(Duration::from_millis(1500)), "RCPT", 3),
    ] {
        sink.set(mood);
        let process = Process::start(stack.dir.path(), &settings);
        let body = json!({"email": format!("person{number}@example.com"), "password": PASSWORD});
        let flow = process.client().post("/register", body).await.is(201).text("/verification/flow_id");
        eventually("the mail is on its way", || async {
            sink.mails().len() == mails - 1 && sink.commands().last().is_some_and(|line| line.starts_with(last))
        })
        .await;
        process.kill();
        sink.set(Mood::Accept);
        let app = mailing(&stack, &sink).await;
        // The next start, within a minute.
        catch_up(&app, Duration::from_secs(60));
        app.deliver().await;
        let received = sink.mails();
        assert_eq!((received.len(), count(&app, "sent").await), (mails, number + 1));
        assert_eq!(received[0].header("Message-ID"), received[1].header("Message-ID"), "one duplicate");
        let code = received.last().unwrap().code().unwrap();
        app.anonymous().post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);
    }
}

// --- stores that are away ----------------------------------------------------

async fn codes_wait_for_redis_and_notices_do_not(stack: Stack) {
    let sink = Sink::start().await;
    let (proxy, app) = behind_with(&stack, "REDIS_URL", 6379, &[("SMTP_URL", &sink.url())]).await;
    let alice = app.person("alice").await;
    let change = json_body(&json!({"current_password": PASSWORD, "new_password": "another good one"}));
    let bearer = alice.client.bearer(&alice.access).with("content-type", "application/json");
    bearer.send(Method::PUT, "/me/password", change).await.is(204);
    // A code to reset with, and a notice to a mailbox that is proved to be hers.
    app.sql("UPDATE users SET email_verified = TRUE").await;
    app.sql("UPDATE outbox SET kind = 'reset_password' WHERE kind = 'verify_address'").await;
    proxy.set(Mode::Reset);
    app.deliver().await;
    assert_eq!((count(&app, "sent").await, count(&app, "pending").await), (1, 1));
    let [notice] = sink.mails().try_into().expect("one mail");
    assert!(notice.code().is_none() && notice.text().contains("was changed"));
    proxy.set(Mode::Pass);
    eventually("the code follows", || async {
        app.pass(Duration::from_secs(10));
        app.deliver().await;
        count(&app, "sent").await == 2
    })
    .await;
    assert!(sink.mails().len() == 2 && sink.mails()[1].code().is_some());
}

async fn the_worker_recovers_from_a_database_that_was_away(stack: Stack) {
    let sink = Sink::start().await;
    let (proxy, app) = behind_with(&stack, "DATABASE_URL", 5432, &[("SMTP_URL", &sink.url())]).await;
    let worker = tokio::spawn(courier::run(app.app.clone()));
    register(&app, ["alice".to_owned()]).await;
    sink.wait_for(1).await;
    for mode in [Mode::Reset, Mode::BlackHole] {
        proxy.set(mode);
        tokio::time::sleep(Duration::from_secs(3)).await;
        proxy.set(Mode::Pass);
        let before = sink.mails().len();
        eventually("registering works again", || async {
            let body = json!({"email": format!("person{before}@example.com"), "password": PASSWORD});
            [201, 409].contains(&app.anonymous().post("/register", body).await.status)
        })
        .await;
        assert_eq!(sink.wait_for(before + 1).await.len(), before + 1);
    }
    app.begin_stop();
    timeout(Duration::from_secs(10), worker).await.expect("it ends").unwrap();
}

async fn an_outcome_is_written_down_though_the_database_was_away(stack: Stack) {
    let sink = Sink::start().await;
    let (proxy, app) = behind_with(&stack, "DATABASE_URL", 5432, &[("SMTP_URL", &sink.url())]).await;
    register(&app, ["alice".to_owned()]).await;
    sink.set(Mood::LateAck(Duration::from_secs(1)));
    let worker = app.app.clone();
    let delivery = tokio::spawn(async move { courier::round(&worker, worker.ambient.uuid()).await });
    sink.wait_for(1).await;
    proxy.set(Mode::Reset);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    proxy.set(Mode::Pass);
    delivery.await.unwrap().unwrap();
    assert_eq!(count(&app, "sent").await, 1);
}
