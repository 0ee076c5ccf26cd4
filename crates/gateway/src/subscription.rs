//! What subscriptions keep for applications: one topic each, filled out of the committed log, read
//! by consumer groups.
//!
//! ```text
//! log ─▶ follower: filter, message text, partition ─▶ shelf (a file) ─▶ topic: groups ─▶ members
//! ```
//!
//! Where Kafka is configured, the messages lie there instead: see [`kafka`].
//!
//! [`Subscriptions`] runs a topic for every subscription that is declared and not stopped. The door
//! and the API know [`Source`] and [`Member`] alone.

mod filter;
mod follower;
mod group;
mod intake;
mod kafka;
mod shelf;
mod source;
mod standing;
#[cfg(test)]
pub(crate) mod tests;
mod topic;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use backtide_model::ObjectName;
use backtide_store::{Sequence, Store};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use source::{Member, Message, PullSize, Sought, Source, SourceError};
pub use standing::{GroupStanding, OffsetStanding, PartitionStanding, Standing};

use crate::{
    clock::Clock,
    kafka::Cluster,
    limits,
    pool::Pool,
    registry::{Registry, Subscription},
    sink::kafka::Guarantee,
    sqlite,
};
use follower::{Follower, cursor};
use intake::Intake;
use kafka::{Fetcher, Publisher};
use shelf::{Shelf, ShelfError};
use topic::{Local, Topic};

/// The group of clients that name none.
pub const DEFAULT_GROUP: &str = "DefaultConsumerGroup";

/// Why a subscription does not run.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    #[error("subscriptions in {}: {error}", dir.display())]
    Dir { dir: PathBuf, error: io::Error },
    #[error("subscription {name}: {reason}")]
    Topic { name: String, reason: String },
}

/// What all topics work with.
#[derive(Clone)]
pub struct Setting {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub organization: ObjectName,
    pub clock: Clock,
    /// Runs what blocks: reads of messages, the opening of topics.
    pub pool: Pool,
    pub limits: limits::Topics,
    /// Where messages are kept; `None`: here.
    pub kafka: Option<Cluster>,
}

/// Every subscription that runs.
pub struct Subscriptions {
    dir: PathBuf,
    setting: Setting,
    /// Held while topics are opened and ended, so that each is opened once.
    running: Mutex<HashMap<Box<str>, Running>>,
}

/// What the thread of a topic does, until the topic ends.
type Work = Box<dyn FnOnce() + Send>;

struct Running {
    name: String,
    topic: Arc<Topic>,
    ending: CancellationToken,
    follower: thread::JoinHandle<()>,
}

impl Subscriptions {
    /// Opens what is declared under `dir`. One whose file cannot be used is told in the log and
    /// does not run.
    ///
    /// # Errors
    /// [`SubscriptionError::Dir`].
    pub fn open(dir: &Path, setting: Setting) -> Result<Arc<Self>, SubscriptionError> {
        let failed = |error| SubscriptionError::Dir {
            dir: dir.to_owned(),
            error,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let subscriptions = Self {
            dir: dir.to_owned(),
            setting,
            running: Mutex::default(),
        };
        subscriptions.forget_orphans().map_err(failed)?;
        subscriptions.agree();
        Ok(Arc::new(subscriptions))
    }

    /// Runs what is declared from here on, and nothing else, until it is told to end.
    pub async fn keep(self: Arc<Self>, closing: CancellationToken) {
        let mut changes = self.setting.registry.changes(closing);
        while changes.next().await {
            self.agree_soon().await;
        }
    }

    /// The messages of a subscription, if it runs. One that was declared a moment ago does.
    pub async fn source(self: &Arc<Self>, subscription: &Subscription) -> Option<Arc<dyn Source>> {
        if let Some(source) = self.running(&subscription.uid) {
            return Some(source);
        }
        self.agree_soon().await;
        self.running(&subscription.uid)
    }

    /// The messages of a subscription, if it runs at this moment.
    pub fn running(&self, uid: &str) -> Option<Arc<dyn Source>> {
        let running = self.running.lock();
        let topic = Arc::clone(&running.get(uid)?.topic);
        Some(Arc::new(Local(topic)))
    }

    /// Sets the gauges of every subscription that runs.
    pub fn gauge(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        let float = |count: u64| count as f64;
        for running in self.running.lock().values() {
            let name = || running.name.clone();
            let standing = Local(Arc::clone(&running.topic)).standing();
            metrics::gauge!("backtide_subscription_behind_commits", "subscription" => name())
                .set(float(standing.behind));
            metrics::gauge!("backtide_subscription_bytes", "subscription" => name())
                .set(float(standing.bytes));
            metrics::gauge!("backtide_subscription_skipped_commits", "subscription" => name())
                .set(float(standing.skipped_commits));
            metrics::gauge!("backtide_subscription_dropped_messages", "subscription" => name())
                .set(float(standing.dropped_messages));
            for group in standing.groups {
                metrics::gauge!("backtide_subscription_lag_messages",
                    "subscription" => name(), "group" => group.group.clone())
                .set(float(group.lag));
                metrics::gauge!("backtide_subscription_members",
                    "subscription" => name(), "group" => group.group)
                .set(float(group.members as u64));
            }
        }
    }

    /// Ends every topic; what was committed is written down.
    pub fn close(&self) {
        for (_, running) in self.running.lock().drain() {
            running.end();
        }
    }

    async fn agree_soon(self: &Arc<Self>) {
        let subscriptions = Arc::clone(self);
        if let Err(error) = self.setting.pool.run(move || subscriptions.agree()).await {
            tracing::error!(%error, "subscriptions are not as they are declared");
        }
    }

    /// Runs what is declared, and nothing else. Blocks.
    fn agree(&self) {
        let mut running = self.running.lock();
        let snapshot = self.setting.registry.snapshot();
        let declared: HashMap<&str, &Arc<Subscription>> = snapshot
            .subscriptions_after(None)
            .map(|subscription| (&*subscription.uid, subscription))
            .collect();
        let runs = |uid: &str| declared.get(uid).is_some_and(|declared| !declared.stopped);
        let ended: Vec<_> = running.keys().filter(|uid| !runs(uid)).cloned().collect();
        for uid in ended {
            if let Some(ended) = running.remove(&uid) {
                ended.end();
            }
            if declared.contains_key(&*uid) {
                self.let_go(&uid);
            } else {
                self.forget(&uid);
            }
        }
        for subscription in declared.values().filter(|declared| !declared.stopped) {
            if running.contains_key(&subscription.uid) {
                continue;
            }
            match self.start(subscription) {
                Ok(started) => {
                    running.insert(subscription.uid.clone(), started);
                }
                Err(error) => tracing::error!(%error, "a subscription does not run"),
            }
        }
        self.forget_in_kafka();
    }

    fn start(&self, subscription: &Subscription) -> Result<Running, SubscriptionError> {
        let name = subscription.name.to_string();
        let failed = |reason: String| SubscriptionError::Topic {
            name: name.clone(),
            reason,
        };
        let ending = CancellationToken::new();
        let opened = match &self.setting.kafka {
            None => self.topic(subscription),
            Some(cluster) => self.kafka_topic(subscription, cluster, ending.clone()),
        };
        let (topic, follower) = opened.map_err(|error| failed(error.to_string()))?;
        let place = topic.place();
        self.setting
            .store
            .set_cursor(&cursor(&subscription.uid), place.reached)
            .map_err(|error| failed(error.to_string()))?;
        let follower = thread::Builder::new()
            .name("subscription".to_owned())
            .spawn(follower)
            .map_err(|error| failed(error.to_string()))?;
        Ok(Running {
            name,
            topic,
            ending,
            follower,
        })
    }

    fn topic(&self, subscription: &Subscription) -> Result<(Arc<Topic>, Work), ShelfError> {
        let setting = &self.setting;
        let path = self.path(&subscription.uid);
        let partitions = subscription.file.partitions;
        let mut shelf = Shelf::open(&path, partitions, Sequence(subscription.since))?;
        let reader = Shelf::open(&path, partitions, Sequence(subscription.since))?;
        agree_with(&mut shelf, setting.store.durable(), &subscription.name)?;
        let now_ms = shelf.newest_ms()?;
        let topic = Topic::new(
            subscription.name.as_str(),
            &shelf,
            Arc::new(Mutex::new(reader)),
            setting.store.clone(),
            setting.pool.clone(),
            setting.clock.clone(),
            setting.limits.clone(),
        )?;
        let follower = Follower {
            topic: Arc::clone(&topic),
            shelf,
            intake: self.intake(subscription, &topic),
            clock: setting.clock.clone(),
            now_ms,
            tidied_at: Instant::now(),
        };
        Ok((topic, Box::new(|| follower.run())))
    }

    /// Its messages lie in Kafka. Nothing is asked of Kafka here: it may be away.
    fn kafka_topic(
        &self,
        subscription: &Subscription,
        cluster: &Cluster,
        ending: CancellationToken,
    ) -> Result<(Arc<Topic>, Work), ShelfError> {
        let setting = &self.setting;
        let kafka_topic = kafka::topic_name(&setting.organization, subscription);
        let path = kafka::path(&self.dir, &subscription.uid, &kafka_topic);
        let file = &subscription.file;
        let mut shelf = Shelf::open(&path, file.partitions, Sequence(subscription.since))?;
        agree_with(&mut shelf, setting.store.durable(), &subscription.name)?;
        let fetcher = Arc::new(Fetcher::new(
            cluster.clone(),
            kafka_topic.clone(),
            file.partitions,
            file.retention_hours,
        ));
        let topic = Topic::new(
            subscription.name.as_str(),
            &shelf,
            Arc::clone(&fetcher) as Arc<dyn topic::Pages>,
            setting.store.clone(),
            setting.pool.clone(),
            setting.clock.clone(),
            setting.limits.clone(),
        )?;
        let sink_name = cursor(&subscription.uid);
        let publisher = Publisher {
            topic: Arc::clone(&topic),
            shelf,
            intake: self.intake(subscription, &topic),
            clock: setting.clock.clone(),
            cluster: cluster.clone(),
            kafka_topic: kafka_topic.into(),
            // Transactions would leave gaps in the offsets, and readers are told at least once anyway.
            sink: cluster.sink(&sink_name, Guarantee::AtLeastOnce),
            ending,
            fetcher,
            desk: None,
            retention_hours: file.retention_hours,
            tidied_at: Instant::now(),
            trouble: None,
        };
        Ok((topic, Box::new(|| publisher.run())))
    }

    fn intake(&self, subscription: &Subscription, topic: &Arc<Topic>) -> Intake {
        Intake {
            topic: Arc::clone(topic),
            uid: subscription.uid.clone(),
            store: self.setting.store.clone(),
            registry: Arc::clone(&self.setting.registry),
            organization: self.setting.organization.clone(),
        }
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.dir.join(format!("{uid}.db"))
    }

    /// The log is not kept for it any more.
    fn let_go(&self, uid: &str) {
        if let Err(error) = self.setting.store.drop_cursor(&cursor(uid)) {
            tracing::warn!(%error, "the log is kept for a subscription that does not run");
        }
    }

    /// It was deleted, and its messages with it.
    fn forget(&self, uid: &str) {
        self.let_go(uid);
        sqlite::remove(&self.path(uid));
    }

    /// Topics of Kafka whose subscription was deleted. Their files stay until Kafka has let them go.
    fn forget_in_kafka(&self) {
        let Some(cluster) = &self.setting.kafka else {
            return;
        };
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        let snapshot = self.setting.registry.snapshot();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let Some((uid, topic)) = kafka::owner(&path) else {
                continue;
            };
            let mut declared = snapshot.subscriptions_after(None);
            if declared.any(|declared| *declared.uid == *uid) {
                continue;
            }
            let organization = &self.setting.organization;
            let mut declared = snapshot.subscriptions_after(None);
            // One of the same name was declared since: the topic is its own now.
            let is_taken =
                declared.any(|declared| kafka::topic_name(organization, declared) == topic);
            let cluster = cluster.clone();
            let left = self.setting.pool.leave(move || {
                let outcome = if is_taken {
                    Ok(())
                } else {
                    kafka::delete(&cluster, &topic)
                };
                match outcome {
                    Ok(()) => sqlite::remove(&path),
                    Err(error) => {
                        tracing::warn!(topic, %error, "a topic is left behind in Kafka for now");
                    }
                }
            });
            if left.is_err() {
                tracing::debug!("topics of deleted subscriptions stay for now");
            }
        }
    }

    /// What was deleted while its files could not be.
    fn forget_orphans(&self) -> io::Result<()> {
        let snapshot = self.setting.registry.snapshot();
        for uid in sqlite::names(&self.dir)? {
            let mut declared = snapshot.subscriptions_after(None);
            if !declared.any(|subscription| *subscription.uid == *uid) {
                self.forget(&uid);
            }
        }
        Ok(())
    }
}

impl Running {
    fn end(self) {
        self.ending.cancel();
        self.topic.end();
        if self.follower.join().is_err() {
            tracing::error!(subscription = self.name, "a subscription's thread panicked");
        }
    }
}

/// Goes back to what the store knows of: its files were replaced by older ones.
fn agree_with(shelf: &mut Shelf, durable: Sequence, name: &ObjectName) -> Result<(), ShelfError> {
    let mut place = shelf.place()?;
    if place.reached > durable {
        tracing::error!(
            subscription = %name,
            store = durable.0,
            subscription_at = place.reached.0,
            "the store is older than the subscription: what is committed from here on follows what \
             it holds"
        );
        place.reached = durable;
        shelf.write(place, &[], &[], 0)?;
    }
    Ok(())
}
