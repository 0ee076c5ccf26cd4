//! Computed rows become chunks: what was kept beside them stays, what is the same is not written.

use std::sync::Arc;

use arrow_array::{Array, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;

use super::{
    DEVICE, TIME,
    chunk::{self, ChunkError},
    series::{Series, Work},
    shelf::{Change, Chunk, Shelf, ShelfError},
};

/// Keeps the rows of one series.
pub(super) struct Keeper<'a> {
    pub(super) id: i64,
    pub(super) series: &'a Series,
    /// Rows of windows that begin before stay as they are, where there are some.
    pub(super) frozen_before_ms: Option<i64>,
    pub(super) now_ms: i64,
}

/// What was kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) rows: u64,
    pub(super) changes: u64,
}

/// Rows of one device and one chunk.
struct Part {
    device: String,
    number: i64,
    rows: Vec<RecordBatch>,
}

impl Keeper<'_> {
    /// Keeps batches of rows, which are in order of device, then time.
    pub(super) fn keep(
        &self,
        shelf: &mut Shelf,
        batches: &[RecordBatch],
        changes_max: u64,
    ) -> Result<Sum, ShelfError> {
        let schema = self.series.schema();
        let (mut chunks, mut changes, mut rows) = (Vec::new(), Vec::new(), 0);
        for part in self.parts(batches, &schema)? {
            let new = concat_batches(&schema, &part.rows).map_err(ChunkError::from)?;
            rows += new.num_rows() as u64;
            let body = shelf.chunk(self.id, &part.device, part.number)?;
            let merged = match body {
                None => new.clone(),
                Some(body) => {
                    let old = chunk::fit(&chunk::decode(&body)?, &schema)?;
                    let merged = chunk::merge(&old, &new, self.stays(&old, &new)?)?;
                    if merged == old {
                        continue;
                    }
                    merged
                }
            };
            self.tell(&part.device, &new, &mut changes)?;
            chunks.push(Chunk {
                device: part.device,
                number: part.number,
                body: chunk::encode(&merged)?,
            });
        }
        if !chunks.is_empty() {
            shelf.put(self.id, &chunks, &changes, changes_max)?;
        }
        let changes = changes.len() as u64;
        Ok(Sum { rows, changes })
    }

    fn parts(&self, batches: &[RecordBatch], schema: &SchemaRef) -> Result<Vec<Part>, ChunkError> {
        let mut parts: Vec<Part> = Vec::new();
        for batch in batches {
            let devices = batch.column_by_name(DEVICE);
            let devices = devices.and_then(|column| column.as_string_opt::<i32>());
            let (Some(devices), times) = (devices, chunk::times(batch)?) else {
                continue;
            };
            let fitted = chunk::fit(batch, schema)?;
            let mut row = 0;
            while row < batch.num_rows() {
                let (device, number) = (devices.value(row), self.series.chunk_at(times.value(row)));
                let until_ms = (number + 1).saturating_mul(self.series.chunk_ms);
                let begin = row;
                while row < batch.num_rows()
                    && times.value(row) < until_ms
                    && devices.value(row) == device
                {
                    row += 1;
                }
                let rows = fitted.slice(begin, row - begin);
                match parts.last_mut() {
                    Some(part) if part.device == device && part.number == number => {
                        part.rows.push(rows);
                    }
                    _ => parts.push(Part {
                        device: device.to_owned(),
                        number,
                        rows: vec![rows],
                    }),
                }
            }
        }
        Ok(parts)
    }

    /// Which rows stay although there are new ones: those of which values are gone by now. A value never
    /// goes but by retention, so a window that counts fewer than before is not what happened.
    fn stays<'r>(
        &self,
        old: &'r RecordBatch,
        new: &'r RecordBatch,
    ) -> Result<impl Fn(usize, usize) -> bool + use<'r>, ChunkError> {
        let counts: Vec<(Int64Array, Int64Array)> = match &self.series.work {
            Work::Reduction { .. } => Vec::new(),
            Work::Rollup { points, .. } => {
                let named = points
                    .iter()
                    .map(|(point, _)| format!("{}.count", point.name));
                let of = |rows: &RecordBatch, name: &str| {
                    let column = rows.column_by_name(name);
                    column.and_then(|column| column.as_primitive_opt::<Int64Type>().cloned())
                };
                let counts = named.filter_map(|name| Some((of(old, &name)?, of(new, &name)?)));
                counts.collect()
            }
        };
        let (times, frozen_before_ms) = (chunk::times(old)?, self.frozen_before_ms);
        Ok(move |old: usize, new: usize| {
            let is_frozen = frozen_before_ms.is_some_and(|before_ms| times.value(old) < before_ms);
            let count = |counts: &Int64Array, row: usize| match counts.is_valid(row) {
                true => counts.value(row),
                false => 0,
            };
            let mut counts = counts.iter();
            is_frozen || counts.any(|(was, is)| count(was, old) > count(is, new))
        })
    }

    /// Tells of a range, as one with that before where they touch.
    fn tell(
        &self,
        device: &str,
        new: &RecordBatch,
        changes: &mut Vec<Change>,
    ) -> Result<(), ChunkError> {
        let times = chunk::times(new)?.values();
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            return Ok(());
        };
        let (from_ms, to_ms) = match self.series.work {
            Work::Rollup { .. } => (*first, self.series.windows.at(*last).end_ms),
            Work::Reduction { .. } => (
                self.series.windows.at(*first).start_ms,
                self.series.windows.at(*last).end_ms,
            ),
        };
        match changes.last_mut() {
            Some(change) if change.device == device && change.to_ms >= from_ms => {
                change.to_ms = to_ms;
            }
            _ => changes.push(Change {
                sequence: 0,
                name: self.series.name.to_string(),
                product: self.series.product.key.to_string(),
                device: device.to_owned(),
                from_ms,
                to_ms,
                time_ms: self.now_ms,
            }),
        }
        Ok(())
    }
}

/// Columns of `_device` and `_time` are found by name in every batch.
pub(super) fn with_device(
    rows: &RecordBatch,
    device: &str,
    columns: &SchemaRef,
) -> Result<RecordBatch, ChunkError> {
    let fitted = chunk::fit(rows, columns)?;
    let mut fields = vec![arrow_schema::Field::new(
        DEVICE,
        arrow_schema::DataType::Utf8,
        false,
    )];
    fields.extend(columns.fields().iter().map(|field| field.as_ref().clone()));
    debug_assert_eq!(fields[1].name(), TIME);
    let names = arrow_array::StringArray::from_iter_values((0..rows.num_rows()).map(|_| device));
    let mut arrays: Vec<arrow_array::ArrayRef> = vec![Arc::new(names)];
    arrays.extend(fitted.columns().iter().cloned());
    let schema = Arc::new(arrow_schema::Schema::new(fields));
    Ok(RecordBatch::try_new(schema, arrays)?)
}
