//! What was refused, to be found, understood and sent again.
//!
//! The journal makes a refusal durable before it is answered; this index only follows the
//! committed log and writes down where what is. It keeps its place in the log in the same
//! transaction as the entries, so that each refusal is in it exactly once, whatever ends the
//! process. Nothing leaves it silently: when it is full, [`Quarantine::is_full`] tells the doors to
//! take nothing more, and only an explicit option lets the oldest go instead.

mod cabinet;
mod entry;
mod follower;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use backtide_store::{Sequence, Store};
use parking_lot::{Condvar, Mutex};

pub use cabinet::{Bounds, Filter, WhenFull};
pub use entry::{Cause, Entry, Id, Item, Payload, Shown};

use cabinet::Cabinet;

/// How long a reader waits for refusals that were answered before it asked.
const SETTLE: Duration = Duration::from_secs(5);

/// Why the index cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    #[error("quarantine: {0}")]
    File(#[from] rusqlite::Error),
    #[error("quarantine entry {id} cannot be read: {reason}")]
    Entry { id: Id, reason: String },
    #[error("the quarantine's follower cannot start: {0}")]
    Thread(io::Error),
}

/// The index of all refusals. Share it in an `Arc`; dropping it ends its follower.
pub struct Quarantine {
    store: Store,
    progress: Arc<Progress>,
    readers: Mutex<Cabinet>,
    follower: Option<thread::JoinHandle<()>>,
}

/// Entries, and how much of the log is not yet looked through.
#[derive(Debug)]
pub struct Listing<T> {
    pub found: T,
    /// Commits that were answered and may hold refusals that are not in the listing; 0 but under
    /// heavy load.
    pub behind: u64,
}

impl Quarantine {
    /// Opens or makes the index at `path` and begins to follow the store.
    ///
    /// # Errors
    /// The file cannot be opened, or is no quarantine.
    pub fn open(path: &Path, bounds: Bounds, store: Store) -> Result<Self, QuarantineError> {
        let mut cabinet = Cabinet::open(path, bounds)?;
        cabinet.agree_with(store.durable())?;
        let progress = Arc::new(Progress::new(cabinet.cursor()?, cabinet.is_full()?));
        let readers = Mutex::new(Cabinet::open(path, bounds)?);
        let follower = thread::Builder::new()
            .name("quarantine".to_owned())
            .spawn({
                let (store, progress) = (store.clone(), progress.clone());
                move || follower::follow(&store, cabinet, &progress)
            })
            .map_err(QuarantineError::Thread)?;
        Ok(Self {
            store,
            progress,
            readers,
            follower: Some(follower),
        })
    }

    /// Whether nothing more can be taken without losing something. A door that sees this holds.
    pub fn is_full(&self) -> bool {
        self.progress.is_full.load(Ordering::Relaxed)
    }

    /// Entries by their id, oldest first. Holds every refusal that was answered before the call,
    /// unless [`Listing::behind`] says otherwise. Blocks: call it from a thread that may.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, filter: &Filter) -> Result<Listing<Vec<Entry>>, QuarantineError> {
        let behind = self.settle();
        let found = self.readers.lock().list(filter)?;
        Ok(Listing { found, behind })
    }

    /// Refusals that have the same code and subject, counted together; the most frequent first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn causes(&self, filter: &Filter) -> Result<Listing<Vec<Cause>>, QuarantineError> {
        let behind = self.settle();
        let found = self.readers.lock().causes(filter)?;
        Ok(Listing { found, behind })
    }

    /// An entry with its bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn show(&self, id: Id) -> Result<Option<(Entry, Payload)>, QuarantineError> {
        self.settle();
        self.readers.lock().show(id)
    }

    /// Waits until the follower has seen what is durable now; how much it has not.
    fn settle(&self) -> u64 {
        self.progress.wait(self.store.durable(), SETTLE)
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        self.progress.stop();
        if let Some(follower) = self.follower.take()
            && follower.join().is_err()
        {
            tracing::error!("the quarantine's follower panicked");
        }
    }
}

/// How far the follower is; shared with the callback that wakes it.
struct Progress {
    state: Mutex<State>,
    /// There is news in the log, or the end.
    news: Condvar,
    /// The follower has come further.
    moved: Condvar,
    is_full: AtomicBool,
}

struct State {
    reached: Sequence,
    has_news: bool,
    stopped: bool,
}

impl Progress {
    fn new(reached: Sequence, is_full: bool) -> Self {
        Self {
            state: Mutex::new(State {
                reached,
                has_news: true,
                stopped: false,
            }),
            news: Condvar::new(),
            moved: Condvar::new(),
            is_full: AtomicBool::new(is_full),
        }
    }

    fn tell_news(&self) {
        self.state.lock().has_news = true;
        self.news.notify_one();
    }

    /// Waits for news; false at the end.
    fn wait_news(&self) -> bool {
        let mut state = self.state.lock();
        while !state.has_news && !state.stopped {
            self.news.wait(&mut state);
        }
        state.has_news = false;
        !state.stopped
    }

    /// Waits, but not for news: something failed.
    fn rest(&self, pause: Duration) {
        let mut state = self.state.lock();
        state.has_news = true;
        let until = Instant::now() + pause;
        while !state.stopped && !self.news.wait_until(&mut state, until).timed_out() {}
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    fn reach(&self, sequence: Sequence) {
        self.state.lock().reached = sequence;
        self.moved.notify_all();
    }

    /// Waits until `wanted` is reached, at most `patience`; how much is left.
    fn wait(&self, wanted: Sequence, patience: Duration) -> u64 {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        while state.reached < wanted && !self.moved.wait_until(&mut state, until).timed_out() {}
        wanted.0.saturating_sub(state.reached.0)
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backtide_model::{
        BatchBuilder, Cell, ChannelName, Code, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
        ProductKey,
    };
    use backtide_store::{Commit, Options, Origin, Part, Refused, RefusedItem, disk::RealDisk};

    use super::*;

    fn store(dir: &Path) -> Store {
        Store::open(dir, Arc::new(RealDisk), Options::default())
            .unwrap()
            .0
    }

    fn commit(arrived_ms: i64, parts: Vec<Part>) -> Commit {
        Commit {
            origin: Origin {
                channel: ChannelName::new("scada-history").unwrap(),
                client: "client-1".into(),
                topic: "/sys/P/integration/measurepoint/post".into(),
                message_id: "\"1\"".into(),
                packet_id: None,
                arrived_ms,
            },
            product: ProductKey::new("P").unwrap(),
            parts,
        }
    }

    fn refused(device: &str, raw: &[u8]) -> Part {
        Part::Refused(Refused {
            code: Code::UnknownDevice,
            raw: raw.into(),
            payload_bytes: u64::try_from(raw.len()).unwrap(),
            payload_sha256: [7; 32],
            items: vec![RefusedItem {
                index: Some(2),
                device: Some(device.into()),
                point: None,
                script_version: None,
                code: Code::UnknownDevice,
                message: format!("device {device} not found").into(),
            }],
            more: 0,
        })
    }

    fn stored() -> Part {
        let mut builder = BatchBuilder::new();
        builder.row(&DeviceKey::new("R1").unwrap(), 0);
        let point = ElementName::new("P_avg").unwrap();
        builder.cell(
            &point,
            ConflictPolicy::KeepLast,
            Cell::Double(1.0),
            NO_QUALITY,
        );
        Part::Points(builder.build())
    }

    fn put(store: &Store, commits: Vec<Commit>) {
        for outcome in store.commit(commits).unwrap() {
            outcome.unwrap();
        }
    }

    fn devices(quarantine: &Quarantine) -> Vec<String> {
        let listing = quarantine.list(&Filter::default()).unwrap();
        assert_eq!(listing.behind, 0);
        listing
            .found
            .into_iter()
            .map(|e| e.items[0].device_key.clone().unwrap().into())
            .collect()
    }

    #[test]
    fn a_refusal_is_listed_as_soon_as_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, Bounds::default(), store.clone()).unwrap();
        for n in 0..20 {
            put(
                &store,
                vec![
                    commit(n, vec![stored()]),
                    commit(n, vec![refused("x", b"{}")]),
                ],
            );
            assert_eq!(devices(&quarantine).len(), usize::try_from(n).unwrap() + 1);
        }
    }

    #[test]
    fn an_entry_names_its_subject_and_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        put(
            &store,
            vec![commit(
                1_000,
                vec![stored(), refused("nobody", b"{\"id\":1}")],
            )],
        );
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, Bounds::default(), store).unwrap();
        let entry = quarantine.list(&Filter::default()).unwrap().found.remove(0);
        let json = serde_json::to_value(&entry).unwrap();
        assert_eq!(json["id"], "1");
        assert_eq!(json["time"], 1_000);
        assert_eq!(json["clientId"], "client-1");
        assert_eq!(json["code"], 1257);
        assert_eq!(json["reason"], "device nobody not found");
        assert_eq!(
            json["subject"],
            serde_json::json!({"index": 2, "deviceKey": "nobody"})
        );
        assert_eq!(json["sha256"], "07".repeat(32));
        let (shown, payload) = quarantine.show(entry.id).unwrap().unwrap();
        assert_eq!(shown, entry);
        assert_eq!(payload.0, b"{\"id\":1}");
        assert!(quarantine.show(Id::parse("99").unwrap()).unwrap().is_none());
    }

    #[test]
    fn every_refusal_is_there_once_whatever_the_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quarantine.db");
        let mut wanted = Vec::new();
        for round in 0..4 {
            let store = store(&dir.path().join("store"));
            let quarantine = Quarantine::open(&path, Bounds::default(), store.clone()).unwrap();
            for n in 0..5 {
                let device = format!("d{round}-{n}");
                put(&store, vec![commit(0, vec![refused(&device, b"{}")])]);
                wanted.push(device);
            }
            if round % 2 == 0 {
                assert_eq!(devices(&quarantine), wanted);
            }
        }
        let quarantine =
            Quarantine::open(&path, Bounds::default(), store(&dir.path().join("store"))).unwrap();
        assert_eq!(devices(&quarantine), wanted);
    }

    #[test]
    fn a_full_quarantine_says_so_and_keeps_everything() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let bounds = Bounds {
            bytes_max: 300 << 10,
            ..Bounds::default()
        };
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, bounds, store.clone()).unwrap();
        assert!(!quarantine.is_full());
        for n in 0..10 {
            put(
                &store,
                vec![commit(n, vec![refused("x", &[b'x'; 64 << 10])])],
            );
        }
        assert_eq!(devices(&quarantine).len(), 10);
        assert!(quarantine.is_full());
        drop(quarantine);
        let quarantine = Quarantine::open(&path, bounds, store).unwrap();
        assert!(quarantine.is_full(), "and after a restart");
    }

    #[test]
    fn the_oldest_go_only_where_the_option_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let bounds = Bounds {
            bytes_max: 300 << 10,
            when_full: WhenFull::DropOldest,
            ..Bounds::default()
        };
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, bounds, store.clone()).unwrap();
        for n in 0..10 {
            put(
                &store,
                vec![commit(
                    n,
                    vec![refused(&format!("d{n}"), &[b'x'; 64 << 10])],
                )],
            );
        }
        let kept = devices(&quarantine);
        assert!(kept.len() < 6 && kept.last().unwrap() == "d9", "{kept:?}");
        assert!(!quarantine.is_full());
    }

    #[test]
    fn entries_leave_when_they_are_too_old() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let bounds = Bounds {
            age_ms_max: 1_000,
            ..Bounds::default()
        };
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, bounds, store.clone()).unwrap();
        put(&store, vec![commit(0, vec![refused("old", b"{}")])]);
        put(&store, vec![commit(1_500, vec![refused("new", b"{}")])]);
        assert_eq!(devices(&quarantine), ["new"]);
    }

    #[test]
    fn refusals_are_found_by_channel_code_and_device_and_counted_by_cause() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        for device in ["a", "b", "a"] {
            put(&store, vec![commit(0, vec![refused(device, b"{}")])]);
        }
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, Bounds::default(), store).unwrap();
        let count = |filter| quarantine.list(&filter).unwrap().found.len();
        let all = Filter::default;
        assert_eq!(
            count(Filter {
                device: Some("a".into()),
                ..all()
            }),
            2
        );
        assert_eq!(
            count(Filter {
                code: Some(1204),
                ..all()
            }),
            0
        );
        assert_eq!(
            count(Filter {
                channel: Some("scada-history".into()),
                ..all()
            }),
            3
        );
        assert_eq!(
            count(Filter {
                after: Id::parse("1"),
                limit: 1,
                ..all()
            }),
            1
        );
        let causes = quarantine.causes(&all()).unwrap().found;
        assert_eq!(
            (causes[0].entries, causes[0].device_key.as_deref()),
            (2, Some("a"))
        );
        assert_eq!(
            (causes[1].entries, causes[1].device_key.as_deref()),
            (1, Some("b"))
        );
    }
}
