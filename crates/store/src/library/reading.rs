//! A read: which pieces of which segments it needs, and rows of them and the memtable as slabs.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, NullArray, RecordBatch, StringArray, UInt64Array,
    new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use backtide_model::{DeviceKey, ElementName, Storage};
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{
    cells::data_type,
    fold::FirstRefusal,
    index::Stretch,
    keep::{Keep, Thinning, down, up},
    names::{DEVICE, Role, SEQUENCE, TIME, column_name},
    run::{Run, StorageClash, Wanted},
    scan::{Columns, RunScan, SLICE_ROWS, SegmentScan, Slice, Slices, devices_of, pieces, prune},
    segment::Segment,
    thin::{Column, Shown, hide},
    weave::{Depth, Weave, Woven},
};
use crate::{Order, Range, ReadError, Slabs, View, memtable::Entry};

/// Bytes of values that a window of a read by time may hold.
const WINDOW_BYTES: usize = 64 << 20;

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
    refusals: FirstRefusal,
}

/// What is not shown of some points.
#[derive(Default)]
pub(super) struct Veil(Vec<(usize, Shown)>);

/// By number of a point: which values of some rows are not shown.
pub(super) type Hidden = Vec<(usize, Vec<bool>)>;

impl Veil {
    pub(super) fn new(points: &[ElementName], keep: &Keep, view: View, from_ms: i64) -> Self {
        let shown = points.iter().enumerate();
        let shown = shown.map(|(at, point)| (at, Shown::new(keep.of(point), view)));
        Self(shown.filter(|(_, shown)| !shown.is_all(from_ms)).collect())
    }

    /// The range to read so that the times that are wanted can be shown.
    fn widened(&self, range: &Range, wanted: (i64, i64)) -> Range {
        let (mut from_ms, mut to_ms) = wanted;
        if self.has(Thinning::Changes) {
            from_ms = down(from_ms, Thinning::Changes.window_ms());
        }
        if self.has(Thinning::Minute) {
            to_ms = up(to_ms, Thinning::Minute.window_ms());
        }
        Range {
            from_ms,
            to_ms,
            ..range.clone()
        }
    }

    fn has(&self, kind: Thinning) -> bool {
        self.0.iter().any(|(_, shown)| shown.has(kind))
    }

    /// Rows in the order of device and time, after those of the calls before.
    pub(super) fn hidden(&mut self, query: &Query, woven: &Woven) -> Result<Hidden, ReadError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let (keys, bases): (Vec<(u32, i64)>, _) = (woven.keys().collect(), woven.bases());
        let mut hidden = Vec::with_capacity(self.0.len());
        for (point, shown) in &mut self.0 {
            let Some(storage) = query.storages[*point] else {
                continue;
            };
            let joined = woven.join(*point, storage, Depth::Sequences, &bases);
            if let Some(joined) = joined.map_err(failed)?
                && let Some(column) = Column::new(&keys, &joined, &bases)
            {
                hidden.push((*point, shown.hidden(&column)));
            }
        }
        Ok(hidden)
    }

    /// Later rows are of this device or later ones.
    pub(super) fn only(&mut self, rank: Option<u32>) {
        for (_, shown) in &mut self.0 {
            rank.into_iter().for_each(|rank| shown.only(rank));
        }
    }
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
        let entries = touched(entries, range);
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
            veil,
            every_row: false,
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
        self.weave(
            (self.range.from_ms, self.range.to_ms.saturating_sub(1)),
            None,
        )
    }

    pub(super) fn device(&self, rank: u32) -> &DeviceKey {
        &self.devices[rank as usize]
    }

    pub(super) fn slabs(self) -> Result<Box<dyn Slabs>, ReadError> {
        if self.wanted.0 >= self.wanted.1 || self.range.rows_max == 0 {
            return Ok(Box::new(Empty));
        }
        match self.range.order {
            Order::DeviceTime => Ok(Box::new(ByDevice::new(self)?)),
            Order::TimeDevice => Ok(Box::new(ByTime::new(self))),
        }
    }

    /// Rows of a span of time, both ends inclusive, that are after a key where one is given.
    fn weave(
        &self,
        span: (i64, i64),
        after: Option<(usize, bool, i64)>,
    ) -> Result<Weave, ReadError> {
        let sources = self.sources(span, after)?.into_iter();
        Weave::new(sources.map(|(source, _)| source).collect(), self.refusals)
    }

    /// All rows of a span of time, or `None` where they could be more than `rows_max`. Many are read
    /// on several threads: of what many segments have, whoever waits for the first row waits for all.
    fn weave_whole(&self, span: (i64, i64), rows_max: usize) -> Result<Option<Woven>, ReadError> {
        let sources = self.sources(span, None)?;
        let rows: usize = sources.iter().map(|(_, rows)| rows).sum();
        let sources = sources.into_iter().map(|(source, _)| source).collect();
        let whole = rows <= rows_max && rows > SLICE_ROWS;
        let sources = if whole { ahead(sources)? } else { sources };
        let woven = Weave::new(sources, self.refusals)?.next(rows_max.saturating_add(1))?;
        Ok((woven.rows() <= rows_max).then_some(woven))
    }

    /// What has rows of a span, the oldest first, and how many at most.
    fn sources(
        &self,
        (from_ms, last_ms): (i64, i64),
        after: Option<(usize, bool, i64)>,
    ) -> Result<Vec<(Slices, usize)>, ReadError> {
        let times = |rank: u32| match after {
            None => Some((from_ms, last_ms)),
            Some((at, _, _)) if (rank as usize) < at => None,
            Some((at, true, time_ms)) if rank as usize == at => {
                Some((from_ms.max(self.resume_ms(time_ms)), last_ms))
            }
            Some(_) => Some((from_ms, last_ms)),
        };
        let mut sources: Vec<(Slices, usize)> = Vec::new();
        for segment in &self.segments {
            let pieces = prune(segment, &pieces(&segment.card.index, &self.devices, times));
            if !pieces.is_empty() {
                let (source, columns) = (sources.len(), self.columns.clone());
                let rows = pieces.iter().map(|piece| piece.rows.len()).sum();
                let scan = SegmentScan::new(Arc::clone(segment), source, pieces, columns)?;
                sources.push((Box::new(scan), rows));
            }
        }
        let devices = &self.devices[after.map_or(0, |(at, _, _)| at.min(self.devices.len()))..];
        if !self.entries.is_empty() && !devices.is_empty() {
            // A time of i64::MAX is never stored: times end in 2100.
            let wanted = Wanted {
                devices,
                times: Some(from_ms..last_ms.saturating_add(1)),
            };
            let run = Run::new(self.entries.clone(), &wanted, self.refusals)
                .map_err(|clash| clashed(&clash))?;
            let rank = |device| self.devices.binary_search(device).ok();
            let ranks = run.index.0.iter().map(|stretch| {
                let rank = rank(&stretch.device).and_then(|rank| u32::try_from(rank).ok());
                rank.expect("a run has only devices that were asked for")
            });
            let ranks = ranks.collect();
            let rows = run.index.0.iter().map(|stretch| stretch.rows.len()).sum();
            let (source, columns) = (sources.len(), self.columns.clone());
            let scan = RunScan::new(Arc::new(run), source, ranks, columns);
            sources.push((Box::new(scan), rows));
        }
        Ok(sources)
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
        let mut sequences = vec![0_u64; rows];
        let mut some_is_full = false;
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
            match joined.sequences {
                None => some_is_full = true,
                Some(of_point) => greatest(&mut sequences, &of_point),
            }
            arrays.push(joined.values);
            if self.has_quality[point] {
                let none = || new_null_array(&DataType::UInt8, rows);
                arrays.push(joined.quality.unwrap_or_else(none));
            }
        }
        if self.every_row {
            sequences = woven.newest();
        } else if some_is_full {
            greatest(&mut sequences, &bases);
        }
        let mut keys: Vec<(u32, i64)> = woven.keys().collect();
        let (from_ms, to_ms) = self.wanted;
        let stays = |((rank, time_ms), sequence): (&(u32, i64), &u64)| {
            *sequence > 0
                && (from_ms..to_ms).contains(time_ms)
                && is_wanted.is_none_or(|is_wanted| is_wanted(*rank, *time_ms))
        };
        let stays: Vec<bool> = keys.iter().zip(&sequences).map(stays).collect();
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
            Arc::new(UInt64Array::from(slab.sequences)),
        ];
        columns.extend(slab.arrays);
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)
    }
}

/// Rows of a read before they are a batch: (rank, time) and the columns.
struct Slab {
    keys: Vec<(u32, i64)>,
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

fn greatest(sequences: &mut [u64], others: &[u64]) {
    for (sequence, other) in sequences.iter_mut().zip(others) {
        *sequence = (*sequence).max(*other);
    }
}

/// Reads sources to their ends, several at once, in the memory that their slices take.
fn ahead(sources: Vec<Slices>) -> Result<Vec<Slices>, ReadError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(sources.len());
    let places: Vec<Mutex<Place>> = sources
        .into_iter()
        .map(|source| Mutex::new(Place::Unread(source)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut place = place.lock();
            if let Place::Unread(source) = &mut *place {
                *place = Place::Read(source.collect());
            }
        }
    };
    thread::scope(|scope| {
        for number in 1..threads {
            // Without a thread the others do its work.
            let reader = thread::Builder::new().name(format!("read-{number}"));
            drop(reader.spawn_scoped(scope, work));
        }
        work();
    });
    let read = |place: Mutex<Place>| match place.into_inner() {
        Place::Read(slices) => Ok(Box::new(slices?.into_iter().map(Ok)) as Slices),
        Place::Unread(source) => Ok(source),
    };
    places.into_iter().map(read).collect()
}

enum Place {
    Unread(Slices),
    Read(Result<Vec<Slice>, ReadError>),
}

/// The entries with any row of the range: most hold one device, and a range few.
fn touched(mut entries: Vec<Arc<Entry>>, range: &Range) -> Vec<Arc<Entry>> {
    let devices: HashSet<&DeviceKey, RandomState> = range.devices.iter().collect();
    entries.retain(|entry| {
        let batch = &entry.batch;
        let has_device = || batch.devices.iter().any(|device| devices.contains(device));
        (devices.is_empty() || has_device())
            && batch
                .row_time
                .iter()
                .any(|time_ms| (range.from_ms..range.to_ms).contains(time_ms))
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

/// In the order of segments: one pass.
struct ByDevice {
    query: Query,
    veil: Veil,
    weave: Weave,
    rows_left: usize,
}

impl ByDevice {
    fn new(mut query: Query) -> Result<Self, ReadError> {
        let after = query.range.after.as_ref().map(|(device, time_ms)| {
            match query.devices.binary_search(device) {
                Ok(at) => (at, true, *time_ms),
                Err(at) => (at, false, *time_ms),
            }
        });
        let span = (query.range.from_ms, query.range.to_ms - 1);
        let weave = query.weave(span, after)?;
        let rows_left = query.range.rows_max;
        Ok(Self {
            veil: std::mem::take(&mut query.veil),
            query,
            weave,
            rows_left,
        })
    }

    fn slab(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        let after = self.query.range.after.clone();
        while self.rows_left > 0 {
            let rows_max = SLICE_ROWS.min(self.rows_left.max(1_024));
            let woven = match self.veil.has(Thinning::Minute) {
                true => self
                    .weave
                    .next_whole(rows_max, Thinning::Minute.window_ms())?,
                false => self.weave.next(rows_max)?,
            };
            if woven.rows() == 0 {
                return Ok(None);
            }
            let hidden = self.veil.hidden(&self.query, &woven)?;
            self.veil.only(woven.keys().last().map(|(rank, _)| rank));
            let devices = &self.query.devices;
            let is_after = after.as_ref().map(|(device, after_ms)| {
                move |rank: u32, time_ms: i64| {
                    (&devices[rank as usize], time_ms) > (device, *after_ms)
                }
            });
            let is_after = is_after
                .as_ref()
                .map(|is_after| is_after as &dyn Fn(u32, i64) -> bool);
            let mut slab = self.query.slab(&woven, &hidden, is_after)?;
            slab.truncate(self.rows_left);
            self.rows_left -= slab.keys.len();
            if !slab.keys.is_empty() {
                return self.query.batch(slab).map(Some);
            }
        }
        Ok(None)
    }
}

impl Iterator for ByDevice {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let slab = self.slab().transpose();
        if matches!(slab, Some(Err(_))) {
            self.rows_left = 0;
        }
        slab
    }
}

impl Slabs for ByDevice {}

/// By time: a window of time is read in the order of segments and sorted. Windows grow and shrink,
/// so that each holds many rows and never too many.
struct ByTime {
    query: Query,
    veil: Veil,
    /// The next window, both ends inclusive; `None` at the end.
    next: Option<(i64, i64)>,
    /// The last time wanted.
    last_ms: i64,
    rows_wanted: usize,
    rows_max: usize,
    /// What is being given.
    window: Option<Window>,
    rows_left: usize,
}

/// The rows of a window of time, woven by device, and their order by time.
struct Window {
    woven: Woven,
    hidden: Hidden,
    order: Vec<usize>,
    at: usize,
}

impl Window {
    fn new(woven: Woven, hidden: Hidden) -> Self {
        let mut order: Vec<(i64, u32, usize)> = woven
            .keys()
            .zip(0..)
            .map(|((rank, time_ms), row)| (time_ms, rank, row))
            .collect();
        // Made of runs, one a device: this sort merges them.
        order.sort();
        Self {
            woven,
            hidden,
            order: order.into_iter().map(|(_, _, row)| row).collect(),
            at: 0,
        }
    }

    fn next(&mut self) -> Option<(Woven, Hidden)> {
        let to = (self.at + SLICE_ROWS).min(self.order.len());
        let rows = &self.order[self.at..to];
        self.at = to;
        let hidden = self.hidden.iter().map(|(point, hidden)| {
            let hidden = rows.iter().map(|row| hidden[*row]);
            (*point, hidden.collect())
        });
        let hidden = hidden.collect();
        (!rows.is_empty()).then(|| (self.woven.reordered(rows.iter().copied()), hidden))
    }
}

impl ByTime {
    fn new(query: Query) -> Self {
        let columns = query.storages.len() + 3;
        let rows_max = (WINDOW_BYTES / 8 / columns).max(SLICE_ROWS);
        let rows_left = query.range.rows_max;
        let mut by_time = Self {
            veil: Veil::default(),
            query,
            next: None,
            last_ms: 0,
            // More than is wanted: some rows may have no value.
            rows_wanted: rows_left.saturating_mul(2).clamp(1_024, rows_max),
            rows_max,
            window: None,
            rows_left,
        };
        by_time.begin();
        by_time.veil = std::mem::take(&mut by_time.query.veil);
        by_time
    }

    /// The first window: as long as rows are dense on average.
    fn begin(&mut self) {
        let query = &self.query;
        let is_wanted = |stretch: &&Stretch| {
            query.range.devices.is_empty() || query.devices.binary_search(&stretch.device).is_ok()
        };
        let of_segments = query
            .segments
            .iter()
            .flat_map(|segment| &segment.card.index.0)
            .filter(is_wanted)
            .map(|stretch| (stretch.first_ms, stretch.last_ms, stretch.rows.len()));
        let of_entries = query.entries.iter().filter_map(|entry| {
            let times = &entry.batch.row_time;
            Some((*times.iter().min()?, *times.iter().max()?, times.len()))
        });
        let (mut first_ms, mut last_ms, mut rows) = (i64::MAX, i64::MIN, 0_usize);
        for (first, last, count) in of_segments.chain(of_entries) {
            (first_ms, last_ms, rows) = (first_ms.min(first), last_ms.max(last), rows + count);
        }
        // The row itself too: another device may have one of the same time.
        let after = query.range.after.as_ref();
        let after_ms = after.map_or(i64::MIN, |(_, time_ms)| {
            query.resume_ms(time_ms.saturating_sub(1))
        });
        let from_ms = query.range.from_ms.max(first_ms).max(after_ms);
        self.last_ms = last_ms.min(query.range.to_ms - 1);
        if rows > 0 && from_ms <= self.last_ms {
            // A span without rounding, where it is short and where it is long.
            let span_ms = u128::from(last_ms.abs_diff(first_ms)) * self.rows_wanted as u128;
            let span_ms = u64::try_from(span_ms / rows as u128).unwrap_or(u64::MAX);
            self.next = Some((from_ms, from_ms.saturating_add_unsigned(span_ms)));
        }
    }

    fn slab(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        while self.rows_left > 0 {
            let Some((woven, hidden)) = self.window.as_mut().and_then(Window::next) else {
                self.window = None;
                match self.next {
                    None => return Ok(None),
                    Some(span) => self.read(span)?,
                }
                continue;
            };
            let after = self.query.range.after.as_ref().map(|(device, after_ms)| {
                let devices = &self.query.devices;
                move |rank: u32, time_ms: i64| {
                    (time_ms, &devices[rank as usize]) > (*after_ms, device)
                }
            });
            let is_after = after
                .as_ref()
                .map(|after| after as &dyn Fn(u32, i64) -> bool);
            let mut slab = self.query.slab(&woven, &hidden, is_after)?;
            slab.truncate(self.rows_left);
            if !slab.keys.is_empty() {
                self.rows_left -= slab.keys.len();
                return self.query.batch(slab).map(Some);
            }
        }
        Ok(None)
    }

    /// Reads a window, or makes it shorter where it has too many rows.
    fn read(&mut self, (from_ms, to_ms): (i64, i64)) -> Result<(), ReadError> {
        let (mut to_ms, mut least_ms) = (to_ms, 0);
        if self.veil.has(Thinning::Minute) {
            // Minutes are not parted. Half of two and less could be as long again.
            let minute_ms = Thinning::Minute.window_ms();
            to_ms = up(to_ms.saturating_add(1), minute_ms).saturating_sub(1);
            least_ms = 2 * minute_ms.unsigned_abs();
        }
        let to_ms = to_ms.min(self.last_ms);
        let span_ms = to_ms.abs_diff(from_ms);
        // A single moment is read whatever it holds.
        let rows_max = if span_ms <= least_ms {
            usize::MAX
        } else {
            self.rows_max
        };
        let Some(woven) = self.query.weave_whole((from_ms, to_ms), rows_max)? else {
            self.next = Some((from_ms, from_ms.saturating_add_unsigned(span_ms / 2)));
            return Ok(());
        };
        let rows = woven.rows();
        let hidden = self.veil.hidden(&self.query, &woven)?;
        self.window = Some(Window::new(woven, hidden));
        let factor = if rows < self.rows_wanted / 2 { 4 } else { 1 };
        self.rows_wanted = (self.rows_wanted * 2).min(self.rows_max);
        let next_ms = to_ms.saturating_add(1);
        let next_span_ms = span_ms.saturating_mul(factor).max(1);
        self.next = (to_ms < self.last_ms)
            .then(|| (next_ms, next_ms.saturating_add_unsigned(next_span_ms)));
        Ok(())
    }
}

impl Iterator for ByTime {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let slab = self.slab().transpose();
        if matches!(slab, Some(Err(_))) {
            self.rows_left = 0;
        }
        slab
    }
}

impl Slabs for ByTime {}
