//! What was refused, to be found, understood and sent again.
//!
//! The journal makes a refusal durable before it is answered; this index only follows the
//! committed log and writes down where what is. It keeps its place in the log in the same
//! transaction as the entries, so that each refusal is in it exactly once, whatever ends the
//! process. Nothing leaves it silently: when it is full, [`Quarantine::is_full`] tells the doors to
//! take nothing more, and only an explicit option lets the oldest go instead.

mod cabinet;
mod entry;
mod filter;
mod follower;

use std::{
    collections::BTreeMap,
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

pub use cabinet::{Bounds, WhenFull};
pub use entry::{Cause, Entry, Id, Item, Payload, Shown};
pub use filter::{Filter, Page};

use cabinet::{Cabinet, Way};

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

/// How full the quarantine is, and how many entries left it which way since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub entries: u64,
    pub bytes: u64,
    pub bounds: Bounds,
    pub is_full: bool,
    /// Arrival of the oldest entry, milliseconds since 1970 UTC.
    pub oldest_ms: Option<i64>,
    /// A re-drive stored all of them.
    pub stored: u64,
    pub discarded: u64,
    pub aged: u64,
    pub dropped: u64,
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
    pub fn list(
        &self,
        filter: &Filter,
        page: Page,
    ) -> Result<Listing<Vec<Entry>>, QuarantineError> {
        let behind = self.settle();
        let found = self.readers.lock().list(filter, page)?;
        Ok(Listing { found, behind })
    }

    /// How many entries fit, and the last of them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self, filter: &Filter) -> Result<(u64, Option<Id>), QuarantineError> {
        self.settle();
        self.readers.lock().count(filter)
    }

    /// Refusals that have the same channel, code and subject, counted together; the most frequent
    /// first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn causes(
        &self,
        filter: &Filter,
        limit: usize,
    ) -> Result<Listing<Vec<Cause>>, QuarantineError> {
        let behind = self.settle();
        let found = self.readers.lock().causes(filter, limit)?;
        Ok(Listing { found, behind })
    }

    /// Removes what fits and is there now, for good; how many entries of each channel.
    ///
    /// # Errors
    /// The file cannot be written; what was removed before stays removed.
    pub fn discard(&self, filter: &Filter) -> Result<BTreeMap<String, u64>, QuarantineError> {
        let (_, last) = self.count(filter)?;
        let mut channels: BTreeMap<String, u64> = BTreeMap::new();
        let Some(last) = last else {
            return Ok(channels);
        };
        let page = Page {
            after: None,
            upto: Some(last),
            limit: usize::MAX,
        };
        loop {
            // A step at a time: readers and the follower come between.
            let step = self.readers.lock().discard(filter, page)?;
            if step.is_empty() {
                break;
            }
            for (channel, entries) in step {
                *channels.entry(channel).or_default() += entries;
            }
        }
        // It looks again whether there is room.
        self.progress.tell_emptied();
        Ok(channels)
    }

    /// How full it is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn status(&self) -> Result<Status, QuarantineError> {
        self.settle();
        let cabinet = self.readers.lock();
        let (entries, oldest_ms) = cabinet.size()?;
        Ok(Status {
            entries,
            bytes: cabinet.bytes_used()?,
            bounds: cabinet.bounds(),
            is_full: cabinet.is_full()?,
            oldest_ms,
            stored: cabinet.departed(Way::Stored)?,
            discarded: cabinet.departed(Way::Discarded)?,
            aged: cabinet.departed(Way::Aged)?,
            dropped: cabinet.departed(Way::Dropped)?,
        })
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
    /// Entries were taken out since the follower last looked.
    is_emptied: bool,
    stopped: bool,
}

/// What the follower is woken for.
struct News {
    is_emptied: bool,
}

impl Progress {
    fn new(reached: Sequence, is_full: bool) -> Self {
        Self {
            state: Mutex::new(State {
                reached,
                has_news: true,
                // How full it is has to be told once.
                is_emptied: true,
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

    fn tell_emptied(&self) {
        self.state.lock().is_emptied = true;
        self.tell_news();
    }

    /// Waits for news; `None` at the end.
    fn wait_news(&self) -> Option<News> {
        let mut state = self.state.lock();
        while !state.has_news && !state.stopped {
            self.news.wait(&mut state);
        }
        state.has_news = false;
        let is_emptied = std::mem::take(&mut state.is_emptied);
        (!state.stopped).then_some(News { is_emptied })
    }

    /// Waits, but not for news: something failed.
    fn rest(&self, pause: Duration) {
        let mut state = self.state.lock();
        (state.has_news, state.is_emptied) = (true, true);
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
    use backtide_store::{
        Commit, Options, Origin, Part, Redrive, Refused, RefusedItem, disk::RealDisk,
    };

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
                policies: None,
                arrived_ms,
            },
            product: ProductKey::new("P").unwrap(),
            parts,
            redrive: None,
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
        let listing = quarantine
            .list(&Filter::default(), Page::first(1_000))
            .unwrap();
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
        let entry = quarantine
            .list(&Filter::default(), Page::first(1_000))
            .unwrap()
            .found
            .remove(0);
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
        let count = |filter: Filter, page| quarantine.list(&filter, page).unwrap().found.len();
        let (all, page) = (Filter::default, Page::first(100));
        let device = Some("a".to_owned());
        assert_eq!(count(Filter { device, ..all() }, page), 2);
        let code = Some(1204);
        assert_eq!(count(Filter { code, ..all() }, page), 0);
        let channel = Some("scada-history".to_owned());
        assert_eq!(count(Filter { channel, ..all() }, page), 3);
        let ids = vec![Id::parse("1").unwrap(), Id::parse("3").unwrap()];
        assert_eq!(count(Filter { ids, ..all() }, page), 2);
        let second = Page {
            after: Id::parse("1"),
            ..Page::first(1)
        };
        assert_eq!(count(all(), second), 1);
        let causes = quarantine.causes(&all(), 10).unwrap().found;
        let (a, b) = (&causes[0], &causes[1]);
        assert_eq!((a.entries, a.device_key.as_deref()), (2, Some("a")));
        assert_eq!((b.entries, b.device_key.as_deref()), (1, Some("b")));
        let cause = Some(b.id);
        assert_eq!(count(Filter { cause, ..all() }, page), 1);
    }

    /// What a re-drive of entry `order` commits.
    fn again(order: u64, parts: Vec<Part>) -> Commit {
        Commit {
            redrive: Some(Redrive {
                order: Sequence(order),
                part: 0,
                tried_ms: 5_000,
            }),
            ..commit(1_000, parts)
        }
    }

    #[test]
    fn an_entry_leaves_when_the_log_says_that_it_is_stored_and_stays_itself_when_refused_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, Bounds::default(), store.clone()).unwrap();
        for device in ["a", "b"] {
            put(&store, vec![commit(1_000, vec![refused(device, b"{1}")])]);
        }
        put(&store, vec![again(1, vec![stored()])]);
        put(&store, vec![again(2, vec![stored(), refused("c", b"{2}")])]);
        // The one before is gone: nobody brings it back.
        put(&store, vec![again(1, vec![refused("a", b"{1}")])]);
        let entries = quarantine
            .list(&Filter::default(), Page::first(9))
            .unwrap()
            .found;
        assert_eq!(entries.len(), 1);
        let entry = &entries[0];
        assert_eq!(
            (entry.id.to_string().as_str(), entry.device()),
            ("2", Some("c"))
        );
        assert_eq!(
            (entry.time_ms, entry.attempts, entry.tried_ms),
            (1_000, 1, Some(5_000))
        );
        assert_eq!(quarantine.show(entry.id).unwrap().unwrap().1.0, b"{2}");
        let causes = quarantine.causes(&Filter::default(), 9).unwrap().found;
        let causes: Vec<_> = causes
            .iter()
            .map(|c| (c.device_key.as_deref(), c.entries))
            .collect();
        assert_eq!(causes, [(Some("c"), 1)]);
        let status = quarantine.status().unwrap();
        assert_eq!((status.entries, status.stored), (1, 1));
    }

    #[test]
    fn a_discard_makes_room_in_a_full_quarantine() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let bounds = Bounds {
            bytes_max: 300 << 10,
            ..Bounds::default()
        };
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, bounds, store.clone()).unwrap();
        for n in 0..10 {
            let device = if n % 2 == 0 { "x" } else { "y" };
            put(
                &store,
                vec![commit(n, vec![refused(device, &[b'x'; 64 << 10])])],
            );
        }
        assert!(quarantine.status().unwrap().is_full);
        let device = Some("x".to_owned());
        let filter = Filter {
            device,
            ..Filter::default()
        };
        let removed = quarantine.discard(&filter).unwrap();
        assert_eq!(removed, BTreeMap::from([("scada-history".to_owned(), 5)]));
        assert_eq!(quarantine.discard(&filter).unwrap(), BTreeMap::new());
        quarantine.discard(&Filter::default()).unwrap();
        let status = quarantine.status().unwrap();
        assert_eq!((status.entries, status.discarded), (0, 10));
        while quarantine.is_full() {
            thread::yield_now();
        }
    }
}
