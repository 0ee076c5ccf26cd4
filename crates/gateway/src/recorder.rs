//! The flight recorder: messages of a channel with all that was made of them, for a while, a
//! sample, or always. For whoever has to find out what a sender really sends.
//!
//! It must never slow a message's way: [`Recorder::record`] hands over to a thread of its own, and
//! what that has no room to take is dropped and counted. What is kept is bounded by bytes and age;
//! the oldest leaves first.
//!
//! SQLite in WAL mode with `synchronous=NORMAL`: a power loss may take the last second.

mod tape;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use backtide_model::{ChannelName, Compression};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

pub use tape::{Bounds, Page, Recording};

use tape::Tape;

/// Messages that may wait for the writer, and their bytes.
const WAITING_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Messages that are written together.
const BATCH: usize = 128;
/// How long a reader waits for what was recorded before it asked.
const SETTLE: Duration = Duration::from_secs(2);

/// Why the recorder cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    #[error("flight recorder: {0}")]
    File(#[from] rusqlite::Error),
    #[error("flight recorder: recording {id} cannot be read: {reason}")]
    Recording { id: i64, reason: String },
    #[error("the flight recorder's writer cannot start: {0}")]
    Thread(io::Error),
}

/// What of a channel is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Until then, milliseconds since 1970 UTC; absent: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// The share of messages: above 0, at most 1.
    pub sample: f64,
}

/// A stage that a message passed, or did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub stage: String,
    pub ok: bool,
    pub detail: String,
    /// What the stage made of the message, where that is text: what a script decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

/// A message with what was made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Arrival, milliseconds since 1970 UTC.
    pub time_ms: i64,
    pub channel: ChannelName,
    pub client: Arc<str>,
    pub topic: Arc<str>,
    /// As it arrived; of one over the limit, its beginning.
    pub payload: Bytes,
    pub payload_bytes: u64,
    pub compression: Compression,
    pub code: u16,
    pub account: Account,
}

impl Message {
    /// What it weighs while it waits to be written.
    fn bytes(&self) -> usize {
        let made = self
            .account
            .steps
            .iter()
            .filter_map(|step| step.made.as_ref());
        self.payload.len() + made.map(String::len).sum::<usize>()
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub steps: Vec<Step>,
    /// The reply as it was sent, before compression.
    pub reply: String,
    pub receipt: String,
    /// Milliseconds: of the verdict, of making it durable with all that came together, and from
    /// arrival to answer.
    pub judge_ms: f64,
    pub commit_ms: f64,
    pub total_ms: f64,
}

/// Records messages. Share it in an `Arc`; dropping the last writes what waits.
pub struct Recorder {
    windows: RwLock<HashMap<ChannelName, Sampled>>,
    orders: Option<SyncSender<Order>>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: AtomicU64,
    readers: Mutex<Tape>,
    writer: Option<thread::JoinHandle<()>>,
}

struct Sampled {
    window: Window,
    /// Messages seen: every so many-th is taken.
    seen: AtomicU64,
}

enum Order {
    Write(Box<Message>),
    /// Answers when everything before is written.
    Settle(SyncSender<()>),
}

impl Recorder {
    /// Opens or makes the file at `path` and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened, or is none of the recorder's.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Self, RecorderError> {
        let tape = Tape::open(path, bounds)?;
        let readers = Tape::open(path, bounds)?;
        let windows = readers.windows()?.into_iter();
        let windows = windows.map(|(channel, window)| (channel, Sampled::new(window)));
        let (orders, taken) = sync_channel(WAITING_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let writer = thread::Builder::new()
            .name("recorder".to_owned())
            .spawn({
                let waiting_bytes = Arc::clone(&waiting_bytes);
                move || write_all(tape, &taken, &waiting_bytes)
            })
            .map_err(RecorderError::Thread)?;
        Ok(Self {
            windows: RwLock::new(windows.collect()),
            orders: Some(orders),
            waiting_bytes,
            dropped: AtomicU64::new(0),
            readers: Mutex::new(readers),
            writer: Some(writer),
        })
    }

    /// Whether anything of a channel is recorded at this moment.
    pub fn is_on(&self, channel: &ChannelName, now_ms: i64) -> bool {
        self.windows
            .read()
            .get(channel)
            .is_some_and(|sampled| sampled.window.until.is_none_or(|until| now_ms < until))
    }

    /// Whether the next message of a channel belongs to the sample.
    pub fn takes(&self, channel: &ChannelName) -> bool {
        self.windows
            .read()
            .get(channel)
            .is_some_and(Sampled::takes_next)
    }

    /// Records a message; never blocks.
    pub fn record(&self, message: Message) {
        let Some(orders) = &self.orders else { return };
        let bytes = message.bytes();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_taken = waiting + bytes <= WAITING_BYTES_MAX
            && orders.try_send(Order::Write(Box::new(message))).is_ok();
        if !is_taken {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("backtide_trace_dropped_total").increment(1);
        }
    }

    /// Messages that were dropped because the writer could not keep up, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn window(&self, channel: &ChannelName) -> Option<Window> {
        Some(self.windows.read().get(channel)?.window)
    }

    /// Opens a window, in place of one that may be open. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn start(&self, channel: &ChannelName, window: Window) -> Result<(), RecorderError> {
        self.readers.lock().set_window(channel, Some(window))?;
        let sampled = Sampled::new(window);
        self.windows.write().insert(channel.clone(), sampled);
        Ok(())
    }

    /// Closes a channel's window; what is recorded stays until it is too old. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn stop(&self, channel: &ChannelName) -> Result<(), RecorderError> {
        self.readers.lock().set_window(channel, None)?;
        self.windows.write().remove(channel);
        Ok(())
    }

    /// Recordings of a channel by their id, oldest first, payloads left out beyond their head.
    /// Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, channel: &ChannelName, page: Page) -> Result<Vec<Recording>, RecorderError> {
        self.settle();
        self.readers.lock().list(channel, page)
    }

    /// A recording with the whole of its payload. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn show(&self, channel: &ChannelName, id: i64) -> Result<Option<Recording>, RecorderError> {
        self.settle();
        self.readers.lock().show(channel, id)
    }

    fn settle(&self) {
        let (done, settled) = sync_channel(1);
        let Some(orders) = &self.orders else { return };
        match orders.try_send(Order::Settle(done)) {
            // A reader that cannot wait any more sees what is there.
            Ok(()) => drop(settled.recv_timeout(SETTLE)),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the flight recorder's writer panicked");
        }
    }
}

impl Sampled {
    fn new(window: Window) -> Self {
        let seen = AtomicU64::new(0);
        Self { window, seen }
    }

    /// Evenly: after n messages, sample × n of them were taken, the first among them.
    fn takes_next(&self) -> bool {
        let n = self.seen.fetch_add(1, Ordering::Relaxed);
        #[expect(
            clippy::cast_precision_loss,
            reason = "an even share needs no last digit"
        )]
        let taken = |n: u64| (n as f64 * self.window.sample).ceil();
        taken(n + 1) > taken(n)
    }
}

fn write_all(mut tape: Tape, orders: &Receiver<Order>, waiting_bytes: &AtomicUsize) {
    while let Ok(first) = orders.recv() {
        let mut messages = Vec::new();
        let mut waiting = Vec::new();
        let more = std::iter::from_fn(|| orders.try_recv().ok());
        for order in std::iter::once(first).chain(more).take(BATCH) {
            match order {
                Order::Write(message) => messages.push(*message),
                Order::Settle(done) => waiting.push(done),
            }
        }
        let bytes = messages.iter().map(Message::bytes).sum();
        if let Err(error) = tape.write(&messages) {
            tracing::error!(%error, messages = messages.len(), "recordings are lost");
        }
        waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        for done in waiting {
            if done.try_send(()).is_err() {
                tracing::debug!("a reader of recordings waits no more");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> ChannelName {
        ChannelName::new("scada-history").unwrap()
    }

    fn message(n: i64, payload: &[u8]) -> Message {
        Message {
            time_ms: n,
            channel: channel(),
            client: "client".into(),
            topic: "topic".into(),
            payload: Bytes::copy_from_slice(payload),
            payload_bytes: u64::try_from(payload.len()).unwrap(),
            compression: Compression::None,
            code: 200,
            account: Account {
                steps: Vec::new(),
                reply: "{}".into(),
                receipt: "1-1".into(),
                judge_ms: 0.1,
                commit_ms: 1.0,
                total_ms: 1.5,
            },
        }
    }

    fn open(dir: &Path, bounds: Bounds) -> Recorder {
        Recorder::open(&dir.join("recorder.db"), bounds).unwrap()
    }

    fn times(recorder: &Recorder) -> Vec<i64> {
        let page = Page::first(10_000);
        let found = recorder.list(&channel(), page).unwrap();
        found.iter().map(|recording| recording.time).collect()
    }

    #[test]
    fn a_window_is_kept_over_a_restart_and_ends_at_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let window = Window {
            until: Some(1_000),
            sample: 1.0,
        };
        open(dir.path(), Bounds::default())
            .start(&channel(), window)
            .unwrap();
        let recorder = open(dir.path(), Bounds::default());
        assert_eq!(recorder.window(&channel()), Some(window));
        assert!(recorder.is_on(&channel(), 999) && !recorder.is_on(&channel(), 1_000));
        recorder.stop(&channel()).unwrap();
        assert!(!recorder.is_on(&channel(), 0));
    }

    #[test]
    fn a_sample_is_an_even_share() {
        for (sample, wanted) in [(1.0, 100), (0.1, 10), (0.25, 25), (0.001, 1)] {
            let window = Window {
                until: None,
                sample,
            };
            let sampled = Sampled::new(window);
            let taken = (0..100).filter(|_| sampled.takes_next()).count();
            assert_eq!(taken, wanted, "{sample}");
        }
    }

    #[test]
    fn what_is_recorded_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = open(dir.path(), Bounds::default());
        recorder.record(message(5, b"{\"id\":1}"));
        let [listed] = &recorder.list(&channel(), Page::first(9)).unwrap()[..] else {
            panic!("one recording");
        };
        let shown = recorder.show(&channel(), listed.id).unwrap().unwrap();
        assert_eq!(shown.payload, b"{\"id\":1}");
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(
            (&json["payload"], &json["code"]),
            (&"{\"id\":1}".into(), &200.into())
        );
        assert_eq!(json["payloadHex"], hex::encode(b"{\"id\":1}"));
        let other = ChannelName::new("other").unwrap();
        assert!(recorder.show(&other, listed.id).unwrap().is_none());
    }

    #[test]
    fn the_oldest_leave_when_the_bound_of_bytes_or_age_is_met() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            bytes_max: 512 << 10,
            age_ms_max: 1_000,
        };
        let recorder = open(dir.path(), bounds);
        for n in 0..100 {
            recorder.record(message(n, &[b'x'; 16 << 10]));
            recorder.settle();
        }
        let kept = times(&recorder);
        assert!(kept.len() < 40 && kept.last() == Some(&99), "{kept:?}");
        recorder.record(message(5_000, b"x"));
        assert_eq!(times(&recorder), [5_000]);
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = open(dir.path(), Bounds::default());
        recorder
            .waiting_bytes
            .store(WAITING_BYTES_MAX, Ordering::Relaxed);
        recorder.record(message(1, b"x"));
        assert_eq!((recorder.dropped(), times(&recorder).len()), (1, 0));
    }
}
