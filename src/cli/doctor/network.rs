//! What stands before the server: proxies, TLS, and who reaches the internal listener.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Finding;
use crate::config::Config;

const NAME: &str = "network";

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let trusted = &config.proxies.networks;
    if config.public_url.is_https() && trusted.is_empty() {
        let found = "the public URL is https and no proxy is trusted: behind one, all clients would share its address and \
                     its limits";
        let mend = "set LATCHKEY_TRUSTED_PROXIES to the proxy's address; `latchkey doctor --explain-address` tells what \
                    comes of it";
        findings.push(Finding::warning(NAME, found, mend));
    }
    for network in trusted.iter().filter(|network| is_wide(network)) {
        let found = format!("{network} is trusted: whoever is in it chooses the address that limits and logs go by");
        findings.push(Finding::warning(NAME, found, "name the proxies alone in LATCHKEY_TRUSTED_PROXIES"));
    }
    if let Some(internal) = config.internal_listen.filter(|internal| is_public(internal.ip())) {
        let found =
            format!("the internal listener is at {internal}: /metrics and /health/ready are for nobody outside");
        findings.push(Finding::warning(NAME, found, "set LATCHKEY_INTERNAL_LISTEN to a private address"));
    }
    if findings.is_empty() {
        let trusted: Vec<String> = trusted.iter().map(ToString::to_string).collect();
        let trusted = if trusted.is_empty() { "no proxy is".to_owned() } else { format!("{} are", trusted.join(", ")) };
        findings.push(Finding::ok(NAME, format!("{trusted} trusted about a client's address")));
    }
    findings
}

/// More than an organization has, and not of the networks that nobody routes.
fn is_wide(network: &IpNet) -> bool {
    match network {
        IpNet::V4(v4) => v4.prefix_len() < 8 || v4.prefix_len() < 16 && !v4.network().is_private(),
        IpNet::V6(v6) => v6.prefix_len() < 32 && !v6.network().is_unique_local(),
    }
}

/// An address of this machine that others may reach from anywhere.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // Every address of the machine: in a container that is right, and the publishing of ports decides.
        ip if ip.is_unspecified() => false,
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_hold_strangers_are_wide() {
        for (network, wide) in [
            ("10.0.0.0/8", false),
            ("172.16.0.0/12", false),
            ("192.0.2.7/32", false),
            ("0.0.0.0/1", true),
            ("8.0.0.0/8", true),
            ("10.0.0.0/7", true),
            ("fd00::/8", false),
            ("2001:db8::/32", false),
            ("2000::/3", true),
        ] {
            assert_eq!(is_wide(&network.parse().unwrap()), wide, "{network}");
        }
    }

    #[test]
    fn an_internal_listener_may_be_private_or_everywhere() {
        for (ip, public) in [
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("0.0.0.0", false),
            ("::", false),
            ("::ffff:10.1.2.3", false),
            ("fd00::1", false),
            ("203.0.113.9", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }
}
