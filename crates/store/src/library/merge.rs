//! Merges segments of adjacent commits into one: fewer files, no row twice. A merge goes forward in
//! steps, so that more urgent work comes between, and holds a few thousand rows of each input.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, StringArray, TimestampMillisecondArray, UInt64Array, new_null_array,
};
use arrow_schema::{ArrowError, DataType};
use backtide_model::{DeviceKey, ElementName, Storage};

use super::{
    cells::data_type,
    fault::FlushError,
    floor::{News, done},
    fold::FirstRefusal,
    keep::{Floor, Keep, PointKeep},
    names::Role,
    scan::{Columns, Piece, SLICE_ROWS, SegmentScan, Slices, devices_of, pieces},
    segment::{Card, Segment},
    thin::{Column, droppable, hide},
    weave::{Depth, Joined, Weave, Woven, own_sequences},
    write::{Packing, Plan, PointColumn, SegmentWriter, remove},
};
use crate::disk::Disk;

/// A merge starts a new file after this many bytes or rows; all of them hold the same commits.
const FILE_BYTES: u64 = 512 << 20;
pub(super) const FILE_ROWS: usize = 1 << 25;
/// A merge this large packs its result tightly: it will stay for a while.
const TIGHT_BYTES: u64 = 256 << 20;
/// Runs that one merge joins at most: it holds a few thousand rows of each.
const INPUTS_MAX: usize = 16;
/// Where a merge of everything is this small, it is done however small the news.
const SMALL_BYTES: u64 = 32 << 20;
/// Otherwise the news must be this part of what they are merged with, or merging a large product
/// would never end.
const NEWS_PART: u64 = 16;

/// Segments to be merged, in order of commit.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) inputs: Vec<Arc<Segment>>,
    /// Nothing of the product is older.
    pub(super) is_oldest: bool,
    pub(super) packing: Packing,
}

impl Choice {
    pub(super) fn bytes(&self) -> u64 {
        self.inputs.iter().map(|segment| segment.card.bytes).sum()
    }
}

/// When to merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Commits arrive: only as much as keeps a read cheap.
    Busy,
    /// Until one run is left, as far as that pays.
    Quiet,
}

/// Chooses what to merge among a product's segments, in order of commit.
///
/// When busy nothing is merged below `runs_max` runs; from there on the neighbours that cost least
/// for each run they save. Merging as late as the bound allows writes a value least often: that is
/// what keeps up with a load at full speed.
pub(super) fn choose(
    segments: &[Arc<Segment>],
    is_taken: impl Fn(u64) -> bool,
    runs_max: usize,
    haste: Haste,
) -> Option<Choice> {
    let all = commits(segments).count();
    let runs = runs(segments);
    let is_free = |run: &[Arc<Segment>]| run.iter().all(|segment| !is_taken(segment.card.id));
    let choice = |from: usize, runs: &[&[Arc<Segment>]]| {
        let inputs = runs.concat();
        let is_large = bytes(&inputs) >= TIGHT_BYTES;
        Choice {
            inputs,
            is_oldest: from == 0,
            packing: if is_large || haste == Haste::Quiet {
                Packing::Tight
            } else {
                Packing::Quick
            },
        }
    };
    if all >= runs_max && (haste == Haste::Busy || runs.len() > INPUTS_MAX) {
        return cheapest(&runs, is_free).map(|(from, to)| choice(from, &runs[from..to]));
    }
    if haste == Haste::Busy {
        return None;
    }
    let is_quick =
        |run: &[Arc<Segment>]| run.iter().any(|segment| segment.packing == Packing::Quick);
    (0..runs.len()).find_map(|from| {
        let (oldest, news) = (bytes(runs[from]), bytes(&runs[from + 1..].concat()));
        let pays = oldest <= NEWS_PART * news || (news > 0 && oldest + news <= SMALL_BYTES);
        let is_loose = runs.len() == 1 && is_quick(runs[0]);
        ((pays || is_loose) && runs[from..].iter().all(|run| is_free(run)))
            .then(|| choice(from, &runs[from..]))
    })
}

/// The free neighbours with the fewest bytes for each run that their merge saves.
fn cheapest(
    runs: &[&[Arc<Segment>]],
    is_free: impl Fn(&[Arc<Segment>]) -> bool,
) -> Option<(usize, usize)> {
    let mut cheapest: Option<(u64, usize, usize)> = None;
    for from in 0..runs.len() {
        let mut all = 0;
        let window = runs[from..].iter().take(INPUTS_MAX);
        for (saved, run) in window.take_while(|run| is_free(run)).enumerate() {
            all += bytes(run);
            let Some(cost) = all.checked_div(saved as u64) else {
                continue;
            };
            if cheapest.is_none_or(|(least, _, _)| cost < least) {
                cheapest = Some((cost, from, from + saved + 1));
            }
        }
    }
    cheapest.map(|(_, from, to)| (from, to))
}

/// Segments by the commits they hold: the files of one merge belong together.
pub(super) fn commits(segments: &[Arc<Segment>]) -> impl Iterator<Item = &[Arc<Segment>]> {
    let commits = |segment: &Segment| (segment.card.sequence_min, segment.card.sequence_max);
    segments.chunk_by(move |a, b| commits(a) == commits(b))
}

fn runs(segments: &[Arc<Segment>]) -> Vec<&[Arc<Segment>]> {
    let classified = segments
        .iter()
        .take_while(|segment| segment.card.is_classified)
        .count();
    commits(&segments[..classified]).collect()
}

fn bytes(run: &[Arc<Segment>]) -> u64 {
    run.iter().map(|segment| segment.card.bytes).sum()
}

/// What a merge leaves out: what is not kept, unless something newer keeps it alive.
#[derive(Default)]
pub(super) struct Trim {
    pub(super) keep: Arc<Keep>,
    /// What is newer than the merge.
    pub(super) news: News,
}

/// A merge on its way. Dropped, it leaves nothing behind.
pub(super) struct Merge {
    pub(super) choice: Choice,
    disk: Arc<dyn Disk>,
    weave: Weave,
    devices: Vec<DeviceKey>,
    points: Vec<(ElementName, Storage)>,
    plan: Plan,
    /// [`FILE_ROWS`] but in tests.
    file_rows: usize,
    /// Rows below are left out.
    floor: Floor,
    /// Of what is not below it, what else is left out.
    trim: Trim,
    writer: Option<SegmentWriter>,
    /// Rows of the inputs, and how many of them are written.
    rows: (u64, u64),
    outputs: Vec<(std::path::PathBuf, Card)>,
    is_live: bool,
}

impl Merge {
    /// `plan` is the first file's but for its columns. What `trim` says is left out where nothing of
    /// the product is older.
    pub(super) fn new(
        disk: &Arc<dyn Disk>,
        choice: Choice,
        mut plan: Plan,
        file_rows: usize,
        trim: Trim,
        refusals: FirstRefusal,
    ) -> Result<Self, FlushError> {
        let mut points: BTreeMap<ElementName, Storage> = BTreeMap::new();
        for segment in &choice.inputs {
            let known = segment.points.iter();
            points.extend(known.map(|(point, columns)| (point.clone(), columns.storage)));
        }
        plan.columns = columns(&choice, &points);
        // Under something older nothing may go: that would stand up again.
        let trim = match choice.is_oldest {
            true => trim,
            false => Trim::default(),
        };
        plan.done = done(&trim.keep, points.keys(), plan.sequence_max);
        let points: Vec<_> = points.into_iter().collect();
        let devices = devices_of(choice.inputs.iter().map(|input| input.card.index.as_ref()));
        let names = points.iter().map(|(point, _)| point.clone()).collect();
        let columns = Columns {
            points: names,
            sequences: true,
        };
        let mut scans: Vec<Slices> = Vec::new();
        for (source, segment) in choice.inputs.iter().enumerate() {
            let ranks = 0..devices.len();
            let all: Vec<Piece> = pieces(&segment.card.index, &devices, ranks, |_| {
                Some((i64::MIN, i64::MAX))
            });
            let scan = SegmentScan::new(Arc::clone(segment), source, all, columns.clone())?;
            scans.push(Box::new(scan));
        }
        let weave = Weave::new(scans, refusals)?;
        let writer = Some(SegmentWriter::create(disk, plan.clone())?);
        let (disk, outputs) = (Arc::clone(disk), Vec::new());
        let floor = trim.keep.lowest(points.iter().map(|(point, _)| point));
        let input_rows = choice.inputs.iter().map(|input| input.rows() as u64).sum();
        Ok(Self {
            choice,
            disk,
            weave,
            devices,
            points,
            plan,
            file_rows,
            floor,
            trim,
            writer,
            rows: (input_rows, 0),
            outputs,
            is_live: false,
        })
    }

    /// Writes about `rows` more rows; says whether that was all. `next_plan` gives the id and path
    /// of a further file.
    pub(super) fn step(
        &mut self,
        rows: usize,
        next_plan: impl Fn(&Plan) -> Plan,
    ) -> Result<bool, FlushError> {
        let mut written = 0;
        while written < rows {
            let is_full = |writer: &SegmentWriter| {
                writer.rows() >= self.file_rows || writer.bytes() >= FILE_BYTES
            };
            if self.writer.as_ref().is_some_and(is_full) {
                self.end_file()?;
            }
            let in_file = self.writer.as_ref().map_or(0, SegmentWriter::rows);
            let mut woven = self.weave.next(SLICE_ROWS.min(self.file_rows - in_file))?;
            if woven.rows() == 0 {
                self.end_file()?;
                return Ok(true);
            }
            written += woven.rows();
            self.rows.1 += woven.rows() as u64;
            woven.retain(|time_ms, newest| self.floor.keeps(time_ms, newest));
            if woven.rows() == 0 {
                continue;
            }
            let mut rows = self.rows(&woven).map_err(|e| self.failed(&e))?;
            let left = rows.leave_out(&self.trim, &self.points, &self.devices);
            left.map_err(|e| self.failed(&e))?;
            if rows.keys.is_empty() {
                continue;
            }
            if self.writer.is_none() {
                self.plan = next_plan(&self.plan);
                self.writer = Some(SegmentWriter::create(&self.disk, self.plan.clone())?);
            }
            self.write(rows)?;
        }
        Ok(false)
    }

    /// About how many bytes of the inputs are still to be merged.
    pub(super) fn bytes_left(&self) -> u64 {
        let (rows, written) = self.rows;
        let left = rows.saturating_sub(written);
        self.choice.bytes() / rows.max(1) * left
    }

    pub(super) fn outputs(&self) -> &[(std::path::PathBuf, Card)] {
        &self.outputs
    }

    /// The manifest names the outputs: they stay.
    pub(super) fn live(mut self) {
        self.is_live = true;
    }

    fn end_file(&mut self) -> Result<(), FlushError> {
        // Without a row, nothing is left of it: a writer that is dropped removes its file.
        if let Some(writer) = self.writer.take().filter(|writer| writer.rows() > 0) {
            self.outputs.push(writer.finish()?);
        }
        Ok(())
    }

    fn write(&mut self, rows: Rows) -> Result<(), FlushError> {
        let Rows { keys, own, joined } = rows;
        let bases = bases(&own, &joined);
        let writer = self
            .writer
            .as_mut()
            .expect("a file was begun before rows are written");
        let times: Vec<i64> = keys.iter().map(|(_, time_ms)| *time_ms).collect();
        let mut row = 0;
        for of_device in keys.chunk_by(|a, b| a.0 == b.0) {
            let device = &self.devices[of_device[0].0 as usize];
            writer.rows_of(device, &times[row..row + of_device.len()]);
            row += of_device.len();
        }
        let device = |(rank, _): &(u32, i64)| self.devices[*rank as usize].as_str();
        let devices = StringArray::from_iter_values(keys.iter().map(device));
        let times = TimestampMillisecondArray::from(times).with_timezone("UTC");
        writer.column(0, &(Arc::new(devices) as ArrayRef))?;
        writer.column(1, &(Arc::new(times) as ArrayRef))?;
        writer.column(2, &(Arc::new(UInt64Array::from(bases.clone())) as ArrayRef))?;
        let mut point = 0;
        for (at, column) in self.plan.columns.iter().enumerate() {
            while self.points[point].0 != column.point {
                point += 1;
            }
            let array = column_array(column, joined[point].as_ref(), &own, &bases);
            writer.column(at + 3, &array)?;
        }
        writer.end_rows()
    }

    fn rows(&self, woven: &Woven) -> Result<Rows, ArrowError> {
        let own = woven.bases();
        let points = self.points.iter().enumerate();
        let joined = points
            .map(|(point, (_, storage))| woven.join(point, *storage, Depth::Rules, &own))
            .collect::<Result<_, _>>()?;
        Ok(Rows {
            keys: woven.keys().collect(),
            own,
            joined,
        })
    }

    fn failed(&self, error: &ArrowError) -> FlushError {
        FlushError::Damaged {
            file: self.plan.path.display().to_string(),
            reason: error.to_string(),
        }
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        if !self.is_live {
            self.outputs
                .iter()
                .for_each(|(path, _)| remove(self.disk.as_ref(), path));
        }
    }
}

/// Some rows, point by point.
struct Rows {
    keys: Vec<(u32, i64)>,
    /// The rows' own commits.
    own: Vec<u64>,
    joined: Vec<Option<Joined>>,
}

impl Rows {
    /// Takes out what is not kept, and rows of which nothing is left.
    fn leave_out(
        &mut self,
        trim: &Trim,
        points: &[(ElementName, Storage)],
        devices: &[DeviceKey],
    ) -> Result<(), ArrowError> {
        let is_settled = |rank: u32, times| !trim.news.falls_into(&devices[rank as usize], times);
        let mut is_poorer = false;
        for ((point, _), joined) in points.iter().zip(&mut self.joined) {
            let keep = trim.keep.of(point);
            let (Some(joined), true) = (joined, *keep != PointKeep::default()) else {
                continue;
            };
            let Some(column) = Column::new(&self.keys, joined, &self.own) else {
                continue;
            };
            let gone = droppable(&column, keep, is_settled);
            is_poorer |= gone.contains(&true);
            hide(joined, &gone, &self.own)?;
        }
        if !is_poorer {
            return Ok(());
        }
        let has = |row: usize| {
            let mut joined = self.joined.iter().flatten();
            joined.any(|joined| joined.values.is_valid(row))
        };
        let stays: Vec<bool> = (0..self.keys.len()).map(has).collect();
        if !stays.contains(&false) {
            return Ok(());
        }
        for joined in self.joined.iter_mut().flatten() {
            joined.retain(&stays)?;
        }
        let mut at = stays.iter();
        self.keys.retain(|_| at.next() == Some(&true));
        let mut at = stays.iter();
        self.own.retain(|_| at.next() == Some(&true));
        Ok(())
    }
}

/// A row's commit: the greatest among its cells. `own` are the rows' own.
fn bases(own: &[u64], joined: &[Option<Joined>]) -> Vec<u64> {
    let mut bases = vec![0; own.len()];
    for column in joined.iter().flatten() {
        let sequences = column.sequences.as_deref().unwrap_or(own);
        for (base, sequence) in bases.iter_mut().zip(sequences) {
            *base = (*base).max(*sequence);
        }
    }
    for (base, own) in bases.iter_mut().zip(own) {
        if *base == 0 {
            *base = *own;
        }
    }
    bases
}

fn column_array(
    column: &PointColumn,
    joined: Option<&Joined>,
    own: &[u64],
    bases: &[u64],
) -> ArrayRef {
    let nulls = |data_type: &DataType| new_null_array(data_type, bases.len());
    match (column.role, joined) {
        (Role::Value, Some(joined)) => Arc::clone(&joined.values),
        (Role::Value, None) => nulls(&data_type(column.storage)),
        (Role::Sequence, Some(joined)) => match joined.sequences.as_deref().unwrap_or(own) {
            same if same == bases => nulls(&DataType::UInt64),
            sequences => Arc::new(own_sequences(sequences, bases)),
        },
        (Role::Sequence, None) => nulls(&DataType::UInt64),
        (Role::Quality, joined) => match joined.and_then(|joined| joined.quality.clone()) {
            Some(quality) => quality,
            None => nulls(&DataType::UInt8),
        },
        (Role::Rule, joined) => match joined.and_then(|joined| joined.rules.clone()) {
            Some(rules) => Arc::new(rules),
            None => nulls(&DataType::UInt8),
        },
    }
}

/// Sequences and rules of cells are needed where rows can meet, and where an input has them. Rules
/// act on older segments: without any, they have done their work.
fn columns(choice: &Choice, points: &BTreeMap<ElementName, Storage>) -> Vec<PointColumn> {
    let inputs = &choice.inputs;
    let meet = inputs.iter().enumerate().any(|(at, a)| {
        inputs[at + 1..]
            .iter()
            .any(|b| a.card.index.overlaps(&b.card.index))
    });
    let mut columns = Vec::new();
    for (point, storage) in points {
        let has = |role: Role| {
            let known = inputs.iter().filter_map(|input| input.points.get(point));
            known
                .into_iter()
                .any(|columns| columns.by_role.contains_key(&role))
        };
        let mut add = |role| {
            columns.push(PointColumn {
                point: point.clone(),
                storage: *storage,
                role,
            });
        };
        add(Role::Value);
        if has(Role::Quality) {
            add(Role::Quality);
        }
        if meet || has(Role::Sequence) {
            add(Role::Sequence);
        }
        if !choice.is_oldest && (meet || has(Role::Rule)) {
            add(Role::Rule);
        }
    }
    columns
}
