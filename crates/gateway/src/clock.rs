//! The only reader of wall time.

use std::sync::atomic::{AtomicI64, Ordering};

/// Tells the time; tests set it.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 UTC.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }
}

/// A clock that stands until it is set.
#[derive(Debug, Default)]
pub struct StoppedClock(AtomicI64);

impl StoppedClock {
    pub fn at(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }
}

impl Clock for StoppedClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An instant as ISO-8601 UTC with milliseconds, such as `2014-03-30T01:00:00.000Z`.
pub fn iso(time_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(time_ms) {
        Ok(time) => format!("{time:.3}"),
        // Beyond year 9999 there is no such text; the number says it as well.
        Err(_) => time_ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_prints_with_its_milliseconds() {
        assert_eq!(iso(1_396_141_200_000), "2014-03-30T01:00:00.000Z");
        assert_eq!(iso(i64::MAX), i64::MAX.to_string());
    }
}
