//! What happened on each channel: connections, transmissions, errors. For the people who run it.
//!
//! It must never slow a message's way: [`Log::note`] takes a short lock and returns. A thread of
//! its own writes what waits in batches. When it cannot keep up the newest entries are dropped,
//! counted, and the count is written as an entry of its own.
//!
//! SQLite in WAL mode with `synchronous=NORMAL`: the process may be killed without losing what was
//! written, but a power loss may take the last second. That is accepted here: nothing of a message
//! depends on this log.

mod activity;
mod book;
mod entry;

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use backtide_model::ChannelName;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

pub use activity::{Activity, Doing, Hour};
pub use book::{Bounds, Filter, LogError};
pub use entry::{Entry, Kind, Record, What};

use book::Book;

/// Entries that may wait for the writer.
const WAITING_MAX: usize = 16_384;
/// The writer starts at once when this many wait.
const BATCH: usize = 2_048;
/// How long the writer lets a batch grow.
const LINGER: Duration = Duration::from_millis(50);
/// How long a reader waits for entries noted before it asked.
const SETTLE: Duration = Duration::from_secs(2);

/// The log of all channels. Share it in an `Arc`; dropping the last writes what waits.
pub struct Log {
    /// What the channels do at the moment.
    pub activity: Activity,
    desk: Arc<Desk>,
    readers: Mutex<Book>,
    newest: watch::Receiver<i64>,
    writer: Option<thread::JoinHandle<()>>,
}

impl Log {
    /// Opens or makes the log at `path` and starts its writer.
    ///
    /// # Errors
    /// The file cannot be opened, or is no channel log.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Self, LogError> {
        let book = Book::open(path, bounds)?;
        let readers = Mutex::new(Book::open(path, bounds)?);
        let (announce, newest) = watch::channel(book.newest()?);
        let desk = Arc::new(Desk::default());
        let writer = thread::Builder::new()
            .name("channel-log".to_owned())
            .spawn({
                let desk = desk.clone();
                move || write_all(&desk, book, &announce)
            })
            .map_err(LogError::Thread)?;
        Ok(Self {
            activity: Activity::default(),
            desk,
            readers,
            newest,
            writer: Some(writer),
        })
    }

    /// Takes an entry; never blocks on I/O.
    pub fn note(&self, entry: Entry) {
        self.activity.note(&entry);
        self.desk.put(entry);
    }

    /// Entries by their id, oldest first. Sees everything noted before the call. Blocks: call it
    /// from a thread that may.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Record>, LogError> {
        self.desk.settle(SETTLE);
        self.readers.lock().list(filter)
    }

    /// The id of the entry written last, and of each that follows: wait for a change, then
    /// [`Log::list`] with `after`.
    pub fn newest(&self) -> watch::Receiver<i64> {
        self.newest.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.desk.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the channel log's writer panicked");
        }
    }
}

fn write_all(desk: &Desk, mut book: Book, announce: &watch::Sender<i64>) {
    while let Some(batch) = desk.take() {
        let count = batch.entries.len();
        match book.write(&batch) {
            Ok(newest) => {
                announce.send_replace(newest);
            }
            Err(error) => {
                metrics::counter!("backtide_channel_log_dropped_total").increment(as_u64(count));
                tracing::error!(%error, entries = count, "channel log entries are lost");
            }
        }
        desk.written(count);
        if let Err(error) = book.prune() {
            tracing::error!(%error, "the channel log cannot be pruned");
        }
    }
}

/// Where entries wait for the writer.
#[derive(Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    /// Something waits, or the desk is closed.
    filled: Condvar,
    /// A batch was written.
    settled: Condvar,
}

#[derive(Default)]
struct Waiting {
    batch: Batch,
    noted: u64,
    written: u64,
    /// A reader waits: write now.
    hurry: bool,
    closed: bool,
}

/// What the writer takes at once.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    /// Entries that found no place, by channel.
    dropped: HashMap<ChannelName, u64>,
}

impl Desk {
    fn put(&self, entry: Entry) {
        let mut waiting = self.waiting.lock();
        let count = waiting.batch.entries.len();
        if count >= WAITING_MAX {
            *waiting.batch.dropped.entry(entry.channel).or_default() += 1;
            drop(waiting);
            metrics::counter!("backtide_channel_log_dropped_total").increment(1);
            return;
        }
        waiting.batch.entries.push(entry);
        waiting.noted += 1;
        drop(waiting);
        // The writer is woken once for a batch, not for each entry.
        if count == 0 || count + 1 == BATCH {
            self.filled.notify_one();
        }
    }

    /// The next batch; `None` when the desk is closed and empty.
    fn take(&self) -> Option<Batch> {
        let mut waiting = self.waiting.lock();
        while waiting.batch.entries.is_empty() && !waiting.closed {
            self.filled.wait(&mut waiting);
        }
        let until = Instant::now() + LINGER;
        while waiting.batch.entries.len() < BATCH && !waiting.closed && !waiting.hurry {
            if self.filled.wait_until(&mut waiting, until).timed_out() {
                break;
            }
        }
        waiting.hurry = false;
        let batch = std::mem::take(&mut waiting.batch);
        if batch.entries.is_empty() {
            None
        } else {
            Some(batch)
        }
    }

    fn written(&self, count: usize) {
        self.waiting.lock().written += as_u64(count);
        self.settled.notify_all();
    }

    /// Waits until everything noted before the call is written, at most `patience`.
    fn settle(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut waiting = self.waiting.lock();
        let noted = waiting.noted;
        while waiting.written < noted {
            waiting.hurry = true;
            self.filled.notify_one();
            if self.settled.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }

    fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_one();
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a usize fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmission(channel: &str, time_ms: i64, code: u16) -> Entry {
        Entry {
            time_ms,
            channel: ChannelName::new(channel).unwrap(),
            client: "client-1".into(),
            what: What::Transmission {
                topic: "/sys/p/integration/measurepoint/post".into(),
                bytes: 512,
                items: 3,
                reduced: 0,
                code,
                ms: 1.5,
                receipt: (code == 200).then(|| "0000002a-7".into()),
            },
        }
    }

    fn open(bounds: Bounds) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(&dir.path().join("channel-log.db"), bounds).unwrap();
        (dir, log)
    }

    #[test]
    fn a_reader_sees_what_was_noted_before_it_asked() {
        let (_dir, log) = open(Bounds::default());
        for time in 0..100 {
            log.note(transmission("a", time, 200));
        }
        log.note(transmission("b", 100, 1257));
        let all = log.list(&Filter::default()).unwrap();
        assert_eq!(all.len(), 101);
        assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
        let of_b = Filter {
            channel: Some(ChannelName::new("b").unwrap()),
            ..Filter::default()
        };
        assert_eq!(
            log.list(&of_b).unwrap()[0].entry,
            transmission("b", 100, 1257)
        );
    }

    #[test]
    fn the_log_survives_a_restart_and_goes_on_counting() {
        let (dir, log) = open(Bounds::default());
        log.note(transmission("a", 1, 200));
        drop(log);
        let log = Log::open(&dir.path().join("channel-log.db"), Bounds::default()).unwrap();
        log.note(transmission("a", 2, 200));
        let times: Vec<_> = log
            .list(&Filter::default())
            .unwrap()
            .into_iter()
            .map(|r| r.entry.time_ms)
            .collect();
        assert_eq!(times, [1, 2]);
    }

    #[test]
    fn a_full_desk_drops_the_newest_and_says_how_many() {
        let desk = Desk::default();
        for _ in 0..WAITING_MAX + 3 {
            desk.put(transmission("a", 0, 200));
        }
        let batch = desk.take().unwrap();
        assert_eq!(batch.entries.len(), WAITING_MAX);
        assert_eq!(batch.dropped.get(&ChannelName::new("a").unwrap()), Some(&3));
    }

    #[tokio::test]
    async fn a_follower_is_woken_by_the_next_entry() {
        let (_dir, log) = open(Bounds::default());
        let mut newest = log.newest();
        let before = *newest.borrow_and_update();
        log.note(transmission("a", 1, 200));
        newest.changed().await.unwrap();
        assert!(*newest.borrow() > before);
    }
}
