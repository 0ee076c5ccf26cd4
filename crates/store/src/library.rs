//! In-memory stand-in for the segments half, replaced by it at the merge: keeps everything in one
//! file that is rewritten by every flush.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use backtide_model::{Cell, DeviceKey, ElementName, ProductKey, Storage};
use parking_lot::Mutex;

use crate::{
    Commit, Options, Origin, Part, Range, ReadError, Sequence, Slabs,
    disk::Disk,
    journal::{FrameBuilder, Mark, decode_frame},
    memtable::Entry,
};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    #[error("the disk is full while writing {file}")]
    DiskFull { file: String },
    #[error("{0}")]
    Io(io::Error),
}

pub(crate) struct Library {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    state: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    flushed: Sequence,
    commits: Vec<(Sequence, Commit)>,
    cursors: HashMap<String, Sequence>,
}

const STORE_ID: u32 = 0x5eed_5eed;

impl Library {
    pub(crate) fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        _options: &Options,
    ) -> Result<Self, OpenError> {
        let mut state = Kept::default();
        let path = dir.join("kept");
        if disk.list(dir)?.contains(&path) {
            let file = disk.open(&path)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
            file.read_at(&mut bytes, 0)?;
            state.flushed = Sequence(u64::from_le_bytes(
                bytes[..8].try_into().unwrap_or_default(),
            ));
            let mut rest = &bytes[8..];
            while let Some((len, more)) = rest.split_first_chunk::<8>() {
                let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(0);
                let frame = decode_frame(&more[..len]).map_err(io::Error::other)?;
                state.commits.extend(frame);
                rest = &more[len..];
            }
        }
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn store_id(&self) -> u32 {
        STORE_ID
    }

    pub(crate) fn flushed(&self) -> Sequence {
        self.state.lock().flushed
    }

    pub(crate) fn storage_of(&self, product: &ProductKey, point: &ElementName) -> Option<Storage> {
        let state = self.state.lock();
        let commits = state
            .commits
            .iter()
            .filter(|(_, commit)| commit.product == *product);
        commits
            .flat_map(|(_, commit)| &commit.parts)
            .find_map(|part| match part {
                Part::Points(batch) => {
                    let mut columns = batch.columns.iter();
                    columns
                        .find(|column| column.point == *point)
                        .map(|column| column.values.storage())
                }
                Part::Refused(_) => None,
            })
    }

    pub(crate) fn flush(
        &self,
        entries: &[Arc<Entry>],
        _origins: &[(Sequence, Arc<Origin>)],
        through: Sequence,
    ) -> Result<(), FlushError> {
        let mut state = self.state.lock();
        let before = state.commits.len();
        state.commits.extend(entries.iter().map(|entry| {
            let commit = Commit {
                origin: (*entry.origin).clone(),
                product: entry.product.clone(),
                parts: vec![Part::Points(entry.batch.clone())],
            };
            (entry.sequence, commit)
        }));
        let flushed = std::mem::replace(&mut state.flushed, through);
        let written = self.write(&state);
        if written.is_err() {
            state.commits.truncate(before);
            state.flushed = flushed;
        }
        written.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => FlushError::DiskFull {
                file: "kept".to_owned(),
            },
            _ => FlushError::Io(error),
        })
    }

    fn write(&self, state: &Kept) -> io::Result<()> {
        let mut bytes = state.flushed.0.to_le_bytes().to_vec();
        let mut builder = FrameBuilder::default();
        for (sequence, commit) in &state.commits {
            builder.clear();
            builder.push(commit);
            bytes.extend_from_slice(&builder.pack().to_le_bytes());
            let (frame, _) = builder.seal(
                Mark {
                    store_id: STORE_ID,
                    salt: 0,
                },
                *sequence,
            );
            bytes.extend_from_slice(frame);
        }
        let new = self.dir.join("kept.new");
        if self.disk.list(&self.dir)?.contains(&new) {
            self.disk.remove(&new)?;
        }
        let file = self.disk.create(&new)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        self.disk.rename(&new, &self.dir.join("kept"))?;
        self.disk.sync_dir(&self.dir)
    }

    pub(crate) fn work(&self, _quiet: bool) -> Result<bool, FlushError> {
        Ok(false)
    }

    pub(crate) fn noted(&self, _entry: &Arc<Entry>) {}

    pub(crate) fn cursor(&self, name: &str) -> Result<Option<Sequence>, ReadError> {
        Ok(self.state.lock().cursors.get(name).copied())
    }

    pub(crate) fn cursors(&self) -> Result<Vec<(String, Sequence)>, ReadError> {
        Ok(self.state.lock().cursors.clone().into_iter().collect())
    }

    pub(crate) fn set_cursor(&self, name: &str, at: Sequence) -> Result<(), ReadError> {
        self.state.lock().cursors.insert(name.to_owned(), at);
        Ok(())
    }

    pub(crate) fn drop_cursor(&self, name: &str) -> Result<(), ReadError> {
        self.state.lock().cursors.remove(name);
        Ok(())
    }

    /// Doubles only.
    #[expect(clippy::needless_pass_by_value, reason = "as in the real one")]
    pub(crate) fn read(
        &self,
        entries: Vec<Arc<Entry>>,
        range: &Range,
    ) -> Result<Box<dyn Slabs>, ReadError> {
        type Row = (u64, HashMap<ElementName, f64>);
        let mut rows: BTreeMap<(DeviceKey, i64), Row> = BTreeMap::new();
        let mut add = |sequence: Sequence, batch: &backtide_model::Batch| {
            for column in &batch.columns {
                for at in 0..column.values.len() {
                    let Cell::Double(value) = column.values.cell(at) else {
                        continue;
                    };
                    let row = column.row_of(at);
                    let device = batch.devices[batch.row_device[row] as usize].clone();
                    let cells = rows.entry((device, batch.row_time[row])).or_default();
                    cells.0 = sequence.0;
                    cells.1.insert(column.point.clone(), value);
                }
            }
        };
        let state = self.state.lock();
        for (sequence, commit) in &state.commits {
            for part in commit
                .parts
                .iter()
                .filter(|_| commit.product == range.product)
            {
                if let Part::Points(batch) = part {
                    add(*sequence, batch);
                }
            }
        }
        for entry in &entries {
            add(entry.sequence, &entry.batch);
        }
        rows.retain(|(_, time), _| (range.from_ms..range.to_ms).contains(time));
        let mut columns: Vec<(String, ArrayRef)> = vec![
            (
                "_device".to_owned(),
                Arc::new(StringArray::from_iter_values(
                    rows.keys().map(|key| key.0.as_str()),
                )),
            ),
            (
                "_time".to_owned(),
                Arc::new(Int64Array::from_iter_values(rows.keys().map(|key| key.1))),
            ),
            (
                "_sequence".to_owned(),
                Arc::new(UInt64Array::from_iter_values(
                    rows.values().map(|row| row.0),
                )),
            ),
        ];
        for point in &range.points {
            let values: Float64Array = rows.values().map(|row| row.1.get(point).copied()).collect();
            columns.push((point.as_str().to_owned(), Arc::new(values)));
        }
        let batch = RecordBatch::try_from_iter(columns)
            .map_err(|error| ReadError::Manifest(error.to_string()))?;
        Ok(Box::new(Once(Some(batch))))
    }
}

struct Once(Option<RecordBatch>);

impl Iterator for Once {
    type Item = Result<RecordBatch, ReadError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl Slabs for Once {}
