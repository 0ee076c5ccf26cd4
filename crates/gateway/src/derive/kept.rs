//! The values that a reduction keeps: its marks, beside the rows of the store that they are about.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, RecordBatch,
    cast::AsArray,
    new_null_array,
    types::{Int32Type, Int64Type},
};
use arrow_schema::{ArrowError, Field, Schema};
use arrow_select::{filter::filter_record_batch, interleave::interleave};

use super::{
    DEVICE, TIME,
    chunk::ChunkError,
    reader::Rows,
    reduce::KEPT,
    series::{Series, Work},
    shelf::ShelfError,
};

/// What a reduction says of each value of some rows: of each of its points a mark for each row, `None`
/// where it has not looked yet.
pub type Marked = Vec<Vec<Option<i32>>>;

/// The marks of a reduction, in the order of the rows that they are about.
pub struct Marks {
    rows: Rows,
    /// Where the marks of each point are, in the order of points.
    sources: Vec<String>,
    batch: Option<RecordBatch>,
    row: usize,
}

impl Marks {
    /// `rows` are those of the series, from where the store is read, by device, then time.
    pub fn new(rows: Rows, series: &Series) -> Self {
        let columns = series.columns().into_iter();
        Self {
            rows,
            sources: columns.map(|column| column.source).collect(),
            batch: None,
            row: 0,
        }
    }

    /// The marks of the rows of a slab; slabs come in order.
    ///
    /// # Errors
    /// The file of marks cannot be read, or the slab is none of the store's.
    pub fn of(&mut self, slab: &RecordBatch) -> Result<Marked, ShelfError> {
        let rows = slab.num_rows();
        let mut marked: Marked = vec![Vec::with_capacity(rows); self.sources.len()];
        for row in 0..rows {
            let (device, time_ms) = key(slab, row).ok_or_else(no_key)?;
            let is_found = self.find(device, time_ms)?;
            let found = self.batch.as_ref().filter(|_| is_found);
            for (source, marks) in self.sources.iter().zip(&mut marked) {
                marks.push(found.and_then(|batch| mark(batch, source, self.row)));
            }
        }
        Ok(marked)
    }

    /// Goes on to a row of the store; whether there are marks of it.
    fn find(&mut self, device: &str, time_ms: i64) -> Result<bool, ShelfError> {
        loop {
            let Some(batch) = self.batch.as_ref().filter(|b| self.row < b.num_rows()) else {
                (self.batch, self.row) = (self.rows.next().transpose()?, 0);
                match self.batch {
                    None => return Ok(false),
                    Some(_) => continue,
                }
            };
            match key(batch, self.row).cmp(&Some((device, time_ms))) {
                std::cmp::Ordering::Less => self.row += 1,
                std::cmp::Ordering::Greater => return Ok(false),
                std::cmp::Ordering::Equal => return Ok(true),
            }
        }
    }
}

fn no_key() -> ChunkError {
    ArrowError::SchemaError("rows have no device or no time".to_owned()).into()
}

fn key(batch: &RecordBatch, row: usize) -> Option<(&str, i64)> {
    let devices = batch.column_by_name(DEVICE)?.as_string_opt::<i32>()?;
    let times = batch
        .column_by_name(TIME)?
        .as_primitive_opt::<Int64Type>()?;
    Some((devices.value(row), times.value(row)))
}

fn mark(batch: &RecordBatch, source: &str, row: usize) -> Option<i32> {
    let marks = batch.column_by_name(source)?;
    let marks: &Int32Array = marks.as_primitive_opt::<Int32Type>()?;
    marks.is_valid(row).then(|| marks.value(row))
}

/// A slab without the values that are not kept, and without the rows that have none then. What is not
/// looked at yet is kept.
///
/// # Errors
/// The slab does not fit its own columns.
pub fn kept(
    slab: &RecordBatch,
    series: &Series,
    marked: &Marked,
) -> Result<RecordBatch, ArrowError> {
    let Work::Reduction { points, .. } = &series.work else {
        return Ok(slab.clone());
    };
    let columns = points
        .iter()
        .map(|point| backtide_store::value_column(&point.name));
    let marks: HashMap<String, &Vec<Option<i32>>> = columns.zip(marked).collect();
    let mut has_some = vec![false; slab.num_rows()];
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in slab.schema().fields().iter().zip(slab.columns()) {
        fields.push(Field::new(field.name(), field.data_type().clone(), true));
        let Some(marks) = marks.get(field.name()) else {
            columns.push(Arc::clone(column));
            continue;
        };
        let is_kept: Vec<bool> = marks
            .iter()
            .enumerate()
            .map(|(row, mark)| column.is_valid(row) && mark.is_none_or(|mark| mark & KEPT != 0))
            .collect();
        for (some, kept) in has_some.iter_mut().zip(&is_kept) {
            *some |= kept;
        }
        columns.push(masked(column, is_kept)?);
    }
    let masked = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    filter_record_batch(&masked, &BooleanArray::from(has_some))
}

/// A column without the values that are not kept.
fn masked(column: &ArrayRef, is_kept: Vec<bool>) -> Result<ArrayRef, ArrowError> {
    let empty = new_null_array(column.data_type(), 1);
    let picks: Vec<(usize, usize)> = is_kept
        .into_iter()
        .enumerate()
        .map(|(row, is_kept)| if is_kept { (0, row) } else { (1, 0) })
        .collect();
    interleave(&[&**column, &*empty], &picks)
}
