//! Rows of one source, a slice at a time, in order of (device, time): from a segment's pages or
//! from a run of the memtable.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch, UInt8Array, UInt64Array, cast::AsArray,
    types::TimestampMillisecondType,
};
use arrow_buffer::ScalarBuffer;
use backtide_model::{DeviceKey, ElementName};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, RowSelection},
        parquet_to_arrow_field_levels,
    },
    errors::ParquetError,
    file::page_index::column_index::ColumnIndexMetaData,
};

use super::{
    cells::{Cells, Typed},
    chunks::Chunks,
    index::{DeviceIndex, Stretch},
    names::Role,
    run::Run,
    segment::Segment,
};
use crate::ReadError;

/// Rows of a slice and of a slab at most.
pub(super) const SLICE_ROWS: usize = 8_192;

/// Where `_time` and `_sequence` are in every segment.
const TIME_AT: usize = 1;
const SEQUENCE_AT: usize = 2;

/// What is read of each row beside its key.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) points: Arc<[ElementName]>,
    /// The commit of rows and cells.
    pub(super) sequences: bool,
}

/// Rows of consecutive keys of one source.
#[derive(Debug)]
pub(super) struct Slice {
    /// Which of the sources; a later one holds later commits.
    pub(super) source: usize,
    /// Position of each row's device in the list that all sources share.
    pub(super) ranks: Vec<u32>,
    pub(super) times: ScalarBuffer<i64>,
    /// Row numbers in the source, by the row with which each stretch of neighbours begins.
    numbers: Vec<(usize, usize)>,
    /// The commit of each row; empty where not asked for.
    pub(super) base: Vec<u64>,
    /// One for each point asked for, `None` where the source has none of it.
    pub(super) points: Vec<Option<Cells>>,
}

impl Slice {
    pub(super) fn rows(&self) -> usize {
        self.times.len()
    }

    pub(super) fn base(&self, row: usize) -> u64 {
        self.base.get(row).copied().unwrap_or(0)
    }

    pub(super) fn key(&self, row: usize) -> (u32, i64) {
        (self.ranks[row], self.times[row])
    }

    /// The number of a row in its source.
    pub(super) fn number(&self, row: usize) -> usize {
        let at = self.numbers.partition_point(|(begin, _)| *begin <= row);
        let (begin, number) = self.numbers[at - 1];
        number + (row - begin)
    }
}

pub(super) type Slices = Box<dyn Iterator<Item = Result<Slice, ReadError>> + Send>;

/// Consecutive rows of one device in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) rank: u32,
    pub(super) rows: Range<usize>,
    /// Event times wanted of them, milliseconds, both ends inclusive.
    pub(super) times: (i64, i64),
}

/// Every device of some indexes, sorted: what ranks count in.
pub(super) fn devices_of<'a>(indexes: impl Iterator<Item = &'a DeviceIndex>) -> Vec<DeviceKey> {
    let stretches = indexes.flat_map(|index| &index.0);
    let mut devices: Vec<&DeviceKey> = stretches.map(|stretch| &stretch.device).collect();
    devices.sort_unstable();
    devices.dedup();
    devices.into_iter().cloned().collect()
}

/// The stretches of the devices that are wanted at times that are wanted: `devices` are sorted, those
/// at `ranks` are wanted, and `times` gives both ends, inclusive, for a rank.
pub(super) fn pieces(
    index: &DeviceIndex,
    devices: &[DeviceKey],
    ranks: Range<usize>,
    times: impl Fn(u32) -> Option<(i64, i64)>,
) -> Vec<Piece> {
    let wanted = &devices[ranks.clone()];
    let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
        return Vec::new();
    };
    let piece = |stretch: &Stretch| {
        let rank = ranks.start + wanted.binary_search(&stretch.device).ok()?;
        let rank = u32::try_from(rank).expect("a product has fewer than 2^32 devices");
        let times = times(rank)?;
        let overlaps = stretch.first_ms <= times.1 && times.0 <= stretch.last_ms;
        overlaps.then(|| Piece {
            rank,
            rows: stretch.rows.clone(),
            times: (times.0.max(stretch.first_ms), times.1.min(stretch.last_ms)),
        })
    };
    let from = index.0.partition_point(|stretch| stretch.device < *first);
    let to = index.0.partition_point(|stretch| stretch.device <= *last);
    let stretches = &index.0[from..to];
    if wanted.len() * 8 < stretches.len() {
        let found = wanted.iter().filter_map(|device| index.get(device));
        return found.filter_map(piece).collect();
    }
    stretches.iter().filter_map(piece).collect()
}

/// Leaves out the pages in which no time is wanted.
pub(super) fn prune(segment: &Segment, pieces: &[Piece]) -> Vec<Piece> {
    let pages = segment.pages.get_or_init(|| pages(segment));
    let mut kept: Vec<Piece> = Vec::new();
    let first_row = pieces.first().map_or(0, |piece| piece.rows.start);
    let mut first_page = pages.partition_point(|page| page.rows.end <= first_row);
    for piece in pieces {
        while pages
            .get(first_page)
            .is_some_and(|page| page.rows.end <= piece.rows.start)
        {
            first_page += 1;
        }
        let touched = pages[first_page..]
            .iter()
            .take_while(|page| page.rows.start < piece.rows.end);
        for page in touched.filter(|p| p.first_ms <= piece.times.1 && piece.times.0 <= p.last_ms) {
            let rows = page.rows.start.max(piece.rows.start)..page.rows.end.min(piece.rows.end);
            match kept.last_mut() {
                Some(last) if last.rank == piece.rank && last.rows.end == rows.start => {
                    last.rows.end = rows.end;
                }
                _ => kept.push(Piece {
                    rows,
                    ..piece.clone()
                }),
            }
        }
    }
    kept
}

/// Some rows of the time column, and the times among them.
#[derive(Debug, Clone)]
pub(super) struct Page {
    rows: Range<usize>,
    first_ms: i64,
    last_ms: i64,
}

/// The pages of the time column, in order.
fn pages(segment: &Segment) -> Vec<Page> {
    let metadata = segment.metadata.metadata();
    let mut pages = Vec::new();
    let mut group_start = 0;
    for (group, about) in metadata.row_groups().iter().enumerate() {
        let group_rows = usize::try_from(about.num_rows()).unwrap_or(0);
        let index = metadata.page_index_for_row_group(group);
        match (index.offset_index(TIME_AT), index.column_index(TIME_AT)) {
            (Some(offsets), Some(ColumnIndexMetaData::INT64(times))) => {
                let starts: Vec<usize> = offsets
                    .page_locations()
                    .iter()
                    .map(|page| usize::try_from(page.first_row_index).unwrap_or(0))
                    .collect();
                let ends = starts.iter().skip(1).copied().chain([group_rows]);
                for (page, (start, end)) in starts.iter().zip(ends).enumerate() {
                    pages.push(Page {
                        rows: group_start + start..group_start + end,
                        first_ms: times.min_value(page).copied().unwrap_or(i64::MIN),
                        last_ms: times.max_value(page).copied().unwrap_or(i64::MAX),
                    });
                }
            }
            _ => pages.push(Page {
                rows: group_start..group_start + group_rows,
                first_ms: i64::MIN,
                last_ms: i64::MAX,
            }),
        }
        group_start += group_rows;
    }
    pages
}

/// Reads pieces of a segment.
pub(super) struct SegmentScan {
    segment: Arc<Segment>,
    source: usize,
    columns: Columns,
    /// Positions of the projected columns in the batches, by file column.
    at: Vec<Option<usize>>,
    reader: ParquetRecordBatchReader,
    /// What the reader has still to give, in order.
    left: VecDeque<Piece>,
}

impl SegmentScan {
    /// `pieces` are sorted by their rows and don't overlap.
    pub(super) fn new(
        segment: Arc<Segment>,
        source: usize,
        pieces: Vec<Piece>,
        columns: Columns,
    ) -> Result<Self, ReadError> {
        let wanted = wanted_columns(&segment, &columns);
        let mut at = vec![None; segment.metadata.schema().fields().len()];
        for (position, column) in wanted.iter().enumerate() {
            at[*column] = Some(position);
        }
        let (groups, selection) = select(&segment, &pieces);
        let reader = reader(&segment, wanted, groups, selection);
        let reader = reader.map_err(|error| segment.damaged(error))?;
        Ok(Self {
            segment,
            source,
            columns,
            at,
            reader,
            left: pieces.into(),
        })
    }

    fn slice(&mut self, batch: &RecordBatch) -> Result<Slice, ReadError> {
        let column = |file_column: usize| {
            let position = self.at[file_column].expect("only projected columns are asked for");
            batch.column(position)
        };
        let times = column(TIME_AT).as_primitive_opt::<TimestampMillisecondType>();
        let times = times
            .ok_or_else(|| self.segment.damaged("_time is no timestamp"))?
            .values();
        let keys = self.take_keys(times)?;
        let cut = |array: &ArrayRef| match &keys.mask {
            None => Ok(Arc::clone(array)),
            Some(mask) => {
                arrow_select::filter::filter(array, mask).map_err(|e| self.segment.damaged(e))
            }
        };
        let column = |file_column: usize| {
            let position = self.at[file_column].expect("only projected columns are asked for");
            cut(batch.column(position))
        };
        let mut points = Vec::with_capacity(self.columns.points.len());
        for point in self.columns.points.iter() {
            let Some(known) = self.segment.points.get(point) else {
                points.push(None);
                continue;
            };
            let bytes = |role| match known.by_role.get(&role) {
                None => Ok(None),
                Some(at) => {
                    column(*at).map(|array| array.as_any().downcast_ref::<UInt8Array>().cloned())
                }
            };
            let values = column(known.by_role[&Role::Value])?;
            let values = Typed::new(&values);
            points.push(Some(Cells {
                values: values.ok_or_else(|| self.segment.damaged("values of unknown type"))?,
                quality: bytes(Role::Quality)?,
                rules: bytes(Role::Rule)?,
                sequence: match known.by_role.get(&Role::Sequence) {
                    Some(at) if self.columns.sequences => {
                        column(*at)?.as_any().downcast_ref::<UInt64Array>().cloned()
                    }
                    _ => None,
                },
            }));
        }
        let base = if self.columns.sequences {
            let base = column(SEQUENCE_AT)?;
            let base = base.as_any().downcast_ref::<UInt64Array>();
            base.ok_or_else(|| self.segment.damaged("_sequence is no integer"))?
                .values()
                .to_vec()
        } else {
            Vec::new()
        };
        let Keys {
            ranks,
            times,
            numbers,
            ..
        } = keys;
        Ok(Slice {
            source: self.source,
            ranks,
            times,
            numbers,
            base,
            points,
        })
    }

    /// Matches the rows of a batch with the pieces they come from and leaves out times that are not
    /// wanted.
    fn take_keys(&self, times: &ScalarBuffer<i64>) -> Result<Keys, ReadError> {
        let mut keys = Keys::default();
        let mut kept: Vec<(usize, usize)> = Vec::new();
        let mut row = 0;
        for piece in &self.left {
            let rows = piece.rows.len().min(times.len() - row);
            let part = &times[row..row + rows];
            // Within a device times ascend.
            let from = part.partition_point(|time| *time < piece.times.0);
            let to = part
                .partition_point(|time| *time <= piece.times.1)
                .max(from);
            if from < to {
                keys.numbers
                    .push((keys.ranks.len(), piece.rows.start + from));
                keys.ranks
                    .extend(std::iter::repeat_n(piece.rank, to - from));
                kept.push((row + from, row + to));
            }
            row += rows;
            if row == times.len() {
                break;
            }
        }
        if row != times.len() {
            return Err(self
                .segment
                .damaged("the reader gave more rows than were selected"));
        }
        keys.times = match keys.ranks.len() < times.len() {
            false => times.clone(),
            true => {
                let mut mask = vec![false; times.len()];
                let mut wanted = Vec::with_capacity(keys.ranks.len());
                for (from, to) in kept {
                    mask[from..to].fill(true);
                    wanted.extend_from_slice(&times[from..to]);
                }
                keys.mask = Some(BooleanArray::from(mask));
                wanted.into()
            }
        };
        Ok(keys)
    }

    fn drop_read(&mut self, mut rows: usize) {
        while let Some(piece) = self.left.front_mut() {
            if piece.rows.len() > rows {
                piece.rows.start += rows;
                return;
            }
            rows -= piece.rows.len();
            self.left.pop_front();
        }
    }
}

#[derive(Default)]
struct Keys {
    ranks: Vec<u32>,
    times: ScalarBuffer<i64>,
    numbers: Vec<(usize, usize)>,
    /// `None`: every row of the batch is kept.
    mask: Option<BooleanArray>,
}

impl Iterator for SegmentScan {
    type Item = Result<Slice, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let batch = match self.reader.next()? {
                Ok(batch) => batch,
                Err(error) => return Some(Err(self.segment.damaged(error))),
            };
            let slice = self.slice(&batch);
            self.drop_read(batch.num_rows());
            match slice {
                Ok(slice) if slice.rows() == 0 => {}
                slice => return Some(slice),
            }
        }
    }
}

/// Reads some columns of the rows of some row groups.
fn reader(
    segment: &Segment,
    columns: Vec<usize>,
    groups: Vec<usize>,
    selection: RowSelection,
) -> Result<ParquetRecordBatchReader, ParquetError> {
    let schema = segment.metadata.parquet_schema();
    let fields = segment.metadata.schema().fields();
    let columns = ProjectionMask::leaves(schema, columns);
    let levels = parquet_to_arrow_field_levels(schema, columns, Some(fields))?;
    let chunks = Chunks::new(segment, groups)?;
    let rows_max = SLICE_ROWS.min(segment.rows());
    ParquetRecordBatchReader::try_new_with_row_groups(&levels, &chunks, rows_max, Some(selection))
}

fn wanted_columns(segment: &Segment, columns: &Columns) -> Vec<usize> {
    let mut wanted = vec![TIME_AT];
    if columns.sequences {
        wanted.push(SEQUENCE_AT);
    }
    for known in columns
        .points
        .iter()
        .filter_map(|point| segment.points.get(point))
    {
        let by_role = known.by_role.iter();
        wanted.extend(
            by_role
                .filter(|(role, _)| columns.sequences || **role != Role::Sequence)
                .map(|(_, at)| *at),
        );
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// The row groups that pieces touch, and the rows wanted of those.
fn select(segment: &Segment, pieces: &[Piece]) -> (Vec<usize>, RowSelection) {
    let mut groups = Vec::new();
    let mut ranges = Vec::new();
    let mut group_start = 0;
    let mut selected_rows = 0;
    let mut pieces = pieces.iter().peekable();
    for (group, about) in segment.metadata.metadata().row_groups().iter().enumerate() {
        let group_rows = usize::try_from(about.num_rows()).unwrap_or(0);
        let group_end = group_start + group_rows;
        let mut is_touched = false;
        while let Some(piece) = pieces.peek().filter(|piece| piece.rows.start < group_end) {
            let from = piece.rows.start.max(group_start) - group_start;
            let to = piece.rows.end.min(group_end) - group_start;
            ranges.push(selected_rows + from..selected_rows + to);
            is_touched = true;
            if piece.rows.end > group_end {
                break;
            }
            pieces.next();
        }
        if is_touched {
            groups.push(group);
            selected_rows += group_rows;
        }
        group_start = group_end;
    }
    (
        groups,
        RowSelection::from_consecutive_ranges(ranges.into_iter(), selected_rows),
    )
}

/// Reads a run.
pub(super) struct RunScan {
    run: Arc<Run>,
    source: usize,
    columns: Columns,
    /// Rank of each stretch of the run's index.
    ranks: Vec<u32>,
    at: usize,
    slice_rows: usize,
}

impl RunScan {
    pub(super) fn new(run: Arc<Run>, source: usize, ranks: Vec<u32>, columns: Columns) -> Self {
        // Each slice walks all cells of the run, so slices are as long as memory allows: 64 MiB of
        // values at eight bytes.
        let slice_rows = ((64 << 20) / 8 / columns.points.len().max(1)).max(SLICE_ROWS);
        Self {
            run,
            source,
            columns,
            ranks,
            at: 0,
            slice_rows,
        }
    }
}

impl Iterator for RunScan {
    type Item = Result<Slice, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.run.rows() {
            return None;
        }
        let rows = self.at..(self.at + self.slice_rows).min(self.run.rows());
        self.at = rows.end;
        let mut ranks = Vec::with_capacity(rows.len());
        for (stretch, rank) in self.run.index.0.iter().zip(&self.ranks) {
            let from = stretch.rows.start.max(rows.start);
            let to = stretch.rows.end.min(rows.end).max(from);
            ranks.extend(std::iter::repeat_n(*rank, to - from));
        }
        let cells = |point| self.run.cells(point, rows.clone());
        Some(Ok(Slice {
            source: self.source,
            ranks,
            times: self.run.times[rows.clone()].to_vec().into(),
            numbers: vec![(0, rows.start)],
            base: self.run.base[rows.clone()].to_vec(),
            points: self.columns.points.iter().map(cells).collect(),
        }))
    }
}
