use std::time::Duration;

use latchkey::sessions::RefreshToken;
use serde_json::json;

use crate::{
    on_stacks,
    support::{Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL;
        ended_sessions_leave_no_record_behind,
        everywhere_wants_a_person_and_a_grant_that_may_refresh,
        an_end_is_remembered_a_day_longer_than_its_session_could_live,
        a_sweep_goes_on_until_nothing_is_left,
    ]
}

async fn ended_sessions_leave_no_record_behind(stack: Stack) {
    let app = stack.app_with(&[("LATCHKEY_REFRESH_GRACE", "0s")]).await;
    let alice = app.person("alice").await;
    let left = async || app.ephemeral.list(app.ambient.now(), alice.id).await.unwrap().len();
    assert_eq!(left().await, 1);
    alice.client.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    assert_eq!(left().await, 0, "after a logout");
    let stolen = alice.elsewhere().await;
    stolen.client.refresh(&stolen.refresh).await.is(200);
    stolen.client.refresh(&stolen.refresh).await.is_problem(401, "refresh_token_reused");
    assert_eq!(left().await, 0, "after a theft");
    let (here, _there) = (alice.elsewhere().await, alice.elsewhere().await);
    here.client.post("/logout", json!({"refresh_token": here.refresh, "all": true})).await.is(204);
    assert_eq!(left().await, 0, "after a logout everywhere");
}

async fn everywhere_wants_a_person_and_a_grant_that_may_refresh(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    let everywhere = async |token: &str| {
        let reply = alice.client.post("/logout", json!({"refresh_token": token, "all": true})).await;
        reply.is_problem(401, "invalid_refresh_token");
        assert_eq!(app.number("SELECT epoch FROM users").await, 0, "nothing changes");
    };
    let mut token = RefreshToken::parse(&alice.refresh, &app.secrets).unwrap();
    token.grant = 1;
    everywhere(token.render(&app.secrets).expose()).await;

    app.sql("UPDATE users SET status = 'disabled'").await;
    everywhere(&alice.refresh).await;
    app.sql("UPDATE users SET status = 'active'").await;

    // Ended, and brought back by a store that lost the deletion.
    let now = app.ambient.now();
    let record = app.ephemeral.find(now, alice.id, alice.session).await.unwrap().unwrap();
    alice.client.post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    app.ephemeral.open(now, alice.id, alice.session, &record, 50, &[]).await.unwrap();
    everywhere(&alice.refresh).await;
}

async fn an_end_is_remembered_a_day_longer_than_its_session_could_live(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    app.anonymous().post("/logout", json!({"refresh_token": alice.refresh})).await.is(204);
    app.pass(Duration::from_secs(31 * 86_400));
    app.sweep().await;
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 1, "clocks and settings of nodes differ");
    app.pass(Duration::from_secs(1));
    app.sweep().await;
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 0);
}

async fn a_sweep_goes_on_until_nothing_is_left(stack: Stack) {
    let app = stack.app().await;
    let id = if stack.kind == StackKind::Embedded { "randomblob(16)" } else { "gen_random_uuid()" };
    app.sql(&format!(
        "INSERT INTO ended_sessions (session_id, user_id, \"until\")
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) SELECT {id}, {id}, 1 FROM n"
    ))
    .await;
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 2500);
    app.sweep().await;
    assert_eq!(app.number("SELECT COUNT(*) FROM ended_sessions").await, 0);
}
