//! The thread that keeps what is derived true: log in, marks, and once they are due, rows out.
//!
//! Order, so that an end at any moment loses nothing: the log is looked at, marks are made in memory;
//! due spans are computed and their rows kept; then, now and again, place and marks are written down
//! together, and the log is let go behind a place that would survive power loss.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use backtide_model::{ElementName, Presence, ProductKey};
use backtide_store::{FollowError, Keys, ReadError, Sequence, Store};

use super::{
    CURSOR, Shared, Standing,
    compute::{self, ComputeError, Piece},
    keeper::Keeper,
    marks::{Marks, Span},
    series::Series,
    share::Share,
    shelf::{Kept, Marked, Shelf, ShelfError},
};
use crate::{
    clock::Clock,
    limits::{CHANGES_KEPT_MAX, DIRTY_SPANS_ALL_MAX, DIRTY_SPANS_MAX},
    registry::{KeptBy, Registry, RuleInForce, Snapshot},
};

/// Bytes of the log that are looked through at once, and how often in a row.
const STRIDE_BYTES: usize = 4 << 20;
const STRIDES: usize = 8;
/// How long more is waited for once something is there: many commits are looked at together.
const GATHER: Duration = Duration::from_millis(100);
/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long is computed before the log is looked at again.
const WORK: Duration = Duration::from_millis(500);
/// How often the place is written down, at most; where writing takes long, less often still.
const SAVE_EVERY: Duration = Duration::from_secs(2);
const SAVE_SHARE: u32 = 50;
/// Spans of a device that are written down: after an end in between a little more is computed anew.
const SPANS_SAVED_MAX: usize = 32;
/// How often the log is let go.
const LET_GO_EVERY: Duration = Duration::from_secs(10);
/// How long to wait after a failure before trying again.
const PAUSE: Duration = Duration::from_secs(1);
/// Devices whose stored history is marked at one time, and that are looked at together.
const BACKFILL_DEVICES: usize = 256;
const DUE_DEVICES: usize = 1_024;
/// No value is later than this (2100-01-01).
const LATEST_MS: i64 = 4_102_444_800_000;

/// What the thread works with.
pub(super) struct Engine {
    shelf: Shelf,
    store: Store,
    registry: Arc<Registry>,
    clock: Clock,
    shared: Arc<Shared>,
    began: Instant,
    snapshot: Option<Arc<Snapshot>>,
    live: Vec<Live>,
    by_product: HashMap<ProductKey, Vec<usize>>,
    /// The last commit that was looked at.
    reached: u64,
    saved_at: Instant,
    save_after: Duration,
    let_go_at: Instant,
    holds_log: bool,
    share: Share,
}

/// A series under upkeep.
struct Live {
    id: i64,
    series: Arc<Series>,
    names: HashSet<ElementName>,
    marks: Marks,
    /// Stored history is marked up to this device.
    backfill: Option<String>,
    is_backfill_saved: bool,
    standing: Standing,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A series that the file has now.
struct Known {
    id: i64,
    /// Up to which device its stored history is marked.
    backfill: Option<String>,
    /// A point is new to it: its stored history is to be marked once more.
    is_anew: bool,
}

impl Engine {
    pub(super) fn new(
        shelf: Shelf,
        store: Store,
        registry: Arc<Registry>,
        clock: Clock,
        shared: Arc<Shared>,
    ) -> Self {
        let now = Instant::now();
        Self {
            shelf,
            store,
            registry,
            clock,
            shared,
            began: now,
            snapshot: None,
            live: Vec::new(),
            by_product: HashMap::new(),
            reached: 0,
            saved_at: now,
            save_after: SAVE_EVERY,
            let_go_at: now,
            holds_log: false,
            share: Share::new(now),
        }
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        let watch = self.store.watch({
            let shared = Arc::clone(&self.shared);
            Box::new(move |_| shared.bell.ring())
        });
        while !self.shared.bell.has_ended() {
            match self.work() {
                Ok(is_busy) => {
                    self.tell();
                    if !is_busy {
                        self.shared.bell.wait(LOOK_EVERY);
                        self.shared.bell.rest(GATHER);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "rollups stand still");
                    self.shared.bell.rest(PAUSE);
                }
            }
        }
        drop(watch);
        if let Err(error) = self.save() {
            tracing::warn!(%error, "rollups will look through part of the log again");
        }
    }

    /// A round of everything; whether there is more to do at once.
    pub(super) fn work(&mut self) -> Result<bool, WorkError> {
        self.agree()?;
        if self.live.is_empty() {
            return self.idle();
        }
        let mut is_busy = self.follow()?;
        is_busy |= self.compute()?;
        self.backfill();
        is_busy |= self.shelf.sweep()?;
        if self.saved_at.elapsed() >= self.save_after {
            self.save()?;
        }
        if self.let_go_at.elapsed() >= LET_GO_EVERY.max(self.save_after) {
            self.let_go_at = Instant::now();
            self.let_go()?;
        }
        Ok(is_busy)
    }

    #[cfg(test)]
    pub(super) fn follow_and_save(&mut self) -> Result<(), WorkError> {
        self.agree()?;
        while !self.live.is_empty() && self.follow()? {}
        self.save()
    }

    #[cfg(test)]
    pub(super) fn dirty_spans(&self) -> usize {
        let spans = self
            .live
            .iter()
            .map(|live| live.marks.spans() + usize::from(live.backfill.is_some()));
        spans.sum()
    }

    /// Nothing is derived: the log is not held.
    fn idle(&mut self) -> Result<bool, WorkError> {
        if self.holds_log {
            self.store.drop_cursor(CURSOR)?;
            self.holds_log = false;
        }
        Ok(self.shelf.sweep()?)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    // --- what is declared ---

    /// Takes up what is declared now.
    fn agree(&mut self) -> Result<(), WorkError> {
        let snapshot = self.registry.snapshot();
        let is_first = self.snapshot.is_none();
        if self
            .snapshot
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &snapshot))
        {
            return Ok(());
        }
        let declared = Series::all(&snapshot);
        if declared.is_empty() && self.live.is_empty() && !is_first {
            self.snapshot = Some(snapshot);
            return Ok(());
        }
        let was_idle = !is_first && self.live.is_empty();
        let kept = self.settle(&declared)?;
        let mut before: HashMap<i64, Live> =
            self.live.drain(..).map(|live| (live.id, live)).collect();
        for (series, kept) in declared.into_iter().zip(kept) {
            let Some(Known {
                id,
                backfill,
                is_anew,
            }) = kept
            else {
                continue;
            };
            let (names, series) = (series.names(), Arc::new(series));
            self.live.push(match before.remove(&id) {
                Some(live) => Live {
                    backfill: if is_anew { backfill } else { live.backfill },
                    is_backfill_saved: is_anew || live.is_backfill_saved,
                    series,
                    names,
                    marks: live.marks,
                    standing: live.standing,
                    id,
                },
                None => Live {
                    id,
                    series,
                    names,
                    marks: Marks::default(),
                    backfill,
                    is_backfill_saved: true,
                    standing: Standing::default(),
                },
            });
        }
        self.by_product.clear();
        for (at, live) in self.live.iter().enumerate() {
            let key = live.series.product.key.clone();
            self.by_product.entry(key).or_default().push(at);
        }
        if is_first {
            self.take_up()?;
        } else if was_idle {
            self.begin()?;
        }
        self.snapshot = Some(snapshot);
        self.publish();
        Ok(())
    }

    /// Makes the file agree with what is declared; the id of each, and how far its stored history is
    /// marked.
    fn settle(&mut self, declared: &[Series]) -> Result<Vec<Option<Known>>, WorkError> {
        let is_same = |(name, product, print): (&str, &str, &str), one: &Series| {
            one.name.as_str() == name && one.product.key.as_str() == product && one.print == print
        };
        let known = self.shelf.series()?;
        let gone = known.iter().filter(|(name, product, print, _)| {
            !declared
                .iter()
                .any(|one| is_same((name, product, print), one))
        });
        let gone: Vec<i64> = gone.map(|(_, _, _, kept)| kept.id).collect();
        let new = declared.iter().filter(|one| {
            !known
                .iter()
                .any(|(name, product, print, _)| is_same((name, product, print), one))
        });
        let new: Vec<(&str, &str, &str)> = new
            .map(|one| {
                (
                    one.name.as_str(),
                    one.product.key.as_str(),
                    one.print.as_str(),
                )
            })
            .collect();
        if !gone.is_empty() || !new.is_empty() {
            self.shelf.agree(&gone, &new)?;
        }
        let known = self.shelf.series()?;
        let mut found = Vec::with_capacity(declared.len());
        for one in declared {
            let mut known = known.iter();
            let of = known.find(|(name, product, print, _)| is_same((name, product, print), one));
            found.push(match of {
                Some((_, _, _, kept)) => Some(self.known(kept, one)?),
                None => None,
            });
        }
        Ok(found)
    }

    /// Notes which points a series is made of. Where one is new to it of which values are stored (they
    /// passed before it was declared, or it was declared before), its windows are all marked: what they
    /// were is right but for that point.
    fn known(&mut self, kept: &Kept, series: &Series) -> Result<Known, WorkError> {
        let known = Known {
            id: kept.id,
            backfill: kept.backfill.clone(),
            is_anew: false,
        };
        if kept.made_of == series.made_of {
            return Ok(known);
        }
        let product = &series.product.key;
        let is_stored = |name: &str| {
            let name = ElementName::new(name);
            name.is_ok_and(|name| self.store.storage_of(product, &name).is_some())
        };
        let is_anew = series.made_of.beyond(&kept.made_of).any(is_stored);
        self.shelf.make_of(kept.id, &series.made_of, is_anew)?;
        Ok(match is_anew {
            true => Known {
                backfill: Some(String::new()),
                is_anew,
                ..known
            },
            false => known,
        })
    }

    /// Goes on where the file says.
    fn take_up(&mut self) -> Result<(), WorkError> {
        if self.live.is_empty() {
            // A cursor of before would hold the log for ever.
            self.store.drop_cursor(CURSOR)?;
            return Ok(());
        }
        let Some(reached) = self.shelf.reached()? else {
            return self.begin();
        };
        let durable = self.store.durable().0;
        self.reached = reached.min(durable);
        if reached > durable {
            tracing::warn!(
                reached,
                durable,
                "the store is older than its rollups: all is computed anew"
            );
            self.mark_all();
        }
        let at: HashMap<i64, usize> = (0..self.live.len())
            .map(|at| (self.live[at].id, at))
            .collect();
        let (now, live) = (self.now(), &mut self.live);
        self.shelf.marks(|series, device, span| {
            if let Some(at) = at.get(&series) {
                live[*at].marks.load(device, span, now);
            }
        })?;
        self.store.set_cursor(CURSOR, Sequence(self.reached))?;
        self.holds_log = true;
        Ok(())
    }

    /// Begins with the commits that come; what is stored is marked from the devices.
    fn begin(&mut self) -> Result<(), WorkError> {
        self.reached = self.store.durable().0;
        self.store.set_cursor(CURSOR, Sequence(self.reached))?;
        self.holds_log = true;
        self.mark_all();
        self.save()
    }

    fn mark_all(&mut self) {
        for live in &mut self.live {
            live.backfill = Some(String::new());
            live.is_backfill_saved = false;
        }
    }

    // --- marks ---

    /// Looks through the log, a few strides of it; whether there is more.
    fn follow(&mut self) -> Result<bool, WorkError> {
        for _ in 0..STRIDES {
            let (from, now) = (Sequence(self.reached), self.now());
            let Self {
                store,
                live,
                by_product,
                ..
            } = self;
            let followed = store.follow_keys(from, STRIDE_BYTES, &mut |keys| {
                if let Some(of_product) = by_product.get(keys.product) {
                    mark(live, of_product, keys, now);
                }
            });
            match followed {
                Ok(reached) if reached == from => return Ok(false),
                Ok(reached) => {
                    self.reached = reached.0;
                    self.share.note_commit(Instant::now());
                }
                Err(FollowError::Trimmed { oldest }) => {
                    tracing::warn!(
                        from = from.0 + 1,
                        to = oldest.0 - 1,
                        "the log was trimmed before rollups saw it: all is computed anew"
                    );
                    self.reached = oldest.0 - 1;
                    self.mark_all();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Marks the stored history of some more devices, unless many wait.
    fn backfill(&mut self) {
        let now = self.now();
        for live in &mut self.live {
            let Some(after) = &live.backfill else {
                continue;
            };
            if live.marks.devices() >= BACKFILL_DEVICES {
                continue;
            }
            let after = Some(after.as_str()).filter(|after| !after.is_empty());
            let devices = live.series.product.devices.after(after);
            let devices: Vec<_> = devices.take(BACKFILL_DEVICES).cloned().collect();
            let span = Span {
                from_ms: live.series.windows.at(0).start_ms,
                to_ms: live.series.windows.at(LATEST_MS).end_ms,
            };
            // Due at once.
            let since = now - live.series.pace.within_ms;
            for device in &devices {
                live.marks
                    .add(device.key.as_str(), span, since, DIRTY_SPANS_MAX);
            }
            live.backfill = devices.last().map(|device| device.name.to_string());
            live.is_backfill_saved = false;
        }
    }

    // --- rows ---

    /// Computes what is due, for a while; whether there is more to do at once.
    fn compute(&mut self) -> Result<bool, WorkError> {
        let began = Instant::now();
        if !self.share.is_left() {
            return Ok(false);
        }
        for at in 0..self.live.len() {
            let now = self.now();
            let live = &self.live[at];
            let due = live.marks.due(live.series.pace, now, DUE_DEVICES);
            if due.is_empty() {
                continue;
            }
            let pieces = due.iter().filter_map(|(device, spans)| {
                let device = backtide_model::DeviceKey::new(device).ok()?;
                Some(Piece::of(&live.series, &device, spans))
            });
            let groups = compute::grouped(pieces.flatten().collect());
            for group in groups {
                self.compute_group(at, &group)?;
                if began.elapsed() >= WORK || self.shared.bell.has_ended() {
                    return Ok(true);
                }
                if !self.share.is_left() {
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    fn compute_group(&mut self, at: usize, group: &[Piece]) -> Result<(), WorkError> {
        let series = Arc::clone(&self.live[at].series);
        let computed = match compute::compute(&self.store, &series, group) {
            Ok(computed) => computed,
            Err(ComputeError::Read(error)) => return Err(error.into()),
            Err(error @ ComputeError::Values { .. }) => {
                self.give_up(at, &error);
                return Ok(());
            }
        };
        let now_ms = self.clock.now_ms();
        let keeper = Keeper {
            id: self.live[at].id,
            series: &series,
            frozen_before_ms: self.frozen_before(&series, now_ms),
            now_ms,
        };
        let kept = keeper.keep(&mut self.shelf, &computed.batches, CHANGES_KEPT_MAX)?;
        let live = &mut self.live[at];
        for (device, span) in &computed.done {
            live.marks.remove(device.as_str(), *span);
        }
        live.standing.rows += kept.rows;
        live.standing.computed_ms = Some(now_ms);
        metrics::counter!("backtide_derived_rows_total", "name" => series.name.to_string())
            .increment(kept.rows);
        metrics::counter!("backtide_derived_changes_total", "name" => series.name.to_string())
            .increment(kept.changes);
        Ok(())
    }

    /// What cannot be computed is told of, and not tried for ever.
    fn give_up(&mut self, at: usize, error: &ComputeError) {
        let live = &mut self.live[at];
        let name = &live.series.name;
        tracing::error!(%name, %error, "windows of a rollup cannot be computed");
        if let ComputeError::Values { piece, .. } = error {
            for span in &piece.spans {
                live.marks.remove(piece.device.as_str(), *span);
            }
        }
        live.standing.failures += 1;
        live.standing.failure = Some(error.to_string());
        metrics::counter!("backtide_derived_failures_total", "name" => name.to_string())
            .increment(1);
    }

    /// Before this, values that windows were made of may be gone: those windows stay as they are.
    fn frozen_before(&self, series: &Series, now_ms: i64) -> Option<i64> {
        let snapshot = self.snapshot.as_ref()?;
        let storage = snapshot.storage(&series.product.name)?;
        let points = series.points().into_iter();
        let oldest_ms = points
            .filter_map(|point| storage.point(&point.name))
            .map(RuleInForce::rule)
            .filter(|rule| rule.by == KeptBy::Event)
            .flat_map(|rule| [rule.oldest_ms(now_ms), rule.raw_oldest_ms(now_ms)])
            .flatten()
            .max()?;
        Some(oldest_ms.saturating_add(series.reach_ms))
    }

    // --- the place ---

    fn save(&mut self) -> Result<(), WorkError> {
        let began = Instant::now();
        if self.live.is_empty() {
            return Ok(());
        }
        let touched: Vec<Vec<Box<str>>> = self
            .live
            .iter_mut()
            .map(|live| live.marks.take_touched())
            .collect();
        let marked: Vec<Marked> = self
            .live
            .iter()
            .zip(&touched)
            .flat_map(|(live, devices)| {
                let marked = devices.iter().map(|device| Marked {
                    series: live.id,
                    device: device.clone(),
                    spans: live.marks.of(device, SPANS_SAVED_MAX),
                });
                marked.collect::<Vec<_>>()
            })
            .collect();
        let backfills = self.live.iter().filter(|live| !live.is_backfill_saved);
        let backfills: Vec<(i64, Option<String>)> = backfills
            .map(|live| (live.id, live.backfill.clone()))
            .collect();
        let saved = self.shelf.save(self.reached, &backfills, &marked);
        if let Err(error) = saved {
            for (live, devices) in self.live.iter_mut().zip(touched) {
                live.marks.touch(devices);
            }
            return Err(error.into());
        }
        self.live
            .iter_mut()
            .for_each(|live| live.is_backfill_saved = true);
        self.saved_at = Instant::now();
        self.save_after = SAVE_EVERY.max(began.elapsed() * SAVE_SHARE);
        Ok(())
    }

    fn let_go(&mut self) -> Result<(), WorkError> {
        self.save()?;
        if self.shelf.sync()? {
            self.store.set_cursor(CURSOR, Sequence(self.reached))?;
        }
        Ok(())
    }

    // --- for people ---

    /// Who asks finds what is declared.
    fn publish(&self) {
        let running = self
            .live
            .iter()
            .map(|live| (live.id, Arc::clone(&live.series)));
        *self.shared.running.lock() = running.collect();
        self.tell();
    }

    pub(super) fn tell(&self) {
        let now = self.now();
        let mut standings = self.shared.standings.lock();
        standings.clear();
        for live in &self.live {
            let standing = Standing {
                dirty_devices: live.marks.devices(),
                dirty_spans: live.marks.spans(),
                waited_ms: live.marks.first().map(|first| (now - first).max(0)),
                is_backfilling: live.backfill.is_some(),
                ..live.standing.clone()
            };
            standings.insert(live.id, standing);
        }
        drop(standings);
        self.shared.set_reached(self.reached);
    }
}

/// Marks what a commit stores values for, in each series of its product.
fn mark(live: &mut [Live], of_product: &[usize], keys: &Keys<'_>, now: i64) {
    let spans: usize = live.iter().map(|live| live.marks.spans()).sum();
    let spans_max = match spans < DIRTY_SPANS_ALL_MAX {
        true => DIRTY_SPANS_MAX,
        false => 1,
    };
    for at in of_product {
        let live = &mut live[*at];
        for (device, span) in dirty(keys, &live.series, &live.names) {
            let device = keys.devices[device as usize];
            live.marks.add(device, span, now, spans_max);
        }
    }
}

/// The spans in which there are values of a series' points, by device.
fn dirty(keys: &Keys<'_>, series: &Series, names: &HashSet<ElementName>) -> Vec<(u32, Span)> {
    let columns = keys.columns.iter();
    let wanted = columns.filter(|(point, _)| names.contains(*point));
    let mut sparse: Vec<&[u32]> = Vec::new();
    let mut has_all = false;
    for (_, presence) in wanted {
        match presence {
            Presence::All => has_all = true,
            Presence::Some(rows) => sparse.push(rows),
        }
    }
    let mut spans: Vec<(u32, i64, i64)> = Vec::new();
    let mut take = |row: usize| {
        let (device, time_ms) = (keys.row_device[row], keys.row_time[row]);
        let is_last = spans.last().is_some_and(|(last, from_ms, to_ms)| {
            *last == device && (*from_ms..*to_ms).contains(&time_ms)
        });
        if !is_last {
            let window = series.windows.at(time_ms);
            spans.push((device, window.start_ms, window.end_ms));
        }
    };
    match has_all {
        true => (0..keys.row_time.len()).for_each(take),
        false => {
            for rows in sparse {
                rows.iter().for_each(|row| take(*row as usize));
            }
        }
    }
    spans.sort_unstable();
    let mut merged: Vec<(u32, Span)> = Vec::new();
    for (device, from_ms, to_ms) in spans {
        match merged.last_mut() {
            Some((last, span)) if *last == device && from_ms <= span.to_ms => {
                span.to_ms = span.to_ms.max(to_ms);
            }
            _ => merged.push((device, Span { from_ms, to_ms })),
        }
    }
    merged
}
