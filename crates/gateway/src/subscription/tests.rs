//! Topics over a real store, registry and file: everything once, in order, whatever happens.

use std::{collections::BTreeMap, task::Poll, time::Duration};

use backtide_model::{
    BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
    Occurrence, ProductKey,
};
use backtide_store::{Commit, Options, Origin, Part, disk::RealDisk};
use tokio::time::timeout;

use super::*;
use crate::registry::{self, Form, Run, StoredTypes};

const FARM: &str = include_str!("../registry/farm.yaml");
const MORE: &str = "
kind: Device
name: R80721
product: wind-farm
---
kind: Device
name: R80736
product: wind-farm
---
kind: AccessKey
name: analytics
---
kind: Subscription
name: history
accessKey: analytics
";
const SIZE: PullSize = PullSize {
    bytes_max: 64 << 10,
    messages_max: 500,
};
const START_MS: i64 = 1_700_000_000_000;

struct StoredPoints(Store);

impl StoredTypes for StoredPoints {
    fn stored_as(
        &self,
        product: &ProductKey,
        point: &ElementName,
    ) -> Option<backtide_model::Storage> {
        self.0.storage_of(product, point)
    }

    fn committed(&self) -> u64 {
        self.0.durable().0
    }
}

/// A gateway without doors.
pub(crate) struct World {
    dir: tempfile::TempDir,
    options: Options,
    pub(crate) store: Store,
    pub(crate) registry: Arc<Registry>,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) clock: Clock,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::stopped(START_MS);
        let (store, registry, subscriptions) = open(dir.path(), &options, &clock);
        let world = Self {
            dir,
            options,
            store,
            registry,
            subscriptions,
            clock,
        };
        world.apply(FARM);
        world.apply(MORE);
        world
    }

    fn restart(self) -> Self {
        let Self {
            dir,
            options,
            store,
            registry,
            subscriptions,
            clock,
        } = self;
        subscriptions.close();
        store.close();
        drop((subscriptions, registry, store));
        let (store, registry, subscriptions) = open(dir.path(), &options, &clock);
        Self {
            dir,
            options,
            store,
            registry,
            subscriptions,
            clock,
        }
    }

    pub(crate) fn apply(&self, yaml: &str) {
        let documents = registry::read(yaml, Form::Yaml).unwrap();
        self.registry.apply(documents, Run::Commit).unwrap();
    }

    /// Commits a row for each device and time; the value is the time.
    pub(crate) fn put(&self, rows: &[(&str, i64)]) {
        let mut builder = BatchBuilder::new();
        for (device, time_ms) in rows {
            builder.row(&DeviceKey::new(device).unwrap(), *time_ms);
            for (point, cell) in [
                ("P_avg", Cell::Double(*time_ms as f64)),
                ("state", Cell::Int(1)),
            ] {
                let point = ElementName::new(point).unwrap();
                builder.cell(&point, ConflictPolicy::KeepLast, cell, NO_QUALITY);
            }
        }
        self.commit(vec![Part::Points(builder.build())]);
    }

    fn commit(&self, parts: Vec<Part>) {
        let commit = Commit {
            origin: Origin {
                channel: ChannelName::new("scada-history").unwrap(),
                client: "client-1".into(),
                topic: "/sys/LHBfarm1/integration/measurepoint/post".into(),
                message_id: "1".into(),
                packet_id: None,
                policies: None,
                arrived_ms: self.clock.now_ms(),
            },
            product: ProductKey::new("LHBfarm1").unwrap(),
            parts,
            redrive: None,
        };
        for outcome in self.store.commit(vec![commit]).unwrap() {
            outcome.unwrap();
        }
    }

    async fn source(&self) -> Arc<dyn Source> {
        self.source_of("history").await
    }

    async fn source_of(&self, name: &str) -> Arc<dyn Source> {
        let snapshot = self.registry.snapshot();
        let subscription = snapshot.subscription(name).unwrap();
        self.subscriptions.source(subscription).await.unwrap()
    }

    async fn join(&self, group: &str) -> Box<dyn Member> {
        self.source().await.join(group).unwrap()
    }

    fn files(&self) -> usize {
        fs::read_dir(self.dir.path().join("subscriptions"))
            .unwrap()
            .count()
    }
}

fn open(
    dir: &Path,
    options: &Options,
    clock: &Clock,
) -> (Store, Arc<Registry>, Arc<Subscriptions>) {
    let (store, _) = Store::open(&dir.join("store"), Arc::new(RealDisk), options.clone()).unwrap();
    let stored = Arc::new(StoredPoints(store.clone()));
    let registry = Arc::new(Registry::open(dir, stored, clock.clone()).unwrap());
    let setting = Setting {
        registry: Arc::clone(&registry),
        store: store.clone(),
        organization: ObjectName::new("o1").unwrap(),
        clock: clock.clone(),
        pool: Pool::start("test", 2, 100).unwrap(),
        limits: limits::Topics {
            gather_ms: 1,
            block_messages_max: 7,
            ..limits::Topics::default()
        },
        kafka: None,
    };
    let subscriptions = Subscriptions::open(&dir.join("subscriptions"), setting).unwrap();
    (store, registry, subscriptions)
}

/// Pulls until so many messages are there.
async fn pull(member: &dyn Member, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let next = timeout(Duration::from_secs(20), member.pull(SIZE)).await;
        messages.extend(next.expect("messages come").unwrap());
    }
    messages
}

/// Nothing comes. Not a wait for time: a pull that finds nothing is pending when it is polled, and
/// everything durable was followed before.
async fn nothing_comes(world: &World, member: &dyn Member) {
    caught_up(world).await;
    let mut next = std::pin::pin!(member.pull(SIZE));
    assert!(futures::poll!(&mut next).is_pending());
}

async fn caught_up(world: &World) {
    let source = world.source().await;
    let behind = async {
        while source.standing().behind > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(20), behind).await.unwrap();
}

/// The event times of messages by device, in order; checks that offsets have no gap or repeat.
fn by_device(messages: &[Message]) -> BTreeMap<String, Vec<i64>> {
    let mut next: BTreeMap<u16, u64> = BTreeMap::new();
    let mut devices: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for message in messages {
        let expected = next.entry(message.partition).or_insert(message.offset);
        assert_eq!(message.offset, *expected);
        *expected += 1;
        let json: serde_json::Value = serde_json::from_slice(&message.value).unwrap();
        assert_eq!(
            json["assetId"].as_str().unwrap().as_bytes(),
            &message.key[..]
        );
        let device = json["deviceKey"].as_str().unwrap().to_owned();
        devices
            .entry(device)
            .or_default()
            .push(json["time"].as_i64().unwrap());
    }
    devices
}

fn rows(device: &str, times: std::ops::Range<i64>) -> Vec<(&str, i64)> {
    times.map(|time| (device, time)).collect()
}

#[tokio::test]
async fn what_is_committed_comes_once_and_in_order() {
    let world = World::new();
    for n in 0..10 {
        let all = [rows("R80711", n * 5..n * 5 + 5), rows("R80721", n..n + 1)].concat();
        world.put(&all);
    }
    let member = world.join("g").await;
    let messages = pull(&*member, 60).await;
    let devices = by_device(&messages);
    assert_eq!(devices["R80711"], (0..50).collect::<Vec<_>>());
    assert_eq!(devices["R80721"], (0..10).collect::<Vec<_>>());
    nothing_comes(&world, &*member).await;
    let first: serde_json::Value = serde_json::from_slice(&messages[0].value).unwrap();
    assert_eq!(first["orgId"], "o1");
    assert_eq!(first["payload"][0]["measurepoints"]["state"], 1);
}

#[tokio::test]
async fn what_was_committed_before_the_subscription_is_not_in_it_unless_it_asks_for_the_oldest() {
    let world = World::new();
    world.put(&rows("R80711", 0..3));
    let late = "{kind: Subscription, name: late, accessKey: analytics";
    world.apply(&format!("{late}}}"));
    world.apply(&format!("{late}, begin: oldest}}").replace("name: late", "name: oldest"));
    world.put(&rows("R80711", 3..5));
    for (name, expected) in [("late", 3..5), ("oldest", 0..5)] {
        let member = world.source_of(name).await.join("g").unwrap();
        let messages = pull(
            &*member,
            usize::try_from(expected.end - expected.start).unwrap(),
        )
        .await;
        assert_eq!(by_device(&messages)["R80711"], expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn offsets_and_commits_are_the_same_after_a_restart() {
    let world = World::new();
    world.put(&rows("R80711", 0..20));
    let member = world.join("g").await;
    let before = pull(&*member, 20).await;
    member.commit(before[11].partition, before[11].offset);
    drop(member);
    let world = world.restart();
    let again = pull(&*world.join("other").await, 20).await;
    assert_eq!(again, before);
    let member = world.join("g").await;
    world.put(&rows("R80711", 20..25));
    let rest = pull(&*member, 14).await;
    assert_eq!(by_device(&rest)["R80711"], (11..25).collect::<Vec<_>>());
    nothing_comes(&world, &*member).await;
}

#[tokio::test]
async fn two_groups_see_everything_and_members_of_one_share_it() {
    let world = World::new();
    let (a, b, idle) = (
        world.join("g").await,
        world.join("g").await,
        world.join("g").await,
    );
    let alone = world.join("alone").await;
    // Many assets, so that both partitions have some.
    for n in 0..12 {
        world.apply(&format!(
            "{{kind: Device, name: d{n}, product: wind-farm, assetId: a{n}}}"
        ));
        world.put(&rows(&format!("d{n}"), 0..4));
    }
    assert_eq!(by_device(&pull(&*alone, 48).await).len(), 12);
    let source = world.source().await;
    let next: Vec<_> = source
        .standing()
        .partitions
        .iter()
        .map(|p| p.next)
        .collect();
    let count = |at: usize| usize::try_from(next[at]).unwrap();
    assert!(count(0) > 0 && count(1) > 0, "{next:?}");
    let owners: Vec<_> = {
        let standing = source.standing();
        let group = standing
            .groups
            .iter()
            .find(|group| group.group == "g")
            .unwrap();
        assert_eq!((group.members, group.lag), (3, 48));
        group
            .offsets
            .iter()
            .map(|offset| offset.member.unwrap())
            .collect()
    };
    assert_ne!(owners[0], owners[1]);
    let (first, second) = if owners[0] < owners[1] {
        (0, 1)
    } else {
        (1, 0)
    };
    let of_a = pull(&*a, count(first)).await;
    let of_b = pull(&*b, count(second)).await;
    assert!(
        of_a.iter()
            .all(|message| usize::from(message.partition) == first)
    );
    assert!(
        of_b.iter()
            .all(|message| usize::from(message.partition) == second)
    );
    nothing_comes(&world, &*idle).await;
    // Whoever leaves without a commit leaves everything to the next.
    drop(a);
    assert_eq!(pull(&*idle, count(first)).await, of_a);
}

#[tokio::test]
async fn filters_hold_for_what_comes_after_they_change() {
    let world = World::new();
    let head = "{kind: Subscription, name: history, accessKey: analytics";
    world.put(&[("R80711", 1), ("R80721", 1)]);
    caught_up(&world).await;
    world.apply(&format!(
        "{head}, devices: [wind-farm/R80721], points: [state]}}"
    ));
    world.put(&[("R80711", 2), ("R80721", 2)]);
    caught_up(&world).await;
    world.apply(&format!("{head}, points: [Ws_avg]}}"));
    world.put(&[("R80711", 3), ("R80721", 3)]);
    let member = world.join("g").await;
    let messages = pull(&*member, 3).await;
    let devices = by_device(&messages);
    assert_eq!(
        (&devices["R80711"][..], &devices["R80721"][..]),
        (&[1][..], &[1, 2][..])
    );
    let last = messages.iter().filter_map(|message| {
        let json: serde_json::Value = serde_json::from_slice(&message.value).unwrap();
        (json["time"] == 2).then(|| json["payload"][0]["measurepoints"].clone())
    });
    assert_eq!(last.collect::<Vec<_>>(), [serde_json::json!({"state": 1})]);
    nothing_comes(&world, &*member).await;
}

#[tokio::test]
async fn events_come_to_who_subscribes_to_them_and_points_to_the_others() {
    let world = World::new();
    world.apply(
        "{kind: Subscription, name: alarms, accessKey: analytics, type: events, events: [alarm]}",
    );
    let event = |event: &str| Occurrence {
        device: DeviceKey::new("R80711").unwrap(),
        time_ms: 7,
        event: ElementName::new(event).unwrap(),
        output: r#"{"code":3}"#.into(),
    };
    world.put(&rows("R80711", 0..2));
    world.commit(vec![Part::Events(vec![event("alarm"), event("other")])]);
    world.put(&rows("R80711", 2..3));
    let alarms = world.source_of("alarms").await.join("g").unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&pull(&*alarms, 1).await[0].value).unwrap();
    assert_eq!(json["payload"][0]["event"], "alarm");
    assert_eq!(json["payload"][0]["output"], serde_json::json!({"code": 3}));
    let member = world.join("g").await;
    assert_eq!(by_device(&pull(&*member, 3).await)["R80711"], [0, 1, 2]);
    nothing_comes(&world, &*member).await;
    assert_eq!(
        world
            .source_of("alarms")
            .await
            .standing()
            .partitions
            .iter()
            .map(|p| p.next)
            .sum::<u64>(),
        1
    );
}

#[tokio::test]
async fn a_replay_begins_at_what_came_at_its_time() {
    let world = World::new();
    world.put(&rows("R80711", 0..10));
    caught_up(&world).await;
    world.clock.set(START_MS + 60_000);
    world.put(&rows("R80711", 10..20));
    let member = world.join("g").await;
    let all = pull(&*member, 20).await;
    member.commit(all[19].partition, all[19].offset + 1);
    let source = world.source().await;
    source.seek(None, START_MS + 30_000).unwrap();
    let again = pull(&*member, 10).await;
    assert_eq!(by_device(&again)["R80711"], (10..20).collect::<Vec<_>>());
    source.seek(Some("g"), 0).unwrap();
    assert_eq!(pull(&*member, 20).await, all);
    source.seek(Some("g"), START_MS + 61_000).unwrap();
    nothing_comes(&world, &*member).await;
    assert_eq!(
        source.seek(Some("nobody"), 0),
        Err(SourceError::NoGroup("nobody".into()))
    );
}

#[tokio::test]
async fn a_stopped_subscription_goes_on_where_it_was_and_says_what_the_log_lost() {
    let world = World::with(Options {
        journal_file_bytes: 1,
        log_bytes_max: 1,
        quiet_ms: 0,
        ..Options::default()
    });
    world.put(&rows("R80711", 0..3));
    let member = world.join("g").await;
    pull(&*member, 3).await;
    let stop = |stopped| world.registry.set_stopped("history", stopped).unwrap();
    world.subscriptions.agree();
    stop(true);
    world.subscriptions.agree();
    assert_eq!(member.pull(SIZE).await, Err(SourceError::Ended));
    drop(member);
    world.put(&rows("R80711", 3..4));
    stop(false);
    assert_eq!(
        by_device(&pull(&*world.join("g").await, 4).await)["R80711"],
        [0, 1, 2, 3]
    );
    stop(true);
    world.subscriptions.agree();
    // Nobody holds the log now.
    let trimmed = async {
        let mut time = 4;
        while world.store.stats().oldest.unwrap().0 < 5 {
            world.put(&rows("R80711", time..time + 1));
            world.store.flush_now().unwrap();
            time += 1;
        }
    };
    timeout(Duration::from_secs(20), trimmed).await.unwrap();
    stop(false);
    caught_up(&world).await;
    assert!(world.source().await.standing().skipped_commits > 0);
}

#[tokio::test]
async fn what_is_too_old_goes_and_a_group_that_was_late_is_told() {
    let world = World::new();
    world.put(&rows("R80711", 0..10));
    let member = world.join("g").await;
    let first = pull(&*member, 10).await;
    member.commit(first[2].partition, first[2].offset);
    drop(member);
    let source = world.source().await;
    world.clock.set(START_MS + 73 * 3_600 * 1_000);
    let pruned = async {
        while source
            .standing()
            .partitions
            .iter()
            .any(|p| p.oldest < p.next)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), pruned).await.unwrap();
    world.put(&rows("R80711", 10..12));
    let rest = pull(&*world.join("g").await, 2).await;
    assert_eq!(by_device(&rest)["R80711"], [10, 11]);
    assert_eq!(rest[0].offset, 10, "offsets are never given twice");
}

#[tokio::test]
async fn a_deleted_subscription_leaves_nothing_behind() {
    let world = World::new();
    world.put(&rows("R80711", 0..3));
    let member = world.join("g").await;
    pull(&*member, 3).await;
    world
        .registry
        .delete(registry::Kind::Subscription, "history", None)
        .unwrap();
    world.subscriptions.agree();
    assert_eq!(member.pull(SIZE).await, Err(SourceError::Ended));
    drop(member);
    assert_eq!(world.files(), 0);
    // Another of the same name has nothing of it.
    world.apply(MORE);
    nothing_comes(&world, &*world.join("g").await).await;
}

#[tokio::test]
async fn a_pull_that_is_given_up_loses_nothing() {
    let world = World::new();
    let member = world.join("g").await;
    let mut messages = Vec::new();
    for n in 0..200 {
        // Now and then it is answered before it is given up.
        if let Poll::Ready(answered) = futures::poll!(std::pin::pin!(member.pull(SIZE))) {
            messages.extend(answered.unwrap());
        }
        if n == 100 {
            world.put(&rows("R80711", 0..3));
            caught_up(&world).await;
        }
    }
    messages.extend(pull(&*member, 3 - messages.len()).await);
    assert_eq!(by_device(&messages)["R80711"], [0, 1, 2]);
}

#[tokio::test]
async fn groups_are_capped_and_so_are_their_names() {
    let world = World::new();
    let source = world.source().await;
    let members: Vec<_> = (0..64)
        .map(|n| source.join(&format!("g{n}")).unwrap())
        .collect();
    let refused = |group: &str| source.join(group).err().unwrap();
    assert!(matches!(
        refused("one more"),
        SourceError::TooManyGroups { .. }
    ));
    assert!(matches!(
        refused(&"x".repeat(129)),
        SourceError::GroupName { .. }
    ));
    source.join("g0").unwrap();
    drop(members);
    source.join("one more").unwrap();
}
