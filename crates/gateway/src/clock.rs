//! The only reader of wall time.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// Tells the time. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// The time of a clock that stands; absent where the machine's time is told.
    stopped_ms: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands until it is set: for tests.
    pub fn stopped(now_ms: i64) -> Self {
        Self {
            stopped_ms: Some(Arc::new(AtomicI64::new(now_ms))),
        }
    }

    /// Sets a stopped clock, and all its clones. The machine's clock stays as it is.
    pub fn set(&self, now_ms: i64) {
        if let Some(stopped_ms) = &self.stopped_ms {
            stopped_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> i64 {
        match &self.stopped_ms {
            Some(stopped_ms) => stopped_ms.load(Ordering::Relaxed),
            None => jiff::Timestamp::now().as_millisecond(),
        }
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

    #[test]
    fn a_stopped_clock_is_set_for_all_its_clones() {
        let clock = Clock::stopped(1);
        let clone = clock.clone();
        clock.set(2);
        assert_eq!(clone.now_ms(), 2);
    }
}
