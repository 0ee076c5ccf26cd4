//! The registry against its promises: all or none, the same after a restart, nothing lost.

use std::{collections::BTreeMap, time::Duration};

use backtide_model::Credentials;
use proptest::prelude::*;

use super::{
    records::{Change, RecordsError},
    *,
};

pub(super) const FARM: &str = include_str!("farm.yaml");

/// Stored types as a test says.
#[derive(Default)]
struct Stored(Mutex<HashMap<(String, String), Storage>>);

impl StoredTypes for Stored {
    fn stored_as(&self, product: &ProductKey, point: &ElementName) -> Option<Storage> {
        self.0
            .lock()
            .get(&(product.to_string(), point.to_string()))
            .copied()
    }
}

pub(super) struct World {
    dir: tempfile::TempDir,
    clock: Clock,
    stored: Arc<Stored>,
    pub(super) registry: Registry,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, stored) = (Clock::stopped(1_000), Arc::new(Stored::default()));
        let registry = Registry::open(dir.path(), stored.clone(), clock.clone()).unwrap();
        Self {
            dir,
            clock,
            stored,
            registry,
        }
    }

    pub(super) fn with_farm() -> Self {
        let world = Self::new();
        world.apply(FARM).unwrap();
        world
    }

    pub(super) fn restart(self) -> Self {
        let Self {
            dir,
            clock,
            stored,
            registry,
        } = self;
        drop(registry);
        let registry = Registry::open(dir.path(), stored.clone(), clock.clone()).unwrap();
        Self {
            dir,
            clock,
            stored,
            registry,
        }
    }

    pub(super) fn apply(&self, yaml: &str) -> Result<Vec<Applied>, Refused> {
        self.run(yaml, Run::Commit)
    }

    fn run(&self, yaml: &str, run: Run) -> Result<Vec<Applied>, Refused> {
        self.registry
            .apply(read(yaml, Form::Yaml).map_err(refused)?, run)
    }

    /// Everything declared, as it would be applied.
    fn written(&self) -> Vec<String> {
        let s = self.registry.snapshot();
        let mut all = Vec::new();
        all.extend(
            s.models_after(None)
                .map(|m| written(Kind::Model, m.name.as_str(), &*m.model)),
        );
        all.extend(
            s.products_after(None)
                .map(|p| written(Kind::Product, p.name.as_str(), &p.file())),
        );
        all.extend(
            s.devices_after(None)
                .map(|d| written(Kind::Device, d.name.as_str(), &d.file())),
        );
        all.extend(
            s.channels_after(None)
                .map(|c| written(Kind::Channel, c.name.as_str(), &c.file())),
        );
        all
    }
}

fn effects(applied: &[Applied]) -> Vec<Effect> {
    applied.iter().map(|applied| applied.effect).collect()
}

pub(super) fn message(refused: Result<Vec<Applied>, Refused>) -> String {
    match refused {
        Err(Refused::Faults { faults, .. }) => {
            let lines: Vec<_> = faults
                .iter()
                .map(|f| format!("{}:{}: {f}", f.place.document, f.place.line))
                .collect();
            lines.join("\n")
        }
        Err(other) => other.to_string(),
        Ok(applied) => panic!("{applied:?} was applied"),
    }
}

#[test]
fn a_farm_is_created_once_and_unchanged_after_that() {
    let world = World::new();
    assert_eq!(effects(&world.apply(FARM).unwrap()), [Effect::Created; 4]);
    let version = world.registry.current().version;
    assert_eq!(effects(&world.apply(FARM).unwrap()), [Effect::Unchanged; 4]);
    assert_eq!(world.registry.current().version, version);
    let longer = FARM.replace("Europe/Paris", "Europe/London");
    let applied = world.apply(&longer).unwrap();
    let changed: Vec<_> = applied
        .iter()
        .filter(|a| a.effect == Effect::Changed)
        .collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(
        (changed[0].kind, changed[0].name.as_str()),
        (Kind::Device, "R80711")
    );
}

#[test]
fn documents_stand_in_any_order_and_are_answered_in_theirs() {
    let world = World::new();
    let reversed: Vec<_> = FARM
        .split("---\n")
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    let applied = world.apply(&reversed.join("\n---\n")).unwrap();
    assert_eq!(applied[0].kind, Kind::Channel);
    assert_eq!(effects(&applied), [Effect::Created; 4]);
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let world = World::new();
    assert_eq!(
        effects(&world.run(FARM, Run::Dry).unwrap()),
        [Effect::Created; 4]
    );
    assert!(world.written().is_empty());
    assert!(world.restart().written().is_empty());
}

#[test]
fn one_fault_keeps_all_of_it_out() {
    let world = World::new();
    let text = format!("{FARM}---\nkind: Device\nname: lost\nproduct: nowhere\n");
    let line = FARM.lines().count() + 2;
    assert_eq!(
        message(world.apply(&text)),
        format!("5:{line}: device lost: product nowhere is not declared")
    );
    assert!(world.written().is_empty());
}

#[test]
fn everything_is_there_after_a_restart() {
    let world = World::with_farm();
    world.registry.set_paused("scada-history", true).unwrap();
    let (written, secret) = (world.written(), secret_of(&world));
    let world = world.restart();
    assert_eq!(world.written(), written);
    assert_eq!(secret_of(&world), secret);
    assert!(
        world
            .registry
            .current()
            .channel("scada-history")
            .unwrap()
            .paused
    );
    assert_eq!(effects(&world.apply(FARM).unwrap()), [Effect::Unchanged; 4]);
}

fn secret_of(world: &World) -> String {
    world
        .registry
        .current()
        .channel("scada-history")
        .unwrap()
        .secret()
        .text()
        .to_owned()
}

#[test]
fn what_get_writes_is_what_apply_takes() {
    let (world, other) = (World::with_farm(), World::new());
    let documents = world.written().join("\n");
    other
        .registry
        .apply(read(&documents, Form::Json).unwrap(), Run::Commit)
        .unwrap();
    assert_eq!(other.written(), world.written());
}

#[test]
fn a_message_finds_its_product_model_device_and_channels() {
    let world = World::with_farm();
    let snapshot = world.registry.current();
    let product = snapshot.product_by_key("LHBfarm1").unwrap();
    let device = product.devices.get("R80711").unwrap();
    assert_eq!(device.timezone.as_deref(), Some("Europe/Paris"));
    assert_eq!(product.model.measurepoints.len(), 3);
    assert_eq!(product.enabled_channels().count(), 1);
    let (_, same) = snapshot.asset(device.asset_id.as_str()).unwrap();
    assert_eq!(same, device);
    assert!(product.devices.get("R80712").is_none());
}

#[test]
fn a_changed_model_reaches_its_products() {
    let world = World::with_farm();
    world
        .apply("kind: Model\nname: turbine\nmeasurepoints: { only: { type: int } }\n")
        .unwrap();
    let snapshot = world.registry.current();
    assert_eq!(
        snapshot
            .product_by_key("LHBfarm1")
            .unwrap()
            .model
            .measurepoints
            .len(),
        1
    );
}

#[test]
fn a_point_keeps_the_type_its_values_are_stored_as() {
    let world = World::with_farm();
    world
        .stored
        .0
        .lock()
        .insert(("LHBfarm1".into(), "P_avg".into()), Storage::Double);
    let text = message(
        world.apply("kind: Model\nname: turbine\nmeasurepoints: { P_avg: { type: string } }\n"),
    );
    assert!(
        text.contains("point P_avg of product wind-farm has values stored as double"),
        "{text}"
    );
    // Another product may use the name otherwise, until it takes the key with the values.
    let other = "kind: Model\nname: other\nmeasurepoints: { P_avg: { type: int } }\n";
    world.apply(other).unwrap();
    let text =
        message(world.apply("kind: Product\nname: wind-farm\nkey: LHBfarm1\nmodel: other\n"));
    assert!(text.contains("P_avg"), "{text}");
}

#[test]
fn keys_and_asset_ids_in_use_do_not_change() {
    let world = World::with_farm();
    for (text, reason) in [
        (
            "kind: Product\nname: wind-farm\nkey: other\nmodel: turbine\n",
            "LHBfarm1 cannot change",
        ),
        (
            "kind: Product\nname: p2\nkey: LHBfarm1\nmodel: turbine\n",
            "belongs to product wind-farm",
        ),
        (
            "kind: Device\nname: R80711\nproduct: wind-farm\nkey: x\n",
            "R80711 cannot change to x",
        ),
        (
            "kind: Device\nname: d\nproduct: wind-farm\nkey: R80711\n",
            "belongs to device R80711",
        ),
        (
            "kind: Device\nname: R80711\nproduct: wind-farm\nassetId: x\n",
            "cannot change to x",
        ),
    ] {
        let message = message(world.apply(text));
        assert!(message.contains(reason), "{message}");
    }
    assert_eq!(world.registry.current().devices_len(), 1);
}

#[test]
fn a_generated_key_is_eight_letters_and_digits_and_stays() {
    let world = World::with_farm();
    let text = "kind: Product\nname: p2\nmodel: turbine\n";
    world.apply(text).unwrap();
    let key = world.registry.current().product("p2").unwrap().key.clone();
    assert_eq!(key.as_str().len(), 8);
    assert_eq!(effects(&world.apply(text).unwrap()), [Effect::Unchanged]);
    assert_eq!(world.registry.current().product("p2").unwrap().key, key);
}

#[test]
fn an_asset_id_belongs_to_one_device_for_ever() {
    let world = World::with_farm();
    let asset = |world: &World| {
        let snapshot = world.registry.current();
        snapshot
            .product_by_key("LHBfarm1")
            .unwrap()
            .devices
            .get("R80711")
            .unwrap()
            .asset_id
            .to_string()
    };
    let before = asset(&world);
    world.registry.delete(Kind::Device, "R80711", None).unwrap();
    let world = world.restart();
    let thief = format!("kind: Device\nname: thief\nproduct: wind-farm\nassetId: {before}\n");
    assert!(message(world.apply(&thief)).contains("was given to device R80711"));
    assert!(world.registry.current().asset(&before).is_none());
    world.apply(FARM).unwrap();
    assert_eq!(asset(&world), before);
    assert_eq!(asset(&world.restart()), before);
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let world = World::with_farm();
    let refused = |kind, name| {
        world
            .registry
            .delete(kind, name, None)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(Kind::Model, "turbine"),
        "model turbine is used by product wind-farm"
    );
    assert_eq!(
        refused(Kind::Product, "wind-farm"),
        "product wind-farm is used by channel scada-history, device R80711"
    );
    assert_eq!(
        refused(Kind::Channel, "none"),
        "channel none is not declared"
    );
    for (kind, name) in [
        (Kind::Channel, "scada-history"),
        (Kind::Device, "R80711"),
        (Kind::Product, "wind-farm"),
        (Kind::Model, "turbine"),
    ] {
        world.registry.delete(kind, name, None).unwrap();
    }
    assert!(world.restart().written().is_empty());
}

#[test]
fn devices_of_one_name_are_told_apart_by_their_product() {
    let world = World::with_farm();
    world
        .apply("kind: Product\nname: p2\nmodel: turbine\n---\nkind: Device\nname: R80711\nproduct: p2\n")
        .unwrap();
    let snapshot = world.registry.snapshot();
    let error = device_named(&snapshot, "R80711", None).unwrap_err();
    assert!(error.to_string().contains("p2, wind-farm"), "{error}");
    assert_eq!(snapshot.devices_of_key("R80711").count(), 2);
    world
        .registry
        .delete(Kind::Device, "R80711", Some("p2"))
        .unwrap();
    assert!(device_named(&world.registry.current(), "R80711", None).is_ok());
}

#[test]
fn a_rotated_secret_logs_in_until_its_overlap_ends() {
    let world = World::with_farm();
    let login = |world: &World| {
        let snapshot = world.registry.current();
        let strings = snapshot
            .channel("scada-history")
            .unwrap()
            .connection_strings();
        Credentials::parse(
            &strings.client_id,
            Some(&strings.user_name),
            Some(strings.password.as_bytes()),
        )
        .unwrap()
    };
    let verifies = |world: &World, login: &Credentials| {
        let snapshot = world.registry.current();
        let channel = snapshot.channel("scada-history").unwrap();
        channel
            .secrets(world.clock.now_ms())
            .any(|secret| login.verify(secret.text()))
    };
    let old = login(&world);
    world.registry.rotate("scada-history", 500).unwrap();
    let new = login(&world);
    assert!(old != new);
    assert!(verifies(&world, &old) && verifies(&world, &new));
    let world = world.restart();
    assert!(verifies(&world, &old) && verifies(&world, &new));
    world.clock.set(1_500);
    assert!(!verifies(&world, &old) && verifies(&world, &new));
}

#[test]
fn a_product_has_at_most_sixty_four_enabled_channels() {
    let world = World::with_farm();
    let many: Vec<String> = (1..ENABLED_CHANNELS_MAX)
        .map(|n| format!("kind: Channel\nname: c{n}\nproduct: wind-farm\n"))
        .collect();
    world.apply(&many.join("---\n")).unwrap();
    let one_more = "kind: Channel\nname: more\nproduct: wind-farm\n";
    assert!(message(world.apply(one_more)).contains("64 enabled channels"));
    world.registry.set_paused("c1", true).unwrap();
    world.apply(one_more).unwrap();
    let refused = world.registry.set_paused("c1", false).unwrap_err();
    assert!(matches!(refused, Refused::Conflict(_)), "{refused}");
}

#[test]
fn subscribers_hear_of_every_change_and_of_nothing_else() {
    let world = World::with_farm();
    let mut versions = world.registry.changes(CancellationToken::new()).version;
    world.apply(FARM).unwrap();
    assert!(!versions.has_changed().unwrap());
    world.registry.set_paused("scada-history", true).unwrap();
    assert!(versions.has_changed().unwrap());
    assert_eq!(
        *versions.borrow_and_update(),
        world.registry.current().version
    );
}

#[test]
fn what_was_read_before_a_change_stays_as_it_was() {
    let world = World::with_farm();
    let before = world.registry.snapshot();
    world.registry.delete(Kind::Device, "R80711", None).unwrap();
    assert_eq!(
        (before.devices_len(), world.registry.current().devices_len()),
        (1, 0)
    );
}

#[test]
fn a_failed_commit_changes_nothing() {
    struct Failing;
    impl Records for Failing {
        fn load(&mut self) -> Result<Vec<records::Record>, RecordsError> {
            Ok(Vec::new())
        }
        fn body(&mut self, _: &records::RecordKey) -> Result<Option<String>, RecordsError> {
            Ok(None)
        }
        fn commit(&mut self, _: &[Change]) -> Result<(), RecordsError> {
            Err(RecordsError::Failed {
                database: "test".into(),
                reason: "disk full".into(),
            })
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::load(
        Box::new(Failing),
        Seal::open(dir.path()).unwrap(),
        Arc::new(Stored::default()),
        Clock::stopped(0),
    )
    .unwrap();
    let refused = registry
        .apply(read(FARM, Form::Yaml).unwrap(), Run::Commit)
        .unwrap_err();
    assert!(matches!(refused, Refused::Records(_)), "{refused}");
    assert!(registry.current().product_by_key("LHBfarm1").is_none());
}

#[test]
fn secrets_are_in_no_output_log_or_file() {
    let world = World::with_farm();
    world.registry.rotate("scada-history", 1_000).unwrap();
    let snapshot = world.registry.snapshot();
    let channel = snapshot.channel("scada-history").unwrap();
    let mut places = vec![
        format!("{snapshot:?}"),
        format!("{channel:#?}"),
        world.written().join(""),
    ];
    let secrets: Vec<String> = channel
        .secrets(1_000)
        .map(|secret| secret.text().to_owned())
        .collect();
    assert_eq!(secrets.len(), 2);
    for file in std::fs::read_dir(world.dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        places.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    for secret in secrets {
        assert!(!places.iter().any(|place| place.contains(&secret)));
    }
}

#[test]
fn faults_name_line_object_and_what_is_wrong() {
    let text = "kind: Device\nname: R1\nproduct: p\ntimezne: UTC\n---\n# nothing\n---\nkind: Modell\nname: x\n\
                ---\nname: y\nproduct: p\n---\nkind: Channel\nproduct: p\n---\nkind: Model\nname: m\n\
                measurepoints:\n  P: { type: dubble }\n---\nkind: Device\nname: [\n---\nkind: Device\nname: a b\nproduct: p\n";
    insta::assert_snapshot!(message(
        read(text, Form::Yaml).map_err(refused).map(|_| vec![])
    ));
}

#[test]
fn json_is_an_object_an_array_or_lines_and_faults_name_the_line() {
    let line = r#"{"kind":"Device","name":"a","product":"p"}"#;
    let sorted = r#"{"attributes":{"x":[1]},"kind":"Device","name":"b","product":"p"}"#;
    assert_eq!(read(line, Form::Json).unwrap().len(), 1);
    assert_eq!(
        read(&format!("[{line},\n{sorted}]"), Form::Json).unwrap()[1]
            .place
            .line,
        2
    );
    assert_eq!(
        read(&format!("{line}\n{sorted}\n"), Form::Json)
            .unwrap()
            .len(),
        2
    );
    let early = r#"{"attributes":{"x":[1]},"name":"b","product":"p","kind":"Device"}"#;
    let Declared::Device(name, file) = &read(early, Form::Json).unwrap()[0].declared else {
        panic!("a device was read")
    };
    assert_eq!((name.as_str(), file.attributes.len()), ("b", 1));
    let text =
        format!("[{line},\n{{\"kind\":\"Device\",\"name\":\"c\",\n\"prod\":\"p\"}}]\n{{\"kind\"");
    insta::assert_snapshot!(message(
        read(&text, Form::Json).map_err(refused).map(|_| vec![])
    ));
}

#[test]
fn the_schema_of_each_kind_stays_as_it_is_promised() {
    for kind in Kind::ALL {
        let name = format!("schema-{kind}").replace(' ', "-");
        insta::assert_json_snapshot!(name, schema(kind));
    }
}

/// CPU seconds that this thread has used.
fn cpu(work: impl FnOnce()) -> Duration {
    let now = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    let before = now();
    work();
    now() - before
}

#[test]
fn a_hundred_thousand_devices_are_declared_within_a_minute() {
    use std::fmt::Write as _;
    let world = World::with_farm();
    let mut yaml = String::new();
    for n in 0..100_000 {
        writeln!(
            yaml,
            "---\nkind: Device\nname: T{n:06}\nproduct: wind-farm\nkey: T{n:06}\ntimezone: Europe/Paris"
        )
        .unwrap();
    }
    let used = cpu(|| {
        let applied = world.apply(&yaml).unwrap();
        assert_eq!(applied.len(), 100_000);
    });
    println!("100 000 devices applied in {used:?} of CPU");
    assert!(used < Duration::from_secs(30), "{used:?}");
    let again = cpu(|| drop(world.apply(&yaml).unwrap()));
    let one = cpu(|| {
        drop(
            world
                .apply("kind: Device\nname: one\nproduct: wind-farm\n")
                .unwrap(),
        )
    });
    println!("again {again:?}, one more {one:?}");
    assert!(one < Duration::from_secs(1), "{one:?}");
    let mut world = Some(world);
    let restart = cpu(|| world = world.take().map(World::restart));
    println!("restart {restart:?}");
    assert_eq!(world.unwrap().registry.current().devices_len(), 100_002);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The registry of one product's devices against a map, over restarts.
    #[test]
    fn any_history_of_changes_leaves_what_a_map_would(
        steps in prop::collection::vec((0..6u8, 0..4u8, 0..3u8), 1..20)
    ) {
        let mut world = World::with_farm();
        let mut map = BTreeMap::from([("R80711".to_owned(), Some("Europe/Paris".to_owned()))]);
        for (step, device, zone) in steps {
            let name = format!("D{device}");
            let zone = ["UTC", "Asia/Tokyo", "Europe/Berlin"][usize::from(zone)];
            match step {
                0 => {
                    let is_there = map.remove(&name).is_some();
                    prop_assert_eq!(world.registry.delete(Kind::Device, &name, None).is_ok(), is_there);
                }
                1 => world = world.restart(),
                2 => {
                    // The second of both is wrong: neither holds.
                    let text = format!("kind: Device\nname: {name}\nproduct: wind-farm\ntimezone: {zone}\n---\nkind: Device\nname: bad\nproduct: none\n");
                    prop_assert!(world.apply(&text).is_err());
                }
                _ => {
                    let text = format!("kind: Device\nname: {name}\nproduct: wind-farm\ntimezone: {zone}\n");
                    let effect = world.apply(&text).unwrap()[0].effect;
                    let expected = match map.insert(name, Some(zone.to_owned())) {
                        None => Effect::Created,
                        Some(before) if before.as_deref() == Some(zone) => Effect::Unchanged,
                        Some(_) => Effect::Changed,
                    };
                    prop_assert_eq!(effect, expected);
                }
            }
        }
        let found: BTreeMap<_, _> = world
            .restart()
            .registry
            .current()
            .devices_after(None)
            .map(|d| (d.name.to_string(), d.timezone.as_deref().map(str::to_owned)))
            .collect();
        prop_assert_eq!(found, map);
    }

    /// Whatever the text: an answer, never a panic.
    #[test]
    fn any_text_reads_or_is_refused(text in "[a-z:{}\\[\\]\"\n,' -]{0,80}") {
        drop(read(&text, Form::Yaml));
        drop(read(&text, Form::Json));
    }
}
