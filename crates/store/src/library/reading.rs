//! A read: which pieces of which segments it needs, and rows of them and the memtable as slabs.

mod ahead;
mod by_device;
mod by_time;
mod straight;
mod to_ends;
mod veil;

use std::{collections::HashSet, ops, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, NullArray, RecordBatch, StringArray, UInt64Array,
    new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use backtide_model::{DeviceKey, ElementName, Storage};
use foldhash::fast::RandomState;

pub(super) use self::veil::Veil;
use self::{by_time::ByTime, to_ends::to_ends, veil::Hidden};
use super::{
    cells::data_type,
    fold::FirstRefusal,
    keep::{Keep, Thinning, down},
    names::{DEVICE, Role, SEQUENCE, TIME, column_name},
    run::{Run, StorageClash, Wanted},
    scan::{Columns, Piece, RunScan, SLICE_ROWS, SegmentScan, Slices, devices_of, pieces, prune},
    segment::Segment,
    thin::hide,
    weave::{Depth, Joined, Weave, Woven},
};
use crate::{Lead, Order, Range, ReadError, Slabs, View, memtable::Entry};

/// What a read needs, all of it owned: it goes on while segments come and go.
pub(super) struct Query {
    segments: Vec<Arc<Segment>>,
    /// Of the product, in order of commit, none of them in a segment.
    entries: Vec<Arc<Entry>>,
    /// Sorted: ranks count in it.
    devices: Vec<DeviceKey>,
    columns: Columns,
    /// Of each point; `None` where nothing was ever stored of it.
    storages: Vec<Option<Storage>>,
    has_quality: Vec<bool>,
    schema: SchemaRef,
    /// What is read: where what is shown depends on its neighbours, more than is wanted.
    range: Range,
    /// Times that are wanted, the end exclusive.
    wanted: (i64, i64),
    veil: Veil,
    /// Rows that have none of the points are there too.
    every_row: bool,
    /// Rows have the commit of their last value.
    has_sequences: bool,
    lead: Lead,
    /// The veil hides something, whoever holds it meanwhile: commits are read for it.
    is_veiled: bool,
    refusals: FirstRefusal,
}

impl Query {
    /// `points` are the range's, or all. What a keep and a view do not show is not there.
    pub(super) fn new(
        segments: Vec<Arc<Segment>>,
        entries: Vec<Arc<Entry>>,
        points: Vec<(ElementName, Option<Storage>)>,
        range: &Range,
        (keep, view): (&Keep, View),
        refusals: FirstRefusal,
    ) -> Self {
        let (points, storages): (Vec<_>, Vec<_>) = points.into_iter().unzip();
        let floor_ms = keep.lowest(points.iter()).time_ms;
        let wanted = (range.from_ms.max(floor_ms), range.to_ms);
        let veil = Veil::new(&points, keep, view, wanted.0);
        let range = &veil.widened(range, wanted);
        let entries = touched(entries, &range.devices, (range.from_ms, range.to_ms));
        let has_quality: Vec<bool> = points
            .iter()
            .map(|point| {
                let in_segments = segments.iter().any(|segment| {
                    let known = segment.points.get(point);
                    known.is_some_and(|known| known.by_role.contains_key(&Role::Quality))
                });
                let columns = entries.iter().flat_map(|entry| &entry.batch.columns);
                in_segments
                    || columns
                        .into_iter()
                        .any(|c| c.point == *point && c.quality.is_some())
            })
            .collect();
        let devices = if range.devices.is_empty() {
            let mut devices = devices_of(segments.iter().map(|s| s.card.index.as_ref()));
            let of_entries = entries.iter().flat_map(|entry| &entry.batch.devices);
            let of_entries: HashSet<&DeviceKey, RandomState> = of_entries.collect();
            devices.extend(of_entries.into_iter().cloned());
            sorted(devices)
        } else {
            sorted(range.devices.clone())
        };
        let schema = Arc::new(schema(&points, &storages, &has_quality));
        let columns = Columns {
            points: points.into(),
            sequences: true,
        };
        let range = range.clone();
        Self {
            segments,
            entries,
            devices,
            columns,
            storages,
            has_quality,
            schema,
            refusals,
            wanted,
            range,
            is_veiled: !veil.is_empty(),
            veil,
            every_row: false,
            has_sequences: true,
            lead: Lead::Ahead,
        }
    }

    /// The same read with rows that have none of the points, but others. For a product of which
    /// nothing is hidden: what others a row has is not looked at.
    pub(super) fn with_every_row(self) -> Self {
        Self {
            every_row: true,
            ..self
        }
    }

    /// The same read without the commits of rows.
    pub(super) fn without_sequences(self) -> Self {
        let fields = self.schema.fields().iter();
        let fields = fields.filter(|field| field.name() != SEQUENCE).cloned();
        Self {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            has_sequences: false,
            ..self
        }
    }

    /// The same read, so far before its taker.
    pub(super) fn at(self, lead: Lead) -> Self {
        Self { lead, ..self }
    }

    /// Behind which row to read on, so that what follows it can be shown: a time, inclusive.
    fn resume_ms(&self, after_ms: i64) -> i64 {
        match self.veil.has(Thinning::Changes) {
            true => down(after_ms, Thinning::Changes.window_ms()),
            false => after_ms.saturating_add(1),
        }
    }

    /// The same read, where duplicates leave the first commit up to another one.
    pub(super) fn folding(self, refusals: FirstRefusal) -> Self {
        Self { refusals, ..self }
    }

    /// Every row of the range by device and time.
    pub(super) fn whole(&self) -> Result<Weave, ReadError> {
        let span = (self.range.from_ms, self.range.to_ms.saturating_sub(1));
        self.weave(span, None, self.ranks())
    }

    /// Of all its devices.
    fn ranks(&self) -> ops::Range<usize> {
        0..self.devices.len()
    }

    pub(super) fn device(&self, rank: u32) -> &DeviceKey {
        &self.devices[rank as usize]
    }

    pub(super) fn slabs(self) -> Result<Box<dyn Slabs>, ReadError> {
        if self.wanted.0 >= self.wanted.1 || self.range.rows_max == 0 {
            return Ok(Box::new(Empty));
        }
        match self.range.order {
            Order::DeviceTime => by_device::slabs(self),
            Order::TimeDevice => Ok(Box::new(ByTime::new(self))),
        }
    }

    /// Rows of some devices in a span of time, both ends inclusive, that are after a key where one is
    /// given.
    fn weave(
        &self,
        span: (i64, i64),
        after: Option<After>,
        ranks: ops::Range<usize>,
    ) -> Result<Weave, ReadError> {
        let sources = self.sources(span, after, ranks)?.into_iter();
        Weave::new(sources.map(|(source, _)| source).collect(), self.refusals)
    }

    /// All rows of a span of time, or `None` where they could be more than `rows_max`. Many are read
    /// on several threads: of what many segments have, whoever waits for the first row waits for all.
    fn weave_whole(&self, span: (i64, i64), rows_max: usize) -> Result<Option<Woven>, ReadError> {
        let sources = self.sources(span, None, self.ranks())?;
        let rows: usize = sources.iter().map(|(_, rows)| rows).sum();
        let sources = sources.into_iter().map(|(source, _)| source).collect();
        let whole = rows <= rows_max && rows > SLICE_ROWS;
        let sources = if whole { to_ends(sources)? } else { sources };
        let woven = Weave::new(sources, self.refusals)?.next(rows_max.saturating_add(1))?;
        Ok((woven.rows() <= rows_max).then_some(woven))
    }

    /// What has rows of some devices in a span, the oldest first, and how many at most.
    fn sources(
        &self,
        (from_ms, last_ms): (i64, i64),
        after: Option<After>,
        ranks: ops::Range<usize>,
    ) -> Result<Vec<(Slices, usize)>, ReadError> {
        let times = |rank: u32| match after {
            Some(After { rank: at, .. }) if (rank as usize) < at => None,
            Some(After {
                rank: at,
                time_ms: Some(time_ms),
            }) if rank as usize == at => Some((from_ms.max(self.resume_ms(time_ms)), last_ms)),
            None | Some(_) => Some((from_ms, last_ms)),
        };
        let pieces = |segment: &Arc<Segment>| {
            let index = &segment.card.index;
            prune(segment, &pieces(index, &self.devices, ranks.clone(), times))
        };
        let of_segments: Vec<Vec<Piece>> = self.segments.iter().map(pieces).collect();
        let from = after.map_or(0, |after| after.rank);
        let run = self.run(
            from.clamp(ranks.start, ranks.end)..ranks.end,
            (from_ms, last_ms),
        )?;
        // Where each row stands in one source only, no two versions meet, and nobody asks which came last.
        let is_woven = run.is_some() || !are_apart(&of_segments);
        let columns = Columns {
            sequences: self.has_sequences || is_woven || self.is_veiled,
            ..self.columns.clone()
        };
        let mut sources: Vec<(Slices, usize)> = Vec::new();
        for (segment, pieces) in self.segments.iter().zip(of_segments) {
            if !pieces.is_empty() {
                let rows = pieces.iter().map(|piece| piece.rows.len()).sum();
                let (segment, source) = (Arc::clone(segment), sources.len());
                let scan = SegmentScan::new(segment, source, pieces, columns.clone())?;
                sources.push((Box::new(scan), rows));
            }
        }
        if let Some(run) = run {
            let rank = |device| self.devices.binary_search(device).ok();
            let ranks = run.index.0.iter().map(|stretch| {
                let rank = rank(&stretch.device).and_then(|rank| u32::try_from(rank).ok());
                rank.expect("a run has only devices that were asked for")
            });
            let ranks = ranks.collect();
            let rows = run.index.0.iter().map(|stretch| stretch.rows.len()).sum();
            let scan = RunScan::new(Arc::new(run), sources.len(), ranks, columns);
            sources.push((Box::new(scan), rows));
        }
        Ok(sources)
    }

    /// What is in memory of some devices, both times inclusive; `None` where there is nothing.
    fn run(
        &self,
        ranks: ops::Range<usize>,
        (from_ms, last_ms): (i64, i64),
    ) -> Result<Option<Run>, ReadError> {
        let devices = &self.devices[ranks];
        if self.entries.is_empty() || devices.is_empty() {
            return Ok(None);
        }
        // A time of i64::MAX is never stored: times end in 2100.
        let to_ms = last_ms.saturating_add(1);
        let entries = match devices.len() == self.devices.len() {
            true => self.entries.clone(),
            false => touched(self.entries.clone(), devices, (from_ms, to_ms)),
        };
        let wanted = Wanted {
            devices,
            times: Some(from_ms..to_ms),
        };
        let run = Run::new(entries, &wanted, self.refusals).map_err(|clash| clashed(&clash))?;
        Ok((run.rows() > 0).then_some(run))
    }

    /// The columns of a slab; rows without any value are left out, and those that are not wanted.
    fn slab(
        &self,
        woven: &Woven,
        hidden: &Hidden,
        is_wanted: Option<&dyn Fn(u32, i64) -> bool>,
    ) -> Result<Slab, ReadError> {
        let rows = woven.rows();
        let bases = woven.bases();
        let mut known = Known::new(rows, bases.is_empty());
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (point, storage) in self.storages.iter().enumerate() {
            let Some(storage) = storage else {
                arrays.push(Arc::new(NullArray::new(rows)));
                continue;
            };
            let joined = woven
                .join(point, *storage, Depth::Sequences, &bases)
                .map_err(failed)?;
            let Some(mut joined) = joined else {
                arrays.push(new_null_array(&data_type(*storage), rows));
                if self.has_quality[point] {
                    arrays.push(new_null_array(&DataType::UInt8, rows));
                }
                continue;
            };
            if let Some((_, hidden)) = hidden.iter().find(|(of, _)| *of == point) {
                hide(&mut joined, hidden, &bases).map_err(failed)?;
            }
            known.add(&joined);
            arrays.push(joined.values);
            if self.has_quality[point] {
                let none = || new_null_array(&DataType::UInt8, rows);
                arrays.push(joined.quality.unwrap_or_else(none));
            }
        }
        let (has_value, mut sequences) = match self.every_row {
            true if bases.is_empty() => (None, Vec::new()),
            true => (None, woven.newest()),
            false => known.end(&bases),
        };
        let mut keys: Vec<(u32, i64)> = woven.keys().collect();
        let (from_ms, to_ms) = self.wanted;
        let stays = |(row, (rank, time_ms)): (usize, &(u32, i64))| {
            has_value.as_ref().is_none_or(|has_value| has_value[row])
                && (from_ms..to_ms).contains(time_ms)
                && is_wanted.is_none_or(|is_wanted| is_wanted(*rank, *time_ms))
        };
        let stays: Vec<bool> = keys.iter().enumerate().map(stays).collect();
        if stays.contains(&false) {
            let mask = BooleanArray::from(stays.clone());
            for array in &mut arrays {
                *array = arrow_select::filter::filter(array, &mask).map_err(failed)?;
            }
            let mut at = stays.iter();
            keys.retain(|_| at.next() == Some(&true));
            let mut at = stays.iter();
            sequences.retain(|_| at.next() == Some(&true));
        }
        Ok(Slab {
            keys,
            sequences,
            arrays,
        })
    }

    fn batch(&self, slab: Slab) -> Result<RecordBatch, ReadError> {
        let devices = slab
            .keys
            .iter()
            .map(|(rank, _)| self.devices[*rank as usize].as_str());
        let times = slab.keys.iter().map(|(_, time_ms)| *time_ms);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(devices)),
            Arc::new(Int64Array::from_iter_values(times)),
        ];
        if self.has_sequences {
            columns.push(Arc::new(UInt64Array::from(slab.sequences)));
        }
        columns.extend(slab.arrays);
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)
    }
}

/// Rows of a read before they are a batch: (rank, time) and the columns.
struct Slab {
    keys: Vec<(u32, i64)>,
    /// Empty where they were not read.
    sequences: Vec<u64>,
    arrays: Vec<ArrayRef>,
}

impl Slab {
    fn truncate(&mut self, rows: usize) {
        if self.keys.len() > rows {
            self.keys.truncate(rows);
            self.sequences.truncate(rows);
            self.arrays
                .iter_mut()
                .for_each(|array| *array = array.slice(0, rows));
        }
    }
}

/// Which rows have a value, and the commit of the last, as the points tell one after the other.
struct Known {
    /// A point has one in every row, of the row's own commit where commits are read.
    is_full: bool,
    has_value: Vec<bool>,
    /// Empty where they are not read.
    sequences: Vec<u64>,
}

impl Known {
    fn new(rows: usize, is_bare: bool) -> Self {
        let (has_value, sequences) = match is_bare {
            true => (vec![false; rows], Vec::new()),
            false => (Vec::new(), vec![0; rows]),
        };
        Self {
            is_full: false,
            has_value,
            sequences,
        }
    }

    fn add(&mut self, joined: &Joined) {
        match &joined.sequences {
            None => self.is_full = true,
            Some(_) if self.is_full && self.sequences.is_empty() => {}
            Some(_) if self.sequences.is_empty() => match joined.values.nulls() {
                None => self.is_full = true,
                Some(nulls) => {
                    let has_value = self.has_value.iter_mut().zip(nulls);
                    has_value.for_each(|(has_value, here)| *has_value |= here);
                }
            },
            Some(of_point) => greatest(&mut self.sequences, of_point),
        }
    }

    /// Which rows have a value, `None` where all have one, and the commit of each.
    fn end(mut self, bases: &[u64]) -> (Option<Vec<bool>>, Vec<u64>) {
        if self.sequences.is_empty() {
            return ((!self.is_full).then_some(self.has_value), Vec::new());
        }
        if self.is_full {
            greatest(&mut self.sequences, bases);
            return (None, self.sequences);
        }
        let has_value = self.sequences.iter().map(|sequence| *sequence > 0);
        (Some(has_value.collect()), self.sequences)
    }
}

fn greatest(sequences: &mut [u64], others: &[u64]) {
    for (sequence, other) in sequences.iter_mut().zip(others) {
        *sequence = (*sequence).max(*other);
    }
}

/// Whether no row of one source can stand in another one too.
fn are_apart(sources: &[Vec<Piece>]) -> bool {
    if sources.iter().filter(|pieces| !pieces.is_empty()).count() < 2 {
        return true;
    }
    let pieces = sources.iter().flatten();
    let mut spans: Vec<_> = pieces.map(|piece| (piece.rank, piece.times)).collect();
    spans.sort_unstable();
    spans
        .windows(2)
        .all(|pair| pair[0].0 != pair[1].0 || pair[0].1.1 < pair[1].1.0)
}

/// Where a read goes on: behind a time of a device, or from a device on.
#[derive(Debug, Clone, Copy)]
struct After {
    rank: usize,
    time_ms: Option<i64>,
}

/// The entries with any row of some devices (of all, where there are none) from a time on to another:
/// most hold one device, and a range few.
fn touched(
    mut entries: Vec<Arc<Entry>>,
    devices: &[DeviceKey],
    (from_ms, to_ms): (i64, i64),
) -> Vec<Arc<Entry>> {
    let devices: HashSet<&DeviceKey, RandomState> = devices.iter().collect();
    entries.retain(|entry| {
        let batch = &entry.batch;
        let has_device = || batch.devices.iter().any(|device| devices.contains(device));
        let mut times = batch.row_time.iter();
        (devices.is_empty() || has_device())
            && times.any(|time_ms| (from_ms..to_ms).contains(time_ms))
    });
    entries
}

fn sorted(mut devices: Vec<DeviceKey>) -> Vec<DeviceKey> {
    devices.sort_unstable();
    devices.dedup();
    devices
}

fn schema(points: &[ElementName], storages: &[Option<Storage>], has_quality: &[bool]) -> Schema {
    let mut fields = vec![
        Field::new(DEVICE, DataType::Utf8, false),
        Field::new(TIME, DataType::Int64, false),
        Field::new(SEQUENCE, DataType::UInt64, false),
    ];
    for ((point, storage), has_quality) in points.iter().zip(storages).zip(has_quality) {
        let data_type = storage.map_or(DataType::Null, data_type);
        fields.push(Field::new(column_name(point, Role::Value), data_type, true));
        if storage.is_some() && *has_quality {
            fields.push(Field::new(
                column_name(point, Role::Quality),
                DataType::UInt8,
                true,
            ));
        }
    }
    Schema::new(fields)
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn failed(error: ArrowError) -> ReadError {
    ReadError::Segment {
        file: "slab".into(),
        reason: error.to_string(),
    }
}

fn clashed(clash: &StorageClash) -> ReadError {
    let StorageClash {
        point,
        stored,
        given,
    } = clash;
    let reason = format!("point {point} is both {stored:?} and {given:?}");
    ReadError::Segment {
        file: "memtable".into(),
        reason,
    }
}

struct Empty;

impl Iterator for Empty {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl Slabs for Empty {}
