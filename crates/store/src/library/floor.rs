//! Retention and thinning: how what is no longer kept goes from the disk.
//!
//! What a product's [`Keep`] hides is not read any more, at once. It goes from the disk when that is cheap:
//! whole segments when everything in them is too old, single values when the oldest segments are merged
//! anyway, or when enough of one of their files is hidden to write that file again. A keep is not kept
//! here; whoever sets it sets it again after a restart, before anything is read.
//!
//! A value never goes while an older segment may hold an earlier version of it: that one would stand up
//! again once the floor is lowered.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use backtide_model::{DeviceKey, ElementName, ProductKey};

use super::{
    Library, Shelf,
    done::Done,
    fault::FlushError,
    fold::FirstRefusal,
    index::{DeviceIndex, Stretch},
    keep::{Floor, Keep, PointKeep, RecordKeep, Thinning},
    merge::{Choice, Merge, commits},
    origins,
    segment::Segment,
    write::Packing,
};
use crate::{ReadError, Sequence, memtable::Entry};

/// A file of the oldest run is written again once this part of it is hidden.
const REWRITE_PART: u64 = 8;
/// Answers of [`Library::first_since`] that are remembered: one for each age that policies name.
const SINCE_MAX: usize = 16;
/// Events and attributes are looked through again once their floor rose by this much, milliseconds.
const RECORDS_STEP_MS: i64 = 3_600_000;

/// What a change of what is kept could take, reckoned without reading: never too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expirable {
    /// Values at most.
    pub values_max: u64,
    /// Rows with any of them at most, and rows of the product in all.
    pub rows_max: u64,
    pub rows_in_all: u64,
    /// Segments that go whole, and their size; the rest goes value by value, in merges.
    pub segments: u64,
    pub bytes: u64,
}

/// The rules of the moment, and what was done by them.
#[derive(Debug, Default)]
pub(super) struct Keeps {
    keeps: HashMap<ProductKey, Arc<Keep>>,
    /// Rules by which no conflict is listed any more that is not kept.
    swept: HashMap<ProductKey, Arc<Keep>>,
    /// The same of events and attributes.
    swept_records: HashMap<ProductKey, Arc<Keep>>,
    /// The first commits that arrived at a moment or later, as they were found last.
    since: Vec<(i64, Sequence)>,
}

/// What is newer than a merge: where it falls into a window, values of that window stay as they are.
#[derive(Debug, Default)]
pub(super) struct News(HashMap<DeviceKey, Vec<(i64, i64)>>);

impl News {
    pub(super) fn of<'a>(
        segments: impl Iterator<Item = &'a Arc<Segment>>,
        entries: &[Arc<Entry>],
    ) -> Self {
        let mut spans: HashMap<DeviceKey, Vec<(i64, i64)>> = HashMap::new();
        for stretch in segments.flat_map(|segment| &segment.card.index.0) {
            let of_device = spans.entry(stretch.device.clone()).or_default();
            of_device.push((stretch.first_ms, stretch.last_ms));
        }
        for batch in entries.iter().map(|entry| &entry.batch) {
            for (device, time_ms) in batch.row_device.iter().zip(&batch.row_time) {
                let device = batch.devices[*device as usize].clone();
                spans.entry(device).or_default().push((*time_ms, *time_ms));
            }
        }
        Self(spans)
    }

    /// Whether any of it falls between two times, both inclusive.
    pub(super) fn falls_into(&self, device: &DeviceKey, (from_ms, to_ms): (i64, i64)) -> bool {
        let spans = self.0.get(device).into_iter().flatten();
        spans
            .into_iter()
            .any(|(first_ms, last_ms)| *first_ms <= to_ms && from_ms <= *last_ms)
    }
}

impl Library {
    /// Sets what of every product is kept; of those that are not named everything is.
    pub(crate) fn set_keeps(&self, keeps: HashMap<ProductKey, Keep>) {
        let keeps = keeps.into_iter();
        let keeps = keeps.map(|(product, keep)| (product, Arc::new(keep)));
        self.keeps.lock().keeps = keeps.collect();
    }

    pub(super) fn keep(&self, product: &ProductKey) -> Arc<Keep> {
        let keeps = self.keeps.lock();
        keeps.keeps.get(product).cloned().unwrap_or_default()
    }

    /// What of a product's events and of its attributes is kept.
    pub(crate) fn records_keep(&self, product: &ProductKey) -> (RecordKeep, RecordKeep) {
        let keep = self.keep(product);
        (keep.events, keep.attributes)
    }

    /// Where duplicates of a product leave the first commit that said a value: up to the first refusal,
    /// and only where no rule counts from the commit.
    pub(super) fn refusals_of(&self, keep: &Keep) -> FirstRefusal {
        let first = self.refusals.first();
        match keep.by_import_from() {
            Some(from) => FirstRefusal(first.0.min(from.saturating_sub(1))),
            None => first,
        }
    }

    /// A commit before which every one arrived earlier than `arrived_ms`. What is not in a segment
    /// yet counts as later.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn first_since(&self, arrived_ms: i64) -> Result<Sequence, ReadError> {
        // Only what is beyond an earlier answer is looked at.
        let known = {
            let keeps = self.keeps.lock();
            let before = keeps.since.iter().filter(|(ms, _)| *ms <= arrived_ms);
            before.max_by_key(|(ms, _)| *ms).copied()
        };
        let from = known.map_or(Sequence(0), |(_, sequence)| sequence);
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
        let mut keeps = self.keeps.lock();
        // The one it began from is outdone: ages move together.
        keeps.since.retain(|since| Some(*since) != known);
        keeps.since.push((arrived_ms, found));
        if keeps.since.len() > SINCE_MAX {
            keeps.since.remove(0);
        }
        Ok(found)
    }

    /// What a keep could take of some points of a product.
    pub(crate) fn expirable(
        &self,
        product: &ProductKey,
        points: &[ElementName],
        keep: &Keep,
    ) -> Expirable {
        let shelf = self.shelf();
        let segments = shelf.products.get(product).map_or(&[][..], Vec::as_slice);
        let mut expirable = Expirable::default();
        for segment in segments {
            let stored = points
                .iter()
                .filter(|point| segment.points.contains_key(*point));
            let rows: Vec<u64> = stored
                .map(|point| rows_max(segment, keep.of(point)))
                .collect();
            expirable.values_max += rows.iter().sum::<u64>();
            expirable.rows_max += rows.into_iter().max().unwrap_or(0);
            expirable.rows_in_all += segment.rows() as u64;
        }
        for segment in whole(segments, keep, &|_| false) {
            expirable.segments += 1;
            expirable.bytes += segment.card.bytes;
        }
        expirable
    }

    /// Lets go of whole segments that are not kept, and of conflicts; whether there was any segment.
    pub(super) fn expire(&self, shelf: &Shelf, merges: &[Merge]) -> Result<bool, FlushError> {
        let is_taken = |segment: &Segment| {
            let inputs = merges.iter().flat_map(|merge| &merge.choice.inputs);
            inputs
                .into_iter()
                .any(|input| input.card.id == segment.card.id)
        };
        for (product, keep) in self.all_keeps() {
            let segments = shelf.products.get(&product).map_or(&[][..], Vec::as_slice);
            let expired = whole(segments, &keep, &is_taken);
            let is_swept = self.keeps.lock().swept.get(&product) == Some(&keep);
            if expired.is_empty() && is_swept {
                continue;
            }
            let ids: Vec<u64> = expired.iter().map(|segment| segment.card.id).collect();
            self.manifest.expired(&product, &keep, &ids)?;
            self.keeps.lock().swept.insert(product.clone(), keep);
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

    fn all_keeps(&self) -> Vec<(ProductKey, Arc<Keep>)> {
        let keeps = self.keeps.lock();
        let all = keeps.keeps.iter();
        all.map(|(product, keep)| (product.clone(), Arc::clone(keep)))
            .collect()
    }

    /// Lets go of some events and attribute values that are not kept; whether there may be more.
    pub(super) fn expire_records(&self) -> Result<bool, FlushError> {
        for (product, keep) in self.all_keeps() {
            let is_near = |before: &Arc<Keep>| {
                let rose =
                    |to: i64, from: i64| to < from.saturating_add(RECORDS_STEP_MS) && to >= from;
                rose(keep.events.time_ms, before.events.time_ms)
                    && rose(keep.events.arrived_ms, before.events.arrived_ms)
                    && rose(keep.attributes.arrived_ms, before.attributes.arrived_ms)
            };
            if self
                .keeps
                .lock()
                .swept_records
                .get(&product)
                .is_some_and(is_near)
            {
                continue;
            }
            if self.chronicle.expire(&product, &keep)? {
                return Ok(true);
            }
            self.keeps.lock().swept_records.insert(product, keep);
        }
        Ok(false)
    }

    /// A file of a product's oldest run, where enough of it is hidden: a merge of it alone drops that.
    pub(super) fn rewrite(&self, shelf: &Shelf) -> Option<Choice> {
        shelf.products.iter().find_map(|(product, segments)| {
            let keep = self.keep(product);
            let mut oldest = commits(segments).next()?.iter();
            let found = oldest
                .find(|segment| segment.card.is_classified && is_worth_rewriting(segment, &keep))?;
            Some(Choice {
                inputs: vec![Arc::clone(found)],
                is_oldest: true,
                packing: Packing::Tight,
            })
        })
    }
}

/// The floors of points that a keep names, as JSON: `{"point":[time, sequence]}`.
pub(super) fn named_floors(keep: &Keep) -> String {
    let floors = keep.points.iter().map(|(point, keep)| {
        let Floor { time_ms, sequence } = keep.floor();
        (point.to_string(), serde_json::json!([time_ms, sequence.0]))
    });
    serde_json::Value::Object(floors.collect()).to_string()
}

/// The segments that go whole, of a product's in order of commit.
fn whole(
    segments: &[Arc<Segment>],
    keep: &Keep,
    is_taken: &dyn Fn(&Segment) -> bool,
) -> Vec<Arc<Segment>> {
    let (mut expired, mut kept) = (Vec::new(), Vec::<&Arc<Segment>>::new());
    for segment in segments {
        let overlaps = |older: &&Arc<Segment>| older.card.index.overlaps(&segment.card.index);
        let goes = segment.card.is_classified
            && is_below(segment, keep)
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

/// Whether every value of a segment is below the floor of its point.
fn is_below(segment: &Segment, keep: &Keep) -> bool {
    let card = &segment.card;
    let last_ms = card.index.0.iter().map(|stretch| stretch.last_ms).max();
    let below = |floor: Floor| {
        card.sequence_max < floor.sequence.0
            || last_ms.is_some_and(|last_ms| last_ms < floor.time_ms)
    };
    match segment.points.is_empty() {
        true => below(keep.rest.floor()),
        false => segment
            .points
            .keys()
            .all(|point| below(keep.of(point).floor())),
    }
}

/// Values of a point in a segment that its keep hides, at most.
fn rows_max(segment: &Segment, keep: &PointKeep) -> u64 {
    let card = &segment.card;
    let floor = keep.floor();
    let until_ms = keep
        .thin()
        .map_or(floor.time_ms, |thin| thin.before_ms.max(floor.time_ms));
    if card.sequence_min < floor.sequence.0 {
        return segment.rows() as u64;
    }
    let touched = card
        .index
        .0
        .iter()
        .filter(|stretch| stretch.first_ms < until_ms);
    touched.map(|stretch| stretch.rows.len() as u64).sum()
}

/// Whether enough of a file is hidden that was not when it was written.
fn is_worth_rewriting(segment: &Segment, keep: &Keep) -> bool {
    let card = &segment.card;
    let rows = segment.rows() as u64;
    let is_much = |some: u64| some > 0 && some * REWRITE_PART >= rows;
    let between = |from_ms: i64, to_ms: i64| {
        rows_before(&card.index, to_ms).saturating_sub(rows_before(&card.index, from_ms))
    };
    segment.points.keys().any(|point| {
        let (keep, done) = (keep.of(point), segment.done.of(point));
        let floor = keep.floor();
        let commits = card.sequence_max - card.sequence_min + 1;
        let from = done.sequence.max(card.sequence_min);
        let gone = floor
            .sequence
            .0
            .min(card.sequence_max + 1)
            .saturating_sub(from);
        let by_import = gone > 0 && gone * REWRITE_PART >= commits;
        if by_import || is_much(between(done.time_ms, floor.time_ms)) {
            return true;
        }
        keep.thin().is_some_and(|thin| {
            let from_ms = done.thinned_before(thin.kind).max(floor.time_ms);
            let is_quiet = thin.kind == Thinning::Minute || card.sequence_max < thin.quiet.0;
            is_quiet && is_much(between(from_ms, thin.before_ms))
        })
    })
}

/// What is written into a file about what was taken out of it. Changes that were not quiet are to be
/// looked at again.
pub(super) fn done<'p>(
    keep: &Keep,
    points: impl Iterator<Item = &'p ElementName>,
    sequence_max: u64,
) -> Done {
    let mut done = BTreeMap::new();
    for point in points {
        let keep = keep.of(point);
        let thin = keep
            .thin()
            .filter(|thin| thin.kind == Thinning::Minute || sequence_max < thin.quiet.0);
        let keep = PointKeep::new(keep.floor(), thin);
        if keep != PointKeep::default() {
            done.insert(point.clone(), keep);
        }
    }
    Done::new(&done)
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
        let device = DeviceKey::new("a").unwrap();
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
