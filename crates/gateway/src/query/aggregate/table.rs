//! The rows of an answer before they leave: filled where nothing was computed, and handed over a
//! batch at a time.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use backtide_model::{Cell, Storage};

use super::{AggregateError, Fill, Plan};
use crate::{
    limits::AGGREGATE_WAITING_MAX,
    query::{
        DEVICE, OutColumn, TIME,
        cells::{array_of, double},
        shape::data_type,
    },
};

/// Rows that wait, all columns alike.
#[derive(Debug)]
pub(super) struct Table {
    fill: Fill,
    batch_rows: usize,
    schema: SchemaRef,
    devices: Vec<Arc<str>>,
    times: Vec<i64>,
    columns: Vec<Column>,
    /// Rows of this device up to this time are not handed over: a former page had them.
    skip: Option<(Arc<str>, i64)>,
}

/// One function of one point.
#[derive(Debug)]
struct Column {
    storage: Storage,
    is_filled: bool,
    cells: Vec<Option<Cell>>,
    /// The last result of this device, and its row; `None` once that row has left.
    last: Option<(Cell, i64, Option<usize>)>,
}

impl Table {
    pub(super) fn new(plan: &Plan, columns: &[OutColumn], is_filled: &[bool]) -> Self {
        let mut fields = vec![
            Field::new(DEVICE, DataType::Utf8, false),
            Field::new(TIME, DataType::Int64, false),
        ];
        let named = columns.iter();
        fields.extend(named.map(|c| Field::new(&c.name, data_type(c.storage), true)));
        let column = |(column, is_filled): (&OutColumn, &bool)| Column {
            storage: column.storage,
            is_filled: *is_filled,
            cells: Vec::new(),
            last: None,
        };
        Self {
            fill: plan.fill,
            batch_rows: plan.batch_rows,
            schema: Arc::new(Schema::new(fields)),
            devices: Vec::new(),
            times: Vec::new(),
            columns: columns.iter().zip(is_filled).map(column).collect(),
            skip: plan.after.clone(),
        }
    }

    /// Adds a row; `cells` has one for each column.
    pub(super) fn push(
        &mut self,
        device: &Arc<str>,
        time_ms: i64,
        cells: impl Iterator<Item = Option<Cell>>,
    ) {
        self.devices.push(Arc::clone(device));
        self.times.push(time_ms);
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell, time_ms, self.fill, &self.times);
        }
    }

    /// The rows of a device are complete: what has no result now gets none.
    pub(super) fn end_device(&mut self) {
        for column in &mut self.columns {
            column.last = None;
        }
    }

    /// Hands over what is complete once it is worth it, or all of it.
    pub(super) fn hand_over<E: From<AggregateError>>(
        &mut self,
        all: bool,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let rows = self.times.len();
        if rows == 0 || (!all && rows < self.batch_rows) {
            return Ok(());
        }
        let complete = match self.fill {
            Fill::Linear if !all => self.complete(),
            _ => rows,
        };
        if complete == 0 || (!all && complete < self.batch_rows) {
            return match rows * self.columns.len() > AGGREGATE_WAITING_MAX {
                true => Err(AggregateError::Waiting.into()),
                false => Ok(()),
            };
        }
        let batch = self.take(complete).map_err(|_| AggregateError::Type)?;
        match batch.num_rows() {
            0 => Ok(()),
            _ => emit(&batch),
        }
    }

    /// Rows whose gaps are filled, or will never be.
    fn complete(&self) -> usize {
        let rows = self.times.len();
        let of_column = |column: &Column| match &column.last {
            // What comes next fills what is after it.
            Some((_, _, Some(row))) if column.is_filled => row + 1,
            Some((_, _, None)) if column.is_filled => 0,
            _ => rows,
        };
        self.columns.iter().map(of_column).min().unwrap_or(rows)
    }

    fn take(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let devices: Vec<Arc<str>> = self.devices.drain(..rows).collect();
        let times: Vec<i64> = self.times.drain(..rows).collect();
        // Rows are in order, so what is skipped comes first.
        let skipped = match &self.skip {
            None => 0,
            Some((device, time_ms)) => {
                let rows = devices.iter().zip(&times);
                rows.take_while(|(of, at)| *of == device && *at <= time_ms)
                    .count()
            }
        };
        if skipped < rows {
            self.skip = None;
        }
        let names = devices.iter().map(|device| &**device);
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(names)),
            Arc::new(Int64Array::from(times)),
        ];
        for column in &mut self.columns {
            arrays.push(column.take(rows));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        Ok(batch.slice(skipped, rows - skipped))
    }
}

impl Column {
    fn push(&mut self, cell: Option<Cell>, time_ms: i64, fill: Fill, times: &[i64]) {
        let row = self.cells.len();
        match (cell, fill) {
            (Some(cell), Fill::Linear) if self.is_filled => {
                self.bridge(&cell, time_ms, times);
                self.last = Some((cell.clone(), time_ms, Some(row)));
                self.cells.push(Some(cell));
            }
            (Some(cell), Fill::Previous) if self.is_filled => {
                self.last = Some((cell.clone(), time_ms, Some(row)));
                self.cells.push(Some(cell));
            }
            (None, Fill::Previous) if self.is_filled => {
                let held = self.last.as_ref().map(|(cell, _, _)| cell.clone());
                self.cells.push(held);
            }
            (cell, _) => self.cells.push(cell),
        }
    }

    /// Draws a line through the rows between the last result and this one.
    fn bridge(&mut self, cell: &Cell, time_ms: i64, times: &[i64]) {
        let Some((last, last_ms, row)) = &self.last else {
            return;
        };
        let (Some(begin), Some(end)) = (double(last), double(cell)) else {
            return;
        };
        let first = row.map_or(0, |row| row + 1);
        let span_ms = (time_ms - last_ms) as f64;
        for (cell, at_ms) in self.cells.iter_mut().zip(times).skip(first) {
            let share = (at_ms - last_ms) as f64 / span_ms;
            *cell = Some(Cell::Double(begin + (end - begin) * share));
        }
    }

    fn take(&mut self, rows: usize) -> ArrayRef {
        let cells: Vec<Option<Cell>> = self.cells.drain(..rows).collect();
        if let Some((_, _, row)) = &mut self.last {
            *row = row.and_then(|row| row.checked_sub(rows));
        }
        array_of(self.storage, &cells)
    }
}
