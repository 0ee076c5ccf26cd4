//! Rows by device, then time: the order of segments.

use std::{ops, sync::Arc};

use arrow_array::RecordBatch;

use super::{After, Query, ahead, straight::Names, veil::Veil};
use crate::{
    ReadError, Slabs,
    library::{keep::Thinning, scan::SLICE_ROWS, weave::Weave},
};

/// Many rows are read several groups of devices at once; few, in one pass.
pub(super) fn slabs(query: Query) -> Result<Box<dyn Slabs>, ReadError> {
    let after = query.range.after.as_ref().map(|(device, time_ms)| {
        match query.devices.binary_search(device) {
            Ok(rank) => After {
                rank,
                time_ms: Some(*time_ms),
            },
            Err(rank) => After {
                rank,
                time_ms: None,
            },
        }
    });
    let query = Arc::new(query);
    let groups = ahead::groups(&query, after);
    if groups.len() > 1
        && let Some(ahead) = ahead::Ahead::new(&query, after, groups)
    {
        return Ok(Box::new(ahead));
    }
    let ranks = query.ranks();
    Ok(Box::new(ByDevice::new(query, after, ranks)?))
}

/// One pass over some devices.
pub(super) struct ByDevice {
    query: Arc<Query>,
    veil: Veil,
    weave: Weave,
    names: Names,
    rows_left: usize,
}

impl ByDevice {
    pub(super) fn new(
        query: Arc<Query>,
        after: Option<After>,
        ranks: ops::Range<usize>,
    ) -> Result<Self, ReadError> {
        let span = (query.range.from_ms, query.range.to_ms - 1);
        Ok(Self {
            weave: query.weave(span, after, ranks)?,
            veil: query.veil.clone(),
            names: Names::default(),
            rows_left: query.range.rows_max,
            query,
        })
    }

    fn slab(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        let after = self.query.range.after.clone();
        while self.rows_left > 0 {
            let rows_max = SLICE_ROWS.min(self.rows_left.max(1_024));
            let straight = self
                .query
                .straight(&mut self.weave, &mut self.names, rows_max)?;
            if let Some(batch) = straight {
                let batch = batch.slice(0, batch.num_rows().min(self.rows_left));
                self.rows_left -= batch.num_rows();
                match batch.num_rows() {
                    0 => continue,
                    _ => return Ok(Some(batch)),
                }
            }
            let woven = match self.veil.has(Thinning::Minute) {
                true => self
                    .weave
                    .next_whole(rows_max, Thinning::Minute.window_ms())?,
                false => self.weave.next(rows_max)?,
            };
            if woven.rows() == 0 {
                return Ok(None);
            }
            let hidden = self.veil.hidden(&self.query, &woven)?;
            self.veil.only(woven.keys().last().map(|(rank, _)| rank));
            let devices = &self.query.devices;
            let is_after = after.as_ref().map(|(device, after_ms)| {
                move |rank: u32, time_ms: i64| {
                    (&devices[rank as usize], time_ms) > (device, *after_ms)
                }
            });
            let is_after = is_after
                .as_ref()
                .map(|is_after| is_after as &dyn Fn(u32, i64) -> bool);
            let mut slab = self.query.slab(&woven, &hidden, is_after)?;
            slab.truncate(self.rows_left);
            self.rows_left -= slab.keys.len();
            if !slab.keys.is_empty() {
                return self.query.batch(slab).map(Some);
            }
        }
        Ok(None)
    }
}

impl Iterator for ByDevice {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let slab = self.slab().transpose();
        if matches!(slab, Some(Err(_))) {
            self.rows_left = 0;
        }
        slab
    }
}

impl Slabs for ByDevice {}
