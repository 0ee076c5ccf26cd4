//! Kafka as a destination of rules.
//!
//! The key of a record is the asset id, so that the records of a device share a partition and keep
//! the order of commit; `acks=all` and an idempotent producer always. A record's timestamp is the
//! time of publishing, never the time of the event: Kafka deletes by timestamp, and history would
//! be gone as soon as it came. The event's time is in the message.
//!
//! - **At least once**: a stretch is delivered when Kafka has acknowledged every record of it. What
//!   is tried again may be there twice, under the same headers.
//! - **Exactly once**: the records of a stretch and the rule's cursor are one transaction. The
//!   cursor in Kafka is the one that counts.
//!
//! What librdkafka does blocks: each sink has a thread of its own for it.

mod at_least_once;
mod cursors;
mod exactly_once;
mod post;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use backtide_store::Sequence;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::{Poison, Sink, SinkError, Stretch};
pub use crate::kafka::Cluster;
use crate::pool::Pool;
use at_least_once::AtLeastOnce;
use exactly_once::ExactlyOnce;

/// One delivery runs; one that was given up may still be running when the next is asked for.
const WAITING_MAX: usize = 2;

/// What a rule promises to who reads its topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Nothing is missing; after a failure some records come again, under the same headers.
    AtLeastOnce,
    /// With `read_committed` nothing is missing and nothing comes twice.
    ExactlyOnce,
}

impl Cluster {
    /// The sink of a rule. `rule_uid` names it for ever: two sinks of one uid and exactly once fence
    /// each other, the one whose `reached` came last wins. Nothing is connected to yet.
    pub fn sink(&self, rule_uid: &str, guarantee: Guarantee) -> Arc<dyn Sink> {
        let given_up = Arc::new(AtomicBool::new(false));
        let lane = match guarantee {
            Guarantee::AtLeastOnce => {
                Lane::AtLeastOnce(AtLeastOnce::new(self.clone(), Arc::clone(&given_up)))
            }
            Guarantee::ExactlyOnce => Lane::ExactlyOnce(ExactlyOnce::new(
                self.clone(),
                rule_uid,
                Arc::clone(&given_up),
            )),
        };
        Arc::new(KafkaSink {
            lane: Arc::new(Mutex::new(lane)),
            thread: Mutex::new(None),
            given_up,
        })
    }
}

struct KafkaSink {
    lane: Arc<Mutex<Lane>>,
    /// Started with the first request.
    thread: Mutex<Option<Pool>>,
    /// Nobody waits any more: what runs ends soon.
    given_up: Arc<AtomicBool>,
}

enum Lane {
    AtLeastOnce(AtLeastOnce),
    ExactlyOnce(ExactlyOnce),
}

impl Lane {
    fn reached(&mut self) -> Result<Option<Sequence>, SinkError> {
        match self {
            Self::AtLeastOnce(_) => Ok(None),
            Self::ExactlyOnce(lane) => lane.take_over(),
        }
    }

    fn close(&mut self) {
        match self {
            Self::AtLeastOnce(lane) => lane.close(),
            Self::ExactlyOnce(lane) => lane.close(),
        }
    }

    fn deliver(&mut self, stretch: &Stretch) -> Result<Vec<Poison>, SinkError> {
        match self {
            Self::AtLeastOnce(lane) => lane.deliver(stretch),
            Self::ExactlyOnce(lane) => lane.deliver(stretch).map(|()| Vec::new()),
        }
    }
}

impl Sink for KafkaSink {
    fn reached(&self) -> BoxFuture<'_, Result<Option<Sequence>, SinkError>> {
        Box::pin(self.run(Lane::reached))
    }

    fn deliver<'a>(
        &'a self,
        stretch: &'a Stretch,
    ) -> BoxFuture<'a, Result<Vec<Poison>, SinkError>> {
        // Keys and texts are shared, not copied.
        let stretch = stretch.clone();
        Box::pin(self.run(move |lane| lane.deliver(&stretch)))
    }
}

impl KafkaSink {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Lane) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let thread = self.thread()?;
        let lane = Arc::clone(&self.lane);
        match thread.run(move || work(&mut lane.lock())).await {
            Ok(outcome) => outcome,
            Err(error) => Err(SinkError::Unavailable(error.to_string())),
        }
    }

    fn thread(&self) -> Result<Pool, SinkError> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let started = Pool::start("kafka", 1, WAITING_MAX);
            *thread = Some(started.map_err(|error| {
                SinkError::Unavailable(format!("a thread cannot be started: {error}"))
            })?);
        }
        Ok(thread.clone().expect("it was just started"))
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        // Closing a producer waits for its threads.
        let lane = Arc::clone(&self.lane);
        if let Some(thread) = self.thread.lock().take()
            && thread.leave(move || lane.lock().close()).is_err()
        {
            tracing::debug!("a producer of Kafka is closed where its sink is dropped");
        }
    }
}

#[cfg(test)]
mod tests;
