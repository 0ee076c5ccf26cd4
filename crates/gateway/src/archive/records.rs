//! Events and attribute values as slabs, so that a sheet takes them as it takes the store's.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow_schema::ArrowError;
use backtide_model::{ProductKey, Storage};
use backtide_store::{AttributeRange, EventRange, ReadError, Store, StoredAttribute, StoredEvent};

use super::ArchiveError;
use crate::query::{OutColumn, longs, names};

/// Slabs of what a file is made of.
pub(super) type Slabs = Box<dyn Iterator<Item = Result<RecordBatch, ArchiveError>>>;

/// Behind device and time: which event, what it says as JSON, and how it came.
pub(super) fn event_columns() -> Vec<OutColumn> {
    vec![
        OutColumn::of_records("event", Storage::Text),
        OutColumn::of_records("output", Storage::Text),
        OutColumn::of_records("channel", Storage::Text),
        OutColumn::of_moments("arrived"),
    ]
}

/// Behind device and time, which is when a value arrived first: which attribute, the value as JSON,
/// whether it is the one in force, when it arrived last, and how.
pub(super) fn attribute_columns() -> Vec<OutColumn> {
    vec![
        OutColumn::of_records("attribute", Storage::Text),
        OutColumn::of_records("value", Storage::Text),
        OutColumn::of_records("current", Storage::Bool),
        OutColumn::of_moments("confirmed"),
        OutColumn::of_records("channel", Storage::Text),
    ]
}

/// Events of a range, in the order of time, then device.
pub(super) fn events(store: &Store, range: &EventRange) -> Result<Slabs, ArchiveError> {
    let slabs = store.events(range)?;
    Ok(Box::new(slabs.map(|slab| event_slab(&slab?))))
}

fn event_slab(events: &[StoredEvent]) -> Result<RecordBatch, ArchiveError> {
    slab(vec![
        (
            "_device",
            names(events, |event| event.place.device.as_str()),
        ),
        ("_time", longs(events, |event| event.place.time_ms)),
        ("_sequence", sequences(events, |event| event.sequence.0)),
        ("event", names(events, |event| event.place.event.as_str())),
        ("output", names(events, |event| &event.output)),
        ("channel", names(events, |event| event.channel.as_str())),
        ("arrived", longs(events, |event| event.arrived_ms)),
    ])
}

/// Every value that attributes of a product had, in the order of device, attribute, then of being said.
pub(super) fn attributes(store: &Store, product: &ProductKey) -> Result<Slabs, ArchiveError> {
    let range = AttributeRange {
        product: product.clone(),
        devices: Vec::new(),
        attributes: Vec::new(),
        history: true,
        after: None,
        rows_max: usize::MAX,
    };
    let values = store.attributes(&range)?;
    Ok(Box::new(Attributes {
        values: Box::new(values),
        last: None,
    }))
}

/// Holds back the last value of each slab: whether it is in force says the next one.
struct Attributes {
    values: Box<dyn Iterator<Item = Result<Vec<StoredAttribute>, ReadError>>>,
    last: Option<StoredAttribute>,
}

impl Iterator for Attributes {
    type Item = Result<RecordBatch, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut values: Vec<StoredAttribute> = self.last.take().into_iter().collect();
        match self.values.next() {
            None if values.is_empty() => return None,
            None => {}
            Some(Err(error)) => return Some(Err(error.into())),
            Some(Ok(more)) => {
                values.extend(more);
                self.last = values.pop();
            }
        }
        Some(attribute_slab(&values, self.last.as_ref()))
    }
}

fn attribute_slab(
    values: &[StoredAttribute],
    next: Option<&StoredAttribute>,
) -> Result<RecordBatch, ArchiveError> {
    let of = |value: &StoredAttribute| (value.place.device.clone(), value.place.attribute.clone());
    let followers = values.iter().skip(1).chain(next).map(Some);
    let current = values
        .iter()
        .zip(followers.chain(std::iter::once(None)))
        .map(|(value, follower)| Some(follower.is_none_or(|next| of(next) != of(value))));
    let current: BooleanArray = current.collect();
    slab(vec![
        (
            "_device",
            names(values, |value| value.place.device.as_str()),
        ),
        ("_time", longs(values, |value| value.arrived_ms)),
        (
            "_sequence",
            sequences(values, |value| value.place.sequence.0),
        ),
        (
            "attribute",
            names(values, |value| value.place.attribute.as_str()),
        ),
        ("value", names(values, |value| &value.value)),
        ("current", Arc::new(current)),
        ("confirmed", longs(values, |value| value.confirmed_ms)),
        ("channel", names(values, |value| value.channel.as_str())),
    ])
}

fn sequences<R>(rows: &[R], sequence: impl Fn(&R) -> u64) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(rows.iter().map(sequence)))
}

fn slab(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, ArchiveError> {
    RecordBatch::try_from_iter(columns)
        .map_err(|error: ArrowError| ArchiveError::Shape(error.to_string()))
}
