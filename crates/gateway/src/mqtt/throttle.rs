//! Failed logins and connections, counted per address and per client id. Pure but for its locks.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use crate::limits;

/// Token buckets of failed logins: each key may fail so many times at once, and once more per
/// refill time. Only failures cost: a fleet behind one address that logs in well is never slowed.
pub(crate) struct FailedLogins<K> {
    buckets: Mutex<HashMap<K, Bucket>>,
    burst: u32,
    refill: Duration,
    tracked_max: usize,
}

#[derive(Clone, Copy)]
struct Bucket {
    failures: u32,
    since: Instant,
}

impl<K: Eq + Hash> FailedLogins<K> {
    pub(crate) fn new(limits: &limits::Mqtt) -> Self {
        Self {
            buckets: Mutex::default(),
            burst: limits.failed_logins_burst,
            refill: Duration::from_secs(limits.failed_login_refill_s),
            tracked_max: limits.failed_logins_tracked_max,
        }
    }

    pub(crate) fn is_throttled(&self, key: &K) -> bool {
        let mut buckets = self.buckets.lock();
        let Some(bucket) = buckets.get_mut(key) else {
            return false;
        };
        bucket.drain(self.refill);
        if bucket.failures == 0 {
            buckets.remove(key);
            return false;
        }
        bucket.failures >= self.burst
    }

    pub(crate) fn failed(&self, key: K) {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= self.tracked_max && !buckets.contains_key(&key) {
            let refill = self.refill;
            buckets.retain(|_, bucket| {
                bucket.drain(refill);
                bucket.failures > 0
            });
            if buckets.len() >= self.tracked_max {
                // An attack from more addresses than are tracked: forget them all, and start again
                // rather than let one of them in the table for ever and the others never.
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            failures: 0,
            since: Instant::now(),
        });
        bucket.drain(self.refill);
        bucket.failures = bucket.failures.saturating_add(1).min(self.burst);
    }
}

impl Bucket {
    /// Forgives one failure per refill time that has passed.
    fn drain(&mut self, refill: Duration) {
        while self.failures > 0 && self.since.elapsed() >= refill {
            self.failures -= 1;
            self.since += refill;
        }
        if self.failures == 0 {
            self.since = Instant::now();
        }
    }
}

/// How many of something each address holds. Its parts are given back by dropping them.
#[derive(Default)]
pub(crate) struct Addresses {
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// One of the things that an address holds.
pub(crate) struct Held {
    address: IpAddr,
    of: Arc<Addresses>,
}

impl Addresses {
    /// One more for this address, unless it has `max` already.
    pub(crate) fn hold(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Held> {
        let address = network(address);
        let mut held = self.held.lock();
        let count = held.entry(address).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Held {
            address,
            of: Arc::clone(self),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.of.held.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: of IPv6 the /64 that a subscriber owns, since it can use any of it.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_are_throttled_and_forgiven_one_by_one() {
        let logins = FailedLogins::new(&limits::Mqtt::default());
        for _ in 0..10 {
            assert!(!logins.is_throttled(&1));
            logins.failed(1);
        }
        assert!(logins.is_throttled(&1));
        assert!(!logins.is_throttled(&2));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!logins.is_throttled(&1));
        logins.failed(1);
        assert!(logins.is_throttled(&1));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!logins.is_throttled(&1));
        assert!(
            logins.buckets.lock().is_empty(),
            "a forgiven key is forgotten"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_failures_is_bounded() {
        let logins = FailedLogins::new(&limits::Mqtt {
            failed_logins_tracked_max: 10,
            ..limits::Mqtt::default()
        });
        for key in 0..1_000 {
            logins.failed(key);
            assert!(logins.buckets.lock().len() <= 10);
        }
    }

    #[test]
    fn an_address_gives_back_what_it_drops() {
        let addresses = Arc::new(Addresses::default());
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let first = addresses.hold(address, 1);
        assert!(first.is_some());
        assert!(
            addresses.hold(neighbour, 1).is_none(),
            "one /64 is one address"
        );
        drop(first);
        assert!(addresses.hold(neighbour, 1).is_some());
        assert!(addresses.held.lock().is_empty());
    }
}
