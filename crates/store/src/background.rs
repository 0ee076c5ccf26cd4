//! What happens after the answer: frozen tables become segments, the log is trimmed, segments are
//! merged and classified. Two threads, so that a long merge never holds up a flush.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    HeldLog, Sequence,
    library::{FlushError, Haste},
    memtable::Table,
    store::Shared,
};

/// How often the age of the log and the quiet are looked at.
const TICK: Duration = Duration::from_secs(1);
/// A flush or merge that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// Tells the background threads to stop, and the merging one that there is something new.
#[derive(Default)]
pub(crate) struct Signals {
    stop: AtomicBool,
    news: Mutex<bool>,
    changed: Condvar,
    compactions: Mutex<Compactions>,
    compacted: Condvar,
}

/// How long flushes waited for merges.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    waited_ms: AtomicU64,
}

impl Waits {
    fn note(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.waited_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) fn waited_ms(&self) -> u64 {
        self.waited_ms.load(Ordering::Relaxed)
    }
}

/// Requests to merge and classify everything now, not only in a quiet moment.
#[derive(Default)]
struct Compactions {
    asked: u64,
    done: u64,
    /// The requests made so far when a merge failed last, and why it did.
    failed: Option<(u64, Arc<str>)>,
}

impl Signals {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.tell();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Asks for everything in segments to be merged and classified, and waits for it. Whether it
    /// was done; not when the store stops, or nothing is merged any more.
    ///
    /// # Errors
    /// Why a merge failed.
    pub(crate) fn compact(&self, is_over: impl Fn() -> bool) -> Result<bool, Arc<str>> {
        let mut compactions = self.compactions.lock();
        compactions.asked += 1;
        let mine = compactions.asked;
        self.tell();
        while compactions.done < mine && !self.is_stopped() && !is_over() {
            match &compactions.failed {
                Some((asked, reason)) if *asked >= mine => return Err(Arc::clone(reason)),
                Some(_) | None => self.compacted.wait_for(&mut compactions, TICK),
            };
        }
        Ok(compactions.done >= mine)
    }

    /// The requests made so far, where some are not done.
    fn compaction_asked(&self) -> Option<u64> {
        let compactions = self.compactions.lock();
        (compactions.asked > compactions.done).then_some(compactions.asked)
    }

    /// There was nothing left to do after `asked` requests.
    fn compaction_done(&self, asked: u64) {
        self.compactions.lock().done = asked;
        self.compacted.notify_all();
    }

    /// A merge failed after `asked` requests.
    fn compaction_failed(&self, asked: u64, reason: &str) {
        self.compactions.lock().failed = Some((asked, reason.into()));
        self.compacted.notify_all();
    }

    fn tell(&self) {
        *self.news.lock() = true;
        self.changed.notify_all();
    }

    fn wait(&self, time: Duration) {
        let mut news = self.news.lock();
        if !*news {
            self.changed.wait_for(&mut news, time);
        }
        *news = false;
    }
}

/// Writes frozen tables to segments, oldest first, and trims the log.
pub(crate) fn flush(shared: &Arc<Shared>) {
    let signals = &shared.signals;
    let mut trimmed_at = Instant::now();
    while !signals.is_stopped() {
        let Some(table) = shared.memtable.oldest_frozen() else {
            if trimmed_at.elapsed() >= TICK {
                trimmed_at = Instant::now();
                shared.trim_log();
                if shared.is_quiet() {
                    shared.memtable.freeze();
                }
            }
            shared
                .memtable
                .wait_for_frozen(TICK, || signals.is_stopped());
            continue;
        };
        wait_for_merges(shared, &table);
        if shared.health.is_poisoned() || !flush_table(shared, &table) {
            shared.memtable.wait(RETRY, || signals.is_stopped());
        }
    }
}

/// Lets merges catch up, so that reads never have to join many segments. Frozen tables wait
/// meanwhile, and commits with them once two do. Nothing waits for merges that fail, nor at the end.
fn wait_for_merges(shared: &Shared, table: &Table) {
    let is_over = || {
        shared.signals.is_stopped()
            || shared.queue.is_closed()
            || shared.health.is_poisoned()
            || !shared.library.waits_for_merges(table.products())
    };
    if is_over() {
        return;
    }
    let began = Instant::now();
    while !is_over() {
        // The merging thread wakes us after each step.
        shared.memtable.wait(TICK, is_over);
    }
    shared.waits.note(began.elapsed());
}

fn flush_table(shared: &Shared, table: &Table) -> bool {
    match shared
        .library
        .flush(&table.entries, &table.chapter, &table.origins, table.last)
    {
        Ok(()) => {
            shared.health.set_flush_is_full(false);
            // Only now: until here a reader found these entries in the memtable, from here on in
            // segments, and between the two in both.
            shared.memtable.flushed();
            shared.signals.tell();
            shared.trim_log();
            true
        }
        Err(FlushError::DiskFull { .. }) => {
            shared.health.set_flush_is_full(true);
            shared.memtable.wake();
            false
        }
        Err(error) => {
            shared.health.poison(&format!("flush to segments: {error}"));
            shared.memtable.wake();
            false
        }
    }
}

/// Merges and classifies while there is something to do.
pub(crate) fn merge(shared: &Arc<Shared>) {
    let signals = &shared.signals;
    while !signals.is_stopped() {
        if shared.health.is_poisoned() {
            signals.wait(RETRY);
            continue;
        }
        let asked = signals.compaction_asked();
        let haste = if shared.is_quiet() || asked.is_some() {
            Haste::Quiet
        } else {
            Haste::Busy
        };
        let worked = shared
            .library
            .work_beside(haste, &|product| shared.memtable.snapshot(product));
        // The flusher may wait for this.
        shared.memtable.wake();
        match worked {
            Ok(true) => {}
            Ok(false) => match asked {
                Some(asked) => signals.compaction_done(asked),
                None => signals.wait(TICK),
            },
            // Segments stay as they are: nothing is lost, only slower to read.
            Err(error) => {
                tracing::warn!(%error, "a merge failed and is tried again");
                if let Some(asked) = asked {
                    signals.compaction_failed(asked, &error.to_string());
                }
                signals.wait(RETRY);
            }
        }
    }
}

impl Shared {
    /// Removes journal files that no one needs any more.
    fn trim_log(&self) {
        let cursors = match self.library.cursors() {
            Ok(cursors) => cursors,
            Err(error) => return tracing::warn!(%error, "the log is not trimmed"),
        };
        let flushed = self.library.flushed();
        let patient = cursors
            .iter()
            .filter(|(name, _)| !(self.options.may_let_go)(name));
        let patient = patient
            .map(|(_, at)| *at)
            .min()
            .map_or(flushed, |at| flushed.min(at));
        let slowest = cursors.into_iter().min_by_key(|(_, at)| *at);
        let settled = slowest.as_ref().map_or(flushed, |(_, at)| flushed.min(*at));
        let options = &self.options;
        let now_ms = (options.clock)();
        let trimmed = self.log.trim(
            settled,
            now_ms,
            options.log_retention_ms,
            options.log_bytes_max,
        );
        // Never by age: beyond this bound only, and of those alone that may be let go.
        let let_go = trimmed.and_then(|_| {
            self.log
                .trim(patient, now_ms, i64::MAX, options.log_held_bytes_max)
        });
        match let_go {
            Ok(0) => {}
            Ok(files) => tracing::error!(
                files,
                log_bytes_max = options.log_held_bytes_max,
                "the log was trimmed under a follower that lags: it loses what it had not seen"
            ),
            Err(error) => tracing::warn!(%error, "a journal file was not removed"),
        }
        self.note_held(slowest.filter(|(_, at)| *at < flushed));
    }

    /// Takes note of whether a follower that stands still keeps the log beyond its bound. What it
    /// has not seen is never removed: someone must look after it.
    fn note_held(&self, slowest: Option<(String, Sequence)>) {
        let (_, log_bytes) = self.log.size();
        let held = slowest
            .filter(|_| log_bytes > self.options.log_bytes_max)
            .map(|(cursor, at)| HeldLog {
                cursor,
                at,
                log_bytes,
            });
        let mut before = self.held.lock();
        match (&*before, &held) {
            (None, Some(held)) => tracing::warn!(
                cursor = held.cursor,
                at = held.at.0,
                log_bytes,
                "a follower that stands still keeps the log beyond its bound"
            ),
            (Some(_), None) => tracing::info!("no follower keeps the log beyond its bound"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *before = held;
    }
}
