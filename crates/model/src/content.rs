//! What the good items of a message hold: the values of one kind, as they are stored.

use crate::{Batch, DeviceKey, ElementName};

/// The values of a message, in the order of its items.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Points(Batch),
    Events(Vec<Occurrence>),
    Attributes(Vec<AttributeValue>),
}

/// An event that happened. Device, event, time and output together are its identity
/// (`decisions.md` §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    pub device: DeviceKey,
    /// Milliseconds since 1970 UTC.
    pub time_ms: i64,
    pub event: ElementName,
    /// A JSON object, canonical: sorted keys, no blanks, each value as its type is written.
    pub output: Box<str>,
}

/// An attribute of a device was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeValue {
    pub device: DeviceKey,
    pub attribute: ElementName,
    /// Canonical JSON.
    pub value: Box<str>,
}

impl Content {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Points(batch) => batch.rows() == 0,
            Self::Events(occurrences) => occurrences.is_empty(),
            Self::Attributes(values) => values.is_empty(),
        }
    }

    /// How many values it holds; an event counts as one.
    pub fn values(&self) -> usize {
        match self {
            Self::Points(batch) => batch.cells(),
            Self::Events(occurrences) => occurrences.len(),
            Self::Attributes(values) => values.len(),
        }
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Points(Batch::default())
    }
}
