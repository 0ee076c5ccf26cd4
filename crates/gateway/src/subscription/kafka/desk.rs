//! What is asked of Kafka and told to it about one topic and its groups. Everything here blocks.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{IsError, KafkaError, RDKafkaErrorCode as Code},
};

use super::{super::group::Extent, group_id};
use crate::kafka::{Cluster, Made, Told, TopicForm, explain};

/// One request.
const PATIENCE: Duration = Duration::from_secs(5);
const HOUR_MS: u64 = 3_600 * 1_000;

/// Why Kafka cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Kafka: {0}")]
pub(in super::super) struct DeskError(pub(super) String);

pub(in super::super) struct Desk {
    cluster: Cluster,
    topic: String,
    partitions: u16,
    told: Told,
    /// In no group.
    watcher: BaseConsumer<Told>,
    /// One for each group whose offsets are told.
    registrars: HashMap<String, BaseConsumer<Told>>,
}

impl Desk {
    /// Sees to it that the topic is there, with the partitions and the retention that are declared.
    pub(super) fn open(
        cluster: &Cluster,
        topic: &str,
        partitions: u16,
        retention_hours: u32,
    ) -> Result<Self, DeskError> {
        let told = Told::default();
        let watcher = consumer(cluster, None, &told)?;
        let desk = Self {
            cluster: cluster.clone(),
            topic: topic.to_owned(),
            partitions,
            told,
            watcher,
            registrars: HashMap::new(),
        };
        let found = match desk.found()? {
            Some(found) => found,
            None => {
                desk.make(retention_hours)?;
                usize::from(partitions)
            }
        };
        if found != usize::from(partitions) {
            return Err(DeskError(format!(
                "topic {topic} has {found} partitions, {partitions} are declared"
            )));
        }
        desk.keep_for(retention_hours)?;
        Ok(desk)
    }

    /// The partitions of the topic, if it is there.
    fn found(&self) -> Result<Option<usize>, DeskError> {
        let metadata = self.watcher.fetch_metadata(Some(&self.topic), PATIENCE);
        let metadata = metadata.map_err(|error| self.failed(&error))?;
        let mut topics = metadata.topics().iter();
        let found = topics.find(|found| found.name() == self.topic);
        let found = found.filter(|found| found.error().is_none_or(|error| !error.is_error()));
        Ok(found.map(|found| found.partitions().len()))
    }

    fn make(&self, retention_hours: u32) -> Result<(), DeskError> {
        let form = TopicForm {
            partitions: self.partitions,
            settings: vec![("retention.ms", retention_ms(retention_hours))],
        };
        match self.cluster.make_topic(&self.topic, &form) {
            Ok(Made::New | Made::WasThere) => Ok(()),
            Ok(Made::NotAllowed) => Err(DeskError(format!(
                "topic {} does not exist, and this user may not make it; make it with {} \
                 partitions, or grant CREATE",
                self.topic, self.partitions
            ))),
            Err(error) => Err(DeskError(error.to_string())),
        }
    }

    /// Sets how long the topic keeps messages, if it is another time.
    pub(super) fn keep_for(&self, retention_hours: u32) -> Result<(), DeskError> {
        let setting = ("retention.ms", retention_ms(retention_hours));
        let outcome = self.cluster.agree_topic(&self.topic, &setting);
        outcome.map_err(|error| DeskError(error.to_string()))
    }

    /// What each partition holds.
    pub(super) fn extents(&self) -> Result<Vec<Extent>, DeskError> {
        let partitions = 0..i32::from(self.partitions);
        let extents = partitions.map(|partition| {
            let marks = self
                .watcher
                .fetch_watermarks(&self.topic, partition, PATIENCE);
            let (oldest, next) = marks.map_err(|error| self.failed(&error))?;
            Ok(Extent {
                oldest: unsigned(oldest),
                next: unsigned(next),
            })
        });
        extents.collect()
    }

    /// The groups of the subscription that Kafka knows.
    pub(super) fn groups(&self) -> Result<Vec<String>, DeskError> {
        let found = self.watcher.fetch_group_list(None, PATIENCE);
        let found = found.map_err(|error| self.failed(&error))?;
        let prefix = group_id(&self.topic, "");
        let groups = found.groups().iter();
        Ok(groups
            .filter_map(|group| group.name().strip_prefix(&prefix))
            .map(str::to_owned)
            .collect())
    }

    /// The offsets that a group has committed, by partition.
    pub(super) fn committed(&mut self, group: &str) -> Result<Vec<Option<u64>>, DeskError> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions {
            asked.add_partition(&self.topic, partition.into());
        }
        let found = self.registrar(group)?.committed_offsets(asked, PATIENCE);
        let found = found.map_err(|error| self.failed(&error))?;
        let mut committed = vec![None; usize::from(self.partitions)];
        for element in found.elements() {
            let place = usize::try_from(element.partition()).ok();
            if let (Some(place), Offset::Offset(offset)) = (place, element.offset())
                && let Some(committed) = committed.get_mut(place)
            {
                *committed = Some(unsigned(offset));
            }
        }
        Ok(committed)
    }

    /// Tells Kafka what a group has committed.
    pub(super) fn commit(
        &mut self,
        group: &str,
        offsets: &[(usize, u64)],
    ) -> Result<(), DeskError> {
        let mut told = TopicPartitionList::new();
        for (partition, next) in offsets {
            let partition = i32::try_from(*partition).expect("there are few partitions");
            let offset = Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            told.add_partition_offset(&self.topic, partition, offset)
                .map_err(|error| self.failed(&error))?;
        }
        let outcome = self.registrar(group)?.commit(&told, CommitMode::Sync);
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if is_taken(&error) => {
                tracing::warn!(
                    group = group_id(&self.topic, group),
                    "somebody else consumes in this group: its offsets in Kafka are theirs"
                );
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn registrar(&mut self, group: &str) -> Result<&BaseConsumer<Told>, DeskError> {
        if !self.registrars.contains_key(group) {
            let id = group_id(&self.topic, group);
            let registrar = consumer(&self.cluster, Some(&id), &self.told)?;
            self.registrars.insert(group.to_owned(), registrar);
        }
        Ok(&self.registrars[group])
    }

    /// Offsets of this group are not told any more.
    pub(super) fn forget(&mut self, group: &str) {
        self.registrars.remove(group);
    }

    /// The first message of a partition at or behind `time_ms`; the next to come where there is none.
    pub(in super::super) fn offset_at(
        &self,
        partition: usize,
        time_ms: i64,
    ) -> Result<u64, DeskError> {
        let partition = i32::try_from(partition).expect("there are few partitions");
        let mut asked = TopicPartitionList::new();
        asked
            .add_partition_offset(&self.topic, partition, Offset::Offset(time_ms))
            .map_err(|error| self.failed(&error))?;
        let found = self.watcher.offsets_for_times(asked, PATIENCE);
        let found = found.map_err(|error| self.failed(&error))?;
        if let Some(Offset::Offset(offset)) = found.elements().first().map(|e| e.offset()) {
            return Ok(unsigned(offset));
        }
        let marks = self
            .watcher
            .fetch_watermarks(&self.topic, partition, PATIENCE);
        Ok(unsigned(marks.map_err(|error| self.failed(&error))?.1))
    }

    fn failed(&self, error: &KafkaError) -> DeskError {
        // Complaints wait in the queue.
        drop(self.watcher.poll(Duration::ZERO));
        let said = self.told.last().unwrap_or_else(|| error.to_string());
        self.told.forget();
        DeskError(explain(&said))
    }
}

/// Deletes the topic of a subscription and its groups: it was deleted itself.
pub(in super::super) fn delete(cluster: &Cluster, topic: &str) -> Result<(), DeskError> {
    let told = Told::default();
    let watcher = consumer(cluster, None, &told)?;
    let found = watcher
        .fetch_group_list(None, PATIENCE)
        .map_err(|error| DeskError(error.to_string()))?;
    let prefix = group_id(topic, "");
    let groups: Vec<String> = found
        .groups()
        .iter()
        .map(|group| group.name().to_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    let outcome = cluster.delete_topic(topic, &groups);
    outcome.map_err(|error| DeskError(error.to_string()))
}

fn consumer(
    cluster: &Cluster,
    group: Option<&str>,
    told: &Told,
) -> Result<BaseConsumer<Told>, DeskError> {
    let mut config = cluster.client();
    config
        .set("enable.auto.commit", "false")
        // How long a commit waits for a broker: whoever ends a subscription waits for it.
        .set("socket.timeout.ms", "5000")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "2000");
    if let Some(group) = group {
        config.set("group.id", group);
    }
    let consumer = config.create_with_context(told.clone());
    consumer.map_err(|error| DeskError(explain(&error.to_string())))
}

/// The group has members that are none of ours.
fn is_taken(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress)
    )
}

fn retention_ms(hours: u32) -> String {
    (u64::from(hours) * HOUR_MS).to_string()
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}
