//! Whether the store takes commits: poisoned by a failed write, or out of space.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{CommitError, Options, disk::Disk};

/// What the store can do at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Ok,
    /// Commits are refused until there is space again; reads work.
    DiskFull {
        free_bytes: u64,
        reserve_bytes: u64,
    },
    /// Commits are refused until a restart; reads work.
    Poisoned {
        reason: Arc<str>,
    },
}

/// The state of the disk under a store, looked at once a second at most.
pub(crate) struct Health {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reserve_bytes: u64,
    journal_file_bytes: u64,
    poisoned: OnceLock<Arc<str>>,
    seen: Mutex<Option<Seen>>,
    /// The last flush found no space.
    flush_is_full: AtomicBool,
    /// The last new journal file found no space.
    journal_is_full: AtomicBool,
}

#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    free_bytes: u64,
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Health {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, options: &Options) -> Self {
        Self {
            disk,
            dir,
            reserve_bytes: options.disk_reserve_bytes,
            journal_file_bytes: options.journal_file_bytes,
            poisoned: OnceLock::new(),
            seen: Mutex::new(None),
            flush_is_full: AtomicBool::new(false),
            journal_is_full: AtomicBool::new(false),
        }
    }

    pub(crate) fn state(&self) -> State {
        if let Some(reason) = self.poisoned.get() {
            return State::Poisoned {
                reason: Arc::clone(reason),
            };
        }
        let free_bytes = self.free_bytes();
        let reserve_bytes = self.reserve_bytes;
        let is_full =
            free_bytes < reserve_bytes || self.flush_is_full() || self.journal_lacks(free_bytes);
        if is_full {
            State::DiskFull {
                free_bytes,
                reserve_bytes,
            }
        } else {
            State::Ok
        }
    }

    /// Whether a new journal file found no space and would find none now. Nothing but a commit
    /// tries again, so this must end by itself: those who ask first would never commit.
    fn journal_lacks(&self, free_bytes: u64) -> bool {
        self.journal_is_full.load(Ordering::Relaxed)
            && free_bytes < self.reserve_bytes.saturating_add(self.journal_file_bytes)
    }

    /// # Errors
    /// Why no commit is taken now. A journal that found no space is tried again all the same.
    pub(crate) fn admit(&self) -> Result<(), CommitError> {
        self.check_poison()?;
        if self.flush_is_full() || self.free_bytes() < self.reserve_bytes {
            return Err(self.disk_full());
        }
        Ok(())
    }

    pub(crate) fn check_poison(&self) -> Result<(), CommitError> {
        match self.poisoned.get() {
            Some(reason) => Err(CommitError::Poisoned {
                reason: Arc::clone(reason),
            }),
            None => Ok(()),
        }
    }

    /// For good: what is on disk is unknown until a restart reads it.
    pub(crate) fn poison(&self, reason: &str) -> CommitError {
        let reason = self.poisoned.get_or_init(|| {
            tracing::error!(
                reason,
                "the store is poisoned: it takes no commits until a restart"
            );
            Arc::from(reason)
        });
        CommitError::Poisoned {
            reason: Arc::clone(reason),
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.get().is_some()
    }

    pub(crate) fn disk_full(&self) -> CommitError {
        let (free_bytes, reserve_bytes) = (self.free_bytes(), self.reserve_bytes);
        CommitError::DiskFull {
            free_bytes,
            reserve_bytes,
        }
    }

    pub(crate) fn set_journal_is_full(&self, is_full: bool) {
        if self.journal_is_full.swap(is_full, Ordering::Relaxed) != is_full {
            tracing::warn!(is_full, "space for journal files");
        }
    }

    pub(crate) fn set_flush_is_full(&self, is_full: bool) {
        if self.flush_is_full.swap(is_full, Ordering::Relaxed) != is_full {
            tracing::warn!(is_full, "space for segments");
        }
    }

    pub(crate) fn flush_is_full(&self) -> bool {
        self.flush_is_full.load(Ordering::Relaxed)
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        let mut seen = self.seen.lock();
        if let Some(seen) = *seen
            && seen.at.elapsed() < LOOK_EVERY
            && seen.free_bytes >= self.reserve_bytes
        {
            return seen.free_bytes;
        }
        let free_bytes = self.disk.free_bytes(&self.dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "the free space of the disk cannot be read");
            u64::MAX
        });
        *seen = Some(Seen {
            at: Instant::now(),
            free_bytes,
        });
        free_bytes
    }
}
