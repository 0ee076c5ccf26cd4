//! Rows of the store as windows of values, for [`super::reduce`]: one window of one device is held at a
//! time.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int32Type, Int64Type},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use backtide_store::value_column;

use super::{
    DEVICE, TIME,
    compute::Ended,
    reduce::{self, Value},
    series::{Series, Work},
};
use crate::{
    policy::Keep,
    query::aggregate::{AggregateError, Window, Windows},
};

/// A reduction under way.
pub(super) struct Reducer {
    windows: Windows,
    from_ms: i64,
    reach_ms: i64,
    rate_per_ms: Option<f64>,
    keep: Keep,
    points: Vec<Point>,
    schema: SchemaRef,
    device: Option<String>,
    window: Option<Window>,
    /// Of the window that is open.
    times: Vec<i64>,
}

struct Point {
    column: String,
    /// The row of each value among the times of the window, and the value.
    rows: Vec<usize>,
    values: Vec<Value>,
    /// The last value before the window.
    before: Option<Value>,
}

impl Reducer {
    /// Windows that begin before `from_ms` are read for what they end with.
    pub(super) fn new(series: &Series, from_ms: i64) -> Self {
        let (points, rate_per_ms, keep) = match &series.work {
            Work::Reduction {
                points,
                rate_per_ms,
                keep,
            } => (points.as_slice(), *rate_per_ms, *keep),
            Work::Rollup { .. } => (&[][..], None, Keep::All),
        };
        let mut fields = vec![
            Field::new(DEVICE, DataType::Utf8, false),
            Field::new(TIME, DataType::Int64, false),
        ];
        let columns = series.columns();
        fields.extend(
            columns
                .iter()
                .map(|c| Field::new(&c.source, DataType::Int32, true)),
        );
        let point = |point: &crate::query::AskedPoint| Point {
            column: value_column(&point.name),
            rows: Vec::new(),
            values: Vec::new(),
            before: None,
        };
        Self {
            windows: series.windows.clone(),
            from_ms,
            reach_ms: series.reach_ms,
            rate_per_ms,
            keep,
            points: points.iter().map(point).collect(),
            schema: Arc::new(Schema::new(fields)),
            device: None,
            window: None,
            times: Vec::new(),
        }
    }

    /// Takes in rows that follow those before by device, then time.
    pub(super) fn add(
        &mut self,
        slab: &RecordBatch,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let devices = slab.column_by_name(DEVICE);
        let devices = devices.and_then(|column| column.as_string_opt::<i32>());
        let times = slab.column_by_name(TIME);
        let times = times.and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(devices), Some(times)) = (devices, times) else {
            return Err(AggregateError::Type.into());
        };
        let column = |point: &Point| slab.column_by_name(&point.column).cloned();
        let columns: Vec<Option<ArrayRef>> = self.points.iter().map(column).collect();
        for row in 0..slab.num_rows() {
            let (device, time_ms) = (devices.value(row), times.value(row));
            if self.device.as_deref() != Some(device) {
                self.close(emit)?;
                self.device = Some(device.to_owned());
                self.points.iter_mut().for_each(|point| point.before = None);
            }
            if self.window.is_none_or(|window| time_ms >= window.end_ms) {
                self.close(emit)?;
                self.window = Some(self.windows.at(time_ms));
            }
            let at = self.times.len();
            self.times.push(time_ms);
            for (point, column) in self.points.iter_mut().zip(&columns) {
                let value = column.as_ref().and_then(|column| number(column, row));
                if let Some(value) = value {
                    point.rows.push(at);
                    point.values.push(Value { time_ms, value });
                }
            }
        }
        Ok(())
    }

    /// No rows follow.
    pub(super) fn finish(
        mut self,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        self.close(emit)
    }

    /// Writes the rows of the open window.
    fn close(
        &mut self,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let times = std::mem::take(&mut self.times);
        let (Some(window), Some(device)) = (self.window.take(), &self.device) else {
            return Ok(());
        };
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(times.iter().map(|_| device))),
            Arc::new(Int64Array::from(times.clone())),
        ];
        for point in &mut self.points {
            // Wherever a read begins, no older value counts.
            let is_near = |before: &Value| before.time_ms >= window.start_ms - self.reach_ms;
            let before = point.before.filter(is_near);
            let marks = reduce::marks(&point.values, before, self.rate_per_ms, self.keep);
            let mut cells = vec![None; times.len()];
            for (row, mark) in point.rows.iter().zip(marks) {
                cells[*row] = Some(mark);
            }
            arrays.push(Arc::new(Int32Array::from(cells)));
            point.before = point.values.last().copied().or(point.before);
            point.rows.clear();
            point.values.clear();
        }
        if window.start_ms < self.from_ms {
            return Ok(());
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays);
        emit(&batch.map_err(|_| AggregateError::Type)?)
    }
}

fn number(column: &ArrayRef, row: usize) -> Option<f64> {
    if !column.is_valid(row) {
        return None;
    }
    match column.data_type() {
        DataType::Int32 => Some(f64::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row) as f64),
        DataType::Float32 => Some(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => Some(column.as_primitive::<Float64Type>().value(row)),
        _ => None,
    }
}
