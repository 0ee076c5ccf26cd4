//! Entries of the memtable as one sorted run of rows: what a flush writes and a read joins with
//! segments. One row per (device, time); columns are made a point and a stretch of rows at a time,
//! so that sparse entries never cost rows × points of memory.
//!
//! Most rows have one input only: their cells are put straight where they belong. Rows that several
//! inputs go to are folded apart, once, when the run is made.

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow_array::{
    BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray, UInt8Array,
    UInt64Array,
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use backtide_model::{Column, DeviceKey, ElementName, NO_QUALITY, Presence, Storage, Values};
use foldhash::fast::RandomState;

use super::{
    cells::{Cells, Typed, Version},
    fold::{FirstRefusal, Outcome, Rule, Side, fold},
    index::DeviceIndex,
};
use crate::memtable::Entry;

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
    /// In order of commit; each has an input at least.
    entries: Vec<Arc<Entry>>,
    /// Entry by entry.
    inputs: Vec<Input>,
    /// Entry `e` has `inputs[first_input[e]..first_input[e + 1]]`.
    first_input: Vec<usize>,
    pub(super) index: DeviceIndex,
    pub(super) times: Vec<i64>,
    /// The greatest commit among each row's cells.
    pub(super) base: Vec<u64>,
    /// Sorted by name.
    pub(super) points: Vec<RunPoint>,
    /// Inputs that share their row: by row, then in order of commit.
    shared: Vec<SharedInput>,
    refusals: FirstRefusal,
}

/// A row of an entry that is wanted, and the row of the run that it goes to.
#[derive(Clone, Copy)]
struct Input {
    row: u32,
    to: u32,
}

#[derive(Clone, Copy)]
struct SharedInput {
    to: u32,
    entry: u32,
    row: u32,
}

/// Where a point's columns are, and what stands in the rows that several inputs share.
pub(super) struct RunPoint {
    pub(super) name: ElementName,
    pub(super) storage: Storage,
    /// In order of commit.
    places: Vec<Place>,
    /// Every row has a value.
    is_full: bool,
    pub(super) has_quality: bool,
    /// Whether any cell has a rule of its own.
    pub(super) has_rules: bool,
    /// Whether any cell is of another commit than its row.
    pub(super) has_sequences: bool,
    /// By row.
    stands: Vec<Stand>,
}

#[derive(Clone, Copy)]
struct Place {
    entry: u32,
    column: u32,
}

/// The version that stands in a shared row.
struct Stand {
    to: u32,
    place: Place,
    index: u32,
    rule: Rule,
}

/// Two input cells that met: the standing one and the newcomer.
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
    place: Place,
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
        refusals: FirstRefusal,
    ) -> Result<Self, StorageClash> {
        entries.sort_by_key(|entry| (entry.order, entry.sequence));
        let Inputs {
            entries,
            inputs,
            first_input,
            times,
            devices,
            of_device,
        } = inputs_of(entries, wanted);
        let points = points_of(&entries)?;
        let mut run = Self {
            entries,
            inputs,
            first_input,
            index: DeviceIndex::default(),
            times: Vec::with_capacity(times.len()),
            base: Vec::new(),
            points,
            shared: Vec::new(),
            refusals,
        };
        run.sort(&times, devices, &of_device);
        run.fold_shared();
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

    /// The cells of a point in a stretch of rows, or `None` where there are none.
    pub(super) fn cells(&self, point: &ElementName, rows: Range<usize>) -> Option<Cells> {
        let known = self.point(point)?;
        let has = if known.is_full {
            None
        } else {
            let mut has = vec![false; rows.len()];
            self.scatter(known, &rows, |slot, _, _| has[slot] = true);
            if !has.contains(&true) {
                return None;
            }
            Some(NullBuffer::from(has))
        };
        let from = |stand: &Stand| stand.to as usize - rows.start;
        let stands = known.stands_in(&rows);
        let quality = known.has_quality.then(|| {
            let mut quality = vec![None; rows.len()];
            let of = |column: &Column, index| {
                Some(column.quality_of(index)).filter(|quality| *quality != NO_QUALITY)
            };
            self.scatter(known, &rows, |slot, column, index| {
                quality[slot] = of(column, index);
            });
            for stand in stands {
                quality[from(stand)] = of(self.column(stand.place), stand.index as usize);
            }
            UInt8Array::from(quality)
        });
        let sequence = known.has_sequences.then(|| {
            let mut sequence = vec![None; rows.len()];
            for stand in stands {
                let own = self.entries[stand.place.entry as usize].order.0;
                sequence[from(stand)] = (own != self.base[stand.to as usize]).then_some(own);
            }
            UInt64Array::from(sequence)
        });
        let rules = known.has_rules.then(|| {
            let mut rules = vec![None; rows.len()];
            self.scatter(known, &rows, |slot, column, _| {
                rules[slot] = Rule::from(column.policy).to_file();
            });
            for stand in stands {
                rules[from(stand)] = stand.rule.to_file();
            }
            UInt8Array::from(rules)
        });
        Some(Cells {
            values: self.values(known, &rows, has),
            quality,
            sequence,
            rules,
        })
    }

    /// Tells of every pair of cells of a point that meet, in order of commit per cell.
    pub(super) fn meetings(&self, point: &RunPoint, mut met: impl FnMut(Meeting<'_>)) {
        self.fold(point, &mut met);
    }

    fn point(&self, name: &ElementName) -> Option<&RunPoint> {
        let at = self
            .points
            .binary_search_by(|known| known.name.cmp(name))
            .ok()?;
        Some(&self.points[at])
    }

    fn column(&self, place: Place) -> &Column {
        &self.entries[place.entry as usize].batch.columns[place.column as usize]
    }

    fn inputs_of(&self, entry: u32) -> &[Input] {
        let entry = entry as usize;
        &self.inputs[self.first_input[entry]..self.first_input[entry + 1]]
    }

    /// Gives each input its row: sorted by device and time, those of one row in order of commit.
    fn sort(&mut self, times: &[i64], devices: Vec<DeviceKey>, of_device: &[u32]) {
        let mut counts = vec![0_usize; devices.len() + 1];
        for rank in of_device {
            counts[*rank as usize + 1] += 1;
        }
        for rank in 0..devices.len() {
            counts[rank + 1] += counts[rank];
        }
        let mut sorted = vec![(0_i64, 0_u32); times.len()];
        let mut next = counts.clone();
        for (input, (rank, time_ms)) in of_device.iter().zip(times).enumerate() {
            let at = &mut next[*rank as usize];
            sorted[*at] = (*time_ms, index_u32(input));
            *at += 1;
        }
        let entry_of = |input: u32| {
            let at = self
                .first_input
                .partition_point(|first| *first <= input as usize);
            index_u32(at - 1)
        };
        let shared = |input: u32, to: u32, row: u32| SharedInput {
            to,
            entry: entry_of(input),
            row,
        };
        for (device, span) in devices.into_iter().zip(counts.windows(2)) {
            let sorted = &mut sorted[span[0]..span[1]];
            // Stable, and quick where history came in order.
            sorted.sort_by_key(|(time_ms, _)| *time_ms);
            let first_row = self.times.len();
            let mut last: Option<u32> = None;
            for (time_ms, input) in sorted.iter() {
                let row = self.inputs[*input as usize].row;
                match last.filter(|_| self.times.last() == Some(time_ms)) {
                    None => self.times.push(*time_ms),
                    Some(before) => {
                        let to = index_u32(self.times.len() - 1);
                        if self.shared.last().is_none_or(|shared| shared.to != to) {
                            let first = self.inputs[before as usize].row;
                            self.shared.push(shared(before, to, first));
                        }
                        self.shared.push(shared(*input, to, row));
                    }
                }
                self.inputs[*input as usize].to = index_u32(self.times.len() - 1);
                last = Some(*input);
            }
            self.index.push(&device, &self.times[first_row..]);
        }
    }

    /// Finds what stands in shared rows, and the commit of each row.
    fn fold_shared(&mut self) {
        let mut base = vec![0; self.rows()];
        for (entry, at) in self.entries.iter().zip(0..) {
            for input in self.inputs_of(at) {
                base[input.to as usize] = entry.order.0;
            }
        }
        let stands: Vec<Vec<Stand>> = self
            .points
            .iter()
            .map(|point| self.fold(point, &mut |_| {}))
            .collect();
        let sequence = |stand: &Stand| self.entries[stand.place.entry as usize].order.0;
        for stand in stands.iter().flatten() {
            base[stand.to as usize] = 0;
        }
        for stand in stands.iter().flatten() {
            let base = &mut base[stand.to as usize];
            *base = sequence(stand).max(*base);
        }
        let abouts: Vec<(bool, bool)> = stands
            .iter()
            .map(|stands| {
                let has_rules = stands.iter().any(|stand| stand.rule != Rule::Last);
                let is_own = |stand: &Stand| sequence(stand) != base[stand.to as usize];
                (has_rules, stands.iter().any(is_own))
            })
            .collect();
        for ((point, stands), (has_rules, has_sequences)) in
            self.points.iter_mut().zip(stands).zip(abouts)
        {
            point.has_rules |= has_rules;
            point.has_sequences = has_sequences;
            point.stands = stands;
        }
        self.base = base;
    }

    fn fold(&self, point: &RunPoint, met: &mut dyn FnMut(Meeting<'_>)) -> Vec<Stand> {
        let mut stands = Vec::new();
        for inputs in self.shared.chunk_by(|a, b| a.to == b.to) {
            let mut stands_here: Option<(At<'_>, Rule)> = None;
            for newcomer in inputs.iter().filter_map(|input| self.at(point, *input)) {
                let Some((standing, standing_rule)) = stands_here else {
                    stands_here = Some((newcomer, newcomer.rule()));
                    continue;
                };
                let side = Side {
                    rule: standing_rule,
                    ..standing.side()
                };
                let (outcome, rule) = fold(
                    side,
                    newcomer.side(),
                    standing.same(&newcomer),
                    self.refusals,
                );
                met(Meeting {
                    row: inputs[0].to as usize,
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
                stands_here = Some((stays, rule));
            }
            stands.extend(stands_here.map(|(at, rule)| Stand {
                to: inputs[0].to,
                place: at.place,
                index: index_u32(at.index),
                rule,
            }));
        }
        stands
    }

    /// The cell of a shared input, where it has one.
    fn at(&self, point: &RunPoint, input: SharedInput) -> Option<At<'_>> {
        let place = if point.places.len() == self.entries.len() {
            point.places[input.entry as usize]
        } else {
            let at = point
                .places
                .binary_search_by_key(&input.entry, |place| place.entry);
            point.places[at.ok()?]
        };
        let column = self.column(place);
        let index = match &column.presence {
            Presence::All => input.row as usize,
            Presence::Some(rows) => rows.binary_search(&input.row).ok()?,
        };
        Some(At {
            sequence: self.entries[input.entry as usize].order.0,
            place,
            column,
            index,
        })
    }

    /// Every cell of a point that goes to some rows: slot among them, column, index. In order of
    /// commit, but rows that several inputs share are the caller's to mend.
    fn scatter<'a>(
        &'a self,
        point: &RunPoint,
        rows: &Range<usize>,
        mut put: impl FnMut(usize, &'a Column, usize),
    ) {
        self.scatter_columns(point, |inputs, column| {
            each_cell(inputs, column, rows, |slot, index| put(slot, column, index));
        });
    }

    fn scatter_columns<'a>(
        &'a self,
        point: &RunPoint,
        mut each: impl FnMut(&'a [Input], &'a Column),
    ) {
        for place in &point.places {
            each(self.inputs_of(place.entry), self.column(*place));
        }
    }

    fn values(&self, point: &RunPoint, rows: &Range<usize>, has: Option<NullBuffer>) -> Typed {
        let stands = point.stands_in(rows);
        macro_rules! gather {
            ($variant:ident, $none:expr, $get:expr) => {{
                let mut values = vec![$none; rows.len()];
                self.scatter_columns(point, |inputs, column| {
                    if let Values::$variant(from) = &column.values {
                        each_cell(inputs, column, rows, |slot, index| {
                            values[slot] = $get(&from[index]);
                        });
                    }
                });
                for stand in stands {
                    if let Values::$variant(from) = &self.column(stand.place).values {
                        values[stand.to as usize - rows.start] = $get(&from[stand.index as usize]);
                    }
                }
                values
            }};
        }
        match point.storage {
            Storage::Bool => {
                let values = gather!(Bool, false, |x: &bool| *x);
                Typed::Bool(BooleanArray::new(BooleanBuffer::from(values), has))
            }
            Storage::Int => Typed::Int(Int32Array::new(gather!(Int, 0, |x: &i32| *x).into(), has)),
            Storage::Long => {
                Typed::Long(Int64Array::new(gather!(Long, 0, |x: &i64| *x).into(), has))
            }
            Storage::Float => {
                let values = gather!(Float, 0.0, |x: &f32| *x);
                Typed::Float(Float32Array::new(values.into(), has))
            }
            Storage::Double => {
                let values = gather!(Double, 0.0, |x: &f64| *x);
                Typed::Double(Float64Array::new(values.into(), has))
            }
            Storage::Text => {
                fn text(text: &str) -> Option<&str> {
                    Some(text)
                }
                let values: Vec<Option<&str>> = gather!(Text, None, text);
                Typed::Text(StringArray::from(values))
            }
        }
    }
}

impl RunPoint {
    fn stands_in(&self, rows: &Range<usize>) -> &[Stand] {
        let from = self
            .stands
            .partition_point(|stand| (stand.to as usize) < rows.start);
        let to = self
            .stands
            .partition_point(|stand| (stand.to as usize) < rows.end);
        &self.stands[from..to]
    }
}

/// The cells of a column that go to some rows: slot among them, index in the column.
fn each_cell(
    inputs: &[Input],
    column: &Column,
    rows: &Range<usize>,
    mut put: impl FnMut(usize, usize),
) {
    let slot = |input: &Input| {
        let slot = (input.to as usize).wrapping_sub(rows.start);
        (slot < rows.len()).then_some(slot)
    };
    match &column.presence {
        Presence::All => {
            for input in inputs {
                if let Some(slot) = slot(input) {
                    put(slot, input.row as usize);
                }
            }
        }
        Presence::Some(present) => {
            let mut index = 0;
            for input in inputs {
                while present.get(index).is_some_and(|row| *row < input.row) {
                    index += 1;
                }
                if present.get(index) == Some(&input.row)
                    && let Some(slot) = slot(input)
                {
                    put(slot, index);
                }
            }
        }
    }
}

/// A point that came in two storages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StorageClash {
    pub(super) point: ElementName,
    pub(super) stored: Storage,
    pub(super) given: Storage,
}

/// Where every point is. Neighbours mostly have the same points in the same order, so a column is
/// looked for first where it was in the entry before.
fn points_of(entries: &[Arc<Entry>]) -> Result<Vec<RunPoint>, StorageClash> {
    let mut points: Vec<RunPoint> = Vec::new();
    let mut numbers: HashMap<&ElementName, usize, RandomState> = HashMap::default();
    let mut before: Vec<usize> = Vec::new();
    for (entry, entry_at) in entries.iter().zip(0..) {
        for (at, column) in entry.batch.columns.iter().enumerate() {
            let given = column.values.storage();
            let guess = before.get(at).copied();
            let number = guess.filter(|number| points[*number].name == column.point);
            let number = number.unwrap_or_else(|| {
                *numbers.entry(&column.point).or_insert_with(|| {
                    points.push(RunPoint {
                        name: column.point.clone(),
                        storage: given,
                        places: Vec::new(),
                        is_full: true,
                        has_quality: false,
                        has_rules: false,
                        has_sequences: false,
                        stands: Vec::new(),
                    });
                    points.len() - 1
                })
            });
            match before.get_mut(at) {
                Some(known) => *known = number,
                None => before.push(number),
            }
            let known = &mut points[number];
            if known.storage != given {
                return Err(StorageClash {
                    point: column.point.clone(),
                    stored: known.storage,
                    given,
                });
            }
            known.is_full &= column.presence == Presence::All;
            known.has_quality |= column.quality.is_some();
            known.has_rules |= Rule::from(column.policy) != Rule::Last;
            known.places.push(Place {
                entry: entry_at,
                column: index_u32(at),
            });
        }
    }
    for point in &mut points {
        point.is_full &= point.places.len() == entries.len();
    }
    points.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(points)
}

/// The wanted rows of entries.
struct Inputs {
    /// Those that have one.
    entries: Vec<Arc<Entry>>,
    inputs: Vec<Input>,
    first_input: Vec<usize>,
    /// Of each input.
    times: Vec<i64>,
    /// Sorted.
    devices: Vec<DeviceKey>,
    /// Of each input: position of its device.
    of_device: Vec<u32>,
}

fn inputs_of(entries: Vec<Arc<Entry>>, wanted: &Wanted<'_>) -> Inputs {
    /// Stands for a device that is not wanted.
    const LEFT_OUT: u32 = u32::MAX;
    let mut numbers: HashMap<DeviceKey, u32, RandomState> = HashMap::default();
    numbers.extend(wanted.devices.iter().cloned().zip(0..));
    let mut all = Inputs {
        entries: Vec::with_capacity(entries.len()),
        inputs: Vec::new(),
        first_input: vec![0],
        times: Vec::new(),
        devices: wanted.devices.to_vec(),
        of_device: Vec::new(),
    };
    let mut of_batch: Vec<u32> = Vec::new();
    for entry in entries {
        let batch = &entry.batch;
        of_batch.clear();
        for device in &batch.devices {
            of_batch.push(match numbers.get(device) {
                Some(number) => *number,
                None if wanted.devices.is_empty() => {
                    let number = index_u32(all.devices.len());
                    all.devices.push(device.clone());
                    numbers.insert(device.clone(), number);
                    number
                }
                None => LEFT_OUT,
            });
        }
        for ((device, time_ms), row) in batch.row_device.iter().zip(&batch.row_time).zip(0..) {
            let number = of_batch[*device as usize];
            if number != LEFT_OUT && wanted.has_time(*time_ms) {
                all.inputs.push(Input { row, to: 0 });
                all.times.push(*time_ms);
                all.of_device.push(number);
            }
        }
        if all.first_input.last() != Some(&all.inputs.len()) {
            all.first_input.push(all.inputs.len());
            all.entries.push(entry);
        }
    }
    rank(&mut all.devices, &mut all.of_device);
    all
}

/// Sorts devices, and changes their numbers accordingly.
fn rank(devices: &mut Vec<DeviceKey>, of_device: &mut [u32]) {
    let mut sorted: Vec<(DeviceKey, u32)> = std::mem::take(devices).into_iter().zip(0..).collect();
    sorted.sort_unstable();
    let mut ranks = vec![0_u32; sorted.len()];
    for ((_, number), rank) in sorted.iter().zip(0..) {
        ranks[*number as usize] = rank;
    }
    devices.extend(sorted.into_iter().map(|(device, _)| device));
    for number in of_device {
        *number = ranks[*number as usize];
    }
}

fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a memtable is bounded far below 2^32 rows")
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
