//! Rules over a real store, registry and files, and a destination that fails as a test says.

mod faults;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use backtide_model::{
    BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
    Occurrence, ProductKey,
};
use backtide_store::{Commit, Options, Origin, Part, disk::RealDisk};
use futures::future::BoxFuture;

use super::*;
use crate::{
    message::header,
    registry::{self, Destination, Form, Run, StoredTypes},
    sink::{Poison, Record, SinkError, Stretch},
};

const FARM: &str = "
kind: Model
name: turbine
measurepoints:
  P_avg: { type: double }
  Ws_avg: { type: double, quality: true }
  state: { type: int }
  power_mw: { type: double }
  ratio: { type: double }
  big: { type: int }
events: { alarm: { level: warn, output: { code: { type: int }, text: { type: string } } } }
attributes: { serial: { type: string } }
---
{ kind: Product, name: farm, key: FARM, model: turbine }
---
{ kind: Device, name: a, product: farm, assetId: asset-a }
---
{ kind: Device, name: b, product: farm, assetId: asset-b }
---
{ kind: Channel, name: scada, product: farm }
";

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

/// What a destination does to the deliveries of one rule.
#[derive(Default)]
struct Behaviour {
    records: Mutex<Vec<Record>>,
    /// Deliveries so far, failed ones included.
    deliveries: AtomicU64,
    /// The n-th delivery fails: from 1.
    fails_at: Mutex<Vec<u64>>,
    is_down: AtomicBool,
    /// Never answers.
    blocks: AtomicBool,
    /// Records with this in their value are poison.
    poison: Mutex<Option<String>>,
    /// Keeps the cursor itself.
    cursor: Mutex<Option<Option<Sequence>>>,
    fenced: AtomicBool,
}

impl Sink for Arc<Behaviour> {
    fn reached(&self) -> BoxFuture<'_, Result<Option<Sequence>, SinkError>> {
        let kept = (*self.cursor.lock()).flatten();
        Box::pin(async move { Ok(kept) })
    }

    fn deliver<'a>(
        &'a self,
        stretch: &'a Stretch,
    ) -> BoxFuture<'a, Result<Vec<Poison>, SinkError>> {
        Box::pin(async move {
            let number = self.deliveries.fetch_add(1, Ordering::SeqCst) + 1;
            if self.blocks.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.fenced.load(Ordering::SeqCst) {
                return Err(SinkError::Fenced("by a test".into()));
            }
            if self.is_down.load(Ordering::SeqCst) || self.fails_at.lock().contains(&number) {
                return Err(SinkError::Unavailable("down, as the test says".into()));
            }
            let marker = self.poison.lock().clone();
            let has_cursor = self.cursor.lock().is_some();
            let mut poison = Vec::new();
            let before = self.records.lock().len();
            for (index, record) in stretch.records.iter().enumerate() {
                let text = String::from_utf8_lossy(&record.value).into_owned();
                if marker.as_ref().is_some_and(|marker| text.contains(marker)) {
                    poison.push(Poison {
                        index,
                        reason: "too odd".into(),
                    });
                } else {
                    self.records.lock().push(record.clone());
                }
            }
            if has_cursor && !poison.is_empty() {
                self.records.lock().truncate(before);
                return Err(SinkError::Refused(poison));
            }
            let mut cursor = self.cursor.lock();
            if cursor.is_some() {
                *cursor = Some(Some(stretch.reached));
            }
            Ok(poison)
        })
    }
}

/// Kafka rules go to the test, by their topics; all others where they go.
struct TestDestinations {
    topics: Mutex<HashMap<String, Arc<Behaviour>>>,
    has_kafka: AtomicBool,
    rest: OfGateway,
}

impl Destinations for TestDestinations {
    fn sink(&self, rule: &Rule) -> Result<Arc<dyn Sink>, String> {
        match &rule.file.to {
            Destination::Kafka(kafka) => {
                let mut topics = self.topics.lock();
                let behaviour = topics.entry(kafka.topic.clone()).or_default();
                Ok(Arc::new(Arc::clone(behaviour)))
            }
            _ => self.rest.sink(rule),
        }
    }

    fn check(&self, rule: &Rule) -> Result<(), String> {
        match &rule.file.to {
            Destination::Kafka(_) if self.has_kafka.load(Ordering::SeqCst) => Ok(()),
            Destination::Kafka(_) => Err("no Kafka".into()),
            _ => self.rest.check(rule),
        }
    }
}

/// Of (device, time, points with values).
type TestRow<'a> = (&'a str, i64, &'a [(&'a str, Cell)]);

struct World {
    dir: tempfile::TempDir,
    options: Options,
    store: Store,
    registry: Arc<Registry>,
    rules: Arc<Rules>,
    destinations: Arc<TestDestinations>,
    scripts: Arc<Scripts>,
    clock: Clock,
    has_kafka: bool,
}

impl World {
    fn new() -> Self {
        Self::with(Options::default(), true)
    }

    fn with(options: Options, has_kafka: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::stopped(1_700_000_000_000);
        let scripts = Arc::new(crate::script::of_test());
        let topics = HashMap::new();
        let opened = open(dir.path(), &options, &clock, &scripts, topics, has_kafka);
        let (store, registry, rules, destinations) = opened;
        let world = Self {
            dir,
            options,
            store,
            registry,
            rules,
            destinations,
            scripts,
            clock,
            has_kafka,
        };
        world.apply_quietly(FARM);
        world
    }

    /// Ends as a crash would, as far as files tell: whatever was not written is lost.
    async fn restart(self) -> Self {
        let Self {
            dir,
            options,
            store,
            registry,
            rules,
            destinations,
            scripts,
            clock,
            has_kafka,
        } = self;
        rules.close().await;
        store.close();
        let topics = std::mem::take(&mut *destinations.topics.lock());
        drop((rules, registry, store, destinations));
        let opened = open(dir.path(), &options, &clock, &scripts, topics, has_kafka);
        let (store, registry, rules, destinations) = opened;
        Self {
            dir,
            options,
            store,
            registry,
            rules,
            destinations,
            scripts,
            clock,
            has_kafka,
        }
    }

    fn apply_quietly(&self, yaml: &str) {
        let documents = registry::read(yaml, Form::Yaml).unwrap();
        self.registry.apply(documents, Run::Commit).unwrap();
    }

    async fn apply(&self, yaml: &str) {
        self.apply_quietly(yaml);
        self.rules.agree_soon().await;
    }

    fn refusal(&self, yaml: &str) -> String {
        let documents = registry::read(yaml, Form::Yaml).map_err(registry::refused);
        match documents.and_then(|documents| self.registry.apply(documents, Run::Dry)) {
            Err(registry::Refused::Faults { faults, .. }) => faults[0].to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// What goes to a topic.
    fn topic(&self, topic: &str) -> Arc<Behaviour> {
        Arc::clone(
            self.destinations
                .topics
                .lock()
                .entry(topic.into())
                .or_default(),
        )
    }

    /// Commits a row of each device and time.
    fn put(&self, rows: &[TestRow<'_>]) {
        let mut builder = BatchBuilder::new();
        for (device, time_ms, cells) in rows {
            builder.row(&DeviceKey::new(device).unwrap(), *time_ms);
            for (point, cell) in *cells {
                let point = ElementName::new(point).unwrap();
                builder.cell(&point, ConflictPolicy::KeepLast, cell.clone(), NO_QUALITY);
            }
        }
        self.commit(Part::Points(builder.build()));
    }

    /// Commits a row with a value of P_avg.
    fn value(&self, device: &str, time_ms: i64, value: f64) {
        self.put(&[(device, time_ms, &[("P_avg", Cell::Double(value))])]);
    }

    fn commit(&self, part: Part) {
        let commit = Commit {
            origin: Origin {
                channel: ChannelName::new("scada").unwrap(),
                client: "client-1".into(),
                topic: "/sys/FARM/integration/measurepoint/post".into(),
                message_id: "1".into(),
                packet_id: None,
                policies: None,
                arrived_ms: self.clock.now_ms(),
            },
            product: ProductKey::new("FARM").unwrap(),
            parts: vec![part],
            redrive: None,
        };
        for outcome in self.store.commit(vec![commit]).unwrap() {
            outcome.unwrap();
        }
    }

    fn rule(&self, name: &str) -> Arc<Rule> {
        Arc::clone(self.registry.snapshot().rule(name).unwrap())
    }

    fn standing(&self, name: &str) -> Standing {
        match self.rules.phase(&self.rule(name)) {
            Phase::Running(standing) => *standing,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn letters(&self, name: &str) -> Vec<DeadLetter> {
        self.rules.letters(&self.rule(name), 0, 1_000).unwrap()
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn caught_up(&self, name: &str) {
        self.until("caught up", || self.standing(name).lag == 0)
            .await;
    }
}

type Opened = (Store, Arc<Registry>, Arc<Rules>, Arc<TestDestinations>);

fn open(
    dir: &Path,
    options: &Options,
    clock: &Clock,
    scripts: &Arc<Scripts>,
    topics: HashMap<String, Arc<Behaviour>>,
    has_kafka: bool,
) -> Opened {
    let (store, _) = Store::open(&dir.join("store"), Arc::new(RealDisk), options.clone()).unwrap();
    let stored = Arc::new(StoredPoints(store.clone()));
    let registry = Arc::new(Registry::open(dir, stored, clock.clone()).unwrap());
    let destinations = Arc::new(TestDestinations {
        topics: Mutex::new(topics),
        has_kafka: AtomicBool::new(has_kafka),
        rest: OfGateway {
            registry: Arc::clone(&registry),
            way: Arc::new(crate::store::Way::to(store.clone())),
            clock: clock.clone(),
            kafka: None,
        },
    });
    let setting = Setting {
        registry: Arc::clone(&registry),
        store: store.clone(),
        scripts: Arc::clone(scripts),
        destinations: Arc::clone(&destinations) as Arc<dyn Destinations>,
        organization: ObjectName::new("o1").unwrap(),
        clock: clock.clone(),
        pool: Pool::start("rules", 1, 16).unwrap(),
        runtime: Handle::current(),
        limits: limits::Rules {
            stride_bytes: 300,
            records_max: 3,
            save_ms: 0,
            pause_ms: 1,
            pause_ms_max: 5,
            ..limits::Rules::default()
        },
    };
    let rules = Rules::open(&dir.join("rules"), setting).unwrap();
    (store, registry, rules, destinations)
}

fn values(behaviour: &Behaviour) -> Vec<serde_json::Value> {
    let records = behaviour.records.lock();
    records
        .iter()
        .map(|record| serde_json::from_slice(&record.value).unwrap())
        .collect()
}

/// The value of P_avg of each message.
fn powers(behaviour: &Behaviour) -> Vec<f64> {
    let values = values(behaviour);
    values
        .iter()
        .map(|v| v["payload"][0]["measurepoints"]["P_avg"].as_f64().unwrap())
        .collect()
}

fn all(name: &str) -> String {
    format!("{{ kind: Rule, name: {name}, to: {{ kafka: {{ topic: {name} }} }} }}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_goes_out_in_order_of_commit_with_its_identity() {
    let world = World::new();
    world.apply(&all("all")).await;
    for number in 0..40 {
        let device = if number % 2 == 0 { "a" } else { "b" };
        world.value(device, number, number as f64);
    }
    world.caught_up("all").await;
    let sink = world.topic("all");
    assert_eq!(powers(&sink), (0..40).map(f64::from).collect::<Vec<_>>());
    let record = sink.records.lock()[3].clone();
    assert_eq!(record.key, "asset-b");
    let headers: BTreeMap<_, _> = record.headers.into_iter().collect();
    assert_eq!(headers[header::CHANNEL], "scada");
    assert_eq!(
        headers[header::RECEIPT],
        world.store.receipt(Sequence(4)).to_string()
    );
    assert_eq!(headers[header::SEQUENCE], "0");
    assert_eq!(headers[header::SCHEMA], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_fails_or_blocks_delays_its_own_rule_only() {
    let world = World::new();
    for name in ["fails", "blocks", "down", "good"] {
        world.apply(&all(name)).await;
    }
    world.topic("fails").fails_at.lock().extend([1, 2, 4]);
    world.topic("blocks").blocks.store(true, Ordering::SeqCst);
    world.topic("down").is_down.store(true, Ordering::SeqCst);
    for number in 0..20 {
        world.value("a", number, number as f64);
    }
    world.caught_up("good").await;
    world.caught_up("fails").await;
    let expected: Vec<f64> = (0..20).map(f64::from).collect();
    assert_eq!(powers(&world.topic("good")), expected);
    assert_eq!(powers(&world.topic("fails")), expected);
    assert_eq!(world.standing("blocks").cursor, 0);
    let down = world.standing("down");
    assert_eq!((down.cursor, down.lag), (0, 20));
    assert!(down.error.unwrap().reason.contains("as the test says"));
    assert!(world.rules.warnings()[0].contains("rule down delivers nothing"));
    world.topic("down").is_down.store(false, Ordering::SeqCst);
    world.caught_up("down").await;
    assert_eq!(powers(&world.topic("down")), expected);
    assert_eq!(world.standing("down").error, None);
    // A delivery that never ends does not hold the end up.
    world.restart().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_becomes_a_dead_letter_and_the_rest_goes_on() {
    let world = World::new();
    world.apply(&all("all")).await;
    *world.topic("all").poison.lock() = Some("13.0".into());
    for number in 10..16 {
        world.value("a", number, number as f64);
    }
    world.caught_up("all").await;
    assert_eq!(powers(&world.topic("all")), [10.0, 11.0, 12.0, 14.0, 15.0]);
    let letters = world.letters("all");
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (letter.cause.as_str(), letter.reason.as_str()),
        ("refused", "too odd")
    );
    assert_eq!(letter.receipt, world.store.receipt(Sequence(4)).to_string());
    assert_eq!(
        (letter.channel.as_str(), letter.asset_id.as_str()),
        ("scada", "asset-a")
    );
    assert!(letter.made.is_some());
    // Driven again in vain it stays, then it goes.
    let rule = world.rule("all");
    assert_eq!(world.rules.redrive(&rule, &Letters::All).unwrap(), 1);
    world
        .until("tried again", || world.letters("all")[0].attempts == 1)
        .await;
    *world.topic("all").poison.lock() = None;
    world
        .rules
        .redrive(&rule, &Letters::Ids(vec![letter.id]))
        .unwrap();
    world
        .until("delivered", || world.letters("all").is_empty())
        .await;
    assert_eq!(powers(&world.topic("all")).last(), Some(&13.0));
    let last = world.topic("all").records.lock().last().cloned().unwrap();
    let headers: BTreeMap<_, _> = last.headers.into_iter().collect();
    assert_eq!(headers[header::RECEIPT], letter.receipt.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_it_goes_on_where_it_was() {
    let mut world = World::new();
    world.apply(&all("all")).await;
    for round in 0..3 {
        for number in 0..10 {
            world.value("a", round * 10 + number, (round * 10 + number) as f64);
        }
        if round == 1 {
            world.topic("all").is_down.store(true, Ordering::SeqCst);
        } else {
            world.caught_up("all").await;
        }
        world = world.restart().await;
        world.topic("all").is_down.store(false, Ordering::SeqCst);
    }
    world.caught_up("all").await;
    let mut powers = powers(&world.topic("all"));
    powers.dedup();
    assert_eq!(powers, (0..30).map(f64::from).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cursor_of_a_destination_wins() {
    let mut world = World::new();
    *world.topic("once").cursor.lock() = Some(None);
    let rule =
        "{ kind: Rule, name: once, to: { kafka: { topic: once, guarantee: exactly-once } } }";
    world.apply(rule).await;
    for number in 0..10 {
        world.value("a", number, number as f64);
    }
    world.caught_up("once").await;
    // As if the place had not been written before the crash.
    let (path, uid) = (
        world.dir.path().join("rules"),
        world.rule("once").uid.clone(),
    );
    world = world.restart().await;
    world.rules.close().await;
    let mut drawer = Drawer::open(&path.join(format!("{uid}.db"))).unwrap();
    drawer
        .write(
            Place {
                reached: 2,
                ..Place::default()
            },
            None,
            &[],
            0,
        )
        .unwrap();
    drop(drawer);
    world = world.restart().await;
    world.value("a", 99, 99.0);
    world.caught_up("once").await;
    let expected: Vec<f64> = (0..10).map(f64::from).chain([99.0]).collect();
    assert_eq!(powers(&world.topic("once")), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_of_a_destination_that_keeps_the_cursor_is_put_aside_before_the_rest_goes() {
    let world = World::new();
    *world.topic("once").cursor.lock() = Some(None);
    *world.topic("once").poison.lock() = Some("13.0".into());
    let rule =
        "{ kind: Rule, name: once, to: { kafka: { topic: once, guarantee: exactly-once } } }";
    world.apply(rule).await;
    for number in 10..16 {
        world.value("a", number, number as f64);
    }
    world.caught_up("once").await;
    assert_eq!(powers(&world.topic("once")), [10.0, 11.0, 12.0, 14.0, 15.0]);
    assert_eq!(world.letters("once").len(), 1);
    world
        .rules
        .redrive(&world.rule("once"), &Letters::All)
        .unwrap();
    world
        .until("tried again", || world.letters("once")[0].attempts == 1)
        .await;
    *world.topic("once").poison.lock() = None;
    world
        .rules
        .redrive(&world.rule("once"), &Letters::All)
        .unwrap();
    world
        .until("delivered", || world.letters("once").is_empty())
        .await;
    assert_eq!(powers(&world.topic("once")).last(), Some(&13.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_is_fenced_stands_still_until_it_is_started_again() {
    let world = World::new();
    world.apply(&all("all")).await;
    world.topic("all").fenced.store(true, Ordering::SeqCst);
    world.value("a", 1, 1.0);
    world
        .until("fenced", || {
            world.standing("all").error.is_some_and(|e| e.fenced)
        })
        .await;
    let deliveries = world.topic("all").deliveries.load(Ordering::SeqCst);
    world.value("a", 2, 2.0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        world.topic("all").deliveries.load(Ordering::SeqCst),
        deliveries
    );
    world.topic("all").fenced.store(false, Ordering::SeqCst);
    for stopped in [true, false] {
        world.registry.set_rule_stopped("all", stopped).unwrap();
        world.rules.agree_soon().await;
    }
    world.caught_up("all").await;
    assert_eq!(powers(&world.topic("all")), [1.0, 2.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_rule_keeps_its_place_and_not_the_log() {
    let world = World::new();
    world.apply(&all("all")).await;
    world.value("a", 1, 1.0);
    world.caught_up("all").await;
    let name = cursor(&world.rule("all").uid);
    world.registry.set_rule_stopped("all", true).unwrap();
    world.rules.agree_soon().await;
    assert_eq!(world.rules.phase(&world.rule("all")), Phase::Stopped);
    assert_eq!(world.store.cursor(&name).unwrap(), None);
    world.value("a", 2, 2.0);
    world.registry.set_rule_stopped("all", false).unwrap();
    world.rules.agree_soon().await;
    world.caught_up("all").await;
    assert_eq!(powers(&world.topic("all")), [1.0, 2.0]);
    world
        .registry
        .delete(registry::Kind::Rule, "all", None)
        .unwrap();
    world.rules.agree_soon().await;
    assert_eq!(
        fs::read_dir(world.dir.path().join("rules"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_rules_are_made_once_and_idle_without_kafka() {
    let mut world = World::with(Options::default(), false);
    world.registry.make_default_rules().unwrap();
    world.rules.agree_soon().await;
    world.value("a", 1, 1.0);
    let rule = world.rule("default-points");
    assert_eq!(world.rules.phase(&rule), Phase::Idle("no Kafka".into()));
    assert_eq!(world.store.cursor(&cursor(&rule.uid)).unwrap(), None);
    world
        .registry
        .delete(registry::Kind::Rule, "default-events", None)
        .unwrap();
    world = world.restart().await;
    world.registry.make_default_rules().unwrap();
    assert!(world.registry.snapshot().rule("default-events").is_none());
    // Once there is Kafka, they begin at the oldest commit of the log.
    world.has_kafka = true;
    world = world.restart().await;
    world.value("a", 2, 2.0);
    world.caught_up("default-points").await;
    assert_eq!(
        powers(&world.topic("MEASURE_POINT_ORIGIN_OFFLINE_{org}")),
        [1.0, 2.0]
    );
    let record = world
        .topic("MEASURE_POINT_ORIGIN_OFFLINE_{org}")
        .records
        .lock()[0]
        .clone();
    assert_eq!(&*record.address, "MEASURE_POINT_ORIGIN_OFFLINE_o1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_matched_and_made_as_the_rule_says() {
    let world = World::new();
    world
        .apply(
            "
kind: Rule
name: made
from:
  channels: [scada]
  models: [turbine]
  devices: [farm/a]
  time: { from: '10', to: '100' }
  where: { state: { atLeast: 1, below: 3 } }
make:
  - scale: { P_avg: { factor: 0.001, offset: 1 } }
  - rename: { P_avg: power_mw }
  - set: { ratio: 'power_mw / Ws_avg' }
  - keep: 'power_mw > 1'
  - select: [power_mw, ratio]
to: { kafka: { topic: 'made-{productKey}', key: '{deviceKey}', headers: { unit: 'MW {channel}' } } }
",
        )
        .await;
    let row = |p: f64, ws: f64, state: i32| {
        [
            ("P_avg", Cell::Double(p)),
            ("Ws_avg", Cell::Double(ws)),
            ("state", Cell::Int(state)),
        ]
    };
    world.put(&[("a", 10, &row(2_000.0, 2.0, 1))]);
    world.put(&[("a", 9, &row(2_000.0, 2.0, 1))]);
    world.put(&[("a", 11, &row(2_000.0, 2.0, 3))]);
    world.put(&[("b", 12, &row(2_000.0, 2.0, 1))]);
    world.put(&[("a", 13, &row(-1.0, 2.0, 1))]);
    world.put(&[("a", 14, &row(3_000.0, 0.0, 2))]);
    world.put(&[(
        "a",
        15,
        &[("P_avg", Cell::Double(1.0)), ("state", Cell::Int(1))],
    )]);
    world.caught_up("made").await;
    let sink = world.topic("made-{productKey}");
    let made: Vec<_> = values(&sink)
        .iter()
        .map(|v| v["payload"][0]["measurepoints"].clone())
        .collect();
    assert_eq!(
        made,
        [
            serde_json::json!({ "power_mw": 3.0, "ratio": 1.5 }),
            serde_json::json!({ "power_mw": 1.001 }),
        ]
    );
    let record = sink.records.lock()[0].clone();
    assert_eq!(
        (&*record.address, &record.key[..]),
        ("made-FARM", b"a".as_slice())
    );
    assert_eq!(record.headers.last().unwrap().1, "MW scada");
    // Division by zero is infinite: no JSON, and so a dead letter with the row as it was stored.
    let letters = world.letters("made");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].cause, "make");
    assert!(
        letters[0].reason.contains("power_mw / Ws_avg"),
        "{}",
        letters[0].reason
    );
    let message = letters[0].message.as_ref().unwrap();
    assert_eq!(message["payload"][0]["measurepoints"]["P_avg"], 3_000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_matched_by_what_they_say() {
    let world = World::new();
    world
        .apply(
            "
kind: Rule
name: alarms
from: { type: events, events: [alarm], where: { code: { above: 10 } } }
make: [{ set: { text: \"'code ' + text\" } }]
to: { kafka: { topic: alarms } }
",
        )
        .await;
    for code in [5, 15] {
        world.commit(Part::Events(vec![Occurrence {
            device: DeviceKey::new("a").unwrap(),
            time_ms: code,
            event: ElementName::new("alarm").unwrap(),
            output: format!("{{\"code\":{code},\"text\":\"t{code}\"}}").into(),
        }]));
    }
    world.value("a", 1, 1.0);
    world.caught_up("alarms").await;
    let values = values(&world.topic("alarms"));
    assert_eq!(values.len(), 1);
    assert_eq!(
        values[0]["payload"][0]["output"],
        serde_json::json!({ "code": 15, "text": "code t15" })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calculated_points_are_stored_and_feed_only_who_asks_for_them() {
    let world = World::new();
    world
        .apply(
            "
kind: Rule
name: mw
from: { points: [P_avg] }
make: [{ set: { power_mw: 'P_avg / 1000', big: 'P_avg * 1' } }]
to: { calculated: { points: [power_mw, big] } }
",
        )
        .await;
    world.apply(&all("origin")).await;
    world
        .apply(
            "{ kind: Rule, name: cal, from: { calculated: only }, to: { kafka: { topic: cal } } }",
        )
        .await;
    for (time, value) in [(1, 1_000.0), (2, 2_000.0), (3, 0.5), (4, 4_000.0)] {
        world.value("a", time, value);
    }
    world.caught_up("mw").await;
    world
        .until("calculated", || values(&world.topic("cal")).len() == 3)
        .await;
    world.caught_up("origin").await;
    assert_eq!(
        powers(&world.topic("origin")),
        [1_000.0, 2_000.0, 0.5, 4_000.0]
    );
    let made = values(&world.topic("cal"));
    assert_eq!(
        made[1]["payload"][0]["measurepoints"],
        serde_json::json!({ "power_mw": 2.0, "big": 2_000 })
    );
    // 0.5 is no int: the whole row is a letter that says so.
    let letters = world.letters("mw");
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.contains("big"), "{}", letters[0].reason);
    let product = ProductKey::new("FARM").unwrap();
    world.store.flush_now().unwrap();
    assert_eq!(
        world
            .store
            .latest(&product, &[], &[ElementName::new("power_mw").unwrap()])
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_publishes_again_beside_what_is_new() {
    let world = World::new();
    world.apply(&all("all")).await;
    for number in 0..10_i64 {
        world.clock.set(1_700_000_000_000 + number * 1_000);
        world.value("a", number, number as f64);
    }
    world.caught_up("all").await;
    let rule = world.rule("all");
    let replayed = world
        .rules
        .replay(&rule, 1_700_000_003_000, Some(1_700_000_007_000));
    assert_eq!(replayed.unwrap(), (4, 7));
    world
        .until("replayed", || world.standing("all").replay.is_none())
        .await;
    let published = powers(&world.topic("all"));
    assert_eq!(published[10..], [3.0, 4.0, 5.0, 6.0]);
    let standing = world.standing("all");
    assert_eq!(
        (standing.cursor, standing.lag, standing.published),
        (10, 0, 14)
    );
    let nothing = world.rules.replay(&rule, 1_800_000_000_000, None);
    assert!(matches!(nothing, Err(AskError::NothingToReplay)));
}

/// A store whose log is trimmed as soon as it may be.
fn trimming(held_bytes: u64) -> Options {
    Options {
        memtable_bytes_max: 64 << 10,
        journal_file_bytes: 1 << 20,
        log_bytes_max: 1,
        log_held_bytes_max: held_bytes,
        may_let_go: |cursor| cursor.starts_with(CURSOR_PREFIX),
        quiet_ms: 50,
        ..Options::default()
    }
}

/// Commits until the log has lost its beginning.
async fn trim(world: &World) -> u64 {
    let row: Vec<(String, i64)> = (0..4_000).map(|n| ("b".to_owned(), n)).collect();
    for round in 0..60 {
        let mut builder = BatchBuilder::new();
        for (_, time) in &row {
            builder.row(&DeviceKey::new("b").unwrap(), round * 10_000 + *time);
            for point in ["P_avg", "Ws_avg", "ratio"] {
                let point = ElementName::new(point).unwrap();
                let value = Cell::Double(((round * 7_919 + time) as f64).sin() * 1e6);
                builder.cell(&point, ConflictPolicy::KeepLast, value, NO_QUALITY);
            }
        }
        world.commit(Part::Points(builder.build()));
    }
    let store = world.store.clone();
    let flushed = world.rules.setting.pool.run(move || store.flush_now());
    flushed.await.unwrap().unwrap();
    world
        .until("trimmed", || {
            world
                .store
                .stats()
                .oldest
                .is_some_and(|oldest| oldest.0 > 1)
        })
        .await;
    world.store.stats().oldest.unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_lags_too_far_is_let_go_and_counts_what_it_lost() {
    let world = World::with(trimming(1), true);
    world.apply(&all("all")).await;
    world.topic("all").is_down.store(true, Ordering::SeqCst);
    world.value("a", 1, 1.0);
    world
        .until("failing", || world.standing("all").error.is_some())
        .await;
    trim(&world).await;
    world.topic("all").is_down.store(false, Ordering::SeqCst);
    world.caught_up("all").await;
    let standing = world.standing("all");
    assert!(standing.skipped_commits > 0, "{standing:?}");
    let warned = world.rules.warnings().concat();
    assert!(warned.contains("rule all skipped"), "{warned}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_lost_is_replayed_out_of_stored_history() {
    let world = World::with(trimming(u64::MAX), true);
    world
        .apply(
            "{ kind: Rule, name: all, from: { devices: [farm/a] }, to: { kafka: { topic: all } } }",
        )
        .await;
    for number in 0..5 {
        world.value("a", number, number as f64);
    }
    world.caught_up("all").await;
    let oldest = trim(&world).await;
    assert!(oldest > 5, "{oldest}");
    world.caught_up("all").await;
    let before = powers(&world.topic("all")).len();
    world.rules.replay(&world.rule("all"), 0, None).unwrap();
    world
        .until("replayed", || world.standing("all").replay.is_none())
        .await;
    let again = powers(&world.topic("all"));
    assert_eq!(again[before..], [0.0, 1.0, 2.0, 3.0, 4.0]);
    let record = world.topic("all").records.lock().last().cloned().unwrap();
    let headers: BTreeMap<_, _> = record.headers.into_iter().collect();
    assert_eq!(headers[header::REPLAY], "segments");
    assert_eq!(
        headers[header::RECEIPT],
        world.store.receipt(Sequence(5)).to_string()
    );
    assert!(!headers.contains_key(header::SEQUENCE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_makes_no_sense_is_refused_with_where_and_how_to_mend_it() {
    let world = World::new();
    let rule = |body: &str| format!("kind: Rule\nname: r\n{body}");
    let kafka = "to: { kafka: { topic: t } }";
    for (body, reasons) in [
        (
            format!("from: {{ models: [none] }}\n{kafka}"),
            &["from.models", "none"][..],
        ),
        (
            format!("from: {{ products: [none] }}\n{kafka}"),
            &["from.products"],
        ),
        (
            format!("from: {{ channels: [none] }}\n{kafka}"),
            &["from.channels"],
        ),
        (
            format!("from: {{ devices: [none] }}\n{kafka}"),
            &["PRODUCT/NAME"],
        ),
        (
            format!("from: {{ points: [none] }}\n{kafka}"),
            &["from.points", "none"],
        ),
        (
            format!("from: {{ type: events, points: [P_avg] }}\n{kafka}"),
            &["from.points", "events"],
        ),
        (
            format!("from: {{ where: {{ none: {{ above: 1 }} }} }}\n{kafka}"),
            &["from.where", "none"],
        ),
        (
            format!("from: {{ where: {{ P_avg: {{}} }} }}\n{kafka}"),
            &["compared with nothing"],
        ),
        (
            format!("from: {{ quality: {{ min: 5, max: 2 }} }}\n{kafka}"),
            &["from.quality"],
        ),
        (
            format!("from: {{ time: {{ from: soon }} }}\n{kafka}"),
            &["from.time", "soon"],
        ),
        (
            format!("make: [{{ select: [none] }}]\n{kafka}"),
            &["make, step 1", "none"],
        ),
        (
            format!(
                "make: [{{ select: [P_avg] }}, {{ scale: {{ Ws_avg: {{ factor: 2 }} }} }}]\n{kafka}"
            ),
            &["step 2", "Ws_avg"],
        ),
        (
            format!("make: [{{ set: {{ x: 'P_avg +' }} }}]\n{kafka}"),
            &["step 1", "P_avg +"],
        ),
        (
            format!("make: [{{ set: {{ x: 'nothing + 1' }} }}]\n{kafka}"),
            &["nothing"],
        ),
        (
            format!("make: [{{ keep: 'shell(P_avg)' }}]\n{kafka}"),
            &["function shell"],
        ),
        (
            format!("make: [{{ script: 'x' }}, {{ select: [P_avg] }}]\n{kafka}"),
            &["last step"],
        ),
        (
            "to: { kafka: { topic: 'a b' } }".to_owned(),
            &["to.kafka.topic"],
        ),
        (
            "to: { kafka: { topic: '{orgg}' } }".to_owned(),
            &["orgg", "known are org"],
        ),
        (
            "to: { webhook: { url: 'ftp://x' } }".to_owned(),
            &["to.webhook.url"],
        ),
        (
            "to: { calculated: { points: [P_avg] } }".to_owned(),
            &["nothing is calculated"],
        ),
        (
            "make: [{ set: { q: 'P_avg' } }]\nto: { calculated: { points: [q] } }".to_owned(),
            &["does not declare q"],
        ),
        (
            "make: [{ scale: { P_avg: { factor: 2 } } }]\nto: { calculated: { points: [P_avg] } }"
                .to_owned(),
            &["made by no step"],
        ),
    ] {
        let refusal = world.refusal(&rule(&body));
        for reason in reasons {
            assert!(refusal.contains(reason), "{body}\n→ {refusal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_feed_each_other_are_refused() {
    let world = World::new();
    let rule = |name: &str, from: &str, to: &str| {
        format!(
            "kind: Rule\nname: {name}\nfrom: {{ points: [{from}], calculated: include }}\n\
             make: [{{ set: {{ {to}: '{from} + 1' }} }}]\nto: {{ calculated: {{ points: [{to}] }} }}\n"
        )
    };
    world.apply(&rule("one", "P_avg", "power_mw")).await;
    world.apply(&rule("two", "power_mw", "ratio")).await;
    let refusal = world.refusal(&rule("three", "ratio", "P_avg"));
    assert!(refusal.contains("one → two → three → one"), "{refusal}");
    let itself = "kind: Rule\nname: self\nfrom: { calculated: include }\n\
                  make: [{ set: { ratio: 'P_avg + 1' } }]\nto: { calculated: { points: [ratio] } }\n";
    let refusal = world.refusal(itself);
    assert!(refusal.contains("self → self"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_says_what_would_go_where_and_sends_nothing() {
    let world = World::new();
    world.apply("{ kind: Rule, name: r, make: [{ scale: { P_avg: { factor: 2 } } }], to: { kafka: { topic: 't-{org}' } } }").await;
    let envelope = serde_json::json!({ "envelope": { "product": "farm", "request": {
        "id": "1", "version": "1.0", "method": "integration.measurepoint.post",
        "params": [{ "deviceKey": "a", "time": 5, "measurepoints": { "P_avg": 4 } }] } } });
    let sample: Sample = serde_json::from_value(envelope).unwrap();
    let trial = world.rules.try_out(world.rule("r"), sample).await.unwrap();
    assert_eq!((trial.rows, trial.matched), (1, 1));
    assert_eq!(trial.records[0].address, "t-o1");
    assert_eq!(
        trial.records[0].value["payload"][0]["measurepoints"]["P_avg"],
        8.0
    );
    let message = trial.records[0].value.clone();
    let sample: Sample = serde_json::from_value(serde_json::json!({ "message": message })).unwrap();
    let trial = world.rules.try_out(world.rule("r"), sample).await.unwrap();
    assert_eq!(
        trial.records[0].value["payload"][0]["measurepoints"]["P_avg"],
        16.0
    );
    world.value("a", 7, 1.5);
    world.caught_up("r").await;
    let sample = serde_json::json!({ "history": { "device": "asset-a" } });
    let trial = world
        .rules
        .try_out(world.rule("r"), serde_json::from_value(sample).unwrap())
        .await;
    assert_eq!(trial.unwrap().records[0].value["time"], 7);
    assert_eq!(values(&world.topic("t-{org}")).len(), 1);
}
