//! How much one user may ask, and one address: nothing is limited unless it is set.
//!
//! Each is a bucket which holds `burst` requests and is refilled at the set rate (GCRA, by `governor`). What is left is told
//! in the fields of draft-ietf-httpapi-ratelimit-headers-10.

use std::{
    fmt::Debug,
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};
use poem::http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    auth::Owner,
    config::{self, Network},
    problem::Fault,
};

/// What is left of each quota.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The quotas.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// How often those are forgotten who have their whole quota again.
const SWEEP_PAUSE: Duration = Duration::from_mins(1);

/// What users and addresses may ask. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Limits(Arc<Both>);

#[derive(Debug)]
struct Both {
    user: Option<Limit<String>>,
    address: Option<Limit<IpAddr>>,
    trusted_proxies: Vec<Network>,
}

#[derive(Debug)]
struct Limit<K: Hash + Eq + Clone + Debug> {
    name: &'static str,
    burst: u32,
    per_minute: u32,
    limiter: RateLimiter<K, HashMapStateStore<K>, DefaultClock, StateInformationMiddleware>,
}

/// What a request has drawn on, and whose it is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drawn(Arc<Mutex<Account>>);

#[derive(Debug, Default)]
struct Account {
    quotas: Vec<Quotient>,
    owner: Option<Owner>,
}

/// A quota, and what is left of it.
#[derive(Debug)]
struct Quotient {
    name: &'static str,
    burst: u32,
    left: u32,
    per_minute: u32,
}

impl Limits {
    /// Those that are configured.
    #[must_use]
    pub fn new(settings: &config::Limits) -> Self {
        Self(Arc::new(Both {
            user: Limit::new("user", settings.user_requests_per_minute.get(), settings.user_burst.get()),
            address: Limit::new("address", settings.address_requests_per_minute.get(), settings.address_burst.get()),
            trusted_proxies: settings.trusted_proxies.clone(),
        }))
    }

    /// Counts a request of whoever `peer` and the headers say it comes from.
    ///
    /// # Errors
    /// The address has asked too much.
    pub fn count_address(&self, peer: SocketAddr, headers: &HeaderMap, drawn: &Drawn) -> Result<(), Fault> {
        let Some(limit) = &self.0.address else { return Ok(()) };
        limit.draw(&network(self.client(peer.ip(), headers)), drawn)
    }

    /// Counts a request of this user, whose it is from now on.
    ///
    /// # Errors
    /// The user has asked too much.
    pub fn count_user(&self, owner: &Owner, drawn: &Drawn) -> Result<(), Fault> {
        drawn.account().owner = Some(owner.clone());
        let Some(limit) = &self.0.user else { return Ok(()) };
        limit.draw(&owner.id().to_owned(), drawn)
    }

    /// The address of the client: the peer's own, unless that is a proxy that is trusted to say for whom it asks.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.0.trusted_proxies.is_empty() {
            return peer.to_canonical();
        }
        let is_trusted = |address: &IpAddr| self.0.trusted_proxies.iter().any(|network| network.contains(*address));
        let lists = headers.get_all(FORWARDED_FOR).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
        let named: Vec<_> = lists.map(|name| str::from_utf8(name).unwrap_or_default().trim()).collect();
        let mut client = peer.to_canonical();
        // From the nearest on: each may be believed about the one before it.
        for name in named.into_iter().rev() {
            let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
            let address = bare.parse().or_else(|_| name.parse().map(|address: SocketAddr| address.ip()));
            match address {
                Ok(address) if is_trusted(&client) => client = address.to_canonical(),
                _ => break,
            }
        }
        client
    }

    /// Forgets those who have their whole quota again, now and then, for ever.
    pub async fn keep_small(self) {
        loop {
            tokio::time::sleep(SWEEP_PAUSE).await;
            if let Some(limit) = &self.0.user {
                limit.forget();
            }
            if let Some(limit) = &self.0.address {
                limit.forget();
            }
        }
    }
}

impl<K: Hash + Eq + Clone + Debug> Limit<K> {
    fn new(name: &'static str, per_minute: u32, burst: u32) -> Option<Self> {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute)?).allow_burst(NonZeroU32::new(burst)?);
        let limiter = RateLimiter::hashmap(quota).with_middleware();
        Some(Self { name, burst, per_minute, limiter })
    }

    fn draw(&self, key: &K, drawn: &Drawn) -> Result<(), Fault> {
        let (left, refusal) = match self.limiter.check_key(key) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(refusal) => (0, Some(refusal)),
        };
        let Self { name, burst, per_minute, .. } = *self;
        drawn.account().quotas.push(Quotient { name, burst, left, per_minute });
        match refusal {
            None => Ok(()),
            Some(refusal) => {
                let wait = refusal.wait_time_from(DefaultClock::default().now());
                Err(Fault::TooManyRequests { whose: name, wait_secs: wait.as_secs() + 1 })
            }
        }
    }

    fn forget(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl Drawn {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose request it is, if a token has said so.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.account().owner.clone()
    }

    /// Says in the headers of the answer what is left.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let quotas = &self.account().quotas;
        if quotas.is_empty() {
            return;
        }
        let list = |of: fn(&Quotient) -> String| {
            let items: Vec<_> = quotas.iter().map(of).collect();
            HeaderValue::try_from(items.join(", ")).expect("names and numbers are printable")
        };
        headers.insert(RATE_LIMIT, list(Quotient::left));
        headers.insert(RATE_LIMIT_POLICY, list(Quotient::policy));
    }
}

impl Quotient {
    /// How long it takes until so many requests are there again, in seconds.
    fn refill_secs(&self, requests: u32) -> u64 {
        (u64::from(requests) * 60).div_ceil(u64::from(self.per_minute))
    }

    fn left(&self) -> String {
        format!(r#""{}";r={};t={}"#, self.name, self.left, self.refill_secs(self.burst - self.left.min(self.burst)))
    }

    fn policy(&self) -> String {
        format!(r#""{}";q={};w={}"#, self.name, self.burst, self.refill_secs(self.burst))
    }
}

/// Whom an address stands for: itself, or in IPv6 its network of 64 bits, which is what one customer has.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits(settings: &serde_json::Value) -> Limits {
        let mut all = serde_json::to_value(config::Limits::default()).unwrap();
        for (name, value) in settings.as_object().unwrap() {
            all[name] = value.clone();
        }
        Limits::new(&serde_json::from_value(all).unwrap())
    }

    #[test]
    fn a_quota_is_drawn_on_and_told() {
        let limits = limits(&json!({"address_requests_per_minute": 30, "address_burst": 2}));
        let peer: SocketAddr = "192.0.2.1:1000".parse().unwrap();
        let ask = |peer: &str| {
            let (drawn, mut headers) = (Drawn::default(), HeaderMap::new());
            let outcome = limits.count_address(peer.parse().unwrap(), &HeaderMap::new(), &drawn);
            drawn.tell(&mut headers);
            let told = [RATE_LIMIT, RATE_LIMIT_POLICY].map(|name| headers[name].to_str().unwrap().to_owned());
            (outcome.map_err(|fault| fault.to_string()), told)
        };
        let told = |left: &str| [left.to_owned(), r#""address";q=2;w=4"#.to_owned()];
        assert_eq!(ask(&peer.to_string()), (Ok(()), told(r#""address";r=1;t=2"#)));
        assert_eq!(ask(&peer.to_string()), (Ok(()), told(r#""address";r=0;t=4"#)));
        let (refusal, left) = ask(&peer.to_string());
        assert_eq!(refusal.unwrap_err(), "This address has sent too many requests. Try again in 2 s.");
        assert_eq!(left, told(r#""address";r=0;t=4"#));
        // Another one has its own; one customer's in IPv6 have one.
        assert!(ask("192.0.2.2:1").0.is_ok());
        for (n, is_served) in [(1, true), (2, true), (3, false)] {
            assert_eq!(ask(&format!("[2001:db8::{n}]:1")).0.is_ok(), is_served);
        }
        limits.0.address.as_ref().unwrap().forget();
        assert_eq!(limits.0.address.as_ref().unwrap().limiter.len(), 3);
    }

    #[test]
    fn what_is_not_set_is_not_limited() {
        let (limits, drawn) = (limits(&json!({})), Drawn::default());
        for _ in 0..1000 {
            limits.count_address(([127, 0, 0, 1], 1).into(), &HeaderMap::new(), &drawn).unwrap();
        }
        let mut headers = HeaderMap::new();
        drawn.tell(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn only_a_trusted_proxy_says_for_whom_it_asks() {
        let limits = limits(&json!({"trusted_proxies": ["10.0.0.0/8", "::1"]}));
        for (peer, forwarded, expected) in [
            ("192.0.2.1", vec!["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.7"], "198.51.100.7"),
            ("::1", vec!["198.51.100.7:4321"], "198.51.100.7"),
            ("::ffff:10.0.0.1", vec!["2001:db8::1"], "2001:db8::1"),
            // The client's own claim stands further off than what the proxy has added.
            ("10.0.0.1", vec!["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["1.1.1.1", "198.51.100.7, 10.9.9.9"], "198.51.100.7"),
            ("10.0.0.1", vec!["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", vec!["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", vec!["é, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["unknown"], "10.0.0.1"),
            ("10.0.0.1", vec!["1.1.1.1, unknown"], "10.0.0.1"),
        ] {
            let headers = forwarded.iter().map(|list| (FORWARDED_FOR, HeaderValue::from_str(list).unwrap())).collect();
            let client = limits.client(peer.parse().unwrap(), &headers);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }
}
