//! The compacted topic in which rules with exactly once keep how far they are, one record a rule.

use std::time::{Duration, Instant};

use backtide_store::Sequence;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde::{Deserialize, Serialize};

use super::Cluster;
use crate::kafka::{Told, TopicForm, explain};

/// One partition: the topic is read whole, and is small.
const PARTITION: i32 = 0;
/// The compaction leaves the open segment alone: what is read at a start is about this much.
const SEGMENT_BYTES: &str = "8388608";
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How far a rule is, and whose word that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The store whose log is meant.
    pub(super) store: u32,
    /// Everything up to here is published; absent: nothing was by exactly once.
    pub(super) sequence: Option<u64>,
    /// Who publishes: changes with every taking over.
    pub(super) instance: String,
    /// Counts the transactions of an instance: whether one arrived is seen by it.
    #[serde(default)]
    pub(super) attempt: u64,
}

impl Cursor {
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("plain values are JSON")
    }

    /// How far, if it is about this store.
    pub(super) fn reached(&self, store: u32) -> Option<Sequence> {
        self.sequence.filter(|_| self.store == store).map(Sequence)
    }
}

/// The topic's name.
pub(super) fn topic(cluster: &Cluster) -> String {
    format!("BACKTIDE_CURSORS_{}", cluster.organization())
}

/// How it is made.
pub(super) fn form() -> TopicForm<'static> {
    TopicForm {
        partitions: 1,
        settings: vec![
            ("cleanup.policy", "compact".into()),
            ("segment.bytes", SEGMENT_BYTES.into()),
            ("min.cleanable.dirty.ratio", "0.1".into()),
        ],
    }
}

/// The last cursor of a rule, read to the end of the topic as it is now. Blocks.
///
/// Transactions of other rules may be open before the end: it waits until they are decided, which
/// takes no longer than a transaction may.
pub(super) fn read(cluster: &Cluster, rule: &str) -> Result<Option<Cursor>, String> {
    let topic = topic(cluster);
    let deadline = Instant::now() + cluster.patience();
    let told = Told::default();
    let failed = |error: &KafkaError| {
        let said = told.last().unwrap_or_else(|| error.to_string());
        format!(
            "the cursor topic {topic} cannot be read: {}",
            explain(&said)
        )
    };
    let end = {
        let everything = consumer(cluster, "read_uncommitted", &told).map_err(|e| failed(&e))?;
        end_of(&everything, &topic, deadline).map_err(|e| failed(&e))?
    };
    let decided = consumer(cluster, "read_committed", &told).map_err(|e| failed(&e))?;
    while end_of(&decided, &topic, deadline).map_err(|e| failed(&e))? < end {
        if Instant::now() >= deadline {
            return Err(format!(
                "the cursor topic {topic} has a transaction that is open; waiting for its end"
            ));
        }
        // Takes its time to say that nothing came: that is the pause.
        drop(decided.poll(Duration::from_millis(50)));
    }
    let mut from_start = TopicPartitionList::new();
    from_start
        .add_partition_offset(&topic, PARTITION, Offset::Beginning)
        .map_err(|e| failed(&e))?;
    decided.assign(&from_start).map_err(|e| failed(&e))?;
    let mut found = None;
    loop {
        match decided.poll(LOOK_EVERY) {
            Some(Ok(record)) if record.key() == Some(rule.as_bytes()) => {
                found = record.payload().map(<[u8]>::to_vec);
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) if Instant::now() >= deadline => return Err(failed(&error)),
            Some(Err(_)) => {}
            None if Instant::now() >= deadline => {
                return Err(failed(&KafkaError::NoMessageReceived));
            }
            None => {}
        }
    }
    let Some(found) = found else {
        return Ok(None);
    };
    let cursor = serde_json::from_slice(&found);
    cursor
        .map(Some)
        .map_err(|error| format!("the cursor of {rule} in {topic} is not one of ours: {error}"))
}

fn consumer(
    cluster: &Cluster,
    isolation: &str,
    told: &Told,
) -> Result<BaseConsumer<Told>, KafkaError> {
    cluster
        .client()
        // Partitions are assigned by hand: no group is joined, no offset kept.
        .set("group.id", cluster.name("cursors"))
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .create_with_context(told.clone())
}

/// The end that a consumer of its isolation sees.
fn end_of(
    consumer: &BaseConsumer<Told>,
    topic: &str,
    deadline: Instant,
) -> Result<i64, KafkaError> {
    loop {
        match consumer.fetch_watermarks(topic, PARTITION, LOOK_EVERY * 4) {
            Ok((_, end)) => return Ok(end),
            Err(error) if Instant::now() >= deadline => return Err(error),
            // Serves its queue: complaints become words.
            Err(_) => drop(consumer.poll(Duration::from_millis(50))),
        }
    }
}
