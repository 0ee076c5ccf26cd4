//! Retention: what is too old to be kept, and how it goes.
//!
//! A product's [`Floor`] is a rule of the moment: nothing below it is read any more. What it hides goes
//! from the disk when that is cheap: whole segments at once, single rows when the oldest segments are
//! merged anyway or hold much of it. A floor is not kept here; whoever sets it sets it again after a
//! restart, before anything is read.
//!
//! A row never goes while an older segment may hold an earlier version of it: that one would stand up
//! again once the floor is lowered.

use std::{collections::HashMap, sync::Arc};

use backtide_model::ProductKey;

use super::{
    Library, Shelf,
    fault::FlushError,
    index::{DeviceIndex, Stretch},
    merge::{Choice, Merge, commits},
    origins,
    segment::Segment,
    write::Packing,
};
use crate::{ReadError, Sequence};

/// The oldest run is written again once this part of it is below the floor.
const REWRITE_PART: u64 = 8;

/// What is below is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Rows with an earlier event time, in milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Rows of which every value was committed before.
    pub sequence: Sequence,
}

impl Floor {
    /// Everything is kept.
    pub const NONE: Self = Self {
        time_ms: i64::MIN,
        sequence: Sequence(0),
    };

    /// Whether a row stays; `newest` is the last commit among its values.
    pub(super) fn keeps(&self, time_ms: i64, newest: u64) -> bool {
        time_ms >= self.time_ms && newest >= self.sequence.0
    }
}

/// What is below a floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expirable {
    /// Rows, reckoned: a device's rows are taken to be spread evenly.
    pub rows: u64,
    /// Rows of the product in all.
    pub rows_in_all: u64,
    /// Segments that go whole, and their size; the rest goes row by row, in merges.
    pub segments: u64,
    pub bytes: u64,
}

/// The rules of the moment, and what was done by them.
#[derive(Debug, Default)]
pub(super) struct Floors {
    floors: HashMap<ProductKey, Floor>,
    /// Floors below which no conflict is listed any more.
    swept: HashMap<ProductKey, Floor>,
    /// The first commit that arrived at a moment or later, as it was found last.
    since: (i64, Sequence),
}

impl Library {
    /// Sets every product's floor; those that are not named keep everything.
    pub(crate) fn set_floors(&self, floors: HashMap<ProductKey, Floor>) {
        self.floors.lock().floors = floors;
    }

    pub(super) fn floor(&self, product: &ProductKey) -> Floor {
        let floors = self.floors.lock();
        floors.floors.get(product).copied().unwrap_or(Floor::NONE)
    }

    /// A commit before which every one arrived earlier than `arrived_ms`. What is not in a segment
    /// yet counts as later.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn first_since(&self, arrived_ms: i64) -> Result<Sequence, ReadError> {
        let (known_ms, known) = self.floors.lock().since;
        // Only what is beyond the last answer is looked at, unless the question goes back.
        let from = if known_ms <= arrived_ms {
            known
        } else {
            Sequence(0)
        };
        let mut found = Sequence(self.flushed().0 + 1);
        let mut at = from;
        while let Some(chunk) = self.manifest.origins_from(at)? {
            let lineages = origins::read(&chunk)?;
            let Some(last) = lineages.last() else { break };
            at = Sequence(last.sequence.0 + 1);
            let first = lineages.iter().find(|lineage| {
                lineage.sequence >= from && lineage.origin.arrived_ms >= arrived_ms
            });
            if let Some(first) = first {
                found = first.sequence;
                break;
            }
        }
        self.floors.lock().since = (arrived_ms, found);
        Ok(found)
    }

    /// What a floor would take of a product.
    pub(crate) fn expirable(&self, product: &ProductKey, floor: Floor) -> Expirable {
        let shelf = self.shelf();
        let segments = shelf.products.get(product).map_or(&[][..], Vec::as_slice);
        let mut expirable = Expirable::default();
        for segment in segments {
            let card = &segment.card;
            let rows = segment.rows() as u64;
            expirable.rows_in_all += rows;
            expirable.rows += match is_below(segment, floor) {
                true => rows,
                false => rows_before(&card.index, floor.time_ms),
            };
        }
        for segment in whole(segments, floor, &|_| false) {
            expirable.segments += 1;
            expirable.bytes += segment.card.bytes;
        }
        expirable
    }

    /// Lets go of whole segments below their floor, and of conflicts; whether there was any segment.
    pub(super) fn expire(&self, shelf: &Shelf, merges: &[Merge]) -> Result<bool, FlushError> {
        let floors: Vec<(ProductKey, Floor)> = {
            let floors = self.floors.lock();
            let all = floors.floors.iter();
            all.map(|(product, floor)| (product.clone(), *floor))
                .collect()
        };
        let is_taken = |segment: &Segment| {
            let inputs = merges.iter().flat_map(|merge| &merge.choice.inputs);
            inputs
                .into_iter()
                .any(|input| input.card.id == segment.card.id)
        };
        for (product, floor) in floors {
            let segments = shelf.products.get(&product).map_or(&[][..], Vec::as_slice);
            let expired = whole(segments, floor, &is_taken);
            let is_swept = self.floors.lock().swept.get(&product) == Some(&floor);
            if expired.is_empty() && is_swept {
                continue;
            }
            let ids: Vec<u64> = expired.iter().map(|segment| segment.card.id).collect();
            self.manifest.expired(&product, floor, &ids)?;
            self.floors.lock().swept.insert(product.clone(), floor);
            if expired.is_empty() {
                continue;
            }
            self.change_shelf(|shelf| {
                let segments = shelf.products.entry(product.clone()).or_default();
                segments.retain(|segment| !ids.contains(&segment.card.id));
            });
            let rows: usize = expired.iter().map(|segment| segment.rows()).sum();
            tracing::info!(%product, segments = ids.len(), rows, "segments beyond their retention are dropped");
            // Their files go with their last reader.
            expired.iter().for_each(|segment| segment.retire());
            return Ok(true);
        }
        Ok(false)
    }

    /// The oldest run of a product, where much of it is below the floor: a merge of it alone drops that.
    pub(super) fn rewrite(&self, shelf: &Shelf) -> Option<Choice> {
        shelf.products.iter().find_map(|(product, segments)| {
            let floor = self.floor(product);
            let oldest = commits(segments).next()?;
            let is_classified = oldest.iter().all(|segment| segment.card.is_classified);
            let rows: u64 = oldest.iter().map(|segment| segment.rows() as u64).sum();
            let below = oldest
                .iter()
                .map(|s| rows_before(&s.card.index, floor.time_ms));
            let below: u64 = below.sum();
            (is_classified && below > 0 && below * REWRITE_PART >= rows).then(|| Choice {
                inputs: oldest.to_vec(),
                is_oldest: true,
                packing: Packing::Tight,
            })
        })
    }
}

/// The segments that go whole, of a product's in order of commit.
fn whole(
    segments: &[Arc<Segment>],
    floor: Floor,
    is_taken: &dyn Fn(&Segment) -> bool,
) -> Vec<Arc<Segment>> {
    let (mut expired, mut kept) = (Vec::new(), Vec::<&Arc<Segment>>::new());
    for segment in segments {
        let overlaps = |older: &&Arc<Segment>| older.card.index.overlaps(&segment.card.index);
        let goes = segment.card.is_classified
            && is_below(segment, floor)
            && !is_taken(segment)
            && !kept.iter().any(overlaps);
        if goes {
            expired.push(Arc::clone(segment));
        } else {
            kept.push(segment);
        }
    }
    expired
}

/// Whether every row of a segment is below the floor.
fn is_below(segment: &Segment, floor: Floor) -> bool {
    let card = &segment.card;
    let mut stretches = card.index.0.iter();
    card.sequence_max < floor.sequence.0 || stretches.all(|stretch| stretch.last_ms < floor.time_ms)
}

/// About how many rows have an earlier time.
fn rows_before(index: &DeviceIndex, time_ms: i64) -> u64 {
    index.0.iter().map(|stretch| before(stretch, time_ms)).sum()
}

fn before(stretch: &Stretch, time_ms: i64) -> u64 {
    let rows = stretch.rows.len() as u64;
    if stretch.last_ms < time_ms {
        return rows;
    }
    if stretch.first_ms >= time_ms {
        return 0;
    }
    let (past, span) = (
        time_ms.abs_diff(stretch.first_ms),
        stretch.last_ms.abs_diff(stretch.first_ms).max(1),
    );
    let share = u128::from(rows) * u128::from(past) / u128::from(span);
    // The first row is before, or this was not reached.
    u64::try_from(share).unwrap_or(rows).clamp(1, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_before_a_moment_are_exact_at_the_ends_and_reckoned_between() {
        let device = backtide_model::DeviceKey::new("a").unwrap();
        let mut index = DeviceIndex::default();
        index.push(&device, &[0, 10, 20, 30, 40]);
        let at = |time_ms| rows_before(&index, time_ms);
        assert_eq!(
            [at(i64::MIN), at(0), at(1), at(40), at(41)],
            [0, 0, 1, 5, 5]
        );
        assert_eq!(at(20), 2);
    }
}
