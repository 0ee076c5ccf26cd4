//! Thinning as pure functions over the values of a point in the order of device and event time.
//!
//! There are two of each: what a *read* shows, exactly, and what a *merge* may take off the disk, where
//! it sees enough to know. The law between them, tested below and in `tests/keep.rs`: what a read shows
//! is the same with and without what a merge may take.
//!
//! - Minute: a value is hidden by a later one of its minute. The greatest stays whatever came when, so
//!   a merge may take what is hidden at any time. (Under a rule by import only what also arrived no
//!   later than what hides it: else it would outlive that, and be shown.)
//! - Changes: a value is shown where the one before it in its day is another, or there is none. A merge
//!   takes what has an equal neighbour on *both* sides: first and last of each stretch of equal values
//!   stay. So a value that arrives late and falls into a stretch is shown, and after it the stretch goes
//!   on, at its last value at the latest; where nothing arrives late nothing is lost at all.

use std::collections::HashMap;

use arrow_array::{Array, BooleanArray, UInt8Array, cast::AsArray, types::UInt8Type};
use arrow_schema::ArrowError;
use backtide_model::{Cell, NO_QUALITY};

use super::{
    cells::{Typed, same_cell},
    keep::{Floor, PointKeep, Thin, Thinning, View},
    weave::Joined,
};

/// The values of a point in some rows.
pub(super) struct Column<'c> {
    /// Rank of the device, and time; ascending.
    keys: &'c [(u32, i64)],
    values: Typed,
    quality: Option<UInt8Array>,
    /// The commit of each value; of rows without one anything.
    sequences: Vec<u64>,
}

impl<'c> Column<'c> {
    pub(super) fn new(keys: &'c [(u32, i64)], joined: &Joined, bases: &[u64]) -> Option<Self> {
        Some(Self {
            keys,
            values: Typed::new(joined.values.as_ref())?,
            quality: joined
                .quality
                .as_ref()
                .map(|quality| quality.as_primitive::<UInt8Type>().clone()),
            sequences: joined.sequences.clone().unwrap_or_else(|| bases.to_vec()),
        })
    }

    fn has(&self, row: usize) -> bool {
        self.values.array().is_valid(row)
    }

    fn quality(&self, row: usize) -> u8 {
        match &self.quality {
            Some(quality) if quality.is_valid(row) => quality.value(row),
            _ => NO_QUALITY,
        }
    }

    fn same(&self, a: usize, b: usize) -> bool {
        self.values.same(a, &self.values, b) && self.quality(a) == self.quality(b)
    }

    /// The rows with a value that is not below a floor.
    fn above(&self, floor: Floor) -> Vec<bool> {
        let keys = self.keys.iter().zip(&self.sequences).enumerate();
        keys.map(|(row, ((_, time_ms), sequence))| {
            self.has(row) && floor.keeps(*time_ms, *sequence)
        })
        .collect()
    }
}

/// How a point is shown, with what must be remembered from rows to rows.
#[derive(Clone)]
pub(super) struct Shown {
    floor: Floor,
    stages: Vec<Stage>,
}

impl Shown {
    pub(super) fn new(keep: &PointKeep, view: View) -> Self {
        let mut stages: Vec<Stage> = keep.thin().into_iter().map(Stage::new).collect();
        let is_same = |kind| {
            let whole = |thin: Thin| thin.kind == kind && thin.before_ms == i64::MAX;
            keep.thin().is_some_and(whole)
        };
        match view {
            View::Thinned(kind) if !is_same(kind) => stages.push(Stage::new(Thin::all(kind))),
            View::Kept | View::Thinned(_) => {}
        }
        Self {
            floor: keep.floor(),
            stages,
        }
    }

    /// Whether everything is shown from `from_ms` on.
    pub(super) fn is_all(&self, from_ms: i64) -> bool {
        self.stages.is_empty() && self.floor.sequence.0 == 0 && self.floor.time_ms <= from_ms
    }

    pub(super) fn has(&self, kind: Thinning) -> bool {
        self.stages.iter().any(|stage| stage.thin.kind == kind)
    }

    /// Which of the values in some rows are hidden. The rows before these were shown by calls before; a
    /// minute is never parted between two calls.
    pub(super) fn hidden(&mut self, column: &Column<'_>) -> Vec<bool> {
        let mut shown = column.above(self.floor);
        for stage in &mut self.stages {
            stage.thin(column, &mut shown);
        }
        let hidden = shown.iter().enumerate();
        hidden
            .map(|(row, shown)| column.has(row) && !shown)
            .collect()
    }

    /// The rows from now on are of later devices.
    pub(super) fn only(&mut self, rank: u32) {
        for stage in &mut self.stages {
            stage.last.retain(|of, _| *of == rank);
        }
    }
}

/// One thinning under way.
#[derive(Clone)]
struct Stage {
    thin: Thin,
    /// Of changes: the last value of each device, by rank.
    last: HashMap<u32, Last>,
}

#[derive(Clone)]
struct Last {
    window: i64,
    cell: Cell,
    quality: u8,
}

impl Stage {
    fn new(thin: Thin) -> Self {
        Self {
            thin,
            last: HashMap::new(),
        }
    }

    fn thin(&mut self, column: &Column<'_>, shown: &mut [bool]) {
        match self.thin.kind {
            Thinning::Minute => last_of_minutes(self.thin, column, shown),
            Thinning::Changes => self.changes(column, shown),
        }
    }

    fn changes(&mut self, column: &Column<'_>, shown: &mut [bool]) {
        let mut before: Option<(u32, i64, usize)> = None;
        for (row, shown) in shown.iter_mut().enumerate() {
            let (rank, time_ms) = column.keys[row];
            let Some(window) = self.thin.window(time_ms).filter(|_| *shown) else {
                continue;
            };
            let is_same = match before {
                Some((of, in_window, at)) if of == rank => {
                    in_window == window && column.same(at, row)
                }
                _ => self.last.get(&rank).is_some_and(|last| {
                    last.window == window
                        && last.quality == column.quality(row)
                        && same_cell(&last.cell, &column.values.cell(row))
                }),
            };
            *shown = !is_same;
            if let Some((of, in_window, at)) = before.filter(|(of, _, _)| *of != rank) {
                self.remember(column, of, in_window, at);
            }
            before = Some((rank, window, row));
        }
        if let Some((of, in_window, at)) = before {
            self.remember(column, of, in_window, at);
        }
    }

    fn remember(&mut self, column: &Column<'_>, rank: u32, window: i64, row: usize) {
        let (cell, quality) = (column.values.cell(row), column.quality(row));
        self.last.insert(
            rank,
            Last {
                window,
                cell,
                quality,
            },
        );
    }
}

fn last_of_minutes(thin: Thin, column: &Column<'_>, shown: &mut [bool]) {
    let mut after = None;
    for row in (0..shown.len()).rev() {
        let (rank, time_ms) = column.keys[row];
        let Some(window) = thin.window(time_ms).filter(|_| shown[row]) else {
            continue;
        };
        shown[row] = after != Some((rank, window));
        after = Some((rank, window));
    }
}

/// Which values a merge of the oldest segments may take off the disk: those below the floor, and those
/// that a neighbour within these rows makes superfluous. `is_settled` is told of a device and the ends
/// of a window, both inclusive: whether nothing that is newer than what is merged falls into it.
pub(super) fn droppable(
    column: &Column<'_>,
    keep: &PointKeep,
    is_settled: impl Fn(u32, (i64, i64)) -> bool,
) -> Vec<bool> {
    let mut stays = column.above(keep.floor());
    match keep.thin() {
        None => {}
        Some(thin) if thin.kind == Thinning::Minute => {
            minutes_to_drop(thin, keep.floor().sequence.0 > 0, column, &mut stays);
        }
        Some(thin) => repeats_to_drop(thin, column, &mut stays, is_settled),
    }
    let stays = stays.iter().enumerate();
    stays
        .map(|(row, stays)| column.has(row) && !stays)
        .collect()
}

fn minutes_to_drop(thin: Thin, by_import: bool, column: &Column<'_>, stays: &mut [bool]) {
    // The window, and the last commit of what hides the others of it.
    let mut after: Option<(u32, i64, u64)> = None;
    for row in (0..stays.len()).rev() {
        let (rank, time_ms) = column.keys[row];
        let Some(window) = thin.window(time_ms).filter(|_| stays[row]) else {
            continue;
        };
        let sequence = column.sequences[row];
        match after {
            Some((of, in_window, newest)) if (of, in_window) == (rank, window) => {
                stays[row] = by_import && sequence > newest;
                after = Some((rank, window, newest.max(sequence)));
            }
            _ => after = Some((rank, window, sequence)),
        }
    }
}

fn repeats_to_drop(
    thin: Thin,
    column: &Column<'_>,
    stays: &mut [bool],
    is_settled: impl Fn(u32, (i64, i64)) -> bool,
) {
    let window_of = |row: usize| {
        let (rank, time_ms) = column.keys[row];
        Some((rank, thin.window(time_ms)?))
    };
    let rows: Vec<usize> = (0..stays.len())
        .filter(|row| stays[*row] && window_of(*row).is_some())
        .collect();
    for rows in rows.chunk_by(|a, b| window_of(*a) == window_of(*b)) {
        let newest = rows.iter().map(|row| column.sequences[*row]).max();
        let Some((rank, window)) = window_of(rows[0]).filter(|_| newest < Some(thin.quiet.0))
        else {
            continue;
        };
        let first_ms = window * thin.kind.window_ms();
        if rows.len() < 3 || !is_settled(rank, (first_ms, first_ms + thin.kind.window_ms() - 1)) {
            continue;
        }
        for three in rows.windows(3) {
            let [before, row, next] = [three[0], three[1], three[2]];
            stays[row] = !(column.same(before, row) && column.same(row, next));
        }
    }
}

/// Takes hidden values out of a column.
pub(super) fn hide(joined: &mut Joined, hidden: &[bool], bases: &[u64]) -> Result<(), ArrowError> {
    if !hidden.contains(&true) {
        return Ok(());
    }
    let mask = BooleanArray::from(hidden.to_vec());
    joined.values = arrow_select::nullif::nullif(&joined.values, &mask)?;
    if let Some(quality) = &mut joined.quality {
        *quality = arrow_select::nullif::nullif(quality, &mask)?;
    }
    let sequences = joined.sequences.get_or_insert_with(|| bases.to_vec());
    for (sequence, hidden) in sequences.iter_mut().zip(hidden) {
        if *hidden {
            *sequence = 0;
        }
    }
    Ok(())
}
