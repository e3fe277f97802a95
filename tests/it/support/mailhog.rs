//! `MailHog`, a mail server that is not ours, as `scripts/test` starts one.

use std::fmt::Write;

use serde_json::Value;

use super::{Client, smtp::Received};

pub struct MailHog {
    smtp: String,
    /// `host:port` of its API.
    api: String,
}

impl MailHog {
    /// Says so when there is none.
    pub fn missing() -> Option<&'static str> {
        Self::from_env().is_none().then_some("LATCHKEY_TEST_MAILHOG is not set; scripts/test sets it")
    }

    /// The one of `LATCHKEY_TEST_MAILHOG` (`smtp://host:port,http://host:port`), if there is one.
    #[expect(clippy::disallowed_methods, reason = "tests have settings of their own")]
    pub fn from_env() -> Option<Self> {
        let given = std::env::var("LATCHKEY_TEST_MAILHOG").ok().filter(|given| !given.is_empty())?;
        let mut urls = given.split(',').map(|url| url.trim().trim_end_matches('/'));
        match (urls.next(), urls.next().and_then(|url| url.strip_prefix("http://")), urls.next()) {
            (Some(smtp), Some(api), None) if smtp.starts_with("smtp://") => {
                Some(Self { smtp: smtp.to_owned(), api: api.to_owned() })
            }
            _ => panic!("LATCHKEY_TEST_MAILHOG is smtp://host:port,http://host:port, not {given}"),
        }
    }

    pub fn smtp_url(&self) -> String {
        self.smtp.clone()
    }

    /// What came for an address, the oldest first.
    pub async fn mails_to(&self, address: &str) -> Vec<Received> {
        let mut api = tokio::net::lookup_host(&self.api).await.expect("a host that can be found");
        let client = Client::at(api.next().expect("an address"));
        let path = format!("/api/v2/search?kind=to&query={}&limit=250", escaped(address));
        let found = client.get(&path).await.is(200).json();
        let items = found["items"].as_array().expect("a list of mails");
        // Its search finds ann@example.com in joann@example.com as well, and gives the newest first.
        items.iter().rev().map(received).filter(|mail| mail.to.iter().any(|to| to == address)).collect()
    }
}

fn received(item: &Value) -> Received {
    let raw = &item["Raw"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let to = raw["To"].as_array().into_iter().flatten().map(text).collect();
    Received { from: text(&raw["From"]), to, ..Received::from_raw(&text(&raw["Data"])) }
}

/// A value in a query.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut query, byte| {
        if byte.is_ascii_alphanumeric() {
            query.push(char::from(byte));
        } else {
            let _ = write!(query, "%{byte:02X}");
        }
        query
    })
}
