//! Connects and failed logins, in number and by time, per address, client id or channel. Pure but for
//! its locks.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Token buckets: each key may do something so many times at once, and once more per refill time.
pub(crate) struct Budget<K> {
    buckets: Mutex<HashMap<K, Bucket>>,
    burst: u32,
    refill: Duration,
    tracked_max: usize,
}

#[derive(Clone, Copy)]
struct Bucket {
    spent: u32,
    since: Instant,
    /// That it is spent has been told.
    is_told: bool,
}

/// What a key has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Some,
    /// Nothing. The first time that somebody hears of it, and worth a line in a log.
    NoneAtFirst,
    None,
}

impl<K: Eq + Hash> Budget<K> {
    pub(crate) fn new(burst: u32, refill: Duration, tracked_max: usize) -> Self {
        Self {
            buckets: Mutex::default(),
            burst,
            refill,
            tracked_max,
        }
    }

    pub(crate) fn left(&self, key: &K) -> Left {
        let mut buckets = self.buckets.lock();
        let Some(bucket) = buckets.get_mut(key) else {
            return Left::Some;
        };
        bucket.refill(self.refill);
        if bucket.spent == 0 {
            buckets.remove(key);
            return Left::Some;
        }
        if bucket.spent < self.burst {
            bucket.is_told = false;
            return Left::Some;
        }
        if std::mem::replace(&mut bucket.is_told, true) {
            Left::None
        } else {
            Left::NoneAtFirst
        }
    }

    pub(crate) fn spend(&self, key: K) {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= self.tracked_max && !buckets.contains_key(&key) {
            let refill = self.refill;
            buckets.retain(|_, bucket| {
                bucket.refill(refill);
                bucket.spent > 0
            });
            if buckets.len() >= self.tracked_max {
                // An attack from more addresses than are tracked: forget them all, and start again
                // rather than let one of them in the table for ever and the others never.
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            spent: 0,
            since: Instant::now(),
            is_told: false,
        });
        bucket.refill(self.refill);
        bucket.spent = bucket.spent.saturating_add(1).min(self.burst);
    }
}

impl Bucket {
    /// Gives one back per refill time that has passed.
    fn refill(&mut self, refill: Duration) {
        while self.spent > 0 && self.since.elapsed() >= refill {
            self.spent -= 1;
            self.since += refill;
        }
        if self.spent == 0 {
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

    fn budget(tracked_max: usize) -> Budget<u32> {
        Budget::new(10, Duration::from_secs(6), tracked_max)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_spent_comes_back_one_by_one_and_is_told_once() {
        let budget = budget(1_000);
        for _ in 0..10 {
            assert_eq!(budget.left(&1), Left::Some);
            budget.spend(1);
        }
        assert_eq!(budget.left(&1), Left::NoneAtFirst);
        assert_eq!(budget.left(&1), Left::None);
        assert_eq!(budget.left(&2), Left::Some);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(budget.left(&1), Left::Some);
        budget.spend(1);
        assert_eq!(budget.left(&1), Left::NoneAtFirst);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(budget.left(&1), Left::Some);
        assert!(budget.buckets.lock().is_empty(), "who has all is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let budget = budget(10);
        for key in 0..1_000 {
            budget.spend(key);
            assert!(budget.buckets.lock().len() <= 10);
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
