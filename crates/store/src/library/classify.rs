//! Finds the duplicates and conflicts of new segments: each version is compared with the one that
//! stood before it, in order of commit, wherever the flushes cut.
//!
//! First a pass over keys alone (device, time) finds the rows that stand in more than one segment;
//! only those are then read. Nothing is rewritten.

use std::{collections::BTreeMap, sync::Arc};

use backtide_model::{DeviceKey, ElementName};

use super::{
    cells::{Cells, Version},
    chains::Chains,
    fault::FlushError,
    fold::{FirstRefusal, Outcome, Rule, Side, fold},
    scan::{Columns, Piece, SegmentScan, Slice, Slices, devices_of, pieces, prune},
    segment::Segment,
    weave::Weave,
};
use crate::ReadError;

/// Shared rows that are read and compared together.
const WINDOW_CELLS: usize = 4 << 20;
/// Conflicts handed on together.
const CONFLICTS: usize = 8_192;

/// Two different values at one identity.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) device: DeviceKey,
    pub(super) time_ms: i64,
    pub(super) point: ElementName,
    pub(super) loser: Version,
    pub(super) winner: Version,
}

/// Commits that said values again, and how many of them.
pub(super) type Repeats = BTreeMap<u64, u64>;

#[derive(Debug, Default)]
pub(super) struct Verdicts {
    pub(super) conflicts: Vec<Found>,
    pub(super) duplicates: Repeats,
}

/// Classifies the `fresh` segments of a product against the `older` ones, all classified, both in
/// order of commit.
pub(super) struct Pass<'a> {
    sources: Vec<Arc<Segment>>,
    /// Sources before this one are older.
    first_fresh: usize,
    /// Of each source; empty for older ones.
    chains: Vec<Chains>,
    devices: Vec<DeviceKey>,
    columns: Columns,
    verdicts: Verdicts,
    refusals: FirstRefusal,
    note: &'a mut dyn FnMut(Verdicts) -> Result<(), FlushError>,
}

/// A key that stands in several sources, and its row in each, oldest first.
struct Shared {
    rank: u32,
    time_ms: i64,
    rows: Vec<(usize, usize)>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        older: &[Arc<Segment>],
        fresh: &[(Arc<Segment>, Chains)],
        refusals: FirstRefusal,
        note: &'a mut dyn FnMut(Verdicts) -> Result<(), FlushError>,
    ) -> Self {
        let overlaps = |old: &Arc<Segment>| {
            fresh
                .iter()
                .any(|(new, _)| old.card.index.overlaps(&new.card.index))
        };
        let mut sources: Vec<_> = older.iter().filter(|old| overlaps(old)).cloned().collect();
        let first_fresh = sources.len();
        let mut chains = vec![Chains::default(); first_fresh];
        for (segment, chain) in fresh {
            sources.push(Arc::clone(segment));
            chains.push(chain.clone());
        }
        let mut points: Vec<ElementName> = fresh
            .iter()
            .flat_map(|(segment, _)| segment.points.keys().cloned())
            .collect();
        points.sort_unstable();
        points.dedup();
        let devices = devices_of(fresh.iter().map(|(segment, _)| segment.card.index.as_ref()));
        let columns = Columns {
            points: points.into(),
            sequences: true,
        };
        let verdicts = Verdicts::default();
        Self {
            sources,
            first_fresh,
            chains,
            devices,
            columns,
            verdicts,
            refusals,
            note,
        }
    }

    /// Whether it has to read anything at all.
    pub(super) fn is_cheap(&self) -> bool {
        let fresh = &self.sources[self.first_fresh..];
        let overlaps = |(at, a): (usize, &Arc<Segment>)| {
            fresh[at + 1..]
                .iter()
                .any(|b| a.card.index.overlaps(&b.card.index))
        };
        self.first_fresh == 0 && !fresh.iter().enumerate().any(overlaps)
    }

    pub(super) fn run(mut self) -> Result<(), FlushError> {
        if !self.is_cheap() {
            self.compare_shared()?;
        }
        self.replay_alone()?;
        self.hand_on(0)
    }

    fn compare_shared(&mut self) -> Result<(), FlushError> {
        let mut keys = Weave::new(self.key_scans()?, self.refusals)?;
        let window_rows = (WINDOW_CELLS / self.columns.points.len().max(1)).clamp(1_024, 65_536);
        let mut shared = Vec::new();
        let mut rows = 0;
        loop {
            let woven = keys.next(super::scan::SLICE_ROWS)?;
            if woven.rows() == 0 {
                break;
            }
            for (row, picks) in &woven.shared {
                let picked = woven.picks[*row];
                let row_in_source = |pick: &(usize, usize)| {
                    let slice = &woven.slices[pick.0];
                    (slice.source, slice.number(pick.1))
                };
                let in_sources: Vec<_> = picks.iter().map(row_in_source).collect();
                if in_sources
                    .last()
                    .is_some_and(|(source, _)| *source >= self.first_fresh)
                {
                    let slice = &woven.slices[picked.0];
                    rows += in_sources.len();
                    shared.push(Shared {
                        rank: slice.ranks[picked.1],
                        time_ms: slice.times[picked.1],
                        rows: in_sources,
                    });
                }
            }
            if rows >= window_rows {
                self.compare(&shared)?;
                shared.clear();
                rows = 0;
            }
        }
        self.compare(&shared)
    }

    /// The keys of every source; of older ones only where a fresh one could have the same.
    fn key_scans(&self) -> Result<Vec<Slices>, ReadError> {
        let mut span: Vec<Option<(i64, i64)>> = vec![None; self.devices.len()];
        for fresh in &self.sources[self.first_fresh..] {
            for stretch in &fresh.card.index.0 {
                let rank = self.devices.binary_search(&stretch.device);
                let span = &mut span[rank.expect("devices are those of the fresh segments")];
                let (first, last) = span.unwrap_or((i64::MAX, i64::MIN));
                *span = Some((first.min(stretch.first_ms), last.max(stretch.last_ms)));
            }
        }
        let nothing: Columns = Columns {
            points: [].into(),
            sequences: false,
        };
        let mut scans: Vec<Slices> = Vec::new();
        for (source, segment) in self.sources.iter().enumerate() {
            let ranks = 0..self.devices.len();
            let pieces = pieces(&segment.card.index, &self.devices, ranks, |rank| {
                span[rank as usize]
            });
            let pieces = prune(segment, &pieces);
            let scan = SegmentScan::new(Arc::clone(segment), source, pieces, nothing.clone())?;
            scans.push(Box::new(scan));
        }
        Ok(scans)
    }

    fn compare(&mut self, shared: &[Shared]) -> Result<(), FlushError> {
        let mut read = Vec::with_capacity(self.sources.len());
        for source in 0..self.sources.len() {
            let rows = shared.iter().flat_map(|shared| &shared.rows);
            let numbers = rows
                .filter(|(at, _)| *at == source)
                .map(|(_, number)| *number);
            read.push(Rows::read(&self.sources[source], &self.columns, numbers)?);
        }
        for shared in shared {
            let mut at = Vec::with_capacity(shared.rows.len());
            for (source, _) in &shared.rows {
                at.push((*source, read[*source].advance()));
            }
            let place = (self.devices[shared.rank as usize].clone(), shared.time_ms);
            for point in 0..self.columns.points.len() {
                self.compare_cell(&place, point, &at, &read);
            }
            self.hand_on(CONFLICTS)?;
        }
        Ok(())
    }

    /// Replays every version of a cell, from the oldest source to the newest.
    fn compare_cell(
        &mut self,
        place: &(DeviceKey, i64),
        point: usize,
        at: &[(usize, (usize, usize))],
        read: &[Rows],
    ) {
        let mut stands: Option<Stands<'_>> = None;
        let name = self.columns.points[point].clone();
        for (source, (slice, row)) in at {
            let slice = &read[*source].slices[*slice];
            let Some(cells) = slice.points[point].as_ref().filter(|cells| cells.has(*row)) else {
                continue;
            };
            let base = slice.base(*row);
            if *source < self.first_fresh {
                // Already classified: only what stands in the end matters.
                let cell = CellAt {
                    cells,
                    row: *row,
                    base,
                };
                stands = Some(Stands::older(stands, cell, self.refusals));
                continue;
            }
            match self.chains[*source].take(place, &name) {
                Some(versions) => {
                    for version in versions {
                        let newcomer = Stands::Version(version);
                        stands = Some(self.meet(place, &name, stands, newcomer));
                    }
                }
                None => {
                    let cell = CellAt {
                        cells,
                        row: *row,
                        base,
                    };
                    let newcomer = Stands::Cell(cell, cells.rule(*row));
                    stands = Some(self.meet(place, &name, stands, newcomer));
                }
            }
        }
    }

    /// What had several versions within one segment and stands nowhere else.
    fn replay_alone(&mut self) -> Result<(), FlushError> {
        for chains in std::mem::take(&mut self.chains) {
            for (place, points) in chains.0 {
                for (point, versions) in points {
                    let mut stands = None;
                    for version in versions {
                        stands = Some(self.meet(&place, &point, stands, Stands::Version(version)));
                    }
                }
                self.hand_on(CONFLICTS)?;
            }
        }
        Ok(())
    }

    fn meet<'c>(
        &mut self,
        place: &(DeviceKey, i64),
        point: &ElementName,
        standing: Option<Stands<'c>>,
        newcomer: Stands<'c>,
    ) -> Stands<'c> {
        let Some(standing) = standing else {
            return newcomer;
        };
        let same = standing.same(&newcomer);
        let (outcome, rule) = fold(standing.side(), newcomer.side(), same, self.refusals);
        let (loser, winner) = match outcome {
            Outcome::Duplicate => {
                *self
                    .verdicts
                    .duplicates
                    .entry(newcomer.sequence())
                    .or_default() += 1;
                return standing.with(rule);
            }
            Outcome::Confirms => {
                *self
                    .verdicts
                    .duplicates
                    .entry(newcomer.sequence())
                    .or_default() += 1;
                return newcomer.with(rule);
            }
            Outcome::Refused => (newcomer.version(), standing.version()),
            Outcome::Wins => (standing.version(), newcomer.version()),
        };
        let (device, time_ms) = place.clone();
        let point = point.clone();
        self.verdicts.conflicts.push(Found {
            device,
            time_ms,
            point,
            loser,
            winner,
        });
        if outcome == Outcome::Wins {
            newcomer.with(rule)
        } else {
            standing.with(rule)
        }
    }

    fn hand_on(&mut self, from: usize) -> Result<(), FlushError> {
        if self.verdicts.conflicts.len() < from {
            return Ok(());
        }
        (self.note)(std::mem::take(&mut self.verdicts))
    }
}

/// The version of a cell that stands, where it is or on its own.
enum Stands<'a> {
    Cell(CellAt<'a>, Rule),
    Version(Version),
}

#[derive(Clone, Copy)]
struct CellAt<'a> {
    cells: &'a Cells,
    row: usize,
    base: u64,
}

impl<'a> Stands<'a> {
    fn older(standing: Option<Self>, cell: CellAt<'a>, refusals: FirstRefusal) -> Self {
        let newcomer = Self::Cell(cell, cell.cells.rule(cell.row));
        let Some(standing) = standing else {
            return newcomer;
        };
        let same = standing.same(&newcomer);
        let (outcome, rule) = fold(standing.side(), newcomer.side(), same, refusals);
        match outcome.newcomer_stands() {
            true => newcomer.with(rule),
            false => standing.with(rule),
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Cell(at, rule) => Side {
                rule: *rule,
                ..at.cells.side(at.row, at.base)
            },
            Self::Version(version) => version.side(),
        }
    }

    fn with(self, rule: Rule) -> Self {
        match self {
            Self::Cell(at, _) => Self::Cell(at, rule),
            Self::Version(version) => Self::Version(Version { rule, ..version }),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cell(a, _), Self::Cell(b, _)) => a.cells.same(a.row, b.cells, b.row),
            (a, b) => a.version().same(&b.version()),
        }
    }

    fn sequence(&self) -> u64 {
        match self {
            Self::Cell(at, _) => at.cells.sequence(at.row, at.base),
            Self::Version(version) => version.sequence,
        }
    }

    fn version(&self) -> Version {
        match self {
            Self::Cell(at, rule) => Version {
                sequence: at.cells.sequence(at.row, at.base),
                rule: *rule,
                quality: at.cells.quality(at.row),
                cell: at.cells.cell(at.row),
            },
            Self::Version(version) => version.clone(),
        }
    }
}

/// Some rows of a segment, in order.
struct Rows {
    slices: Vec<Slice>,
    at: (usize, usize),
}

impl Rows {
    fn read(
        segment: &Arc<Segment>,
        columns: &Columns,
        numbers: impl Iterator<Item = usize>,
    ) -> Result<Self, ReadError> {
        let mut pieces: Vec<Piece> = Vec::new();
        for number in numbers {
            match pieces.last_mut() {
                Some(last) if last.rows.end == number => last.rows.end += 1,
                _ => pieces.push(Piece {
                    rank: 0,
                    rows: number..number + 1,
                    times: (i64::MIN, i64::MAX),
                }),
            }
        }
        let scan = SegmentScan::new(Arc::clone(segment), 0, pieces, columns.clone())?;
        Ok(Self {
            slices: scan.collect::<Result<_, _>>()?,
            at: (0, 0),
        })
    }

    fn advance(&mut self) -> (usize, usize) {
        let at = self.at;
        let slice = &self.slices[at.0];
        self.at = if at.1 + 1 == slice.rows() {
            (at.0 + 1, 0)
        } else {
            (at.0, at.1 + 1)
        };
        at
    }
}
