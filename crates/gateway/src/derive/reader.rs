//! Rows as they are asked for.

use std::{collections::VecDeque, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use backtide_model::DeviceKey;

use super::{
    chunk,
    keeper::with_device,
    series::Series,
    shelf::{Chunk, Shelf, ShelfError},
};

/// Chunks that are read together.
const PAGE_CHUNKS: usize = 16;

/// Which rows of a series.
#[derive(Debug, Clone)]
pub struct RowsAsked {
    /// As [`super::Derived::series`] has it.
    pub id: i64,
    pub series: Arc<Series>,
    /// Sorted; empty: all of them.
    pub devices: Vec<DeviceKey>,
    /// Windows that begin from here on, milliseconds since 1970 …
    pub from_ms: i64,
    /// … and before here.
    pub to_ms: i64,
    /// Resume strictly behind this row.
    pub after: Option<(String, i64)>,
}

/// Rows, a batch at a time: `_device`, `_time`, [`Series::columns`], by device, then time.
pub struct Rows {
    shelf: Shelf,
    asked: RowsAsked,
    schema: SchemaRef,
    /// Devices that are still to be read, where they are named.
    devices: Option<VecDeque<DeviceKey>>,
    /// The chunk that was read last.
    place: (String, i64),
    waiting: VecDeque<Chunk>,
    is_over: bool,
}

impl Rows {
    pub(super) fn new(shelf: Shelf, asked: RowsAsked) -> Self {
        let schema = asked.series.schema();
        let place = match &asked.after {
            None => (String::new(), i64::MIN),
            Some((device, time_ms)) => (device.clone(), asked.series.chunk_at(*time_ms) - 1),
        };
        let is_left = |device: &&DeviceKey| device.as_str() >= place.0.as_str();
        let devices: VecDeque<DeviceKey> = asked.devices.iter().filter(is_left).cloned().collect();
        Self {
            devices: (!asked.devices.is_empty()).then_some(devices),
            shelf,
            asked,
            schema,
            place,
            waiting: VecDeque::new(),
            is_over: false,
        }
    }

    fn chunk(&mut self) -> Result<Option<Chunk>, ShelfError> {
        while self.waiting.is_empty() && !self.is_over {
            let RowsAsked {
                id,
                series,
                from_ms,
                to_ms,
                ..
            } = &self.asked;
            let numbers = (
                series.chunk_at(*from_ms),
                series.chunk_at(to_ms.saturating_sub(1)),
            );
            let device = match &self.devices {
                None => None,
                Some(devices) => match devices.front() {
                    Some(device) => Some(device.as_str()),
                    None => {
                        self.is_over = true;
                        break;
                    }
                },
            };
            if device.is_some_and(|device| device != self.place.0) {
                self.place = (device.unwrap_or_default().to_owned(), i64::MIN);
            }
            let place = (self.place.0.as_str(), self.place.1);
            let page = self.shelf.page(*id, device, place, numbers, PAGE_CHUNKS)?;
            match (page.last(), &mut self.devices) {
                (Some(last), _) => self.place = (last.device.clone(), last.number),
                (None, Some(devices)) => drop(devices.pop_front()),
                (None, None) => self.is_over = true,
            }
            self.waiting = page.into();
        }
        Ok(self.waiting.pop_front())
    }

    /// The rows of a chunk that are asked for.
    fn rows(&self, chunk: &Chunk) -> Result<RecordBatch, ShelfError> {
        let rows = chunk::decode(&chunk.body)?;
        let times = chunk::times(&rows)?.values();
        let from_ms = match &self.asked.after {
            Some((device, time_ms)) if *device == chunk.device => {
                self.asked.from_ms.max(time_ms.saturating_add(1))
            }
            _ => self.asked.from_ms,
        };
        let first = times.partition_point(|time_ms| *time_ms < from_ms);
        let end = times.partition_point(|time_ms| *time_ms < self.asked.to_ms);
        let rows = rows.slice(first, end.saturating_sub(first));
        Ok(with_device(&rows, &chunk.device, &self.schema)?)
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ShelfError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let chunk = match self.chunk() {
                Ok(chunk) => chunk?,
                Err(error) => {
                    self.is_over = true;
                    self.waiting.clear();
                    return Some(Err(error));
                }
            };
            match self.rows(&chunk) {
                Ok(rows) if rows.num_rows() == 0 => {}
                rows => return Some(rows),
            }
        }
    }
}
