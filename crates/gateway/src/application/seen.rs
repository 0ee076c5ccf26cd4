//! What was asked for before, within a window of time: bounded, and never silently forgetful. Pure.

use std::collections::{HashSet, VecDeque};

use sha2::{Digest, Sha256};

/// No more can be remembered now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Digests of requests, each until a moment. The moments of later requests are later, so that those
/// that have passed stand in front.
pub(super) struct Seen {
    known: HashSet<[u8; 32]>,
    order: VecDeque<(i64, [u8; 32])>,
    max: usize,
}

impl Seen {
    pub(super) fn new(max: usize) -> Self {
        Self {
            known: HashSet::new(),
            order: VecDeque::new(),
            max,
        }
    }

    /// Whether this is new; remembers it until then.
    pub(super) fn first_time(
        &mut self,
        parts: &[&[u8]],
        now_ms: i64,
        until_ms: i64,
    ) -> Result<bool, Full> {
        while let Some((until, digest)) = self.order.front()
            && *until <= now_ms
        {
            self.known.remove(digest);
            self.order.pop_front();
        }
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        if self.known.contains(&digest) {
            return Ok(false);
        }
        if self.known.len() >= self.max {
            return Err(Full);
        }
        self.known.insert(digest);
        self.order.push_back((until_ms, digest));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_new_once_within_its_window_and_the_memory_is_bounded() {
        let mut seen = Seen::new(2);
        assert_eq!(seen.first_time(&[b"a", b"b"], 0, 10), Ok(true));
        assert_eq!(seen.first_time(&[b"a", b"b"], 9, 20), Ok(false));
        assert_eq!(seen.first_time(&[b"ab", b""], 9, 20), Ok(true));
        assert_eq!(seen.first_time(&[b"c"], 9, 20), Err(Full));
        assert_eq!(seen.first_time(&[b"a", b"b"], 10, 20), Ok(true));
        assert!(seen.known.len() <= 2 && seen.order.len() <= 2);
    }
}
