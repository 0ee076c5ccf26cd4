//! Reads of the store for one asset, bounded in records and bytes whatever is stored.

use std::collections::VecDeque;

use arrow_array::RecordBatch;
use backtide_model::{Cell, ElementName};
use backtide_store::{Thinning, View};

use super::{
    super::{
        answer::{Refusal, TOO_LARGE},
        fold,
    },
    question::Asset,
};
use crate::{
    http::Api,
    limits,
    query::{self, Reading},
};

/// How far back the state at the beginning of a range is looked for.
const STATE_BEFORE_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Times and numbers.
pub(super) type Minutes = Vec<(i64, f64)>;

/// What readings that are held may take: texts may be long.
#[derive(Default)]
struct Held {
    bytes: usize,
}

impl Held {
    fn take(&mut self, reading: &Reading, point: &ElementName) -> Result<(), Refusal> {
        self.bytes += text_bytes(reading);
        match self.bytes <= limits::VENDOR_ANSWER_BYTES_MAX {
            true => Ok(()),
            false => Err(Refusal::new(
                TOO_LARGE,
                format!(
                    "the values of {point} have more than {} bytes; cut the time range, or ask for a smaller pageSize",
                    limits::VENDOR_ANSWER_BYTES_MAX
                ),
            )),
        }
    }

    fn give_back(&mut self, reading: &Reading) {
        self.bytes = self.bytes.saturating_sub(text_bytes(reading));
    }
}

fn text_bytes(reading: &Reading) -> usize {
    match &reading.cell {
        Cell::Text(text) => text.len(),
        _ => 0,
    }
}

/// Reads a range of some points of an asset, a slab at a time, until `take` has enough.
fn read(
    api: &Api,
    asset: &Asset,
    points: &[ElementName],
    (from_ms, to_ms): (i64, i64),
    view: View,
    mut take: impl FnMut(&RecordBatch) -> Result<Enough, Refusal>,
) -> Result<(), Refusal> {
    // An empty list would ask for every point.
    if points.is_empty() {
        return Ok(());
    }
    let slabs = api
        .store
        .view(&asset.range(points, from_ms, to_ms), view)
        .map_err(|error| Refusal::unreadable(&error))?;
    for slab in slabs {
        let slab = slab.map_err(|error| Refusal::unreadable(&error))?;
        if take(&slab)? == Enough::Yes {
            break;
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Enough {
    Yes,
    NotYet,
}

fn readings(slab: &RecordBatch, point: &ElementName) -> Result<Vec<Reading>, Refusal> {
    query::readings(slab, point.as_str()).map_err(|error| Refusal::unreadable(&error))
}

/// A page of each point of an asset, filled in one read.
pub(super) struct Pages {
    of: Vec<(ElementName, VecDeque<Reading>)>,
    size: usize,
    descending: bool,
}

impl Pages {
    pub(super) fn new(asset: &Asset, size: usize, descending: bool) -> Self {
        let empty = |point: &ElementName| (point.clone(), VecDeque::new());
        Self {
            of: asset.points.iter().map(empty).collect(),
            size,
            descending,
        }
    }

    pub(super) fn read(
        mut self,
        api: &Api,
        asset: &Asset,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<(ElementName, VecDeque<Reading>)>, Refusal> {
        let range = (from_ms, to_ms);
        let mut held = Held::default();
        read(api, asset, &asset.points, range, View::Kept, |slab| {
            for (point, page) in &mut self.of {
                if !self.descending && page.len() >= self.size {
                    continue;
                }
                for reading in readings(slab, point)? {
                    let is_full = page.len() >= self.size;
                    if is_full && !self.descending {
                        break;
                    }
                    held.take(&reading, point)?;
                    match self.descending {
                        false => page.push_back(reading),
                        true => {
                            // The latest come first, and the earliest fall off.
                            if let Some(earliest) = page.pop_back_if(|_| is_full) {
                                held.give_back(&earliest);
                            }
                            page.push_front(reading);
                        }
                    }
                }
            }
            let is_full = self.of.iter().all(|(_, page)| page.len() >= self.size);
            Ok(if is_full && !self.descending {
                Enough::Yes
            } else {
                Enough::NotYet
            })
        })?;
        Ok(self.of)
    }
}

pub(super) fn minute_values(
    api: &Api,
    asset: &Asset,
    point: &ElementName,
    from_ms: i64,
    to_ms: i64,
) -> Result<Minutes, Refusal> {
    let mut values: Minutes = Vec::new();
    let points = std::slice::from_ref(point);
    let view = View::Thinned(Thinning::Minute);
    read(api, asset, points, (from_ms, to_ms), view, |slab| {
        let found = readings(slab, point)?;
        let numbers = found
            .iter()
            .filter_map(|reading| Some((reading.time_ms, reading.number()?)));
        let known = values.pop();
        values.extend(fold::by_minute(known.into_iter().chain(numbers)));
        if values.len() > limits::VENDOR_RECORDS_MAX {
            return Err(Refusal::new(
                TOO_LARGE,
                format!(
                    "point {point} has more than {} minutes in the range; cut the time range",
                    limits::VENDOR_RECORDS_MAX
                ),
            ));
        }
        Ok(Enough::NotYet)
    })?;
    Ok(values)
}

/// The changes of a digital point.
pub(super) struct Changes {
    /// The last one before the range.
    before: Option<Reading>,
    within: Vec<Reading>,
    /// Where the scan gave up, if it did.
    pub(super) ended_ms: Option<i64>,
}

impl Changes {
    pub(super) fn read(
        api: &Api,
        asset: &Asset,
        point: &ElementName,
        (from_ms, to_ms): (i64, i64),
        changes_max: usize,
    ) -> Result<Self, Refusal> {
        let mut changes = Self {
            before: None,
            within: Vec::new(),
            ended_ms: None,
        };
        let (mut scanned, mut held) = (0_usize, Held::default());
        let points = std::slice::from_ref(point);
        let range = (from_ms.saturating_sub(STATE_BEFORE_MS), to_ms);
        let view = View::Thinned(Thinning::Changes);
        read(api, asset, points, range, view, |slab| {
            for reading in readings(slab, point)? {
                if reading.time_ms < from_ms {
                    changes.before = Some(reading);
                    continue;
                }
                scanned += 1;
                if scanned > limits::VENDOR_RECORDS_MAX {
                    changes.ended_ms = Some(reading.time_ms);
                    return Ok(Enough::Yes);
                }
                let last = changes.within.last().or(changes.before.as_ref());
                // A value at the very beginning is told, whatever was before.
                let is_first = reading.time_ms == from_ms;
                if is_first || last.is_none_or(|last| last.cell != reading.cell) {
                    held.take(&reading, point)?;
                    changes.within.push(reading);
                }
            }
            let is_full = changes.within.len() > changes_max;
            Ok(if is_full { Enough::Yes } else { Enough::NotYet })
        })?;
        Ok(changes)
    }

    /// What is told: the state at the beginning, where it is known from before, and each change.
    pub(super) fn told(self, from_ms: i64, from_before: bool) -> impl Iterator<Item = Reading> {
        let begins_within = self
            .within
            .first()
            .is_some_and(|first| first.time_ms == from_ms);
        let carried = self.before.filter(|_| from_before && !begins_within);
        carried
            .map(|reading| Reading {
                time_ms: from_ms,
                ..reading
            })
            .into_iter()
            .chain(self.within)
    }
}
