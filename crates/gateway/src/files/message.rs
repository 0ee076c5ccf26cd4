//! Rows to messages: batches of items in the envelope of their kind (`mqtt-channel.md` §3.1), and the ledger of which rows are answered.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    ops::ControlFlow,
};

use backtide_model::Items;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    moment::Notes,
    source::{Item, Row, Rows, SourceError},
};

/// Bytes of a message, well below the channel's 512 KiB.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Reasons of unreadable rows that are kept to be shown.
const REASONS_MAX: usize = 10;

/// A request. Its rows are counted from 0 at the first row of the file.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    pub rows: Vec<u64>,
    pub values: u64,
    pub payload: Bytes,
}

/// What reading a file came to.
#[derive(Debug, Clone, Default)]
pub struct Readout {
    /// Rows without any value.
    pub empty: u64,
    /// Rows that could not be sent.
    pub unreadable: u64,
    /// The first of them, worded.
    pub reasons: Vec<String>,
    pub notes: Notes,
}

/// Reads the rows from `start` on and hands each full one to `each`.
///
/// # Errors
/// The file cannot be read on, or its very first row makes no sense: then neither would the rest.
pub fn read(
    rows: &mut dyn Rows,
    start: u64,
    mut each: impl FnMut(u64, &Item) -> ControlFlow<()>,
) -> Result<Readout, SourceError> {
    let mut readout = Readout::default();
    let mut item = Item::default();
    let mut any = false;
    for row in 0.. {
        let Some(outcome) = rows.next(&mut item)? else {
            break;
        };
        any |= outcome == Row::Full;
        if row < start {
            continue;
        }
        match outcome {
            Row::Full if each(row, &item).is_break() => break,
            Row::Full => {}
            Row::Empty => readout.empty += 1,
            Row::Unreadable(reason) => {
                let reason = format!("row {}: {reason}", row + 1);
                if !any && readout.unreadable == 0 {
                    return Err(SourceError::Usage(reason));
                }
                readout.unreadable += 1;
                if readout.reasons.len() < REASONS_MAX {
                    readout.reasons.push(reason);
                }
            }
        }
    }
    readout.notes = rows.notes();
    Ok(readout)
}

/// Collects items for one connection.
pub struct Builder {
    run: String,
    lane: usize,
    items: Items,
    count: u64,
    rows_max: usize,
    names_rows: bool,
    rows: Vec<u64>,
    values: u64,
    params: Vec<u8>,
}

impl Builder {
    /// `run` makes the ids of this run different from those of any other.
    pub fn new(run: &str, lane: usize, rows_max: usize) -> Self {
        let run = run.to_owned();
        Self {
            run,
            lane,
            items: Items::Points,
            count: 0,
            rows_max,
            names_rows: false,
            rows: Vec::new(),
            values: 0,
            params: Vec::new(),
        }
    }

    /// What the items are; points unless said.
    pub fn of(self, items: Items) -> Self {
        Self { items, ..self }
    }

    /// Each item says which row of the file it is, counted from 1: where it is refused, that is kept
    /// with it.
    pub fn naming_rows(self) -> Self {
        Self {
            names_rows: true,
            ..self
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether `item` would make the message too large.
    pub fn is_full(&self, item: &Item) -> bool {
        !self.is_empty()
            && (self.rows.len() >= self.rows_max
                || self.params.len() + item.json.len() >= MESSAGE_BYTES_MAX)
    }

    pub fn add(&mut self, row: u64, item: &Item) {
        if !self.is_empty() {
            self.params.push(b',');
        }
        if let Some(rest) = item.json.strip_prefix(b"{")
            && self.names_rows
        {
            self.params.extend_from_slice(b"{\"row\":");
            let row = row.saturating_add(1);
            self.params
                .extend_from_slice(itoa::Buffer::new().format(row).as_bytes());
            self.params.push(b',');
            self.params.extend_from_slice(rest);
        } else {
            self.params.extend_from_slice(&item.json);
        }
        self.rows.push(row);
        self.values += u64::from(item.values);
    }

    /// The message of what was added; the builder begins anew.
    pub fn build(&mut self) -> Message {
        self.count += 1;
        let id = format!("{}-{}-{}", self.run, self.lane, self.count);
        let mut payload = Vec::with_capacity(self.params.len() + 128);
        payload.extend_from_slice(b"{\"id\":\"");
        payload.extend_from_slice(id.as_bytes());
        payload.extend_from_slice(b"\",\"version\":\"1.0\",\"method\":\"");
        payload.extend_from_slice(self.items.method().as_bytes());
        payload.extend_from_slice(b"\",\"params\":[");
        payload.append(&mut self.params);
        payload.extend_from_slice(b"]}");
        Message {
            id,
            rows: std::mem::take(&mut self.rows),
            values: std::mem::take(&mut self.values),
            payload: payload.into(),
        }
    }
}

/// The connection that carries a device: always the same, so that its rows arrive in their order.
pub fn lane_of(device: &str, lanes: usize) -> usize {
    if lanes == 1 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    device.hash(&mut hasher);
    let lanes = u64::try_from(lanes).expect("a usize fits 64 bits");
    usize::try_from(hasher.finish() % lanes).expect("it is below a usize")
}

/// Which rows are not answered yet. A message is known by its first row.
#[derive(Debug, Default)]
pub struct Ledger {
    page: Mutex<Page>,
}

#[derive(Debug, Default)]
struct Page {
    open: BTreeSet<u64>,
    /// Every row below is in a message, or needs none.
    seen: u64,
}

impl Ledger {
    /// A ledger of a file whose rows below `start` are answered.
    pub fn starting_at(start: u64) -> Self {
        Self {
            page: Mutex::new(Page {
                open: BTreeSet::new(),
                seen: start,
            }),
        }
    }

    /// A row joins a message, as its first or as a further one.
    pub fn enter(&self, row: u64, is_first: bool) {
        let mut page = self.page.lock();
        if is_first {
            page.open.insert(row);
        }
        page.seen = row + 1;
    }

    /// The message that begins with `first` is answered.
    pub fn close(&self, first: u64) {
        self.page.lock().open.remove(&first);
    }

    /// How many messages are not answered.
    pub fn open(&self) -> usize {
        self.page.lock().open.len()
    }

    /// Rows from the beginning that are all answered.
    pub fn answered(&self) -> u64 {
        let page = self.page.lock();
        page.open.first().copied().unwrap_or(page.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(json: &str) -> Item {
        Item {
            device: "R1".into(),
            json: json.into(),
            values: 2,
            raw: Vec::new(),
        }
    }

    #[test]
    fn a_message_is_the_envelope_of_its_items() {
        let mut builder = Builder::new("5f", 0, 2);
        assert!(!builder.is_full(&item("{}")));
        builder.add(4, &item(r#"{"a":1}"#));
        builder.add(6, &item(r#"{"b":2}"#));
        assert!(builder.is_full(&item("{}")));
        let message = builder.build();
        let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"id": "5f-0-1", "version": "1.0", "method": "integration.measurepoint.post",
                "params": [{"a": 1}, {"b": 2}]})
        );
        assert_eq!((message.rows, message.values), (vec![4, 6], 4));
        builder.add(7, &item("{}"));
        assert_eq!(builder.build().id, "5f-0-2");
    }

    #[test]
    fn a_message_stays_below_its_bytes_but_a_large_item_goes_alone() {
        let mut builder = Builder::new("5f", 0, 500);
        let large = item(&"x".repeat(MESSAGE_BYTES_MAX));
        assert!(!builder.is_full(&large));
        builder.add(0, &large);
        assert!(builder.is_full(&item("{}")));
    }

    #[test]
    fn the_answered_rows_end_before_the_first_open_message() {
        let ledger = Ledger::starting_at(10);
        assert_eq!(ledger.answered(), 10);
        for (row, is_first) in [(10, true), (11, false), (12, true), (15, true)] {
            ledger.enter(row, is_first);
        }
        ledger.close(12);
        assert_eq!((ledger.answered(), ledger.open()), (10, 2));
        ledger.close(10);
        assert_eq!(ledger.answered(), 15, "rows 13 and 14 had no values");
        ledger.close(15);
        assert_eq!((ledger.answered(), ledger.open()), (16, 0));
    }

    #[test]
    fn a_device_keeps_its_connection() {
        assert_eq!(lane_of("R80711", 1), 0);
        assert_eq!(lane_of("R80711", 4), lane_of("R80711", 4));
        let used: BTreeSet<_> = (0..64).map(|n| lane_of(&format!("R{n}"), 4)).collect();
        assert_eq!(used.len(), 4);
    }
}
