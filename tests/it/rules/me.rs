use crate::{
    on_stacks,
    support::{Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&StackKind::ALL; a_deleted_person_is_out_at_once, another_scheme_is_no_bearer]
}

/// Without a new epoch, so that nothing but the row's own state keeps anybody out.
async fn a_deleted_person_is_out_at_once(stack: Stack) {
    let app = stack.app().await;
    let (alice, bob) = (app.person("alice").await, app.person("bob").await);
    app.sql("UPDATE users SET deleted_at = 1 WHERE username = 'alice'").await;
    alice.me().await.is_problem(401, "invalid_token");
    alice.client.refresh(&alice.refresh).await.is_problem(401, "invalid_refresh_token");
    bob.me().await.is(200);
}

async fn another_scheme_is_no_bearer(stack: Stack) {
    let app = stack.app().await;
    let alice = app.person("alice").await;
    // Six letters, as `Bearer` has.
    for scheme in ["Digest", "Tokens", "Bearex"] {
        let client = app.anonymous().with("authorization", &format!("{scheme} {}", alice.access));
        client.get("/me").await.is_problem(401, "missing_token");
    }
}
