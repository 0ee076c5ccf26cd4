//! The store as its users see it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use backtide_model::{DeviceKey, ElementName, ProductKey, Storage};
use parking_lot::Mutex;

use crate::{
    Commit, CommitError, Committed, CompactError, Done, FollowError, Followed, FollowedSome, Keys,
    Lead, MemtableStats, OpenError, Options, Origin, Range, ReadError, Receipt, Recovery, Salvaged,
    Sequence, Slabs, State, Wanted, Watch,
    background::{self, Signals, Waits},
    committer::{Committer, Storages},
    disk::{Disk, Lock},
    health::Health,
    journal::{self, Choice, Log},
    library::{
        AttributeRange, ChronicleStats, ConflictFilter, ConflictPage, ConflictRows, DeviceSpan,
        EventRange, Expirable, ExpirableRecords, FlushError, Going, Keep, Latest, Library,
        LibraryStats, Lineage, StoredAttribute, StoredEvent, View,
    },
    memtable::Memtable,
    queue::{Queue, Submission},
    watch::Watchers,
};

/// A handle; clones are the same store. The last one dropped closes it.
#[derive(Clone)]
pub struct Store {
    running: Arc<Running>,
}

/// Figures of a store, for metrics and people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub durable: Sequence,
    /// Commits up to here are in segments.
    pub flushed: Sequence,
    /// The first commit that can still be followed.
    pub oldest: Option<Sequence>,
    pub log_files: usize,
    pub log_bytes: u64,
    /// Submissions waiting for the committer.
    pub queued: usize,
    pub memtable: MemtableStats,
    /// The most segments of one product that hold the same moment of the same device.
    pub overlapping_segments: usize,
    /// How long flushes have waited for merges since the store opened.
    pub flush_waited_ms: u64,
}

/// A follower keeps more of the log than its bound allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLog {
    pub cursor: String,
    /// How far it has come.
    pub at: Sequence,
    pub log_bytes: u64,
}

/// What the threads of a store share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) library: Library,
    pub(crate) log: Arc<Log>,
    pub(crate) memtable: Memtable,
    pub(crate) queue: Queue,
    pub(crate) health: Health,
    pub(crate) watchers: Watchers,
    pub(crate) signals: Signals,
    pub(crate) waits: Waits,
    pub(crate) held: Mutex<Option<HeldLog>>,
    durable: AtomicU64,
    committed_at: Mutex<Instant>,
}

impl Shared {
    pub(crate) fn durable(&self) -> Sequence {
        Sequence(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn set_durable(&self, sequence: Sequence) {
        self.durable.store(sequence.0, Ordering::Release);
        *self.committed_at.lock() = Instant::now();
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.committed_at.lock().elapsed() >= Duration::from_millis(self.options.quiet_ms)
    }
}

impl Store {
    /// Random, made with the store: the front of its receipts. A copy has the same.
    pub fn id(&self) -> u32 {
        self.shared().library.store_id()
    }

    /// Opens a store, or makes an empty one; moves what the journal holds on to memory and
    /// segments. Memory stays bounded by the memtable's size.
    ///
    /// # Errors
    /// [`OpenError`]: damage is refused, never repaired silently.
    pub fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        options: Options,
    ) -> Result<(Self, Recovery), OpenError> {
        let lock = lock(dir, &*disk)?;
        let library = Library::open(dir, Arc::clone(&disk), &options)?;
        let memtable = Memtable::new(options.memtable_bytes_max);
        let mut storages = Storages::default();
        let opened = {
            let place = journal::Place {
                disk: &disk,
                dir: &dir.join("journal"),
                store_id: library.store_id(),
                flushed: library.flushed(),
                file_bytes: options.journal_file_bytes,
            };
            journal::open(&place, &mut |sequence, commit| {
                storages.learn(&commit);
                let commits = vec![commit];
                library.note_refusals(sequence, &commits);
                for entry in memtable.insert(sequence, commits) {
                    library.noted(&entry);
                }
                flush_frozen(&library, &memtable)
            })?
        };
        let health = Health::new(disk, dir.to_owned(), &options);
        let queue = Queue::new(options.queue_submissions_max, options.queue_bytes_max);
        let shared = Arc::new(Shared {
            options,
            library,
            log: opened.log,
            memtable,
            queue,
            health,
            watchers: Watchers::default(),
            signals: Signals::default(),
            waits: Waits::default(),
            held: Mutex::default(),
            durable: AtomicU64::new(opened.last.0),
            committed_at: Mutex::new(Instant::now()),
        });
        let committer = Committer::new(Arc::clone(&shared), opened.writer, opened.last, storages);
        let running = Running::start(shared, committer, lock).map_err(|error| OpenError::Io {
            path: dir.to_owned(),
            error,
        })?;
        Ok((
            Self {
                running: Arc::new(running),
            },
            opened.recovery,
        ))
    }

    /// Hands commits to the committer and returns at once; `done` gets a result for each.
    ///
    /// # Errors
    /// Nothing was taken and `done` is not called: [`CommitError::QueueFull`],
    /// [`CommitError::Closing`], [`CommitError::Poisoned`], [`CommitError::TooLarge`].
    pub fn submit(&self, commits: Vec<Commit>, done: Done) -> Result<(), CommitError> {
        self.shared().health.check_poison()?;
        self.shared().queue.push(Submission::new(commits, done)?)
    }

    /// Commits and waits: for tests and tools.
    ///
    /// # Errors
    /// As [`Store::submit`]; the results of the commits are inside.
    pub fn commit(
        &self,
        commits: Vec<Commit>,
    ) -> Result<Vec<Result<Committed, CommitError>>, CommitError> {
        let (tell, told) = mpsc::sync_channel(1);
        let done = Box::new(move |results| {
            // The receiver waits below for as long as this closure lives.
            drop(tell.send(results));
        });
        self.submit(commits, done)?;
        told.recv().map_err(|_| CommitError::Closing)
    }

    /// Every commit up to here would survive power loss.
    pub fn durable(&self) -> Sequence {
        self.shared().durable()
    }

    /// The commits behind `from`, in order, with about `bytes_max` bytes of records at most but at
    /// least one commit; empty when there is none.
    ///
    /// # Errors
    /// [`FollowError::Trimmed`] when the log begins later.
    pub fn follow(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Followed>, FollowError> {
        self.shared().log.follow(from, self.durable(), bytes_max)
    }

    /// What was refused or tried again among the commits behind `from`, as [`Self::follow`] would give
    /// them, without decoding the others.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn follow_refusals(
        &self,
        from: Sequence,
        bytes_max: usize,
    ) -> Result<FollowedSome, FollowError> {
        let shared = self.shared();
        shared
            .log
            .follow_some(from, self.durable(), bytes_max, Choice::Refusals)
    }

    /// Those among the commits behind `from` that are wanted, as [`Self::follow`] would give them,
    /// without decoding the others.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn follow_wanted(
        &self,
        from: Sequence,
        bytes_max: usize,
        wanted: Wanted,
    ) -> Result<FollowedSome, FollowError> {
        let shared = self.shared();
        shared
            .log
            .follow_some(from, self.durable(), bytes_max, Choice::Of(wanted))
    }

    /// What the commits behind `from` store points for, about `bytes_max` bytes of records of them, without
    /// decoding a value; gives the last commit looked at. After an error `each` may have been called
    /// for some of them.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn follow_keys(
        &self,
        from: Sequence,
        bytes_max: usize,
        each: &mut dyn FnMut(&Keys<'_>),
    ) -> Result<Sequence, FollowError> {
        let shared = self.shared();
        shared
            .log
            .follow_keys(from, self.durable(), bytes_max, each)
    }

    /// Calls `tell` on the committer's thread after each group. It must be quick, must not block
    /// and must not hold a handle of the store, which would then never close.
    pub fn watch(&self, tell: Box<dyn Fn(Sequence) + Send + Sync>) -> Watch {
        self.shared().watchers.add(tell)
    }

    /// Where a follower stands, as it last said durably.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn cursor(&self, name: &str) -> Result<Option<Sequence>, ReadError> {
        self.shared().library.cursor(name)
    }

    /// Says durably that the follower `name` has dealt with everything up to `at`. The log is kept
    /// behind the slowest cursor.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn set_cursor(&self, name: &str, at: Sequence) -> Result<(), ReadError> {
        self.shared().library.set_cursor(name, at)
    }

    /// Forgets a follower, which holds the log no longer.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn drop_cursor(&self, name: &str) -> Result<(), ReadError> {
        self.shared().library.drop_cursor(name)
    }

    /// Rows of a range, everything answered before the call included.
    ///
    /// # Errors
    /// A segment or the manifest cannot be read.
    pub fn read(&self, range: &Range) -> Result<Box<dyn Slabs>, ReadError> {
        // The memtable first: what is flushed in between is then found in both, never in neither.
        let entries = self.shared().memtable.snapshot(&range.product);
        self.shared().library.read(entries, range, View::Kept)
    }

    /// The same in a thinner view.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn view(&self, range: &Range, view: View) -> Result<Box<dyn Slabs>, ReadError> {
        let entries = self.shared().memtable.snapshot(&range.product);
        self.shared().library.read(entries, range, view)
    }

    /// The same without `_sequence`: where no two versions of a value meet, nobody has to look at commits,
    /// which are a good part of what a read costs.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn values(
        &self,
        range: &Range,
        view: View,
        lead: Lead,
    ) -> Result<Box<dyn Slabs>, ReadError> {
        let entries = self.shared().memtable.snapshot(&range.product);
        self.shared().library.values(entries, range, view, lead)
    }

    /// As [`Store::read`], with rows that have none of the points of the range, but others: how many
    /// rows there are does not depend on what is asked of them. `_sequence` is that of the whole row,
    /// there at least where it is asked for, and slabs may have columns of more points.
    ///
    /// # Errors
    /// A segment or the manifest cannot be read.
    pub fn every_row(
        &self,
        range: &Range,
        with_sequences: bool,
    ) -> Result<Box<dyn Slabs>, ReadError> {
        let entries = self.shared().memtable.snapshot(&range.product);
        let library = &self.shared().library;
        library.every_row(entries, range, with_sequences)
    }

    /// Events of a range in the order of time, then device, a slab at a time; everything answered
    /// before the call included, each once.
    ///
    /// # Errors
    /// The chronicle cannot be read.
    pub fn events(
        &self,
        range: &EventRange,
    ) -> Result<impl Iterator<Item = Result<Vec<StoredEvent>, ReadError>> + use<>, ReadError> {
        // The memtable first, as in `read`.
        let told = self.shared().memtable.chapter(&range.product).events;
        let library = &self.shared().library;
        let keep = library.records_keep(&range.product).0;
        library.chronicle().events(&told, range, keep)
    }

    /// Attribute values in the order of device, then attribute, a slab at a time; with
    /// [`AttributeRange::history`] the earlier ones too, oldest first. Everything answered before
    /// the call is included.
    ///
    /// # Errors
    /// The chronicle cannot be read.
    pub fn attributes(
        &self,
        range: &AttributeRange,
    ) -> Result<impl Iterator<Item = Result<Vec<StoredAttribute>, ReadError>> + use<>, ReadError>
    {
        let told = self.shared().memtable.chapter(&range.product).attributes;
        let library = &self.shared().library;
        let keep = library.records_keep(&range.product).1;
        library.chronicle().attributes(&told, range, keep)
    }

    /// Figures of the flushed events and attributes.
    ///
    /// # Errors
    /// The chronicle cannot be read.
    pub fn chronicle_stats(&self) -> Result<ChronicleStats, ReadError> {
        self.shared().library.chronicle().stats()
    }

    /// Commits behind `after` up to `through` of which some values were there already, `limit` at most, in
    /// order, and how many. Known up to [`Store::compared`].
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn repeats(
        &self,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Vec<(Sequence, u64)>, ReadError> {
        self.shared().library.repeats(after, through, limit)
    }

    /// Commits behind `after` up to `through` of which some values were other than what stood there, `limit`
    /// at most, in order, and how many. Known up to [`Store::compared`].
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn differences(
        &self,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Vec<(Sequence, u64)>, ReadError> {
        self.shared().library.differences(after, through, limit)
    }

    /// The last commit up to which every value is compared with what stood there before it.
    pub fn compared(&self) -> Sequence {
        self.shared().library.compared()
    }

    /// Values that were overwritten by different ones, in the order in which they were found.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn conflicts(&self, filter: &ConflictFilter) -> Result<ConflictPage, ReadError> {
        self.shared().library.conflicts(filter)
    }

    /// Rows with such values.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn conflict_rows(&self, filter: &ConflictFilter) -> Result<ConflictRows, ReadError> {
        self.shared().library.conflict_rows(filter)
    }

    /// The latest values by event time; empty `devices` or `points`: all of them.
    pub fn latest(
        &self,
        product: &ProductKey,
        devices: &[DeviceKey],
        points: &[ElementName],
    ) -> Vec<Latest> {
        self.shared().library.latest(product, devices, points)
    }

    /// The receipt of a commit.
    pub fn receipt(&self, sequence: Sequence) -> Receipt {
        Receipt::new(self.shared().library.store_id(), sequence)
    }

    /// The commit that a receipt names; `None` where it is none of this store's.
    pub fn find_receipt(&self, receipt: &str) -> Option<Sequence> {
        let sequence = Receipt::read(receipt, self.shared().library.store_id())?;
        (sequence <= self.durable()).then_some(sequence)
    }

    /// Sets what of every product is kept; of those that are not named everything is. What is not
    /// kept is not read from now on; it goes from the disk little by little. This is not kept over a
    /// restart.
    pub fn set_keeps(&self, keeps: HashMap<ProductKey, Keep>) {
        self.shared().library.set_keeps(keeps);
    }

    /// A commit before which every one arrived earlier than `arrived_ms`, milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn first_since(&self, arrived_ms: i64) -> Result<Sequence, ReadError> {
        self.shared().library.first_since(arrived_ms)
    }

    /// What a keep could take of some points of a product, reckoned from what is in segments without
    /// reading them: never too little of that.
    pub fn expirable(
        &self,
        product: &ProductKey,
        points: &[ElementName],
        keep: &Keep,
    ) -> Expirable {
        self.shared().library.expirable(product, points, keep)
    }

    /// Counts by reading what of some points is read now and would not be under another keep, device
    /// after device.
    ///
    /// # Errors
    /// A segment or the manifest cannot be read.
    pub fn going(
        &self,
        product: &ProductKey,
        points: &[ElementName],
        keep: &Keep,
    ) -> Result<impl Iterator<Item = Result<Going, ReadError>> + use<>, ReadError> {
        // The memtable first, as in `read`.
        let entries = self.shared().memtable.snapshot(product);
        self.shared().library.going(entries, product, points, keep)
    }

    /// From when to when devices have values of some points, reckoned from the index of segments and from
    /// memory: a device that has any is there, and its span is not too short.
    pub fn spans(
        &self,
        product: &ProductKey,
        points: &[ElementName],
    ) -> BTreeMap<DeviceKey, DeviceSpan> {
        let entries = self.shared().memtable.snapshot(product);
        self.shared().library.spans(&entries, product, points)
    }

    /// Counts the events and attribute values that a keep would take, of those that are flushed.
    ///
    /// # Errors
    /// The chronicle cannot be read.
    pub fn going_records(
        &self,
        product: &ProductKey,
        keep: &Keep,
    ) -> Result<ExpirableRecords, ReadError> {
        self.shared().library.chronicle().expirable(product, keep)
    }

    /// Where commits came from, in order of sequence; commits that there are not are left out.
    /// Sorted sequences are found quickest.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn origins(&self, sequences: &[Sequence]) -> Result<Vec<Lineage>, ReadError> {
        // The memtable first: what is flushed in between is then found here already.
        let recent = self.shared().memtable.origins(sequences);
        let is_recent = |sequence: &Sequence| recent.iter().any(|(first, _)| first == sequence);
        let older: Vec<Sequence> = sequences
            .iter()
            .filter(|sequence| !is_recent(sequence))
            .copied()
            .collect();
        let mut found = self.shared().library.origins(&older)?;
        found.extend(recent.into_iter().map(|(sequence, origin)| Lineage {
            sequence,
            origin: Origin::clone(&origin),
        }));
        found.sort_by_key(|lineage| lineage.sequence);
        Ok(found)
    }

    /// Whether a follower that stands still keeps more of the log than its bound allows, as last
    /// seen when the log was trimmed.
    pub fn held_log(&self) -> Option<HeldLog> {
        self.shared().held.lock().clone()
    }

    /// The points of a product that anything was ever stored of.
    pub fn points(&self, product: &ProductKey) -> Vec<ElementName> {
        self.shared().library.points_of(product)
    }

    /// What a point is stored as, if a value of it ever was.
    pub fn storage_of(&self, product: &ProductKey, point: &ElementName) -> Option<Storage> {
        self.shared().library.storage_of(product, point)
    }

    /// Figures of the segments.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn segment_stats(&self) -> Result<LibraryStats, ReadError> {
        self.shared().library.stats()
    }

    pub fn health(&self) -> State {
        self.shared().health.state()
    }

    /// Bytes that are free where the store is, as seen within the last second.
    pub fn disk_free_bytes(&self) -> u64 {
        self.shared().health.free_bytes()
    }

    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let (log_files, log_bytes) = shared.log.size();
        Stats {
            durable: shared.durable(),
            flushed: shared.library.flushed(),
            oldest: shared.log.oldest(),
            log_files,
            log_bytes,
            queued: shared.queue.len(),
            memtable: shared.memtable.stats(),
            overlapping_segments: shared.library.height(),
            flush_waited_ms: shared.waits.waited_ms(),
        }
    }

    /// Waits until everything durable now is in segments.
    ///
    /// # Errors
    /// The disk is full, or the store poisoned.
    pub fn flush_now(&self) -> Result<(), CommitError> {
        let shared = self.shared();
        let target = shared.durable();
        while shared.library.flushed() < target {
            shared.health.check_poison()?;
            if shared.signals.is_stopped() {
                return Err(CommitError::Closing);
            }
            if shared.health.flush_is_full() {
                return Err(shared.health.disk_full());
            }
            shared.memtable.freeze();
            let is_flushed = || shared.library.flushed() >= target;
            shared.memtable.wait(Duration::from_millis(50), is_flushed);
        }
        Ok(())
    }

    /// Flushes everything durable now, then merges and classifies until nothing is left to do.
    /// Takes its time; commits and reads go on beside it.
    ///
    /// # Errors
    /// The disk is full, the store poisoned or closing; or a merge failed, which goes on being tried.
    pub fn compact(&self) -> Result<(), CompactError> {
        self.flush_now()?;
        let Shared {
            signals, health, ..
        } = self.shared();
        let merged = signals.compact(|| health.is_poisoned());
        if merged.map_err(|reason| CompactError::Merge { reason })? {
            return Ok(());
        }
        health.check_poison()?;
        Err(CommitError::Closing.into())
    }

    /// Commits what is queued, then stops. Further submissions get [`CommitError::Closing`].
    pub fn close(&self) {
        self.running.close();
    }

    fn shared(&self) -> &Shared {
        &self.running.shared
    }
}

/// Makes a store whose journal is damaged open again: keeps every intact commit, copies the damaged
/// bytes to `journal-damaged/` and reports which commits the journal no longer has. For a person to
/// decide on; the store is not open meanwhile.
///
/// # Errors
/// The segments do not open, the disk fails, or the journal is of another store or a newer version.
pub fn salvage(dir: &Path, disk: &Arc<dyn Disk>, options: &Options) -> Result<Salvaged, OpenError> {
    let _lock = lock(dir, &**disk)?;
    let library = Library::open(dir, Arc::clone(disk), options)?;
    let place = journal::Place {
        disk,
        dir: &dir.join("journal"),
        store_id: library.store_id(),
        flushed: library.flushed(),
        file_bytes: options.journal_file_bytes,
    };
    journal::salvage(&place, &dir.join("journal-damaged"))
}

/// Two processes would write over each other's journal.
fn lock(dir: &Path, disk: &dyn Disk) -> Result<Lock, OpenError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked {
            dir: dir.to_owned(),
        },
        _ => OpenError::Io {
            path: dir.to_owned(),
            error,
        },
    };
    disk.create_dir_all(dir).map_err(failed)?;
    disk.lock(dir).map_err(failed)
}

fn flush_frozen(library: &Library, memtable: &Memtable) -> Result<(), OpenError> {
    while let Some(table) = memtable.oldest_frozen() {
        library
            .flush(&table.entries, &table.chapter, &table.origins, table.last)
            .map_err(|error| match error {
                FlushError::DiskFull { .. } => OpenError::DiskFull,
                error => OpenError::Flush(error),
            })?;
        memtable.flushed();
    }
    Ok(())
}

/// A store with its threads. Shutdown by ownership: dropping it drains and joins.
struct Running {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    committer: Option<thread::JoinHandle<()>>,
    background: Vec<thread::JoinHandle<()>>,
    /// Given back when they are through.
    lock: Option<Lock>,
}

impl Running {
    fn start(shared: Arc<Shared>, committer: Committer, lock: Lock) -> io::Result<Self> {
        let running = Self {
            shared,
            threads: Mutex::default(),
        };
        let spawn = |name: &str, run: fn(&Arc<Shared>)| {
            let shared = Arc::clone(&running.shared);
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || run(&shared))
        };
        {
            let mut threads = running.threads.lock();
            threads.lock = Some(lock);
            threads
                .background
                .push(spawn("store-flush", background::flush)?);
            threads
                .background
                .push(spawn("store-merge", background::merge)?);
            let commit = thread::Builder::new().name("store-commit".to_owned());
            threads.committer = Some(commit.spawn(move || committer.run())?);
        }
        Ok(running)
    }

    fn close(&self) {
        self.shared.queue.close();
        // The flusher no longer waits for merges.
        self.shared.memtable.wake();
        let threads = std::mem::take(&mut *self.threads.lock());
        // The committer may wait for the flusher, so the flusher goes on until it is through.
        threads.committer.into_iter().for_each(join);
        self.shared.signals.stop();
        self.shared.memtable.wake();
        threads.background.into_iter().for_each(join);
        drop(threads.lock);
    }
}

/// A handle dropped by a callback is dropped on the committer's own thread, which then ends by
/// itself.
fn join(thread: thread::JoinHandle<()>) {
    if thread.thread().id() == thread::current().id() {
        return;
    }
    if thread.join().is_err() {
        tracing::error!("a thread of the store panicked");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
    }
}
