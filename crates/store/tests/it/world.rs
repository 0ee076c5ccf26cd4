//! The tests' own language: commits made from a number, and what a store must hold of them.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{Array, Float64Array, Int64Array, StringArray};
use backtide_model::{
    BatchBuilder, Cell, ChannelName, Code, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
    ProductKey,
};
use backtide_store::{
    Commit, Committed, Followed, Options, Order, Origin, Part, Range, Refused, Sequence, Store,
    disk::Disk,
};

pub(crate) const POINT: &str = "P";

/// Small files and tables, so that a few commits rotate and flush.
pub(crate) fn small() -> Options {
    Options {
        memtable_bytes_max: 24 << 10,
        journal_file_bytes: 4 << 10,
        group_bytes_max: 16 << 10,
        disk_reserve_bytes: 1 << 20,
        ..Options::default()
    }
}

pub(crate) struct TestDir(tempfile::TempDir);

impl TestDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// The journal files, oldest first.
    pub(crate) fn journal(&self) -> Vec<PathBuf> {
        let dir = self.store().join("journal");
        let paths = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|it| it == "btj"))
            .collect();
        files.sort();
        files
    }
}

pub(crate) fn open(dir: &Path, disk: impl Disk + 'static, options: Options) -> Store {
    Store::open(dir, Arc::new(disk), options).unwrap().0
}

pub(crate) fn product() -> ProductKey {
    ProductKey::new("LHBfarm1").unwrap()
}

pub(crate) fn point(name: &str) -> ElementName {
    ElementName::new(name).unwrap()
}

/// The device and the time that commit `id` has a value for: many share theirs.
fn place(id: u64) -> (String, i64) {
    (format!("d{}", id % 7), i64::try_from(id % 50).unwrap())
}

/// One value, whose identity and text follow from `id`; sometimes something refused too.
pub(crate) fn commit(id: u64) -> Commit {
    let (device, time) = place(id);
    let mut batch = BatchBuilder::new();
    batch.row(&DeviceKey::new(&device).unwrap(), time);
    let value = Cell::Double(f64::from(u32::try_from(id).unwrap()));
    batch.cell(&point(POINT), ConflictPolicy::KeepLast, value, NO_QUALITY);
    let mut parts = vec![Part::Points(batch.build())];
    if id.is_multiple_of(5) {
        parts.push(Part::Refused(Refused {
            code: Code::ModelMismatch,
            raw: id.to_le_bytes().repeat(40).into(),
            payload_bytes: id,
            payload_sha256: [7; 32],
            items: Vec::new(),
            more: 0,
        }));
    }
    Commit {
        origin: origin(id),
        product: product(),
        parts,
        redrive: None,
    }
}

pub(crate) fn origin(id: u64) -> Origin {
    Origin {
        channel: ChannelName::new("scada-history").unwrap(),
        client: "client".into(),
        topic: "/sys/LHBfarm1/d/thing/measurepoint/post".into(),
        message_id: id.to_string().into(),
        packet_id: None,
        policies: None,
        arrived_ms: i64::try_from(id).unwrap(),
    }
}

pub(crate) fn id_of(commit: &Commit) -> u64 {
    commit.origin.message_id.parse().unwrap()
}

/// Commits one and insists.
pub(crate) fn commit_one(store: &Store, id: u64) -> Committed {
    store.commit(vec![commit(id)]).unwrap().remove(0).unwrap()
}

/// Everything in the log behind `from`, a little at a time.
pub(crate) fn follow_all(store: &Store, from: Sequence) -> Result<Vec<Followed>, String> {
    let mut all: Vec<Followed> = Vec::new();
    loop {
        let from = all.last().map_or(from, |last| last.sequence);
        let page = store
            .follow(from, 3000)
            .map_err(|error| error.to_string())?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Checks the log against what was answered, and the reads against the log.
pub(crate) fn verify(store: &Store, acknowledged: &[(Sequence, u64)]) -> Result<(), String> {
    let log = follow_all(store, Sequence(0))?;
    let mut seen = HashSet::new();
    for (followed, sequence) in log.iter().zip(1..) {
        let id = id_of(&followed.commit);
        if followed.sequence != Sequence(sequence) {
            return Err(format!(
                "{:?} stands where {sequence} should",
                followed.sequence
            ));
        }
        if followed.commit != commit(id) {
            return Err(format!("commit {id} is not what was submitted"));
        }
        if !seen.insert(id) {
            return Err(format!("commit {id} is there twice"));
        }
    }
    if log.len() as u64 != store.durable().0 {
        return Err(format!(
            "{} commits in the log, durable is {:?}",
            log.len(),
            store.durable()
        ));
    }
    for (sequence, id) in acknowledged {
        let at = usize::try_from(sequence.0).unwrap() - 1;
        match log.get(at) {
            Some(followed) if id_of(&followed.commit) == *id => {}
            _ => return Err(format!("commit {id}, answered as {sequence:?}, is lost")),
        }
    }
    let ids = log.iter().map(|followed| id_of(&followed.commit));
    let expected: BTreeMap<_, _> = ids.map(|id| (place(id), id as f64)).collect();
    let found = values(store);
    if found == expected {
        Ok(())
    } else {
        Err(format!("read {found:?}, expected {expected:?}"))
    }
}

/// Every value of [`POINT`], as a reader gets it.
pub(crate) fn values(store: &Store) -> BTreeMap<(String, i64), f64> {
    let range = Range {
        product: product(),
        devices: Vec::new(),
        points: vec![point(POINT)],
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        order: Order::DeviceTime,
        after: None,
        rows_max: usize::MAX,
    };
    let mut values = BTreeMap::new();
    for slab in store.read(&range).unwrap() {
        let slab = slab.unwrap();
        let column = |name| slab.column_by_name(name).unwrap().as_any();
        let devices: &StringArray = column("_device").downcast_ref().unwrap();
        let times: &Int64Array = column("_time").downcast_ref().unwrap();
        let doubles: &Float64Array = column(POINT).downcast_ref().unwrap();
        for row in 0..slab.num_rows() {
            assert!(doubles.is_valid(row));
            let place = (devices.value(row).to_owned(), times.value(row));
            assert!(
                values.insert(place, doubles.value(row)).is_none(),
                "a row came twice"
            );
        }
    }
    values
}
