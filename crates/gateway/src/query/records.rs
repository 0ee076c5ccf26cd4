//! Columns of records, events and attribute values, that are no columns of the store: for files and
//! archives.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use backtide_model::Storage;

use super::OutColumn;

impl OutColumn {
    /// A column that is called the same in the slab.
    pub fn of_records(name: &str, storage: Storage) -> Self {
        Self {
            name: name.to_owned(),
            source: name.to_owned(),
            quality: None,
            storage,
            is_json: false,
            is_time: false,
        }
    }

    /// The same, of moments in milliseconds since 1970.
    pub fn of_moments(name: &str) -> Self {
        Self {
            is_time: true,
            ..Self::of_records(name, Storage::Long)
        }
    }

    /// The same, where the slab calls it something else.
    pub fn of_source(self, source: &str) -> Self {
        Self {
            source: source.to_owned(),
            ..self
        }
    }
}

/// A column of texts, one a record.
pub fn texts<R, T: AsRef<str>>(records: &[R], text: impl Fn(&R) -> T) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(records.iter().map(text)))
}

/// The same, where the record has the text.
pub fn names<'r, R>(records: &'r [R], name: impl Fn(&'r R) -> &'r str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(records.iter().map(name)))
}

/// A column of whole numbers.
pub fn longs<R>(records: &[R], number: impl Fn(&R) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(records.iter().map(number)))
}
