//! A disk for tests, over real files: fails the n-th operation, and loses power.
//!
//! What a power loss keeps of what was not synced is decided by a seed, sector by sector and name
//! by name, in any combination: later writes may survive earlier ones. Synced is kept always,
//! unless the disk is told to lie about it.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use backtide_store::disk::{Disk, File, RealDisk};
use parking_lot::Mutex;

/// Sectors are written whole or not at all.
const SECTOR: u64 = 512;

/// A kind of operation that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Create,
    Rename,
    Write,
    Allocate,
    Sync,
    SyncDir,
}

impl Op {
    pub(crate) const ALL: [Self; 6] = [
        Self::Create,
        Self::Rename,
        Self::Write,
        Self::Allocate,
        Self::Sync,
        Self::SyncDir,
    ];
}

/// Clones are the same disk.
#[derive(Clone)]
pub(crate) struct FaultDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    seed: u64,
    /// Handles of an earlier life are dead.
    life: u64,
    has_power: bool,
    /// Operations until the power goes.
    power_for: Option<u64>,
    fault: Option<(Op, u64, io::ErrorKind)>,
    is_full: bool,
    free_bytes: u64,
    sync_lies_in: Option<&'static str>,
    sync_dir_lies_in: Option<&'static str>,
    nodes: HashMap<u64, Node>,
    names: HashMap<PathBuf, u64>,
    durable_names: HashMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    next_node: u64,
}

/// A file, whatever it is called.
#[derive(Default)]
struct Node {
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone)]
struct NameChange {
    set: Option<(PathBuf, u64)>,
    unset: Option<PathBuf>,
}

impl FaultDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            life: 0,
            has_power: true,
            power_for: None,
            fault: None,
            is_full: false,
            free_bytes: u64::MAX,
            sync_lies_in: None,
            sync_dir_lies_in: None,
            nodes: HashMap::new(),
            names: HashMap::new(),
            durable_names: HashMap::new(),
            name_changes: Vec::new(),
            next_node: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// From now on says yes to the fsync of files in directories called `dir`, and does nothing.
    pub(crate) fn lie_about_sync(&self, dir: &'static str) {
        self.state.lock().sync_lies_in = Some(dir);
    }

    /// As [`FaultDisk::lie_about_sync`], about the fsync of the directory itself.
    pub(crate) fn lie_about_sync_dir(&self, dir: &'static str) {
        self.state.lock().sync_dir_lies_in = Some(dir);
    }

    /// The `nth` operation of this kind from now on (0 is the next) fails once.
    pub(crate) fn fail(&self, op: Op, nth: u64, kind: io::ErrorKind) {
        self.state.lock().fault = Some((op, nth, kind));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().fault.is_none()
    }

    /// What was to fail later does not.
    pub(crate) fn mend(&self) {
        self.state.lock().fault = None;
    }

    /// No file can be made longer.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.state.lock().is_full = is_full;
    }

    pub(crate) fn set_free_bytes(&self, free_bytes: u64) {
        self.state.lock().free_bytes = free_bytes;
    }

    pub(crate) fn cut_power_after(&self, operations: u64) {
        self.state.lock().power_for = Some(operations);
    }

    /// Flips a bit of a file, for good.
    pub(crate) fn damage(&self, path: &Path, offset: u64) {
        let mut state = self.state.lock();
        let file = RealDisk.open(path).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, offset).unwrap();
        byte[0] ^= 4;
        file.write_at(&byte, offset).unwrap();
        let node = state.names[path];
        let node = state.nodes.get_mut(&node).expect("a name has a node");
        Change::Write {
            offset,
            bytes: byte.to_vec(),
        }
        .apply(&mut node.durable);
    }

    /// A number below `bound`, by the seed.
    pub(crate) fn random(&self, bound: u64) -> u64 {
        self.state.lock().random(bound)
    }

    /// The process is killed: every handle dies, but what was written is there.
    pub(crate) fn kill(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.has_power = true;
        state.power_for = None;
    }

    /// The power fails, and comes back: the files become what a disk may hold then.
    pub(crate) fn lose_power(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.has_power = true;
        state.power_for = None;
        state.lose();
    }
}

impl State {
    fn random(&mut self, bound: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % bound
    }

    /// Counts an operation; fails it if it is due.
    fn step(&mut self, op: Op) -> io::Result<()> {
        match self.power_for {
            Some(0) => self.has_power = false,
            Some(left) => self.power_for = Some(left - 1),
            None => {}
        }
        if !self.has_power {
            return Err(io::Error::other("the power is off"));
        }
        match self.fault {
            Some((due, 0, kind)) if due == op => {
                self.fault = None;
                Err(kind.into())
            }
            Some((due, nth, kind)) if due == op => {
                self.fault = Some((due, nth - 1, kind));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn lose(&mut self) {
        for (path, _) in self.names.drain() {
            std::fs::remove_file(path).unwrap();
        }
        for change in std::mem::take(&mut self.name_changes) {
            if self.random(2) == 0 {
                change.apply(&mut self.durable_names);
            }
        }
        let mut nodes = std::mem::take(&mut self.nodes);
        for (path, id) in self.durable_names.clone() {
            let node = nodes.entry(id).or_default();
            for change in std::mem::take(&mut node.changes) {
                for change in self.survivors(change) {
                    change.apply(&mut node.durable);
                }
            }
            std::fs::write(&path, &node.durable).unwrap();
            self.names.insert(path, id);
        }
        nodes.retain(|id, _| self.names.values().any(|kept| kept == id));
        self.nodes = nodes;
    }

    /// What is left of an unsynced change: nothing, all, or some of its sectors.
    fn survivors(&mut self, change: Change) -> Vec<Change> {
        match (self.random(3), change) {
            (0, _) => Vec::new(),
            (1, change) => vec![change],
            (_, change @ Change::Length(_)) => vec![change],
            (_, Change::Write { offset, bytes }) => {
                let mut kept = Vec::new();
                let mut at = 0;
                while at < bytes.len() {
                    let to_sector_end = SECTOR - (offset + at as u64) % SECTOR;
                    let end = bytes
                        .len()
                        .min(at + usize::try_from(to_sector_end).unwrap());
                    if self.random(2) == 0 {
                        let bytes = bytes[at..end].to_vec();
                        kept.push(Change::Write {
                            offset: offset + at as u64,
                            bytes,
                        });
                    }
                    at = end;
                }
                kept
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(len) => content.resize(usize::try_from(*len).unwrap(), 0),
            Self::Write { offset, bytes } => {
                let at = usize::try_from(*offset).unwrap();
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[at..end].copy_from_slice(bytes);
            }
        }
    }
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        let path = self
            .set
            .as_ref()
            .map(|(path, _)| path)
            .or(self.unset.as_ref());
        path.and_then(|path| path.parent()) == Some(dir)
    }

    fn apply(&self, names: &mut HashMap<PathBuf, u64>) {
        if let Some(path) = &self.unset {
            names.remove(path);
        }
        if let Some((path, node)) = &self.set {
            names.insert(path.clone(), *node);
        }
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state.lock();
        state.step(Op::Create)?;
        let real = RealDisk.create(path)?;
        let node = state.next_node;
        state.next_node += 1;
        state.nodes.insert(node, Node::default());
        state.names.insert(path.to_owned(), node);
        state.name_changes.push(NameChange {
            set: Some((path.to_owned(), node)),
            unset: None,
        });
        let life = state.life;
        Ok(Box::new(FaultFile {
            disk: self.clone(),
            life,
            node,
            dir: path.parent().expect("a file is in a directory").to_owned(),
            real,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.state.lock();
        let real = RealDisk.open(path)?;
        let node = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let life = state.life;
        Ok(Box::new(FaultFile {
            disk: self.clone(),
            life,
            node,
            dir: path.parent().expect("a file is in a directory").to_owned(),
            real,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(Op::Rename)?;
        RealDisk.rename(from, to)?;
        let node = state.names.remove(from).expect("the real rename found it");
        state.names.insert(to.to_owned(), node);
        let (set, unset) = (Some((to.to_owned(), node)), Some(from.to_owned()));
        state.name_changes.push(NameChange { set, unset });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(Op::Rename)?;
        RealDisk.remove(path)?;
        state.names.remove(path);
        state.name_changes.push(NameChange {
            set: None,
            unset: Some(path.to_owned()),
        });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(Op::SyncDir)?;
        if state.sync_dir_lies_in.is_some_and(|lie| dir.ends_with(lie)) {
            return Ok(());
        }
        let (synced, left) = std::mem::take(&mut state.name_changes)
            .into_iter()
            .partition(|change| change.is_in(dir));
        let synced: Vec<NameChange> = synced;
        state.name_changes = left;
        synced
            .iter()
            .for_each(|change| change.apply(&mut state.durable_names));
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.state.lock().free_bytes)
    }
}

struct FaultFile {
    disk: FaultDisk,
    life: u64,
    node: u64,
    dir: PathBuf,
    real: Box<dyn File>,
}

impl FaultFile {
    /// Runs an operation in the file's own life only, and while there is power.
    fn run<T>(
        &self,
        op: Option<Op>,
        run: impl FnOnce(&mut State, &dyn File) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        if state.life != self.life {
            return Err(io::Error::other("the process is dead"));
        }
        if let Some(op) = op {
            state.step(op)?;
        }
        run(&mut state, &*self.real)
    }

    fn change(&self, state: &mut State, change: Change) {
        state
            .nodes
            .entry(self.node)
            .or_default()
            .changes
            .push(change);
    }

    fn set_len(&self, state: &mut State, real: &dyn File, len: u64) -> io::Result<()> {
        real.truncate(len)?;
        self.change(state, Change::Length(len));
        Ok(())
    }
}

impl File for FaultFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.run(None, |_, real| real.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let written = self.run(Some(Op::Write), |state, real| {
            if state.is_full && offset + buf.len() as u64 > real.len()? {
                return Err(io::ErrorKind::StorageFull.into());
            }
            real.write_at(buf, offset)?;
            self.change(
                state,
                Change::Write {
                    offset,
                    bytes: buf.to_vec(),
                },
            );
            Ok(())
        });
        if written.is_err() {
            // A failed write may leave any part of itself, and so may one the power cut short.
            let half = &buf[..buf.len() / 2];
            let mut state = self.disk.state.lock();
            if state.life == self.life {
                self.real.write_at(half, offset)?;
                self.change(
                    &mut state,
                    Change::Write {
                        offset,
                        bytes: half.to_vec(),
                    },
                );
            }
        }
        written
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.run(Some(Op::Allocate), |state, real| {
            if state.is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if len > real.len()? {
                self.set_len(state, real, len)
            } else {
                Ok(())
            }
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.run(Some(Op::Write), |state, real| {
            self.set_len(state, real, len)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.run(Some(Op::Sync), |state, _| {
            if !state
                .sync_lies_in
                .is_some_and(|lie| self.dir.ends_with(lie))
            {
                let node = state.nodes.entry(self.node).or_default();
                for change in std::mem::take(&mut node.changes) {
                    change.apply(&mut node.durable);
                }
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.run(None, |_, real| real.len())
    }
}
