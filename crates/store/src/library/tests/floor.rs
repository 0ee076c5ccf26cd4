//! Retention against the model: what is younger than the rule is never lost, whatever came when.

use super::*;

impl World {
    fn set_floor(&self, floor: Option<Floor>) {
        let keeps = floor.map(|floor| (product(), below(floor)));
        self.library.set_keeps(keeps.into_iter().collect());
    }

    fn segments(&self) -> usize {
        let shelf = self.library.shelf();
        shelf.products.get(&product()).map_or(0, Vec::len)
    }
}

/// Everything but what is below a floor.
fn below(floor: Floor) -> Keep {
    Keep {
        rest: PointKeep::new(floor, None),
        ..Keep::default()
    }
}

fn from(time_ms: i64) -> Floor {
    Floor {
        time_ms,
        ..Floor::NONE
    }
}

fn row(device: usize, time: i64) -> RowSpec {
    RowSpec {
        device,
        time,
        points: 1,
        value: 0,
        quality: 2,
    }
}

fn commit(world: &mut World, model: &mut Model, rows: &[RowSpec]) {
    apply(world, model, rows, ConflictPolicy::KeepLast);
}

/// Which rows are read.
fn times(world: &World) -> Vec<(String, i64)> {
    let rows = rows_of(&world.read(&everything()));
    rows.into_iter().map(|(key, _, _)| key).collect()
}

fn key(device: usize, time: i64) -> (String, i64) {
    (DEVICES[device].to_owned(), time)
}

#[test]
fn a_segment_of_old_rows_goes_whole_and_its_file_with_it() {
    let (mut world, mut model) = (World::new(), Model::default());
    commit(&mut world, &mut model, &[row(0, 1), row(1, 2)]);
    world.flush();
    commit(&mut world, &mut model, &[row(0, 10), row(1, 11)]);
    world.flush();
    world.set_floor(Some(from(5)));
    assert_eq!(
        times(&world),
        [key(0, 10), key(1, 11)],
        "at once, in memory"
    );
    let points = [point("P")];
    let expirable = world
        .library
        .expirable(&product(), &points, &below(from(5)));
    assert_eq!(expirable.values_max, 2);
    // Classified first: what is not has more to tell.
    world.work_to_the_end();
    assert_eq!(world.segments(), 1);
    world.set_floor(None);
    assert_eq!(times(&world), [key(0, 10), key(1, 11)], "they are gone");
    world.reopen();
    assert_eq!(times(&world), [key(0, 10), key(1, 11)]);
    world.set_floor(Some(from(100)));
    world.work_to_the_end();
    assert_eq!(world.segments(), 0);
    let files = product_dir(&world.dir().join("segments"), &product());
    // They go with their last reader, and a thread that read ahead may still be on its way out.
    let begun = std::time::Instant::now();
    while std::fs::read_dir(&files).unwrap().count() > 0 {
        assert!(begun.elapsed().as_secs() < 30, "their files go too");
        std::thread::yield_now();
    }
}

#[test]
fn old_rows_among_young_ones_go_when_their_segment_is_written_again() {
    let (mut world, mut model) = (World::new(), Model::default());
    let rows: Vec<_> = (0..100).map(|time| row(0, time)).collect();
    commit(&mut world, &mut model, &rows);
    world.flush();
    world.work_to_the_end();
    let rows_stored = |world: &World| world.library.stats().unwrap().rows;
    world.set_floor(Some(from(5)));
    world.work_to_the_end();
    assert_eq!(rows_stored(&world), 100, "too few to write it again for");
    assert_eq!(times(&world).len(), 95);
    world.set_floor(Some(from(50)));
    world.work_to_the_end();
    assert_eq!(rows_stored(&world), 50);
    world.library.verify().unwrap();
    world.set_floor(None);
    assert_eq!(times(&world).first(), Some(&key(0, 50)));
}

#[test]
fn latest_and_conflicts_have_nothing_from_below_the_floor() {
    let (mut world, mut model) = (World::new(), Model::default());
    for value in 0..2 {
        let old = RowSpec { value, ..row(0, 1) };
        let young = RowSpec {
            value,
            ..row(1, 10)
        };
        commit(&mut world, &mut model, &[old, young]);
        world.flush();
    }
    world.work_to_the_end();
    let conflicts = |world: &World| {
        let filter = ConflictFilter {
            limit: 10,
            ..ConflictFilter::default()
        };
        let page = world.library.conflicts(&filter).unwrap();
        assert_eq!(page.total, page.conflicts.len() as u64);
        let times = page.conflicts.iter().map(|conflict| conflict.time_ms);
        times.collect::<Vec<_>>()
    };
    let latest = |world: &World| -> Vec<i64> {
        let all = world.library.latest(&product(), &[], &[]);
        all.iter().map(|latest| latest.time_ms).collect()
    };
    assert_eq!((conflicts(&world).len(), latest(&world)), (2, vec![1, 10]));
    world.set_floor(Some(from(5)));
    world.work_to_the_end();
    assert_eq!((conflicts(&world), latest(&world)), (vec![10], vec![10]));
}

#[test]
fn by_import_a_row_goes_once_its_last_value_came_too_long_ago() {
    let (mut world, mut model) = (World::new(), Model::default());
    for (time, value) in [(50, 0), (1, 0), (50, 1), (2, 0)] {
        let row = RowSpec {
            value,
            ..row(0, time)
        };
        commit(&mut world, &mut model, &[row]);
        world.flush();
    }
    // Commit n arrived at 1000 + n.
    let since = |arrived_ms| world.library.first_since(arrived_ms).unwrap();
    assert_eq!(
        [0, 1_001, 1_003, 1_004, 9_999, 1_002]
            .map(since)
            .map(|s| s.0),
        [1, 1, 3, 4, 5, 2]
    );
    let floor = Floor {
        sequence: since(1_003),
        ..Floor::NONE
    };
    world.set_floor(Some(floor));
    assert_eq!(times(&world), [key(0, 2), key(0, 50)]);
    world.work_to_the_end();
    world.set_floor(None);
    assert_eq!(times(&world), [key(0, 2), key(0, 50)]);
    assert_eq!(world.library.stats().unwrap().rows, 2);
}

#[test]
fn a_drop_that_fails_at_any_operation_loses_nothing_that_should_stay() {
    for operations in 0..40 {
        let (mut world, mut model) = (World::new(), Model::default());
        for time in [1, 3, 20, 40] {
            commit(&mut world, &mut model, &[row(0, time), row(1, time + 1)]);
            world.flush();
        }
        world.set_floor(Some(from(10)));
        world.library.disk = faults::failing(operations);
        let mut tries = 0;
        while let Ok(true) = world.library.work(Haste::Quiet) {
            tries += 1;
            assert!(tries < 1_000);
        }
        let young = [key(0, 20), key(0, 40), key(1, 21), key(1, 41)];
        assert_eq!(times(&world), young, "after {operations} operations");
        // As after kill -9: only what the manifest names is there.
        world.reopen();
        world.library.verify().unwrap();
        let all = times(&world);
        assert!(young.iter().all(|key| all.contains(key)), "{all:?}");
        world.set_floor(Some(from(10)));
        world.work_to_the_end();
        assert_eq!(times(&world), young);
    }
}

#[derive(Debug, Clone)]
enum Turn {
    Commit(Vec<(usize, i64, u8)>),
    Flush,
    Work(usize),
    /// Rises by so much; `None` lets everything be kept.
    Rise(Option<i64>),
    Reopen,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => prop::collection::vec((0..3_usize, 0..60_i64, 0..3_u8), 1..8).prop_map(Turn::Commit),
        2 => Just(Turn::Flush),
        3 => (1..6_usize).prop_map(Turn::Work),
        2 => prop::option::weighted(0.9, 0..30_i64).prop_map(Turn::Rise),
        1 => Just(Turn::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any order of arrival, of flushes, merges, restarts and floors: what no floor was ever above is
    /// there with its right value, and below the floor of the moment there is nothing.
    #[test]
    fn nothing_younger_than_the_rule_is_ever_dropped(turns in prop::collection::vec(turn(), 1..40)) {
        let (mut world, mut model) = (World::new(), Model::default());
        let (mut floor, mut highest) = (i64::MIN, i64::MIN);
        for turn in turns {
            match turn {
                Turn::Commit(rows) => {
                    let specs: Vec<_> = rows
                        .iter()
                        // What is too old is refused before it comes here.
                        .filter(|(_, time, _)| *time >= floor)
                        .map(|(device, time, value)| RowSpec { value: *value, ..row(*device, *time) })
                        .collect();
                    if !specs.is_empty() {
                        commit(&mut world, &mut model, &specs);
                    }
                }
                Turn::Flush => world.flush(),
                Turn::Work(units) => for _ in 0..units {
                    world.library.work(Haste::Quiet).unwrap();
                },
                Turn::Rise(by) => {
                    floor = by.map_or(i64::MIN, |by| floor.max(0) + by);
                    world.set_floor(Some(from(floor)));
                }
                Turn::Reopen => {
                    world.reopen();
                    world.set_floor(Some(from(floor)));
                }
            }
            highest = highest.max(floor);
            let found: BTreeMap<(String, i64), String> = rows_of(&world.read(&everything()))
                .into_iter()
                .map(|(key, _, cells)| (key, cells["P"].0.clone()))
                .collect();
            prop_assert!(found.keys().all(|(_, time)| *time >= floor));
            for ((device, time, _), (cell, _, _)) in &model.standing {
                if *time >= highest {
                    prop_assert_eq!(found.get(&(device.clone(), *time)), Some(&text(cell)));
                }
            }
        }
    }
}
