//! Merges segments of adjacent commits into one: fewer files, no row twice. A merge goes forward in
//! steps, so that more urgent work comes between, and holds a few thousand rows of each input.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{ArrayRef, StringArray, TimestampMillisecondArray, UInt64Array, new_null_array};
use arrow_schema::{ArrowError, DataType};
use backtide_model::{DeviceKey, ElementName, Storage};

use super::{
    cells::data_type,
    fault::FlushError,
    names::Role,
    scan::{Columns, Piece, SLICE_ROWS, SegmentScan, Slices, devices_of, pieces},
    segment::{Card, Segment},
    weave::{Depth, Joined, Weave, Woven, own_sequences},
    write::{Plan, PointColumn, SegmentWriter, remove},
};
use crate::disk::Disk;

/// A merge starts a new file after this many bytes or rows; all of them hold the same commits.
const FILE_BYTES: u64 = 512 << 20;
pub(super) const FILE_ROWS: usize = 1 << 25;
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
}

impl Choice {
    pub(super) fn bytes(&self) -> u64 {
        self.inputs.iter().map(|segment| segment.card.bytes).sum()
    }
}

/// Chooses what to merge among a product's segments, in order of commit. When busy: as many
/// neighbours of like size as the fan-in says, the smallest first. When quiet: until one is left,
/// as far as that pays.
pub(super) fn choose(
    segments: &[Arc<Segment>],
    is_taken: impl Fn(u64) -> bool,
    fan_in: usize,
    quiet: bool,
) -> Option<Choice> {
    let runs = runs(segments);
    let free = |runs: &[&[Arc<Segment>]]| {
        runs.iter()
            .all(|run| run.iter().all(|segment| !is_taken(segment.card.id)))
    };
    let choice = |from: usize, runs: &[&[Arc<Segment>]]| Choice {
        inputs: runs.concat(),
        is_oldest: from == 0,
    };
    let like_size = runs
        .windows(fan_in.max(2))
        .enumerate()
        .filter(|(_, runs)| {
            let largest = runs.iter().map(|run| bytes(run)).max().unwrap_or(0);
            let all: u64 = runs.iter().map(|run| bytes(run)).sum();
            free(runs) && largest <= all - largest
        })
        .min_by_key(|(_, runs)| runs.iter().map(|run| bytes(run)).sum::<u64>());
    if let Some((from, runs)) = like_size {
        return Some(choice(from, runs));
    }
    if !quiet {
        return None;
    }
    (0..runs.len().saturating_sub(1)).find_map(|from| {
        let (oldest, news) = (bytes(runs[from]), bytes(&runs[from + 1..].concat()));
        let pays = oldest <= NEWS_PART * news || oldest + news <= SMALL_BYTES;
        (pays && free(&runs[from..])).then(|| choice(from, &runs[from..]))
    })
}

/// Classified segments by the commits they hold: the files of one merge belong together.
fn runs(segments: &[Arc<Segment>]) -> Vec<&[Arc<Segment>]> {
    let classified = segments
        .iter()
        .take_while(|segment| segment.card.is_classified)
        .count();
    let commits = |segment: &Segment| (segment.card.sequence_min, segment.card.sequence_max);
    segments[..classified]
        .chunk_by(|a, b| commits(a) == commits(b))
        .collect()
}

fn bytes(run: &[Arc<Segment>]) -> u64 {
    run.iter().map(|segment| segment.card.bytes).sum()
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
    writer: Option<SegmentWriter>,
    outputs: Vec<(std::path::PathBuf, Card)>,
    is_live: bool,
}

impl Merge {
    /// `plan` is the first file's but for its columns.
    pub(super) fn new(
        disk: &Arc<dyn Disk>,
        choice: Choice,
        mut plan: Plan,
        file_rows: usize,
    ) -> Result<Self, FlushError> {
        let mut points: BTreeMap<ElementName, Storage> = BTreeMap::new();
        for segment in &choice.inputs {
            let known = segment.points.iter();
            points.extend(known.map(|(point, columns)| (point.clone(), columns.storage)));
        }
        plan.columns = columns(&choice, &points);
        let points: Vec<_> = points.into_iter().collect();
        let devices = devices_of(choice.inputs.iter().map(|input| input.card.index.as_ref()));
        let names = points.iter().map(|(point, _)| point.clone()).collect();
        let columns = Columns {
            points: names,
            sequences: true,
        };
        let mut scans: Vec<Slices> = Vec::new();
        for (source, segment) in choice.inputs.iter().enumerate() {
            let all: Vec<Piece> = pieces(&segment.card.index, &devices, |_| {
                Some((i64::MIN, i64::MAX))
            });
            let scan = SegmentScan::new(Arc::clone(segment), source, all, columns.clone())?;
            scans.push(Box::new(scan));
        }
        let weave = Weave::new(scans)?;
        let writer = Some(SegmentWriter::create(disk, plan.clone())?);
        let (disk, outputs) = (Arc::clone(disk), Vec::new());
        Ok(Self {
            choice,
            disk,
            weave,
            devices,
            points,
            plan,
            file_rows,
            writer,
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
            let woven = self.weave.next(SLICE_ROWS.min(self.file_rows - in_file))?;
            if woven.rows() == 0 {
                self.end_file()?;
                return Ok(true);
            }
            if self.writer.is_none() {
                self.plan = next_plan(&self.plan);
                self.writer = Some(SegmentWriter::create(&self.disk, self.plan.clone())?);
            }
            self.write(&woven)?;
            written += woven.rows();
        }
        Ok(false)
    }

    pub(super) fn outputs(&self) -> &[(std::path::PathBuf, Card)] {
        &self.outputs
    }

    /// The manifest names the outputs: they stay.
    pub(super) fn live(mut self) {
        self.is_live = true;
    }

    fn end_file(&mut self) -> Result<(), FlushError> {
        if let Some(writer) = self.writer.take() {
            self.outputs.push(writer.finish()?);
        }
        Ok(())
    }

    fn write(&mut self, woven: &Woven) -> Result<(), FlushError> {
        let mut joined = Vec::with_capacity(self.points.len());
        for (point, (_, storage)) in self.points.iter().enumerate() {
            joined.push(
                woven
                    .join(point, *storage, Depth::Rules)
                    .map_err(|e| self.failed(&e))?,
            );
        }
        let bases = bases(woven, &joined);
        let writer = self
            .writer
            .as_mut()
            .expect("a file was begun before rows are written");
        for (rank, time_ms) in woven.keys() {
            writer.row(&self.devices[rank as usize], time_ms);
        }
        let devices = woven
            .keys()
            .map(|(rank, _)| Some(self.devices[rank as usize].as_str()));
        let times = woven.keys().map(|(_, time_ms)| time_ms);
        let times = TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC");
        writer.column(0, &(Arc::new(devices.collect::<StringArray>()) as ArrayRef))?;
        writer.column(1, &(Arc::new(times) as ArrayRef))?;
        writer.column(2, &(Arc::new(UInt64Array::from(bases.clone())) as ArrayRef))?;
        let mut point = 0;
        for (at, column) in self.plan.columns.iter().enumerate() {
            while self.points[point].0 != column.point {
                point += 1;
            }
            let array = column_array(column, joined[point].as_ref(), &bases);
            writer.column(at + 3, &array)?;
        }
        writer.end_rows()
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

/// A row's commit: the greatest among its cells.
fn bases(woven: &Woven, joined: &[Option<Joined>]) -> Vec<u64> {
    let mut bases = vec![0; woven.rows()];
    for column in joined.iter().flatten() {
        for (base, sequence) in bases.iter_mut().zip(&column.sequences) {
            *base = (*base).max(*sequence);
        }
    }
    for (base, of_row) in bases.iter_mut().zip(woven.bases()) {
        if *base == 0 {
            *base = of_row;
        }
    }
    bases
}

fn column_array(column: &PointColumn, joined: Option<&Joined>, bases: &[u64]) -> ArrayRef {
    let nulls = |data_type: &DataType| new_null_array(data_type, bases.len());
    match (column.role, joined) {
        (Role::Value, Some(joined)) => Arc::clone(&joined.values),
        (Role::Value, None) => nulls(&data_type(column.storage)),
        (Role::Sequence, Some(joined)) => Arc::new(own_sequences(&joined.sequences, bases)),
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
