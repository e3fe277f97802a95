//! Flows and their codes, as whoever started them and whoever reads the mailbox would have them together.

use serde_json::{Value, json};

use super::{Client, PASSWORD, Person, Reply, TestApp};

/// A flow and the code that was mailed for it.
#[derive(Clone, Debug)]
pub struct Coded {
    pub flow: String,
    pub code: String,
}

impl Coded {
    /// The body of a request with this flow and this code.
    pub fn body(&self) -> Value {
        json!({"flow_id": self.flow, "code": self.code})
    }

    /// The body of a reset.
    pub fn reset(&self, new_password: &str) -> Value {
        json!({"flow_id": self.flow, "code": self.code, "new_password": new_password})
    }

    /// The same flow with a code that is not the right one: another for each `number`.
    pub fn wrong(&self, number: u32) -> Self {
        let right: u32 = self.code.parse().unwrap();
        Self { code: format!("{:08}", (right + 1 + number) % 100_000_000), ..self.clone() }
    }

    /// This flow with that code.
    pub fn with_code_of(&self, other: &Self) -> Self {
        Self { flow: self.flow.clone(), code: other.code.clone() }
    }
}

impl TestApp {
    /// A code that proves this person's address.
    pub async fn verify_code(&self, email: &str) -> Coded {
        self.asked_for("/email/verify/resend", "verify_address", email).await
    }

    /// A code that resets the password.
    pub async fn reset_code(&self, email: &str) -> Coded {
        self.asked_for("/password/forgot", "reset_password", email).await
    }

    async fn asked_for(&self, path: &str, kind: &str, email: &str) -> Coded {
        // What lies in the outbox already must not take this one's turn.
        self.deliver().await;
        self.pass(std::time::Duration::from_secs(60));
        let flow = self.anonymous().post(path, json!({"email": email})).await.is(202).text("/flow_id");
        self.coded(flow, kind, email).await
    }

    /// A code that changes this person's address.
    pub async fn change_code(&self, person: &Person, new_email: &str) -> Coded {
        let body = json!({"new_email": new_email, "password": PASSWORD});
        let reply = person.client.bearer(&person.access).post("/me/email", body).await.is(202);
        self.coded(reply.text("/flow_id"), "change_address", new_email).await
    }

    /// A code that makes this registration of the `required` mode a person.
    pub async fn registration_code(&self, body: Value) -> Coded {
        let email = body["email"].as_str().unwrap().to_owned();
        let flow = self.anonymous().post("/register", body).await.is(202).text("/verification/flow_id");
        self.coded(flow, "confirm_registration", &email).await
    }

    async fn coded(&self, flow: String, kind: &str, address: &str) -> Coded {
        let before = self.mails_to(kind, address).len();
        let code = self.mail_to(kind, address).await.code().unwrap();
        assert_eq!(self.mails_to(kind, address).len(), before + 1, "one {kind} to {address}");
        Coded { flow, code }
    }

    /// Proves this person's address.
    pub async fn verify(&self, email: &str) {
        let coded = self.verify_code(email).await;
        self.anonymous().post("/email/verify", coded.body()).await.is(204);
        self.pass(std::time::Duration::from_secs(60));
    }

    /// Every mail to this address, of whatever kind.
    pub fn all_mails_to(&self, address: &str) -> usize {
        latchkey::mail::MailKind::WORDS.iter().map(|kind| self.mails_to(kind, address).len()).sum()
    }
}

/// Asserts that these answers are the same, bytes and headers.
#[track_caller]
pub fn alike(replies: &[(String, Reply)]) {
    for pair in replies.windows(2) {
        let seen = |reply: &Reply| (reply.status, format!("{:?}", reply.headers), reply.body.clone());
        let ((name, one), (other_name, other)) = (&pair[0], &pair[1]);
        assert!(seen(one) == seen(other), "{name}: {one:?}\n{other_name}: {other:?}");
    }
}

/// Asserts that the server takes this for no code, and gives the answer back for comparing. The client should send a
/// request id.
pub async fn refused(client: &Client, path: &str, body: Value) -> (String, Reply) {
    let reply = client.post(path, body.clone()).await;
    assert_eq!(reply.status, 400, "{path} {body}: {}", String::from_utf8_lossy(&reply.body));
    (format!("{path} {body}"), reply.is_problem(400, "invalid_code"))
}
