//! Whose address counts: a question to the settings that is easier asked than read.

use std::net::IpAddr;

use anyhow::{Context, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use clap::Args;

use crate::{config::Config, http::ProxyHeader};

#[derive(Debug, Args)]
pub(super) struct AddressQuestion {
    /// Check nothing; print the client address that these header lines ("Name: value") lead to, and why
    #[arg(long, value_name = "HEADER", num_args = 0..)]
    explain_address: Option<Vec<String>>,
    /// The other end of the socket
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS", requires = "explain_address")]
    peer: IpAddr,
}

impl AddressQuestion {
    pub fn was_asked(&self) -> bool {
        self.explain_address.is_some()
    }
}

pub(super) fn explain(config: &Config, question: &AddressQuestion) -> anyhow::Result<()> {
    let mut headers = HeaderMap::new();
    for line in question.explain_address.iter().flatten() {
        let Some((name, value)) = line.split_once(':') else {
            bail!("a header line looks like \"X-Forwarded-For: 192.0.2.1\", with a colon");
        };
        let name: HeaderName = name.trim().parse().context("this is no header name")?;
        let value = HeaderValue::from_str(value.trim()).context("this is no header value")?;
        headers.append(name, value);
    }
    let proxies = &config.proxies;
    let (address, reason) = proxies.explain(question.peer, &headers);
    let header = match proxies.header {
        ProxyHeader::XForwardedFor => "x-forwarded-for",
        ProxyHeader::Forwarded => "forwarded",
    };
    let trusted: Vec<String> = proxies.networks.iter().map(ToString::to_string).collect();
    let trusted = if trusted.is_empty() { "nobody".to_owned() } else { trusted.join(", ") };
    println!("client   {address}");
    println!("because  {reason}");
    println!("peer     {}", question.peer.to_canonical());
    println!("trusted  {trusted}");
    println!("header   {header}");
    Ok(())
}
