//! From when to when devices have values, as the index of segments tells it: nothing is read.

use std::{collections::BTreeMap, sync::Arc};

use backtide_model::{DeviceKey, ElementName, ProductKey};

use super::Library;
use crate::memtable::Entry;

/// Where the values of a device lie. At most there: rows of other points count too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSpan {
    /// Event times, milliseconds since 1970 UTC; both inclusive.
    pub first_ms: i64,
    pub last_ms: i64,
    /// One that stands in several segments counts for each.
    pub rows: u64,
}

impl DeviceSpan {
    fn joined(self, other: Self) -> Self {
        Self {
            first_ms: self.first_ms.min(other.first_ms),
            last_ms: self.last_ms.max(other.last_ms),
            rows: self.rows + other.rows,
        }
    }
}

impl Library {
    /// The spans of the devices that may have values of some points, in `entries` or in segments.
    pub(crate) fn spans(
        &self,
        entries: &[Arc<Entry>],
        product: &ProductKey,
        points: &[ElementName],
    ) -> BTreeMap<DeviceKey, DeviceSpan> {
        let mut spans: BTreeMap<DeviceKey, DeviceSpan> = BTreeMap::new();
        let mut join = |device: &DeviceKey, span: DeviceSpan| {
            let known = spans
                .entry(device.clone())
                .or_insert(DeviceSpan { rows: 0, ..span });
            *known = known.joined(span);
        };
        let shelf = self.shelf();
        let segments = shelf.products.get(product).map_or(&[][..], Vec::as_slice);
        for segment in segments {
            if !points
                .iter()
                .any(|point| segment.points.contains_key(point))
            {
                continue;
            }
            for stretch in &segment.card.index.0 {
                let span = DeviceSpan {
                    first_ms: stretch.first_ms,
                    last_ms: stretch.last_ms,
                    rows: stretch.rows.len() as u64,
                };
                join(&stretch.device, span);
            }
        }
        for entry in entries {
            let batch = &entry.batch;
            if !batch
                .columns
                .iter()
                .any(|column| points.contains(&column.point))
            {
                continue;
            }
            for (device, time_ms) in batch.row_device.iter().zip(&batch.row_time) {
                let span = DeviceSpan {
                    first_ms: *time_ms,
                    last_ms: *time_ms,
                    rows: 1,
                };
                join(&batch.devices[*device as usize], span);
            }
        }
        spans
    }
}
