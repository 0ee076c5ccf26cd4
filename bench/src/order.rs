//! In which order a connection sends its devices' rows.

use std::collections::VecDeque;

use crate::series::{Random, Values, Walk};

/// One row of a message.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub device: u32,
    pub index: u32,
    pub values: Values,
}

/// An endless source of rows. `duplicates` of every hundred rows are exact copies of rows that are
/// sent as well.
pub enum Order {
    InOrder(InOrder),
    Shuffled(Shuffled),
}

impl Order {
    /// Replaces `message` by the next `rows` rows.
    pub fn next_message(&mut self, rows: usize, message: &mut Vec<Row>) {
        message.clear();
        match self {
            Self::InOrder(order) => order.next_message(rows, message),
            Self::Shuffled(order) => order.next_message(rows, message),
        }
    }
}

/// Each message holds consecutive rows of one device; devices take turns, as if a file per device
/// were read side by side. Duplicates are whole messages of a moment ago, as after a lost link.
pub struct InOrder {
    walks: Vec<(u32, Walk)>,
    turn: usize,
    recent: VecDeque<Vec<Row>>,
    duplicates: u32,
    random: Random,
}

const RECENT_MESSAGES: usize = 64;

impl InOrder {
    pub fn new(seed: u64, devices: &[u32], duplicates: u32) -> Self {
        Self {
            walks: walks(seed, devices),
            turn: 0,
            recent: VecDeque::with_capacity(RECENT_MESSAGES),
            duplicates,
            random: Random::new(!seed ^ u64::from(devices[0])),
        }
    }

    fn next_message(&mut self, rows: usize, message: &mut Vec<Row>) {
        if self.recent.len() == RECENT_MESSAGES && self.random.below(100) < self.duplicates {
            let again = self.random.below(RECENT_MESSAGES as u32) as usize;
            message.extend_from_slice(&self.recent[again]);
            return;
        }
        let turn = self.turn;
        self.turn = (turn + 1) % self.walks.len();
        let (device, walk) = &mut self.walks[turn];
        message.extend((0..rows).map(|_| Row {
            device: *device,
            index: walk.index(),
            values: walk.advance(),
        }));

        let mut kept = if self.recent.len() == RECENT_MESSAGES {
            self.recent.pop_front()
        } else {
            None
        }
        .unwrap_or_default();
        kept.clone_from(message);
        self.recent.push_back(kept);
    }
}

/// Every row of a message is of a random device and time. Shuffled are blocks of `BLOCK_ROWS` rows of
/// each device, one block after the other: with 1 000 devices a block holds 28 million points, more
/// than any memtable.
pub struct Shuffled {
    walks: Vec<(u32, Walk)>,
    block_start: u32,
    /// Values by device, then index.
    block: Vec<Values>,
    /// Positions in `block`, shuffled, duplicates included.
    order: Vec<u32>,
    sent: usize,
    duplicates: u32,
    random: Random,
}

const BLOCK_ROWS: usize = 4_000;

impl Shuffled {
    pub fn new(seed: u64, devices: &[u32], duplicates: u32) -> Self {
        let mut new = Self {
            walks: walks(seed, devices),
            block_start: 0,
            block: Vec::with_capacity(devices.len() * BLOCK_ROWS),
            order: Vec::new(),
            sent: 0,
            duplicates,
            random: Random::new(!seed ^ u64::from(devices[0])),
        };
        new.next_block();
        new
    }

    fn next_message(&mut self, rows: usize, message: &mut Vec<Row>) {
        for _ in 0..rows {
            if self.sent == self.order.len() {
                self.next_block();
            }
            let at = self.order[self.sent] as usize;
            self.sent += 1;
            message.push(Row {
                device: self.walks[at / BLOCK_ROWS].0,
                index: self.block_start + (at % BLOCK_ROWS) as u32,
                values: self.block[at],
            });
        }
    }

    fn next_block(&mut self) {
        self.block_start = self.walks[0].1.index();
        self.block.clear();
        for (_, walk) in &mut self.walks {
            self.block.extend((0..BLOCK_ROWS).map(|_| walk.advance()));
        }
        let rows = self.block.len() as u32;
        let again = u64::from(rows) * u64::from(self.duplicates) / u64::from(100 - self.duplicates);
        self.order.clear();
        self.order.extend(0..rows);
        self.order
            .extend((0..again).map(|_| self.random.below(rows)));
        for i in (1..self.order.len()).rev() {
            self.order.swap(i, self.random.below(i as u32 + 1) as usize);
        }
        self.sent = 0;
    }
}

fn walks(seed: u64, devices: &[u32]) -> Vec<(u32, Walk)> {
    devices
        .iter()
        .map(|&device| (device, Walk::new(seed, device)))
        .collect()
}
