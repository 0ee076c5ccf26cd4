//! Where each device's rows are in a segment: what a read looks at before it opens a page.

use std::ops::Range;

use backtide_model::DeviceKey;

use super::codec::{Damaged, Sink, Source, unpack};

/// The rows of one device, consecutive because a segment is sorted by device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) device: DeviceKey,
    pub(super) rows: Range<usize>,
    /// Event times of its first and last row, milliseconds.
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
}

/// One stretch per device, sorted by device key; the rows have no gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeviceIndex(pub(super) Vec<Stretch>);

impl DeviceIndex {
    pub(super) fn rows(&self) -> usize {
        self.0.last().map_or(0, |stretch| stretch.rows.end)
    }

    /// Appends a row; rows come sorted by device and time.
    pub(super) fn push(&mut self, device: &DeviceKey, time_ms: i64) {
        let at = self.rows();
        match self.0.last_mut() {
            Some(last) if last.device == *device => {
                last.rows.end += 1;
                last.last_ms = time_ms;
            }
            _ => self.0.push(Stretch {
                device: device.clone(),
                rows: at..at + 1,
                first_ms: time_ms,
                last_ms: time_ms,
            }),
        }
    }

    pub(super) fn get(&self, device: &DeviceKey) -> Option<&Stretch> {
        let at = self
            .0
            .binary_search_by(|stretch| stretch.device.cmp(device))
            .ok()?;
        Some(&self.0[at])
    }

    /// Whether any (device, time) could stand in both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (few, many) = if self.0.len() <= other.0.len() {
            (self, other)
        } else {
            (other, self)
        };
        few.0.iter().any(|a| {
            many.get(&a.device)
                .is_some_and(|b| a.first_ms <= b.last_ms && b.first_ms <= a.last_ms)
        })
    }

    pub(super) fn pack(&self) -> Vec<u8> {
        let mut sink = Sink::default();
        sink.count(self.0.len());
        for stretch in &self.0 {
            sink.text(stretch.device.as_str());
            sink.count(stretch.rows.len());
            sink.signed(stretch.first_ms);
            sink.unsigned(stretch.last_ms.abs_diff(stretch.first_ms));
        }
        sink.pack()
    }

    pub(super) fn unpack(blob: &[u8]) -> Result<Self, Damaged> {
        let bytes = unpack(blob)?;
        let mut source = Source::new(&bytes);
        let mut index = Self::default();
        for _ in 0..source.count()? {
            let device = DeviceKey::new(source.text()?).map_err(|_| Damaged { at: 0 })?;
            let first = index.rows();
            let rows = first
                ..first
                    .checked_add(source.count()?)
                    .ok_or(Damaged { at: 0 })?;
            let first_ms = source.signed()?;
            let last_ms = first_ms.saturating_add_unsigned(source.unsigned()?);
            index.0.push(Stretch {
                device,
                rows,
                first_ms,
                last_ms,
            });
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(rows: &[(&str, i64)]) -> DeviceIndex {
        let mut index = DeviceIndex::default();
        for (device, time_ms) in rows {
            index.push(&DeviceKey::new(device).unwrap(), *time_ms);
        }
        index
    }

    #[test]
    fn an_index_reads_back_and_knows_its_rows() {
        let index = index(&[("a", -5), ("a", 7), ("b", i64::MAX), ("c", 0)]);
        assert_eq!(DeviceIndex::unpack(&index.pack()), Ok(index.clone()));
        assert_eq!(index.rows(), 4);
        assert_eq!(index.get(&DeviceKey::new("b").unwrap()).unwrap().rows, 2..3);
    }

    #[test]
    fn overlap_is_by_device_and_time() {
        let old = index(&[("a", 0), ("a", 10), ("b", 0)]);
        assert!(old.overlaps(&index(&[("a", 10)])));
        assert!(!old.overlaps(&index(&[("a", 11), ("b", 1), ("c", 0)])));
    }
}
