//! What can be asked of the store.

use arrow_array::RecordBatch;
use backtide_model::{DeviceKey, ElementName, ProductKey};

/// The order rows come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By device key, then time: how segments are sorted.
    DeviceTime,
    /// By time, then device key.
    TimeDevice,
}

/// A range of history of one product.
#[derive(Debug, Clone)]
pub struct Range {
    pub product: ProductKey,
    /// Empty: every device.
    pub devices: Vec<DeviceKey>,
    /// Empty: every point ever stored.
    pub points: Vec<ElementName>,
    /// Milliseconds since 1970 UTC, inclusive.
    pub from_ms: i64,
    /// Exclusive.
    pub to_ms: i64,
    pub order: Order,
    /// Resume strictly after this row, in `order`.
    pub after: Option<(DeviceKey, i64)>,
    pub rows_max: usize,
}

/// How far a read by device may be before its taker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// What is taken is read, by whoever takes it.
    InStep,
    /// A long read is shared out to threads, which are some groups of devices ahead. For takers that
    /// will take all: what was read ahead is for nothing otherwise.
    Ahead,
}

/// Rows of a range, a slab at a time. Columns: `_device` (Utf8), `_time` (Int64 ms), `_sequence`
/// (UInt64), then each requested point under its name and, where any value has one, its quality
/// under `<point>.quality` (UInt8). A row with none of the requested points is left out.
pub trait Slabs: Iterator<Item = Result<RecordBatch, ReadError>> + Send {}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("segment {file}: {reason}")]
    Segment { file: String, reason: String },
    #[error("manifest: {0}")]
    Manifest(String),
    #[error("chronicle: {0}")]
    Chronicle(String),
}
