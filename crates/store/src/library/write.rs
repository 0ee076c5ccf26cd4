//! Writes a segment: a temporary name, then fsync of the file, rename, fsync of the directory. Only
//! then may the manifest name it.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use backtide_model::{DeviceKey, ElementName, ProductKey, Storage};
use parking_lot::Mutex;
use parquet::{
    arrow::{
        ArrowSchemaConverter,
        arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    },
    basic::{Compression, Encoding, PageType, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{
            ColumnChunkMetaData, KeyValue, RowGroupMetaData, RowGroupMetaDataPtr, SortingColumn,
        },
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};

use super::{
    cells::data_type,
    done::Done,
    fault::{FlushError, is_disk_full},
    index::DeviceIndex,
    names::{DEVICE, Role, SEQUENCE, TIME, column_name},
    segment::{BLOCK_BYTES, Card},
};
use crate::disk::{Disk, File};

/// Rows of a page: what a read of one device's day decodes at least.
pub(super) const PAGE_ROWS: usize = 4_096;
/// A row group's distinct doubles at most: history of sensors finds its repeats, and a read of a few
/// rows decodes little of what it does not want. Above, the column falls back to plain values.
const DICTIONARY_BYTES: usize = 256 << 10;
/// Row groups of a file in which a column without repeats does without a dictionary, until it is tried again.
const GROUPS_PLAIN: usize = 15;
/// `_device`, `_time` and `_sequence`: those of points follow.
const COLUMNS_OF_ROWS: usize = 3;
/// What is written of a segment between two fsyncs, bytes.
const SYNC_BYTES: u64 = 4 << 20;

/// How values are laid down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// For a file that will soon be merged: plain values, LZ4.
    Quick,
    /// For one that stays: dictionaries, zstd.
    Tight,
}

impl Packing {
    /// As the key-value metadata has it; a file without it is tight.
    pub(super) const KEY: &'static str = "backtide.packing";

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Tight => "tight",
        }
    }

    /// Rows of a row group at most. Without dictionaries nothing is gained by short ones.
    pub(super) fn group_rows(self) -> usize {
        match self {
            Self::Quick => 1 << 20,
            Self::Tight => 131_072,
        }
    }

    fn compression(self) -> Result<Compression, ParquetError> {
        Ok(match self {
            Self::Quick => Compression::LZ4_RAW,
            Self::Tight => Compression::ZSTD(ZstdLevel::try_new(3)?),
        })
    }
}

/// A column of the file beyond device, time and sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PointColumn {
    pub(super) point: ElementName,
    pub(super) storage: Storage,
    pub(super) role: Role,
}

/// What a segment is about to be.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) id: u64,
    pub(super) product: ProductKey,
    pub(super) path: PathBuf,
    pub(super) sequence_min: u64,
    pub(super) sequence_max: u64,
    pub(super) is_classified: bool,
    pub(super) is_merged: bool,
    pub(super) packing: Packing,
    pub(super) columns: Vec<PointColumn>,
    /// What is taken out of it.
    pub(super) done: Done,
}

/// Columns are written one after the other within a row group: `_device`, `_time`, `_sequence`,
/// then those of the plan.
pub(super) struct SegmentWriter {
    plan: Plan,
    temporary: PathBuf,
    disk: Arc<dyn Disk>,
    sums: Arc<Mutex<Sums>>,
    fields: Vec<Arc<Field>>,
    /// `None` after the end.
    file: Option<SerializedFileWriter<Output>>,
    factory: ArrowRowGroupWriterFactory,
    group: Vec<ArrowColumnWriter>,
    groups: usize,
    /// Columns of which the dictionary was tried and full too soon.
    plain: BTreeSet<usize>,
    group_rows: usize,
    pub(super) index: DeviceIndex,
    cells: u64,
    is_named: bool,
}

impl SegmentWriter {
    pub(super) fn create(disk: &Arc<dyn Disk>, plan: Plan) -> Result<Self, FlushError> {
        let dir = plan
            .path
            .parent()
            .expect("a segment's path has a directory");
        disk.create_dir_all(dir)
            .map_err(|error| FlushError::io(dir, error))?;
        if let Some(above) = dir.parent() {
            // The product's directory may be new: its name must be durable too.
            disk.sync_dir(above)
                .map_err(|error| FlushError::io(above, error))?;
        }
        let temporary = plan.path.with_extension("tmp");
        let output = disk
            .create(&temporary)
            .map_err(|error| FlushError::io(&temporary, error))?;
        let sums = Arc::new(Mutex::new(Sums::default()));
        let output = Output {
            file: output,
            sums: Arc::clone(&sums),
            buffer: Vec::new(),
            at: 0,
            synced: 0,
        };
        let started = start(&plan, output);
        let (fields, file, factory, group) = match started {
            Ok(started) => started,
            Err(error) => {
                remove(disk.as_ref(), &temporary);
                return Err(FlushError::parquet(&temporary, error));
            }
        };
        Ok(Self {
            plan,
            temporary,
            disk: Arc::clone(disk),
            sums,
            fields,
            file: Some(file),
            factory,
            group,
            groups: 0,
            plain: BTreeSet::new(),
            group_rows: 0,
            index: DeviceIndex::default(),
            cells: 0,
            is_named: false,
        })
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn rows(&self) -> usize {
        self.index.rows()
    }

    /// Bytes written so far, but for the current row group.
    pub(super) fn bytes(&self) -> u64 {
        self.file
            .as_ref()
            .map_or(0, |file| file.bytes_written() as u64)
    }

    /// Consecutive rows of one device, at these times.
    pub(super) fn rows_of(&mut self, device: &DeviceKey, times: &[i64]) {
        self.index.push(device, times);
        self.group_rows += times.len();
    }

    /// Appends to column `at`, counted as in [`SegmentWriter`]. The caller gives each column the
    /// same rows before the group ends.
    pub(super) fn column(&mut self, at: usize, array: &ArrayRef) -> Result<(), FlushError> {
        let point = at.checked_sub(COLUMNS_OF_ROWS);
        if point.is_some_and(|at| self.plan.columns[at].role == Role::Value) {
            self.cells += (array.len() - array.null_count()) as u64;
        }
        let leaves = compute_leaves(&self.fields[at], array).and_then(|leaves| {
            leaves
                .iter()
                .try_for_each(|leaf| self.group[at].write(leaf))
        });
        leaves.map_err(|error| self.failed(error))
    }

    /// Ends the row group where it is full.
    pub(super) fn end_rows(&mut self) -> Result<(), FlushError> {
        let memory: usize = self.group.iter().map(ArrowColumnWriter::memory_size).sum();
        // Products with hundreds of points get shorter groups, so that a merge stays in memory.
        if self.group_rows >= self.plan.packing.group_rows() || memory >= 64 << 20 {
            self.end_group()
        } else {
            Ok(())
        }
    }

    fn end_group(&mut self) -> Result<(), FlushError> {
        if self.group_rows == 0 {
            return Ok(());
        }
        self.groups += 1;
        self.group_rows = 0;
        let written = self.write_group();
        let written = written.and_then(|group| self.begin_group(&group));
        written.map_err(|error| self.failed(error))
    }

    fn write_group(&mut self) -> Result<RowGroupMetaDataPtr, ParquetError> {
        let full = std::mem::take(&mut self.group);
        let file = self
            .file
            .as_mut()
            .expect("the file is open until the segment is finished");
        let mut group = file.next_row_group()?;
        for column in full {
            column.close()?.append_to_row_group(&mut group)?;
        }
        group.close()
    }

    /// A dictionary that is full after a part of a group costs more bytes than it saves, and a read of a
    /// few rows has to decode all of it: the groups that follow do without.
    fn begin_group(&mut self, last: &RowGroupMetaData) -> Result<(), ParquetError> {
        let full = last.columns().iter().enumerate();
        let full = full.filter(|(_, column)| is_full_too_soon(column));
        let plain: BTreeSet<usize> = match self.groups % (GROUPS_PLAIN + 1) {
            0 => BTreeSet::new(),
            _ => full.map(|(at, _)| at).chain(self.plain.clone()).collect(),
        };
        if plain != self.plain {
            self.factory = factory(&self.plan, &plain)?;
            self.plain = plain;
        }
        self.group = self.factory.create_column_writers(self.groups)?;
        Ok(())
    }

    fn failed(&self, error: ParquetError) -> FlushError {
        if self.sums.lock().is_full {
            return FlushError::DiskFull {
                file: self.temporary.display().to_string(),
            };
        }
        FlushError::parquet(&self.temporary, error)
    }

    /// Makes it durable under its name.
    pub(super) fn finish(mut self) -> Result<(PathBuf, Card), FlushError> {
        self.end_group()?;
        let file = self.file.take().expect("finish is called once");
        let output = file.into_inner().map_err(|error| self.failed(error))?;
        let (file, bytes) = output
            .end()
            .map_err(|error| FlushError::io(&self.temporary, error))?;
        file.sync()
            .map_err(|error| FlushError::io(&self.temporary, error))?;
        let path = self.plan.path.clone();
        self.disk
            .rename(&self.temporary, &path)
            .map_err(|error| FlushError::io(&path, error))?;
        self.is_named = true;
        let dir = path.parent().expect("a segment's path has a directory");
        if let Err(error) = self.disk.sync_dir(dir) {
            remove(self.disk.as_ref(), &path);
            return Err(FlushError::io(dir, error));
        }
        let sums = std::mem::take(&mut *self.sums.lock());
        let card = Card {
            id: self.plan.id,
            product: self.plan.product.clone(),
            sequence_min: self.plan.sequence_min,
            sequence_max: self.plan.sequence_max,
            cells: self.cells,
            bytes,
            is_classified: self.plan.is_classified,
            is_merged: self.plan.is_merged,
            index: Arc::new(std::mem::take(&mut self.index)),
            checksums: sums.blocks.into(),
        };
        Ok((path, card))
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if !self.is_named {
            remove(self.disk.as_ref(), &self.temporary);
        }
    }
}

/// Removes what failed half-way. Where that fails too, the next open removes it.
pub(super) fn remove(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.remove(path) {
        tracing::warn!(file = %path.display(), %error, "an unfinished segment stays on disk");
    }
}

type Started = (
    Vec<Arc<Field>>,
    SerializedFileWriter<Output>,
    ArrowRowGroupWriterFactory,
    Vec<ArrowColumnWriter>,
);

fn start(plan: &Plan, output: Output) -> Result<Started, ParquetError> {
    let schema = Arc::new(schema(plan));
    let file = file(plan, output, &BTreeSet::new())?;
    let factory = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&schema));
    let group = factory.create_column_writers(0)?;
    Ok((
        schema.fields().iter().cloned().collect(),
        file,
        factory,
        group,
    ))
}

/// Makes the columns of row groups; those at `plain` have no dictionary.
fn factory(
    plan: &Plan,
    plain: &BTreeSet<usize>,
) -> Result<ArrowRowGroupWriterFactory, ParquetError> {
    // It takes what it has to know of a file.
    let like = file(plan, io::sink(), plain)?;
    let schema = Arc::new(schema(plan));
    Ok(ArrowRowGroupWriterFactory::new(&like, schema))
}

fn file<W: io::Write + Send>(
    plan: &Plan,
    output: W,
    plain: &BTreeSet<usize>,
) -> Result<SerializedFileWriter<W>, ParquetError> {
    let schema = ArrowSchemaConverter::new().convert(&schema(plan))?;
    let properties = Arc::new(properties(plan, plain)?);
    SerializedFileWriter::new(output, schema.root_schema_ptr(), properties)
}

/// Whether less than half of a column's pages found their values in its dictionary.
fn is_full_too_soon(column: &ColumnChunkMetaData) -> bool {
    let pages = |is_counted: fn(Encoding) -> bool| -> i32 {
        let stats = column.page_encoding_stats().into_iter().flatten();
        let counted =
            stats.filter(|s| s.page_type == PageType::DATA_PAGE && is_counted(s.encoding));
        counted.map(|stats| stats.count).sum()
    };
    let by_dictionary = pages(|encoding| encoding == Encoding::RLE_DICTIONARY);
    column.dictionary_page_offset().is_some() && 2 * by_dictionary < pages(|_| true)
}

fn schema(plan: &Plan) -> Schema {
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new(DEVICE, DataType::Utf8, false),
        Field::new(TIME, time, false),
        Field::new(SEQUENCE, DataType::UInt64, false),
    ];
    fields.extend(plan.columns.iter().map(|column| {
        let data_type = match column.role {
            Role::Value => data_type(column.storage),
            Role::Quality | Role::Rule => DataType::UInt8,
            Role::Sequence => DataType::UInt64,
        };
        Field::new(column_name(&column.point, column.role), data_type, true)
    }));
    Schema::new(fields)
}

fn properties(plan: &Plan, plain: &BTreeSet<usize>) -> Result<WriterProperties, ParquetError> {
    let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let sorted = |column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: false,
    };
    let about = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let mut abouts = vec![
        about("backtide.format", "1".to_owned()),
        about(Packing::KEY, plan.packing.name().to_owned()),
        about("backtide.product", plan.product.to_string()),
        about("backtide.sequence_min", plan.sequence_min.to_string()),
        about("backtide.sequence_max", plan.sequence_max.to_string()),
    ];
    abouts.extend(plan.done.to_text().map(|text| about(Done::KEY, text)));
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("backtide ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(plan.packing.compression()?)
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(vec![sorted(0), sorted(1)]))
        .set_key_value_metadata(Some(abouts));
    // Reads skip pages by time and by nothing else: only there a column index earns its bytes.
    properties = properties.set_column_statistics_enabled(path(TIME), EnabledStatistics::Page);
    let mut delta: Vec<ColumnPath> = vec![path(TIME), path(SEQUENCE)];
    for (column, at) in plan.columns.iter().zip(COLUMNS_OF_ROWS..) {
        let path = path(&column_name(&column.point, column.role));
        if plain.contains(&at) {
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
        }
        match (column.role, column.storage) {
            (Role::Value, Storage::Int | Storage::Long) => {}
            (Role::Value, Storage::Float | Storage::Double) if plan.packing == Packing::Quick => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_statistics_enabled(path, EnabledStatistics::None);
                continue;
            }
            (Role::Value, _) => continue,
            // Mostly null: a page for the whole group costs next to nothing.
            (Role::Sequence | Role::Rule, _) => {
                let rows = plan.packing.group_rows();
                properties = properties.set_column_data_page_row_count_limit(path.clone(), rows);
            }
            (Role::Quality, _) => continue,
        }
        if column.role == Role::Sequence {
            delta.push(path);
        }
    }
    for path in delta {
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

/// One crc32c per block written, and whether the disk ran full: the library that writes Parquet
/// does not hand on the kind of each error.
#[derive(Debug, Default)]
struct Sums {
    blocks: Vec<u32>,
    is_full: bool,
}

/// Appends to the file a block at a time.
struct Output {
    file: Box<dyn File>,
    sums: Arc<Mutex<Sums>>,
    buffer: Vec<u8>,
    at: u64,
    /// Durable up to here.
    synced: u64,
}

impl Output {
    fn block(&mut self, len: usize) -> io::Result<()> {
        self.sums
            .lock()
            .blocks
            .push(crc32c::crc32c(&self.buffer[..len]));
        if let Err(error) = self.file.write_at(&self.buffer[..len], self.at) {
            self.sums.lock().is_full = is_disk_full(&error);
            return Err(error);
        }
        self.at += len as u64;
        self.buffer.drain(..len);
        // Little by little: the fsync of a commit waits for whatever the file system writes with it.
        if self.at - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.at;
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<(Box<dyn File>, u64)> {
        if !self.buffer.is_empty() {
            self.block(self.buffer.len())?;
        }
        Ok((self.file, self.at))
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == BLOCK_BYTES {
            self.block(BLOCK_BYTES)?;
        }
        Ok(taken)
    }

    /// The library flushes after each row group; blocks stay whole until the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
