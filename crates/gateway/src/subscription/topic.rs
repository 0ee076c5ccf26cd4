//! The messages of one subscription, kept here: a follower takes what the subscription wants out of
//! the committed log into a file, members of groups read it from there.
//!
//! Memory holds what each partition spans and how far each group is. A member waits on a bell of
//! its own, which rings when one of its partitions has news: thousands that wait cost nothing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use backtide_store::{Sequence, Store};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Standing,
    group::{Claim, Extent, Group, MemberId, Outcome},
    shelf::{Committed, Place, Shelf, ShelfError},
    source::{Member, Message, PullSize, Sought, Source, SourceError},
    standing::{GroupStanding, OffsetStanding, PartitionStanding},
};
use crate::{bell::Bell, clock::Clock, limits, meter::Meter, pool::Pool};

/// How long the oldest messages may be gone from the file and still be spoken of.
const PRUNING: Duration = Duration::from_millis(100);

/// A running subscription's messages and groups.
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) bell: Arc<Bell>,
    pub(super) limits: limits::Topics,
    state: Mutex<State>,
    /// For members and replays; the follower writes by a way of its own.
    pages: Arc<dyn Pages>,
    store: Store,
    pool: Pool,
    clock: Clock,
}

/// Where the messages of a topic lie. What it does blocks.
pub(super) trait Pages: Send + Sync {
    /// The messages of a partition from `from` on, for a member of `group`, in order; at least one,
    /// if there is one. Empty where they cannot be had at the moment.
    fn read(
        &self,
        group: &str,
        partition: usize,
        from: u64,
        size: PullSize,
    ) -> Result<Vec<Message>, String>;

    /// The first message of a partition at or behind `time_ms`; the next one to come where there is
    /// none.
    fn offset_at(&self, partition: usize, time_ms: i64) -> Result<u64, String>;
}

impl Pages for Mutex<Shelf> {
    fn read(
        &self,
        _: &str,
        partition: usize,
        from: u64,
        size: PullSize,
    ) -> Result<Vec<Message>, String> {
        let messages = self.lock().read(partition, from, size);
        messages.map_err(|error| error.to_string())
    }

    fn offset_at(&self, partition: usize, time_ms: i64) -> Result<u64, String> {
        let offset = self.lock().offset_at(partition, time_ms);
        offset.map_err(|error| error.to_string())
    }
}

struct State {
    extents: Vec<Extent>,
    groups: BTreeMap<String, Group>,
    delivered: HashMap<String, Meter>,
    members: HashMap<MemberId, Arc<Notify>>,
    next_member: MemberId,
    place: Place,
    produced: Meter,
    bytes: u64,
    has_ended: bool,
}

impl Topic {
    pub(super) fn new(
        name: &str,
        shelf: &Shelf,
        pages: Arc<dyn Pages>,
        store: Store,
        pool: Pool,
        clock: Clock,
        limits: limits::Topics,
    ) -> Result<Arc<Self>, ShelfError> {
        let extents = shelf.extents()?;
        let state = State {
            groups: groups(&shelf.committed()?, extents.len()),
            extents,
            delivered: HashMap::new(),
            members: HashMap::new(),
            next_member: 1,
            place: shelf.place()?,
            produced: Meter::default(),
            bytes: shelf.bytes_used()?,
            has_ended: false,
        };
        Ok(Arc::new(Self {
            name: name.to_owned(),
            bell: Arc::default(),
            limits,
            state: Mutex::new(state),
            pages,
            store,
            pool,
            clock,
        }))
    }

    pub(super) fn place(&self) -> Place {
        self.state.lock().place
    }

    pub(super) fn extents(&self) -> Vec<Extent> {
        self.state.lock().extents.clone()
    }

    /// Takes note of what the follower has written, and wakes who waits for it.
    pub(super) fn grown(&self, place: Place, extents: Vec<Extent>, messages: usize) {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        state.place = place;
        state.produced.add(messages, now_ms);
        let before = std::mem::replace(&mut state.extents, extents);
        let grown = before.iter().zip(&state.extents).enumerate();
        let grown = grown.filter(|(_, (before, now))| before.next != now.next);
        let grown: Vec<usize> = grown.map(|(partition, _)| partition).collect();
        for group in state.groups.values() {
            for owner in grown.iter().filter_map(|partition| group.owner(*partition)) {
                state.ring(owner);
            }
        }
    }

    /// Takes note of what retention has taken away.
    pub(super) fn shrunk(&self, place: Place, extents: Vec<Extent>, bytes: u64) {
        let mut state = self.state.lock();
        state.place = place;
        state.extents = extents;
        state.bytes = bytes;
    }

    /// What was committed and is not on disk; once it is, [`Topic::saved`].
    pub(super) fn unsaved(&self) -> Vec<Committed> {
        let state = self.state.lock();
        let groups = state.groups.iter();
        groups
            .flat_map(|(name, group)| {
                group.unsaved().map(|(partition, next)| Committed {
                    group: name.clone(),
                    partition,
                    next,
                })
            })
            .collect()
    }

    pub(super) fn saved(&self, committed: &[Committed]) {
        let mut state = self.state.lock();
        for Committed {
            group,
            partition,
            next,
        } in committed
        {
            if let Some(group) = state.groups.get_mut(group) {
                group.saved(*partition, *next);
            }
        }
    }

    /// Every group that is known.
    pub(super) fn groups(&self) -> Vec<String> {
        self.state.lock().groups.keys().cloned().collect()
    }

    /// Takes an offset that is committed elsewhere: it wins.
    pub(super) fn recommit(&self, group: &str, partition: usize, next: u64) {
        let mut state = self.state.lock();
        let partitions = state.extents.len();
        let known = state
            .groups
            .entry(group.to_owned())
            .or_insert_with(|| Group::new(&vec![None; partitions]));
        known.recommit(partition, next);
    }

    /// The groups that somebody is in.
    pub(super) fn present(&self) -> Vec<String> {
        let state = self.state.lock();
        let present = state.groups.iter().filter(|(_, group)| group.members() > 0);
        present.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn forgotten(&self, groups: &[String]) {
        let mut state = self.state.lock();
        for name in groups {
            if state
                .groups
                .get(name)
                .is_some_and(|group| group.members() == 0)
            {
                state.groups.remove(name);
                state.delivered.remove(name);
            }
        }
    }

    /// No more messages: members are told, the follower ends.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        for bell in state.members.values() {
            bell.notify_one();
        }
        drop(state);
        self.bell.end();
    }

    /// Something for a member to read, unless it has to wait.
    fn claim(&self, group: &str, member: MemberId) -> Result<Option<Claim>, SourceError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.has_ended {
            return Err(SourceError::Ended);
        }
        let of_member = "a group lives as long as it has members";
        let (claim, expired) = state
            .groups
            .get_mut(group)
            .expect(of_member)
            .claim(member, &state.extents);
        if expired > 0 {
            tracing::warn!(
                subscription = self.name,
                group,
                messages = expired,
                "messages were kept no longer before the group read them"
            );
            metrics::counter!("backtide_subscription_expired_total",
                "subscription" => self.name.clone(), "group" => group.to_owned())
            .increment(expired);
        }
        Ok(claim)
    }

    /// Whether the messages may go to who claimed them.
    fn deliver(&self, group: &str, claim: Claim, messages: &[Message]) -> bool {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        let next = messages.last().map_or(claim.from, |last| last.offset + 1);
        let found = state.groups.get_mut(group);
        if !found.is_some_and(|group| group.deliver(claim, next)) {
            return false;
        }
        let meter = state.delivered.entry(group.to_owned()).or_default();
        meter.add(messages.len(), now_ms);
        true
    }

    async fn read(
        &self,
        group: &str,
        claim: Claim,
        size: PullSize,
    ) -> Result<Vec<Message>, SourceError> {
        let (pages, group) = (Arc::clone(&self.pages), group.to_owned());
        let read = move || pages.read(&group, claim.partition, claim.from, size);
        match self.pool.run(read).await {
            Ok(Ok(messages)) => Ok(messages),
            Ok(Err(error)) => Err(SourceError::Failed(error)),
            Err(error) => Err(SourceError::Failed(error.to_string())),
        }
    }

    fn leave(&self, group: &str, member: MemberId) {
        let mut state = self.state.lock();
        state.members.remove(&member);
        if let Some(left) = state.groups.get_mut(group) {
            left.leave(member);
            if left.is_void() {
                state.groups.remove(group);
                state.delivered.remove(group);
            }
        }
        state.ring_group(group);
        drop(state);
        // What it committed last shall not wait for the next message.
        self.bell.ring();
    }
}

impl State {
    fn ring(&self, member: MemberId) {
        if let Some(bell) = self.members.get(&member) {
            bell.notify_one();
        }
    }

    /// Partitions have changed hands, or places.
    fn ring_group(&self, group: &str) {
        if let Some(group) = self.groups.get(group) {
            group.owners().for_each(|owner| self.ring(owner));
        }
    }
}

/// Groups as they were left.
fn groups(committed: &[Committed], partitions: usize) -> BTreeMap<String, Group> {
    let mut offsets: BTreeMap<String, Vec<Option<u64>>> = BTreeMap::new();
    for Committed {
        group,
        partition,
        next,
    } in committed
    {
        let offsets = offsets
            .entry(group.clone())
            .or_insert_with(|| vec![None; partitions]);
        if let Some(offset) = offsets.get_mut(*partition) {
            *offset = Some(*next);
        }
    }
    let groups = offsets.into_iter();
    groups
        .map(|(name, offsets)| (name, Group::new(&offsets)))
        .collect()
}

/// A [`Topic`] as the door sees it.
pub(super) struct Local(pub(super) Arc<Topic>);

impl Source for Local {
    fn join(&self, group: &str) -> Result<Box<dyn Member>, SourceError> {
        let topic = &self.0;
        let bytes_max = topic.limits.group_name_bytes_max;
        if group.len() > bytes_max {
            return Err(SourceError::GroupName { bytes_max });
        }
        let mut state = topic.state.lock();
        if state.has_ended {
            return Err(SourceError::Ended);
        }
        let groups_max = topic.limits.groups_max;
        if !state.groups.contains_key(group) && state.groups.len() >= groups_max {
            return Err(SourceError::TooManyGroups { groups_max });
        }
        let member = state.next_member;
        state.next_member += 1;
        let bell = Arc::new(Notify::new());
        state.members.insert(member, Arc::clone(&bell));
        let partitions = state.extents.len();
        state
            .groups
            .entry(group.to_owned())
            .or_insert_with(|| Group::new(&vec![None; partitions]))
            .join(member);
        state.ring_group(group);
        Ok(Box::new(Seat {
            topic: Arc::clone(topic),
            group: group.into(),
            member,
            bell,
        }))
    }

    fn seek(&self, group: Option<&str>, time_ms: i64) -> Result<Vec<Sought>, SourceError> {
        let topic = &self.0;
        let partitions = topic.extents().len();
        let offsets: Vec<u64> = {
            let offsets =
                (0..partitions).map(|partition| topic.pages.offset_at(partition, time_ms));
            offsets
                .collect::<Result<_, _>>()
                .map_err(SourceError::Failed)?
        };
        let mut state = topic.state.lock();
        let names: Vec<String> = match group {
            Some(name) if state.groups.contains_key(name) => vec![name.to_owned()],
            Some(name) => return Err(SourceError::NoGroup(name.to_owned())),
            None => state.groups.keys().cloned().collect(),
        };
        let mut sought = Vec::new();
        for name in names {
            let group = state.groups.get_mut(&name).expect("it was just found");
            for (partition, offset) in offsets.iter().enumerate() {
                group.seek(partition, *offset);
                sought.push(Sought {
                    group: name.clone(),
                    partition: u16::try_from(partition).expect("there are few partitions"),
                    offset: *offset,
                });
            }
            state.ring_group(&name);
        }
        drop(state);
        topic.bell.ring();
        Ok(sought)
    }

    fn standing(&self) -> Standing {
        let topic = &self.0;
        let now_ms = topic.clock.now_ms();
        let durable: Sequence = topic.store.durable();
        let state = topic.state.lock();
        let extents = state.extents.iter().enumerate();
        let groups = state.groups.iter().map(|(name, group)| {
            let offsets = extents.clone().map(|(partition, extent)| {
                let progress = group.progress(partition, *extent);
                OffsetStanding {
                    partition,
                    committed: progress.committed,
                    position: progress.position,
                    lag: progress.lag,
                    member: progress.owner,
                }
            });
            let offsets: Vec<_> = offsets.collect();
            GroupStanding {
                group: name.clone(),
                members: group.members(),
                lag: offsets.iter().map(|offset| offset.lag).sum(),
                rate: state
                    .delivered
                    .get(name)
                    .map_or(0.0, |meter| meter.rate(now_ms)),
                offsets,
            }
        });
        Standing {
            rate: state.produced.rate(now_ms),
            behind: durable.0.saturating_sub(state.place.reached.0),
            skipped_commits: state.place.skipped,
            dropped_messages: state.place.dropped,
            bytes: state.bytes,
            partitions: extents
                .clone()
                .map(|(partition, extent)| PartitionStanding {
                    partition,
                    oldest: extent.oldest,
                    next: extent.next,
                })
                .collect(),
            groups: groups.collect(),
        }
    }
}

/// A member of a group of a [`Topic`].
struct Seat {
    topic: Arc<Topic>,
    group: Box<str>,
    member: MemberId,
    bell: Arc<Notify>,
}

impl Seat {
    async fn next(&self, size: PullSize) -> Result<Vec<Message>, SourceError> {
        loop {
            // The bell keeps a ring from between the two lines.
            let Some(claim) = self.topic.claim(&self.group, self.member)? else {
                self.bell.notified().await;
                continue;
            };
            let messages = self.topic.read(&self.group, claim, size).await?;
            if messages.is_empty() {
                // Retention has just taken them away: the follower is about to say so.
                tokio::time::sleep(PRUNING).await;
                continue;
            }
            // From here to the caller nothing waits: what is taken note of is also given.
            if self.topic.deliver(&self.group, claim, &messages) {
                let count = messages.len() as u64;
                metrics::counter!("backtide_subscription_delivered_total",
                    "subscription" => self.topic.name.clone(), "group" => self.group.to_string())
                .increment(count);
                return Ok(messages);
            }
        }
    }
}

impl Member for Seat {
    fn pull(&self, size: PullSize) -> BoxFuture<'_, Result<Vec<Message>, SourceError>> {
        Box::pin(self.next(size))
    }

    fn commit(&self, partition: u16, offset: u64) {
        let outcome = {
            let mut state = self.topic.state.lock();
            let group = state.groups.get_mut(&*self.group);
            group.map_or(Outcome::Undelivered, |group| {
                group.commit(usize::from(partition), offset)
            })
        };
        match outcome {
            Outcome::Taken => self.topic.bell.ring(),
            Outcome::Behind => {}
            Outcome::Undelivered => {
                metrics::counter!("backtide_subscription_commits_ignored_total",
                    "subscription" => self.topic.name.clone())
                .increment(1);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.topic.leave(&self.group, self.member);
    }
}
