//! Runs over a real store and registry, into a folder.

mod loss;

use std::fs;

use backtide_model::{
    AttributeValue, BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName,
    NO_QUALITY, Occurrence, ProductKey, Storage,
};
use backtide_store::{Commit, Options, Origin, Part, Redrive, disk::RealDisk};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::registry::{ArchiveOf, Form, Run, StoredTypes, read};

const FARM: &str = include_str!("../registry/farm.yaml");
const NOW_MS: i64 = 1_700_000_000_000;

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
    archives: Arc<Archives>,
    closing: CancellationToken,
}

impl World {
    fn new(archive: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::stopped(NOW_MS);
        let registry = Registry::open(dir.path(), Arc::new(NothingStored), clock.clone()).unwrap();
        let options = Options::default();
        let store = Store::open(&dir.path().join("store"), Arc::new(RealDisk), options);
        let (registry, store) = (Arc::new(registry), store.unwrap().0);
        let closing = CancellationToken::new();
        let archives = opened(&dir, &registry, &store, &closing);
        let world = Self {
            dir,
            registry,
            store,
            archives,
            closing,
        };
        world.apply(FARM);
        world.apply(archive);
        world
    }

    fn apply(&self, yaml: &str) {
        let documents = read(yaml, Form::Yaml).unwrap();
        self.registry.apply(documents, Run::Commit).unwrap();
    }

    /// Stores a value of P_avg at each moment.
    fn put(&self, times: &[i64], value: f64) {
        self.commit(Self::points(times, value));
    }

    fn points(times: &[i64], value: f64) -> Part {
        let mut builder = BatchBuilder::new();
        for time_ms in times {
            builder.row(&DeviceKey::new("R80711").unwrap(), *time_ms);
            let point = ElementName::new("P_avg").unwrap();
            builder.cell(
                &point,
                ConflictPolicy::KeepLast,
                Cell::Double(value),
                NO_QUALITY,
            );
        }
        Part::Points(builder.build())
    }

    /// Tells of an event at each moment.
    fn happen(&self, times: &[i64], output: &str) {
        let event = |time_ms: &i64| Occurrence {
            device: DeviceKey::new("R80711").unwrap(),
            time_ms: *time_ms,
            event: ElementName::new("fault").unwrap(),
            output: output.into(),
        };
        self.commit(Part::Events(times.iter().map(event).collect()));
    }

    fn say(&self, value: &str) {
        self.commit(Part::Attributes(vec![AttributeValue {
            device: DeviceKey::new("R80711").unwrap(),
            attribute: ElementName::new("serial").unwrap(),
            value: value.into(),
        }]));
    }

    fn commit(&self, part: Part) {
        self.commit_as(part, None);
    }

    fn commit_as(&self, part: Part, redrive: Option<Redrive>) {
        let commit = Commit {
            origin: Origin {
                channel: ChannelName::new("scada-history").unwrap(),
                client: "client".into(),
                topic: "/sys/LHBfarm1/integration/measurepoint/post".into(),
                message_id: "\"1\"".into(),
                packet_id: None,
                policies: None,
                arrived_ms: NOW_MS,
            },
            product: ProductKey::new("LHBfarm1").unwrap(),
            parts: vec![part],
            redrive,
        };
        for outcome in self.store.commit(vec![commit]).unwrap() {
            outcome.unwrap();
        }
    }

    /// Half of a day is too old from now on: it begins at the moment that is given back.
    fn keep_ten_days(&self) -> i64 {
        self.apply("kind: Policy\nname: short\nstorage: { keepDays: 10 }\n");
        let snapshot = self.registry.snapshot();
        let storage = snapshot.storage("wind-farm").unwrap();
        let floor =
            crate::retention::whole_from(&self.store, storage, ArchiveOf::Points, NOW_MS).unwrap();
        let keep = crate::retention::keep(&self.store, storage, NOW_MS).unwrap();
        let keeps = [(ProductKey::new("LHBfarm1").unwrap(), keep)];
        self.store.set_keeps(keeps.into());
        floor.time_ms
    }

    fn archive(&self) -> Arc<Archive> {
        Arc::clone(self.registry.snapshot().archive("lake").unwrap())
    }

    fn run(&self) -> RunRecord {
        self.archives.run(&self.archive());
        self.archives
            .standing(&self.archive())
            .unwrap()
            .last_run
            .unwrap()
    }

    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join("archive/out").join(path)).unwrap()
    }

    /// Every file but the manifest, by its path.
    fn files(&self) -> Vec<String> {
        let root = self.dir.path().join("archive/out");
        let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push(path.strip_prefix(&root).unwrap().display().to_string()),
                }
            }
        }
        files.retain(|file| file != "manifest.json");
        files.sort();
        files
    }

    fn manifest(&self) -> Value {
        serde_json::from_str(&self.file("manifest.json")).unwrap()
    }
}

fn opened(
    dir: &TempDir,
    registry: &Arc<Registry>,
    store: &Store,
    closing: &CancellationToken,
) -> Arc<Archives> {
    let setting = Setting {
        registry: Arc::clone(registry),
        store: store.clone(),
        clock: Clock::stopped(NOW_MS),
        runtime: Handle::current(),
        root: dir.path().join("archive"),
        closing: closing.clone(),
    };
    Arc::new(Archives::open(&dir.path().join("archives.db"), setting).unwrap())
}

const CSV: &str = "kind: Archive\nname: lake\nformat: csv\nto: { folder: out }\n";
const DAY_16000: &str = "product=LHBfarm1/date=2013-10-22/part-0000.csv";
const DAY_16001: &str = "product=LHBfarm1/date=2013-10-23/part-0000.csv";

fn at(day: i64, ms: i64) -> i64 {
    day * DAY_MS + ms
}

#[tokio::test(flavor = "multi_thread")]
async fn every_day_is_written_once_and_again_only_when_something_of_it_changes() {
    let world = World::new(CSV);
    // What is stored before the log is looked through is found too.
    world.put(&[at(16_000, 0), at(16_000, 1_000), at(16_001, 0)], 1.0);
    let run = world.run();
    assert_eq!(
        (run.state.as_str(), run.days, run.files, run.rows),
        ("complete", 2, 2, 3)
    );
    assert_eq!(world.files(), [DAY_16000, DAY_16001]);
    let text = "deviceKey,time,P_avg,P_avg.quality,Ws_avg,Ws_avg.quality,state,state.quality\n\
                R80711,2013-10-22T00:00:00.000Z,1,,,,,\nR80711,2013-10-22T00:00:01.000Z,1,,,,,\n";
    assert_eq!(world.file(DAY_16000), text.replace(",1,,,,,", ",1.0,,,,,"));
    assert_eq!(world.run().files, 0);
    // A correction and a late row: that day alone is another.
    world.put(&[at(16_000, 0), at(16_000, 500)], 2.0);
    assert_eq!(world.archives.plan(&world.archive()).unwrap().0, 1);
    let run = world.run();
    assert_eq!((run.files, run.rows), (1, 3));
    assert_eq!(world.files(), [DAY_16000, DAY_16001]);
    assert_eq!(world.file(DAY_16000).matches(",2.0,").count(), 2);
    let manifest = world.manifest();
    assert_eq!(
        (&manifest["files"], &manifest["rows"]),
        (&2.into(), &4.into())
    );
    let listed = manifest["list"].as_array().unwrap();
    let paths: Vec<&str> = listed
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, [DAY_16000, DAY_16001]);
    for file in listed {
        use sha2::{Digest, Sha256};
        let text = world.file(file["path"].as_str().unwrap());
        assert_eq!(file["sha256"], hex::encode(Sha256::digest(&text)));
        assert_eq!(file["bytes"], text.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_goes_on_and_ends_with_the_same_files() {
    let world = World::new(CSV);
    let times: Vec<i64> = (0..400).map(|day| at(15_000 + day, 7)).collect();
    world.put(&times, 1.0);
    world.archives.catch_up().unwrap();
    world.closing.cancel();
    let run = world.run();
    assert_eq!(run.state, "interrupted");
    // As after a start: the file is opened anew, and the run is due by itself.
    let archives = opened(
        &world.dir,
        &world.registry,
        &world.store,
        &CancellationToken::new(),
    );
    assert_eq!(archives.due().unwrap().name.as_str(), "lake");
    archives.run(&world.archive());
    assert!(archives.due().is_none());
    assert_eq!(world.files().len(), 400);
    assert_eq!(world.manifest()["rows"], 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_takes_of_a_day_stays_in_its_file_and_what_is_new_goes_into_a_part() {
    let world = World::new(CSV);
    let today = NOW_MS.div_euclid(DAY_MS);
    let (early, late) = (at(today - 10, 1_000), at(today - 10, DAY_MS - 1_000));
    world.put(&[early], 1.0);
    assert_eq!(world.run().rows, 1);
    let floor_ms = world.keep_ten_days();
    assert!(early < floor_ms && floor_ms < late);
    world.put(&[late], 2.0);
    assert_eq!(world.run().rows, 1);
    let files = world.files();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files[0].ends_with("part-0000.csv") && files[1].ends_with("part-0001.csv"));
    assert!(world.file(&files[0]).contains(",1.0,") && world.file(&files[1]).contains(",2.0,"));
    assert_eq!(world.run().files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_files_by_point_have_a_folder_for_each_point() {
    let world = World::new(
        "kind: Archive\nname: lake\nformat: csv\nform: long\nbyPoint: true\nto: { folder: out }\n",
    );
    world.put(&[at(16_000, 0)], 1.5);
    world.run();
    let path = "product=LHBfarm1/point=P_avg/date=2013-10-22/part-0000.csv";
    assert_eq!(world.files(), [path]);
    assert_eq!(
        world.file(path),
        "deviceKey,time,point,value,quality\nR80711,2013-10-22T00:00:00.000Z,P_avg,1.5,\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_to_is_told_and_nothing_is_missed() {
    let world = World::new(CSV);
    world.put(&[at(16_000, 0)], 1.0);
    let root = world.dir.path().join("archive");
    fs::write(&root, "no folder").unwrap();
    let run = world.run();
    assert_eq!(run.state, "failed");
    assert!(
        run.error.unwrap().contains("archive/out"),
        "the error names the place"
    );
    fs::remove_file(&root).unwrap();
    assert_eq!(world.run().state, "complete");
    assert_eq!(world.files(), [DAY_16000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_held_only_while_there_is_an_archive() {
    let world = World::new(CSV);
    world.put(&[at(16_000, 0)], 1.0);
    world.archives.look_at_log().unwrap();
    assert_eq!(
        world.store.cursor(CURSOR).unwrap(),
        Some(world.store.durable())
    );
    world
        .registry
        .delete(crate::registry::Kind::Archive, "lake", None)
        .unwrap();
    world.archives.look_at_log().unwrap();
    assert_eq!(world.store.cursor(CURSOR).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_listed_by_product_and_day_page_by_page() {
    let world = World::new(CSV);
    world.put(&[at(16_000, 0), at(16_001, 0), at(16_002, 0)], 1.0);
    world.run();
    let archive = world.registry.current().archive("lake").unwrap().clone();
    let asked = FilesAsked {
        after: (String::new(), i64::MIN, String::new()),
        limit: 2,
        ..FilesAsked::default()
    };
    let listed = |asked: &FilesAsked| world.archives.files(&archive, asked).unwrap();
    let first = listed(&asked);
    assert_eq!(first.len(), 2);
    assert_eq!(first[0].path, DAY_16000);
    let rest = listed(&FilesAsked {
        after: first[1].key(),
        ..asked.clone()
    });
    assert_eq!(rest.len(), 1);
    let of_day = FilesAsked {
        day: Some(16_001),
        ..asked.clone()
    };
    assert_eq!(listed(&of_day), first[1..]);
    let of_other = FilesAsked {
        product: Some("other".to_owned()),
        ..asked
    };
    assert!(listed(&of_other).is_empty());
}

fn csv_of(of: &str) -> String {
    CSV.replace("format", &format!("of: {of}\nformat"))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_written_by_day_and_again_only_when_one_comes() {
    let world = World::new(&csv_of("events"));
    world.put(&[at(16_000, 0)], 1.0);
    world.happen(&[at(16_000, 7), at(16_001, 0)], "{\"code\":1}");
    let run = world.run();
    assert_eq!((run.state.as_str(), run.days, run.rows), ("complete", 2, 2));
    assert_eq!(world.files(), [DAY_16000, DAY_16001]);
    assert_eq!(
        world.file(DAY_16000),
        "deviceKey,time,event,output,channel,arrived\n\
         R80711,2013-10-22T00:00:00.007Z,fault,\"{\"\"code\"\":1}\",scada-history,2023-11-14T22:13:20.000Z\n"
    );
    // Points are not its matter.
    world.put(&[at(16_002, 0)], 1.0);
    assert_eq!(world.archives.plan(&world.archive()).unwrap().0, 0);
    world.happen(&[at(16_001, 1)], "{}");
    let run = world.run();
    assert_eq!((run.files, run.rows), (1, 2));
    assert_eq!(world.manifest()["of"], "events");
    assert_eq!(world.manifest()["rows"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_one_file_of_every_value_that_they_had() {
    let world = World::new(&csv_of("attributes"));
    assert_eq!(world.run().files, 0);
    world.say("\"A\"");
    world.say("\"B\"");
    assert_eq!(world.run().rows, 2);
    let path = "product=LHBfarm1/part-0000.csv";
    assert_eq!(world.files(), [path]);
    let text = world.file(path);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "deviceKey,time,attribute,value,current,confirmed,channel"
    );
    assert!(lines[1].contains(",serial,\"\"\"A\"\"\",false,"), "{text}");
    assert!(lines[2].contains(",serial,\"\"\"B\"\"\",true,"), "{text}");
    assert_eq!(world.manifest()["list"][0]["date"], "whole");
    assert_eq!(world.run().files, 0);
    world.say("\"C\"");
    assert_eq!((world.run().rows, world.files().len()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_kind_was_wanted_is_found_when_it_is() {
    let world = World::new(CSV);
    world.happen(&[at(16_000, 7)], "{}");
    world.put(&[at(16_000, 0)], 1.0);
    world.run();
    world.apply(
        &csv_of("events")
            .replace("name: lake", "name: pond")
            .replace("out", "pond"),
    );
    world.happen(&[at(16_003, 7)], "{}");
    world.archives.look_at_log().unwrap();
    let pond = Arc::clone(world.registry.snapshot().archive("pond").unwrap());
    assert_eq!(world.archives.plan(&pond).unwrap().0, 2);
}
