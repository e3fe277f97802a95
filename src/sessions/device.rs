//! What a person signed in from, as two small codes out of the `User-Agent`.
//!
//! Only what helps a person recognise a sign-in: a family of browsers and a family of systems. No versions, no models:
//! they change weekly, and a session record has two bytes for this. The codes are stored: append, never renumber.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{app::App, ephemeral::Device};

/// Devices of a person that are remembered.
const MOST_REMEMBERED: usize = 20;

const BROWSER_NAMES: &[&str] = &["", "Edge", "Opera", "Samsung Internet", "Firefox", "Chrome", "Safari", "curl"];
const SYSTEM_NAMES: &[&str] = &["", "Android", "iPhone", "iPad", "Windows", "macOS", "ChromeOS", "Linux"];

/// In the order of asking: most browsers name others in their own line, so the more particular word comes first.
const BROWSERS: &[(&[u8], u8)] = &[
    (b"Edg", 1),
    (b"OPR/", 2),
    (b"SamsungBrowser", 3),
    (b"Firefox", 4),
    (b"FxiOS", 4),
    (b"CriOS", 5),
    (b"Chrome", 5),
    (b"Safari", 6),
    (b"curl/", 7),
];

const SYSTEMS: &[(&[u8], u8)] =
    &[(b"Android", 1), (b"iPhone", 2), (b"iPad", 3), (b"Windows", 4), (b"Mac OS X", 5), (b"CrOS", 6), (b"Linux", 7)];

/// The codes for a `User-Agent`; zero is "something else".
pub(super) fn of(user_agent: &[u8]) -> Device {
    let code = |table: &[(&[u8], u8)]| {
        let found = table.iter().find(|(word, _)| user_agent.windows(word.len()).any(|part| part == *word));
        found.map_or(0, |(_, code)| *code)
    };
    Device { browser: code(BROWSERS), system: code(SYSTEMS) }
}

/// The device in words a person knows: "Firefox on Linux". Empty when nothing is known of it.
pub(super) fn words(device: Device) -> String {
    let name = |names: &[&'static str], code: u8| names.get(usize::from(code)).copied().unwrap_or_default();
    match (name(BROWSER_NAMES, device.browser), name(SYSTEM_NAMES, device.system)) {
        ("", only) | (only, "") => only.to_owned(),
        (browser, system) => format!("{browser} on {system}"),
    }
}

/// The device in words a person knows, if anything is known of it.
#[must_use]
pub fn in_words(device: Device) -> Option<String> {
    Some(words(device)).filter(|words| !words.is_empty())
}

/// Puts a device to the front of those that a person signed in from, and tells whether it was among them.
///
/// A device is its browser, its system and the wider network it comes from (/16, /32): without a credential of its own it
/// can be no more, and a mail too many does less harm than one too few. What is kept cannot be read back.
pub(super) fn remember(
    app: &App,
    person: Uuid,
    device: Device,
    address: IpAddr,
    mut known: Vec<String>,
) -> (Vec<String>, bool) {
    let mut material = person.as_bytes().to_vec();
    material.extend([device.browser, device.system]);
    match address.to_canonical() {
        IpAddr::V4(address) => material.extend(&address.octets()[..2]),
        IpAddr::V6(address) => material.extend(&address.octets()[..4]),
    }
    let names: Vec<String> =
        app.secrets.throttles(&material).map(|name| format!("{:016x}", u64::from_be_bytes(name))).collect();
    let before = known.len();
    known.retain(|one| !names.contains(one));
    let was_known = known.len() < before;
    known.splice(0..0, names.into_iter().take(1));
    known.truncate(MOST_REMEMBERED);
    (known, was_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_browsers_are_told_apart() {
        for (text, browser, system) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", 4, 7),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                1,
                4,
            ),
            (
                "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
                5,
                1,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1",
                6,
                2,
            ),
            ("curl/8.9.1", 7, 0),
            ("", 0, 0),
        ] {
            assert_eq!(of(text.as_bytes()), Device { browser, system }, "{text}");
        }
    }
}
