//! Codes that prove an address: at registration in all three modes, on request, and for another address.

use std::time::Duration;

use serde_json::json;

use crate::{
    on_stacks,
    support::{PASSWORD, Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        a_code_from_the_mail_proves_the_address,
        with_verification_off_nothing_is_mailed_unasked,
        a_new_code_can_be_asked_for,
        required_mode_makes_the_person_from_the_code,
        a_forgotten_password_is_replaced_with_a_code,
        an_address_is_changed_with_a_code,
    ]
}

async fn a_code_from_the_mail_proves_the_address(stack: Stack) {
    let app = stack.app().await;
    let client = app.anonymous();
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    let flow = client.post("/register", body).await.is(201).text("/verification/flow_id");
    let code = app.mail_to("verify_address", "alice@example.com").await.code().unwrap();
    client.post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE email_verified").await, 1);
    assert_eq!(app.events("address_verified").await, 1);
    client.post("/email/verify", json!({"flow_id": flow, "code": code})).await.is_problem(400, "invalid_code");
}

async fn with_verification_off_nothing_is_mailed_unasked(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_EMAIL_VERIFICATION", "off")]).await;
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    let reply = app.anonymous().post("/register", body).await.is(201).json();
    assert_eq!((&reply["verification"], &reply["user"]["email_verified"]), (&json!(null), &json!(false)));
    assert_eq!(app.number("SELECT COUNT(*) FROM outbox").await, 0);
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    // Who asks gets a code all the same.
    let coded = app.verify_code("alice@example.com").await;
    app.anonymous().post("/email/verify", coded.body()).await.is(204);
    assert_eq!(app.number("SELECT COUNT(*) FROM users WHERE email_verified").await, 1);
}

async fn a_new_code_can_be_asked_for(stack: Stack) {
    let app = stack.app().await;
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    app.anonymous().post("/register", body).await.is(201);
    app.anonymous().login("alice@example.com", PASSWORD).await.is(200);
    let coded = app.verify_code("alice@example.com").await;
    app.anonymous().post("/email/verify", coded.body()).await.is(204);
    // There is nothing to prove any more, and nobody is told.
    let before = app.all_mails_to("alice@example.com");
    app.pass(Duration::from_secs(3600));
    app.anonymous().post("/email/verify/resend", json!({"email": "alice@example.com"})).await.is(202);
    app.deliver().await;
    assert_eq!(app.all_mails_to("alice@example.com"), before);
}

async fn required_mode_makes_the_person_from_the_code(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_EMAIL_VERIFICATION", "required")]).await;
    let client = app.anonymous();
    let body = json!({"email": "alice@example.com", "password": PASSWORD, "username": "alice"});
    let reply = client.post("/register", body).await.is(202);
    assert_eq!(reply.text("/status"), "accepted");
    assert_eq!(app.number("SELECT COUNT(*) FROM users").await, 0);
    client.login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    let code = app.mail_to("confirm_registration", "alice@example.com").await.code().unwrap();
    let flow = reply.text("/verification/flow_id");
    client.post("/email/verify", json!({"flow_id": flow, "code": code})).await.is(204);
    client.login("alice@example.com", PASSWORD).await.is(200);
}

async fn a_forgotten_password_is_replaced_with_a_code(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let reply = alice.client.post("/password/forgot", json!({"email": "ALICE@example.com"})).await.is(202);
    let flow = reply.text("/flow_id");
    let mail = app.mail_to("reset_password", "alice@example.com").await;
    let code = mail.code().unwrap();
    assert_eq!(mail.link().unwrap(), format!("http://localhost:3000/reset#flow={flow}&code={code}"));
    let body = json!({"flow_id": flow, "code": code, "new_password": "another good one"});
    alice.client.post("/password/reset", body).await.is(204);
    assert!(!alice.is_signed_in().await);
    alice.client.login("alice@example.com", PASSWORD).await.is_problem(401, "invalid_credentials");
    alice.client.login("alice@example.com", "another good one").await.is(200);
    assert!(app.mail_to("password_reset", "alice@example.com").await.code().is_none());
}

async fn an_address_is_changed_with_a_code(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.sql("UPDATE users SET email_verified = TRUE").await;
    let other = alice.elsewhere().await;
    let bearer = alice.client.bearer(&alice.access);
    let body = json!({"new_email": "alice@example.org", "password": PASSWORD});
    let flow = bearer.post("/me/email", body).await.is(202).text("/flow_id");
    let code = app.mail_to("change_address", "alice@example.org").await.code().unwrap();
    app.pass(Duration::from_secs(1));
    bearer.post("/me/email/confirm", json!({"flow_id": flow, "code": code})).await.is(204);
    assert!(alice.is_signed_in().await && !other.is_signed_in().await);
    let me = alice.me().await;
    assert_eq!((me.text("/email"), me.json()["email_verified"].as_bool()), ("alice@example.org".into(), Some(true)));
    for kind in ["address_change_requested", "address_changed"] {
        let notice = app.mail_to(kind, "alice@example.com").await;
        assert!(notice.text().contains("alice@example.org") && notice.code().is_none(), "{kind}");
    }
}
