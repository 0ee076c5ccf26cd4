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

    /// Appends rows of a device; they come sorted by device and time.
    pub(super) fn push(&mut self, device: &DeviceKey, times: &[i64]) {
        let (Some(first_ms), Some(last_ms)) = (times.first(), times.last()) else {
            return;
        };
        let at = self.rows();
        match self.0.last_mut() {
            Some(last) if last.device == *device => {
                last.rows.end += times.len();
                last.last_ms = *last_ms;
            }
            _ => self.0.push(Stretch {
                device: device.clone(),
                rows: at..at + times.len(),
                first_ms: *first_ms,
                last_ms: *last_ms,
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

/// The most indexes that hold the same moment of the same device.
pub(super) fn height<'a>(indexes: impl Iterator<Item = &'a DeviceIndex>) -> usize {
    let mut left: Vec<&[Stretch]> = indexes.map(|index| index.0.as_slice()).collect();
    let mut height = 0;
    let mut edges: Vec<(i64, bool)> = Vec::new();
    while let Some(device) = left
        .iter()
        .filter_map(|rest| rest.first())
        .map(|s| &s.device)
        .min()
    {
        edges.clear();
        for rest in &mut left {
            while let Some(stretch) = rest.first().filter(|stretch| stretch.device == *device) {
                edges.extend([(stretch.first_ms, false), (stretch.last_ms, true)]);
                *rest = &rest[1..];
            }
        }
        // Of one moment the beginnings come first: both ends are inclusive.
        edges.sort_unstable();
        let mut open = 0_usize;
        for (_, is_end) in &edges {
            open = if *is_end { open - 1 } else { open + 1 };
            height = height.max(open);
        }
    }
    height
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(rows: &[(&str, i64)]) -> DeviceIndex {
        let mut index = DeviceIndex::default();
        for (device, time_ms) in rows {
            index.push(&DeviceKey::new(device).unwrap(), &[*time_ms]);
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

    #[test]
    fn the_height_counts_what_holds_the_same_moment_of_the_same_device() {
        let a = index(&[("a", 0), ("a", 10), ("b", 0)]);
        let b = index(&[("a", 10), ("a", 20)]);
        let c = index(&[("a", 11), ("b", 5), ("c", 0)]);
        let height = |some: &[&DeviceIndex]| height(some.iter().copied());
        assert_eq!(height(&[]), 0);
        assert_eq!(height(&[&a, &c]), 1, "neighbours in time");
        assert_eq!(height(&[&a, &b]), 2, "ends are inclusive");
        assert_eq!(height(&[&a, &b, &c, &b]), 3);
    }
}
