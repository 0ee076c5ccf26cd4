//! What is durable in the journal and waits in memory for its segment.
//!
//! Commits go into the active table. When that is full it is frozen, and the flusher writes the
//! oldest frozen table to segments. At most [`FROZEN_MAX`] tables wait; then commits wait too.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use backtide_model::{AttributeValue, Batch, Occurrence, ProductKey};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{Commit, Origin, Part, Sequence, weight};

/// The points of one commit. Shared between memtable, readers and the flush; never changed.
#[derive(Debug)]
pub(crate) struct Entry {
    pub sequence: Sequence,
    /// Its place in the order of commits: its own sequence, or that of the commit it re-drives.
    pub order: Sequence,
    pub product: ProductKey,
    pub batch: Batch,
}

/// The events or attribute values of one commit, shared likewise.
#[derive(Debug)]
pub(crate) struct Told<T> {
    pub sequence: Sequence,
    /// As [`Entry::order`]: decides which of two attribute values is the later one.
    pub order: Sequence,
    pub origin: Arc<Origin>,
    pub product: ProductKey,
    /// In order of arrival.
    pub items: Vec<T>,
}

/// What goes to the chronicle, in order of sequence.
#[derive(Debug, Default)]
pub(crate) struct Chapter {
    pub(crate) events: Vec<Arc<Told<Occurrence>>>,
    pub(crate) attributes: Vec<Arc<Told<AttributeValue>>>,
}

impl Chapter {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.attributes.is_empty()
    }
}

/// Frozen tables that may wait for the flusher.
const FROZEN_MAX: usize = 2;

/// Handles and allocations of one commit.
const COMMIT_BYTES: usize = 128;

/// How full the memtable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemtableStats {
    pub bytes: usize,
    pub commits: usize,
    /// Tables waiting to be flushed.
    pub frozen: usize,
}

/// What is flushed at once.
#[derive(Default)]
pub(crate) struct Table {
    /// In order of sequence.
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) chapter: Chapter,
    pub(crate) origins: Vec<(Sequence, Arc<Origin>)>,
    /// The newest commit in it.
    pub(crate) last: Sequence,
    by_product: HashMap<ProductKey, Vec<Arc<Entry>>>,
    bytes: usize,
}

impl Table {
    /// Those it has points of.
    pub(crate) fn products(&self) -> impl Iterator<Item = ProductKey> {
        self.by_product.keys().cloned()
    }

    fn insert(&mut self, sequence: Sequence, commit: Commit) {
        let origin = Arc::new(commit.origin);
        let order = commit.redrive.map_or(sequence, |redrive| redrive.order);
        self.bytes += COMMIT_BYTES + weight::origin(&origin);
        for part in commit.parts {
            let product = commit.product.clone();
            match part {
                Part::Points(batch) => {
                    self.bytes += weight::batch(&batch);
                    let entry = Arc::new(Entry {
                        sequence,
                        order,
                        product,
                        batch,
                    });
                    let entries = self.by_product.entry(commit.product.clone()).or_default();
                    entries.push(Arc::clone(&entry));
                    self.entries.push(entry);
                }
                Part::Events(items) => {
                    self.bytes += COMMIT_BYTES + weight::events(&items);
                    let told = told((sequence, order), &origin, product, items);
                    self.chapter.events.push(told);
                }
                Part::Attributes(items) => {
                    self.bytes += COMMIT_BYTES + weight::attributes(&items);
                    let told = told((sequence, order), &origin, product, items);
                    self.chapter.attributes.push(told);
                }
                Part::Refused(_) => {}
            }
        }
        self.origins.push((sequence, origin));
        self.last = sequence;
    }
}

fn told<T>(
    (sequence, order): (Sequence, Sequence),
    origin: &Arc<Origin>,
    product: ProductKey,
    items: Vec<T>,
) -> Arc<Told<T>> {
    Arc::new(Told {
        sequence,
        order,
        origin: Arc::clone(origin),
        product,
        items,
    })
}

/// All tables. Readers take handles; nothing is copied.
pub(crate) struct Memtable {
    bytes_max: usize,
    tables: Mutex<Tables>,
    /// A table was frozen or flushed, or someone wants the waiting to look again.
    changed: Condvar,
}

#[derive(Default)]
struct Tables {
    active: Table,
    frozen: VecDeque<Arc<Table>>,
}

impl Memtable {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            tables: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Adds durable commits, `first` and those that follow; returns their entries, in order.
    pub(crate) fn insert(&self, first: Sequence, commits: Vec<Commit>) -> Vec<Arc<Entry>> {
        let mut tables = self.tables.lock();
        let before = tables.active.entries.len();
        for (sequence, commit) in (first.0..).map(Sequence).zip(commits) {
            tables.active.insert(sequence, commit);
        }
        let entries = tables.active.entries[before..].to_vec();
        self.freeze_if_full(&mut tables);
        entries
    }

    /// The entries of a product, oldest first.
    pub(crate) fn snapshot(&self, product: &ProductKey) -> Vec<Arc<Entry>> {
        let tables = self.tables.lock();
        let all = tables
            .frozen
            .iter()
            .map(|table| &**table)
            .chain([&tables.active]);
        all.filter_map(|table| table.by_product.get(product))
            .flatten()
            .cloned()
            .collect()
    }

    /// The events and attribute values of a product, oldest first.
    pub(crate) fn chapter(&self, product: &ProductKey) -> Chapter {
        let tables = self.tables.lock();
        let mut whole = Chapter::default();
        for table in tables
            .frozen
            .iter()
            .map(|table| &**table)
            .chain([&tables.active])
        {
            let Chapter { events, attributes } = &table.chapter;
            let of_product = events.iter().filter(|told| told.product == *product);
            whole.events.extend(of_product.cloned());
            let of_product = attributes.iter().filter(|told| told.product == *product);
            whole.attributes.extend(of_product.cloned());
        }
        whole
    }

    /// Where some commits came from, as far as they are here.
    pub(crate) fn origins(&self, sequences: &[Sequence]) -> Vec<(Sequence, Arc<Origin>)> {
        let tables = self.tables.lock();
        let all = tables
            .frozen
            .iter()
            .map(|table| &**table)
            .chain([&tables.active]);
        all.flat_map(|table| {
            sequences.iter().filter_map(|sequence| {
                let at = table
                    .origins
                    .binary_search_by_key(sequence, |(known, _)| *known);
                at.ok().map(|at| table.origins[at].clone())
            })
        })
        .collect()
    }

    /// Waits until another group may come in, or `gives_up` says so.
    pub(crate) fn wait_for_room(&self, gives_up: impl Fn() -> bool) {
        let mut tables = self.tables.lock();
        while self.is_full(&tables) && !gives_up() {
            self.changed.wait(&mut tables);
        }
    }

    /// The table to be flushed next. It stays readable until [`Memtable::flushed`].
    pub(crate) fn oldest_frozen(&self) -> Option<Arc<Table>> {
        self.tables.lock().frozen.front().cloned()
    }

    /// The oldest frozen table is in segments.
    pub(crate) fn flushed(&self) {
        let mut tables = self.tables.lock();
        tables.frozen.pop_front();
        self.freeze_if_full(&mut tables);
        self.changed.notify_all();
    }

    /// Freezes what is in the active table, unless too much is frozen already. Whether nothing is
    /// left unfrozen.
    pub(crate) fn freeze(&self) -> bool {
        let mut tables = self.tables.lock();
        if !tables.active.origins.is_empty() && tables.frozen.len() < FROZEN_MAX {
            self.freeze_active(&mut tables);
        }
        tables.active.origins.is_empty()
    }

    /// Waits for a change, a call of [`Memtable::wake`] or the time; unless `is_due` holds already.
    pub(crate) fn wait(&self, time: Duration, is_due: impl Fn() -> bool) {
        let mut tables = self.tables.lock();
        if !is_due() {
            self.changed.wait_for(&mut tables, time);
        }
    }

    /// As [`Memtable::wait`], while nothing is frozen.
    pub(crate) fn wait_for_frozen(&self, time: Duration, is_due: impl Fn() -> bool) {
        let mut tables = self.tables.lock();
        if tables.frozen.is_empty() && !is_due() {
            self.changed.wait_for(&mut tables, time);
        }
    }

    /// Makes everyone who waits look again. What they look at was changed before the call.
    pub(crate) fn wake(&self) {
        // With the lock held no one stands between their look and their wait.
        let _tables: MutexGuard<'_, Tables> = self.tables.lock();
        self.changed.notify_all();
    }

    pub(crate) fn stats(&self) -> MemtableStats {
        let tables = self.tables.lock();
        let mut stats = MemtableStats {
            bytes: tables.active.bytes,
            commits: tables.active.origins.len(),
            frozen: tables.frozen.len(),
        };
        for table in &tables.frozen {
            stats.bytes += table.bytes;
            stats.commits += table.origins.len();
        }
        stats
    }

    fn is_full(&self, tables: &Tables) -> bool {
        tables.active.bytes >= self.bytes_max && tables.frozen.len() >= FROZEN_MAX
    }

    fn freeze_if_full(&self, tables: &mut Tables) {
        if tables.active.bytes >= self.bytes_max && tables.frozen.len() < FROZEN_MAX {
            self.freeze_active(tables);
        }
    }

    fn freeze_active(&self, tables: &mut Tables) {
        let table = std::mem::take(&mut tables.active);
        tables.frozen.push_back(Arc::new(table));
        self.changed.notify_all();
    }
}
