//! The thread of a subscription on Kafka: takes messages out of the committed log into the topic,
//! tells Kafka what groups have committed, and keeps the topic as it is declared.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backtide_store::FollowError;
use futures::executor::block_on;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        filter::Draft,
        follower::cursor,
        group::Extent,
        intake::{Intake, Taken},
        shelf::{Committed, Place, Shelf, ShelfError},
        topic::Topic,
    },
    desk::{Desk, DeskError},
    fetcher::Fetcher,
};
use crate::{
    clock::Clock,
    kafka::Cluster,
    sink::{Poison, Record, Sink, SinkError, Stretch},
};

/// How often what Kafka holds is looked at again, and the log is let go.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// How long to wait after a failure before trying again.
const PAUSE: Duration = Duration::from_secs(1);
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What the thread works with.
pub(in super::super) struct Publisher {
    pub(in super::super) topic: Arc<Topic>,
    pub(in super::super) shelf: Shelf,
    pub(in super::super) intake: Intake,
    pub(in super::super) clock: Clock,
    pub(in super::super) cluster: Cluster,
    pub(in super::super) kafka_topic: Arc<str>,
    pub(in super::super) sink: Arc<dyn Sink>,
    /// Cancelled when the topic ends: a delivery that waits for Kafka is given up.
    pub(in super::super) ending: CancellationToken,
    pub(in super::super) fetcher: Arc<Fetcher>,
    /// Open once Kafka was reached; closed after a failure.
    pub(in super::super) desk: Option<Desk>,
    pub(in super::super) retention_hours: u32,
    pub(in super::super) tidied_at: Instant,
    /// Said last, so that an outage is one line in the log.
    pub(in super::super) trouble: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Cursor(#[from] backtide_store::ReadError),
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the subscription ends")]
    Ended,
}

impl Publisher {
    /// Works until the topic ends.
    pub(in super::super) fn run(mut self) {
        let watch = self.intake.store.watch({
            let bell = Arc::clone(&self.topic.bell);
            Box::new(move |_| bell.ring())
        });
        let gather = Duration::from_millis(self.topic.limits.gather_ms);
        while !self.topic.bell.has_ended() {
            let outcome = self.work();
            if let Err(WorkError::Ended) = outcome {
                break;
            }
            self.tell(outcome.as_ref().err());
            if outcome.is_err() {
                self.desk = None;
                self.topic.bell.rest(PAUSE);
                continue;
            }
            self.topic.bell.wait(TIDY_EVERY);
            // Many commits and many offsets become one delivery.
            self.topic.bell.rest(gather);
        }
        drop(watch);
        if let Err(error) = self.save().and_then(|()| self.let_go()) {
            let name = &self.topic.name;
            tracing::warn!(subscription = name, %error, "the last offsets were not written down");
        }
    }

    fn tell(&mut self, trouble: Option<&WorkError>) {
        let trouble = trouble.map(ToString::to_string);
        if trouble == self.trouble {
            return;
        }
        let name = &self.topic.name;
        match &trouble {
            Some(error) => {
                tracing::error!(subscription = name, error, "a subscription stands still")
            }
            None => tracing::info!(subscription = name, "the subscription goes on"),
        }
        self.trouble = trouble;
    }

    fn work(&mut self) -> Result<(), WorkError> {
        if self.desk.is_none() {
            self.settle()?;
        }
        self.catch_up()?;
        self.save()?;
        if self.tidied_at.elapsed() >= TIDY_EVERY {
            self.tidied_at = Instant::now();
            self.tidy()?;
            self.let_go()?;
        }
        Ok(())
    }

    /// Sees to the topic, and takes what Kafka knows of the groups.
    fn settle(&mut self) -> Result<(), WorkError> {
        let partitions = u16::try_from(self.topic.extents().len());
        let partitions = partitions.expect("there are few partitions");
        let mut desk = Desk::open(
            &self.cluster,
            &self.kafka_topic,
            partitions,
            self.retention_hours,
        )?;
        let extents = desk.extents()?;
        let mut groups = self.topic.groups();
        // Nice to have: not every user may list groups.
        match desk.groups() {
            Ok(found) => groups.extend(found),
            Err(error) => tracing::debug!(%error, "groups of Kafka are not listed"),
        }
        groups.sort_unstable();
        groups.dedup();
        for group in &groups {
            for (partition, committed) in desk.committed(group)?.into_iter().enumerate() {
                if let Some(committed) = committed {
                    let next = within(committed, extents[partition], group, &self.kafka_topic);
                    self.topic.recommit(group, partition, next);
                }
            }
        }
        self.topic.grown(self.topic.place(), extents, 0);
        self.desk = Some(desk);
        Ok(())
    }

    /// Publishes the messages of the log, to its end.
    fn catch_up(&mut self) -> Result<(), WorkError> {
        while let Some(taken) = self.intake.next()? {
            self.publish(taken)?;
        }
        Ok(())
    }

    fn publish(&mut self, Taken { drafts, place }: Taken) -> Result<(), WorkError> {
        let record = |draft: Draft| Record {
            address: Arc::clone(&self.kafka_topic),
            key: draft.key,
            value: draft.value,
            headers: Vec::new(),
        };
        let stretch = Stretch {
            records: drafts.into_iter().map(record).collect(),
            reached: place.reached,
        };
        let poison = self.deliver(&stretch)?;
        for refused in &poison {
            let key = String::from_utf8_lossy(&stretch.records[refused.index].key);
            tracing::error!(
                subscription = self.topic.name,
                asset = %key,
                reason = refused.reason,
                "Kafka refuses a message of the subscription: it is not in its topic"
            );
        }
        metrics::counter!("backtide_subscription_refused_total",
            "subscription" => self.topic.name.clone())
        .increment(poison.len() as u64);
        self.write(place, stretch.records.len() - poison.len())
    }

    fn deliver(&self, stretch: &Stretch) -> Result<Vec<Poison>, WorkError> {
        if stretch.records.is_empty() {
            return Ok(Vec::new());
        }
        block_on(async {
            tokio::select! {
                poison = self.sink.deliver(stretch) => Ok(poison?),
                () = self.ending.cancelled() => Err(WorkError::Ended),
            }
        })
    }

    fn write(&mut self, place: Place, messages: usize) -> Result<(), WorkError> {
        self.shelf.write(place, &[], &[], self.clock.now_ms())?;
        metrics::counter!("backtide_subscription_messages_total",
            "subscription" => self.topic.name.clone())
        .increment(messages as u64);
        let extents = match &self.desk {
            Some(desk) if messages > 0 => desk.extents()?,
            _ => self.topic.extents(),
        };
        self.topic.grown(place, extents, messages);
        Ok(())
    }

    /// Tells Kafka what was committed, and writes it down.
    fn save(&mut self) -> Result<(), WorkError> {
        let committed = self.topic.unsaved();
        let Some(desk) = self.desk.as_mut().filter(|_| !committed.is_empty()) else {
            return Ok(());
        };
        for of_group in committed.chunk_by(|a, b| a.group == b.group) {
            let offsets = of_group.iter().map(
                |Committed {
                     partition, next, ..
                 }| (*partition, *next),
            );
            let offsets: Vec<(usize, u64)> = offsets.collect();
            desk.commit(&of_group[0].group, &offsets)?;
        }
        let now_ms = self.clock.now_ms();
        self.shelf
            .write(self.topic.place(), &[], &committed, now_ms)?;
        self.topic.saved(&committed);
        Ok(())
    }

    /// Looks at what Kafka has let go, and at what is declared; forgets groups that nobody uses.
    fn tidy(&mut self) -> Result<(), WorkError> {
        self.fetcher.tidy();
        let now_ms = self.clock.now_ms();
        let snapshot = self.intake.registry.snapshot();
        let declared = snapshot.subscription(&self.topic.name);
        let hours = declared.map(|declared| declared.file.retention_hours);
        let Some(desk) = &mut self.desk else {
            return Ok(());
        };
        if let Some(hours) = hours.filter(|hours| *hours != self.retention_hours) {
            desk.keep_for(hours)?;
            self.retention_hours = hours;
        }
        self.topic.shrunk(self.topic.place(), desk.extents()?, 0);
        let idle_ms = i64::from(self.topic.limits.group_idle_days_max) * DAY_MS;
        let present = self.topic.present();
        let forgotten = self.shelf.forget_groups(now_ms - idle_ms, &present)?;
        forgotten.iter().for_each(|group| desk.forget(group));
        self.topic.forgotten(&forgotten);
        Ok(())
    }

    /// Lets the log go behind what is in Kafka.
    fn let_go(&mut self) -> Result<(), WorkError> {
        let reached = self.topic.place().reached;
        if self.shelf.sync()? {
            self.intake
                .store
                .set_cursor(&cursor(&self.intake.uid), reached)?;
        }
        Ok(())
    }
}

/// An offset that the topic has, or will have: it may have been made anew, and begin at 0 again.
fn within(committed: u64, extent: Extent, group: &str, topic: &str) -> u64 {
    if committed <= extent.next {
        return committed;
    }
    tracing::warn!(
        group,
        topic,
        committed,
        next = extent.next,
        "the group has committed more than the topic holds: it begins at the oldest message"
    );
    extent.oldest
}
