//! The records of a stretch and the rule's cursor are one transaction.
//!
//! Who publishes for a rule is who took over last: [`ExactlyOnce::take_over`] fences whoever did
//! before and writes its own name into the cursor topic. A producer that Kafka has fenced looks
//! there: if its own name stands there still, it was fenced for being slow, and goes on; if not, it
//! stops for good. So a second gateway on a copied data directory stops the first, and the first
//! cannot take the place back when it wakes.

use std::sync::{Arc, atomic::AtomicBool};

use backtide_store::Sequence;
use bytes::Bytes;

use super::{
    super::{Poison, Record, SinkError, Stretch},
    Cluster,
    cursors::{self, Cursor},
    post::{Batches, Post, PostError},
};
use crate::kafka::Made;

pub(super) struct ExactlyOnce {
    cluster: Cluster,
    rule: String,
    transactional_id: String,
    given_up: Arc<AtomicBool>,
    /// Our name in the cursor topic, once it stands there.
    instance: Option<String>,
    /// Open, and the cursor known. Dropped after every failure: what became of its transaction is
    /// read from the cursor topic then.
    post: Option<Post>,
    /// Numbers the transactions.
    attempt: u64,
    /// The stretch of that transaction, while it is not known whether it arrived.
    uncertain: Option<Stretch>,
    fenced: Option<String>,
}

impl ExactlyOnce {
    pub(super) fn new(cluster: Cluster, rule_uid: &str, given_up: Arc<AtomicBool>) -> Self {
        Self {
            transactional_id: cluster.name(rule_uid),
            cluster,
            rule: rule_uid.to_owned(),
            given_up,
            instance: None,
            post: None,
            attempt: 0,
            uncertain: None,
            fenced: None,
        }
    }

    /// Fences whoever published for the rule before, and says how far it came.
    pub(super) fn take_over(&mut self) -> Result<Option<Sequence>, SinkError> {
        self.post = None;
        self.fenced = None;
        self.instance = None;
        let mut post = self.open(Batches::Full)?;
        self.ensure_topic(&post)?;
        self.settle(post.take_over())?;
        let found = self.read()?;
        let reached = found.and_then(|cursor| cursor.reached(self.cluster.store_id()));
        let instance = uuid::Uuid::new_v4().to_string();
        // From here on it is known who publishes.
        self.uncertain = None;
        let claim = self.cursor(reached, &instance);
        self.settle(publish(&mut post, &[claim]))?;
        self.instance = Some(instance);
        self.post = Some(post);
        Ok(reached)
    }

    pub(super) fn close(&mut self) {
        self.post = None;
    }

    /// Publishes the records and the cursor, or nothing.
    pub(super) fn deliver(&mut self, stretch: &Stretch) -> Result<(), SinkError> {
        if let Some(reason) = &self.fenced {
            return Err(SinkError::Fenced(reason.clone()));
        }
        if self.post.is_none() && self.resume(Batches::Full)?.as_ref() == Some(stretch) {
            // It arrived, though its answer did not.
            return Ok(());
        }
        let refused = self.publish(stretch)?;
        if refused.is_empty() {
            return Ok(());
        }
        if self
            .post
            .as_ref()
            .is_some_and(|p| p.batches() == Batches::Single)
        {
            return Err(SinkError::Refused(refused));
        }
        // Which of them are refused by themselves? Each in a batch of its own.
        self.post = None;
        self.resume(Batches::Single)?;
        let refused = self.publish(stretch)?;
        self.post = None;
        if refused.is_empty() {
            return Ok(());
        }
        Err(SinkError::Refused(refused))
    }

    /// One transaction; undone where records are refused.
    fn publish(&mut self, stretch: &Stretch) -> Result<Vec<Poison>, SinkError> {
        let instance = self.instance.clone().expect("who delivers has taken over");
        self.attempt += 1;
        self.uncertain = Some(stretch.clone());
        let cursor = self.cursor(Some(stretch.reached), &instance);
        let post = self.post.as_mut().expect("it was just opened");
        let mut records: Vec<&Record> = stretch.records.iter().collect();
        records.push(&cursor);
        let outcome = transact(post, &records);
        let refused = self.settle(outcome)?;
        self.uncertain = None;
        Ok(refused)
    }

    /// Opens a producer in the place of one that failed, unless somebody else has taken over since.
    /// Returns the stretch of which it was not known that it has arrived.
    fn resume(&mut self, batches: Batches) -> Result<Option<Stretch>, SinkError> {
        let Some(instance) = self.instance.clone() else {
            self.take_over()?;
            return Ok(None);
        };
        // Looked at before and after: fencing somebody who has taken over would harm them.
        let found = self.read()?;
        self.check_owner(found.as_ref(), &instance)?;
        let post = self.open(batches)?;
        self.settle(post.take_over())?;
        let found = self.read()?;
        self.check_owner(found.as_ref(), &instance)?;
        self.post = Some(post);
        let has_arrived = found.is_some_and(|cursor| cursor.attempt == self.attempt);
        Ok(self.uncertain.take().filter(|_| has_arrived))
    }

    fn check_owner(&mut self, found: Option<&Cursor>, instance: &str) -> Result<(), SinkError> {
        if found.is_some_and(|cursor| cursor.instance == instance) {
            return Ok(());
        }
        let reason = format!(
            "transactional id {} was taken over; is there a second Backtide on a copy of the data \
             directory? This one publishes no more for the rule until it is started again",
            self.transactional_id
        );
        tracing::error!(rule = self.rule, "{reason}");
        metrics::counter!("backtide_kafka_fenced_total", "rule" => self.rule.clone()).increment(1);
        self.fenced = Some(reason.clone());
        self.post = None;
        Err(SinkError::Fenced(reason))
    }

    fn open(&self, batches: Batches) -> Result<Post, SinkError> {
        let id = Some(self.transactional_id.as_str());
        Post::open(&self.cluster, batches, id, &self.given_up).map_err(of_post)
    }

    fn read(&self) -> Result<Option<Cursor>, SinkError> {
        cursors::read(&self.cluster, &self.rule).map_err(SinkError::Unavailable)
    }

    fn ensure_topic(&self, post: &Post) -> Result<(), SinkError> {
        let topic = cursors::topic(&self.cluster);
        if post.exists(&topic).map_err(of_post)? {
            return Ok(());
        }
        match self.cluster.make_topic(&topic, &cursors::form()) {
            Ok(Made::New | Made::WasThere) => Ok(()),
            Ok(Made::NotAllowed) => Err(SinkError::Unavailable(format!(
                "topic {topic} does not exist and Kafka does not let this user make it; make it \
                 with one partition and cleanup.policy=compact, or grant CREATE"
            ))),
            Err(error) => Err(SinkError::Unavailable(error.to_string())),
        }
    }

    fn cursor(&self, reached: Option<Sequence>, instance: &str) -> Record {
        let cursor = Cursor {
            store: self.cluster.store_id(),
            sequence: reached.map(|sequence| sequence.0),
            instance: instance.to_owned(),
            attempt: self.attempt,
        };
        Record {
            address: cursors::topic(&self.cluster).into(),
            key: Bytes::copy_from_slice(self.rule.as_bytes()),
            value: cursor.text().into(),
            headers: Vec::new(),
        }
    }

    /// After a failure only the cursor topic says what happened.
    fn settle<T>(&mut self, outcome: Result<T, PostError>) -> Result<T, SinkError> {
        outcome.map_err(|error| {
            self.post = None;
            of_post(error)
        })
    }
}

/// Publishes records that are ours: none is refused.
fn publish(post: &mut Post, records: &[Record]) -> Result<(), PostError> {
    let records: Vec<&Record> = records.iter().collect();
    match transact(post, &records)?.into_iter().next() {
        None => Ok(()),
        Some(poison) => Err(PostError::Unavailable(poison.reason)),
    }
}

/// Sends records in one transaction; where some are refused, it is undone and says which.
fn transact(post: &mut Post, records: &[&Record]) -> Result<Vec<Poison>, PostError> {
    post.begin()?;
    let sent = post.send(records.iter().copied().enumerate())?;
    if sent.refused.is_empty() {
        post.commit()?;
    } else {
        post.abort()?;
    }
    Ok(sent.refused)
}

fn of_post(error: PostError) -> SinkError {
    match error {
        PostError::Unavailable(reason) => SinkError::Unavailable(reason),
        PostError::Fenced => SinkError::Unavailable(
            "Kafka ended the transaction: it took too long, or another instance has taken over; \
             looking which"
                .into(),
        ),
    }
}
