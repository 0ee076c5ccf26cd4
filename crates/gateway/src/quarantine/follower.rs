//! The thread that looks through the committed log for refusals.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use backtide_store::{FollowError, Followed, FollowedSome, Part, Sequence, Store};

use super::{
    Entry, Id, Progress, QuarantineError,
    cabinet::{Cabinet, Change, Pruned, WhenFull},
};

/// The name under which the store keeps the log for this follower.
const CURSOR: &str = "quarantine";
/// Bytes of records that are looked through at once.
const STRIDE_BYTES: usize = 1 << 20;
/// Without refusals the place in the log is written down this rarely: what is looked through again
/// after a restart has none.
const PLACE_EVERY: Duration = Duration::from_secs(10);
/// How long to wait after a failure before trying again.
const PAUSE: Duration = Duration::from_secs(1);
/// The watermark: a warning when so much of the bound is in use, and the next only after it has
/// fallen below the second.
const WARN_PERCENT: u64 = 80;
const CALM_PERCENT: u64 = 75;

/// Follows until told to stop.
pub(super) fn follow(store: &Store, cabinet: Cabinet, progress: &Arc<Progress>) {
    let watch = store.watch({
        let progress = Arc::clone(progress);
        Box::new(move |_| progress.tell_news())
    });
    let mut follower = Follower {
        store,
        cabinet,
        progress,
        placed_at: Instant::now(),
        now_ms: i64::MIN,
        is_warned: false,
    };
    while let Some(news) = progress.wait_news() {
        // Refusals have the bounds looked at, and so has time; most commits have none.
        let outcome = match news.is_emptied {
            true => follower.catch_up().and_then(|()| follower.keep_bounds()),
            false => follower.catch_up(),
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "refusals wait in the journal for the quarantine");
            progress.rest(PAUSE);
        }
    }
    drop(watch);
    if let Err(error) = follower.place() {
        tracing::warn!(%error, "the quarantine will look through part of the log again");
    }
}

struct Follower<'a> {
    store: &'a Store,
    cabinet: Cabinet,
    progress: &'a Progress,
    placed_at: Instant,
    /// Arrival of the latest commit seen: the quarantine's clock.
    now_ms: i64,
    /// The watermark was passed and told of.
    is_warned: bool,
}

#[derive(Debug, thiserror::Error)]
enum CatchUpError {
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Cursor(#[from] backtide_store::ReadError),
}

impl Follower<'_> {
    /// Looks through the log to its end.
    fn catch_up(&mut self) -> Result<(), CatchUpError> {
        while !self.progress.is_stopped() {
            let reached = self.progress.state.lock().reached;
            let followed = match self.store.follow_refusals(reached, STRIDE_BYTES) {
                Ok(followed) => followed,
                Err(FollowError::Trimmed { oldest }) => {
                    tracing::error!(
                        from = reached.0 + 1,
                        to = oldest.0 - 1,
                        "the log was trimmed before the quarantine saw it: refusals among these \
                         commits are not listed"
                    );
                    self.progress.reach(Sequence(oldest.0 - 1));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if followed.reached == reached {
                return Ok(());
            }
            self.take(&followed)?;
            self.progress.reach(followed.reached);
            if self.placed_at.elapsed() >= PLACE_EVERY {
                self.place()?;
            }
        }
        Ok(())
    }

    /// Writes down the refusals among some commits.
    fn take(&mut self, followed: &FollowedSome) -> Result<(), CatchUpError> {
        self.now_ms = self.now_ms.max(followed.arrived_ms.unwrap_or(i64::MIN));
        let changes: Vec<_> = followed.commits.iter().flat_map(changes).collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.cabinet.write(&changes, followed.reached)?;
        let refused = changes
            .iter()
            .filter(|change| matches!(change, Change::Refused(..)))
            .count();
        let refused = u64::try_from(refused).expect("a usize fits 64 bits");
        metrics::counter!("backtide_quarantine_entries_total").increment(refused);
        self.keep_bounds()
    }

    fn keep_bounds(&mut self) -> Result<(), CatchUpError> {
        let Pruned { aged, dropped } = self.cabinet.prune(self.now_ms)?;
        if aged > 0 {
            metrics::counter!("backtide_quarantine_aged_total").increment(aged);
            tracing::warn!(
                entries = aged,
                "quarantine entries were older than its age bound"
            );
        }
        if dropped > 0 {
            metrics::counter!("backtide_quarantine_dropped_total").increment(dropped);
            tracing::warn!(
                entries = dropped,
                "the oldest quarantine entries made room for new ones"
            );
        }
        let bytes = self.cabinet.bytes_used()?;
        self.gauge(bytes)?;
        self.warn(bytes);
        let is_full = self.cabinet.is_full()?;
        if is_full && !self.progress.is_full.swap(is_full, Ordering::Relaxed) {
            tracing::error!(
                bytes,
                "the quarantine is full: channels hold until it has room"
            );
        }
        self.progress.is_full.store(is_full, Ordering::Relaxed);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn gauge(&self, bytes: u64) -> Result<(), QuarantineError> {
        let (entries, _) = self.cabinet.size()?;
        let bytes_max = self.cabinet.bounds().bytes_max;
        metrics::gauge!("backtide_quarantine_entries").set(entries as f64);
        metrics::gauge!("backtide_quarantine_bytes").set(bytes as f64);
        metrics::gauge!("backtide_quarantine_bytes_max").set(bytes_max as f64);
        Ok(())
    }

    /// Tells of the watermark once when it is passed.
    fn warn(&mut self, bytes: u64) {
        let bounds = self.cabinet.bounds();
        let percent = bytes.saturating_mul(100) / bounds.bytes_max.max(1);
        if percent >= WARN_PERCENT && !self.is_warned {
            let then = match bounds.when_full {
                WhenFull::Hold => "channels hold",
                WhenFull::DropOldest => "the oldest entries are dropped",
            };
            tracing::warn!(
                bytes,
                bytes_max = bounds.bytes_max,
                "the quarantine is {percent} % full; when it is full, {then}: re-drive or discard \
                 what is in it (`backtide quarantine causes`), or raise quarantine.bytes_max"
            );
        }
        self.is_warned = percent >= WARN_PERCENT || (self.is_warned && percent >= CALM_PERCENT);
    }

    /// Writes the place down, here and for the store, which may then trim the log behind it.
    fn place(&mut self) -> Result<(), CatchUpError> {
        let reached = self.progress.state.lock().reached;
        self.cabinet.write(&[], reached)?;
        self.store.set_cursor(CURSOR, reached)?;
        self.placed_at = Instant::now();
        // Time has passed also where nothing was refused.
        self.keep_bounds()
    }
}

/// What a commit means to the quarantine: new refusals, or what became of one that was tried again.
fn changes(followed: &Followed) -> Vec<Change<'_>> {
    let refused = followed.commit.parts.iter().filter_map(|part| match part {
        Part::Refused(refused) => Some(refused),
        Part::Points(_) | Part::Events(_) | Part::Attributes(_) => None,
    });
    let Some(redrive) = followed.commit.redrive else {
        let sequence =
            i64::try_from(followed.sequence.0).expect("there are fewer than 2^63 commits");
        let refused = refused.zip(0..).map(|(refused, part)| {
            let entry = Entry::new(Id { sequence, part }, followed, refused);
            Change::Refused(entry, &refused.raw)
        });
        return refused.collect();
    };
    let Some(id) = Id::again(redrive) else {
        return Vec::new();
    };
    let mut refused = refused;
    match refused.next() {
        None => vec![Change::Stored(id)],
        Some(refused) => {
            let mut entry = Entry::new(id, followed, refused);
            entry.tried_ms = Some(redrive.tried_ms);
            vec![Change::RefusedAgain(entry, &refused.raw)]
        }
    }
}
