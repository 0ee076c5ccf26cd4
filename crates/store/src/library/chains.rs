//! The versions that a flush joined into one, kept until their conflicts are classified.
//!
//! A segment holds the last winner of a cell only. Which of its versions conflicted with what
//! depends on what older segments hold, so whoever classifies must see all of them again, in order.

use std::collections::BTreeMap;

use backtide_model::{DeviceKey, ElementName};

use super::{
    cells::Version,
    codec::{Damaged, Sink, Source, unpack},
    fold::Rule,
};

/// The cell that versions compete for, within a product.
pub(super) type Place = (DeviceKey, i64);

/// Cells of one segment that had more than one version, oldest version first. Versions that are
/// duplicates of the first whatever stood before are left out: they were counted at the flush.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Chains(pub(super) BTreeMap<Place, BTreeMap<ElementName, Vec<Version>>>);

impl Chains {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, place: &Place, point: &ElementName) -> bool {
        self.0
            .get(place)
            .is_some_and(|points| points.contains_key(point))
    }

    /// Removes and gives the versions of a cell.
    pub(super) fn take(&mut self, place: &Place, point: &ElementName) -> Option<Vec<Version>> {
        self.0.get_mut(place)?.remove(point)
    }

    pub(super) fn pack(&self) -> Vec<u8> {
        let mut sink = Sink::default();
        sink.count(self.0.len());
        for ((device, time_ms), points) in &self.0 {
            sink.text(device.as_str());
            sink.signed(*time_ms);
            sink.count(points.len());
            for (point, versions) in points {
                sink.text(point.as_str());
                sink.count(versions.len());
                for version in versions {
                    sink.unsigned(version.sequence);
                    sink.byte(version.rule.to_file().unwrap_or(0));
                    sink.byte(version.quality);
                    sink.cell(&version.cell);
                }
            }
        }
        sink.pack()
    }

    pub(super) fn unpack(blob: &[u8]) -> Result<Self, Damaged> {
        let bytes = unpack(blob)?;
        let mut source = Source::new(&bytes);
        let mut chains = Self::default();
        for _ in 0..source.count()? {
            let device = DeviceKey::new(source.text()?).map_err(|_| Damaged { at: 0 })?;
            let time_ms = source.signed()?;
            let mut points = BTreeMap::new();
            for _ in 0..source.count()? {
                let point = ElementName::new(source.text()?).map_err(|_| Damaged { at: 0 })?;
                let mut versions = Vec::new();
                for _ in 0..source.count()? {
                    versions.push(Version {
                        sequence: source.unsigned()?,
                        rule: Rule::from_file(source.byte()?),
                        quality: source.byte()?,
                        cell: source.cell()?,
                    });
                }
                points.insert(point, versions);
            }
            chains.0.insert((device, time_ms), points);
        }
        Ok(chains)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backtide_model::Cell;

    #[test]
    fn chains_read_back_as_written() {
        let place = (DeviceKey::new("d").unwrap(), -7);
        let version = |sequence, rule| Version {
            sequence,
            rule,
            quality: 3,
            cell: Cell::Text("x".into()),
        };
        let versions = vec![version(1, Rule::Last), version(9, Rule::Higher)];
        let mut chains = Chains::default();
        let points = chains.0.entry(place.clone()).or_default();
        points.insert(ElementName::new("P").unwrap(), versions.clone());
        let mut read = Chains::unpack(&chains.pack()).unwrap();
        assert_eq!(read, chains);
        assert_eq!(
            read.take(&place, &ElementName::new("P").unwrap()),
            Some(versions)
        );
    }
}
