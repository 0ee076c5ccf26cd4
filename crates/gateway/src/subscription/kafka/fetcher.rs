//! Reads messages of a subscription's topic, each group each partition by itself: groups are at
//! different places.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::{
    Message as _, Offset, Timestamp, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::BorrowedMessage,
};

use super::super::{
    source::{Message, PullSize},
    topic::Pages,
};
use super::desk::Desk;
use crate::{
    kafka::{Cluster, Told},
    limits,
};

/// How long a read waits for Kafka. Then it comes back empty, and is made again.
const PATIENCE: Duration = Duration::from_millis(500);
/// A reader that nobody has asked for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// What a reader fetches ahead.
const AHEAD_KIB: &str = "512";

pub(in super::super) struct Fetcher {
    cluster: Cluster,
    topic: String,
    partitions: u16,
    retention_hours: u32,
    readers: Mutex<HashMap<Place, Arc<Mutex<Reader>>>>,
}

/// A group and a partition.
type Place = (Box<str>, usize);

/// One group's way through one partition.
struct Reader {
    consumer: BaseConsumer<Told>,
    /// What comes next, if it was ever placed.
    next: Option<u64>,
    /// It did not fit any more.
    held: Option<Message>,
    used_at: Instant,
}

impl Fetcher {
    pub(in super::super) fn new(
        cluster: Cluster,
        topic: String,
        partitions: u16,
        retention_hours: u32,
    ) -> Self {
        Self {
            cluster,
            topic,
            partitions,
            retention_hours,
            readers: Mutex::default(),
        }
    }

    /// Closes readers that nobody uses. Blocks for a moment.
    pub(super) fn tidy(&self) {
        let mut closed = Vec::new();
        self.readers.lock().retain(|_, reader| {
            let is_idle = reader
                .try_lock()
                .is_some_and(|r| r.used_at.elapsed() > IDLE);
            if is_idle {
                closed.push(Arc::clone(reader));
            }
            !is_idle
        });
        drop(closed);
    }

    fn reader(&self, group: &str, partition: usize) -> Result<Arc<Mutex<Reader>>, String> {
        let mut readers = self.readers.lock();
        let key = (group.into(), partition);
        if let Some(reader) = readers.get(&key) {
            return Ok(Arc::clone(reader));
        }
        if readers.len() >= limits::KAFKA_READERS_MAX {
            let longest = readers.iter().filter_map(|(key, reader)| {
                let used_at = reader.try_lock()?.used_at;
                Some((used_at, key.clone()))
            });
            if let Some((_, key)) = longest.min_by_key(|(used_at, _)| *used_at) {
                readers.remove(&key);
            }
        }
        let reader = Arc::new(Mutex::new(Reader {
            consumer: self.consumer()?,
            next: None,
            held: None,
            used_at: Instant::now(),
        }));
        readers.insert(key, Arc::clone(&reader));
        Ok(reader)
    }

    fn consumer(&self) -> Result<BaseConsumer<Told>, String> {
        self.cluster
            .client()
            // Partitions are assigned by hand: no group is joined, no offset kept.
            .set("group.id", self.cluster.name("reader"))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            // What retention has taken away is passed over.
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", AHEAD_KIB)
            .create_with_context(Told::default())
            .map_err(|error| error.to_string())
    }
}

impl Pages for Fetcher {
    fn read(
        &self,
        group: &str,
        partition: usize,
        from: u64,
        size: PullSize,
    ) -> Result<Vec<Message>, String> {
        let reader = self.reader(group, partition)?;
        let mut reader = reader.lock();
        reader.used_at = Instant::now();
        let outcome = reader.read(&self.topic, partition, from, size);
        if outcome.is_err() {
            reader.next = None;
        }
        outcome
    }

    fn offset_at(&self, partition: usize, time_ms: i64) -> Result<u64, String> {
        let desk = Desk::open(
            &self.cluster,
            &self.topic,
            self.partitions,
            self.retention_hours,
        );
        desk.and_then(|desk| desk.offset_at(partition, time_ms))
            .map_err(|error| error.to_string())
    }
}

impl Reader {
    fn read(
        &mut self,
        topic: &str,
        partition: usize,
        from: u64,
        size: PullSize,
    ) -> Result<Vec<Message>, String> {
        if self.next != Some(from) {
            self.place(topic, partition, from)?;
        }
        let deadline = Instant::now() + PATIENCE;
        let (mut messages, mut bytes) = (Vec::new(), 0);
        loop {
            let message = match self.held.take() {
                Some(held) => held,
                None => match self.poll(messages.is_empty().then_some(deadline)) {
                    Some(message) => message,
                    None => break,
                },
            };
            bytes += message.key.len() + message.value.len();
            let is_full = bytes > size.bytes_max || messages.len() >= size.messages_max;
            if is_full && !messages.is_empty() {
                self.held = Some(message);
                break;
            }
            messages.push(message);
        }
        self.next = Some(messages.last().map_or(from, |last| last.offset + 1));
        Ok(messages)
    }

    fn place(&mut self, topic: &str, partition: usize, from: u64) -> Result<(), String> {
        self.held = None;
        self.next = None;
        let partition = i32::try_from(partition).expect("there are few partitions");
        let from = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        let mut place = TopicPartitionList::new();
        place
            .add_partition_offset(topic, partition, from)
            .and_then(|()| self.consumer.assign(&place))
            .map_err(|error| error.to_string())
    }

    /// The next message; waits for it where there is a deadline.
    fn poll(&self, deadline: Option<Instant>) -> Option<Message> {
        loop {
            let wait = deadline.map_or(Duration::ZERO, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            match self.consumer.poll(wait) {
                Some(Ok(record)) => return Some(message(&record)),
                // Kafka is away for a moment: it goes on by itself.
                Some(Err(error)) => tracing::debug!(%error, "kafka: no message"),
                None => {}
            }
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return None;
            }
        }
    }
}

fn message(record: &BorrowedMessage<'_>) -> Message {
    let time_ms = match record.timestamp() {
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms,
        Timestamp::NotAvailable => 0,
    };
    Message {
        partition: u16::try_from(record.partition()).unwrap_or(0),
        offset: u64::try_from(record.offset()).unwrap_or(0),
        time_ms,
        key: Bytes::copy_from_slice(record.key().unwrap_or_default()),
        value: Bytes::copy_from_slice(record.payload().unwrap_or_default()),
    }
}
