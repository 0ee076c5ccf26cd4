//! The latest value of each device's points: the one with the greatest event time. History that
//! arrives late never moves it back.

use std::collections::HashMap;

use backtide_model::{Batch, Cell, Column, DeviceKey, ElementName, Presence, ProductKey};
use foldhash::fast::RandomState;

use super::{
    cells::Version,
    codec::{Damaged, Sink, Source, unpack},
    fold::{FirstRefusal, Rule, fold},
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
pub(super) struct Board(HashMap<ProductKey, ProductBoard, RandomState>);

#[derive(Debug, Default)]
struct ProductBoard {
    /// Numbers the points, so that a device's cells need no names.
    numbers: HashMap<ElementName, u32, RandomState>,
    names: Vec<ElementName>,
    /// Places in `boards`.
    devices: HashMap<DeviceKey, usize, RandomState>,
    boards: Vec<DeviceBoard>,
}

#[derive(Debug)]
struct DeviceBoard {
    device: DeviceKey,
    /// Sorted by the number of the point.
    cells: Vec<(u32, Standing)>,
    /// Changed since it was last saved.
    is_dirty: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Standing {
    time_ms: i64,
    version: Version,
}

/// A device that changed: which of its product's.
pub(super) struct Dirty {
    product: ProductKey,
    at: usize,
}

impl Board {
    /// Takes the values of one commit; commits come in order, after a restart again from an
    /// earlier one.
    pub(super) fn note(&mut self, entry: &Entry) {
        if !self.0.contains_key(&entry.product) {
            self.0
                .insert(entry.product.clone(), ProductBoard::default());
        }
        let board = self
            .0
            .get_mut(&entry.product)
            .expect("inserted when absent");
        let devices = entry.batch.devices.iter();
        let devices: Vec<usize> = devices.map(|device| board.place(device)).collect();
        let columns = entry.batch.columns.iter();
        let numbers: Vec<u32> = columns.map(|column| board.number(&column.point)).collect();
        let rows = board.newest_rows(&entry.batch, &devices);
        if rows.is_empty() {
            return;
        }
        for (column, number) in entry.batch.columns.iter().zip(numbers) {
            board.note_column(&entry.batch, &devices, &rows, column, number, entry);
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
        let at = board.place(&device);
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
            board.boards[at].meet(number, standing, false);
        }
        board.boards[at].is_dirty = false;
        Ok(())
    }

    /// The devices that changed since they were saved.
    pub(super) fn dirty(&self) -> Vec<Dirty> {
        let mut all = Vec::new();
        for (product, board) in &self.0 {
            let dirty = board
                .boards
                .iter()
                .enumerate()
                .filter(|(_, board)| board.is_dirty);
            all.extend(dirty.map(|(at, _)| Dirty {
                product: product.clone(),
                at,
            }));
        }
        all
    }

    /// Encodes devices, from now on saved. Where the manifest then refuses them,
    /// [`Board::unsaved`] takes that back.
    pub(super) fn save(&mut self, dirty: &[Dirty]) -> Vec<Saved> {
        let mut all = Vec::with_capacity(dirty.len());
        for Dirty { product, at } in dirty {
            let Some(board) = self.0.get_mut(product) else {
                continue;
            };
            let latest = &mut board.boards[*at];
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
            let (product, device) = (product.clone(), latest.device.clone());
            all.push(Saved {
                product,
                device,
                cells: cells.pack(),
            });
        }
        all
    }

    pub(super) fn unsaved(&mut self, saved: &[Saved]) {
        for saved in saved {
            let Some(board) = self.0.get_mut(&saved.product) else {
                continue;
            };
            let at = board.place(&saved.device);
            board.boards[at].is_dirty = true;
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
        let mut add = |latest: &DeviceBoard| {
            for (number, standing) in &latest.cells {
                let point = &board.names[*number as usize];
                if points.is_empty() || points.contains(point) {
                    list.push(Latest {
                        device: latest.device.clone(),
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
            board.boards.iter().for_each(&mut add);
        }
        let places = devices
            .iter()
            .filter_map(|device| board.devices.get(device));
        places.for_each(|at| add(&board.boards[*at]));
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

    fn place(&mut self, device: &DeviceKey) -> usize {
        if let Some(at) = self.devices.get(device) {
            return *at;
        }
        let at = self.boards.len();
        self.devices.insert(device.clone(), at);
        let (device, cells) = (device.clone(), Vec::new());
        self.boards.push(DeviceBoard {
            device,
            cells,
            is_dirty: false,
        });
        at
    }

    /// The rows of a batch that could be a latest value of some point, ascending. In history that
    /// arrives out of order that is hardly any: nothing more is looked at then.
    fn newest_rows(&self, batch: &Batch, devices: &[usize]) -> Vec<u32> {
        let points = self.names.len();
        let beyond: Vec<Option<i64>> = devices
            .iter()
            .map(|at| self.boards[*at].complete_to(points))
            .collect();
        let rows = batch.row_device.iter().zip(&batch.row_time).zip(0..);
        rows.filter(|((device, time_ms), _)| {
            beyond[**device as usize].is_none_or(|known_ms| **time_ms >= known_ms)
        })
        .map(|(_, row)| row)
        .collect()
    }

    /// Takes what a column has in `rows`. Only a device's greatest time among them can matter.
    fn note_column(
        &mut self,
        batch: &Batch,
        devices: &[usize],
        rows: &[u32],
        column: &Column,
        number: u32,
        entry: &Entry,
    ) {
        let indexes: Vec<usize> = rows
            .iter()
            .filter_map(|row| index_of(column, *row))
            .collect();
        let mut greatest: Vec<Option<i64>> = vec![None; devices.len()];
        for index in &indexes {
            let row = column.row_of(*index);
            let greatest = &mut greatest[batch.row_device[row] as usize];
            *greatest = (*greatest).max(Some(batch.row_time[row]));
        }
        for index in indexes {
            let row = column.row_of(index);
            let device = batch.row_device[row] as usize;
            let time_ms = batch.row_time[row];
            let latest = &mut self.boards[devices[device]];
            if greatest[device] != Some(time_ms) || latest.is_beyond(number, time_ms) {
                continue;
            }
            let version = Version {
                sequence: entry.order.0,
                rule: column.policy.into(),
                quality: column.quality_of(index),
                cell: column.values.cell(index),
            };
            let newcomer = Standing { time_ms, version };
            latest.meet(number, newcomer, entry.order < entry.sequence);
        }
    }
}

fn index_of(column: &Column, row: u32) -> Option<usize> {
    match &column.presence {
        Presence::All => Some(row as usize),
        Presence::Some(rows) => rows.binary_search(&row).ok(),
    }
}

impl DeviceBoard {
    /// The least time among its latest values where it has one of each of `points` points: what is
    /// older changes nothing.
    fn complete_to(&self, points: usize) -> Option<i64> {
        if self.cells.len() < points {
            return None;
        }
        self.cells.iter().map(|(_, at)| at.time_ms).min()
    }

    fn find(&self, number: u32) -> Result<usize, usize> {
        self.cells
            .binary_search_by_key(&number, |(number, _)| *number)
    }

    fn is_beyond(&self, number: u32, time_ms: i64) -> bool {
        self.find(number)
            .is_ok_and(|at| self.cells[at].1.time_ms > time_ms)
    }

    /// `is_late`: its order is that of an earlier commit.
    fn meet(&mut self, number: u32, newcomer: Standing, is_late: bool) {
        match self.find(number) {
            Err(at) => self.cells.insert(at, (number, newcomer)),
            Ok(at) => {
                let standing = &mut self.cells[at].1;
                if standing.time_ms != newcomer.time_ms {
                    *standing = newcomer;
                } else if newcomer.version.sequence < standing.version.sequence && !is_late {
                    // A replayed commit has had its say.
                    return;
                } else {
                    let same = standing.version.same(&newcomer.version);
                    let sides = (standing.version.side(), newcomer.version.side());
                    // One value a point: nothing is saved by leaving the first commit that said it.
                    let (outcome, rule) = fold(sides.0, sides.1, same, FirstRefusal::default());
                    if outcome.newcomer_stands() {
                        *standing = newcomer;
                    }
                    standing.version.rule = rule;
                }
            }
        }
        self.is_dirty = true;
    }
}
