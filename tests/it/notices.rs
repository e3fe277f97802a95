//! Notices of what was done: who gets one, how often, what it says; and whom a mail calls by a name.

use std::time::Duration;

use axum::http::Method;
use serde_json::json;

use crate::{
    on_stacks,
    support::{PASSWORD, Person, Stack, StackKind, Test, TestApp, json_body},
};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const SAFARI: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
    Version/19.0 Mobile/15E148 Safari/604.1";
const ALICE: &str = "alice@example.com";

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        a_notice_of_a_kind_comes_once_in_ten_minutes_and_the_last_wins,
        notices_of_other_kinds_and_people_do_not_wait,
        every_old_address_is_told_however_fast_the_address_changes,
        a_new_device_is_told_and_a_known_one_is_not,
        a_notice_does_not_follow_a_person_who_is_gone,
        a_notice_that_waits_still_goes_to_the_address_it_was_for,
        a_proved_persons_name_is_literal_in_text_and_escaped_in_html,
        nobody_is_called_by_a_name_in_an_unproved_mailbox,
    ]
}

async fn change_password(person: &Person, from: u8, old: &str, new: &str) {
    let client = person.client.coming_from([10, 0, 0, from]).bearer(&person.access);
    let body = json_body(&json!({"current_password": old, "new_password": new}));
    client.with("content-type", "application/json").send(Method::PUT, "/me/password", body).await.is(204);
}

/// The addresses that the notices name, in the order of their mails.
async fn told(app: &TestApp, kind: &str) -> Vec<String> {
    app.deliver().await;
    let mails = app.mails_to(kind, ALICE);
    let line = |text: String| text.lines().find_map(|line| Some(line.split_once("IP address: ")?.1.to_owned()));
    mails.iter().map(|mail| line(mail.text()).unwrap()).collect()
}

async fn a_notice_of_a_kind_comes_once_in_ten_minutes_and_the_last_wins(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    change_password(&alice, 1, PASSWORD, "password number one").await;
    app.pass(Duration::from_secs(1));
    change_password(&alice, 2, "password number one", "password number two").await;
    assert_eq!(told(&app, "password_changed").await, ["10.0.0.2"], "both wait, and the last wins");
    app.pass(Duration::from_secs(60));
    change_password(&alice, 3, "password number two", "password number three").await;
    assert_eq!(told(&app, "password_changed").await, ["10.0.0.2"]);
    app.pass(Duration::from_secs(60));
    change_password(&alice, 4, "password number three", "password number four").await;
    assert_eq!(told(&app, "password_changed").await, ["10.0.0.2"]);
    app.pass(Duration::from_secs(479));
    assert_eq!(told(&app, "password_changed").await, ["10.0.0.2"]);
    app.pass(Duration::from_secs(1));
    assert_eq!(told(&app, "password_changed").await, ["10.0.0.2", "10.0.0.4"]);
    app.pass(Duration::from_secs(24 * 60 * 60));
    assert_eq!(told(&app, "password_changed").await, ["10.0.0.2", "10.0.0.4"]);
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE state = 'pending'").await, 0);
}

async fn notices_of_other_kinds_and_people_do_not_wait(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    for person in [&alice, &bob] {
        change_password(person, 1, PASSWORD, "password number one").await;
        app.mail_to("password_changed", &person.email).await;
    }
    let coded = app.reset_code(ALICE).await;
    app.anonymous().post("/password/reset", coded.reset("password number two")).await.is(204);
    app.mail_to("password_reset", ALICE).await;
}

async fn every_old_address_is_told_however_fast_the_address_changes(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.verify(ALICE).await;
    let client = alice.client.bearer(&alice.access);
    // While no mail leaves: who has the password and a session moves the account on, and on again.
    let folder = stack.dir.path().join("data").join("mail");
    for address in ["mallory@example.org", "mallory@example.net"] {
        let coded = app.change_code(&alice, address).await;
        std::fs::rename(&folder, folder.with_extension("away")).unwrap();
        std::fs::write(&folder, "in the way").unwrap();
        client.post("/me/email/confirm", coded.body()).await.is(204);
        app.deliver().await;
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(folder.with_extension("away"), &folder).unwrap();
        app.pass(Duration::from_secs(1));
    }
    app.pass(Duration::from_secs(60));
    for kind in ["address_change_requested", "address_changed"] {
        let notice = app.mail_to(kind, ALICE).await;
        assert!(notice.text().contains("mallory@example.org"), "{kind}");
        app.mail_to(kind, "mallory@example.org").await;
    }
}

async fn a_new_device_is_told_and_a_known_one_is_not(stack: Stack) {
    let app = stack.app().await;
    let firefox = app.anonymous().with("user-agent", FIREFOX);
    firefox.register("alice").await;
    let sign_in = async |client: &crate::support::Client, from: [u8; 4]| {
        client.coming_from(from).login(ALICE, PASSWORD).await.is(200);
        app.deliver().await;
        // Past the ten minutes in which notices of a kind wait for each other.
        app.pass(Duration::from_secs(601));
        app.mails_to("new_device", ALICE)
    };
    assert!(sign_in(&firefox, [127, 0, 0, 1]).await.is_empty(), "the first of all, and once more");
    assert!(sign_in(&firefox, [127, 0, 200, 7]).await.is_empty(), "the same wider network");
    let safari = app.anonymous().with("user-agent", SAFARI);
    let mails = sign_in(&safari, [127, 0, 0, 9]).await;
    assert_eq!(mails.len(), 1);
    let text = mails[0].text();
    assert!(text.contains("Safari on iPhone") && text.contains("127.0.0.9"), "{text}");
    assert!(text.contains("2026-11-22 11:16"), "{text}");
    assert_eq!(sign_in(&safari, [127, 0, 0, 9]).await.len(), 1, "known by now");
    let mails = sign_in(&firefox, [10, 9, 8, 7]).await;
    assert_eq!(mails.len(), 2, "another network");
    assert!(mails[1].text().contains("Firefox on Linux") && mails[1].text().contains("10.9.8.7"));
    assert_eq!(sign_in(&firefox, [127, 0, 0, 1]).await.len(), 2, "still known");
    // Nobody else's sign-in makes a device known, and a wrong password tells nobody anything.
    firefox.coming_from([10, 1, 1, 1]).login(ALICE, "wrong password").await.is(401);
    app.deliver().await;
    assert_eq!(app.mails_to("new_device", ALICE).len(), 2);
}

async fn a_notice_does_not_follow_a_person_who_is_gone(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    change_password(&alice, 1, PASSWORD, "password number one").await;
    let client = alice.client.bearer(&alice.access);
    client.post("/me/delete", json!({"password": "password number one"})).await.is(204);
    app.person("alice").await;
    app.deliver().await;
    assert!(app.mails_to("password_changed", ALICE).is_empty(), "the address is a new person's by now");
}

async fn a_notice_that_waits_still_goes_to_the_address_it_was_for(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    change_password(&alice, 1, PASSWORD, "password number one").await;
    assert_eq!(told(&app, "password_changed").await, ["10.0.0.1"]);
    app.pass(Duration::from_secs(1));
    change_password(&alice, 2, "password number one", PASSWORD).await;
    let coded = app.change_code(&alice, "alice@example.org").await;
    app.anonymous().post("/me/email/confirm", coded.body()).await.is(204);
    app.pass(Duration::from_secs(600));
    assert_eq!(told(&app, "password_changed").await, ["10.0.0.1", "10.0.0.2"], "a thief would change the address next");
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox WHERE state = 'pending'").await, 0);
    app.mail_to("address_changed", ALICE).await;
}

async fn a_proved_persons_name_is_literal_in_text_and_escaped_in_html(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    app.verify(ALICE).await;
    app.sql("UPDATE users SET display_name = '<b>Al & \"Ice\"</b> {{ code }} [code]'").await;
    app.reset_code(ALICE).await;
    let mail = app.mails_to("reset_password", ALICE).pop().unwrap();
    assert!(mail.text().contains("<b>Al & \"Ice\"</b> {{ code }} [code]"), "{}", mail.text());
    assert!(mail.html().contains("&lt;b&gt;Al &amp; &quot;Ice&quot;&lt;") && !mail.html().contains("<b>Al"));
    assert!(mail.html().contains("{{ code }} [code]"), "a name is no template");
}

async fn nobody_is_called_by_a_name_in_an_unproved_mailbox(stack: Stack) {
    let app = stack.app().await;
    let body = json!({"email": ALICE, "password": PASSWORD, "display_name": "Buy Pills", "username": "pills"});
    app.anonymous().post("/register", body).await.is(201);
    let mut alice = app.person("bob").await;
    app.verify("bob@example.com").await;
    app.sql("UPDATE users SET display_name = 'Buy Pills'").await;
    // Bob is proved, and yet not in the mailbox that he wants.
    app.change_code(&alice, "bob@example.org").await;
    alice
        .client
        .bearer(&alice.access)
        .post("/me/email", json!({"new_email": ALICE, "password": PASSWORD}))
        .await
        .is(202);
    app.reset_code(ALICE).await;
    alice.email = ALICE.into();
    alice.sign_in().await;
    change_password(&alice, 1, PASSWORD, "password number one").await;
    app.anonymous().with("user-agent", FIREFOX).login(ALICE, "password number one").await.is(200);
    app.deliver().await;
    for (kind, address) in [
        ("verify_address", ALICE),
        ("reset_password", ALICE),
        ("address_in_use", ALICE),
        ("password_changed", ALICE),
        ("new_device", ALICE),
        ("change_address", "bob@example.org"),
    ] {
        let mail = app.mail_to(kind, address).await;
        assert!(!mail.data.contains("Pills") && !mail.text().to_lowercase().contains("pills"), "{kind}");
    }
    let mail = app.mail_to("address_change_requested", "bob@example.com").await;
    assert!(mail.text().contains("Hello Buy Pills,"), "his own is proved");

    let dir = stack.dir.path().join("other").display().to_string();
    let required = stack.app_with(&[("LATCHKEY_EMAIL_VERIFICATION", "required"), ("LATCHKEY_DATA_DIR", &dir)]).await;
    for email in ["new@example.com", "bob@example.com"] {
        let body = json!({"email": email, "password": PASSWORD, "display_name": "Cheap Watches"});
        required.anonymous().post("/register", body).await.is(202);
    }
    required.deliver().await;
    assert!(!required.mail_to("confirm_registration", "new@example.com").await.data.contains("Watches"));
    for mail in required.mails_to("account_exists", "bob@example.com") {
        assert!(!mail.data.contains("Watches"), "who tried it has no say in the mail");
    }
}
