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
        let Some(last) = changes.last().map(|change| change.sequence) else {
            return Ok(false);
        };
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
        self.shelf.set_published(last)?;
        Ok(true)
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
