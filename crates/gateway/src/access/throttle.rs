//! How often somebody may try to sign in: failures of one address or for one name cost more and
//! more waiting.

use std::{collections::HashMap, net::IpAddr};

use super::AccessError;

/// Failures in a row before one has to wait.
const FREE: u32 = 5;
/// The longest wait; doubled from a second on.
const WAIT_S_MAX: u64 = 60;
/// Names and addresses that are remembered; beyond, those that may try again anyway are forgotten,
/// and then all.
const TRACKED_MAX: usize = 10_000;
/// A failure is forgotten after so long without another.
const FORGET_AFTER_MS: i64 = 15 * 60 * 1_000;

/// Failed attempts by name and by address.
#[derive(Default)]
pub(super) struct Attempts {
    failures: HashMap<String, Failures>,
}

struct Failures {
    count: u32,
    last_ms: i64,
}

impl Failures {
    fn free_again_ms(&self) -> i64 {
        let doublings = self.count.saturating_sub(FREE);
        let wait_s = match self.count {
            count if count < FREE => 0,
            _ => 1_u64
                .checked_shl(doublings)
                .map_or(WAIT_S_MAX, |wait| wait.min(WAIT_S_MAX)),
        };
        self.last_ms + i64::try_from(wait_s).unwrap_or(0) * 1_000
    }
}

impl Attempts {
    /// What an attempt is remembered by.
    pub(super) fn of(name: &str, address: Option<IpAddr>) -> Vec<String> {
        let name: String = name.chars().take(64).collect();
        let by_address = address.map(|address| format!("address {address}"));
        [Some(format!("name {name}")), by_address]
            .into_iter()
            .flatten()
            .collect()
    }

    /// # Errors
    /// [`AccessError::Throttled`].
    pub(super) fn admit(&self, keys: &[String], now_ms: i64) -> Result<(), AccessError> {
        let known = keys.iter().filter_map(|key| self.failures.get(key));
        let free_again_ms = known.map(Failures::free_again_ms).max().unwrap_or(0);
        match u64::try_from(free_again_ms - now_ms) {
            Ok(wait_ms) if wait_ms > 0 => Err(AccessError::Throttled {
                wait_s: wait_ms.div_ceil(1_000),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn failed(&mut self, keys: &[String], now_ms: i64) {
        if self.failures.len() + keys.len() > TRACKED_MAX {
            self.failures
                .retain(|_, failures| failures.free_again_ms() > now_ms);
        }
        if self.failures.len() + keys.len() > TRACKED_MAX {
            self.failures.clear();
        }
        for key in keys {
            let failures = self.failures.entry(key.clone()).or_insert(Failures {
                count: 0,
                last_ms: now_ms,
            });
            if now_ms - failures.last_ms > FORGET_AFTER_MS {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last_ms = now_ms;
        }
    }

    pub(super) fn succeeded(&mut self, keys: &[String]) {
        for key in keys {
            self.failures.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_s(attempts: &Attempts, keys: &[String], now_ms: i64) -> u64 {
        match attempts.admit(keys, now_ms) {
            Ok(()) => 0,
            Err(AccessError::Throttled { wait_s }) => wait_s,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_wait_doubles_after_five_failures_and_a_success_ends_it() {
        let (mut attempts, keys) = (Attempts::default(), Attempts::of("mei", None));
        let mut waits = Vec::new();
        for _ in 0..13 {
            attempts.failed(&keys, 0);
            waits.push(wait_s(&attempts, &keys, 0));
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(wait_s(&attempts, &keys, 59_001), 1);
        assert_eq!(wait_s(&attempts, &keys, 60_000), 0);
        attempts.succeeded(&keys);
        assert_eq!(wait_s(&attempts, &keys, 0), 0);
    }

    #[test]
    fn an_address_is_throttled_whatever_names_it_tries() {
        let mut attempts = Attempts::default();
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        for name in ["a", "b", "c", "d", "e"] {
            attempts.failed(&Attempts::of(name, address), 0);
        }
        assert_eq!(wait_s(&attempts, &Attempts::of("f", address), 0), 1);
        assert_eq!(wait_s(&attempts, &Attempts::of("f", None), 0), 0);
    }
}
