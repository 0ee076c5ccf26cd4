//! Cells of columns, one at a time: where rows are few, or are turned.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray,
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

/// A column of this storage; cells of another one are absent, but that numbers become longs and
/// doubles.
pub(super) fn array_of(storage: Storage, cells: &[Option<Cell>]) -> ArrayRef {
    macro_rules! array {
        ($array:ty, $cell:ident) => {
            Arc::new(<$array>::from_iter(cells.iter().map(|cell| match cell {
                Some(Cell::$cell(value)) => Some(*value),
                _ => None,
            })))
        };
    }
    match storage {
        Storage::Bool => array!(BooleanArray, Bool),
        Storage::Int => array!(Int32Array, Int),
        Storage::Float => array!(Float32Array, Float),
        Storage::Long => {
            let longs = cells.iter().map(|cell| match cell {
                Some(Cell::Int(value)) => Some(i64::from(*value)),
                Some(Cell::Long(value)) => Some(*value),
                _ => None,
            });
            Arc::new(Int64Array::from_iter(longs))
        }
        Storage::Double => {
            let doubles = cells.iter().map(|cell| cell.as_ref().and_then(double));
            Arc::new(Float64Array::from_iter(doubles))
        }
        Storage::Text => {
            let texts = cells.iter().map(|cell| match cell {
                Some(Cell::Text(text)) => Some(&**text),
                _ => None,
            });
            Arc::new(StringArray::from_iter(texts))
        }
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
