//! Rows of one product, accepted together: the unit that is stored.
//!
//! A batch is columnar and sparse. It costs memory in proportion to its cells, whatever the points
//! are: a message whose every row has a point of its own must not cost rows × points.

use std::{collections::HashMap, hash::Hash};

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
            Storage::Bool => Self::Bool(Vec::with_capacity(1)),
            Storage::Int => Self::Int(Vec::with_capacity(1)),
            Storage::Long => Self::Long(Vec::with_capacity(1)),
            Storage::Float => Self::Float(Vec::with_capacity(1)),
            Storage::Double => Self::Double(Vec::with_capacity(1)),
            Storage::Text => Self::Text(Vec::with_capacity(1)),
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
    device_places: Places<DeviceKey>,
    column_places: Places<ElementName>,
}

impl BatchBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.batch.row_time.is_empty()
    }

    /// Says how many points the first row has: the batch then takes no more memory than it needs.
    pub fn expect_points(&mut self, points: usize) {
        if self.is_empty() {
            self.batch.columns.reserve_exact(points);
        }
    }

    /// Starts a row; the cells that follow belong to it.
    pub fn row(&mut self, device: &DeviceKey, time_ms: i64) {
        if self.is_empty() {
            // Most messages of small devices have one row, and wait in memory for long.
            self.batch.devices.reserve_exact(1);
            self.batch.row_device.reserve_exact(1);
            self.batch.row_time.reserve_exact(1);
        }
        let devices = &mut self.batch.devices;
        let place = self.device_places.find(device, devices, |known| known);
        let place = place.unwrap_or_else(|| {
            devices.push(device.clone());
            self.device_places.added(devices, DeviceKey::clone)
        });
        self.batch.row_device.push(index_u32(place));
        self.batch.row_time.push(time_ms);
    }

    /// Adds a value to the row begun last. The same point twice in a row: the last stays.
    ///
    /// The storage of a point is the same for all cells of a batch, and a row was begun.
    pub fn cell(&mut self, point: &ElementName, policy: ConflictPolicy, cell: Cell, quality: u8) {
        let row = self.batch.row_time.len() - 1;
        let columns = &mut self.batch.columns;
        let place = self
            .column_places
            .find(point, columns, |known| &known.point);
        let place = place.unwrap_or_else(|| {
            columns.push(Column::begun(point, policy, Storage::of(&cell), row));
            self.column_places
                .added(columns, |column| column.point.clone())
        });
        columns[place].put(row, cell, quality);
    }

    pub fn build(mut self) -> Batch {
        let rows = self.batch.rows();
        for column in &mut self.batch.columns {
            if column.values.len() < rows {
                column.rows_mut();
            }
        }
        self.batch
    }
}

impl Column {
    /// A column whose first value belongs to `row`. It counts as dense as long as no row lacks it.
    fn begun(point: &ElementName, policy: ConflictPolicy, storage: Storage, row: usize) -> Self {
        Self {
            point: point.clone(),
            policy,
            presence: match row {
                0 => Presence::All,
                _ => Presence::Some(Vec::new()),
            },
            values: Values::new(storage),
            quality: None,
        }
    }

    fn put(&mut self, row: usize, cell: Cell, quality: u8) {
        let count = self.values.len();
        if count > 0 && self.row_of(count - 1) == row {
            self.values.replace_last(cell);
            if let Some(known) = &mut self.quality {
                known.pop();
            }
        } else {
            if self.presence != Presence::All || count != row {
                self.rows_mut().push(index_u32(row));
            }
            self.values.push(cell);
        }
        match &mut self.quality {
            Some(known) => known.push(quality),
            None if quality == NO_QUALITY => {}
            None => {
                let mut known = vec![NO_QUALITY; self.values.len() - 1];
                known.push(quality);
                self.quality = Some(known);
            }
        }
    }

    /// The rows of its values, from now on written out.
    fn rows_mut(&mut self) -> &mut Vec<u32> {
        if self.presence == Presence::All {
            let rows = 0..index_u32(self.values.len());
            self.presence = Presence::Some(rows.collect());
        }
        match &mut self.presence {
            Presence::Some(rows) => rows,
            Presence::All => unreachable!("written out above"),
        }
    }
}

/// So many names are compared one by one; an index of more is worth its memory.
const FEW: usize = 16;

/// Where each of some names stands in a list. Rows repeat each other, so that a name is looked for
/// after the one before first.
#[derive(Debug)]
struct Places<N> {
    last: usize,
    /// Empty as long as the names are few.
    index: HashMap<N, usize>,
}

impl<N> Default for Places<N> {
    fn default() -> Self {
        Self {
            last: 0,
            index: HashMap::new(),
        }
    }
}

impl<N: Eq + Hash> Places<N> {
    fn find<T>(&mut self, name: &N, known: &[T], name_of: impl Fn(&T) -> &N) -> Option<usize> {
        let stands_at = |at: usize| known.get(at).is_some_and(|known| name_of(known) == name);
        let next = if self.last + 1 < known.len() {
            self.last + 1
        } else {
            0
        };
        let found = if stands_at(next) {
            Some(next)
        } else if stands_at(self.last) {
            Some(self.last)
        } else if known.len() <= FEW {
            known.iter().position(|known| name_of(known) == name)
        } else {
            self.index.get(name).copied()
        };
        self.last = found.unwrap_or(self.last);
        found
    }

    /// The last of `known` is new.
    fn added<T>(&mut self, known: &[T], name_of: impl Fn(&T) -> N) -> usize {
        let unindexed = match known.len() {
            0..=FEW => known.len(),
            _ if self.index.is_empty() => 0,
            count => count - 1,
        };
        for (at, known) in known.iter().enumerate().skip(unindexed) {
            self.index.insert(name_of(known), at);
        }
        self.last = known.len() - 1;
        self.last
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
    fn a_batch_has_each_value_where_it_was_put_however_many_points_and_devices_there_are() {
        let mut builder = BatchBuilder::new();
        let mut put = Vec::new();
        for row in 0..60_u32 {
            let key = format!("d{}", row * 7 % 23);
            builder.row(&device(&key), i64::from(row));
            for step in 0..row % 41 {
                let name = format!("p{}", (row + step * 5) % 37);
                let value = row * 100 + step;
                builder.cell(
                    &point(&name),
                    ConflictPolicy::KeepLast,
                    Cell::Long(i64::from(value)),
                    if value % 3 == 0 { 4 } else { NO_QUALITY },
                );
                put.retain(|(known_row, _, known, _)| (*known_row, known) != (row, &name));
                put.push((row, key.clone(), name, value));
            }
        }
        let batch = builder.build();
        let mut found = Vec::new();
        for column in &batch.columns {
            for index in 0..column.values.len() {
                let row = column.row_of(index);
                let Cell::Long(value) = column.values.cell(index) else {
                    panic!("a column of another type")
                };
                let quality = if value % 3 == 0 { 4 } else { NO_QUALITY };
                assert_eq!(column.quality_of(index), quality);
                let key = &batch.devices[batch.row_device[row] as usize];
                let name = column.point.as_str().to_owned();
                let (row, value) = (u32::try_from(row).unwrap(), u32::try_from(value).unwrap());
                found.push((row, key.as_str().to_owned(), name, value));
            }
        }
        put.sort();
        found.sort();
        assert_eq!(found, put);
        assert_eq!(batch.devices.len(), 23);
        assert_eq!(batch.columns.len(), 37);
    }

    #[test]
    fn a_point_that_the_last_rows_lack_stays_sparse() {
        let mut builder = BatchBuilder::new();
        for row in 0..3 {
            builder.row(&device("a"), row);
            if row < 2 {
                let cell = Cell::Int(1);
                builder.cell(&point("P"), ConflictPolicy::KeepLast, cell, NO_QUALITY);
            }
        }
        assert_eq!(
            builder.build().columns[0].presence,
            Presence::Some(vec![0, 1])
        );
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
