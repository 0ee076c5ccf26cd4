//! Entries of the memtable as one sorted run of rows: what a flush writes and a read joins with
//! segments. One row per (device, time); columns are folded a point and a stretch of rows at a
//! time, so that sparse entries never cost rows × points of memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use arrow_array::{
    BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray, UInt8Array,
    UInt64Array,
};
use backtide_model::{Cell, Column, DeviceKey, ElementName, NO_QUALITY, Storage, Values};

use super::{
    cells::{Cells, Typed, Version},
    fold::{Outcome, Rule, Side, fold},
    index::DeviceIndex,
};
use crate::memtable::Entry;

/// Stands for an input row that is not wanted.
const LEFT_OUT: u32 = u32::MAX;

/// Which rows are wanted.
pub(super) struct Wanted<'a> {
    /// Empty: every device.
    pub(super) devices: &'a [DeviceKey],
    /// Milliseconds, the end exclusive; `None`: every time.
    pub(super) times: Option<Range<i64>>,
}

impl Wanted<'_> {
    pub(super) const ALL: Wanted<'static> = Wanted {
        devices: &[],
        times: None,
    };

    fn has_time(&self, time_ms: i64) -> bool {
        self.times
            .as_ref()
            .is_none_or(|times| times.contains(&time_ms))
    }
}

pub(super) struct Run {
    entries: Vec<Arc<Entry>>,
    /// Input row `first_row[e] + r` is row `r` of entry `e`.
    first_row: Vec<usize>,
    /// The row of the run that an input row went to, or [`LEFT_OUT`].
    row_of: Vec<u32>,
    pub(super) index: DeviceIndex,
    pub(super) times: Vec<i64>,
    /// The greatest commit among each row's cells.
    pub(super) base: Vec<u64>,
    /// Where each point's columns are: (entry, column), in order of commit.
    pub(super) points: BTreeMap<ElementName, (Storage, Vec<(usize, usize)>)>,
    /// Rows that several input rows went to.
    shared: usize,
}

/// Two input cells that met: (entry, column, value index) of the standing and of the newcomer.
pub(super) struct Meeting<'a> {
    pub(super) row: usize,
    pub(super) standing: At<'a>,
    pub(super) standing_rule: Rule,
    pub(super) newcomer: At<'a>,
    pub(super) outcome: Outcome,
}

impl Meeting<'_> {
    /// A duplicate whatever older segments hold.
    pub(super) fn is_duplicate_for_sure(&self) -> bool {
        self.outcome.is_duplicate()
            && self.standing_rule.is_absolute()
            && self.newcomer.rule() == Rule::Last
    }
}

#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    sequence: u64,
    column: &'a Column,
    index: usize,
}

impl At<'_> {
    fn side(&self) -> Side {
        Side {
            rule: self.rule(),
            quality: self.quality(),
            order: self.sequence,
        }
    }

    fn rule(&self) -> Rule {
        self.column.policy.into()
    }

    fn quality(&self) -> u8 {
        self.column.quality_of(self.index)
    }

    fn same(&self, other: &Self) -> bool {
        self.quality() == other.quality()
            && same_value(
                &self.column.values,
                self.index,
                &other.column.values,
                other.index,
            )
    }

    pub(super) fn version(&self) -> Version {
        Version {
            sequence: self.sequence,
            rule: self.rule(),
            quality: self.quality(),
            cell: self.column.values.cell(self.index),
        }
    }
}

impl Run {
    /// Sorts rows; entries are taken in the order of commits, and of the slice within one.
    ///
    /// # Errors
    /// The first point that two entries give in different storages.
    pub(super) fn new(
        mut entries: Vec<Arc<Entry>>,
        wanted: &Wanted<'_>,
    ) -> Result<Self, StorageClash> {
        entries.sort_by_key(|entry| (entry.order, entry.sequence));
        let points = points_of(&entries)?;
        let (sorted, devices, first_row, input_rows) = sort_rows(&entries, wanted);
        let mut run = Self {
            entries,
            first_row,
            row_of: vec![LEFT_OUT; input_rows],
            index: DeviceIndex::default(),
            times: Vec::with_capacity(sorted.len()),
            base: Vec::new(),
            points,
            shared: 0,
        };
        let mut last = None;
        for (rank, time_ms, input) in sorted {
            if last == Some((rank, time_ms)) {
                run.shared += 1;
            } else {
                last = Some((rank, time_ms));
                run.index.push(&devices[rank as usize], time_ms);
                run.times.push(time_ms);
            }
            run.row_of[input as usize] = index_u32(run.times.len() - 1);
        }
        run.base = run.bases();
        Ok(run)
    }

    pub(super) fn rows(&self) -> usize {
        self.times.len()
    }

    /// The first and the last commit.
    pub(super) fn sequences(&self) -> Option<(u64, u64)> {
        let sequences = self.entries.iter().map(|entry| entry.sequence.0);
        Some((sequences.clone().min()?, sequences.max()?))
    }

    pub(super) fn device(&self, row: usize) -> &DeviceKey {
        let at = self
            .index
            .0
            .partition_point(|stretch| stretch.rows.end <= row);
        &self.index.0[at].device
    }

    /// Whether any row joins several of the memtable's.
    pub(super) fn has_shared_rows(&self) -> bool {
        self.shared > 0
    }

    /// Whether any cell of a point may have a rule of its own.
    pub(super) fn has_rules(&self, point: &ElementName) -> bool {
        let mut columns = self.columns(point);
        self.shared > 0 || columns.any(|(_, _, c)| Rule::from(c.policy) != Rule::Last)
    }

    pub(super) fn has_quality(&self, point: &ElementName) -> bool {
        self.columns(point)
            .any(|(_, _, column)| column.quality.is_some())
    }

    /// The cells of a point in a stretch of rows, or `None` where there are none. `met` sees every
    /// pair of cells that meet, in order of commit per cell.
    pub(super) fn cells(
        &self,
        point: &ElementName,
        rows: Range<usize>,
        met: impl FnMut(Meeting<'_>),
    ) -> Option<Cells> {
        let slots = self.fold(point, &rows, met);
        if slots.at.iter().all(Option::is_none) {
            return None;
        }
        let (storage, _) = self.points.get(point)?;
        let quality: Vec<u8> = slots
            .at
            .iter()
            .map(|at| at.map_or(NO_QUALITY, |at| at.quality()))
            .collect();
        let differs = |(at, base): (&Option<At<'_>>, &u64)| {
            at.map(|at| at.sequence).filter(|sequence| sequence != base)
        };
        let base = &self.base[rows];
        let sequence: UInt64Array = slots.at.iter().zip(base).map(differs).collect();
        let rules: Option<UInt8Array> = slots
            .rules
            .map(|rules| rules.into_iter().map(Rule::to_file).collect());
        Some(Cells {
            values: typed(*storage, &slots.at),
            quality: quality
                .iter()
                .any(|quality| *quality != NO_QUALITY)
                .then(|| {
                    quality
                        .iter()
                        .map(|q| (*q != NO_QUALITY).then_some(*q))
                        .collect()
                }),
            sequence: has_any(&sequence).then_some(sequence),
            rules,
        })
    }

    fn columns(&self, point: &ElementName) -> impl Iterator<Item = (usize, u64, &Column)> {
        let places = self
            .points
            .get(point)
            .map_or(&[][..], |(_, places)| places.as_slice());
        places.iter().map(|(entry, column)| {
            let at = &self.entries[*entry];
            (*entry, at.order.0, &at.batch.columns[*column])
        })
    }

    fn fold<'a>(
        &'a self,
        point: &ElementName,
        rows: &Range<usize>,
        mut met: impl FnMut(Meeting<'a>),
    ) -> Slots<'a> {
        let mut slots = Slots {
            at: vec![None; rows.len()],
            rules: None,
        };
        for (entry, sequence, column) in self.columns(point) {
            for index in 0..column.values.len() {
                let row = self.row_of[self.first_row[entry] + column.row_of(index)] as usize;
                if !rows.contains(&row) {
                    continue;
                }
                let newcomer = At {
                    sequence,
                    column,
                    index,
                };
                let slot = row - rows.start;
                let Some(standing) = slots.at[slot] else {
                    slots.set(slot, newcomer, newcomer.rule());
                    continue;
                };
                let standing_rule = slots.rule(slot, standing);
                let stands = Side {
                    rule: standing_rule,
                    ..standing.side()
                };
                let (outcome, rule) = fold(stands, newcomer.side(), standing.same(&newcomer));
                met(Meeting {
                    row,
                    standing,
                    standing_rule,
                    newcomer,
                    outcome,
                });
                let stays = if outcome.newcomer_stands() {
                    newcomer
                } else {
                    standing
                };
                slots.set(slot, stays, rule);
            }
        }
        slots
    }

    fn bases(&self) -> Vec<u64> {
        let mut base = vec![0; self.rows()];
        if self.shared == 0 {
            // Every row is of one commit: no need to fold every point to know it.
            for (entry, first) in self.entries.iter().zip(&self.first_row) {
                for row in &self.row_of[*first..first + entry.batch.rows()] {
                    if *row != LEFT_OUT {
                        base[*row as usize] = entry.order.0;
                    }
                }
            }
            return base;
        }
        for point in self.points.keys() {
            let slots = self.fold(point, &(0..self.rows()), |_| {});
            for (base, at) in base.iter_mut().zip(&slots.at) {
                *base = at.map_or(*base, |at| at.sequence.max(*base));
            }
        }
        base
    }
}

/// A point that came in two storages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StorageClash {
    pub(super) point: ElementName,
    pub(super) stored: Storage,
    pub(super) given: Storage,
}

/// What stands in each row of a stretch so far.
struct Slots<'a> {
    at: Vec<Option<At<'a>>>,
    /// `None` while every rule is [`Rule::Last`].
    rules: Option<Vec<Rule>>,
}

impl<'a> Slots<'a> {
    fn rule(&self, slot: usize, standing: At<'a>) -> Rule {
        self.rules
            .as_ref()
            .map_or_else(|| standing.rule(), |rules| rules[slot])
    }

    fn set(&mut self, slot: usize, at: At<'a>, rule: Rule) {
        self.at[slot] = Some(at);
        if self.rules.is_none() && rule != Rule::Last {
            self.rules = Some(vec![Rule::Last; self.at.len()]);
        }
        if let Some(rules) = &mut self.rules {
            rules[slot] = rule;
        }
    }
}

type Points = BTreeMap<ElementName, (Storage, Vec<(usize, usize)>)>;

fn points_of(entries: &[Arc<Entry>]) -> Result<Points, StorageClash> {
    let mut points = Points::new();
    for (entry_at, entry) in entries.iter().enumerate() {
        for (column_at, column) in entry.batch.columns.iter().enumerate() {
            let given = column.values.storage();
            let (stored, places) = points
                .entry(column.point.clone())
                .or_insert_with(|| (given, Vec::new()));
            if *stored != given {
                return Err(StorageClash {
                    point: column.point.clone(),
                    stored: *stored,
                    given,
                });
            }
            places.push((entry_at, column_at));
        }
    }
    Ok(points)
}

type SortedRows = Vec<(u32, i64, u32)>;

/// (rank of the device, time, input row) of each wanted row, sorted; the devices by rank; the first
/// input row of each entry; and how many input rows there are.
fn sort_rows(
    entries: &[Arc<Entry>],
    wanted: &Wanted<'_>,
) -> (SortedRows, Vec<DeviceKey>, Vec<usize>, usize) {
    let wanted_devices: HashSet<&DeviceKey> = wanted.devices.iter().collect();
    let mut ranks: HashMap<&DeviceKey, u32> = HashMap::new();
    for entry in entries {
        for device in &entry.batch.devices {
            if wanted_devices.is_empty() || wanted_devices.contains(device) {
                ranks.insert(device, 0);
            }
        }
    }
    let mut devices: Vec<&DeviceKey> = ranks.keys().copied().collect();
    devices.sort_unstable();
    for (rank, device) in devices.iter().enumerate() {
        ranks.insert(device, index_u32(rank));
    }
    let mut first_row = Vec::with_capacity(entries.len());
    let mut input_rows = 0;
    let mut sorted = Vec::new();
    for entry in entries {
        first_row.push(input_rows);
        let batch = &entry.batch;
        let of_batch: Vec<Option<u32>> = batch
            .devices
            .iter()
            .map(|device| ranks.get(device).copied())
            .collect();
        for (row, (device, time_ms)) in batch.row_device.iter().zip(&batch.row_time).enumerate() {
            if let Some(rank) = of_batch[*device as usize]
                && wanted.has_time(*time_ms)
            {
                sorted.push((rank, *time_ms, index_u32(input_rows + row)));
            }
        }
        input_rows += batch.rows();
    }
    sorted.sort_unstable();
    (
        sorted,
        devices.into_iter().cloned().collect(),
        first_row,
        input_rows,
    )
}

fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a memtable is bounded far below 2^32 rows")
}

fn has_any(array: &UInt64Array) -> bool {
    use arrow_array::Array;
    array.null_count() < array.len()
}

fn same_value(a: &Values, at: usize, b: &Values, b_at: usize) -> bool {
    match (a, b) {
        (Values::Bool(a), Values::Bool(b)) => a[at] == b[b_at],
        (Values::Int(a), Values::Int(b)) => a[at] == b[b_at],
        (Values::Long(a), Values::Long(b)) => a[at] == b[b_at],
        (Values::Float(a), Values::Float(b)) => a[at].to_bits() == b[b_at].to_bits(),
        (Values::Double(a), Values::Double(b)) => a[at].to_bits() == b[b_at].to_bits(),
        (Values::Text(a), Values::Text(b)) => a[at] == b[b_at],
        _ => false,
    }
}

fn typed(storage: Storage, at: &[Option<At<'_>>]) -> Typed {
    macro_rules! gather {
        ($variant:ident, $array:ty, $get:expr) => {
            Typed::$variant(
                at.iter()
                    .map(|at| {
                        at.and_then(|at| match &at.column.values {
                            Values::$variant(values) => Some($get(&values[at.index])),
                            _ => None,
                        })
                    })
                    .collect::<$array>(),
            )
        };
    }
    match storage {
        Storage::Bool => gather!(Bool, BooleanArray, |x: &bool| *x),
        Storage::Int => gather!(Int, Int32Array, |x: &i32| *x),
        Storage::Long => gather!(Long, Int64Array, |x: &i64| *x),
        Storage::Float => gather!(Float, Float32Array, |x: &f32| *x),
        Storage::Double => gather!(Double, Float64Array, |x: &f64| *x),
        Storage::Text => {
            let text = |at: &Option<At<'_>>| {
                at.as_ref()
                    .and_then(|at| match at.column.values.cell(at.index) {
                        Cell::Text(text) => Some(text),
                        _ => None,
                    })
            };
            Typed::Text(at.iter().map(text).collect::<StringArray>())
        }
    }
}
