//! The thread that publishes the change feed to Kafka, at least once.

use std::{sync::Arc, time::Duration};

use backtide_model::{DeviceKey, ObjectName, ProductKey};
use backtide_store::Sequence;
use bytes::Bytes;
use futures::executor::block_on;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    shelf::{Change, ChangesAsked, Shelf, ShelfError},
};
use crate::{
    kafka::{Cluster, changes_topic},
    limits::CHANGES_KEPT_MAX,
    registry::{Registry, Snapshot},
    sink::{Record, Sink, SinkError, Stretch, kafka::Guarantee},
};

/// Names the sink among those of rules.
const SINK: &str = "changes";
/// How often it is looked for changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long to wait after a failure before trying again.
const PAUSE: Duration = Duration::from_secs(2);
const CHANGES_AT_ONCE: usize = 1_000;

/// The JSON Schema of a published change, 2020-12.
pub const SCHEMA: &str = include_str!("change.schema.json");

pub(super) struct Publisher {
    shelf: Shelf,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    organization: ObjectName,
    topic: Arc<str>,
    sink: Arc<dyn Sink>,
    ending: CancellationToken,
    /// Said last, so that an outage is one line in the log.
    trouble: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the gateway ends")]
    Ended,
}

/// A change as it is published.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    org_id: &'a str,
    /// Of the rollup or reduction.
    name: &'a str,
    asset_id: &'a str,
    product_key: &'a str,
    device_key: &'a str,
    points: Vec<String>,
    from: i64,
    to: i64,
    time: i64,
    sequence: u64,
}

impl Publisher {
    pub(super) fn new(
        shelf: Shelf,
        shared: Arc<Shared>,
        cluster: &Cluster,
        registry: Arc<Registry>,
        organization: ObjectName,
        ending: CancellationToken,
    ) -> Self {
        Self {
            shelf,
            shared,
            registry,
            topic: changes_topic(&organization).into(),
            organization,
            sink: cluster.sink(SINK, Guarantee::AtLeastOnce),
            ending,
            trouble: None,
        }
    }

    /// Publishes until it is told to end.
    pub(super) fn run(mut self) {
        while !self.ending.is_cancelled() {
            let outcome = self.work();
            let pause = match &outcome {
                Ok(true) => continue,
                Ok(false) => LOOK_EVERY,
                Err(PublishError::Ended) => return,
                Err(_) => PAUSE,
            };
            self.tell(outcome.as_ref().err());
            self.shared.publishing.rest(pause);
        }
    }

    fn tell(&mut self, trouble: Option<&PublishError>) {
        let trouble = trouble.map(ToString::to_string);
        if trouble == self.trouble {
            return;
        }
        match &trouble {
            Some(error) => tracing::error!(topic = %self.topic, error, "changes are not published"),
            None => tracing::info!(topic = %self.topic, "changes are published again"),
        }
        self.trouble = trouble;
    }

    /// Publishes some changes; whether there were any.
    fn work(&mut self) -> Result<bool, PublishError> {
        let after = self.shelf.published()?;
        let changes = self.shelf.changes(&ChangesAsked {
            after,
            limit: CHANGES_AT_ONCE,
            ..ChangesAsked::default()
        })?;
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
            return Ok(false);
        };
        let (first, last) = (first.sequence, last.sequence);
        let snapshot = self.registry.snapshot();
        let records = changes.iter().map(|change| self.record(change, &snapshot));
        let stretch = Stretch {
            records: records.collect(),
            reached: Sequence(last),
        };
        let poison = block_on(async {
            tokio::select! {
                poison = self.sink.deliver(&stretch) => Ok(poison?),
                () = self.ending.cancelled() => Err(PublishError::Ended),
            }
        })?;
        for refused in &poison {
            let change = &changes[refused.index];
            let reason = &refused.reason;
            tracing::error!(
                sequence = change.sequence,
                reason,
                "Kafka refuses a change: it is not published"
            );
        }
        metrics::counter!("backtide_derived_published_total").increment(changes.len() as u64);
        // Only now: while Kafka is away the gap still grows, and is told once, as it became.
        self.tell_skipped(after, first);
        self.shelf.set_published(last)?;
        Ok(true)
    }

    /// Tells of changes that were no longer kept when Kafka was there again; they are numbered without gaps.
    fn tell_skipped(&self, after: u64, first: u64) {
        let skipped = first.saturating_sub(after).saturating_sub(1);
        if skipped == 0 {
            return;
        }
        tracing::error!(
            topic = %self.topic,
            skipped,
            after,
            first,
            kept = CHANGES_KEPT_MAX,
            "changes were never published: more were made than are kept; who reads the topic has to compute \
             everything anew"
        );
        metrics::counter!("backtide_derived_skipped_changes_total").increment(skipped);
    }

    fn record(&self, change: &Change, snapshot: &Snapshot) -> Record {
        let key = ProductKey::new(&change.product).ok();
        let device = DeviceKey::new(&change.device).ok();
        let asset = key
            .zip(device)
            .and_then(|(key, device)| snapshot.asset_of(&key, &device).cloned());
        // Asset ids outlive their devices: only where the registry was lost is there none.
        let asset_id = asset
            .as_ref()
            .map_or(change.device.as_str(), |asset| asset.as_str());
        let running = self.shared.running.lock();
        let series = running.iter().find(|(_, series)| {
            series.name.as_str() == change.name && series.product.key.as_str() == change.product
        });
        let points = series.map(|(_, series)| {
            let points = series.points().into_iter();
            points.map(|point| point.name.to_string()).collect()
        });
        let message = Message {
            org_id: self.organization.as_str(),
            name: &change.name,
            asset_id,
            product_key: &change.product,
            device_key: &change.device,
            points: points.unwrap_or_default(),
            from: change.from_ms,
            to: change.to_ms,
            time: change.time_ms,
            sequence: change.sequence,
        };
        let value = serde_json::to_vec(&message).expect("texts and numbers are JSON");
        Record {
            address: Arc::clone(&self.topic),
            key: Bytes::copy_from_slice(asset_id.as_bytes()),
            value: value.into(),
            headers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use backtide_model::ElementName;
    use backtide_model::Storage;
    use futures::{FutureExt, future::BoxFuture};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use parking_lot::Mutex;

    use super::*;
    use crate::{clock::Clock, registry::StoredTypes, sink::Poison};

    struct Nothing;

    impl StoredTypes for Nothing {
        fn stored_as(&self, _: &ProductKey, _: &ElementName) -> Option<Storage> {
            None
        }
    }

    /// Takes records while it is there.
    #[derive(Default)]
    struct Broker {
        is_there: AtomicBool,
        taken: Mutex<Vec<Record>>,
    }

    impl Sink for Broker {
        fn reached(&self) -> BoxFuture<'_, Result<Option<Sequence>, SinkError>> {
            std::future::ready(Ok(None)).boxed()
        }

        fn deliver<'a>(
            &'a self,
            stretch: &'a Stretch,
        ) -> BoxFuture<'a, Result<Vec<Poison>, SinkError>> {
            let outcome = if self.is_there.load(Ordering::Relaxed) {
                self.taken.lock().extend(stretch.records.iter().cloned());
                Ok(Vec::new())
            } else {
                Err(SinkError::Unavailable("away".to_owned()))
            };
            std::future::ready(outcome).boxed()
        }
    }

    fn changes(count: i64) -> Vec<Change> {
        let change = |at| Change {
            sequence: 0,
            name: "r".to_owned(),
            product: "p1".to_owned(),
            device: "d0".to_owned(),
            from_ms: at,
            to_ms: at + 1,
            time_ms: 0,
        };
        (0..count).map(change).collect()
    }

    #[test]
    fn changes_that_are_no_longer_kept_when_kafka_is_back_are_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("derived.db");
        let registry = Registry::open(dir.path(), Arc::new(Nothing), Clock::stopped(0)).unwrap();
        let broker = Arc::new(Broker::default());
        let mut publisher = Publisher {
            shelf: Shelf::open(&path).unwrap(),
            shared: Arc::new(Shared::default()),
            registry: Arc::new(registry),
            organization: ObjectName::new("o1").unwrap(),
            topic: "t".into(),
            sink: Arc::clone(&broker) as Arc<dyn Sink>,
            ending: CancellationToken::new(),
            trouble: None,
        };
        let recorder = PrometheusBuilder::new().build_recorder();
        let counted = || {
            let text = recorder.handle().render();
            let mut lines = text.lines();
            let name = "backtide_derived_skipped_changes_total ";
            lines.find_map(|line| Some(line.strip_prefix(name)?.to_owned()))
        };
        let mut work = || metrics::with_local_recorder(&recorder, || publisher.work());
        let mut shelf = Shelf::open(&path).unwrap();

        broker.is_there.store(true, Ordering::Relaxed);
        shelf.put(1, &[], &changes(3), 10).unwrap();
        assert!(work().unwrap());
        assert_eq!(counted(), None);

        broker.is_there.store(false, Ordering::Relaxed);
        shelf.put(1, &[], &changes(12), 10).unwrap();
        work().unwrap_err();
        shelf.put(1, &[], &changes(3), 10).unwrap();
        work().unwrap_err();
        broker.is_there.store(true, Ordering::Relaxed);
        assert!(work().unwrap());
        // Of 4 to 18 the last ten are kept.
        assert_eq!(counted().as_deref(), Some("5"));
        assert_eq!(broker.taken.lock().len(), 13);
        assert!(!work().unwrap());
        assert_eq!(counted().as_deref(), Some("5"));
    }
}
