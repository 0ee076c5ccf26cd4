//! Dirty spans become rows: a few devices in one read of the store, folded as an aggregate is.
//!
//! What a change reaches into behind its span ([`Series::reached_until`]) is computed with it. What is
//! between two spans of a device is read with them where that is cheaper, and left as it is.

use arrow_array::{BooleanArray, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_select::filter::filter_record_batch;
use backtide_model::DeviceKey;
use backtide_store::{Lead, Order, Range, ReadError, Store, View};

use super::{
    DEVICE, TIME,
    marks::Span,
    reducer::Reducer,
    series::{Series, Work},
};
use crate::{
    limits::DERIVED_STEP_CELLS,
    query::{
        RowError,
        aggregate::{AggregateError, Fold},
    },
};

/// Devices that are read together.
const GROUP_DEVICES_MAX: usize = 256;
/// Clean windows between two dirty spans that are rather read than asked around.
const BRIDGED_WINDOWS: i64 = 64;

/// Dirty spans of a device that are read in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) device: DeviceKey,
    /// In order; not empty.
    pub(super) spans: Vec<Span>,
    /// Whether what they reach into is computed with them.
    pub(super) reaches: bool,
}

/// What was computed.
#[derive(Debug, Default)]
pub(super) struct Computed {
    /// Rows of dirty windows and of what they reach into: `_device`, `_time`, [`Series::columns`], by device,
    /// then time.
    pub(super) batches: Vec<RecordBatch>,
    /// What is no longer dirty once they are kept.
    pub(super) done: Vec<(DeviceKey, Span)>,
}

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComputeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Of this one window: it would come again.
    #[error("device {}, window from {} ms: {error}", .piece.device, .piece.hull().from_ms)]
    Values {
        piece: Box<Piece>,
        error: AggregateError,
    },
}

/// Why a computation ends before its rows do.
pub(super) enum Ended {
    /// Enough was made.
    Full,
    Values(AggregateError),
}

impl From<AggregateError> for Ended {
    fn from(error: AggregateError) -> Self {
        Self::Values(error)
    }
}

impl From<RowError> for Ended {
    fn from(error: RowError) -> Self {
        Self::Values(AggregateError::Row(error))
    }
}

impl Piece {
    fn hull(&self) -> Span {
        let ends = self.spans.iter().map(|span| span.to_ms);
        Span {
            from_ms: self.spans.first().map_or(0, |span| span.from_ms),
            to_ms: ends.max().unwrap_or(0),
        }
    }

    /// About the first half of its windows; `None` of a window that is alone.
    fn first_half(&self, series: &Series) -> Option<Self> {
        let spans = match self.spans.as_slice() {
            [span] => {
                let middle_ms = span.from_ms.midpoint(span.to_ms);
                let middle_ms = series.windows.at(middle_ms).start_ms;
                let to_ms = match middle_ms > span.from_ms {
                    true => middle_ms,
                    false => series.windows.at(span.from_ms).end_ms,
                };
                let from_ms = span.from_ms;
                (to_ms < span.to_ms).then(|| vec![Span { from_ms, to_ms }])?
            }
            spans => spans[..spans.len() / 2].to_vec(),
        };
        let device = self.device.clone();
        Some(Self {
            device,
            spans,
            reaches: self.reaches,
        })
    }

    /// Behind what is computed of a span that ends there.
    fn until(&self, series: &Series, to_ms: i64) -> i64 {
        match self.reaches {
            true => series.reached_until(to_ms),
            false => to_ms,
        }
    }

    /// The spans of a device as pieces, near ones together.
    pub(super) fn of(series: &Series, device: &DeviceKey, spans: &[Span]) -> Vec<Self> {
        let bridged_ms = series
            .windows
            .at(0)
            .length_ms()
            .saturating_mul(BRIDGED_WINDOWS);
        let bridged_ms = bridged_ms.max(2 * series.reach_ms);
        let mut pieces: Vec<Self> = Vec::new();
        let (mut dirty_ms, mut end_ms) = (0_i64, i64::MIN);
        for span in spans {
            let gap_ms = span.from_ms.saturating_sub(end_ms);
            let is_near = gap_ms <= bridged_ms.max(2 * dirty_ms);
            match pieces.last_mut().filter(|_| is_near) {
                Some(piece) => piece.spans.push(*span),
                None => {
                    dirty_ms = 0;
                    pieces.push(Self {
                        device: device.clone(),
                        spans: vec![*span],
                        reaches: true,
                    });
                }
            }
            dirty_ms = dirty_ms.saturating_add(span.to_ms.saturating_sub(span.from_ms));
            end_ms = span.to_ms;
        }
        pieces
    }
}

/// Pieces that are read together: of other devices each, and of about the same time.
pub(super) fn grouped(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    pieces.sort_by_key(|piece| {
        let hull = piece.hull();
        (hull.from_ms, hull.to_ms)
    });
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    let (mut from_ms, mut to_ms, mut sum_ms) = (0_i64, 0_i64, 0_i64);
    for piece in pieces {
        let hull = piece.hull();
        let length_ms = hull.to_ms.saturating_sub(hull.from_ms);
        let fits = groups.last().is_some_and(|group: &Vec<Piece>| {
            let devices = i64::try_from(group.len())
                .unwrap_or(i64::MAX)
                .saturating_add(1);
            let union_ms = to_ms.max(hull.to_ms).saturating_sub(from_ms);
            // One that begins far behind, such as the rest of a long history, is not read again from where
            // the others begin.
            hull.from_ms.saturating_sub(from_ms) <= length_ms / 4
                && group.len() < GROUP_DEVICES_MAX
                && union_ms.saturating_mul(devices)
                    <= sum_ms.saturating_add(length_ms).saturating_mul(2)
                && group.iter().all(|other| other.device != piece.device)
        });
        match groups.last_mut().filter(|_| fits) {
            Some(group) => {
                (to_ms, sum_ms) = (to_ms.max(hull.to_ms), sum_ms.saturating_add(length_ms));
                group.push(piece);
            }
            None => {
                (from_ms, to_ms, sum_ms) = (hull.from_ms, hull.to_ms, length_ms);
                groups.push(vec![piece]);
            }
        }
    }
    for group in &mut groups {
        group.sort_by(|a, b| a.device.as_str().cmp(b.device.as_str()));
    }
    groups
}

/// Computes a group of pieces, or as much of it as one step may make.
///
/// # Errors
/// [`ComputeError`]: nothing of the group is done.
pub(super) fn compute(
    store: &Store,
    series: &Series,
    group: &[Piece],
) -> Result<Computed, ComputeError> {
    match fold(store, series, group)? {
        Ok(computed) => Ok(computed),
        Err(error) => match group {
            // Of one window it tells: the windows around it are done, also where it is reached by them.
            [only] => match only.first_half(series) {
                Some(half) => compute(store, series, &[half]),
                None if only.reaches => {
                    let reaches = false;
                    let alone = only.clone();
                    compute(store, series, &[Piece { reaches, ..alone }])
                }
                None => Err(ComputeError::Values {
                    piece: Box::new(only.clone()),
                    error,
                }),
            },
            // One of them: by itself it tells, and the others are done.
            [first, ..] => compute(store, series, std::slice::from_ref(first)),
            [] => Ok(Computed::default()),
        },
    }
}

fn fold(
    store: &Store,
    series: &Series,
    group: &[Piece],
) -> Result<Result<Computed, AggregateError>, ReadError> {
    let hulls = group.iter().map(|piece| (piece, piece.hull()));
    let from_ms = hulls.clone().map(|(_, hull)| hull.from_ms).min();
    let from_ms = from_ms.unwrap_or(0);
    let to_ms = hulls.map(|(piece, hull)| piece.until(series, hull.to_ms));
    let to_ms = to_ms.max();
    let to_ms = to_ms.unwrap_or(from_ms);
    let range = Range {
        product: series.product.key.clone(),
        devices: group.iter().map(|piece| piece.device.clone()).collect(),
        points: series
            .points()
            .iter()
            .map(|point| point.name.clone())
            .collect(),
        from_ms: from_ms.saturating_sub(series.reach_ms),
        to_ms,
        order: Order::DeviceTime,
        after: None,
        rows_max: usize::MAX,
    };
    let mut taker = Taker {
        series,
        group,
        rows: 0,
        computed: Computed::default(),
        last: None,
    };
    let ended = match &series.work {
        Work::Rollup { .. } => {
            let plan = series.plan(from_ms, to_ms);
            let plan = plan.expect("a rollup has a plan");
            let mut fold = Fold::new(&plan);
            let mut ended = Ok(());
            for slab in store.values(&range, View::Kept, Lead::InStep)? {
                ended = fold.add(&slab?, &mut |batch| taker.take(batch));
                if ended.is_err() {
                    break;
                }
            }
            match ended {
                Ok(()) => fold.finish(&mut |batch| taker.take(batch)),
                Err(ended) => Err(ended),
            }
        }
        Work::Reduction { .. } => {
            let mut reducer = Reducer::new(series, from_ms);
            let mut ended = Ok(());
            for slab in store.values(&range, View::Kept, Lead::InStep)? {
                ended = reducer.add(&slab?, &mut |batch| taker.take(batch));
                if ended.is_err() {
                    break;
                }
            }
            match ended {
                Ok(()) => reducer.finish(&mut |batch| taker.take(batch)),
                Err(ended) => Err(ended),
            }
        }
    };
    Ok(match ended {
        Ok(()) => {
            taker.computed.done = all(group);
            Ok(taker.computed)
        }
        Err(Ended::Full) => Ok(taker.computed),
        Err(Ended::Values(error)) => Err(error),
    })
}

fn all(group: &[Piece]) -> Vec<(DeviceKey, Span)> {
    let spans = group.iter().flat_map(|piece| {
        let spans = piece.spans.iter();
        spans.map(|span| (piece.device.clone(), *span))
    });
    spans.collect()
}

/// Takes what is made for dirty windows, until it is enough.
struct Taker<'a> {
    series: &'a Series,
    group: &'a [Piece],
    rows: usize,
    computed: Computed,
    /// The last row that was made.
    last: Option<(String, i64)>,
}

impl Taker<'_> {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Ended> {
        let mask = self.mask(batch);
        let rows = mask.true_count();
        if rows > 0 {
            let kept = match rows == batch.num_rows() {
                true => batch.clone(),
                false => filter_record_batch(batch, &mask).map_err(|_| AggregateError::Type)?,
            };
            self.computed.batches.push(kept);
            self.rows += rows;
        }
        if self.rows * batch.num_columns() < DERIVED_STEP_CELLS {
            return Ok(());
        }
        let done = self.done();
        match done.is_empty() {
            true => Ok(()),
            false => {
                self.computed.done = done;
                Err(Ended::Full)
            }
        }
    }

    /// Which rows are of dirty windows, or of what those reach into.
    fn mask(&mut self, batch: &RecordBatch) -> BooleanArray {
        let devices = batch.column_by_name(DEVICE);
        let devices = devices.and_then(|column| column.as_string_opt::<i32>());
        let times = batch.column_by_name(TIME);
        let times = times.and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(devices), Some(times)) = (devices, times) else {
            return BooleanArray::from(vec![false; batch.num_rows()]);
        };
        if let Some(last) = batch.num_rows().checked_sub(1) {
            self.last = Some((devices.value(last).to_owned(), times.value(last)));
        }
        let mut piece: Option<&Piece> = None;
        let is_dirty = |row: usize| {
            let (device, time_ms) = (devices.value(row), times.value(row));
            if piece.is_none_or(|piece| piece.device.as_str() != device) {
                piece = self
                    .group
                    .binary_search_by(|piece| piece.device.as_str().cmp(device))
                    .ok()
                    .map(|at| &self.group[at]);
            }
            piece.is_some_and(|piece| {
                let mut spans = piece.spans.iter();
                spans.any(|span| {
                    span.from_ms <= time_ms && time_ms < piece.until(self.series, span.to_ms)
                })
            })
        };
        (0..batch.num_rows()).map(is_dirty).map(Some).collect()
    }

    /// What is done where nothing follows the last row.
    fn done(&self) -> Vec<(DeviceKey, Span)> {
        let Some((device, time_ms)) = &self.last else {
            return Vec::new();
        };
        let until_ms = self.series.windows.at(*time_ms).end_ms;
        let before = self
            .group
            .partition_point(|piece| piece.device.as_str() < device.as_str());
        let mut done = all(&self.group[..before]);
        let own = self.group.get(before);
        if let Some(piece) = own.filter(|piece| piece.device.as_str() == device) {
            for span in &piece.spans {
                if piece.until(self.series, span.to_ms) <= until_ms {
                    done.push((piece.device.clone(), *span));
                    continue;
                }
                // Its last window stays dirty: what that reaches into is not made yet.
                let last_ms = self.series.windows.at(span.to_ms - 1).start_ms;
                let to_ms = until_ms.min(last_ms);
                if span.from_ms < to_ms {
                    let from_ms = span.from_ms;
                    done.push((piece.device.clone(), Span { from_ms, to_ms }));
                }
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(device: &str, from_ms: i64, to_ms: i64) -> Piece {
        Piece {
            device: DeviceKey::new(device).unwrap(),
            spans: vec![Span { from_ms, to_ms }],
            reaches: true,
        }
    }

    #[test]
    fn devices_of_about_the_same_time_are_read_together() {
        let pieces = vec![
            piece("b", 0, 10),
            piece("a", 5, 15),
            piece("c", 1_000, 1_010),
            piece("a", 1_001, 1_012),
            piece("a", 0, 4),
        ];
        let groups = grouped(pieces);
        let devices: Vec<Vec<&str>> = groups
            .iter()
            .map(|group| group.iter().map(|piece| piece.device.as_str()).collect())
            .collect();
        assert_eq!(devices, [vec!["a", "b"], vec!["a"], vec!["a", "c"]]);
    }
}
