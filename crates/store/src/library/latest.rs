//! The latest value of each device's points: the one with the greatest event time. History that
//! arrives late never moves it back.

use std::collections::HashMap;

use backtide_model::{Batch, Cell, DeviceKey, ElementName, ProductKey};

use super::{
    cells::Version,
    codec::{Damaged, Sink, Source, unpack},
    fold::{Outcome, Rule, fold},
};
use crate::{Sequence, memtable::Entry};

/// The latest value of a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest {
    pub device: DeviceKey,
    pub point: ElementName,
    /// Event time, milliseconds since 1970 UTC.
    pub time_ms: i64,
    pub cell: Cell,
    /// 0–9, or [`backtide_model::NO_QUALITY`].
    pub quality: u8,
    /// The commit that it came with.
    pub sequence: Sequence,
}

/// A device's latest values as they go into the manifest.
pub(super) struct Saved {
    pub(super) product: ProductKey,
    pub(super) device: DeviceKey,
    pub(super) cells: Vec<u8>,
}

/// Every product's.
#[derive(Debug, Default)]
pub(super) struct Board(HashMap<ProductKey, ProductBoard>);

#[derive(Debug, Default)]
struct ProductBoard {
    /// Numbers the points, so that a device's cells need no names.
    numbers: HashMap<ElementName, u32>,
    names: Vec<ElementName>,
    devices: HashMap<DeviceKey, DeviceBoard>,
}

#[derive(Debug, Default)]
struct DeviceBoard {
    /// By point number.
    cells: HashMap<u32, Standing>,
    /// Changed since it was last saved.
    is_dirty: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Standing {
    time_ms: i64,
    version: Version,
}

impl Board {
    /// Takes the values of one commit; commits come in order, after a restart again from an
    /// earlier one.
    pub(super) fn note(&mut self, entry: &Entry) {
        let board = self.0.entry(entry.product.clone()).or_default();
        for column in 0..entry.batch.columns.len() {
            board.note_column(&entry.batch, column, entry.sequence.0);
        }
    }

    pub(super) fn load(
        &mut self,
        product: &ProductKey,
        device: &str,
        blob: &[u8],
    ) -> Result<(), Damaged> {
        let device = DeviceKey::new(device).map_err(|_| Damaged { at: 0 })?;
        let bytes = unpack(blob)?;
        let mut source = Source::new(&bytes);
        let board = self.0.entry(product.clone()).or_default();
        while !source.is_at_end() {
            let point = ElementName::new(source.text()?).map_err(|_| Damaged { at: 0 })?;
            let number = board.number(&point);
            let standing = Standing {
                time_ms: source.signed()?,
                version: Version {
                    sequence: source.unsigned()?,
                    rule: Rule::from_file(source.byte()?),
                    quality: source.byte()?,
                    cell: source.cell()?,
                },
            };
            board
                .devices
                .entry(device.clone())
                .or_default()
                .cells
                .insert(number, standing);
        }
        Ok(())
    }

    /// What changed since the last time. Where the manifest then refuses it, [`Board::unsaved`]
    /// takes it back.
    pub(super) fn save(&mut self) -> Vec<Saved> {
        let mut all = Vec::new();
        for (product, board) in &mut self.0 {
            for (device, latest) in board
                .devices
                .iter_mut()
                .filter(|(_, latest)| latest.is_dirty)
            {
                latest.is_dirty = false;
                let mut cells = Sink::default();
                for (number, standing) in &latest.cells {
                    cells.text(board.names[*number as usize].as_str());
                    cells.signed(standing.time_ms);
                    cells.unsigned(standing.version.sequence);
                    cells.byte(standing.version.rule.to_file().unwrap_or(0));
                    cells.byte(standing.version.quality);
                    cells.cell(&standing.version.cell);
                }
                let (product, device, cells) = (product.clone(), device.clone(), cells.pack());
                all.push(Saved {
                    product,
                    device,
                    cells,
                });
            }
        }
        all
    }

    pub(super) fn unsaved(&mut self, saved: &[Saved]) {
        for saved in saved {
            let board = self.0.get_mut(&saved.product);
            if let Some(latest) = board.and_then(|board| board.devices.get_mut(&saved.device)) {
                latest.is_dirty = true;
            }
        }
    }

    /// Empty `devices` or `points`: all. Sorted by device, then point.
    pub(super) fn list(
        &self,
        product: &ProductKey,
        devices: &[DeviceKey],
        points: &[ElementName],
    ) -> Vec<Latest> {
        let Some(board) = self.0.get(product) else {
            return Vec::new();
        };
        let mut list = Vec::new();
        let mut add = |device: &DeviceKey, latest: &DeviceBoard| {
            for (number, standing) in &latest.cells {
                let point = &board.names[*number as usize];
                if points.is_empty() || points.contains(point) {
                    list.push(Latest {
                        device: device.clone(),
                        point: point.clone(),
                        time_ms: standing.time_ms,
                        cell: standing.version.cell.clone(),
                        quality: standing.version.quality,
                        sequence: Sequence(standing.version.sequence),
                    });
                }
            }
        };
        if devices.is_empty() {
            board
                .devices
                .iter()
                .for_each(|(device, latest)| add(device, latest));
        }
        for device in devices {
            if let Some(latest) = board.devices.get(device) {
                add(device, latest);
            }
        }
        list.sort_by(|a, b| (&a.device, &a.point).cmp(&(&b.device, &b.point)));
        list.dedup_by(|a, b| (&a.device, &a.point) == (&b.device, &b.point));
        list
    }
}

impl ProductBoard {
    fn number(&mut self, point: &ElementName) -> u32 {
        if let Some(number) = self.numbers.get(point) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).expect("a product has fewer than 2^32 points");
        self.names.push(point.clone());
        self.numbers.insert(point.clone(), number);
        number
    }

    /// Only a device's greatest time of the batch can matter: found first, looked up once.
    fn note_column(&mut self, batch: &Batch, column: usize, sequence: u64) {
        let column = &batch.columns[column];
        let mut greatest: Vec<Option<i64>> = vec![None; batch.devices.len()];
        for index in 0..column.values.len() {
            let row = column.row_of(index);
            let greatest = &mut greatest[batch.row_device[row] as usize];
            *greatest = (*greatest).max(Some(batch.row_time[row]));
        }
        let number = self.number(&column.point);
        for index in 0..column.values.len() {
            let row = column.row_of(index);
            let device = batch.row_device[row] as usize;
            let time_ms = batch.row_time[row];
            if greatest[device] != Some(time_ms) {
                continue;
            }
            let key = &batch.devices[device];
            if !self.devices.contains_key(key) {
                self.devices.insert(key.clone(), DeviceBoard::default());
            }
            let latest = self
                .devices
                .get_mut(key)
                .expect("the device was inserted above");
            if latest
                .cells
                .get(&number)
                .is_some_and(|standing| standing.time_ms > time_ms)
            {
                continue;
            }
            let version = Version {
                sequence,
                rule: column.policy.into(),
                quality: column.quality_of(index),
                cell: column.values.cell(index),
            };
            latest.meet(number, Standing { time_ms, version });
        }
    }
}

impl DeviceBoard {
    fn meet(&mut self, number: u32, newcomer: Standing) {
        match self.cells.get_mut(&number) {
            Some(standing) if standing.time_ms == newcomer.time_ms => {
                // A replayed commit has had its say.
                if newcomer.version.sequence < standing.version.sequence {
                    return;
                }
                let same = standing.version.same(&newcomer.version);
                let (outcome, rule) = fold(standing.version.side(), newcomer.version.side(), same);
                if outcome == Outcome::Wins {
                    *standing = newcomer;
                }
                standing.version.rule = rule;
            }
            _ => drop(self.cells.insert(number, newcomer)),
        }
        self.is_dirty = true;
    }
}
