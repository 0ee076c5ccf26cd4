//! Quotas of channels: a message waits until its channel's share allows it, and so do those behind it
//! on its connection. That slows the client: its acknowledgements are late, and beyond what may be in
//! flight it is not read.
//!
//! A share is three token buckets (messages, points, bytes), each a second deep. A message passes
//! when none of them is in debt, and then pays: so one message of any size passes, and the rate holds
//! in the long run. Whoever waits is served in the order of coming. Recent data and backlog have
//! shares of their own, so connections that bring one do not wait for those that bring the other.
//!
//! What waits is not stored yet: when its connection goes away, the client still has it, and it is
//! let go. Of QoS 0 the client has nothing: such a message waits for `QUOTA_HOLD`, and is then refused
//! with 1274. It is in quarantine then, not lost.

use std::{collections::HashMap, sync::Arc};

use backtide_model::ChannelName;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::registry::{Quotas, Rates};

/// How long a QoS 0 message waits for its share. Below the 30 s for which the vendor's SDK waits for
/// a reply.
pub(super) const QUOTA_HOLD: Duration = Duration::from_secs(10);

/// What bursts of one connection share: they take their turn one after the other, and learn when it
/// is gone.
#[derive(Debug, Default)]
pub struct Gate {
    pub(super) turn: tokio::sync::Mutex<()>,
    gone: CancellationToken,
}

impl Gate {
    /// The connection is gone: what waits for its quota, and is still the client's, is let go.
    pub fn leave(&self) {
        self.gone.cancel();
    }

    pub(super) async fn left(&self) {
        self.gone.cancelled().await;
    }
}

/// What a message takes of its share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) points: u64,
    pub(super) bytes: u64,
}

/// The shares of all channels that have quotas.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<ChannelName, Arc<ChannelShares>>>);

#[derive(Debug)]
struct ChannelShares {
    declared: Quotas,
    backlog: Arc<Share>,
    recent: Option<Arc<Share>>,
}

impl Shares {
    /// The share of a message whose oldest value is so old; absent where it stores nothing.
    pub(super) fn of(
        &self,
        channel: &ChannelName,
        declared: Quotas,
        oldest_ago_ms: Option<i64>,
    ) -> Arc<Share> {
        let mut channels = self.0.lock();
        let shares = channels
            .entry(channel.clone())
            .or_insert_with(|| Arc::new(ChannelShares::new(declared)));
        if shares.declared != declared {
            *shares = Arc::new(ChannelShares::new(declared));
        }
        let is_recent = |within_ms: i64| oldest_ago_ms.is_some_and(|ago_ms| ago_ms <= within_ms);
        match (&shares.recent, declared.recent) {
            (Some(share), Some(recent))
                if is_recent(i64::from(recent.within_seconds.get()) * 1_000) =>
            {
                Arc::clone(share)
            }
            _ => Arc::clone(&shares.backlog),
        }
    }
}

impl ChannelShares {
    fn new(declared: Quotas) -> Self {
        Self {
            declared,
            backlog: Arc::new(Share::new(declared.rates())),
            recent: declared
                .recent
                .map(|recent| Arc::new(Share::new(recent.rates()))),
        }
    }
}

/// One share: its buckets, in the hands of whoever is next.
#[derive(Debug)]
pub(super) struct Share(tokio::sync::Mutex<Buckets>);

#[derive(Debug)]
struct Buckets {
    messages: Option<Bucket>,
    points: Option<Bucket>,
    bytes: Option<Bucket>,
    filled: Instant,
}

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// Below 0: in debt.
    level: f64,
}

impl Share {
    fn new(rates: Rates) -> Self {
        let bucket = |rate: Option<std::num::NonZeroU32>| {
            rate.map(|rate| f64::from(rate.get())).map(|rate| Bucket {
                per_second: rate,
                level: rate,
            })
        };
        Self(tokio::sync::Mutex::new(Buckets {
            messages: bucket(rates.messages),
            points: bucket(rates.points),
            bytes: bucket(rates.bytes),
            filled: Instant::now(),
        }))
    }

    /// Waits for the turn and pays; says whether it had to wait. Dropped half-way, nothing is paid.
    pub(super) async fn pay(&self, cost: Cost) -> bool {
        let mut has_waited = self.0.try_lock().is_err();
        let mut buckets = self.0.lock().await;
        loop {
            let debt = buckets.debt();
            if debt.is_zero() {
                buckets.charge(cost);
                return has_waited;
            }
            has_waited = true;
            sleep(debt).await;
        }
    }
}

impl Buckets {
    fn all(&mut self) -> impl Iterator<Item = &mut Bucket> {
        [&mut self.messages, &mut self.points, &mut self.bytes]
            .into_iter()
            .flatten()
    }

    /// How long until no bucket is in debt.
    fn debt(&mut self) -> Duration {
        let passed_s = self.filled.elapsed().as_secs_f64();
        self.filled = Instant::now();
        let longest_s = self.all().fold(0.0_f64, |longest, bucket| {
            bucket.level = (bucket.level + passed_s * bucket.per_second).min(bucket.per_second);
            longest.max(-bucket.level / bucket.per_second)
        });
        if longest_s > 0.0 {
            // Never so short that it is none: the debt is paid by time alone.
            Duration::from_secs_f64(longest_s).max(Duration::from_millis(1))
        } else {
            Duration::ZERO
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a message is far below 2^53 of anything"
    )]
    fn charge(&mut self, cost: Cost) {
        let pay = |bucket: &mut Option<Bucket>, units: f64| {
            if let Some(bucket) = bucket {
                bucket.level -= units;
            }
        };
        pay(&mut self.messages, 1.0);
        pay(&mut self.points, cost.points as f64);
        pay(&mut self.bytes, cost.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::registry::RecentQuota;

    const ONE: Cost = Cost {
        points: 1,
        bytes: 100,
    };

    fn quotas(messages: u32, points: u32, bytes: u32) -> Quotas {
        Quotas {
            messages_per_second: NonZeroU32::new(messages),
            points_per_second: NonZeroU32::new(points),
            bytes_per_second: NonZeroU32::new(bytes),
            recent: None,
        }
    }

    fn share(quotas: Quotas) -> Share {
        Share::new(quotas.rates())
    }

    async fn seconds_for(share: &Share, messages: u32, cost: Cost) -> f64 {
        let begun = Instant::now();
        for _ in 0..messages {
            share.pay(cost).await;
        }
        begun.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn each_quota_holds_in_the_long_run_after_a_second_that_is_free() {
        let heavy = Cost {
            points: 50,
            bytes: 2_000,
        };
        for (quotas, expected_s) in [
            (quotas(10, 0, 0), 100.0),
            (quotas(0, 100, 0), 500.0),
            (quotas(0, 0, 1_000), 2_000.0),
            (quotas(10, 100, 1_000), 2_000.0),
            (quotas(0, 0, 0), 0.0),
        ] {
            let took_s = seconds_for(&share(quotas), 1_000, heavy).await;
            assert!((took_s - expected_s).abs() < 4.0, "{quotas:?}: {took_s}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_larger_than_a_second_allows_passes_and_the_next_waits() {
        let share = share(quotas(0, 0, 1_000));
        let large = Cost {
            points: 1,
            bytes: 10_000,
        };
        assert!(!share.pay(large).await);
        let begun = Instant::now();
        assert!(share.pay(ONE).await);
        assert_eq!(begun.elapsed().as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_saves_up_a_second_at_most() {
        let share = share(quotas(10, 0, 0));
        seconds_for(&share, 10, ONE).await;
        sleep(Duration::from_secs(3_600)).await;
        assert!(seconds_for(&share, 11, ONE).await < 0.1);
        assert!(seconds_for(&share, 10, ONE).await > 0.9);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_has_not_paid() {
        let share = share(quotas(1, 0, 0));
        seconds_for(&share, 2, ONE).await;
        for _ in 0..100 {
            let waited = tokio::time::timeout(Duration::from_millis(1), share.pay(ONE)).await;
            assert!(waited.is_err());
        }
        assert!(seconds_for(&share, 1, ONE).await < 1.1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backlog_does_not_hold_recent_data_up() {
        let shares = Shares::default();
        let channel = ChannelName::new("history").unwrap();
        let declared = Quotas {
            recent: Some(RecentQuota {
                within_seconds: NonZeroU32::new(60).unwrap(),
                messages_per_second: NonZeroU32::new(100),
                points_per_second: None,
                bytes_per_second: None,
            }),
            ..quotas(1, 0, 0)
        };
        let backlog = shares.of(&channel, declared, Some(60_001));
        let flood = seconds_for(&backlog, 100, ONE);
        let recent = shares.of(&channel, declared, Some(60_000));
        let live = seconds_for(&recent, 100, ONE);
        let (flood_s, live_s) = tokio::join!(flood, live);
        assert!(flood_s > 97.0 && live_s < 0.1, "{flood_s} {live_s}");
        // What stores nothing is no recent data, and a change of the quotas counts at once.
        assert!(Arc::ptr_eq(&backlog, &shares.of(&channel, declared, None)));
        let changed = shares.of(&channel, quotas(5, 0, 0), None);
        assert!(!Arc::ptr_eq(&backlog, &changed));
    }
}
