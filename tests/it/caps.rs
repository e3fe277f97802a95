//! How many mails strangers can cause, and so how many codes they can guess at: `security.md` §4.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use latchkey::verification::{
    FlowId, Purpose,
    caps::{self, Cause, Request},
};
use serde_json::json;

use crate::{
    on_stacks,
    support::{Coded, PASSWORD, Stack, StackKind, Test, TestApp, alike, refused, scale},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const ADDRESS: &str = "alice@example.com";

pub fn tests() -> Vec<Test> {
    let mut tests = on_stacks![&StackKind::ALL;
        one_mail_a_minute_for_each_purpose,
        five_an_hour_and_ten_a_day_over_all_purposes,
        a_client_network_gets_five_a_day,
        two_a_day_are_kept_for_known_devices,
        a_fourth_live_flow_displaces_none,
        a_refused_request_is_answered_alike_and_its_flow_has_no_code,
        a_hundred_requests_silence_no_notice,
        mails_that_wait_for_the_mail_server_do_not_pile_up,
        a_code_that_died_before_it_was_mailed_again_is_counted_anew,
    ];
    tests.extend(on_stacks![&StackKind::SHARED; two_workers_count_together]);
    tests.extend(on_stacks![&[StackKind::Embedded]; no_sequence_of_requests_gets_more_mails]);
    tests
}

/// Whether a request is admitted now.
async fn admit(app: &TestApp, purpose: Purpose, network: u8, known_device: bool) -> bool {
    let flow = FlowId::draw(ADDRESS, &app.secrets, &app.ambient);
    again(app, flow, purpose, network, known_device).await
}

async fn again(app: &TestApp, flow: FlowId, purpose: Purpose, network: u8, known_device: bool) -> bool {
    let request = Request { nonce: flow.nonce(), cause: Cause::Code(purpose), network: [network; 8], known_device };
    caps::admit(app, ADDRESS, &request).await.unwrap()
}

/// Asks for a reset, from this address.
async fn forgot(app: &TestApp, from: [u8; 4]) -> String {
    let client = app.anonymous().coming_from(from);
    client.post("/password/forgot", json!({"email": ADDRESS})).await.is(202).text("/flow_id")
}

/// How many mails of resets went out so far.
async fn resets(app: &TestApp) -> usize {
    app.deliver().await;
    app.mails_to("reset_password", ADDRESS).len()
}

async fn one_mail_a_minute_for_each_purpose(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    // The code of the registration is of another purpose.
    for (wait, mails) in [(Duration::ZERO, 1), (Duration::ZERO, 1), (MINUTE - SECOND, 1), (SECOND, 2), (SECOND, 2)] {
        app.pass(wait);
        forgot(&app, [127, 0, 0, 1]).await;
        assert_eq!(resets(&app).await, mails, "after {wait:?} more");
    }
    assert_eq!(app.mails_to("verify_address", ADDRESS).len(), 1);
    app.anonymous().post("/email/verify/resend", json!({"email": ADDRESS})).await.is(202);
    app.deliver().await;
    assert_eq!(app.mails_to("verify_address", ADDRESS).len(), 2);
    // Nor does it depend on the address of anybody else.
    app.person("bob").await;
    app.anonymous().post("/password/forgot", json!({"email": "bob@example.com"})).await.is(202);
    app.mail_to("reset_password", "bob@example.com").await;
}

async fn five_an_hour_and_ten_a_day_over_all_purposes(stack: Stack) {
    let app = stack.app().await;
    let purposes = [Purpose::Verify, Purpose::Reset, Purpose::Register, Purpose::Change];
    for (number, purpose) in (0..5).zip(purposes.iter().cycle()) {
        app.pass(2 * MINUTE);
        assert!(admit(&app, *purpose, 1, true).await, "number {number}");
    }
    // The first of them was eight minutes ago.
    // Its code can be guessed at for eleven minutes, and the hour begins with the last guess.
    app.pass(63 * MINUTE - SECOND);
    assert!(!admit(&app, Purpose::Register, 2, true).await, "the sixth of an hour");
    app.pass(SECOND);
    assert!(admit(&app, Purpose::Register, 2, true).await);
    assert!(!admit(&app, Purpose::Change, 2, true).await);
    for number in 6..10 {
        app.pass(2 * HOUR);
        assert!(admit(&app, Purpose::Reset, 3, true).await, "number {number}");
    }
    // The first was nine hours ago.
    app.pass(15 * HOUR - SECOND);
    assert!(!admit(&app, Purpose::Verify, 4, true).await, "the eleventh of a day");
    app.pass(SECOND);
    assert!(admit(&app, Purpose::Verify, 4, true).await);
    assert!(!admit(&app, Purpose::Reset, 4, true).await);
}

async fn a_client_network_gets_five_a_day(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    app.deliver().await;
    for number in 0..7 {
        app.pass(HOUR);
        forgot(&app, [10, 7, 7, number]).await;
        assert_eq!(resets(&app).await, usize::from(number + 1).min(5), "one client has a whole /24");
    }
    forgot(&app, [10, 7, 8, 0]).await;
    assert_eq!(resets(&app).await, 6, "another one still gets a mail");

    let network = |address: &str| caps::network(address.parse::<IpAddr>().unwrap(), &app.secrets);
    assert_eq!(network("2001:db8:1::1"), network("2001:db8:1:ffff::9"), "a /48");
    assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
    assert_eq!(network("::ffff:10.7.7.1"), network("10.7.7.255"), "a folded address");
    assert_ne!(network("10.7.7.1"), network("10.7.6.1"));
}

async fn two_a_day_are_kept_for_known_devices(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let device = alice.client.login(&alice.email, crate::support::PASSWORD).await.is(200).text("/device_token");
    app.sql("DELETE FROM outbox").await;
    for number in 1..=10 {
        app.pass(HOUR);
        forgot(&app, [10, 0, number, 1]).await;
        assert_eq!(resets(&app).await, usize::from(number).min(8), "from ever other networks");
    }
    for mails in [9, 10, 10] {
        app.pass(HOUR);
        let body = json!({"email": ADDRESS, "device_token": device});
        app.anonymous().coming_from([10, 0, 1, 1]).post("/password/forgot", body).await.is(202);
        assert_eq!(resets(&app).await, mails, "with a device token");
    }
}

async fn a_fourth_live_flow_displaces_none(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    app.deliver().await;
    app.pass(11 * MINUTE);
    let mut live = Vec::new();
    for _ in 0..3 {
        live.push(app.verify_code(ADDRESS).await);
    }
    let before = app.mails_to("verify_address", ADDRESS).len();
    app.pass(MINUTE);
    let fourth = app.anonymous().post("/email/verify/resend", json!({"email": ADDRESS})).await.is(202).text("/flow_id");
    app.deliver().await;
    assert_eq!(app.mails_to("verify_address", ADDRESS).len(), before);
    for coded in &live {
        refused(&app.anonymous(), "/email/verify", Coded { flow: fourth.clone(), ..coded.clone() }.body()).await;
        app.anonymous().post("/email/verify", coded.body()).await.is(204);
    }
    // When the first is dead, there is room for one more.
    app.sql("UPDATE users SET email_verified = FALSE").await;
    app.pass(8 * MINUTE);
    app.verify_code(ADDRESS).await;
}

async fn a_refused_request_is_answered_alike_and_its_flow_has_no_code(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    let coded = app.reset_code(ADDRESS).await;
    let client = app.anonymous().with("x-request-id", "same");
    let mut replies = Vec::new();
    for wait in [Duration::ZERO, MINUTE] {
        app.pass(wait);
        let mut reply = client.post("/password/forgot", json!({"email": ADDRESS})).await.is(202);
        let mut body = reply.json();
        let flow = body["flow_id"].take();
        reply.body = body.to_string().into_bytes();
        replies.push((format!("after {wait:?}"), reply));
        app.deliver().await;
        let body = json!({"flow_id": flow, "code": coded.code, "new_password": "a staple for the horse"});
        refused(&client, "/password/reset", body).await;
    }
    alike(&replies);
    assert_eq!(app.mails_to("reset_password", ADDRESS).len(), 2, "the second of the two was refused by no cap");
    let dropped = "SELECT last_error || '/' || CAST(data AS TEXT) FROM outbox WHERE state = 'dropped'";
    assert_eq!(app.text(dropped).await, "over a cap/{}");
}

async fn a_hundred_requests_silence_no_notice(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.deliver().await;
    let before = app.all_mails_to(ADDRESS);
    app.pass(HOUR);
    for number in 0..100 {
        let path = if number % 2 == 0 { "/password/forgot" } else { "/email/verify/resend" };
        let client = app.anonymous().coming_from([10, 0, number, 1]);
        client.post(path, json!({"email": ADDRESS})).await.is(202);
        app.deliver().await;
        app.pass(35 * SECOND);
    }
    assert_eq!(app.all_mails_to(ADDRESS), before + 5);
    let body = json!({"current_password": PASSWORD, "new_password": "a staple for the horse"});
    let client = alice.client.bearer(&app.anonymous().login(ADDRESS, PASSWORD).await.text("/access_token"));
    let client = client.with("content-type", "application/json");
    client.send(axum::http::Method::PUT, "/me/password", crate::support::json_body(&body)).await.is(204);
    app.mail_to("password_changed", ADDRESS).await;
}

async fn mails_that_wait_for_the_mail_server_do_not_pile_up(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    app.sql("DELETE FROM outbox").await;
    // Where mails go lies something else.
    let folder = stack.dir.path().join("data").join("mail");
    std::fs::write(&folder, "in the way").unwrap();
    for number in 0..180_u8 {
        let path = if number % 3 == 0 { "/password/forgot" } else { "/email/verify/resend" };
        if number % 4 == 0 {
            let client = app.anonymous().coming_from([10, 0, number, 1]);
            client.post(path, json!({"email": ADDRESS})).await.is(202);
        }
        app.deliver().await;
        app.pass(MINUTE);
    }
    std::fs::remove_file(&folder).unwrap();
    for minute in 0..60 {
        app.deliver().await;
        let mails = app.all_mails_to(ADDRESS);
        assert!(mails <= 5, "{mails} codes to guess at in {minute} minutes");
        app.anonymous()
            .coming_from([10, 1, minute, 1])
            .post("/password/forgot", json!({"email": ADDRESS}))
            .await
            .is(202);
        app.pass(59 * SECOND);
    }
    assert_eq!(app.all_mails_to(ADDRESS), 5, "all that waited went");
    // None of them gave up, none went twice, and each carried a code.
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE state = 'sent'").await, 5);
}

async fn a_code_that_died_before_it_was_mailed_again_is_counted_anew(stack: Stack) {
    let app = stack.app().await;
    let flow = FlowId::draw(ADDRESS, &app.secrets, &app.ambient);
    assert!(again(&app, flow, Purpose::Reset, 0, false).await);
    // As long as the code lives, it is the same one.
    for _ in 0..12 {
        app.pass(5 * MINUTE);
        assert!(again(&app, flow, Purpose::Reset, 0, false).await);
    }
    // After that the mail has another one, at which five times can be guessed again.
    for _ in 0..4 {
        app.pass(10 * MINUTE);
        assert!(again(&app, flow, Purpose::Reset, 0, false).await);
    }
    app.pass(10 * MINUTE);
    assert!(!again(&app, flow, Purpose::Reset, 1, true).await, "the sixth code of an hour");
    assert!(!admit(&app, Purpose::Verify, 1, true).await, "of whatever purpose");
}

async fn two_workers_count_together(stack: Stack) {
    let (here, there) = (stack.app().await, stack.app().await);
    here.person("alice").await;
    here.deliver().await;
    there.pass(MINUTE);
    here.pass(MINUTE);
    for round in 1..=3 {
        for number in 0..30 {
            forgot(&here, [10, round, number, 1]).await;
        }
        tokio::join!(here.deliver(), there.deliver());
        let mails = here.mails_to("reset_password", ADDRESS).len() + there.mails_to("reset_password", ADDRESS).len();
        assert_eq!(mails, 2 * usize::from(round), "both nodes have one folder: each mail is seen twice");
        here.pass(MINUTE);
        there.pass(MINUTE);
    }
}

/// Dice that fall alike in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Two days of requests, retries and pauses: no hour has more than five codes, no day more than ten.
async fn no_sequence_of_requests_gets_more_mails(stack: Stack) {
    let app = stack.app().await;
    let purposes = [Purpose::Verify, Purpose::Reset, Purpose::Register, Purpose::Change];
    for seed in 1..=8 * u64::try_from(scale::races()).unwrap() {
        app.pass(72 * HOUR);
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let haste = [30, 300, 3000][usize::try_from(seed % 3).unwrap()];
        let start = app.ambient.now();
        let mut flows: Vec<(FlowId, usize)> = Vec::new();
        // A code, and when it was last mailed: within ten minutes it is the same one again.
        let mut codes: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
        while app.ambient.now() < start.after(48 * HOUR) {
            app.pass(Duration::from_millis(dice.roll(1000 * haste)));
            let now = app.ambient.now().millis();
            let number = match usize::try_from(dice.roll(3)).unwrap() {
                0 if !flows.is_empty() => flows.len() - 1 - usize::try_from(dice.roll(8)).unwrap() % flows.len(),
                _ => {
                    let purpose = usize::try_from(dice.roll(4)).unwrap();
                    flows.push((FlowId::draw(ADDRESS, &app.secrets, &app.ambient), purpose));
                    flows.len() - 1
                }
            };
            let (flow, purpose) = flows[number];
            let (network, known_device) = (u8::try_from(dice.roll(6)).unwrap(), dice.roll(3) == 0);
            if again(&app, flow, purposes[purpose], network, known_device).await {
                let mailed = codes.entry(number).or_default();
                match mailed.last_mut() {
                    Some(last) if now - *last < 600_000 => *last = now,
                    _ => mailed.push(now),
                }
            }
        }
        let mut mailed: Vec<i64> = codes.into_values().flatten().collect();
        mailed.sort_unstable();
        assert!(mailed.len() >= 10, "seed {seed}: somebody got something");
        // A code can be guessed at for eleven minutes: so many mails apart, no hour has 26 guesses and no day 51.
        for (most, period) in [(5, HOUR + 11 * MINUTE), (10, 24 * HOUR + 11 * MINUTE)] {
            for window in mailed.windows(most + 1) {
                let span = u128::try_from(window[most] - window[0]).unwrap();
                assert!(span >= period.as_millis(), "seed {seed}: {} mails in {span} ms", most + 1);
            }
        }
    }
}
