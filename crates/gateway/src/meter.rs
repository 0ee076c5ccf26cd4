//! How many a second, over the last minute.

const BUCKET_MS: i64 = 5_000;
const BUCKETS: i64 = 12;

/// Counts by five seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meter {
    counts: [u64; 12],
    /// The bucket counted into last, since 1970.
    at: i64,
}

impl Meter {
    pub(crate) fn add(&mut self, count: usize, now_ms: i64) {
        self.turn(now_ms);
        self.counts[slot(self.at)] += count as u64;
    }

    /// A second, over the last minute.
    pub(crate) fn rate(mut self, now_ms: i64) -> f64 {
        self.turn(now_ms);
        let count: u64 = self.counts.iter().sum();
        let counted_ms = BUCKET_MS * (BUCKETS - 1) + now_ms.rem_euclid(BUCKET_MS);
        count as f64 * 1_000.0 / counted_ms as f64
    }

    /// Empties the buckets that have passed.
    fn turn(&mut self, now_ms: i64) {
        let now = now_ms.div_euclid(BUCKET_MS);
        let passed = (now - self.at).clamp(0, BUCKETS);
        for step in 0..passed {
            self.counts[slot(now - step)] = 0;
        }
        self.at = self.at.max(now);
    }
}

fn slot(bucket: i64) -> usize {
    usize::try_from(bucket.rem_euclid(BUCKETS)).expect("a remainder is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_counted_and_forgotten() {
        let mut meter = Meter::default();
        let start = 1_700_000_000_000;
        for second in 0..120 {
            meter.add(10, start + second * 1_000);
        }
        let rate = meter.rate(start + 120_000);
        assert!((9.0..=11.0).contains(&rate), "{rate}");
        assert!(meter.rate(start + 200_000).abs() < f64::EPSILON);
    }
}
