//! The engine over a real store: what is derived equals a fold over all there is, whatever came in which
//! order, and whenever it was ended.

use std::collections::BTreeMap;

use arrow_array::{
    Array,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use backtide_model::{
    Batch, BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
    ProductKey, Storage,
};
use backtide_store::{Commit, Options, Order, Origin, Range, disk::RealDisk};
use proptest::prelude::*;

use super::*;
use crate::{
    query::aggregate::{AggregateError, Fold},
    registry::{Form, Kind, Run, StoredTypes, read},
};

const T0: i64 = 1_396_051_200_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const KEY: &str = "p1";

const WORLD: &str = "
kind: Model
name: meter
measurepoints:
  power: { type: double }
  state: { type: int }
---
kind: Product
name: meters
key: p1
model: meter
---
kind: Device
name: d0
product: meters
key: d0
---
kind: Device
name: d1
product: meters
key: d1
---
kind: Channel
name: history
product: meters
";

/// At once due: quiet after nothing.
fn policy(interval: &str, zone: &str, hold: &str) -> String {
    format!(
        "kind: Policy\nname: derived\nanalysis:\n  - rollup: r\n    interval: {interval}\n    timeZone: {zone}\n    \
         functions: [sum, min, max, avg, first, last, twa, increase, stddev]\n    hold: {hold}\n    \
         quiet: 0s\n    within: 0s\n  - rollup: s\n    points: [state]\n    interval: {interval}\n    \
         timeZone: {zone}\n    functions: [durations]\n    hold: {hold}\n    quiet: 0s\n    within: 0s\n\
         afterCommit:\n  - reduction: k\n    points: [power]\n    rateOfChange: {{ most: 30, per: 10m }}\n    \
         swingingDoor: {{ deviation: 5 }}\n    restart: 6h\n    quiet: 0s\n    within: 0s\n"
    )
}

struct Nothing;

impl StoredTypes for Nothing {
    fn stored_as(&self, _: &ProductKey, _: &ElementName) -> Option<Storage> {
        None
    }
}

struct World {
    dir: tempfile::TempDir,
    registry: Arc<Registry>,
    store: Store,
    derived: Arc<Derived>,
}

/// A value of `power` and `state`: device, minutes since [`T0`].
type Row = (u8, i64, f64, i32);

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path(), Arc::new(Nothing), Clock::stopped(T0)).unwrap();
        let (store, _) = Store::open(
            &dir.path().join("store"),
            Arc::new(RealDisk),
            Options::default(),
        )
        .unwrap();
        let derived = Derived::new(&dir.path().join("derived.db"), store.clone()).unwrap();
        let world = Self {
            dir,
            registry: Arc::new(registry),
            store,
            derived,
        };
        world.apply(WORLD);
        world
    }

    fn apply(&self, yaml: &str) {
        self.registry
            .apply(read(yaml, Form::Yaml).unwrap(), Run::Commit)
            .unwrap();
    }

    /// Upkeep as a new process begins it.
    fn engine(&self) -> Engine {
        let setting = Setting {
            registry: Arc::clone(&self.registry),
            store: self.store.clone(),
            clock: Clock::stopped(T0),
            organization: ObjectName::new("o1").unwrap(),
            kafka: None,
        };
        self.derived.engine(&setting).unwrap()
    }

    fn shelf(&self) -> Shelf {
        Shelf::open(&self.dir.path().join("derived.db")).unwrap()
    }

    fn commit(&self, rows: &[Row]) {
        let commit = Commit {
            origin: Origin {
                channel: ChannelName::new("history").unwrap(),
                client: "c".into(),
                topic: "t".into(),
                message_id: "\"1\"".into(),
                packet_id: None,
                policies: None,
                arrived_ms: T0,
            },
            product: ProductKey::new(KEY).unwrap(),
            parts: vec![backtide_store::Part::Points(batch(rows))],
            redrive: None,
        };
        self.store.commit(vec![commit]).unwrap().remove(0).unwrap();
    }

    fn series(&self, name: &str) -> (i64, Arc<Series>) {
        let mut series = self.derived.series().into_iter();
        series
            .find(|(_, series)| series.name.as_str() == name)
            .unwrap()
    }

    /// The rows of a series as text: what they are is compared bit by bit.
    fn rows(&self, name: &str) -> Vec<String> {
        let (id, series) = self.series(name);
        let asked = RowsAsked {
            id,
            series,
            devices: Vec::new(),
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            after: None,
        };
        let rows = self.derived.rows(asked).unwrap();
        rows.flat_map(|batch| texts(&batch.unwrap())).collect()
    }

    /// The same, folded of everything that is stored, window after window as an aggregate is asked.
    fn folded(&self, name: &str) -> Vec<String> {
        let (_, series) = self.series(name);
        let (from_ms, to_ms) = (T0 - 4_000 * HOUR_MS, T0 + 4_000 * HOUR_MS);
        let windows = &series.windows;
        let plan = series.plan(windows.at(from_ms).start_ms, windows.at(to_ms).end_ms);
        let plan = plan.unwrap();
        let range = Range {
            product: ProductKey::new(KEY).unwrap(),
            devices: Vec::new(),
            points: series
                .points()
                .iter()
                .map(|point| point.name.clone())
                .collect(),
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            order: Order::DeviceTime,
            after: None,
            rows_max: usize::MAX,
        };
        let (mut fold, mut rows) = (Fold::new(&plan), Vec::new());
        let mut take = |batch: &arrow_array::RecordBatch| {
            rows.extend(texts(batch));
            Ok::<(), AggregateError>(())
        };
        for slab in self.store.read(&range).unwrap() {
            fold.add(&slab.unwrap(), &mut take).unwrap();
        }
        fold.finish(&mut take).unwrap();
        rows
    }
}

fn batch(rows: &[Row]) -> Batch {
    let mut builder = BatchBuilder::new();
    for (device, minutes, power, state) in rows {
        let device = DeviceKey::new(&format!("d{device}")).unwrap();
        builder.row(&device, T0 + minutes * MINUTE_MS);
        let mut put = |point: &str, cell: Cell| {
            let point = ElementName::new(point).unwrap();
            builder.cell(&point, ConflictPolicy::KeepLast, cell, NO_QUALITY);
        };
        put("power", Cell::Double(*power));
        if state % 2 == 0 {
            put("state", Cell::Int(*state));
        }
    }
    builder.build()
}

fn texts(batch: &arrow_array::RecordBatch) -> Vec<String> {
    let columns = batch
        .columns()
        .iter()
        .zip(batch.schema().fields().iter().cloned().collect::<Vec<_>>());
    let columns: Vec<_> = columns.collect();
    let cell = |column: &arrow_array::ArrayRef, row: usize| {
        if !column.is_valid(row) {
            return "-".to_owned();
        }
        if let Some(doubles) = column.as_primitive_opt::<Float64Type>() {
            return format!("{:x}", doubles.value(row).to_bits());
        }
        if let Some(longs) = column.as_primitive_opt::<Int64Type>() {
            return longs.value(row).to_string();
        }
        match column.as_string_opt::<i32>() {
            Some(texts) => texts.value(row).to_owned(),
            None => column
                .as_primitive::<arrow_array::types::Int32Type>()
                .value(row)
                .to_string(),
        }
    };
    (0..batch.num_rows())
        .map(|row| {
            let cells = columns
                .iter()
                .map(|(column, field)| format!("{}={}", field.name(), cell(column, row)));
            cells.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// Works until nothing is left to do.
fn settle(engine: &mut Engine, world: &World) {
    for _ in 0..10_000 {
        let is_busy = engine.work().unwrap();
        let (dirty, standings) = (engine.dirty_spans(), world.derived.series());
        if !is_busy && dirty == 0 && !standings.is_empty() {
            return;
        }
    }
    panic!("upkeep never settles");
}

/// Marks as a plain computation makes them of everything stored, in order.
fn reduced(world: &World) -> Vec<String> {
    let (_, series) = world.series("k");
    let range = Range {
        product: ProductKey::new(KEY).unwrap(),
        devices: Vec::new(),
        points: vec![ElementName::new("power").unwrap()],
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        order: Order::DeviceTime,
        after: None,
        rows_max: usize::MAX,
    };
    let mut windows: BTreeMap<(String, i64), Vec<reduce::Value>> = BTreeMap::new();
    for slab in world.store.read(&range).unwrap() {
        let slab = slab.unwrap();
        let devices = slab.column_by_name(DEVICE).unwrap().as_string::<i32>();
        let times = slab
            .column_by_name(TIME)
            .unwrap()
            .as_primitive::<Int64Type>();
        let values = slab
            .column_by_name("power")
            .unwrap()
            .as_primitive::<Float64Type>();
        for row in 0..slab.num_rows() {
            let time_ms = times.value(row);
            let key = (
                devices.value(row).to_owned(),
                series.windows.at(time_ms).start_ms,
            );
            let value = reduce::Value {
                time_ms,
                value: values.value(row),
            };
            windows.entry(key).or_default().push(value);
        }
    }
    let mut rows = Vec::new();
    let keep = crate::policy::Keep::SwingingDoor(5.0);
    for ((device, start_ms), values) in &windows {
        let before = windows
            .get(&(device.clone(), start_ms - 6 * HOUR_MS))
            .and_then(|values| values.last().copied());
        let marks = reduce::marks(values, before, Some(30.0 / (10.0 * 60_000.0)), keep);
        for (value, mark) in values.iter().zip(marks) {
            rows.push(format!(
                "{DEVICE}={device} {TIME}={} power.marks={mark}",
                value.time_ms
            ));
        }
    }
    rows
}

fn assert_true(world: &World) -> Result<(), TestCaseError> {
    prop_assert_eq!(world.rows("r"), world.folded("r"));
    prop_assert_eq!(world.rows("s"), world.folded("s"));
    prop_assert_eq!(world.rows("k"), reduced(world));
    Ok(())
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let minutes = prop_oneof![0_i64..600, -4_000..8_000_i64];
    prop::collection::vec((0_u8..2, minutes, -50.0..50.0_f64, 0_i32..6), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Commits in any order, with repeats and corrections, with the process ended anywhere.
    #[test]
    fn what_is_derived_is_what_a_fold_over_everything_gives(
        commits in prop::collection::vec((any_rows(), 0_u8..5), 1..6),
        declared_after in 0_usize..3,
        interval in prop::sample::select(vec!["10m", "1h", "1d", "1w", "1mo"]),
        zone in prop::sample::select(vec!["UTC", "Europe/Paris", "Asia/Kolkata", "America/New_York"]),
        hold in prop::sample::select(vec!["5m", "1h", "3h", "2d"]),
    ) {
        let world = World::new();
        let mut engine = world.engine();
        for (at, (rows, then)) in commits.iter().enumerate() {
            if at == declared_after.min(commits.len() - 1) {
                world.apply(&policy(interval, zone, hold));
            }
            world.commit(rows);
            match then {
                0 => settle_if_declared(&mut engine, &world),
                // Followed, and perhaps a little computed; then ended without a word.
                1 => {
                    engine.work().unwrap();
                    drop(engine);
                    engine = world.engine();
                }
                // What was marked is written down, and not computed.
                2 => {
                    engine.follow_and_save().unwrap();
                    drop(engine);
                    engine = world.engine();
                }
                _ => {}
            }
        }
        settle(&mut engine, &world);
        assert_true(&world)?;
        // Sent again, nothing is another: nothing is told.
        let last = world.shelf().extent().unwrap();
        for (rows, _) in commits.iter().rev().take(1) {
            world.commit(rows);
        }
        settle(&mut engine, &world);
        prop_assert_eq!(world.shelf().extent().unwrap(), last);
        assert_true(&world)?;
    }
}

fn settle_if_declared(engine: &mut Engine, world: &World) {
    if world.registry.snapshot().policy("derived").is_some() {
        settle(engine, world);
    }
}

#[test]
fn a_change_tells_the_windows_that_became_others() {
    let world = World::new();
    world.apply(&policy("1h", "UTC", "1m"));
    let mut engine = world.engine();
    settle(&mut engine, &world);
    world.commit(&[(0, 5, 1.0, 2), (0, 70, 2.0, 2), (1, 5, 3.0, 2)]);
    settle(&mut engine, &world);
    let asked = ChangesAsked {
        name: Some("r".to_owned()),
        limit: 10,
        ..ChangesAsked::default()
    };
    let told = |changes: Vec<Change>| -> Vec<(String, i64, i64)> {
        let hours = |ms: i64| (ms - T0) / HOUR_MS;
        changes
            .into_iter()
            .map(|change| (change.device, hours(change.from_ms), hours(change.to_ms)))
            .collect()
    };
    let changes = world.derived.changes(&asked).unwrap();
    let after = changes.last().unwrap().sequence;
    assert_eq!(
        told(changes),
        [("d0".to_owned(), 0, 2), ("d1".to_owned(), 0, 1)]
    );
    world.commit(&[(0, 75, 9.0, 2)]);
    settle(&mut engine, &world);
    let changes = world
        .derived
        .changes(&ChangesAsked {
            after,
            ..asked.clone()
        })
        .unwrap();
    assert_eq!(told(changes), [("d0".to_owned(), 1, 2)]);
    let last = ChangesAsked {
        limit: 2,
        tail: true,
        ..asked.clone()
    };
    assert_eq!(
        told(world.derived.changes(&last).unwrap()),
        [("d1".to_owned(), 0, 1), ("d0".to_owned(), 1, 2)],
        "the last ones, in order"
    );
    let early = ChangesAsked {
        from_ms: Some(T0),
        to_ms: Some(T0 + HOUR_MS),
        ..asked
    };
    assert_eq!(
        told(world.derived.changes(&early).unwrap()),
        [("d0".to_owned(), 0, 2), ("d1".to_owned(), 0, 1)],
        "those that reach into the first hour"
    );
}

#[test]
fn another_definition_is_computed_of_what_is_stored_and_the_old_rows_go() {
    let world = World::new();
    world.apply(&policy("1h", "UTC", "1h"));
    let mut engine = world.engine();
    world.commit(&[(0, 5, 1.0, 2), (0, 70, 2.0, 2)]);
    settle(&mut engine, &world);
    let (before, rows) = (world.series("r").0, world.rows("r"));
    world.apply(&policy("10m", "UTC", "1h"));
    settle(&mut engine, &world);
    assert_ne!(world.series("r").0, before);
    assert_ne!(world.rows("r"), rows);
    assert_eq!(world.rows("r"), world.folded("r"));
    while engine.work().unwrap() {}
    assert_eq!(
        world
            .shelf()
            .page(before, None, ("", i64::MIN), (i64::MIN, i64::MAX), 1)
            .unwrap(),
        []
    );
    // Without any policy nothing is kept, and the log is not held.
    world
        .registry
        .delete(Kind::Policy, "derived", None)
        .unwrap();
    while engine.work().unwrap() {}
    assert!(world.derived.series().is_empty());
    assert_eq!(world.store.cursor(CURSOR).unwrap(), None);
}

#[test]
fn a_window_whose_values_retention_took_stays_as_it_was() {
    let world = World::new();
    world.apply(&policy("1d", "UTC", "1m"));
    let mut engine = world.engine();
    world.commit(&[(0, 5, 1.0, 2), (0, 300, 2.0, 2), (0, 600, 3.0, 2)]);
    settle(&mut engine, &world);
    let rows = world.rows("r");
    let floor = backtide_store::Floor {
        time_ms: T0 + 200 * MINUTE_MS,
        ..backtide_store::Floor::NONE
    };
    let keep = backtide_store::Keep {
        rest: backtide_store::PointKeep::new(floor, None),
        ..backtide_store::Keep::default()
    };
    world
        .store
        .set_keeps([(ProductKey::new(KEY).unwrap(), keep)].into());
    // Of the three values that it counts two are left.
    world.commit(&[(0, 600, 5.0, 2)]);
    settle(&mut engine, &world);
    assert_eq!(world.rows("r"), rows);
}

#[test]
fn a_window_that_cannot_be_computed_takes_no_other_with_it() {
    const DAY: i64 = 24 * 60;
    let world = World::new();
    let one_a_day = (-100..100).map(|day| (0, day * DAY + 5, 1.0, 2));
    // More states in a day than are told apart.
    let many = (0..DAY).map(|minute| (0, minute, 1.0, 2 * i32::try_from(minute).unwrap()));
    let rows: Vec<Row> = one_a_day.filter(|row| row.1 != 5).chain(many).collect();
    world.commit(&rows);
    world.apply(&policy("1d", "UTC", "1m"));
    let mut engine = world.engine();
    settle(&mut engine, &world);
    let of_the_day = format!("{TIME}={T0} ");
    let days = world.rows("s");
    assert_eq!(days.len(), 199);
    assert!(!days.iter().any(|day| day.contains(&of_the_day)));
    engine.tell();
    let (id, _) = world.series("s");
    let standing = world.derived.standing(id);
    assert_eq!(standing.failures, 1, "{standing:?}");
    assert_eq!(
        world.rows("r"),
        world.folded("r"),
        "the other rollup has it"
    );
}

/// A rollup of every point and a reduction of two: `power` and, once it is declared, `state`.
const OF_ALL: &str = "kind: Policy\nname: derived\nanalysis:\n  - rollup: r\n    interval: 1h\n    \
     functions: [avg, last]\n    quiet: 0s\n    within: 0s\nafterCommit:\n  - reduction: k\n    points: \
     [power, state]\n    deadBand: { deviation: 1 }\n    restart: 6h\n    quiet: 0s\n    within: 0s\n";

#[test]
fn a_point_that_joins_a_series_is_computed_of_what_is_stored_of_it() {
    let without = WORLD.replace("  state: { type: int }\n", "");
    let without = without.replace("measurepoints:", "passthrough: true\nmeasurepoints:");
    for has_restart in [false, true] {
        let world = World::new();
        world.commit(&[
            (0, 0, 1.0, 2),
            (0, 1, 1.5, 2),
            (0, 2, 9.0, 6),
            (1, 400, 3.0, 4),
        ]);
        world.apply(&without);
        world.apply(OF_ALL);
        let mut engine = world.engine();
        settle(&mut engine, &world);
        assert!(world.rows("r").iter().all(|row| !row.contains("state")));
        assert!(world.rows("k").iter().all(|row| !row.contains("state")));
        if has_restart {
            engine.follow_and_save().unwrap();
            engine = world.engine();
        }
        world.apply(WORLD);
        settle(&mut engine, &world);
        assert_eq!(world.rows("r"), world.folded("r"));
        let marked = |row: &String| row.contains("state.marks") && !row.contains("state.marks=-");
        let rows = world.rows("k");
        assert_eq!(rows.iter().filter(|row| marked(row)).count(), 4, "{rows:?}");
    }
}

#[test]
fn a_point_of_which_nothing_is_stored_joins_without_work() {
    let world = World::new();
    world.commit(&[(0, 0, 1.0, 1), (1, 400, 3.0, 1)]);
    world.apply(OF_ALL);
    let mut engine = world.engine();
    settle(&mut engine, &world);
    world.apply(&WORLD.replace("  state:", "  torque: { type: double }\n  state:"));
    engine.follow_and_save().unwrap();
    assert_eq!(engine.dirty_spans(), 0);
    let (_, series) = world.series("r");
    assert!(
        series
            .points()
            .iter()
            .any(|point| point.name.as_str() == "torque")
    );
}
