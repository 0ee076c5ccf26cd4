//! In which order a connection sends its devices' rows.

use std::collections::VecDeque;
use std::thread::JoinHandle;

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
    block: Block,
    sent: usize,
    /// Made beside the sending, so that the load does not pause for it.
    next: Option<JoinHandle<Block>>,
}

const BLOCK_ROWS: usize = 4_000;

impl Shuffled {
    pub fn new(seed: u64, devices: &[u32], duplicates: u32) -> Self {
        let random = Random::new(!seed ^ u64::from(devices[0]));
        Self {
            block: Block::new(walks(seed, devices), duplicates, random),
            sent: 0,
            next: None,
        }
    }

    fn next_message(&mut self, rows: usize, message: &mut Vec<Row>) {
        for _ in 0..rows {
            if self.sent == self.block.order.len() {
                let next = self.next.take().unwrap_or_else(|| self.block.make_next());
                self.block = next.join().expect("a block is made without panic");
                self.sent = 0;
            }
            message.push(self.block.row(self.block.order[self.sent]));
            self.sent += 1;
        }
        if self.next.is_none() && self.sent > self.block.order.len() / 2 {
            self.next = Some(self.block.make_next());
        }
    }
}

struct Block {
    /// Where each device's walk stands at the end of the block.
    walks: Vec<(u32, Walk)>,
    start: u32,
    /// By device, then index.
    values: Vec<Values>,
    /// Positions in `values`, shuffled, duplicates included.
    order: Vec<u32>,
    duplicates: u32,
    random: Random,
}

impl Block {
    fn new(mut walks: Vec<(u32, Walk)>, duplicates: u32, mut random: Random) -> Self {
        let start = walks[0].1.index();
        let mut values = Vec::with_capacity(walks.len() * BLOCK_ROWS);
        for (_, walk) in &mut walks {
            values.extend((0..BLOCK_ROWS).map(|_| walk.advance()));
        }
        let rows = values.len() as u32;
        let again = u64::from(rows) * u64::from(duplicates) / u64::from(100 - duplicates);
        let mut order: Vec<u32> = (0..rows).collect();
        order.extend((0..again).map(|_| random.below(rows)));
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i as u32 + 1) as usize);
        }
        Self {
            walks,
            start,
            values,
            order,
            duplicates,
            random,
        }
    }

    fn make_next(&self) -> JoinHandle<Self> {
        let (walks, duplicates, random) =
            (self.walks.clone(), self.duplicates, self.random.clone());
        std::thread::spawn(move || Self::new(walks, duplicates, random))
    }

    fn row(&self, at: u32) -> Row {
        let (device, index) = (at as usize / BLOCK_ROWS, at as usize % BLOCK_ROWS);
        Row {
            device: self.walks[device].0,
            index: self.start + index as u32,
            values: self.values[at as usize],
        }
    }
}

fn walks(seed: u64, devices: &[u32]) -> Vec<(u32, Walk)> {
    devices
        .iter()
        .map(|&device| (device, Walk::new(seed, device)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn sent(mut order: Order, rows: usize, messages: usize) -> Vec<Row> {
        let mut message = Vec::new();
        let all = (0..messages).flat_map(|_| {
            order.next_message(rows, &mut message);
            assert_eq!(message.len(), rows);
            message.clone()
        });
        all.collect()
    }

    /// How often each (device, index) was sent; its values must be those of the device's walk.
    fn counted(rows: &[Row], seed: u64) -> HashMap<(u32, u32), u32> {
        let mut counts = HashMap::new();
        for row in rows {
            *counts.entry((row.device, row.index)).or_insert(0) += 1;
        }
        for device in [3, 7] {
            let mut walk = Walk::new(seed, device);
            let values: Vec<Values> = (0..20_000).map(|_| walk.advance()).collect();
            for row in rows.iter().filter(|row| row.device == device) {
                assert_eq!(row.values, values[row.index as usize]);
            }
        }
        counts
    }

    #[test]
    fn shuffled_blocks_are_sent_whole_with_their_duplicates() {
        let order = Order::Shuffled(Shuffled::new(1, &[3, 7], 5));
        // Two blocks: 2 × 2 devices × 4 000 rows, a nineteenth of them again.
        let rows = sent(order, 1, 2 * (8_000 + 421));
        let counts = counted(&rows, 1);
        assert_eq!(counts.len(), 16_000);
        assert!(counts.keys().all(|(_, index)| *index < 8_000));
        let in_order = rows
            .windows(2)
            .filter(|pair| pair[0].index + 1 == pair[1].index)
            .count();
        assert!(in_order < 20);
    }

    #[test]
    fn in_order_devices_take_turns_and_some_messages_come_again() {
        let rows = sent(Order::InOrder(InOrder::new(1, &[3, 7], 5)), 10, 2_000);
        let counts = counted(&rows, 1);
        let again = rows.len() - counts.len();
        assert!(
            (600..1_400).contains(&again),
            "{again} of 20 000 rows again"
        );
        for device in [3, 7] {
            let indices = counts.keys().filter(|(d, _)| *d == device);
            let highest = indices
                .clone()
                .map(|(_, index)| *index)
                .max()
                .unwrap_or_default();
            assert_eq!(indices.count(), highest as usize + 1, "no gap");
        }
    }
}
