//! The values of one point out of a slab, one by one.

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, UInt8Array,
};
use backtide_model::{Cell, NO_QUALITY};

use super::RowError;

/// A value of a point at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Milliseconds since 1970 UTC.
    pub time_ms: i64,
    pub cell: Cell,
    /// 0–9, or [`NO_QUALITY`].
    pub quality: u8,
}

impl Reading {
    /// Its value as a number, where it is one.
    pub fn number(&self) -> Option<f64> {
        number(&self.cell)
    }
}

/// A value as a number, where it is one. A 64-bit integer beyond 2^53 loses its last digits.
pub fn number(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Int(value) => Some(f64::from(*value)),
        #[expect(clippy::cast_precision_loss, reason = "said above")]
        Cell::Long(value) => Some(*value as f64),
        Cell::Float(value) => Some(f64::from(*value)),
        Cell::Double(value) => Some(*value),
        Cell::Bool(_) | Cell::Text(_) => None,
    }
}

/// The values of `point` in the rows of a slab, in their order; rows without it are passed over.
///
/// # Errors
/// [`RowError`]: the store broke its contract.
pub fn readings(slab: &RecordBatch, point: &str) -> Result<Vec<Reading>, RowError> {
    let wrong = |column: &str| RowError::of(column, slab.column_by_name(column));
    let times = slab
        .column_by_name("_time")
        .and_then(|column| column.as_any().downcast_ref::<Int64Array>())
        .ok_or_else(|| wrong("_time"))?;
    let Some(values) = slab.column_by_name(point) else {
        return Ok(Vec::new());
    };
    let quality_name = format!("{point}.quality");
    let qualities = slab
        .column_by_name(&quality_name)
        .map(|column| {
            column
                .as_any()
                .downcast_ref::<UInt8Array>()
                .ok_or_else(|| wrong(&quality_name))
        })
        .transpose()?;
    let cells = Cells::of(values).ok_or_else(|| wrong(point))?;
    let present = (0..slab.num_rows()).filter(|row| values.is_valid(*row));
    Ok(present
        .map(|row| Reading {
            time_ms: times.value(row),
            cell: cells.at(row),
            quality: qualities
                .filter(|qualities| qualities.is_valid(row))
                .map_or(NO_QUALITY, |qualities| qualities.value(row)),
        })
        .collect())
}

/// A column by what it holds.
enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int32Array),
    Long(&'a Int64Array),
    Float(&'a Float32Array),
    Double(&'a Float64Array),
    Text(&'a StringArray),
}

impl<'a> Cells<'a> {
    fn of(array: &'a ArrayRef) -> Option<Self> {
        let any = array.as_any();
        None.or_else(|| any.downcast_ref().map(Self::Double))
            .or_else(|| any.downcast_ref().map(Self::Int))
            .or_else(|| any.downcast_ref().map(Self::Float))
            .or_else(|| any.downcast_ref().map(Self::Long))
            .or_else(|| any.downcast_ref().map(Self::Bool))
            .or_else(|| any.downcast_ref().map(Self::Text))
    }

    fn at(&self, row: usize) -> Cell {
        match self {
            Self::Bool(values) => Cell::Bool(values.value(row)),
            Self::Int(values) => Cell::Int(values.value(row)),
            Self::Long(values) => Cell::Long(values.value(row)),
            Self::Float(values) => Cell::Float(values.value(row)),
            Self::Double(values) => Cell::Double(values.value(row)),
            Self::Text(values) => Cell::Text(values.value(row).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn rows_without_the_point_are_passed_over_and_qualities_stay_with_their_values() {
        let column = |array: ArrayRef| array;
        let slab = RecordBatch::try_from_iter([
            ("_time", column(Arc::new(Int64Array::from(vec![1, 2, 3])))),
            (
                "P",
                column(Arc::new(Float64Array::from(vec![
                    Some(1.5),
                    None,
                    Some(2.5),
                ]))),
            ),
            (
                "P.quality",
                column(Arc::new(UInt8Array::from(vec![Some(3), None, None]))),
            ),
        ])
        .unwrap();
        let reading = |time_ms, value, quality| Reading {
            time_ms,
            cell: Cell::Double(value),
            quality,
        };
        assert_eq!(
            readings(&slab, "P").unwrap(),
            [reading(1, 1.5, 3), reading(3, 2.5, NO_QUALITY)]
        );
        assert_eq!(readings(&slab, "Q").unwrap(), []);
    }
}
