//! Archives: history as files in a folder or a bucket, by product and day of the event; attributes, which
//! have no time of their own, by product.
//!
//! ```text
//! committed log ─▶ days that were touched ─▶ a run: read a day, write it whole, note it ─▶ manifest
//! ```
//!
//! An archive says what its files are and when it runs ([`crate::registry::Archive`]); what is due, and
//! what was written, is kept here. A run never holds the log, and reads no more than the days that changed.

mod log;
mod place;
mod records;
mod run;
mod sheet;
mod shelf;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use backtide_store::{ReadError, Store};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{runtime::Handle, sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

pub use place::PlaceError;
pub use shelf::{FileRecord, FilesAsked, RunRecord};

use crate::{
    clock::{self, Clock},
    pool::{Pool, PoolError},
    query::{FileError, RowError},
    registry::{Archive, Registry, Schedule},
};
use shelf::{COMPLETE, FAILED, INTERRUPTED, RUNNING, Shelf};

/// The name under which the store keeps the log for archives.
pub const CURSOR: &str = "archives";
pub const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// The day of what is not parted by days.
pub const WHOLE: i64 = i64::MAX;
/// How often the log is looked through, and runs are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after a failure a scheduled archive tries again.
const RETRY_AFTER_MS: i64 = 60_000;

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("archives: {0}")]
    Shelf(#[from] rusqlite::Error),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("the store cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the log cannot be read: {0}")]
    Log(String),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("{0}")]
    Shape(String),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(
        "the archive has {} files, the most there may be; declare another one, by product",
        crate::limits::ARCHIVE_FILES_MAX
    )]
    TooManyFiles,
    #[error("the gateway stops; it goes on at the next start")]
    Closing,
}

/// What archives work with.
pub struct Setting {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub clock: Clock,
    pub runtime: Handle,
    /// Folders of archives are below it.
    pub root: PathBuf,
    pub closing: CancellationToken,
}

/// The archives of a gateway. Share it in an `Arc`.
pub struct Archives {
    registry: Arc<Registry>,
    store: Store,
    clock: Clock,
    runtime: Handle,
    root: PathBuf,
    closing: CancellationToken,
    shelf: Mutex<Shelf>,
    /// The log is looked through by one at a time.
    following: Mutex<()>,
    desks: Mutex<HashMap<Box<str>, Arc<Mutex<Desk>>>>,
    /// The archives that the shelf holds, once that was looked at.
    known: Mutex<Option<Vec<Box<str>>>>,
    /// A run is asked for.
    news: Notify,
}

/// What is known of an archive while the gateway runs.
#[derive(Default)]
struct Desk {
    is_wanted: bool,
    is_running: bool,
    run: Option<RunRecord>,
}

/// A day that a run would write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// The product's key.
    pub product: String,
    /// UTC; whole: all of it, of attributes.
    pub date: String,
    /// It was never written; else it is written again, since something of it changed.
    pub is_new: bool,
}

/// How an archive stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The last run, or the one that goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunRecord>,
    /// When it runs next by itself, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run: Option<i64>,
    /// All files there are, with their rows and bytes.
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Days that changed since they were written, as far as the log was looked through.
    pub days_due: u64,
}

impl Archives {
    /// Opens or makes the file of archives. A run that was killed is due again. Open it before anything is
    /// committed: only then can a store be told that is older than what was noted.
    ///
    /// # Errors
    /// The file cannot be opened, or the store's cursor not be set.
    pub fn open(path: &Path, setting: Setting) -> Result<Self, ArchiveError> {
        let mut shelf = Shelf::open(path)?;
        log::agree(&mut shelf, &setting.store)?;
        Ok(Self {
            registry: setting.registry,
            store: setting.store,
            clock: setting.clock,
            runtime: setting.runtime,
            root: setting.root,
            closing: setting.closing,
            shelf: Mutex::new(shelf),
            following: Mutex::new(()),
            desks: Mutex::default(),
            known: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// Files that an archive has written, in the order of product, day and path. Blocks.
    ///
    /// # Errors
    /// The file of archives cannot be read.
    pub fn files(
        &self,
        archive: &Archive,
        asked: &FilesAsked,
    ) -> Result<Vec<FileRecord>, ArchiveError> {
        self.shelf.lock().listed(&archive.uid, asked)
    }

    /// Runs an archive as soon as may be.
    pub fn run_now(&self, archive: &Archive) {
        self.desk(&archive.uid).lock().is_wanted = true;
        self.news.notify_one();
    }

    /// Whether it runs, or waits to.
    pub fn is_running(&self, archive: &Archive) -> bool {
        let desk = self.desk(&archive.uid);
        let desk = desk.lock();
        desk.is_running || desk.is_wanted
    }

    /// Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn standing(&self, archive: &Archive) -> Result<Standing, ArchiveError> {
        let products = self.products(archive);
        let shelf = self.shelf.lock();
        let (files, rows, bytes) = shelf.totals(&archive.uid)?;
        let mut days_due = 0;
        for product in products {
            days_due += shelf.due_count(archive.file.of, &archive.uid, product.key.as_str())?;
        }
        let last_run = shelf.run(&archive.uid)?;
        drop(shelf);
        Ok(Standing {
            next_run: next_run(archive, last_run.as_ref()),
            last_run,
            files,
            rows,
            bytes,
            days_due,
        })
    }

    /// Looks through the log as it grows, until `closing`, on a thread of `pool`.
    pub async fn keep_log(self: Arc<Self>, pool: Pool) {
        loop {
            let this = Arc::clone(&self);
            match pool.run(move || this.look_at_log()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "what archives have to write is not known");
                }
                Err(_) => return,
            }
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Where no archive is declared, nothing is followed and the log is not held.
    fn look_at_log(&self) -> Result<(), ArchiveError> {
        let snapshot = self.registry.snapshot();
        let uids: Vec<&str> = snapshot
            .archives_after(None)
            .map(|archive| &*archive.uid)
            .collect();
        self.forget_others(&uids)?;
        if !uids.is_empty() {
            return self.catch_up();
        }
        let _turn = self.following.lock();
        let mut shelf = self.shelf.lock();
        if shelf.place()?.is_some() {
            self.store.drop_cursor(CURSOR)?;
            shelf.end()?;
        }
        Ok(())
    }

    /// Forgets what is no longer declared.
    fn forget_others(&self, uids: &[&str]) -> Result<(), ArchiveError> {
        let mut known = self.known.lock();
        if known
            .as_ref()
            .is_some_and(|known| known.iter().map(|uid| &**uid).eq(uids.iter().copied()))
        {
            return Ok(());
        }
        self.desks.lock().retain(|uid, _| uids.contains(&&**uid));
        self.shelf.lock().keep_only(uids)?;
        *known = Some(uids.iter().map(|uid| Box::from(*uid)).collect());
        Ok(())
    }

    /// Runs archives when they are due, one after the other, until `closing`, on a thread of `pool`.
    pub async fn keep_runs(self: Arc<Self>, pool: Pool) {
        loop {
            while let Some(archive) = self.due() {
                let this = Arc::clone(&self);
                if pool.run(move || this.run(&archive)).await.is_err()
                    || self.closing.is_cancelled()
                {
                    return;
                }
            }
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = self.news.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// The archive that is to run now.
    fn due(&self) -> Option<Arc<Archive>> {
        if self.closing.is_cancelled() {
            return None;
        }
        let snapshot = self.registry.snapshot();
        let now_ms = self.clock.now_ms();
        let mut all = snapshot.archives_after(None);
        all.find(|archive| {
            let desk = self.desk(&archive.uid);
            let mut desk = desk.lock();
            if desk.run.is_none() {
                // What cannot be read now is told by the run itself.
                desk.run = self.shelf.lock().run(&archive.uid).unwrap_or(None);
            }
            desk.is_wanted
                || next_run(archive, desk.run.as_ref()).is_some_and(|next| next <= now_ms)
        })
        .cloned()
    }

    /// Runs an archive to its end. Blocks.
    fn run(&self, archive: &Archive) {
        let desk = self.desk(&archive.uid);
        let mut run = {
            let mut desk = desk.lock();
            desk.is_wanted = false;
            desk.is_running = true;
            RunRecord {
                state: RUNNING.to_owned(),
                began: self.clock.now_ms(),
                ended: None,
                days: 0,
                files: 0,
                rows: 0,
                bytes: 0,
                error: None,
                manifest_due: desk.run.as_ref().is_some_and(|run| run.manifest_due),
            }
        };
        let began = self.shelf.lock().set_run(&archive.uid, &run);
        let outcome = began.and_then(|()| self.run_all(archive, &mut run));
        let state = match &outcome {
            Ok(()) => COMPLETE,
            Err(ArchiveError::Closing) => INTERRUPTED,
            Err(_) => FAILED,
        };
        run.state = state.to_owned();
        run.error = outcome.err().map(|error| error.to_string());
        run.ended = Some(self.clock.now_ms());
        let name = archive.name.to_string();
        match &run.error {
            None => {
                tracing::info!(
                    archive = name,
                    days = run.days,
                    files = run.files,
                    rows = run.rows,
                    "an archive is written"
                );
            }
            Some(error) => tracing::warn!(
                archive = name,
                error,
                "an archive is not written to its end"
            ),
        }
        metrics::counter!("backtide_archive_runs_total", "archive" => name, "state" => state)
            .increment(1);
        if let Err(error) = self.shelf.lock().set_run(&archive.uid, &run) {
            tracing::warn!(%error, "how an archive ran cannot be noted");
        }
        let mut desk = desk.lock();
        desk.run = Some(run);
        desk.is_running = false;
    }

    fn desk(&self, uid: &str) -> Arc<Mutex<Desk>> {
        Arc::clone(self.desks.lock().entry(uid.into()).or_default())
    }

    /// Ends what runs when the gateway is to end.
    fn check(&self) -> Result<(), ArchiveError> {
        match self.closing.is_cancelled() {
            true => Err(ArchiveError::Closing),
            false => Ok(()),
        }
    }
}

/// When an archive runs by itself, after its last run.
fn next_run(archive: &Archive, last: Option<&RunRecord>) -> Option<i64> {
    if archive.stopped {
        return None;
    }
    let schedule = archive.file.schedule.as_ref();
    let schedule = schedule.and_then(|file| Schedule::of(file).ok());
    match last {
        // It goes on, whoever had told it to run.
        Some(last) if last.state == INTERRUPTED || last.state == RUNNING => Some(last.began),
        Some(last) => {
            let next = schedule?.next_ms(last.began)?;
            let retry = last
                .ended
                .unwrap_or(last.began)
                .saturating_add(RETRY_AFTER_MS);
            Some(if last.state == FAILED {
                next.min(retry)
            } else {
                next
            })
        }
        None => match schedule? {
            Schedule::Every { .. } => Some(archive.created_ms),
            at @ Schedule::At { .. } => at.next_ms(archive.created_ms),
        },
    }
}

/// A day, counted from 1970-01-01, as `2014-03-30`; [`WHOLE`] as that.
fn date(day: i64) -> String {
    if day == WHOLE {
        return "whole".to_owned();
    }
    let midnight = clock::iso(day.saturating_mul(DAY_MS));
    match midnight.split_once('T') {
        Some((date, _)) => date.to_owned(),
        // Beyond the calendar.
        None => format!("day{day}"),
    }
}
