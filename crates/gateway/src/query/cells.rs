//! Cells of columns, one at a time: where rows are few, or are turned.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef,
    builder::{
        ArrayBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder,
        StringBuilder,
    },
    cast::AsArray,
    types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type},
};
use arrow_schema::DataType;
use backtide_model::{Cell, Storage};

/// The value of a row, if it has one. Qualities are whole numbers.
pub(super) fn cell_of(array: &ArrayRef, row: usize) -> Option<Cell> {
    if !array.is_valid(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => Cell::Long(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => Cell::Float(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::UInt8 => Cell::Int(i32::from(array.as_primitive::<UInt8Type>().value(row))),
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).into()),
        _ => return None,
    })
}

/// A column that grows by a cell at a time, and gives its first rows away.
#[derive(Debug)]
pub(super) enum Cells {
    Bool(BooleanBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Text(StringBuilder),
}

/// Calls the same on whichever it is.
macro_rules! each {
    ($cells:expr, $builder:ident => $call:expr) => {
        match $cells {
            Cells::Bool($builder) => $call,
            Cells::Int($builder) => $call,
            Cells::Long($builder) => $call,
            Cells::Float($builder) => $call,
            Cells::Double($builder) => $call,
            Cells::Text($builder) => $call,
        }
    };
}

impl Cells {
    pub(super) fn new(storage: Storage) -> Self {
        match storage {
            Storage::Bool => Self::Bool(BooleanBuilder::new()),
            Storage::Int => Self::Int(Int32Builder::new()),
            Storage::Long => Self::Long(Int64Builder::new()),
            Storage::Float => Self::Float(Float32Builder::new()),
            Storage::Double => Self::Double(Float64Builder::new()),
            Storage::Text => Self::Text(StringBuilder::new()),
        }
    }

    pub(super) fn len(&self) -> usize {
        each!(self, builder => builder.len())
    }

    /// A cell of another storage is absent, but that numbers become longs and doubles.
    pub(super) fn push(&mut self, cell: Option<Cell>) {
        match (self, cell) {
            (Self::Double(builder), Some(Cell::Double(value))) => builder.append_value(value),
            (Self::Long(builder), Some(Cell::Long(value))) => builder.append_value(value),
            (Self::Float(builder), Some(Cell::Float(value))) => builder.append_value(value),
            (Self::Int(builder), Some(Cell::Int(value))) => builder.append_value(value),
            (Self::Bool(builder), Some(Cell::Bool(value))) => builder.append_value(value),
            (Self::Text(builder), Some(Cell::Text(value))) => builder.append_value(value),
            (Self::Long(builder), Some(Cell::Int(value))) => builder.append_value(value.into()),
            (Self::Double(builder), cell) => builder.append_option(cell.as_ref().and_then(double)),
            (cells, _) => each!(cells, builder => builder.append_null()),
        }
    }

    pub(super) fn push_text(&mut self, text: &str) {
        match self {
            Self::Text(builder) => builder.append_value(text),
            cells => each!(cells, builder => builder.append_null()),
        }
    }

    /// The first rows, which are taken out.
    pub(super) fn take(&mut self, rows: usize) -> ArrayRef {
        each!(self, builder => {
            let all = builder.finish();
            for cell in all.iter().skip(rows) {
                builder.append_option(cell);
            }
            Arc::new(all.slice(0, rows))
        })
    }
}

/// A number as a double; `None` for texts.
pub(super) fn double(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Bool(value) => Some(f64::from(u8::from(*value))),
        Cell::Int(value) => Some(f64::from(*value)),
        Cell::Long(value) => Some(*value as f64),
        // As it is written: 0.1 stays 0.1.
        Cell::Float(value) => zmij::Buffer::new().format(*value).parse().ok(),
        Cell::Double(value) => Some(*value),
        Cell::Text(_) => None,
    }
}
