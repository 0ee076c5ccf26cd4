//! Rows that one source has alone are given as they were read: no row of them is looked at.
//!
//! Most of a history that is compacted is like that.

use std::{iter, ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, NullArray, RecordBatch, StringArray, UInt64Array,
    new_null_array,
};
use arrow_buffer::{BooleanBuffer, OffsetBuffer};
use arrow_schema::DataType;

use super::{Query, failed};
use crate::{
    ReadError,
    library::{
        cells::{Cells, data_type},
        scan::Slice,
        weave::{Alone, Weave},
    },
};

/// Fewer rows are rather woven with those behind them. In tests any are worth it.
const ROWS_MIN: usize = if cfg!(test) { 1 } else { 1_024 };

impl Query {
    /// The next rows, where they can be given straight; `None` where they have to be woven. The batch
    /// may be empty: none of its rows has any of the points.
    pub(super) fn straight(
        &self,
        weave: &mut Weave,
        names: &mut Names,
        rows_max: usize,
    ) -> Result<Option<RecordBatch>, ReadError> {
        if self.is_veiled {
            return Ok(None);
        }
        let long_enough = |alone: &Alone| alone.rows.len() >= ROWS_MIN.min(rows_max);
        let Some(alone) = weave.alone(rows_max).filter(long_enough) else {
            return Ok(None);
        };
        let rows = self.behind(&alone);
        let Some(batch) = self.as_read(&alone.slice, &rows, names)? else {
            return Ok(None);
        };
        weave.take_alone(&alone)?;
        Ok(Some(batch))
    }

    /// Those behind the row after which the read goes on: what is in memory is there from its beginning.
    fn behind(&self, alone: &Alone) -> Range<usize> {
        let Range { start, end } = alone.rows;
        let Some((device, after_ms)) = &self.range.after else {
            return start..end;
        };
        let is_behind = |row: &usize| {
            let (rank, time_ms) = alone.slice.key(*row);
            (self.device(rank), time_ms) > (device, *after_ms)
        };
        (start..end).find(is_behind).unwrap_or(end)..end
    }

    fn as_read(
        &self,
        slice: &Slice,
        rows: &Range<usize>,
        names: &mut Names,
    ) -> Result<Option<RecordBatch>, ReadError> {
        // The commit of a row is that of its last value: its own where every value is plain.
        let is_plain = |cells: &Cells| cells.is_plain();
        if self.has_sequences
            && (!slice.points.iter().flatten().all(is_plain) || slice.base.len() < rows.end)
        {
            return Ok(None);
        }
        let length = rows.len();
        let times = slice.times.slice(rows.start, length);
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(names.of(self, &slice.ranks[rows.clone()])),
            Arc::new(Int64Array::new(times, None)),
        ];
        if self.has_sequences {
            arrays.push(Arc::new(UInt64Array::from_iter_values(
                slice.base[rows.clone()].iter().copied(),
            )));
        }
        for (point, storage) in self.storages.iter().enumerate() {
            let cells = slice.points[point].as_ref();
            let Some(storage) = storage else {
                arrays.push(Arc::new(NullArray::new(length)));
                continue;
            };
            let cut = |array: &dyn Array| array.slice(rows.start, length);
            arrays.push(match cells {
                Some(cells) => cut(cells.values.array()),
                None => new_null_array(&data_type(*storage), length),
            });
            if self.has_quality[point] {
                let quality = cells.and_then(|cells| cells.quality.as_ref());
                arrays.push(match quality {
                    Some(quality) => cut(quality),
                    None => new_null_array(&DataType::UInt8, length),
                });
            }
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(failed)?;
        if self.every_row {
            return Ok(Some(batch));
        }
        Ok(Some(match has_value(slice, rows) {
            None => batch,
            Some(has_value) => {
                let mask = BooleanArray::new(has_value, None);
                arrow_select::filter::filter_record_batch(&batch, &mask).map_err(failed)?
            }
        }))
    }
}

/// The devices of rows as a column. Most slabs have one: its names are made once, and cut for each.
#[derive(Default)]
pub(super) struct Names {
    last: Option<(u32, StringArray)>,
}

impl Names {
    /// `ranks` ascend.
    fn of(&mut self, query: &Query, ranks: &[u32]) -> StringArray {
        let (Some(first), Some(end)) = (ranks.first(), ranks.last()) else {
            return StringArray::new_null(0);
        };
        if first != end {
            return names(query, ranks);
        }
        match &self.last {
            Some((rank, names)) if rank == first && names.len() >= ranks.len() => {
                names.slice(0, ranks.len())
            }
            _ => {
                let names = names(query, ranks);
                self.last = Some((*first, names.clone()));
                names
            }
        }
    }
}

fn names(query: &Query, ranks: &[u32]) -> StringArray {
    let (mut bytes, mut lengths) = (Vec::<u8>::new(), Vec::with_capacity(ranks.len()));
    for same in ranks.chunk_by(|a, b| a == b) {
        let name = query.device(same[0]).as_str();
        bytes.extend_from_slice(name.repeat(same.len()).as_bytes());
        lengths.extend(iter::repeat_n(name.len(), same.len()));
    }
    StringArray::new(OffsetBuffer::from_lengths(lengths), bytes.into(), None)
}

/// Which rows have a value of any point; `None`: all.
fn has_value(slice: &Slice, rows: &Range<usize>) -> Option<BooleanBuffer> {
    let mut any: Option<BooleanBuffer> = None;
    for cells in slice.points.iter().flatten() {
        let nulls = cells.values.array().nulls();
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0)?;
        let here = nulls.inner().slice(rows.start, rows.len());
        any = Some(match any {
            None => here,
            Some(any) => &any | &here,
        });
    }
    let has_value = any.unwrap_or_else(|| BooleanBuffer::new_unset(rows.len()));
    (has_value.count_set_bits() < rows.len()).then_some(has_value)
}
