//! What a change of what is kept would take, counted by reading: nothing is taken, and no more than a
//! slice of rows is in memory at a time.

use std::sync::Arc;

use backtide_model::{DeviceKey, ElementName, ProductKey};

use super::{
    Library,
    keep::{Keep, Thinning, View},
    reading::{Query, Veil},
    scan::SLICE_ROWS,
    weave::Weave,
};
use crate::{Order, Range, ReadError, memtable::Entry};

/// Values of a device that are read now and would not be any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Going {
    pub device: DeviceKey,
    /// One for each point that was asked about.
    pub values: Vec<u64>,
}

/// A count under way: device after device, those that lose nothing left out.
pub(crate) struct Count {
    query: Query,
    now: Veil,
    next: Veil,
    weave: Weave,
    /// The device that is being counted, by rank.
    rank: Option<u32>,
    values: Vec<u64>,
    found: std::collections::VecDeque<Going>,
    is_through: bool,
}

impl Library {
    /// Counts what of some points is read now and would not be under `next`.
    pub(crate) fn going(
        &self,
        entries: Vec<Arc<Entry>>,
        product: &ProductKey,
        points: &[ElementName],
        next: &Keep,
    ) -> Result<Count, ReadError> {
        let now = self.keep(product);
        let thins = points.iter().any(|point| next.of(point).thin().is_some());
        let floors = || points.iter().map(|point| next.of(point).floor());
        let until_ms = match thins || floors().any(|floor| floor.sequence.0 > 0) {
            true => i64::MAX,
            false => floors()
                .map(|floor| floor.time_ms)
                .max()
                .unwrap_or(i64::MIN),
        };
        let range = Range {
            product: product.clone(),
            devices: Vec::new(),
            points: points.to_vec(),
            from_ms: i64::MIN,
            to_ms: until_ms,
            order: Order::DeviceTime,
            after: None,
            rows_max: usize::MAX,
        };
        // Rows that either of the two hides are read: what is hidden now is left out by hand.
        let query = self.query(entries, &range, (&Keep::default(), View::Kept));
        // A value that came again counts from then, as it would under the next.
        let query = query.folding(self.refusals_of(next));
        let weave = query.whole()?;
        Ok(Count {
            now: Veil::new(points, &now, View::Kept, i64::MIN),
            next: Veil::new(points, next, View::Kept, i64::MIN),
            query,
            weave,
            rank: None,
            values: vec![0; points.len()],
            found: std::collections::VecDeque::new(),
            is_through: points.is_empty(),
        })
    }
}

impl Count {
    fn step(&mut self) -> Result<(), ReadError> {
        let minute_ms = Thinning::Minute.window_ms();
        let woven = self.weave.next_whole(SLICE_ROWS, minute_ms)?;
        if woven.rows() == 0 {
            self.is_through = true;
            self.end_device();
            return Ok(());
        }
        let hidden_now = self.now.hidden(&self.query, &woven)?;
        let hidden_next = self.next.hidden(&self.query, &woven)?;
        let last = woven.keys().last().map(|(rank, _)| rank);
        self.now.only(last);
        self.next.only(last);
        for (row, (rank, _)) in woven.keys().enumerate() {
            if self.rank != Some(rank) {
                self.end_device();
                self.rank = Some(rank);
            }
            for (point, hidden) in &hidden_next {
                let is_hidden_now = || {
                    let now = hidden_now.iter().find(|(of, _)| of == point);
                    now.is_some_and(|(_, hidden)| hidden[row])
                };
                if hidden[row] && !is_hidden_now() {
                    self.values[*point] += 1;
                }
            }
        }
        Ok(())
    }

    fn end_device(&mut self) {
        let Some(rank) = self.rank.take() else { return };
        if self.values.iter().any(|values| *values > 0) {
            let none = vec![0; self.values.len()];
            self.found.push_back(Going {
                device: self.query.device(rank).clone(),
                values: std::mem::replace(&mut self.values, none),
            });
        }
    }
}

impl Iterator for Count {
    type Item = Result<Going, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(Ok(found));
            }
            if self.is_through {
                return None;
            }
            if let Err(error) = self.step() {
                self.is_through = true;
                return Some(Err(error));
            }
        }
    }
}
