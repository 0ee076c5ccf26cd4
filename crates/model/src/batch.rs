//! Rows of one product, accepted together: the unit that is stored.
//!
//! A batch is columnar and sparse. It costs memory in proportion to its cells, whatever the points
//! are: a message whose every row has a point of its own must not cost rows × points.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{DeviceKey, ElementName, Storage};

/// Stands for "no quality" in [`Column::quality`]; real ones are 0–9.
pub const NO_QUALITY: u8 = u8::MAX;

/// Which of two different values at one identity stays (`decisions.md` §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictPolicy {
    /// The one committed last.
    #[default]
    KeepLast,
    /// The one committed first.
    KeepFirst,
    /// The one with the greater quality number, no quality counting as the least; then the last.
    HigherQuality,
}

/// One value with its quality (0–9, or [`NO_QUALITY`]).
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Bool(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Text(Box<str>),
}

/// The values of a column, one per row that has the point.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Bool(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Text(Vec<Box<str>>),
}

impl Values {
    fn new(storage: Storage) -> Self {
        match storage {
            Storage::Bool => Self::Bool(Vec::new()),
            Storage::Int => Self::Int(Vec::new()),
            Storage::Long => Self::Long(Vec::new()),
            Storage::Float => Self::Float(Vec::new()),
            Storage::Double => Self::Double(Vec::new()),
            Storage::Text => Self::Text(Vec::new()),
        }
    }

    pub fn storage(&self) -> Storage {
        match self {
            Self::Bool(_) => Storage::Bool,
            Self::Int(_) => Storage::Int,
            Self::Long(_) => Storage::Long,
            Self::Float(_) => Storage::Float,
            Self::Double(_) => Storage::Double,
            Self::Text(_) => Storage::Text,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Bool(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::Long(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Double(v) => v.len(),
            Self::Text(v) => v.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index`, which must be below [`Values::len`].
    pub fn cell(&self, index: usize) -> Cell {
        match self {
            Self::Bool(v) => Cell::Bool(v[index]),
            Self::Int(v) => Cell::Int(v[index]),
            Self::Long(v) => Cell::Long(v[index]),
            Self::Float(v) => Cell::Float(v[index]),
            Self::Double(v) => Cell::Double(v[index]),
            Self::Text(v) => Cell::Text(v[index].clone()),
        }
    }

    fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Self::Bool(v), Cell::Bool(x)) => v.push(x),
            (Self::Int(v), Cell::Int(x)) => v.push(x),
            (Self::Long(v), Cell::Long(x)) => v.push(x),
            (Self::Float(v), Cell::Float(x)) => v.push(x),
            (Self::Double(v), Cell::Double(x)) => v.push(x),
            (Self::Text(v), Cell::Text(x)) => v.push(x),
            (values, cell) => {
                unreachable!(
                    "a cell {cell:?} is checked against its column {:?}",
                    values.storage()
                )
            }
        }
    }

    fn replace_last(&mut self, cell: Cell) {
        match self {
            Self::Bool(v) => drop(v.pop()),
            Self::Int(v) => drop(v.pop()),
            Self::Long(v) => drop(v.pop()),
            Self::Float(v) => drop(v.pop()),
            Self::Double(v) => drop(v.pop()),
            Self::Text(v) => drop(v.pop()),
        }
        self.push(cell);
    }
}

/// Which rows of the batch a column has values for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Value `i` belongs to row `i`.
    All,
    /// Value `i` belongs to row `rows[i]`; ascending, without repeats.
    Some(Vec<u32>),
}

/// The values of one point.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub point: ElementName,
    pub policy: ConflictPolicy,
    pub presence: Presence,
    pub values: Values,
    /// One per value where any value has a quality, else `None`.
    pub quality: Option<Vec<u8>>,
}

impl Column {
    /// The row that value `index` belongs to.
    pub fn row_of(&self, index: usize) -> usize {
        match &self.presence {
            Presence::All => index,
            Presence::Some(rows) => rows[index] as usize,
        }
    }

    pub fn quality_of(&self, index: usize) -> u8 {
        self.quality
            .as_ref()
            .map_or(NO_QUALITY, |quality| quality[index])
    }
}

/// Rows of one product in order of arrival. Two rows may name the same device and time: the later
/// row is the later version.
///
/// Invariants, kept by [`BatchBuilder`] and re-checked by whoever decodes one from a file:
/// `row_device` and `row_time` have one entry a row; a device index is below `devices.len()`;
/// a point stands in one column only; each column's lengths agree.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    pub devices: Vec<DeviceKey>,
    pub row_device: Vec<u32>,
    /// Event times, milliseconds since 1970 UTC.
    pub row_time: Vec<i64>,
    pub columns: Vec<Column>,
}

impl Batch {
    pub fn rows(&self) -> usize {
        self.row_time.len()
    }

    /// How many values it holds.
    pub fn cells(&self) -> usize {
        self.columns.iter().map(|column| column.values.len()).sum()
    }
}

/// Builds a batch row by row.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    batch: Batch,
    device_index: HashMap<DeviceKey, u32>,
    column_index: HashMap<ElementName, usize>,
}

impl BatchBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.batch.row_time.is_empty()
    }

    /// Starts a row; the cells that follow belong to it.
    pub fn row(&mut self, device: &DeviceKey, time_ms: i64) {
        let index = match self.device_index.get(device) {
            Some(index) => *index,
            None => {
                let index = index_u32(self.batch.devices.len());
                self.batch.devices.push(device.clone());
                self.device_index.insert(device.clone(), index);
                index
            }
        };
        self.batch.row_device.push(index);
        self.batch.row_time.push(time_ms);
    }

    /// Adds a value to the row begun last. The same point twice in a row: the last stays.
    ///
    /// The storage of a point is the same for all cells of a batch, and a row was begun.
    pub fn cell(&mut self, point: &ElementName, policy: ConflictPolicy, cell: Cell, quality: u8) {
        let row = index_u32(self.batch.row_time.len() - 1);
        let at = match self.column_index.get(point) {
            Some(at) => *at,
            None => {
                let at = self.batch.columns.len();
                self.column_index.insert(point.clone(), at);
                self.batch.columns.push(Column {
                    point: point.clone(),
                    policy,
                    presence: Presence::Some(Vec::new()),
                    values: Values::new(Storage::of(&cell)),
                    quality: None,
                });
                at
            }
        };
        let column = &mut self.batch.columns[at];
        let Presence::Some(rows) = &mut column.presence else {
            unreachable!("columns are sparse until they are built")
        };
        if rows.last() == Some(&row) {
            column.values.replace_last(cell);
            if let Some(known) = &mut column.quality {
                known.pop();
            }
        } else {
            rows.push(row);
            column.values.push(cell);
        }
        let before = column.values.len() - 1;
        match &mut column.quality {
            Some(known) => known.push(quality),
            None if quality == NO_QUALITY => {}
            None => {
                let mut known = vec![NO_QUALITY; before];
                known.push(quality);
                column.quality = Some(known);
            }
        }
    }

    pub fn build(mut self) -> Batch {
        let rows = self.batch.rows();
        for column in &mut self.batch.columns {
            if column.values.len() == rows {
                column.presence = Presence::All;
            }
        }
        self.batch
    }
}

fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a payload of at most 512 KiB holds fewer than 2^32 of anything")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str) -> ElementName {
        ElementName::new(name).unwrap()
    }

    fn device(key: &str) -> DeviceKey {
        DeviceKey::new(key).unwrap()
    }

    #[test]
    fn a_column_that_every_row_has_is_dense_and_the_others_stay_sparse() {
        let mut builder = BatchBuilder::new();
        for (row, key) in ["a", "b", "a"].into_iter().enumerate() {
            builder.row(&device(key), 10 * i64::try_from(row).unwrap());
            builder.cell(
                &point("P"),
                ConflictPolicy::KeepLast,
                Cell::Double(1.5),
                NO_QUALITY,
            );
            if row == 1 {
                builder.cell(&point("state"), ConflictPolicy::KeepLast, Cell::Int(4), 3);
            }
        }
        let batch = builder.build();
        assert_eq!(batch.devices.len(), 2);
        assert_eq!(batch.row_device, [0, 1, 0]);
        assert_eq!(batch.columns[0].presence, Presence::All);
        assert_eq!(batch.columns[1].presence, Presence::Some(vec![1]));
        assert_eq!(batch.columns[1].quality, Some(vec![3]));
        assert_eq!(batch.cells(), 4);
    }

    #[test]
    fn a_point_given_twice_in_a_row_keeps_the_last() {
        let mut builder = BatchBuilder::new();
        builder.row(&device("a"), 0);
        builder.cell(&point("P"), ConflictPolicy::KeepLast, Cell::Int(1), 2);
        builder.cell(
            &point("P"),
            ConflictPolicy::KeepLast,
            Cell::Int(2),
            NO_QUALITY,
        );
        let batch = builder.build();
        assert_eq!(batch.columns[0].values, Values::Int(vec![2]));
        assert_eq!(batch.columns[0].quality, Some(vec![NO_QUALITY]));
    }
}
