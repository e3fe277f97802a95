use serde_json::json;

use crate::{
    on_stacks,
    support::{PASSWORD, Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL; the_name_is_told_when_only_a_deleted_person_had_the_address]
}

async fn the_name_is_told_when_only_a_deleted_person_had_the_address(stack: Stack) {
    let app = stack.app().await;
    app.person("alice").await;
    app.person("bob").await;
    app.sql("UPDATE users SET deleted_at = 1 WHERE username = 'alice'").await;
    let body = json!({"email": "alice@example.com", "username": "bob", "password": PASSWORD});
    app.anonymous().post("/register", body).await.is_problem(409, "username_taken");
}
