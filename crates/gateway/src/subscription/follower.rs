//! The thread of a topic: takes messages out of the committed log, writes down what was committed,
//! lets go what is too old.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backtide_store::FollowError;

use super::{
    filter::Draft,
    group::Extent,
    intake::{Intake, Taken},
    shelf::{Block, Place, Record, Records, Shelf, ShelfError},
    topic::Topic,
};
use crate::clock::Clock;

/// How often old messages are looked for, and the log is let go behind what is kept.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// How long to wait after a failure before trying again.
const PAUSE: Duration = Duration::from_secs(1);
const HOUR_MS: i64 = 3_600 * 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What the thread works with.
pub(super) struct Follower {
    pub(super) topic: Arc<Topic>,
    pub(super) shelf: Shelf,
    pub(super) intake: Intake,
    pub(super) clock: Clock,
    /// When the newest message came: time does not go back in a topic.
    pub(super) now_ms: i64,
    pub(super) tidied_at: Instant,
}

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Cursor(#[from] backtide_store::ReadError),
}

/// The name under which the store keeps the log for a subscription.
pub(super) fn cursor(uid: &str) -> String {
    format!("subscription/{uid}")
}

impl Follower {
    /// Works until the topic ends.
    pub(super) fn run(mut self) {
        let watch = self.intake.store.watch({
            let bell = Arc::clone(&self.topic.bell);
            Box::new(move |_| bell.ring())
        });
        let gather = Duration::from_millis(self.topic.limits.gather_ms);
        while !self.topic.bell.has_ended() {
            if let Err(error) = self.work() {
                let name = &self.topic.name;
                tracing::error!(subscription = name, %error, "a subscription stands still");
                self.topic.bell.rest(PAUSE);
                continue;
            }
            self.topic.bell.wait(TIDY_EVERY);
            // Many commits and many offsets become one write.
            self.topic.bell.rest(gather);
        }
        drop(watch);
        if let Err(error) = self.save().and_then(|()| self.let_go()) {
            let name = &self.topic.name;
            tracing::warn!(subscription = name, %error, "the last offsets were not written down");
        }
    }

    fn work(&mut self) -> Result<(), WorkError> {
        self.catch_up()?;
        self.save()?;
        if self.tidied_at.elapsed() >= TIDY_EVERY {
            self.tidied_at = Instant::now();
            self.prune()?;
            self.let_go()?;
        }
        Ok(())
    }

    /// Writes down the messages of the log, to its end.
    fn catch_up(&mut self) -> Result<(), WorkError> {
        while let Some(Taken { drafts, place }) = self.intake.next()? {
            self.now_ms = self.clock.now_ms().max(self.now_ms);
            let limits = &self.topic.limits;
            let mut page = Page::new(self.topic.extents(), self.now_ms);
            for draft in drafts {
                page.push(draft, limits.block_bytes_max, limits.block_messages_max);
            }
            self.write(place, page)?;
        }
        Ok(())
    }

    fn write(&mut self, place: Place, page: Page) -> Result<(), WorkError> {
        let (blocks, extents) = page.finish();
        let committed = self.topic.unsaved();
        self.shelf.write(place, &blocks, &committed, self.now_ms)?;
        self.topic.saved(&committed);
        let messages: u64 = blocks.iter().map(|block| block.count).sum();
        metrics::counter!("backtide_subscription_messages_total",
            "subscription" => self.topic.name.clone())
        .increment(messages);
        let messages = usize::try_from(messages).expect("a page of them is in memory");
        self.topic.grown(place, extents, messages);
        Ok(())
    }

    /// Writes down what was committed since.
    fn save(&mut self) -> Result<(), WorkError> {
        let committed = self.topic.unsaved();
        if committed.is_empty() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        self.shelf
            .write(self.topic.place(), &[], &committed, now_ms)?;
        self.topic.saved(&committed);
        Ok(())
    }

    /// Lets go what is too old, or too much, and groups that nobody uses.
    fn prune(&mut self) -> Result<(), WorkError> {
        let now_ms = self.clock.now_ms();
        let snapshot = self.intake.registry.snapshot();
        let declared = snapshot.subscription(&self.topic.name);
        let Some(hours) = declared.map(|declared| declared.file.retention_hours) else {
            return Ok(());
        };
        let until_ms = now_ms - i64::from(hours) * HOUR_MS;
        let mut place = self.topic.place();
        while self.shelf.prune(until_ms)?.blocks > 0 {}
        let mut bytes = self.shelf.bytes_used()?;
        let before = place.dropped;
        while bytes > self.topic.limits.bytes_max {
            let pruned = self.shelf.prune(i64::MAX)?;
            if pruned.blocks == 0 {
                break;
            }
            place.dropped += pruned.messages;
            bytes = self.shelf.bytes_used()?;
        }
        if place.dropped > before {
            let messages = place.dropped - before;
            tracing::warn!(
                subscription = self.topic.name,
                messages,
                "the oldest messages made room for new ones before their time"
            );
            self.shelf.write(place, &[], &[], now_ms)?;
        }
        self.topic.shrunk(place, self.shelf.extents()?, bytes);
        let idle_ms = i64::from(self.topic.limits.group_idle_days_max) * DAY_MS;
        let present = self.topic.present();
        let forgotten = self.shelf.forget_groups(now_ms - idle_ms, &present)?;
        self.topic.forgotten(&forgotten);
        Ok(())
    }

    /// Lets the log go behind what would survive power loss here.
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

/// The messages of some commits, by partition, as blocks.
struct Page {
    /// As they will be.
    extents: Vec<Extent>,
    open: Vec<Open>,
    blocks: Vec<Block>,
    time_ms: i64,
}

/// A block that is being filled.
#[derive(Default)]
struct Open {
    records: Records,
    bytes: usize,
}

impl Page {
    fn new(extents: Vec<Extent>, time_ms: i64) -> Self {
        let mut open = Vec::new();
        open.resize_with(extents.len(), Open::default);
        Self {
            extents,
            open,
            blocks: Vec::new(),
            time_ms,
        }
    }

    fn push(&mut self, draft: Draft, bytes_max: usize, messages_max: usize) {
        let partition = draft.partition;
        let bytes = draft.key.len() + draft.value.len();
        let open = &self.open[partition];
        let count = open.records.records.len();
        if count > 0 && (open.bytes + bytes > bytes_max || count >= messages_max) {
            self.close(partition);
        }
        let open = &mut self.open[partition];
        open.bytes += bytes;
        open.records.records.push(Record {
            time_ms: self.time_ms,
            key: draft.key,
            value: draft.value,
        });
    }

    fn close(&mut self, partition: usize) {
        let open = std::mem::take(&mut self.open[partition]);
        if open.records.records.is_empty() {
            return;
        }
        let extent = &mut self.extents[partition];
        let block = Block::new(partition, extent.next, &open.records);
        extent.next += block.count;
        self.blocks.push(block);
    }

    fn finish(mut self) -> (Vec<Block>, Vec<Extent>) {
        for partition in 0..self.open.len() {
            self.close(partition);
        }
        (self.blocks, self.extents)
    }
}
