//! Merges that are slow or fail: how many segments may overlap, and who waits for it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use backtide_store::{
    CommitError, Committed, Options, Sequence, Store,
    disk::{Disk, File, Lock, RealDisk},
};
use parking_lot::{Condvar, Mutex};

use crate::world::{TestDir, commit, id_of, open, small, verify};

const OVERLAPPING_MAX: usize = 3;
const COMMITS: u64 = 350;

/// What becomes of a file that a merge wants to write.
#[derive(Clone, Copy, PartialEq)]
enum Gate {
    Open,
    /// It waits.
    Shut,
    /// There is no space for it.
    Full,
}

/// A disk on which merges alone are slow or find no space.
#[derive(Clone)]
struct GatedDisk(Arc<(Mutex<Gate>, Condvar)>);

impl GatedDisk {
    fn new(gate: Gate) -> Self {
        Self(Arc::new((Mutex::new(gate), Condvar::new())))
    }

    fn set(&self, gate: Gate) {
        *self.0.0.lock() = gate;
        self.0.1.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        if thread::current().name() != Some("store-merge") {
            return Ok(());
        }
        let mut gate = self.0.0.lock();
        while *gate == Gate::Shut {
            self.0.1.wait(&mut gate);
        }
        match *gate {
            Gate::Full => Err(io::ErrorKind::StorageFull.into()),
            Gate::Open | Gate::Shut => Ok(()),
        }
    }
}

/// A test that fails opens the gate: the store could not close otherwise.
struct OpenAtEnd(GatedDisk);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        self.0.set(Gate::Open);
    }
}

impl Disk for GatedDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.pass()?;
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        RealDisk.lock(dir)
    }
}

fn options() -> Options {
    Options {
        overlapping_segments_max: OVERLAPPING_MAX,
        ..small()
    }
}

type Answers = mpsc::Receiver<(u64, Result<Committed, CommitError>)>;

/// Submits every commit, spread so that every table overlaps the one before.
fn submit_all(store: &Store) -> Answers {
    let (tell, told) = mpsc::sync_channel(usize::try_from(COMMITS).unwrap());
    for turn in 0..COMMITS {
        let commit = commit(turn * 17 % COMMITS);
        let (id, tell) = (id_of(&commit), tell.clone());
        let done = move |mut results: Vec<_>| tell.send((id, results.remove(0))).unwrap();
        store.submit(vec![commit], Box::new(done)).unwrap();
    }
    told
}

fn answered(
    answers: impl Iterator<Item = (u64, Result<Committed, CommitError>)>,
) -> Vec<(Sequence, u64)> {
    answers
        .map(|(id, result)| (result.unwrap().sequence(), id))
        .collect()
}

fn overlapping(store: &Store) -> usize {
    usize::try_from(store.segment_stats().unwrap().overlapping_segments_max).unwrap()
}

/// Waits until nothing moves any more: both tables are frozen, commits wait behind them.
fn wait_for_backlog(store: &Store) {
    let stands = || {
        let stats = store.stats();
        stats.memtable.frozen == 2 && stats.queued > 0 && overlapping(store) == OVERLAPPING_MAX
    };
    while !stands() {
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn overlapping_segments_stay_bounded_and_commits_wait_while_merges_are_slow() {
    let (dir, disk) = (TestDir::new(), GatedDisk::new(Gate::Shut));
    let store = open(&dir.store(), disk.clone(), options());
    let _end = OpenAtEnd(disk.clone());
    let told = submit_all(&store);
    wait_for_backlog(&store);
    let before: Vec<_> = told.try_iter().collect();
    assert!(before.len() < usize::try_from(COMMITS).unwrap());

    disk.set(Gate::Open);
    let rest = told.iter().inspect(|_| {
        assert!(overlapping(&store) <= OVERLAPPING_MAX);
    });
    let answered = answered(before.into_iter().chain(rest));
    assert_eq!(answered.len() as u64, COMMITS);
    assert!(store.stats().flush_waited_ms > 0);
    verify(&store, &answered).unwrap();
}

#[test]
fn merges_that_find_no_space_stop_no_commit() {
    let (dir, disk) = (TestDir::new(), GatedDisk::new(Gate::Full));
    let store = open(&dir.store(), disk.clone(), options());
    let _end = OpenAtEnd(disk.clone());
    let answered = answered(submit_all(&store).iter());
    assert_eq!(answered.len() as u64, COMMITS);
    store.flush_now().unwrap();
    assert!(overlapping(&store) > OVERLAPPING_MAX);

    disk.set(Gate::Open);
    store.compact().unwrap();
    assert_eq!(overlapping(&store), 1);
    verify(&store, &answered).unwrap();
}

#[test]
fn a_store_that_closes_answers_what_is_queued_without_waiting_for_merges() {
    let (dir, disk) = (TestDir::new(), GatedDisk::new(Gate::Shut));
    let store = open(&dir.store(), disk.clone(), options());
    let _end = OpenAtEnd(disk.clone());
    let told = submit_all(&store);
    wait_for_backlog(&store);
    let answered = thread::scope(|scope| {
        scope.spawn(|| store.close());
        let answered = answered(told.iter());
        // The thread of merges ends last.
        disk.set(Gate::Open);
        answered
    });
    assert_eq!(answered.len() as u64, COMMITS);
    drop(store);
    verify(&open(&dir.store(), disk, options()), &answered).unwrap();
}
