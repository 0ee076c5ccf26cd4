//! The rows of an answer before they leave: filled where nothing was computed, and handed over a
//! batch at a time.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, cast::AsArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use backtide_model::{Cell, Storage};

use super::{AggregateError, Fill, Plan};
use crate::{
    limits::AGGREGATE_WAITING_MAX,
    query::{
        DEVICE, OutColumn, TIME,
        cells::{Cells, double},
        shape::data_type,
    },
};

/// Rows that wait, all columns alike.
#[derive(Debug)]
pub(super) struct Table {
    fill: Fill,
    batch_rows: usize,
    schema: SchemaRef,
    devices: Cells,
    times: Cells,
    columns: Vec<Column>,
    /// Rows of this device up to this time are not handed over: a former page had them.
    skip: Option<(Arc<str>, i64)>,
}

/// One function of one point.
#[derive(Debug)]
struct Column {
    is_filled: bool,
    /// As many as are known: a line is drawn through the others when its end is there.
    cells: Cells,
    /// The times of the rows behind them.
    open: Vec<i64>,
    /// The last result of this device, and its time.
    last: Option<(Cell, i64)>,
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
            is_filled: *is_filled,
            cells: Cells::new(column.storage),
            open: Vec::new(),
            last: None,
        };
        Self {
            fill: plan.fill,
            batch_rows: plan.batch_rows,
            schema: Arc::new(Schema::new(fields)),
            devices: Cells::new(Storage::Text),
            times: Cells::new(Storage::Long),
            columns: columns.iter().zip(is_filled).map(column).collect(),
            skip: plan.after.clone(),
        }
    }

    /// Adds a row; `cells` has one for each column.
    pub(super) fn push(
        &mut self,
        device: &str,
        time_ms: i64,
        cells: impl Iterator<Item = Option<Cell>>,
    ) {
        self.devices.push_text(device);
        self.times.push(Some(Cell::Long(time_ms)));
        let columns = self.columns.iter_mut().zip(cells);
        match self.fill {
            Fill::None => columns.for_each(|(column, cell)| column.cells.push(cell)),
            fill => columns.for_each(|(column, cell)| column.push(cell, time_ms, fill)),
        }
    }

    /// The rows of a device are complete: what has no result now gets none.
    pub(super) fn end_device(&mut self) {
        for column in &mut self.columns {
            column.end();
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
        let known = self.columns.iter().map(|column| column.cells.len()).min();
        let complete = known.unwrap_or(rows);
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

    fn take(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let mut arrays = vec![self.devices.take(rows), self.times.take(rows)];
        let columns = self.columns.iter_mut();
        arrays.extend(columns.map(|column| column.cells.take(rows)));
        let skipped = self.skipped(&arrays);
        if skipped < rows {
            self.skip = None;
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        Ok(batch.slice(skipped, rows - skipped))
    }

    /// Rows are in order, so what a former page had comes first.
    fn skipped(&self, arrays: &[ArrayRef]) -> usize {
        let Some((device, until_ms)) = &self.skip else {
            return 0;
        };
        let devices: &StringArray = arrays[0].as_string();
        let times: &Int64Array = arrays[1].as_primitive();
        let rows = devices.iter().zip(times.values());
        rows.take_while(|(of, time_ms)| *of == Some(device) && **time_ms <= *until_ms)
            .count()
    }
}

impl Column {
    fn push(&mut self, cell: Option<Cell>, time_ms: i64, fill: Fill) {
        match (cell, fill) {
            (Some(cell), Fill::Linear) if self.is_filled => {
                self.bridge(&cell, time_ms);
                self.last = Some((cell.clone(), time_ms));
                self.cells.push(Some(cell));
            }
            (None, Fill::Linear) if self.last.is_some() => self.open.push(time_ms),
            (Some(cell), Fill::Previous) if self.is_filled => {
                self.last = Some((cell.clone(), time_ms));
                self.cells.push(Some(cell));
            }
            (None, Fill::Previous) => {
                let held = self.last.as_ref().map(|(cell, _)| cell.clone());
                self.cells.push(held);
            }
            (cell, _) => self.cells.push(cell),
        }
    }

    /// Draws a line through the rows between the last result and this one.
    fn bridge(&mut self, cell: &Cell, time_ms: i64) {
        let ends = self.last.as_ref().and_then(|(last, last_ms)| {
            let begin = double(last)?;
            Some((begin, double(cell)? - begin, *last_ms))
        });
        for at_ms in self.open.drain(..) {
            let between = ends.map(|(begin, rise, last_ms)| {
                let share = (at_ms - last_ms) as f64 / (time_ms - last_ms) as f64;
                Cell::Double(begin + rise * share)
            });
            self.cells.push(between);
        }
    }

    fn end(&mut self) {
        self.last = None;
        for _ in self.open.drain(..) {
            self.cells.push(None);
        }
    }
}
