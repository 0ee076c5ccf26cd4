//! What is derived from stored values, kept true as they come: rollups, which are aggregates that are
//! already computed, and reductions, which say what of a series its neighbours say already.
//!
//! ```text
//! committed log ─▶ marks: dirty spans ─▶ quiet? ─▶ store.read ─▶ the fold of aggregates ─▶ chunks, change feed
//!                    (series × device)                └▶ reduce                             (derived.db)
//! ```
//!
//! **What holds.** A row is a function of the values that are stored, never of their order of arrival or
//! of what was computed before. Once a window is quiet it is what an aggregate over the same values
//! answers (with `hold`, and an increase that looks back no further than `lookback`). Values that
//! retention took are no longer there to be counted: windows of before stay as they were.
//!
//! `docs/adr/0014` says why rows are not stored as rows of the store are.

mod chunk;
mod compute;
mod engine;
mod keeper;
mod kept;
mod marks;
mod publisher;
mod reader;
pub mod reduce;
mod reducer;
mod series;
mod share;
mod shelf;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use backtide_model::ObjectName;
use backtide_store::Store;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use self::{
    chunk::ChunkError,
    kept::{Marked, Marks, kept},
    publisher::SCHEMA,
    reader::{Rows, RowsAsked},
    series::{Series, Work},
    shelf::{Change, ChangesAsked, ShelfError},
};
use self::{engine::Engine, publisher::Publisher, shelf::Shelf};
use crate::{bell::Bell, clock::Clock, kafka::Cluster, registry::Registry};

/// The columns that all rows have, as the store names them.
const DEVICE: &str = "_device";
const TIME: &str = "_time";
/// The name under which the store keeps the log.
const CURSOR: &str = "derived";

/// Why nothing can be derived.
#[derive(Debug, thiserror::Error)]
pub enum DerivedError {
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] io::Error),
}

/// How a series stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    pub dirty_devices: usize,
    pub dirty_spans: usize,
    /// How long the longest dirty span waits; `None`: there is none.
    pub waited_ms: Option<i64>,
    /// Some of what was stored before it was declared is not marked yet.
    pub is_backfilling: bool,
    /// Rows computed since the start.
    pub rows: u64,
    /// When some were computed last, milliseconds since 1970.
    pub computed_ms: Option<i64>,
    /// Times that windows could not be computed, and why the last time.
    pub failures: u64,
    pub failure: Option<String>,
}

impl Standing {
    /// current: everything answered is in it. behind: some windows wait. backfilling: so does some of
    /// what was stored before it was declared.
    pub fn state(&self, lag_commits: u64) -> &'static str {
        match (self.is_backfilling, self.dirty_spans, lag_commits) {
            (true, _, _) => "backfilling",
            (false, 0, 0) => "current",
            _ => "behind",
        }
    }
}

/// What the threads and their askers share.
#[derive(Default)]
struct Shared {
    bell: Bell,
    /// Of the one who publishes.
    publishing: Bell,
    running: Mutex<Vec<(i64, Arc<Series>)>>,
    standings: Mutex<HashMap<i64, Standing>>,
    reached: AtomicU64,
}

impl Shared {
    fn set_reached(&self, reached: u64) {
        self.reached.store(reached, Ordering::Relaxed);
    }
}

/// Everything derived.
pub struct Derived {
    path: PathBuf,
    store: Store,
    shared: Arc<Shared>,
    ending: CancellationToken,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// What the threads work with.
pub struct Setting {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub clock: Clock,
    pub organization: ObjectName,
    /// Where changes are published too.
    pub kafka: Option<Cluster>,
}

impl Derived {
    /// Opens the file at `path`, or makes an empty one, and starts upkeep.
    ///
    /// # Errors
    /// [`DerivedError`].
    pub fn open(path: &Path, setting: Setting) -> Result<Arc<Self>, DerivedError> {
        let derived = Self::new(path, setting.store.clone())?;
        let engine = derived.engine(&setting)?;
        let thread = thread::Builder::new().name("derive".to_owned());
        derived
            .threads
            .lock()
            .push(thread.spawn(move || engine.run())?);
        if let Some(cluster) = setting.kafka {
            let publisher = Publisher::new(
                Shelf::open(path)?,
                Arc::clone(&derived.shared),
                &cluster,
                setting.registry,
                setting.organization,
                derived.ending.clone(),
            );
            let thread = thread::Builder::new().name("derive-kafka".to_owned());
            derived
                .threads
                .lock()
                .push(thread.spawn(move || publisher.run())?);
        }
        Ok(derived)
    }

    fn new(path: &Path, store: Store) -> Result<Arc<Self>, DerivedError> {
        drop(Shelf::open(path)?);
        Ok(Arc::new(Self {
            path: path.to_owned(),
            store,
            shared: Arc::default(),
            ending: CancellationToken::new(),
            threads: Mutex::default(),
        }))
    }

    fn engine(&self, setting: &Setting) -> Result<Engine, DerivedError> {
        Ok(Engine::new(
            Shelf::open(&self.path)?,
            setting.store.clone(),
            Arc::clone(&setting.registry),
            setting.clock.clone(),
            Arc::clone(&self.shared),
        ))
    }

    /// What is under upkeep: ids, and what they are, in the order of policies.
    pub fn series(&self) -> Vec<(i64, Arc<Series>)> {
        self.shared.running.lock().clone()
    }

    /// How a series stands.
    pub fn standing(&self, id: i64) -> Standing {
        let standings = self.shared.standings.lock();
        standings.get(&id).cloned().unwrap_or_default()
    }

    /// Commits that upkeep has not looked at.
    pub fn lag(&self) -> u64 {
        if self.shared.running.lock().is_empty() {
            return 0;
        }
        let durable = self.store.durable().0;
        durable.saturating_sub(self.shared.reached.load(Ordering::Relaxed))
    }

    /// The rows of a series, by device, then time: batches of `_device`, `_time` and [`Series::columns`].
    /// Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn rows(&self, asked: RowsAsked) -> Result<Rows, ShelfError> {
        Ok(Rows::new(Shelf::open(&self.path)?, asked))
    }

    /// Changes behind a place, in order. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn changes(&self, asked: &ChangesAsked) -> Result<Vec<Change>, ShelfError> {
        Shelf::open(&self.path)?.changes(asked)
    }

    /// The first change that is kept and the last there was; zeros where there was none. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn extent(&self) -> Result<(u64, u64), ShelfError> {
        Shelf::open(&self.path)?.extent()
    }

    /// Sets the gauges.
    pub fn gauge(&self) {
        crate::telemetry::gauge(
            "backtide_derived_lag_commits",
            usize::try_from(self.lag()).unwrap_or(usize::MAX),
        );
        let (mut devices, mut spans) = (HashMap::new(), HashMap::new());
        for (id, series) in self.series() {
            let standing = self.standing(id);
            let name = series.name.to_string();
            *devices.entry(name.clone()).or_insert(0) += standing.dirty_devices;
            *spans.entry(name).or_insert(0) += standing.dirty_spans;
        }
        let set = |metric: &'static str, values: HashMap<String, usize>| {
            for (name, value) in values {
                // Counts stay far below 2^52, where a double stops being exact.
                metrics::gauge!(metric, "name" => name).set(value as f64);
            }
        };
        set("backtide_derived_dirty_devices", devices);
        set("backtide_derived_dirty_spans", spans);
        let bytes = Shelf::open(&self.path).and_then(|shelf| shelf.bytes_used());
        if let Ok(bytes) = bytes {
            metrics::gauge!("backtide_derived_bytes").set(bytes as f64);
        }
    }

    /// Ends upkeep; what is marked is written down. Blocks.
    pub fn close(&self) {
        self.ending.cancel();
        self.shared.bell.end();
        self.shared.publishing.end();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of rollups ended in a bug");
            }
        }
    }
}

#[cfg(test)]
mod tests;
