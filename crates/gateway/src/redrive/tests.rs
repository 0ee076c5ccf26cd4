//! Jobs over a real store and a real quarantine.

use std::collections::BTreeSet;

use backtide_model::{ElementName, ProductKey, Storage};
use backtide_store::{Commit, Options, Origin, Part, Refused, RefusedItem, Store, disk::RealDisk};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    channel_log::Log,
    clock::Clock,
    quarantine::Bounds,
    recorder::Recorder,
    registry::{Form, Registry, Run, StoredTypes, read},
};

const FARM: &str = include_str!("../registry/farm.yaml");
const LATE: &str = "kind: Device\nname: late\nproduct: wind-farm\nkey: late\n";

struct NothingStored;

impl StoredTypes for NothingStored {
    fn stored_as(&self, _: &ProductKey, _: &ElementName) -> Option<Storage> {
        None
    }
}

struct World {
    dir: TempDir,
    registry: Arc<Registry>,
    store: Store,
    quarantine: Arc<Quarantine>,
    log: Arc<Log>,
    redriver: Arc<Redriver>,
    closing: CancellationToken,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::stopped(1_700_000_000_000);
        let registry = Registry::open(dir.path(), Arc::new(NothingStored), clock.clone()).unwrap();
        let registry = Arc::new(registry);
        let (store, _) = Store::open(
            &dir.path().join("store"),
            Arc::new(RealDisk),
            Options::default(),
        )
        .unwrap();
        let path = dir.path().join("quarantine.db");
        let quarantine = Quarantine::open(&path, Bounds::default(), store.clone()).unwrap();
        let quarantine = Arc::new(quarantine);
        let bounds = crate::channel_log::Bounds::default();
        let log = Arc::new(Log::open(&dir.path().join("channel-log.db"), bounds).unwrap());
        let redriver = redriver(dir.path(), &registry, &store, &quarantine, &log, &clock);
        let world = Self {
            dir,
            registry,
            store,
            quarantine,
            log,
            redriver,
            closing: CancellationToken::new(),
        };
        world.apply(FARM);
        world
    }

    fn apply(&self, yaml: &str) {
        let documents = read(yaml, Form::Yaml).unwrap();
        self.registry.apply(documents, Run::Commit).unwrap();
    }

    /// A message of one value that was refused since its device was unknown.
    fn refuse(&self, device: &str, time_ms: i64, code: Code) {
        let payload = format!(
            r#"{{"id":"1","version":"1.0","method":"integration.measurepoint.post","params":[{{"deviceKey":"{device}","time":{time_ms},"measurepoints":{{"P_avg":1.5}}}}]}}"#
        );
        let item = RefusedItem {
            index: Some(0),
            device: Some(device.into()),
            point: None,
            code,
            message: "refused".into(),
            script_version: None,
        };
        let refused = Refused {
            code,
            payload_bytes: 1,
            payload_sha256: [0; 32],
            raw: payload.into_bytes().into(),
            items: vec![item],
            more: 0,
        };
        let commit = Commit {
            origin: Origin {
                channel: ChannelName::new("scada-history").unwrap(),
                client: "client".into(),
                topic: "/sys/LHBfarm1/integration/measurepoint/post".into(),
                message_id: "\"1\"".into(),
                packet_id: None,
                policies: None,
                arrived_ms: time_ms,
            },
            product: ProductKey::new("LHBfarm1").unwrap(),
            parts: vec![Part::Refused(refused)],
            redrive: None,
        };
        for outcome in self.store.commit(vec![commit]).unwrap() {
            outcome.unwrap();
        }
    }

    fn run(&self) -> JoinHandle<()> {
        tokio::spawn(Arc::clone(&self.redriver).run(self.closing.clone()))
    }

    async fn ended(&self, id: i64) -> Job {
        loop {
            let job = self.redriver.job(id).unwrap().unwrap();
            if job.state != State::Running {
                return job;
            }
            tokio::task::yield_now().await;
        }
    }

    fn entries(&self) -> u64 {
        self.quarantine.count(&Filter::default()).unwrap().0
    }
}

fn redriver(
    dir: &Path,
    registry: &Arc<Registry>,
    store: &Store,
    quarantine: &Arc<Quarantine>,
    log: &Arc<Log>,
    clock: &Clock,
) -> Arc<Redriver> {
    let bounds = crate::recorder::Bounds::default();
    let recorder = Arc::new(Recorder::open(&dir.join("recorder.db"), bounds).unwrap());
    let ingest = ingest_of_test(registry, store, quarantine, log, &recorder, clock);
    of_test(dir, ingest)
}

#[tokio::test]
async fn a_job_stores_what_passes_now_and_leaves_the_rest_with_an_attempt_more() {
    let world = World::new();
    for n in 0..150 {
        world.refuse("late", n, Code::UnknownDevice);
    }
    world.refuse("unknown", 0, Code::UnknownDevice);
    world.apply(LATE);
    let running = world.run();
    let job = world.redriver.begin(&Filter::default(), None).unwrap();
    assert_eq!((job.entries, job.state), (151, State::Running));
    let job = world.ended(job.id).await;
    assert_eq!((job.counts.stored, job.counts.refused), (150, 1));
    assert_eq!(world.entries(), 1);
    let left = world.quarantine.list(&Filter::default(), Page::first(9));
    assert_eq!(left.unwrap().found[0].attempts, 1);
    let code = Some(Code::UnknownDevice.number());
    let filter = Filter {
        code,
        device: Some("late".into()),
        ..Filter::default()
    };
    let nothing = world.redriver.begin(&filter, None);
    assert!(matches!(nothing, Err(RedriveError::NothingFits)));
    world.closing.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_job_that_was_cut_off_goes_on_with_the_next_redriver() {
    let world = World::new();
    for n in 0..20 {
        world.refuse("late", n, Code::UnknownDevice);
    }
    world.apply(LATE);
    let job = world.redriver.begin(&Filter::default(), None).unwrap();
    assert_eq!(
        world.redriver.job(job.id).unwrap().unwrap().counts.tried(),
        0
    );
    let clock = Clock::stopped(0);
    let World {
        dir,
        registry,
        store,
        quarantine,
        log,
        ..
    } = &world;
    let next = redriver(dir.path(), registry, store, quarantine, log, &clock);
    let running = tokio::spawn(Arc::clone(&next).run(world.closing.clone()));
    assert_eq!(world.ended(job.id).await.counts.stored, 20);
    assert_eq!(world.entries(), 0);
    world.closing.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_cancelled_job_ends_and_the_next_has_its_turn() {
    let world = World::new();
    for n in 0..30 {
        world.refuse("late", n, Code::UnknownDevice);
    }
    world.apply(LATE);
    let slow = world.redriver.begin(&Filter::default(), Some(1)).unwrap();
    let next = world.redriver.begin(&Filter::default(), None).unwrap();
    let running = world.run();
    world.redriver.cancel(slow.id).unwrap();
    assert_eq!(world.ended(slow.id).await.state, State::Cancelled);
    assert_eq!(world.ended(next.id).await.state, State::Done);
    assert_eq!(world.entries(), 0);
    let cancelled_again = world.redriver.cancel(next.id).unwrap().unwrap();
    assert_eq!(cancelled_again.state, State::Done);
    world.closing.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_a_declaration_cures_is_told_by_cause_and_a_dry_run_changes_nothing() {
    let world = World::new();
    for n in 0..700 {
        world.refuse("late", n, Code::UnknownDevice);
    }
    world.refuse("other", 0, Code::UnknownDevice);
    world.refuse("late", 0, Code::TooLarge);
    let device = Declared::Device("LHBfarm1".into(), "late".into());
    let declared = BTreeSet::from([device]);
    assert_eq!(world.redriver.cured_by(&declared).unwrap(), []);
    world.apply(LATE);
    let cures = world.redriver.cured_by(&declared).unwrap();
    let [cure] = &cures[..] else {
        panic!("one cause is cured: {cures:?}");
    };
    assert_eq!((cure.would_cure, cure.cause.code), (700, 1257));
    assert!(cure.tried < 700, "not all were tried");
    let all = world.redriver.cures(&Filter::default(), 10).unwrap();
    let advised: Vec<(u64, bool)> = all
        .iter()
        .map(|cure| (cure.would_cure, cure.advice.contains("redrive --cause")))
        .collect();
    assert_eq!(advised, [(700, true), (0, false), (0, false)]);
    assert_eq!(world.entries(), 702);
}
