//! What is kept of points, against a plain model: whatever came in which order, and whatever merges have
//! taken off the disk by now, a read shows what the model says.

use super::*;

const DAY_MS: i64 = 24 * 3_600_000;

/// Three a minute, twenty a day, for three days.
fn moment(at: i64) -> i64 {
    at / 20 * DAY_MS + at % 20 * 20_000
}

impl World {
    fn set_keep(&self, keep: &Keep) {
        let keeps = [(product(), keep.clone())];
        self.library.set_keeps(keeps.into_iter().collect());
    }

    fn view(&self, range: &Range, view: View) -> Vec<RecordBatch> {
        let slabs = self.library.read(self.waiting.clone(), range, view);
        slabs.unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn cells(&self) -> u64 {
        self.library.stats().unwrap().cells
    }
}

fn thin(kind: Thinning) -> Thin {
    Thin::all(kind)
}

fn of_points(keeps: &[(&str, PointKeep)]) -> Keep {
    Keep {
        points: keeps
            .iter()
            .map(|(name, keep)| (point(name), *keep))
            .collect(),
        ..Keep::default()
    }
}

fn minutes() -> PointKeep {
    PointKeep::new(Floor::NONE, Some(thin(Thinning::Minute)))
}

fn changes() -> PointKeep {
    PointKeep::new(Floor::NONE, Some(thin(Thinning::Changes)))
}

/// Device and time of each cell, by point.
type Shown = BTreeMap<(String, i64, String), (String, u8)>;

/// One point of one device by time: text of the value, quality, commit.
type Series = Vec<(i64, (String, u8, u64))>;

/// The rules, said once more as plainly as can be.
fn shown_of(series: &Series, keep: &PointKeep, view: View) -> Vec<(i64, (String, u8))> {
    let floor = keep.floor();
    let mut left: Series = series.clone();
    left.retain(|(time, (_, _, commit))| *time >= floor.time_ms && *commit >= floor.sequence.0);
    let mut stages: Vec<Thin> = keep.thin().into_iter().collect();
    if let View::Thinned(kind) = view {
        stages.push(thin(kind));
    }
    for stage in stages {
        let all = left.clone();
        let window = |time: i64| time.div_euclid(stage.kind.window_ms());
        let end = |time: i64| (window(time) + 1) * stage.kind.window_ms();
        let mut at = 0..;
        left.retain(|(time, (value, quality, _))| {
            let at = at.next().unwrap();
            if end(*time) > stage.before_ms && stage.before_ms < i64::MAX {
                return true;
            }
            match stage.kind {
                Thinning::Minute => all[at + 1..]
                    .iter()
                    .all(|(later, _)| window(*later) != window(*time)),
                Thinning::Changes => match at.checked_sub(1).map(|at| &all[at]) {
                    Some((before, (was, was_quality, _))) => {
                        window(*before) != window(*time) || (was, was_quality) != (value, quality)
                    }
                    None => true,
                },
            }
        });
    }
    left.into_iter()
        .map(|(time, (value, quality, _))| (time, (value, quality)))
        .collect()
}

fn expected(model: &Model, keep: &Keep, view: View, (from, to): (i64, i64)) -> Shown {
    let mut series: BTreeMap<(String, String), Series> = BTreeMap::new();
    for ((device, time, point), (cell, quality, commit)) in &model.standing {
        let of_point = series.entry((device.clone(), point.clone())).or_default();
        of_point.push((*time, (text(cell), *quality, *commit)));
    }
    let mut all = Shown::new();
    for ((device, name), series) in series {
        for (time, value) in shown_of(&series, keep.of(&point(&name)), view) {
            if (from..to).contains(&time) {
                all.insert((device.clone(), time, name.clone()), value);
            }
        }
    }
    all
}

fn found(batches: &[RecordBatch]) -> Shown {
    let mut all = Shown::new();
    for ((device, time), _, cells) in rows_of(batches) {
        for (point, value) in cells {
            all.insert((device.clone(), time, point), value);
        }
    }
    all
}

/// Reads a range whole and in pages, by device and by time: always the same.
fn check(world: &World, model: &Model, keep: &Keep, view: View, (from, to): (i64, i64)) {
    let expected = expected(model, keep, view, (from, to));
    for order in [Order::DeviceTime, Order::TimeDevice] {
        let range = Range {
            from_ms: from,
            to_ms: to,
            order,
            ..everything()
        };
        assert_eq!(
            found(&world.view(&range, view)),
            expected,
            "{order:?} {view:?}"
        );
        let (mut paged, mut after) = (Shown::new(), None);
        loop {
            let page = Range {
                after: after.clone(),
                rows_max: 3,
                ..range.clone()
            };
            let batches = world.view(&page, view);
            let rows = rows_of(&batches);
            let Some(((device_key, time), _, _)) = rows.last() else {
                break;
            };
            after = Some((device(device_key), *time));
            paged.extend(found(&batches));
        }
        assert_eq!(paged, expected, "in pages, {order:?} {view:?}");
    }
}

#[derive(Debug, Clone)]
enum Turn {
    Commit(Vec<(usize, i64, u8, u8)>),
    Flush,
    Work(usize),
    Reopen,
}

fn turn() -> impl Strategy<Value = Turn> {
    let row = (0..3_usize, 0..60_i64, 1..8_u8, 0..2_u8);
    prop_oneof![
        5 => prop::collection::vec(row, 1..12).prop_map(Turn::Commit),
        2 => Just(Turn::Flush),
        3 => (1..6_usize).prop_map(Turn::Work),
        1 => Just(Turn::Reopen),
    ]
}

fn point_keep() -> impl Strategy<Value = PointKeep> {
    let minute_before = (0..60_i64).prop_map(|at| {
        let thin = Thin {
            before_ms: moment(at),
            ..thin(Thinning::Minute)
        };
        PointKeep::new(Floor::NONE, Some(thin))
    });
    let floor = (0..60_i64, 0..6_u64).prop_map(|(at, commit)| Floor {
        time_ms: if commit % 2 == 0 {
            moment(at)
        } else {
            i64::MIN
        },
        sequence: Sequence(commit),
    });
    prop_oneof![
        Just(PointKeep::default()),
        Just(minutes()),
        Just(changes()),
        minute_before,
        floor.prop_map(|floor| PointKeep::new(floor, None)),
        (0..60_i64, 0..6_u64).prop_map(|(at, commit)| {
            let floor = Floor {
                time_ms: moment(at),
                sequence: Sequence(commit),
            };
            PointKeep::new(floor, Some(thin(Thinning::Minute)))
        }),
        (0..60_i64).prop_map(|at| {
            let floor = Floor {
                time_ms: moment(at),
                ..Floor::NONE
            };
            PointKeep::new(floor, Some(thin(Thinning::Changes)))
        }),
    ]
}

/// The same, where changes are not quiet yet.
fn restless(keep: &Keep) -> Keep {
    let restless = |keep: &PointKeep| {
        let thin = keep.thin().map(|thin| Thin {
            quiet: Sequence(0),
            ..thin
        });
        PointKeep::new(keep.floor(), thin)
    };
    let points = keep.points.iter();
    Keep {
        points: points
            .map(|(point, keep)| (point.clone(), restless(keep)))
            .collect(),
        ..keep.clone()
    }
}

fn run(world: &mut World, model: &mut Model, turn: Turn) {
    match turn {
        Turn::Commit(rows) => {
            let rows: Vec<RowSpec> = rows
                .into_iter()
                .map(|(device, at, points, value)| RowSpec {
                    device,
                    time: moment(at),
                    points,
                    value,
                    quality: 2,
                })
                .collect();
            apply(world, model, &rows, ConflictPolicy::KeepLast);
        }
        Turn::Flush => world.flush(),
        Turn::Work(units) => {
            for _ in 0..units {
                world.library.work(Haste::Quiet).unwrap();
            }
        }
        Turn::Reopen => world.reopen(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Shuffled, repeated and corrected: a read gives what the rules say of everything that came, before
    /// merges have taken anything off the disk, while they do, and after.
    #[test]
    fn a_read_shows_the_same_before_and_after_thinning_for_every_order_of_arrival(
        turns in prop::collection::vec(turn(), 1..30),
        keeps in prop::collection::vec(point_keep(), 3),
        (from, to) in (0..60_i64, 0..80_i64),
        view in prop_oneof![
            3 => Just(View::Kept),
            1 => Just(View::Thinned(Thinning::Minute)),
            1 => Just(View::Thinned(Thinning::Changes)),
        ],
    ) {
        let (mut world, mut model) = (World::new(), Model::default());
        let named: Vec<_> = POINTS.iter().copied().zip(keeps).collect();
        let keep = of_points(&named);
        let range = (moment(from) + 1, moment(to));
        for turn in turns {
            world.set_keep(&restless(&keep));
            run(&mut world, &mut model, turn);
            world.set_keep(&restless(&keep));
            check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
        }
        check(&world, &model, &keep, view, range);
        // Now all of it is quiet.
        world.flush();
        world.set_keep(&keep);
        world.work_to_the_end();
        check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
        check(&world, &model, &keep, view, range);
        world.reopen();
        world.set_keep(&keep);
        world.library.verify().unwrap();
        check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
    }

    /// What a dry run counts is what a read no longer shows afterwards, device by device and point by
    /// point.
    #[test]
    fn a_dry_run_counts_what_goes(
        turns in prop::collection::vec(turn(), 1..20),
        now in prop::collection::vec(point_keep(), 3),
        next in prop::collection::vec(point_keep(), 3),
    ) {
        let (mut world, mut model) = (World::new(), Model::default());
        let now = of_points(&POINTS.iter().copied().zip(now).collect::<Vec<_>>());
        let next = of_points(&POINTS.iter().copied().zip(next).collect::<Vec<_>>());
        world.set_keep(&restless(&now));
        for turn in turns {
            run(&mut world, &mut model, turn);
            world.set_keep(&restless(&now));
        }
        let before = found(&world.view(&everything(), View::Kept));
        let points: Vec<ElementName> = POINTS.iter().map(|name| point(name)).collect();
        let count = world.library.going(world.waiting.clone(), &product(), &points, &next).unwrap();
        let mut counted: BTreeMap<(String, String), u64> = BTreeMap::new();
        for going in count {
            let going = going.unwrap();
            for (point, values) in points.iter().zip(going.values) {
                if values > 0 {
                    counted.insert((going.device.to_string(), point.to_string()), values);
                }
            }
        }
        // What is physically there is what both are judged by.
        world.set_keep(&restless(&next));
        let after = found(&world.view(&everything(), View::Kept));
        let mut gone: BTreeMap<(String, String), u64> = BTreeMap::new();
        for ((device, time, point), _) in before {
            if !after.contains_key(&(device.clone(), time, point.clone())) {
                *gone.entry((device, point)).or_default() += 1;
            }
        }
        prop_assert_eq!(&counted, &gone);
        world.flush();
        let most = world.library.expirable(&product(), &points, &next).values_max;
        prop_assert!(most >= gone.values().sum::<u64>());
    }
}

fn rows(at: impl Iterator<Item = (i64, u8)>, points: u8) -> Vec<RowSpec> {
    at.map(|(at, value)| RowSpec {
        device: 0,
        time: moment(at),
        points,
        value,
        quality: 2,
    })
    .collect()
}

fn commit(world: &mut World, model: &mut Model, rows: &[RowSpec]) {
    apply(world, model, rows, ConflictPolicy::KeepLast);
}

#[test]
fn what_is_thinned_goes_from_the_disk_and_the_rest_of_its_rows_stays() {
    let (mut world, mut model) = (World::new(), Model::default());
    commit(&mut world, &mut model, &rows((0..60).map(|at| (at, 0)), 7));
    world.flush();
    world.work_to_the_end();
    assert_eq!(world.cells(), 180);
    let keep = of_points(&[("P", minutes()), ("state.quality", changes())]);
    world.set_keep(&keep);
    world.work_to_the_end();
    // A minute has three of the sixty, a day first and last of its only stretch; the third stays.
    assert_eq!(world.cells(), 21 + 6 + 60);
    check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
    assert!(
        !world.library.work(Haste::Quiet).unwrap(),
        "and that is all"
    );
}

#[test]
fn a_points_floor_takes_its_values_and_no_other_and_whole_segments_where_all_are_below() {
    let (mut world, mut model) = (World::new(), Model::default());
    commit(&mut world, &mut model, &rows((0..20).map(|at| (at, 0)), 3));
    world.flush();
    commit(&mut world, &mut model, &rows((40..60).map(|at| (at, 0)), 1));
    world.flush();
    world.work_to_the_end();
    let floor = |at| {
        let floor = Floor {
            time_ms: moment(at),
            ..Floor::NONE
        };
        PointKeep::new(floor, None)
    };
    let keep = of_points(&[("P", floor(20))]);
    world.set_keep(&keep);
    world.work_to_the_end();
    assert_eq!(world.cells(), 20 + 20);
    check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
    let keep = of_points(&[("P", floor(60)), ("state.quality", floor(60))]);
    world.set_keep(&keep);
    world.work_to_the_end();
    assert_eq!(world.library.stats().unwrap().segments, 0);
}

#[test]
fn what_is_late_is_shown_and_the_stretch_goes_on_after_it() {
    let (mut world, mut model) = (World::new(), Model::default());
    let keep = of_points(&[("P", changes())]);
    world.set_keep(&keep);
    let without_the_late = (0..20).filter(|at| *at != 5).map(|at| (at, 0));
    commit(&mut world, &mut model, &rows(without_the_late, 1));
    world.flush();
    world.work_to_the_end();
    assert_eq!(world.cells(), 2);
    commit(&mut world, &mut model, &rows([(5, 2)].into_iter(), 1));
    let times = |world: &World| -> Vec<i64> {
        let rows = rows_of(&world.read(&everything()));
        rows.into_iter().map(|((_, time), _, _)| time).collect()
    };
    // Had it come before, the stretch would go on at 6.
    assert_eq!(times(&world), [0, 5, 19].map(moment));
    world.flush();
    world.work_to_the_end();
    assert_eq!(times(&world), [0, 5, 19].map(moment));
}

#[test]
fn a_window_that_something_newer_falls_into_is_left_alone() {
    let (mut world, mut model) = (World::new(), Model::default());
    let day = (0..20).filter(|at| *at != 5).map(|at| (at, 0));
    commit(&mut world, &mut model, &rows(day, 1));
    world.flush();
    world.work_to_the_end();
    // In memory only: a merge does not see it.
    commit(&mut world, &mut model, &rows([(5, 2)].into_iter(), 1));
    let keep = of_points(&[("P", changes())]);
    world.set_keep(&keep);
    let recent = world.waiting.clone();
    while world
        .library
        .work_beside(Haste::Quiet, &|_| recent.clone())
        .unwrap()
    {}
    check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
}

#[test]
fn thinning_that_fails_at_any_operation_loses_nothing_that_should_stay() {
    let keep = of_points(&[("P", minutes()), ("state.quality", changes())]);
    for operations in 0..40 {
        let (mut world, mut model) = (World::new(), Model::default());
        for half in [0..30, 30..60] {
            commit(&mut world, &mut model, &rows(half.map(|at| (at, 0)), 7));
            world.flush();
        }
        world.set_keep(&keep);
        world.library.disk = faults::failing(operations);
        let mut tries = 0;
        while let Ok(true) = world.library.work(Haste::Quiet) {
            tries += 1;
            assert!(tries < 1_000);
        }
        check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
        // As after kill -9: only what the manifest names is there.
        world.reopen();
        world.library.verify().unwrap();
        world.set_keep(&keep);
        check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
        world.work_to_the_end();
        check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
    }
}

#[test]
fn by_import_a_value_that_came_again_counts_from_then() {
    // Without a refusal, and without a rule, a duplicate leaves the first commit.
    let (mut world, mut model) = (World::without_refusals(), Model::default());
    let floor = Floor {
        sequence: Sequence(2),
        ..Floor::NONE
    };
    let keep = of_points(&[("P", PointKeep::new(floor, None))]);
    world.set_keep(&keep);
    for _ in 0..2 {
        commit(&mut world, &mut model, &rows([(7, 1)].into_iter(), 1));
        world.flush();
    }
    check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
    world.work_to_the_end();
    check(&world, &model, &keep, View::Kept, (i64::MIN, i64::MAX));
    assert_eq!(rows_of(&world.read(&everything())).len(), 1);
}
