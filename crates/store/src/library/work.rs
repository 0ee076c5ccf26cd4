//! Work in the background, a unit at a time, the most urgent first: classify what is new, merge
//! small files, go on with large merges.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use arrow_array::{ArrayRef, StringArray, TimestampMillisecondArray, UInt64Array, new_null_array};
use arrow_schema::DataType;
use backtide_model::ProductKey;

use super::{
    Library, Shelf,
    cells::{Cells, data_type},
    chains::Chains,
    classify::{Pass, Repeats, Verdicts},
    fault::FlushError,
    floor::News,
    keep::Thinning,
    merge::{Choice, Haste, Merge, Trim, choose, commits},
    names::Role,
    run::Run,
    segment::Segment,
    write::{Packing, Plan, PointColumn, SegmentWriter},
};
use crate::memtable::Entry;

/// Rows that one unit of work merges.
const STEP_ROWS: usize = 1 << 18;
/// Merges that may wait for a more urgent one.
const MERGES_MAX: usize = 4;

impl Library {
    /// One unit of work; `false` when there was nothing to do. `quiet`: nothing has been committed
    /// for a while, so everything may be brought to its final state.
    ///
    /// # Errors
    /// Nothing changed but for merges on their way, which are given up.
    #[cfg(test)]
    pub(crate) fn work(&self, haste: Haste) -> Result<bool, FlushError> {
        self.work_beside(haste, &|_| Vec::new())
    }

    /// The same, where `recent` gives what of a product is in no segment yet.
    ///
    /// # Errors
    /// As [`Self::work`].
    pub(crate) fn work_beside(
        &self,
        haste: Haste,
        recent: &dyn Fn(&ProductKey) -> Vec<Arc<Entry>>,
    ) -> Result<bool, FlushError> {
        let worked = self.work_once(haste, recent);
        match &worked {
            // What fails may fail for ever, and where there is nothing to do nothing will change:
            // whoever waits for merges must know.
            Err(_) => self.is_stuck.store(true, Ordering::Relaxed),
            Ok(false) => {
                let is_high = self.shelf().heights.values().any(|at| self.is_high(*at));
                self.is_stuck.store(is_high, Ordering::Relaxed);
            }
            Ok(true) => {}
        }
        worked
    }

    fn work_once(
        &self,
        haste: Haste,
        recent: &dyn Fn(&ProductKey) -> Vec<Arc<Entry>>,
    ) -> Result<bool, FlushError> {
        let shelf = self.shelf();
        for (product, segments) in &shelf.products {
            if self.classify(product, segments, haste)? {
                return Ok(true);
            }
        }
        let mut merges = self.merges.lock();
        if self.expire(&shelf, &merges)? || self.expire_records()? {
            return Ok(true);
        }
        if let Some(choice) = self.urgent(&shelf, &merges, haste) {
            merges.push(self.begin(choice, recent)?);
        } else if merges.is_empty()
            && haste == Haste::Quiet
            && let Some(choice) = self.rewrite(&shelf)
        {
            merges.push(self.begin(choice, recent)?);
        }
        let Some(mut merge) = merges.pop() else {
            return Ok(false);
        };
        // Where a step fails the merge is dropped here, with all its files.
        let is_done = merge.step(STEP_ROWS, |plan| self.next_plan(plan))?;
        if is_done {
            self.end(merge)?;
        } else {
            merges.push(merge);
        }
        Ok(true)
    }

    /// Classifies a product's new segments: at once where nothing has to be read for it, else when
    /// there are several, so that what they meet is read once for all.
    fn classify(
        &self,
        product: &ProductKey,
        segments: &[Arc<Segment>],
        haste: Haste,
    ) -> Result<bool, FlushError> {
        let first = segments
            .iter()
            .take_while(|segment| segment.card.is_classified)
            .count();
        let (older, fresh) = segments.split_at(first);
        if fresh.is_empty() {
            return Ok(false);
        }
        let many = haste == Haste::Quiet
            || fresh.len() >= self.runs_max / 2
            || commits(segments).count() >= self.merge_from();
        let fresh = if many { fresh } else { &fresh[..1] };
        let with_chains = |segment: &Arc<Segment>| {
            Ok((Arc::clone(segment), self.manifest.chains(segment.card.id)?))
        };
        let fresh = fresh
            .iter()
            .map(with_chains)
            .collect::<Result<Vec<_>, FlushError>>()?;
        let pass = self.manifest.about("passes")? + 1;
        let (mut conflicts, mut duplicates) = (0, Repeats::new());
        let mut note = |verdicts: Verdicts| {
            conflicts += verdicts.conflicts.len() as u64;
            for (sequence, values) in &verdicts.duplicates {
                *duplicates.entry(*sequence).or_default() += values;
            }
            self.manifest.note_conflicts(pass, product, &verdicts)
        };
        let refusals = self.refusals_of(&self.keep(product));
        let comparison = Pass::new(older, &fresh, refusals, &mut note);
        if !many && !comparison.is_cheap() {
            return Ok(false);
        }
        if let Err(error) = comparison.run() {
            self.manifest.forget_pass(pass)?;
            return Err(error);
        }
        let ids: HashSet<u64> = fresh.iter().map(|(segment, _)| segment.card.id).collect();
        self.manifest
            .classified(pass, &ids, conflicts, &duplicates)?;
        drop::<Vec<(Arc<Segment>, Chains)>>(fresh);
        self.change_shelf(|shelf| {
            for segment in shelf.products.get_mut(product).into_iter().flatten() {
                if ids.contains(&segment.card.id) {
                    *segment = Arc::new(segment.classified());
                }
            }
        });
        Ok(true)
    }

    /// Runs of a product from which on merging begins: one fewer than a read may have to join.
    fn merge_from(&self) -> usize {
        self.runs_max.saturating_sub(1).max(2)
    }

    /// A merge to begin: any where none is on its way, else one that is much smaller.
    fn urgent(&self, shelf: &Shelf, merges: &[Merge], haste: Haste) -> Option<Choice> {
        let taken: HashSet<u64> = merges
            .iter()
            .flat_map(|merge| merge.choice.inputs.iter().map(|segment| segment.card.id))
            .collect();
        let is_taken = |id: u64| taken.contains(&id);
        let haste = if merges.is_empty() {
            haste
        } else {
            Haste::Busy
        };
        let choices = shelf
            .products
            .values()
            .filter_map(|segments| choose(segments, is_taken, self.merge_from(), haste));
        let choice = choices.min_by_key(Choice::bytes)?;
        let fits = match merges.last() {
            None => true,
            Some(last) => merges.len() < MERGES_MAX && choice.bytes() * 4 <= last.bytes_left(),
        };
        fits.then_some(choice)
    }

    fn begin(
        &self,
        choice: Choice,
        recent: &dyn Fn(&ProductKey) -> Vec<Arc<Entry>>,
    ) -> Result<Merge, FlushError> {
        let cards = || choice.inputs.iter().map(|segment| &segment.card);
        let product = &cards().next().expect("a choice has inputs").product;
        let keep = self.keep(product);
        let refusals = self.refusals_of(&keep);
        let last = cards().map(|card| card.sequence_max).max().unwrap_or(0);
        let news = if choice.is_oldest && keep.has(Thinning::Changes) {
            // The memtable first: what is flushed in between is then seen twice, never not at all.
            let (recent, shelf) = (recent(product), self.shelf());
            let segments = shelf.products.get(product).into_iter().flatten();
            let newer = segments.filter(|segment| segment.card.sequence_min > last);
            News::of(newer, &recent)
        } else {
            News::default()
        };
        let trim = Trim { keep, news };
        let plan = Plan {
            sequence_min: cards().map(|card| card.sequence_min).min().unwrap_or(0),
            sequence_max: cards().map(|card| card.sequence_max).max().unwrap_or(0),
            is_classified: true,
            is_merged: true,
            packing: choice.packing,
            ..self.plan(product)
        };
        Merge::new(&self.disk, choice, plan, self.file_rows, trim, refusals)
    }

    /// The next file of the same merge.
    fn next_plan(&self, plan: &Plan) -> Plan {
        let Plan { id, path, .. } = self.plan(&plan.product);
        Plan {
            id,
            path,
            ..plan.clone()
        }
    }

    fn end(&self, merge: Merge) -> Result<(), FlushError> {
        let outputs: Vec<_> = merge
            .outputs()
            .iter()
            .map(|(_, card)| card.clone())
            .collect();
        let opened = outputs.iter().map(|card| self.open_segment(card.clone()));
        let opened: Vec<Arc<Segment>> = opened.collect::<Result<_, _>>()?;
        let inputs: HashSet<u64> = merge
            .choice
            .inputs
            .iter()
            .map(|segment| segment.card.id)
            .collect();
        self.manifest.merged(&inputs, &outputs)?;
        self.is_stuck.store(false, Ordering::Relaxed);
        let product = merge.choice.inputs[0].card.product.clone();
        self.change_shelf(|shelf| {
            let segments = shelf.products.entry(product).or_default();
            segments.retain(|segment| !inputs.contains(&segment.card.id));
            segments.extend(opened);
        });
        // Their files go with their last reader.
        merge
            .choice
            .inputs
            .iter()
            .for_each(|segment| segment.retire());
        merge.live();
        Ok(())
    }
}

/// Bytes of values that are laid out at once.
const GROUP_BYTES: usize = 64 << 20;

/// Stretches of rows that are written together: row groups, shorter ones where points are many.
pub(super) fn groups(run: &Run) -> impl Iterator<Item = Range<usize>> {
    let group_rows =
        (GROUP_BYTES / 8 / run.points.len().max(1)).clamp(8_192, Packing::Quick.group_rows());
    let rows = run.rows();
    (0..rows)
        .step_by(group_rows)
        .map(move |from| from..(from + group_rows).min(rows))
}

/// Writes device, time and sequence of some rows of a run.
pub(super) fn write_keys(
    writer: &mut SegmentWriter,
    run: &Run,
    rows: Range<usize>,
) -> Result<(), FlushError> {
    let mut devices = Vec::with_capacity(rows.len());
    for stretch in &run.index.0 {
        let from = stretch.rows.start.max(rows.start);
        let to = stretch.rows.end.min(rows.end).max(from);
        devices.extend(std::iter::repeat_n(stretch.device.as_str(), to - from));
        writer.rows_of(&stretch.device, &run.times[from..to]);
    }
    let times = TimestampMillisecondArray::from(run.times[rows.clone()].to_vec());
    let sequences = UInt64Array::from(run.base[rows].to_vec());
    writer.column(0, &(Arc::new(StringArray::from(devices)) as ArrayRef))?;
    writer.column(1, &(Arc::new(times.with_timezone("UTC")) as ArrayRef))?;
    writer.column(2, &(Arc::new(sequences) as ArrayRef))
}

/// A column's array of some cells.
pub(super) fn role_array(column: &PointColumn, cells: Option<&Cells>, rows: usize) -> ArrayRef {
    let bytes = |array: Option<&arrow_array::UInt8Array>| match array {
        Some(array) => Arc::new(array.clone()) as ArrayRef,
        None => new_null_array(&DataType::UInt8, rows),
    };
    match column.role {
        Role::Value => match cells {
            Some(cells) => cells.values.to_array(),
            None => new_null_array(&data_type(column.storage), rows),
        },
        Role::Quality => bytes(cells.and_then(|cells| cells.quality.as_ref())),
        Role::Rule => bytes(cells.and_then(|cells| cells.rules.as_ref())),
        Role::Sequence => match cells.and_then(|cells| cells.sequence.clone()) {
            Some(sequence) => Arc::new(sequence),
            None => new_null_array(&DataType::UInt64, rows),
        },
    }
}
