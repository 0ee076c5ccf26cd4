//! The fold beside the plainest computation that one can write.

use arrow_array::{BooleanArray, Float64Array, Int32Array};
use backtide_model::{ElementName, Storage};
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

/// A row: device, time, and a value of `p`, if any.
type Row = (usize, i64, Option<f64>);

const HOUR_MS: i64 = 3_600_000;
/// Two days before the clocks of Paris go forward in 2014.
const T0: i64 = 1_396_051_200_000;

fn plan(functions: &[Function], interval: Option<&str>, zone: &str) -> Plan {
    let zone = TimeZone::get(zone).unwrap();
    let windows = match interval {
        Some(text) => Windows::new(Interval::parse(text).unwrap(), zone),
        None => Windows::Whole,
    };
    let point = AskedPoint {
        name: ElementName::new("p").unwrap(),
        storage: Storage::Double,
        is_json: false,
    };
    Plan::new(vec![(point, functions.to_vec())], windows)
}

fn slab(rows: &[Row]) -> RecordBatch {
    let devices = rows.iter().map(|(device, _, _)| format!("d{device}"));
    let columns: Vec<(&str, ArrayRef)> = vec![
        (DEVICE, Arc::new(StringArray::from_iter_values(devices))),
        (
            TIME,
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
        ),
        (
            "p",
            Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.2))),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

/// Device, time and the cells of each row, doubles as such and texts as `Err`.
type Answer = Vec<(String, i64, Vec<Option<f64>>)>;

fn folded(plan: &Plan, slabs: &[RecordBatch]) -> Answer {
    let mut answer = Vec::new();
    let mut emit = |batch: &RecordBatch| {
        let devices = batch.column(0).as_string::<i32>();
        let times = batch.column(1).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayRef| {
                let long = || {
                    column
                        .as_primitive_opt::<Int64Type>()
                        .map(|a| a.value(row) as f64)
                };
                let double = || {
                    let doubles = column.as_primitive_opt::<arrow_array::types::Float64Type>()?;
                    Some(doubles.value(row))
                };
                column
                    .is_valid(row)
                    .then(|| long().or_else(double).unwrap())
            };
            let cells = batch.columns()[2..].iter().map(cell).collect();
            answer.push((devices.value(row).to_owned(), times.value(row), cells));
        }
        Ok::<(), AggregateError>(())
    };
    let mut fold = Fold::new(plan);
    for slab in slabs {
        fold.add(slab, &mut emit).unwrap();
    }
    fold.finish(&mut emit).unwrap();
    answer
}

/// The texts of the only column.
fn folded_texts(plan: &Plan, slab: &RecordBatch) -> Vec<Option<String>> {
    let mut answer = Vec::new();
    let mut emit = |batch: &RecordBatch| {
        let texts = batch.column(2).as_string::<i32>();
        answer.extend(texts.iter().map(|text| text.map(str::to_owned)));
        Ok::<(), AggregateError>(())
    };
    let mut fold = Fold::new(plan);
    fold.add(slab, &mut emit).unwrap();
    fold.finish(&mut emit).unwrap();
    answer
}

fn of_one(rows: &[(i64, f64)]) -> Vec<Row> {
    rows.iter()
        .map(|(at, value)| (0, T0 + at, Some(*value)))
        .collect()
}

/// Time since [`T0`] and cells.
fn since(answer: Answer) -> Vec<(i64, Vec<Option<f64>>)> {
    answer
        .into_iter()
        .map(|(_, time_ms, cells)| (time_ms - T0, cells))
        .collect()
}

#[test]
fn a_value_holds_until_the_next_and_into_windows_without_one() {
    let mut plan = plan(&[Function::Twa, Function::Count], Some("1h"), "UTC");
    let rows = of_one(&[(HOUR_MS / 2, 10.0), (3 * HOUR_MS + HOUR_MS / 2, 20.0)]);
    plan.to_ms = Some(T0 + 5 * HOUR_MS);
    let answer = |plan: &Plan| since(folded(plan, &[slab(&rows)]));
    let hours = |hours: &[(i64, f64, f64)]| -> Vec<_> {
        let row =
            |(hour, twa, count): &(i64, f64, f64)| (hour * HOUR_MS, vec![Some(*twa), Some(*count)]);
        hours.iter().map(row).collect()
    };
    let all = [
        (0, 10.0, 1.0),
        (1, 10.0, 0.0),
        (2, 10.0, 0.0),
        (3, 15.0, 1.0),
        (4, 20.0, 0.0),
    ];
    assert_eq!(answer(&plan), hours(&all));
    plan.hold_ms = HOUR_MS;
    let held = [
        (0, 10.0, 1.0),
        (1, 10.0, 0.0),
        (3, 20.0, 1.0),
        (4, 20.0, 0.0),
    ];
    assert_eq!(answer(&plan), hours(&held));
}

#[test]
fn what_holds_at_the_beginning_comes_from_before() {
    let mut plan = plan(
        &[Function::Twa, Function::Increase, Function::First],
        None,
        "UTC",
    );
    plan.from_ms = Some(T0);
    plan.to_ms = Some(T0 + 2 * HOUR_MS);
    plan.lookback_ms = HOUR_MS;
    assert_eq!(plan.read_from_ms(), Some(T0 - HOUR_MS));
    let rows = of_one(&[(-HOUR_MS, 1.0), (HOUR_MS, 4.0)]);
    assert_eq!(
        since(folded(&plan, &[slab(&rows)])),
        [(0, vec![Some(2.5), Some(3.0), Some(4.0)])]
    );
    let before = of_one(&[(-HOUR_MS, 1.0)]);
    assert_eq!(
        since(folded(&plan, &[slab(&before)])),
        [(0, vec![Some(1.0), None, None])],
        "a device whose only value is from before still has what holds"
    );
}

#[test]
fn a_counter_that_shows_less_than_before_began_again_at_zero() {
    let plan = plan(&[Function::Increase], Some("1h"), "UTC");
    let rows = of_one(&[
        (0, 5.0),
        (1, 8.0),
        (2, 2.0),
        (HOUR_MS, 3.0),
        (9 * HOUR_MS, 1.0),
    ]);
    assert_eq!(
        since(folded(&plan, &[slab(&rows)])),
        [
            (0, vec![Some(5.0)]),
            (HOUR_MS, vec![Some(1.0)]),
            (9 * HOUR_MS, vec![Some(1.0)])
        ]
    );
}

#[test]
fn every_fill_does_what_its_name_says() {
    let mut plan = plan(&[Function::Avg], Some("1h"), "UTC");
    plan.from_ms = Some(T0);
    plan.to_ms = Some(T0 + 6 * HOUR_MS);
    let rows = of_one(&[(HOUR_MS, 1.0), (4 * HOUR_MS + 1, 7.0)]);
    for (fill, expected) in [
        (Fill::None, vec![(1, Some(1.0)), (4, Some(7.0))]),
        (
            Fill::Null,
            vec![
                (0, None),
                (1, Some(1.0)),
                (2, None),
                (3, None),
                (4, Some(7.0)),
                (5, None),
            ],
        ),
        (
            Fill::Previous,
            vec![
                (0, None),
                (1, Some(1.0)),
                (2, Some(1.0)),
                (3, Some(1.0)),
                (4, Some(7.0)),
                (5, Some(7.0)),
            ],
        ),
        (
            Fill::Linear,
            vec![
                (0, None),
                (1, Some(1.0)),
                (2, Some(3.0)),
                (3, Some(5.0)),
                (4, Some(7.0)),
                (5, None),
            ],
        ),
    ] {
        plan.fill = fill;
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(hour, avg)| (hour * HOUR_MS, vec![avg]))
            .collect();
        assert_eq!(since(folded(&plan, &[slab(&rows)])), expected, "{fill:?}");
    }
}

#[test]
fn durations_are_told_for_each_state_and_too_many_states_are_refused() {
    let mut plan = plan(&[Function::Durations], Some("1h"), "UTC");
    plan.points[0].0.storage = Storage::Int;
    let columns = |values: Vec<i32>| -> RecordBatch {
        let rows: Vec<Row> = (0_i64..)
            .zip(&values)
            .map(|(at, _)| (0, T0 + 1_000 * at, None))
            .collect();
        let keys = slab(&rows);
        let columns: Vec<(&str, ArrayRef)> = vec![
            (DEVICE, Arc::clone(keys.column(0))),
            (TIME, Arc::clone(keys.column(1))),
            ("p", Arc::new(Int32Array::from(values))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    plan.to_ms = Some(T0 + 3_500);
    assert_eq!(
        folded_texts(&plan, &columns(vec![7, 0, 7, 7])),
        [Some(r#"{"0":1000,"7":2500}"#.to_owned())]
    );
    plan.to_ms = None;
    let many = columns((0..2_000).collect());
    let told = Fold::new(&plan).add(&many, &mut |_| Ok::<(), AggregateError>(()));
    assert!(matches!(told, Err(AggregateError::States)));
}

#[test]
fn what_is_missing_is_told_of_devices_without_values_too() {
    let functions = [
        Function::Count,
        Function::FirstTime,
        Function::LastTime,
        Function::Gaps,
        Function::LongestGap,
    ];
    let mut plan = plan(&functions, None, "UTC");
    plan.fill = Fill::Null;
    plan.gap_ms = Some(HOUR_MS);
    plan.from_ms = Some(T0);
    plan.to_ms = Some(T0 + 10 * HOUR_MS);
    plan.devices = ["a", "d0", "x"].map(Arc::from).into();
    let rows = of_one(&[(HOUR_MS, 1.0), (2 * HOUR_MS, 1.0), (5 * HOUR_MS, 1.0)]);
    let ms = |hours: i64| Some((hours * HOUR_MS) as f64);
    let at = |hours: i64| Some((T0 + hours * HOUR_MS) as f64);
    let nothing = vec![Some(0.0), None, None, Some(1.0), ms(10)];
    let whole = folded(&plan, &[slab(&rows)]);
    assert_eq!(
        whole,
        [
            ("a".to_owned(), T0, nothing.clone()),
            (
                "d0".to_owned(),
                T0,
                vec![Some(3.0), at(1), at(5), Some(2.0), ms(5)]
            ),
            ("x".to_owned(), T0, nothing),
        ]
    );
    plan.after = Some(("d0".into(), T0));
    assert_eq!(
        folded(&plan, &[slab(&rows)]),
        whole[2..],
        "a page goes on after its cursor"
    );
    plan.after = Some(("a".into(), T0));
    assert_eq!(folded(&plan, &[slab(&rows)]), whole[1..]);
}

#[test]
fn texts_and_truths_have_what_makes_sense_of_them() {
    let keys = slab(&[(0, T0, None), (0, T0 + 1, None), (0, T0 + 2, None)]);
    let with = |array: ArrayRef| {
        let columns = vec![
            (DEVICE, Arc::clone(keys.column(0))),
            (TIME, Arc::clone(keys.column(1))),
            ("p", array),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap()
    };
    let texts = with(Arc::new(StringArray::from(vec![
        Some("on"),
        None,
        Some("off"),
    ])));
    for (function, expected) in [
        (Function::First, "on"),
        (Function::Last, "off"),
        (Function::Durations, r#"{"off":1,"on":2}"#),
    ] {
        let mut plan = plan(&[function], None, "UTC");
        plan.points[0].0.storage = Storage::Text;
        assert_eq!(folded_texts(&plan, &texts), [Some(expected.to_owned())]);
    }
    let truths = with(Arc::new(BooleanArray::from(vec![
        Some(true),
        None,
        Some(false),
    ])));
    let mut plan = plan(
        &[Function::Avg, Function::Sum, Function::Count],
        None,
        "UTC",
    );
    plan.points[0].0.storage = Storage::Bool;
    assert_eq!(
        folded(&plan, &[truths])[0].2,
        [Some(0.5), Some(1.0), Some(2.0)]
    );
}

#[test]
fn a_page_goes_on_where_the_one_before_ended() {
    let rows: Vec<Row> = (0..40)
        .map(|at| {
            (
                at / 10,
                T0 + HOUR_MS * i64::try_from(3 * (at % 10)).unwrap(),
                Some(at as f64),
            )
        })
        .collect();
    for (fill, batch_rows) in [
        (Fill::None, 1),
        (Fill::Null, 3),
        (Fill::Previous, 5),
        (Fill::Linear, 2),
        (Fill::Linear, BATCH_ROWS),
    ] {
        let mut plan = plan(&[Function::Avg, Function::Increase], Some("1h"), "UTC");
        plan.fill = fill;
        plan.batch_rows = batch_rows;
        plan.to_ms = Some(T0 + 40 * HOUR_MS);
        let whole = folded(&plan, &[slab(&rows)]);
        for at in [0, 7, whole.len() / 2, whole.len() - 2] {
            let (device, time_ms, _) = &whole[at];
            plan.after = Some((device.as_str().into(), *time_ms));
            let (device, after_ms) = plan.read_after().unwrap();
            let is_after =
                |row: &&Row| (format!("d{}", row.0).as_str(), row.1) > (&*device, after_ms);
            let rest: Vec<Row> = rows.iter().filter(is_after).copied().collect();
            assert_eq!(
                folded(&plan, &[slab(&rest)]),
                whole[at + 1..],
                "{fill:?} {at}"
            );
        }
    }
}

/// The plainest computation: all rows of a window in a list.
fn naive(rows: &[Row], plan: &Plan) -> Answer {
    let mut answer: Answer = Vec::new();
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|row| (row.0, row.1));
    let (from_ms, to_ms) = (plan.from_ms.unwrap(), plan.to_ms.unwrap());
    for device in 0..3 {
        let of_device: Vec<(i64, f64)> = sorted
            .iter()
            .filter(|row| row.0 == device && row.1 < to_ms)
            .filter_map(|row| Some((row.1, row.2?)))
            .collect();
        let mut begin_ms = from_ms;
        while begin_ms < to_ms {
            let window = plan.windows.at(begin_ms);
            let (start, end) = (window.start_ms.max(from_ms), window.end_ms.min(to_ms));
            begin_ms = window.end_ms;
            let inside: Vec<(i64, f64)> = of_device
                .iter()
                .filter(|(t, _)| (start..end).contains(t))
                .copied()
                .collect();
            let (mut area, mut weight) = (0.0, 0.0);
            for (at, (time_ms, value)) in of_device.iter().enumerate() {
                let next = of_device.get(at + 1).map_or(i64::MAX, |(t, _)| *t);
                let until = next.min(end).min(time_ms + plan.hold_ms);
                let ms = (until - (*time_ms).max(start)).max(0) as f64;
                area += value * ms;
                weight += ms;
            }
            let grew: Vec<f64> = of_device
                .windows(2)
                .filter(|pair| (start..end).contains(&pair[1].0))
                .map(|pair| {
                    if pair[1].1 < pair[0].1 {
                        pair[1].1
                    } else {
                        pair[1].1 - pair[0].1
                    }
                })
                .collect();
            if inside.is_empty() && weight == 0.0 {
                continue;
            }
            let values = || inside.iter().map(|(_, value)| *value);
            let (count, sum) = (inside.len() as f64, values().sum::<f64>());
            let some = |value: f64| (!inside.is_empty()).then_some(value);
            let mean = sum / count;
            let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
            let time_ms = match plan.windows {
                Windows::Whole => from_ms,
                _ => window.start_ms,
            };
            answer.push((
                format!("d{device}"),
                time_ms,
                vec![
                    Some(count),
                    some(sum),
                    values().reduce(f64::min),
                    values().reduce(f64::max),
                    some(mean),
                    inside.first().map(|(_, value)| *value),
                    inside.last().map(|(_, value)| *value),
                    (weight > 0.0).then(|| area / weight),
                    (!grew.is_empty()).then(|| grew.iter().sum()),
                    (inside.len() > 1).then(|| variance.sqrt()),
                ],
            ));
        }
    }
    answer
}

fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

proptest! {
    #[test]
    fn the_fold_equals_the_naive_computation(
        rows in prop::collection::btree_map(
            (0_usize..3, prop_oneof![0_i64..200, -200_i64..200]),
            prop::option::weighted(0.8, -1e3..1e3_f64),
            0..150,
        ),
        cuts in prop::collection::vec(1_usize..40, 0..6),
        interval in prop::option::of(prop::sample::select(vec!["10m", "7m", "1h", "6h", "1d", "1w", "1mo"])),
        zone in prop::sample::select(vec!["UTC", "Europe/Paris", "Asia/Kolkata", "America/New_York"]),
        hold in prop::option::of(1_i64..30),
        order in any::<u64>(),
    ) {
        let functions =
            Function::ALL.into_iter().take_while(|f| *f != Function::FirstTime);
        let functions: Vec<Function> = functions.filter(|f| *f != Function::Durations).collect();
        let mut plan = plan(&functions, interval, zone);
        plan.from_ms = Some(T0);
        plan.to_ms = Some(T0 + 120 * HOUR_MS + 7);
        // Far more than any row is from the next: an increase knows the value before.
        plan.hold_ms = hold.map_or(10_000 * HOUR_MS, |hours| hours * HOUR_MS);
        plan.lookback_ms = 10_000 * HOUR_MS;
        let mut arrived: Vec<Row> = rows
            .iter()
            .map(|((device, at), value)| (*device, T0 + at * HOUR_MS + (at % 7) * 1_234, *value))
            .collect();
        // The order in which rows arrived is the store's to undo.
        let length = arrived.len().max(1) as u64;
        arrived.sort_by_key(|row| (row.1.cast_unsigned() ^ order) % length);
        let mut stored = arrived.clone();
        stored.sort_by_key(|row| (row.0, row.1));
        stored.retain(|row| row.1 < plan.to_ms.unwrap());
        let mut slabs = Vec::new();
        let mut left = stored.as_slice();
        for cut in cuts {
            let (slab_rows, rest) = left.split_at(cut.min(left.len()));
            slabs.push(slab(slab_rows));
            left = rest;
        }
        slabs.push(slab(left));
        let (found, expected) = (folded(&plan, &slabs), naive(&arrived, &plan));
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert_eq!((&found.0, found.1), (&expected.0, expected.1));
            for (at, (a, b)) in found.2.iter().zip(&expected.2).enumerate() {
                let same = match (a, b) {
                    (Some(a), Some(b)) => is_close(*a, *b),
                    (a, b) => a.is_none() == b.is_none(),
                };
                prop_assert!(same, "{} of {:?}: {:?}, not {:?}", functions[at], found, a, b);
            }
        }
    }
}

#[test]
fn galloping_finds_what_a_walk_finds() {
    for length in 0..40 {
        for from in 0..=length {
            for border in from..=length {
                assert_eq!(gallop(from, length, |at| at < border), border);
            }
        }
    }
}
