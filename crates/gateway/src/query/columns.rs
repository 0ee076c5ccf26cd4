//! The columns of an answer, whoever made it: the store's slabs and folds have the same shape.

use backtide_model::Storage;
use backtide_store::{quality_column, value_column};

use super::AskedPoint;

/// Where a slab has the device of each row.
pub(super) const DEVICE: &str = "_device";
/// Where it has the time, milliseconds since 1970.
pub(super) const TIME: &str = "_time";

/// A column after device and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutColumn {
    /// As the answer calls it.
    pub name: String,
    /// As the slab calls it.
    pub source: String,
    /// The slab's column of qualities.
    pub quality: Option<String>,
    pub storage: Storage,
    /// Its text is JSON.
    pub is_json: bool,
    /// Its number is a moment, milliseconds since 1970.
    pub is_time: bool,
}

impl OutColumn {
    /// How it is typed in slabs.
    pub fn data_type(&self) -> arrow_schema::DataType {
        super::shape::data_type(self.storage)
    }

    /// Points as the store has them.
    pub fn of(points: &[AskedPoint]) -> Vec<Self> {
        let column = |point: &AskedPoint| Self {
            name: point.name.to_string(),
            source: value_column(&point.name),
            quality: Some(quality_column(&point.name)),
            storage: point.storage,
            is_json: point.is_json,
            is_time: false,
        };
        points.iter().map(column).collect()
    }
}
