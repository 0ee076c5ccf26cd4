//! Whether a topic is there, as it should be, and may be written to.

use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Statistics,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};

use super::{
    super::{Cluster, Made, Told, TopicError, TopicForm, is_topic_name, of_code},
    Notes, Verdict,
};

/// A probe larger than what a topic takes is made up to this size.
const PROBE_BYTES_MAX: usize = 17 << 20;

pub(super) fn check(
    cluster: &Cluster,
    consumer: &BaseConsumer<Told>,
    name: &str,
    brokers: usize,
    notes: &mut Notes,
) {
    let subject = format!("topic {name}");
    if !is_topic_name(name) {
        let rule = "is no name of a topic: 1 to 249 of letters, digits, '.', '_' and '-'";
        return notes.note(Verdict::Wrong, &subject, rule);
    }
    let metadata = match consumer.fetch_metadata(Some(name), cluster.patience()) {
        Ok(metadata) => metadata,
        Err(error) => return notes.note(Verdict::Wrong, &subject, error.to_string()),
    };
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return absent(cluster, name, brokers, notes);
    };
    match topic.error().map(Code::from) {
        None => {}
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
            return absent(cluster, name, brokers, notes);
        }
        Some(code) => return notes.note(Verdict::Wrong, &subject, of_code(code)),
    }
    let partitions = topic.partitions();
    let replicas = partitions.iter().map(|p| p.replicas().len()).min();
    let wanted = usize::from(cluster.settings().partitions);
    if partitions.len() != wanted {
        let message = format!(
            "has {} partitions, kafka.partitions says {wanted}: it stays as it is",
            partitions.len()
        );
        notes.note(Verdict::Warning, &subject, message);
    }
    if let (Some(replicas), Some(wanted)) = (replicas, cluster.settings().replication)
        && replicas != usize::from(wanted)
    {
        let message = format!("has {replicas} replicas, kafka.replication says {wanted}");
        notes.note(Verdict::Warning, &subject, message);
    }
    let leaderless = partitions.iter().filter(|p| p.leader() < 0).count();
    if leaderless > 0 {
        let message = format!("{leaderless} partitions have no leader: brokers are down");
        return notes.note(Verdict::Wrong, &subject, message);
    }
    let limit = settings(cluster, name, replicas.unwrap_or(1), notes);
    may_write(cluster, name, limit, notes);
}

fn absent(cluster: &Cluster, name: &str, brokers: usize, notes: &mut Notes) {
    let subject = format!("topic {name}");
    let form = TopicForm {
        partitions: cluster.settings().partitions,
        settings: Vec::new(),
    };
    if let Some(replication) = cluster.settings().replication
        && usize::from(replication) > brokers
    {
        let message = format!(
            "does not exist, and cannot be made: kafka.replication is {replication}, the cluster \
             has {brokers} brokers"
        );
        return notes.note(Verdict::Wrong, &subject, message);
    }
    match cluster.could_make(name, &form) {
        Ok(Made::New | Made::WasThere) => notes.note(
            Verdict::Ok,
            &subject,
            format!(
                "does not exist yet, and will be made with {} partitions",
                form.partitions
            ),
        ),
        Ok(Made::NotAllowed) => notes.note(
            Verdict::Wrong,
            &subject,
            "does not exist (or may not be described), and Kafka does not let this user make it; \
             make it, or grant CREATE on it",
        ),
        Err(error @ (TopicError::Unavailable(_) | TopicError::Refused { .. })) => {
            notes.note(Verdict::Wrong, &subject, error.to_string());
        }
    }
}

/// What the topic's settings say of replicas in sync and of the size of messages; the latter.
fn settings(cluster: &Cluster, name: &str, replicas: usize, notes: &mut Notes) -> Option<usize> {
    let subject = format!("topic {name}");
    let options = AdminOptions::new().request_timeout(Some(cluster.patience()));
    let admin: AdminClient<Told> = cluster.client().create_with_context(Told::default()).ok()?;
    let resource = ResourceSpecifier::Topic(name);
    let asked = admin.describe_configs([&resource], &options);
    let found = futures::executor::block_on(asked)
        .ok()?
        .into_iter()
        .next()?;
    let Ok(found) = found else {
        // Nice to know, and not needed.
        let message = "its settings may not be read; grant DESCRIBE_CONFIGS to have them checked";
        notes.note(Verdict::Warning, &subject, message);
        return None;
    };
    let number = |key: &str| -> Option<usize> { found.get(key)?.value.as_ref()?.parse().ok() };
    if let Some(in_sync) = number("min.insync.replicas").filter(|min| *min > replicas) {
        let message = format!(
            "min.insync.replicas is {in_sync} and it has {replicas} replicas: nothing can be written"
        );
        notes.note(Verdict::Wrong, &subject, message);
    }
    let limit = number("max.message.bytes")?;
    let ours = cluster.settings().message_bytes_max;
    if u32::try_from(limit).is_ok_and(|limit| limit < ours) {
        let message = format!(
            "takes messages and batches up to {limit} bytes, kafka.message_bytes_max is {ours}: set \
             the latter to {limit}, or raise max.message.bytes of the topic"
        );
        notes.note(Verdict::Warning, &subject, message);
    }
    Some(limit)
}

/// Sends what is too large to be taken: a broker looks at the permission first.
fn may_write(cluster: &Cluster, name: &str, limit: Option<usize>, notes: &mut Notes) {
    let subject = format!("topic {name}");
    let bytes = limit.unwrap_or(1 << 20) + (64 << 10);
    if bytes > PROBE_BYTES_MAX {
        let message = "takes very large messages: whether it may be written to was not tried";
        return notes.note(Verdict::Warning, &subject, message);
    }
    match refusal(cluster, name, bytes) {
        Ok(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => {
            notes.note(Verdict::Ok, &subject, "exists and may be written to");
        }
        Ok(code) => notes.note(Verdict::Wrong, &subject, of_code(code)),
        Err(error) => notes.note(Verdict::Wrong, &subject, error.to_string()),
    }
}

fn refusal(cluster: &Cluster, name: &str, bytes: usize) -> Result<Code, KafkaError> {
    let timeout_ms = cluster.settings().delivery_timeout_ms.to_string();
    let producer: BaseProducer<Refusal> = cluster
        .client()
        // Who may write to a topic may do so idempotently: a refusal of the topic itself says more.
        .set("enable.idempotence", "false")
        .set("compression.type", "none")
        .set("message.max.bytes", (bytes + (64 << 10)).to_string())
        .set("message.timeout.ms", timeout_ms)
        .create_with_context(Refusal::default())?;
    let payload = vec![0; bytes];
    let record = BaseRecord::<[u8], _>::to(name)
        .partition(0)
        .payload(&payload);
    if let Err((error, _)) = producer.send(record) {
        return Err(error);
    }
    producer.flush(cluster.patience() + Duration::from_secs(5))?;
    let code = *producer.context().0.lock();
    // Taken, or not said: neither can be.
    Ok(code.unwrap_or(Code::Unknown))
}

/// What the broker said to the probe.
#[derive(Default)]
struct Refusal(Mutex<Option<Code>>);

impl ClientContext for Refusal {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Told::default().log(level, facility, message);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "kafka: {reason}");
    }
}

impl ProducerContext for Refusal {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            *self.0.lock() = error.rdkafka_error_code();
        }
    }
}

/// Whether exactly once is possible for this user.
pub(super) fn check_transactions(cluster: &Cluster, notes: &mut Notes) {
    let id = cluster.name("check");
    let subject = format!("transactional id {id}");
    let producer: Result<BaseProducer<Refusal>, _> = cluster
        .client()
        .set("transactional.id", &id)
        .create_with_context(Refusal::default());
    let outcome = producer.and_then(|producer| producer.init_transactions(cluster.patience()));
    match outcome.as_ref().map_err(KafkaError::rdkafka_error_code) {
        Ok(()) => notes.note(
            Verdict::Ok,
            &subject,
            "may be used: exactly once is possible",
        ),
        Err(Some(Code::TransactionalIdAuthorizationFailed)) => {
            let prefix = &cluster.settings().transactional_id_prefix;
            let message = format!(
                "may not be used: rules with exactly once stand still; grant WRITE and DESCRIBE on \
                 transactional ids that begin with {prefix}-"
            );
            notes.note(Verdict::Warning, &subject, message);
        }
        Err(code) => {
            let reason = code.map_or_else(|| "it failed".to_owned(), of_code);
            let message = format!("rules with exactly once would stand still: {reason}");
            notes.note(Verdict::Warning, &subject, message);
        }
    }
}
