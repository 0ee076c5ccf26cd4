//! The cells of one point in a stretch of rows, as arrow arrays.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray,
    UInt8Array, UInt64Array,
};
use arrow_schema::DataType;
use backtide_model::{Cell, NO_QUALITY, Storage};

use super::fold::{Rule, Side};

pub(super) fn data_type(storage: Storage) -> DataType {
    match storage {
        Storage::Bool => DataType::Boolean,
        Storage::Int => DataType::Int32,
        Storage::Long => DataType::Int64,
        Storage::Float => DataType::Float32,
        Storage::Double => DataType::Float64,
        Storage::Text => DataType::Utf8,
    }
}

pub(super) fn storage(data_type: &DataType) -> Option<Storage> {
    let all = [
        Storage::Bool,
        Storage::Int,
        Storage::Long,
        Storage::Float,
        Storage::Double,
        Storage::Text,
    ];
    all.into_iter()
        .find(|storage| self::data_type(*storage) == *data_type)
}

/// Values of one storage; null where a row has none.
#[derive(Debug, Clone)]
pub(super) enum Typed {
    Bool(BooleanArray),
    Int(Int32Array),
    Long(Int64Array),
    Float(Float32Array),
    Double(Float64Array),
    Text(StringArray),
}

impl Typed {
    /// `None` where the array is of no storage.
    pub(super) fn new(array: &dyn Array) -> Option<Self> {
        let any = array.as_any();
        Some(match array.data_type() {
            DataType::Boolean => Self::Bool(any.downcast_ref::<BooleanArray>()?.clone()),
            DataType::Int32 => Self::Int(any.downcast_ref::<Int32Array>()?.clone()),
            DataType::Int64 => Self::Long(any.downcast_ref::<Int64Array>()?.clone()),
            DataType::Float32 => Self::Float(any.downcast_ref::<Float32Array>()?.clone()),
            DataType::Float64 => Self::Double(any.downcast_ref::<Float64Array>()?.clone()),
            DataType::Utf8 => Self::Text(any.downcast_ref::<StringArray>()?.clone()),
            _ => return None,
        })
    }

    pub(super) fn array(&self) -> &dyn Array {
        match self {
            Self::Bool(array) => array,
            Self::Int(array) => array,
            Self::Long(array) => array,
            Self::Float(array) => array,
            Self::Double(array) => array,
            Self::Text(array) => array,
        }
    }

    pub(super) fn to_array(&self) -> ArrayRef {
        match self {
            Self::Bool(array) => Arc::new(array.clone()),
            Self::Int(array) => Arc::new(array.clone()),
            Self::Long(array) => Arc::new(array.clone()),
            Self::Float(array) => Arc::new(array.clone()),
            Self::Double(array) => Arc::new(array.clone()),
            Self::Text(array) => Arc::new(array.clone()),
        }
    }

    pub(super) fn same(&self, row: usize, other: &Self, other_row: usize) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.value(row) == b.value(other_row),
            (Self::Int(a), Self::Int(b)) => a.value(row) == b.value(other_row),
            (Self::Long(a), Self::Long(b)) => a.value(row) == b.value(other_row),
            (Self::Float(a), Self::Float(b)) => {
                a.value(row).to_bits() == b.value(other_row).to_bits()
            }
            (Self::Double(a), Self::Double(b)) => {
                a.value(row).to_bits() == b.value(other_row).to_bits()
            }
            (Self::Text(a), Self::Text(b)) => a.value(row) == b.value(other_row),
            _ => false,
        }
    }

    pub(super) fn cell(&self, row: usize) -> Cell {
        match self {
            Self::Bool(array) => Cell::Bool(array.value(row)),
            Self::Int(array) => Cell::Int(array.value(row)),
            Self::Long(array) => Cell::Long(array.value(row)),
            Self::Float(array) => Cell::Float(array.value(row)),
            Self::Double(array) => Cell::Double(array.value(row)),
            Self::Text(array) => Cell::Text(array.value(row).into()),
        }
    }
}

/// Values with all that belongs to them. Every array has one element a row.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    pub(super) values: Typed,
    pub(super) quality: Option<UInt8Array>,
    /// The commit of a cell, where it is not its row's.
    pub(super) sequence: Option<UInt64Array>,
    pub(super) rules: Option<UInt8Array>,
}

impl Cells {
    pub(super) fn has(&self, row: usize) -> bool {
        self.values.array().is_valid(row)
    }

    /// Every row has a value, of its row's commit.
    pub(super) fn is_plain(&self) -> bool {
        self.sequence.is_none() && self.values.array().null_count() == 0
    }

    /// 0–9 or [`NO_QUALITY`].
    pub(super) fn quality(&self, row: usize) -> u8 {
        match &self.quality {
            Some(quality) if quality.is_valid(row) => quality.value(row),
            _ => NO_QUALITY,
        }
    }

    /// `base` is the sequence of the row.
    pub(super) fn sequence(&self, row: usize, base: u64) -> u64 {
        match &self.sequence {
            Some(sequence) if sequence.is_valid(row) => sequence.value(row),
            _ => base,
        }
    }

    pub(super) fn rule(&self, row: usize) -> Rule {
        match &self.rules {
            Some(rules) if rules.is_valid(row) => Rule::from_file(rules.value(row)),
            _ => Rule::Last,
        }
    }

    /// `base` is the sequence of the row.
    pub(super) fn side(&self, row: usize, base: u64) -> Side {
        Side {
            rule: self.rule(row),
            quality: self.quality(row),
            order: self.sequence(row, base),
        }
    }

    /// Equal in value, floats by their bits, and in quality.
    pub(super) fn same(&self, row: usize, other: &Self, other_row: usize) -> bool {
        self.values.same(row, &other.values, other_row)
            && self.quality(row) == other.quality(other_row)
    }

    pub(super) fn cell(&self, row: usize) -> Cell {
        self.values.cell(row)
    }
}

/// Equal in value, floats by their bits.
pub(super) fn same_cell(a: &Cell, b: &Cell) -> bool {
    match (a, b) {
        (Cell::Float(a), Cell::Float(b)) => a.to_bits() == b.to_bits(),
        (Cell::Double(a), Cell::Double(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

/// A version on its own, out of any array.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Version {
    pub(super) sequence: u64,
    pub(super) rule: Rule,
    pub(super) quality: u8,
    pub(super) cell: Cell,
}

impl Version {
    pub(super) fn side(&self) -> Side {
        Side {
            rule: self.rule,
            quality: self.quality,
            order: self.sequence,
        }
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        self.quality == other.quality && same_cell(&self.cell, &other.cell)
    }
}
