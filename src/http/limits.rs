//! The first line of limits: so many requests a client network, in each process (`security.md` §5).
//!
//! tower-governor (GCRA) does the counting. The key is the client's network, folded into one of 2¹⁸ slots by SipHash under
//! a key of this process: memory is bounded whatever the number of clients, and nobody can choose whom to collide with. An
//! IPv6 client has a /64 to itself and often a whole /48, so that one is counted as well, at eight times the rate. All
//! /64s of a /48 are folded into the same 2¹⁰ slots, and none of them into one of IPv4: who has a /48 and asks from all of
//! it empties no slots of others.
//!
//! Clients learn their limits from `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), made from
//! the governor's own state, which it tells in fields of another name.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use governor::middleware::{NoOpMiddleware, StateInformationMiddleware};
use tower_governor::{
    GovernorError, GovernorLayer,
    governor::{GovernorConfig, GovernorConfigBuilder},
    key_extractor::KeyExtractor,
};
use utoipa_axum::router::OpenApiRouter;

use super::context::ClientAddress;
use crate::{
    app::App,
    config::LimitSettings,
    error::{ApiError, Code},
    metrics::{Counters, Policy, Words},
};

const SLOTS: u64 = 1 << 18;
/// Slots that the /64s of one /48 are folded into.
const SLOTS_OF_ONE: u64 = 1 << 10;
/// How much more a /48 may ask than one /64 of it.
const WIDER: u32 = 8;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// So many in a period, so many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a period.
    pub count: NonZeroU32,
    /// The period.
    pub period: Duration,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
}

/// The limits of every kind of route; `None` is off.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// `/register`.
    pub register: Option<Limit>,
    /// `/login`.
    pub login: Option<Limit>,
    /// `/refresh`.
    pub refresh: Option<Limit>,
    /// `/logout`.
    pub logout: Option<Limit>,
    /// Whatever asks for a code or takes one, together.
    pub codes: Option<Limit>,
}

impl Limits {
    /// As the settings say; what is over one is counted in `hits`.
    #[must_use]
    pub fn new(settings: &LimitSettings, hits: &Counters<Policy>) -> Self {
        let limit = |policy, quota: Option<Quota>| quota.and_then(|quota| Limit::new(policy, quota, hits));
        Self {
            register: limit(Policy::Register, settings.register),
            login: limit(Policy::Login, settings.login),
            refresh: limit(Policy::Refresh, settings.refresh),
            logout: limit(Policy::Logout, settings.logout),
            codes: limit(Policy::Codes, settings.codes),
        }
    }
}

/// One limit, with its counters.
#[derive(Clone, Debug)]
pub struct Limit {
    policy: HeaderValue,
    told: Arc<Told>,
    narrow: Arc<GovernorConfig<Network, StateInformationMiddleware>>,
    wide: Arc<GovernorConfig<Network, NoOpMiddleware>>,
}

#[derive(Debug)]
struct Told {
    policy: Policy,
    window: u64,
    hits: Counters<Policy>,
}

impl Limit {
    fn new(policy: Policy, quota: Quota, hits: &Counters<Policy>) -> Option<Self> {
        let hasher = RandomState::new();
        let count = quota.count.get();
        let narrow = GovernorConfigBuilder::default()
            .key_extractor(Network { hasher: hasher.clone(), bits: 64 })
            .period(quota.period / count)
            .burst_size(quota.burst.get())
            .use_headers()
            .finish()?;
        let wide = GovernorConfigBuilder::default()
            .key_extractor(Network { hasher, bits: 48 })
            .period(quota.period / count.saturating_mul(WIDER))
            .burst_size(quota.burst.get().saturating_mul(WIDER))
            .finish()?;
        let window = quota.period.as_secs();
        Some(Self {
            policy: HeaderValue::from_str(&format!("\"{}\";q={count};w={window}", policy.word())).ok()?,
            told: Arc::new(Told { policy, window, hits: hits.clone() }),
            narrow: Arc::new(narrow),
            wide: Arc::new(wide),
        })
    }

    /// Puts this limit before the routes. The same limit before other routes counts with them.
    pub fn before(limit: Option<&Self>, routes: OpenApiRouter<App>) -> OpenApiRouter<App> {
        let Some(limit) = limit else { return routes };
        let refuse = |told: Arc<Told>| move |error| refuse(&told, error);
        let (first, second) = (refuse(Arc::clone(&limit.told)), refuse(Arc::clone(&limit.told)));
        let narrow = GovernorLayer::<_, _, Body>::new(Arc::clone(&limit.narrow)).error_handler(first);
        let wide = GovernorLayer::<_, _, Body>::new(Arc::clone(&limit.wide)).error_handler(second);
        routes.layer(wide).layer(narrow).layer(middleware::from_fn_with_state(limit.clone(), tell))
    }
}

fn refuse(told: &Told, error: GovernorError) -> Response {
    let GovernorError::TooManyRequests { wait_time, headers } = error else {
        return ApiError::from(Code::Internal).into_response();
    };
    told.hits.add(told.policy);
    // The governor cuts the wait down to whole seconds; who comes then would come too early.
    let mut response = ApiError::after(Code::RateLimited, Duration::from_secs(wait_time + 1)).into_response();
    response.headers_mut().extend(headers.unwrap_or_default());
    response
}

/// Says in the draft's fields what the governor said in its own.
async fn tell(State(limit): State<Limit>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let remaining = headers.remove("x-ratelimit-remaining").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let after = headers.remove("x-ratelimit-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    headers.remove("x-ratelimit-limit");
    if after.is_some() {
        headers.remove("retry-after");
    }
    // What is left can be used within the window; when nothing is left, more comes after the wait.
    let remaining = remaining.filter(|_| after.is_none()).unwrap_or(0);
    let reset = after.map_or(limit.told.window, |wait| wait + 1);
    if let Ok(state) = HeaderValue::from_str(&format!("\"{}\";r={remaining};t={reset}", limit.told.policy.word())) {
        headers.insert(STATE, state);
    }
    headers.insert(POLICY, limit.policy);
    response
}

/// Whether it is of IPv6, and its number.
type Slot = (bool, u64);

/// The slot of a client's network: an IPv4 address, or so many bits of an IPv6 one.
#[derive(Clone, Debug)]
struct Network {
    hasher: RandomState,
    bits: u8,
}

impl Network {
    fn slot(&self, address: IpAddr) -> Slot {
        match address.to_canonical() {
            IpAddr::V4(address) => (false, self.hasher.hash_one(address) % SLOTS),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                let place = self.hasher.hash_one(bits >> (128 - 48));
                let within = self.hasher.hash_one(bits >> (128 - self.bits)) % SLOTS_OF_ONE;
                (true, place.wrapping_add(within) % SLOTS)
            }
        }
    }
}

impl KeyExtractor for Network {
    type Key = Slot;

    fn extract<T>(&self, request: &axum::http::Request<T>) -> Result<Slot, GovernorError> {
        let address = request.extensions().get::<ClientAddress>().ok_or(GovernorError::UnableToExtractKey)?;
        Ok(self.slot(address.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(bits: u8, addresses: impl IntoIterator<Item = String>, hasher: &RandomState) -> Vec<Slot> {
        let network = Network { hasher: hasher.clone(), bits };
        addresses.into_iter().map(|address| network.slot(address.parse().unwrap())).collect()
    }

    #[test]
    fn a_network_is_one_slot_and_others_are_other_slots() {
        let hasher = RandomState::new();
        let one = slots(64, ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:0:3::"].map(String::from), &hasher);
        assert!(one.windows(2).all(|pair| pair[0] == pair[1]));
        let mapped = slots(64, ["192.0.2.1", "::ffff:192.0.2.1"].map(String::from), &hasher);
        assert_eq!(mapped[0], mapped[1]);
        let wide = slots(48, ["2001:db8:1:1::1", "2001:db8:1:ffff::2"].map(String::from), &hasher);
        assert_eq!(wide[0], wide[1]);
        let mut others = slots(64, (0..1000).map(|n| format!("2001:db8:1:{n:x}::1")), &hasher);
        others.extend(slots(64, (0..1000).map(|n| format!("192.0.{}.{}", n / 250, n % 250)), &hasher));
        others.sort_unstable();
        others.dedup();
        assert!(others.len() > 1500, "few collide, but for those of one /48: {}", others.len());
    }

    #[test]
    fn a_million_addresses_fit_into_bounded_memory() {
        let limit = Limit::new(
            Policy::Login,
            Quota { count: 60.try_into().unwrap(), period: Duration::from_secs(60), burst: 60.try_into().unwrap() },
            &Counters::default(),
        )
        .unwrap();
        let network = Network { hasher: RandomState::new(), bits: 64 };
        for number in 0..1_000_000_u32 {
            let _ = limit.narrow.limiter().check_key(&network.slot(IpAddr::from(number.to_be_bytes())));
        }
        let held = limit.narrow.limiter().len();
        assert!(held <= usize::try_from(SLOTS).unwrap(), "{held}");
        let all_of_one = (0..65_536).map(|n| format!("2001:db8:1:{n:x}::1"));
        let mut touched = slots(64, all_of_one, &RandomState::new());
        touched.sort_unstable();
        touched.dedup();
        assert!(touched.len() <= 1024 && touched.iter().all(|slot| slot.0), "{}", touched.len());
    }
}
