//! Files that are uploaded, on their way into a channel: the same way as its messages.
//!
//! ```text
//! pieces of the body ─▶ Rows (a thread) ─▶ messages ─▶ ingest: judge, quota, commit ─▶ counts on the shelf
//! ```
//!
//! Every arrow waits for the next one: a channel over its quota, or a slow disk, makes the client
//! send more slowly, and memory stays the same for a file of any length. What is counted as stored
//! is stored: counts are written down after the commit. A file that is sent again after a break
//! loses nothing and doubles nothing, since the same values are stored once.

mod pieces;
mod reading;
mod run;
mod shelf;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use backtide_model::{ChannelName, Items, Model};
use backtide_store::{ReadError, Sequence};
use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use shelf::{Compared, Counts, Import, State};

use crate::{
    compared::{Stretch, Whose, compare},
    files::{
        mapping::{Mapping, Points},
        source::Kind,
        value::Form,
    },
    ingest::Ingest,
    limits::IMPORTS_MAX,
    pool::{Pool, PoolError},
    registry::{Product, Snapshot},
};
use shelf::{Shelf, Span};

/// Why a file is not imported, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("imports: {0}")]
    File(#[from] rusqlite::Error),
    #[error("imports: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("the store cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("{IMPORTS_MAX} imports run already; try again when one has ended")]
    TooMany,
    #[error("channel {0} is not declared")]
    NoChannel(String),
    #[error("channel {0} is paused; resume it")]
    Paused(ChannelName),
    #[error(
        "product {0} takes raw bytes that its script reads, not rows; import into a product of format json"
    )]
    Raw(String),
    /// The file ended early, or makes no sense: what was stored before stays stored.
    #[error("{reason}")]
    Ended { reason: String, import: Box<Import> },
}

/// What is to be imported.
#[derive(Debug, Clone)]
pub struct Asked {
    pub channel: String,
    /// What it is called, for people.
    pub file: String,
    pub kind: Kind,
    pub mapping: Mapping,
    /// Rows at the beginning that are left out: they were answered before.
    pub skip_rows: u64,
    /// Who uploads it.
    pub by: String,
}

/// The imports of a gateway. Share it in an `Arc`.
pub struct Imports {
    ingest: Arc<Ingest>,
    shelf: Arc<Mutex<Shelf>>,
    pool: Pool,
    /// Where files that are read out of order wait.
    spool: PathBuf,
    seats: Arc<Semaphore>,
    /// Of those that run: what ends each, which the gateway's own end does too.
    stops: Mutex<HashMap<i64, CancellationToken>>,
    closing: CancellationToken,
}

impl Imports {
    /// Opens or makes the list of imports. What ran when the gateway ended is interrupted. `pool` runs
    /// what blocks.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(
        data_dir: &Path,
        ingest: Arc<Ingest>,
        pool: Pool,
        closing: CancellationToken,
    ) -> Result<Self, ImportError> {
        let spool = data_dir.join("imports");
        fs::create_dir_all(&spool)?;
        let shelf = Shelf::open(&data_dir.join("imports.db"))?;
        let interrupted = shelf.interrupt_all(ingest.clock.now_ms())?;
        if interrupted > 0 {
            tracing::warn!(
                interrupted,
                "imports were interrupted; send their files again"
            );
        }
        Ok(Self {
            ingest,
            shelf: Arc::new(Mutex::new(shelf)),
            pool,
            spool,
            seats: Arc::new(Semaphore::new(IMPORTS_MAX)),
            stops: Mutex::default(),
            closing,
        })
    }

    /// The newest first. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, before: Option<i64>, limit: usize) -> Result<Vec<Import>, ImportError> {
        self.shelf.lock().list(before, limit)
    }

    /// Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, id: i64) -> Result<Option<Import>, ImportError> {
        let (found, span) = {
            let shelf = self.shelf.lock();
            (shelf.get(id)?, shelf.span(id)?)
        };
        let Some(mut import) = found else {
            return Ok(None);
        };
        if let Some(span) = span {
            let (whose, stretch) = self.commits_of(&import, span);
            let found = compare(&self.ingest.store, &whose, stretch)?;
            let complete = found.is_complete && import.ended.is_some();
            let compared = |values| Compared { values, complete };
            import.repeated = Some(compared(found.repeated));
            import.conflicts = Some(compared(found.conflicts));
        }
        Ok(Some(import))
    }

    /// Whose the commits of an import are, and between which they are; `None` where there is no such
    /// import, or where that is not known of it. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn commits(&self, id: i64) -> Result<Option<(Whose, Stretch)>, ImportError> {
        let shelf = self.shelf.lock();
        let (import, span) = (shelf.get(id)?, shelf.span(id)?);
        let both = import.zip(span);
        Ok(both.map(|(import, span)| self.commits_of(&import, span)))
    }

    fn commits_of(&self, import: &Import, span: Span) -> (Whose, Stretch) {
        let whose = Whose {
            client: Some(import.client_id.clone()),
            ..Whose::default()
        };
        let newest = || self.ingest.store.durable();
        let stretch = Stretch {
            after: Sequence(span.after),
            through: span.through.map_or_else(newest, Sequence),
        };
        (whose, stretch)
    }

    /// Imports a file whose bytes come from `body`. Goes on to where they end, whether or not anybody
    /// waits for it.
    ///
    /// # Errors
    /// [`ImportError`].
    pub async fn take(
        self: &Arc<Self>,
        asked: Asked,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Import, ImportError> {
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let seat = seat.map_err(|_| ImportError::TooMany)?;
        let target = Target::of(
            &self.ingest.registry.snapshot(),
            &asked.channel,
            asked.mapping.items(),
        )?;
        let this = Arc::clone(self);
        let taken = tokio::spawn(async move {
            let _seat = seat;
            let (import, stop) = this.begin(&asked, &target).await?;
            let id = import.id;
            let ended = run::run(&this, import, asked, target, body, stop).await;
            this.stops.lock().remove(&id);
            ended
        });
        taken.await.map_err(|_| PoolError::Panicked)?
    }

    /// Ends an import that runs, after the burst that it is at: what is stored stays stored. Whether it ran.
    pub fn cancel(&self, id: i64) -> bool {
        let stops = self.stops.lock();
        let stop = stops.get(&id);
        if let Some(stop) = stop {
            stop.cancel();
        }
        stop.is_some()
    }

    /// Who sees it on the list can cancel it.
    async fn begin(
        self: &Arc<Self>,
        asked: &Asked,
        target: &Target,
    ) -> Result<(Import, CancellationToken), ImportError> {
        let (this, asked) = (Arc::clone(self), asked.clone());
        let (channel, now_ms) = (target.channel.to_string(), self.ingest.clock.now_ms());
        // Events and attributes are not compared one by one.
        let is_compared = asked.mapping.items() == Items::Points;
        let after = is_compared.then(|| self.ingest.store.durable().0);
        let stop = self.closing.child_token();
        let add = move || -> Result<_, ImportError> {
            let of = (channel.as_str(), asked.file.as_str(), asked.by.as_str());
            let shelf = this.shelf.lock();
            let import = shelf.add(of, after, now_ms)?;
            this.stops.lock().insert(import.id, stop.clone());
            Ok((import, stop))
        };
        self.pool.run(add).await?
    }
}

/// Where a file goes.
struct Target {
    channel: ChannelName,
    topic: String,
    points: Points,
}

impl Target {
    fn of(snapshot: &Snapshot, channel: &str, items: Items) -> Result<Self, ImportError> {
        let no_channel = || ImportError::NoChannel(channel.to_owned());
        let channel = snapshot.channel(channel).ok_or_else(no_channel)?;
        let product = snapshot.product(&channel.product).ok_or_else(no_channel)?;
        if channel.paused {
            return Err(ImportError::Paused(channel.name.clone()));
        }
        if !product.is_json() {
            return Err(ImportError::Raw(product.name.to_string()));
        }
        Ok(Self {
            channel: channel.name.clone(),
            topic: format!("/sys/{}/integration/{}", product.key, items.path()),
            points: points(product, items),
        })
    }
}

/// What the model declares of these.
fn points(product: &Product, items: Items) -> Points {
    let model: &Model = &product.model;
    let points = model.measurepoints.iter();
    let points = points.map(|(name, point)| (name.to_string(), Form::of_type(&point.data_type)));
    let attributes = model.attributes.iter();
    let attributes = attributes.map(|(name, of)| (name.to_string(), Form::of_type(&of.data_type)));
    let declared = Points::Declared {
        model: product.model_name.to_string(),
        forms: match items {
            Items::Points | Items::Events => points.collect(),
            Items::Attributes => attributes.collect(),
        },
        passthrough: model.passthrough,
    };
    Points::of(items, declared)
}
