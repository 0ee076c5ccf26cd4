//! A producer: sends records and waits until Kafka has said of each what became of it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{IsError, KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

use super::super::{Poison, Record};
use crate::{
    kafka::{Cluster, Made, Told, TopicError, TopicForm, explain, is_topic_name, of_code},
    limits,
};

/// How long to wait for news before looking whether somebody still wants them.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A thread that waits for room is woken after so many reports.
const NEWS_EVERY: usize = 1_000;
/// Beyond what librdkafka gives a record: its reports are on their way.
const GRACE: Duration = Duration::from_secs(10);

/// How records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batches {
    /// As many as fit: quick. A refusal may be of the batch, and no fault of the record.
    Full,
    /// Each by itself: a refusal is of the record.
    Single,
}

/// An open producer.
pub(super) struct Post {
    producer: ThreadedProducer<Reporter>,
    cluster: Cluster,
    /// Topics that are there.
    topics: HashSet<Arc<str>>,
    batches: Batches,
    is_transactional: bool,
    given_up: Arc<AtomicBool>,
}

/// What became of records that were sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Records that are refused for ever; by a broker in a full batch, see [`Batches`].
    pub(super) refused: Vec<Poison>,
}

/// Why it is not known, or not so, that records arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PostError {
    Unavailable(String),
    /// The producer was replaced by a newer one of its transactional id, or its transaction took too
    /// long: which of both, only the cursor topic says.
    Fenced,
}

impl Post {
    /// Opens a producer; with a transactional id its records are seen when a transaction ends.
    pub(super) fn open(
        cluster: &Cluster,
        batches: Batches,
        transactional_id: Option<&str>,
        given_up: &Arc<AtomicBool>,
    ) -> Result<Self, PostError> {
        let settings = cluster.settings();
        let message_bytes = settings.message_bytes_max.to_string();
        let mut config = cluster.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", settings.compression.name())
            // What a Java producer takes: the same key goes to the same partition.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("message.max.bytes", &message_bytes)
            .set("batch.size", &message_bytes)
            .set(
                "message.timeout.ms",
                settings.delivery_timeout_ms.to_string(),
            )
            .set(
                "queue.buffering.max.messages",
                limits::KAFKA_WAITING_RECORDS_MAX.to_string(),
            )
            .set(
                "queue.buffering.max.kbytes",
                limits::KAFKA_WAITING_KIB_MAX.to_string(),
            );
        if batches == Batches::Single {
            config.set("batch.num.messages", "1").set("linger.ms", "0");
        }
        if let Some(id) = transactional_id {
            // A record may not outlive its transaction.
            let timeout_ms = settings.delivery_timeout_ms.saturating_add(30_000);
            config
                .set("transactional.id", id)
                .set("transaction.timeout.ms", timeout_ms.to_string());
        }
        let producer = config
            .create_with_context(Reporter::default())
            .map_err(|error| PostError::Unavailable(explain(&error.to_string())))?;
        Ok(Self {
            producer,
            cluster: cluster.clone(),
            topics: HashSet::new(),
            batches,
            is_transactional: transactional_id.is_some(),
            given_up: Arc::clone(given_up),
        })
    }

    pub(super) fn batches(&self) -> Batches {
        self.batches
    }

    /// Sends records, and waits until it is known of each what became of it; in a transaction only
    /// until one is refused: it is undone then, and the rest is held back until it is.
    pub(super) fn send<'r>(
        &mut self,
        records: impl IntoIterator<Item = (usize, &'r Record)>,
    ) -> Result<Sent, PostError> {
        self.producer.context().begin();
        let mut refused = Vec::new();
        let mut failed = None;
        for (index, record) in records {
            let sent = self.enqueue(index, record);
            match sent {
                Ok(()) => {}
                Err(Unsent::Never(reason)) => refused.push(Poison { index, reason }),
                Err(Unsent::NotNow(error)) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let reports = self.await_reports()?;
        if let Some(error) = failed {
            return Err(error);
        }
        let taken_back = reports.purged.filter(|_| reports.refused.is_empty());
        if let Some(code) = reports.failed.or(taken_back) {
            return Err(self.failure(code));
        }
        refused.extend(reports.refused.into_iter().map(|(index, code)| Poison {
            index,
            reason: why_never(code),
        }));
        refused.sort_by_key(|poison| poison.index);
        self.producer.context().told.forget();
        Ok(Sent { refused })
    }

    fn enqueue(&mut self, index: usize, record: &Record) -> Result<(), Unsent> {
        self.ensure_topic(&record.address)?;
        loop {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in &record.headers {
                headers = headers.insert(Header {
                    key,
                    value: Some(&value[..]),
                });
            }
            // No timestamp: that of publishing. See the front page.
            let base = BaseRecord::with_opaque_to(&record.address, index)
                .key(&record.key[..])
                .payload(&record.value[..])
                .headers(headers);
            self.producer.context().sent();
            let Err((error, _)) = self.producer.send(base) else {
                return Ok(());
            };
            self.producer.context().unsent();
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) => self.await_room()?,
                Some(code) if is_for_ever(code) => return Err(Unsent::Never(why_never(code))),
                Some(code) => return Err(Unsent::NotNow(self.failure(code))),
                None => return Err(Unsent::Never(error.to_string())),
            }
        }
    }

    fn ensure_topic(&mut self, topic: &Arc<str>) -> Result<(), Unsent> {
        if self.topics.contains(topic) {
            return Ok(());
        }
        if !is_topic_name(topic) {
            return Err(Unsent::Never(format!(
                "{topic:?} is no name of a topic: 1 to 249 of letters, digits, '.', '_' and '-'"
            )));
        }
        if self.exists(topic).map_err(Unsent::NotNow)? {
            self.topics.insert(Arc::clone(topic));
            return Ok(());
        }
        let form = TopicForm {
            partitions: self.cluster.settings().partitions,
            settings: Vec::new(),
        };
        match self.cluster.make_topic(topic, &form) {
            Ok(Made::New | Made::WasThere) => {}
            Ok(Made::NotAllowed) => {
                let reason = format!(
                    "topic {topic} does not exist and Kafka does not let this user make it; make \
                     it, or grant CREATE"
                );
                return Err(Unsent::NotNow(PostError::Unavailable(reason)));
            }
            Err(TopicError::Unavailable(reason)) => {
                return Err(Unsent::NotNow(PostError::Unavailable(reason)));
            }
            Err(error @ TopicError::Refused { .. }) => {
                return Err(Unsent::NotNow(PostError::Unavailable(error.to_string())));
            }
        }
        self.topics.insert(Arc::clone(topic));
        Ok(())
    }

    /// Whether the topic is there. Asking makes none.
    pub(super) fn exists(&self, topic: &str) -> Result<bool, PostError> {
        let deadline = Instant::now() + self.cluster.patience();
        loop {
            let found = self
                .producer
                .client()
                .fetch_metadata(Some(topic), LOOK_EVERY * 5);
            match found {
                Ok(metadata) => {
                    let found = metadata.topics().iter().find(|found| found.name() == topic);
                    let is_there =
                        found.is_some_and(|t| t.error().is_none_or(|error| !error.is_error()));
                    return Ok(is_there);
                }
                Err(error) if Instant::now() >= deadline || self.is_given_up() => {
                    return Err(self.unavailable(&error));
                }
                Err(_) => {}
            }
        }
    }

    /// Waits until less is under way.
    fn await_room(&self) -> Result<(), Unsent> {
        if self.is_given_up() {
            return Err(Unsent::NotNow(given_up()));
        }
        self.producer.context().await_news(LOOK_EVERY);
        Ok(())
    }

    fn await_reports(&self) -> Result<Reports, PostError> {
        let deadline = Instant::now() + self.cluster.patience() + GRACE;
        let context = self.producer.context();
        loop {
            if let Some(reports) = context.reports_if_settled(self.is_transactional) {
                return Ok(reports);
            }
            if self.is_given_up() {
                return Err(given_up());
            }
            if Instant::now() >= deadline {
                let said = self.said("Kafka did not say in time what became of the records");
                return Err(PostError::Unavailable(said));
            }
            context.await_news(LOOK_EVERY);
        }
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Takes over the transactional id: an older producer of it is fenced, what it left open undone.
    pub(super) fn take_over(&self) -> Result<(), PostError> {
        let outcome = self.producer.init_transactions(self.cluster.patience());
        outcome.map_err(|error| self.of_transaction(&error))
    }

    pub(super) fn begin(&self) -> Result<(), PostError> {
        let outcome = self.producer.begin_transaction();
        outcome.map_err(|error| self.of_transaction(&error))
    }

    pub(super) fn commit(&self) -> Result<(), PostError> {
        let outcome = self.producer.commit_transaction(self.cluster.patience());
        outcome.map_err(|error| self.of_transaction(&error))
    }

    pub(super) fn abort(&self) -> Result<(), PostError> {
        let outcome = self.producer.abort_transaction(self.cluster.patience());
        outcome.map_err(|error| self.of_transaction(&error))
    }

    fn of_transaction(&self, error: &KafkaError) -> PostError {
        match error.rdkafka_error_code() {
            Some(code) => self.failure(code),
            None => self.unavailable(error),
        }
    }

    fn failure(&self, code: Code) -> PostError {
        let fatal = self.producer.client().fatal_error();
        match fatal.map_or(code, |(code, _)| code) {
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => PostError::Fenced,
            // Says nothing itself; the transaction's or the connection's trouble does.
            Code::MessageTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown => {
                PostError::Unavailable(self.said("Kafka did not take the records in time"))
            }
            code => PostError::Unavailable(of_code(code)),
        }
    }

    fn unavailable(&self, error: &KafkaError) -> PostError {
        PostError::Unavailable(self.said(&error.to_string()))
    }

    fn said(&self, otherwise: &str) -> String {
        let told = self.producer.context().told.last();
        explain(told.as_deref().unwrap_or(otherwise))
    }
}

fn given_up() -> PostError {
    PostError::Unavailable("the delivery was given up".into())
}

/// Why a record was not handed over.
enum Unsent {
    Never(String),
    NotNow(PostError),
}

/// No broker will ever take this record.
fn is_for_ever(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::PolicyViolation
            | Code::UnsupportedForMessageFormat
            | Code::InvalidTopic
    )
}

fn why_never(code: Code) -> String {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            "the record is larger than Kafka takes; raise max.message.bytes of the topic and \
             kafka.message_bytes_max, then re-drive"
                .into()
        }
        other => format!("Kafka refuses the record: {other}"),
    }
}

/// Takes the reports of one delivery at a time.
#[derive(Default)]
struct Reporter {
    told: Told,
    reports: Mutex<Reports>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Reports {
    outstanding: usize,
    refused: Vec<(usize, Code)>,
    /// The first failure that is not for ever.
    failed: Option<Code>,
    /// Records that were taken back: their transaction cannot be kept, for one of it is refused. Alone
    /// they are a failure like any other.
    purged: Option<Code>,
}

impl Reporter {
    fn begin(&self) {
        // What is left of a delivery that was given up: its producer goes with it.
        *self.reports.lock() = Reports::default();
    }

    fn sent(&self) {
        self.reports.lock().outstanding += 1;
    }

    fn unsent(&self) {
        self.reports.lock().outstanding -= 1;
    }

    fn reports_if_settled(&self, by_one_refusal: bool) -> Option<Reports> {
        let mut reports = self.reports.lock();
        let is_settled =
            reports.outstanding == 0 || (by_one_refusal && !reports.refused.is_empty());
        is_settled.then(|| std::mem::take(&mut *reports))
    }

    fn await_news(&self, at_most: Duration) {
        let mut reports = self.reports.lock();
        if reports.outstanding > 0 {
            self.news.wait_for(&mut reports, at_most);
        }
    }
}

impl ClientContext for Reporter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.told.log(level, facility, message);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.told.error(error, reason);
    }
}

impl ProducerContext for Reporter {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut reports = self.reports.lock();
        reports.outstanding = reports.outstanding.saturating_sub(1);
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            if is_for_ever(code) {
                reports.refused.push((index, code));
            } else if matches!(code, Code::PurgeQueue | Code::PurgeInflight) {
                reports.purged.get_or_insert(code);
            } else {
                reports.failed.get_or_insert(code);
            }
        }
        // All are known, or there is room again.
        if reports.outstanding.is_multiple_of(NEWS_EVERY) {
            self.news.notify_all();
        }
    }
}
