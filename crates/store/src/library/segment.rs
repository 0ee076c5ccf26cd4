//! A live segment: what the manifest knows of it, its open file, and every byte checked as it is
//! read.

use std::{
    collections::HashMap,
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use backtide_model::{ElementName, ProductKey, Storage};
use bytes::Bytes;
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    errors::ParquetError,
    file::{
        metadata::PageIndexPolicy,
        reader::{ChunkReader, Length},
    },
};

use super::{
    cells,
    done::Done,
    fault::OpenError,
    index::DeviceIndex,
    names::{Role, parse_column},
    scan::Page,
    write::Packing,
};
use crate::{
    ReadError,
    disk::{Disk, File},
};

/// Bytes that share one checksum. A page is about this size, so that checking reads little more
/// than what was asked for.
pub(super) const BLOCK_BYTES: usize = 16 << 10;

/// What the manifest keeps of a segment.
#[derive(Debug, Clone)]
pub(super) struct Card {
    pub(super) id: u64,
    pub(super) product: ProductKey,
    /// The commits that it joins, from the first to the last.
    pub(super) sequence_min: u64,
    pub(super) sequence_max: u64,
    pub(super) cells: u64,
    pub(super) bytes: u64,
    /// Whether its conflicts with everything older are known.
    pub(super) is_classified: bool,
    /// Whether a merge made it, not a flush.
    pub(super) is_merged: bool,
    pub(super) index: Arc<DeviceIndex>,
    /// crc32c of each [`BLOCK_BYTES`] of the file, the last block shorter.
    pub(super) checksums: Arc<[u32]>,
}

/// Where a point's columns are in the file.
#[derive(Debug, Clone)]
pub(super) struct PointColumns {
    pub(super) storage: Storage,
    pub(super) by_role: HashMap<Role, usize>,
}

/// Readers share it; the file goes when the segment is [retired](Segment::retire) and the last
/// reader has left.
pub(super) struct Segment {
    pub(super) card: Card,
    pub(super) path: PathBuf,
    pub(super) file: CheckedFile,
    pub(super) metadata: ArrowReaderMetadata,
    pub(super) points: HashMap<ElementName, PointColumns>,
    pub(super) packing: Packing,
    /// What was taken out of it when it was written.
    pub(super) done: Done,
    /// Filled by the first read.
    pub(super) pages: OnceLock<Vec<Page>>,
    disk: Arc<dyn Disk>,
    is_retired: AtomicBool,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Segment {
    pub(super) fn open(disk: &Arc<dyn Disk>, path: PathBuf, card: Card) -> Result<Self, OpenError> {
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing {
                    file: path.display().to_string(),
                });
            }
            Err(error) => return Err(OpenError::io(&path, error)),
        };
        let found = file.len().map_err(|error| OpenError::io(&path, error))?;
        if found != card.bytes {
            let file = path.display().to_string();
            return Err(OpenError::Length {
                file,
                found,
                expected: card.bytes,
            });
        }
        let file = CheckedFile {
            file: file.into(),
            len: found,
            checksums: card.checksums.clone(),
        };
        let damaged = |reason: String| OpenError::Damaged {
            file: path.display().to_string(),
            reason,
        };
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_page_index_policy(PageIndexPolicy::Required);
        let metadata = ArrowReaderMetadata::load(&file, options)
            .map_err(|error| damaged(error.to_string()))?;
        if metadata.metadata().file_metadata().num_rows() != i64_of(card.index.rows()) {
            return Err(damaged(
                "the manifest counts other rows than the file".into(),
            ));
        }
        let points = columns_of(&metadata).ok_or_else(|| damaged("a column is unknown".into()))?;
        let disk = Arc::clone(disk);
        Ok(Self {
            packing: packing_of(&metadata),
            done: about(&metadata, Done::KEY).map_or_else(Done::default, Done::read),
            pages: OnceLock::new(),
            card,
            path,
            file,
            metadata,
            points,
            disk,
            is_retired: AtomicBool::new(false),
        })
    }

    /// The same segment, classified.
    pub(super) fn classified(&self) -> Self {
        Self {
            card: Card {
                is_classified: true,
                ..self.card.clone()
            },
            path: self.path.clone(),
            file: self.file.clone(),
            metadata: self.metadata.clone(),
            points: self.points.clone(),
            packing: self.packing,
            done: self.done.clone(),
            pages: self.pages.clone(),
            disk: Arc::clone(&self.disk),
            is_retired: AtomicBool::new(false),
        }
    }

    /// Lets the file go with its last reader. Called after the manifest no longer names it.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(super) fn rows(&self) -> usize {
        self.card.index.rows()
    }

    /// Reads every byte and checks it.
    #[cfg(test)]
    pub(super) fn verify(&self) -> Result<(), ReadError> {
        for start in (0..self.card.bytes).step_by(1 << 20) {
            let len = usize_of((self.card.bytes - start).min(1 << 20));
            self.file
                .read(start, len)
                .map_err(|error| self.damaged(error))?;
        }
        Ok(())
    }

    pub(super) fn damaged(&self, reason: impl fmt::Display) -> ReadError {
        ReadError::Segment {
            file: self.path.display().to_string(),
            reason: reason.to_string(),
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if *self.is_retired.get_mut()
            && let Err(error) = self.disk.remove(&self.path)
        {
            // The next open removes what no manifest names.
            tracing::warn!(file = %self.path.display(), %error, "a merged segment stays on disk");
        }
    }
}

fn columns_of(metadata: &ArrowReaderMetadata) -> Option<HashMap<ElementName, PointColumns>> {
    let mut roles: HashMap<ElementName, HashMap<Role, usize>> = HashMap::new();
    let mut points = HashMap::new();
    for (at, field) in metadata.schema().fields().iter().enumerate() {
        if let Some((point, role)) = parse_column(field.name())
            && (role == Role::Value || !is_empty(metadata, at))
        {
            roles.entry(point).or_default().insert(role, at);
        }
    }
    for (point, by_role) in roles {
        let values = metadata.schema().field(*by_role.get(&Role::Value)?);
        let storage = cells::storage(values.data_type())?;
        points.insert(point, PointColumns { storage, by_role });
    }
    Some(points)
}

/// Whether a column has nothing but nulls: as good as none.
fn is_empty(metadata: &ArrowReaderMetadata, at: usize) -> bool {
    metadata.metadata().row_groups().iter().all(|group| {
        let statistics = group.column(at).statistics();
        let nulls = statistics.and_then(|statistics| statistics.null_count_opt());
        nulls.is_some_and(|nulls| i64::try_from(nulls) == Ok(group.num_rows()))
    })
}

fn packing_of(metadata: &ArrowReaderMetadata) -> Packing {
    match about(metadata, Packing::KEY) {
        Some(name) if name == Packing::Quick.name() => Packing::Quick,
        Some(_) | None => Packing::Tight,
    }
}

/// What the file's metadata says under a key.
fn about<'m>(metadata: &'m ArrowReaderMetadata, key: &str) -> Option<&'m str> {
    let all = metadata.metadata().file_metadata().key_value_metadata();
    let found = all?.iter().find(|about| about.key == key)?;
    found.value.as_deref()
}

/// A file of which every block is checked whenever it is read.
#[derive(Clone)]
pub(super) struct CheckedFile {
    file: Arc<dyn File>,
    len: u64,
    checksums: Arc<[u32]>,
}

impl CheckedFile {
    fn read(&self, start: u64, len: usize) -> io::Result<Bytes> {
        let block_bytes = BLOCK_BYTES as u64;
        let end = start.checked_add(len as u64).filter(|end| *end <= self.len);
        let end = end.ok_or_else(|| damaged("an offset is beyond the end".into()))?;
        let first_block = start / block_bytes;
        let from = first_block * block_bytes;
        let to = (end.div_ceil(block_bytes) * block_bytes).min(self.len);
        let mut buffer = vec![0; usize_of(to - from)];
        read_exact_at(self.file.as_ref(), &mut buffer, from)?;
        for (block, bytes) in (usize_of(first_block)..).zip(buffer.chunks(BLOCK_BYTES)) {
            if self.checksums.get(block) != Some(&crc32c::crc32c(bytes)) {
                return Err(damaged(format!("the checksum of block {block} is wrong")));
            }
        }
        Ok(Bytes::from(buffer).slice(usize_of(start - from)..usize_of(end - from)))
    }
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn read_exact_at(file: &dyn File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = file.read_at(buffer, offset)?;
        if read == 0 {
            return Err(damaged("the file is shorter than the manifest says".into()));
        }
        buffer = &mut buffer[read..];
        offset += read as u64;
    }
    Ok(())
}

impl Length for CheckedFile {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for CheckedFile {
    type T = io::BufReader<FromHere>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(io::BufReader::with_capacity(
            BLOCK_BYTES,
            FromHere {
                file: self.clone(),
                at: start,
            },
        ))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        Ok(self.read(start, length)?)
    }
}

/// Reads a [`CheckedFile`] onwards from a position.
pub(super) struct FromHere {
    file: CheckedFile,
    at: u64,
}

impl io::Read for FromHere {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len.saturating_sub(self.at);
        let len = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        buffer[..len].copy_from_slice(&self.file.read(self.at, len)?);
        self.at += len as u64;
        Ok(len)
    }
}

pub(super) fn usize_of(value: u64) -> usize {
    usize::try_from(value).expect("a range inside a segment fits the address space")
}

pub(super) fn i64_of(value: usize) -> i64 {
    i64::try_from(value).expect("a count of things in memory is below 2^63")
}
