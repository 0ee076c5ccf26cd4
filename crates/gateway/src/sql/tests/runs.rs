//! Folding runs of devices gives what DataFusion's own aggregate gives.

use std::collections::BTreeMap;

use datafusion::{
    arrow::{
        array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray},
        datatypes::{DataType, Field, Schema},
    },
    datasource::MemTable,
    execution::SessionStateBuilder,
    physical_optimizer::optimizer::PhysicalOptimizer,
    prelude::{SessionConfig, SessionContext, col},
};
use proptest::prelude::*;

use super::{super::runs::ByDevice, *};

/// What every function that PostgreSQL's users know gives of each device. Sums of the tests' values are
/// exact in any order; where a result is not it is rounded.
const QUESTIONS: [&str; 7] = [
    "SELECT device FROM t GROUP BY device",
    "SELECT device, count(*), count(v), sum(v), avg(v), min(v), max(v) FROM t GROUP BY device",
    "SELECT device, count(DISTINCT v), sum(DISTINCT w), median(v), max(w) - min(w) FROM t GROUP BY device",
    "SELECT device, round(stddev(v), 6), round(var_pop(w), 6), bool_and(b), bit_xor(w) FROM t GROUP BY device",
    "SELECT device, count(v) FILTER (WHERE b), sum(w) FILTER (WHERE v > 1) FROM t GROUP BY device",
    "SELECT device, avg(v + w), count(*) FROM t WHERE v <= 2 OR b GROUP BY device HAVING count(*) > 1",
    "SELECT device, first_value(w ORDER BY w DESC), array_agg(w ORDER BY w) FROM t GROUP BY device",
];

type Row = (usize, Option<u8>, Option<i8>, Option<bool>);

/// Rows of devices in batches, each of them any length.
fn batches() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let row = (
        0_usize..4,
        any::<Option<u8>>(),
        any::<Option<i8>>(),
        any::<Option<bool>>(),
    );
    let rows = proptest::collection::vec(row, 0..120);
    (rows, proptest::collection::vec(0_usize..40, 1..8)).prop_map(|(mut rows, lengths)| {
        rows.sort_by_key(|row| row.0);
        let mut batches: Vec<Vec<Row>> = Vec::new();
        for length in lengths {
            batches.push(rows.drain(..length.min(rows.len())).collect());
        }
        batches.push(rows);
        batches
    })
}

fn table(batches: &[Vec<Row>]) -> MemTable {
    const DEVICES: [&str; 4] = [
        "",
        "R80711",
        "a device with a long name",
        "a device with a longer one",
    ];
    let schema = Arc::new(Schema::new(vec![
        Field::new("device", DataType::Utf8View, false),
        Field::new("v", DataType::Float64, true),
        Field::new("w", DataType::Int64, true),
        Field::new("b", DataType::Boolean, true),
    ]));
    let batch = |rows: &Vec<Row>| {
        let devices = rows.iter().map(|row| DEVICES[row.0]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(devices)),
            Arc::new(
                rows.iter()
                    .map(|row| row.1.map(|v| f64::from(v) / 4.0))
                    .collect::<Float64Array>(),
            ),
            Arc::new(
                rows.iter()
                    .map(|row| row.2.map(i64::from))
                    .collect::<Int64Array>(),
            ),
            Arc::new(rows.iter().map(|row| row.3).collect::<BooleanArray>()),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
    };
    let batches = batches.iter().map(batch).collect();
    let table = MemTable::try_new(schema, vec![batches]).unwrap();
    table.with_sort_order(vec![vec![col("device").sort(true, false)]])
}

async fn answer(session: &SessionContext, sql: &str) -> BTreeMap<String, usize> {
    let frame = session.sql(sql).await.unwrap();
    let table = pretty_format_batches(&frame.collect().await.unwrap()).unwrap();
    let mut lines = BTreeMap::new();
    for line in table
        .to_string()
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
    {
        // As wide as the widest of its column, which is another one where the rows come otherwise.
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        *lines.entry(cells.join("|")).or_default() += 1;
    }
    lines
}

async fn is_by_runs(session: &SessionContext, sql: &str) -> bool {
    let frame = session.sql(&format!("EXPLAIN {sql}")).await.unwrap();
    let plan = pretty_format_batches(&frame.collect().await.unwrap()).unwrap();
    let plan = plan.to_string();
    let is_by_runs = plan.contains("FoldRuns");
    // The steps of one aggregate are of one kind.
    assert!(!is_by_runs || !plan.contains("AggregateExec"), "{plan}");
    is_by_runs
}

/// The same session, as it would be without us.
fn of_datafusion_alone(session: &SessionContext) -> SessionContext {
    let state = SessionStateBuilder::new_from_existing(session.state());
    let state = state.with_physical_optimizer_rules(PhysicalOptimizer::new().rules);
    SessionContext::new_with_state(state.build())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_fold_of_runs_gives_what_an_aggregate_of_rows_gives(batches in batches(), threads in 1_usize..4) {
        check(&batches, threads);
    }
}

fn check(batches: &[Vec<Row>], threads: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = SessionConfig::new().with_target_partitions(threads);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features();
        let state = state.with_physical_optimizer_rule(Arc::new(ByDevice));
        let ours = SessionContext::new_with_state(state.build());
        ours.register_table("t", Arc::new(table(batches))).unwrap();
        let alone = of_datafusion_alone(&ours);
        for sql in QUESTIONS {
            assert!(is_by_runs(&ours, sql).await, "{sql}");
            assert!(!is_by_runs(&alone, sql).await, "{sql}");
            assert_eq!(answer(&ours, sql).await, answer(&alone, sql).await, "{sql}");
        }
    });
}

#[test]
fn a_device_without_values_has_no_average_whatever_part_of_it_is_folded_first() {
    let nothing = |device: usize| (device, None, None, None);
    let batches = vec![
        vec![nothing(0), nothing(1)],
        vec![nothing(1), (1, Some(4), None, None)],
    ];
    check(&batches, 2);
}

/// Values of several segments and of what is in none yet, some of them said again and contradicted,
/// with gaps and qualities.
fn muddled() -> World {
    let world = World::new(limits::Sql::default());
    let devices = ["R80711", "R80721", "a-device-with-a-long-name"];
    for round in 0_u8..6 {
        let mut builder = BatchBuilder::new();
        for slot in 0..400_u16 {
            let of_round = u16::from(round) * 150 + slot;
            let device = devices[usize::from(of_round % 7 % 3)];
            builder.row(
                &DeviceKey::new(device).unwrap(),
                T0 + i64::from(of_round) * 60_000,
            );
            let mut cell = |point: &str, value: u16, quality: u8| {
                let (point, value) = (ElementName::new(point).unwrap(), f64::from(value) / 4.0);
                builder.cell(
                    &point,
                    ConflictPolicy::KeepLast,
                    Cell::Double(value),
                    quality,
                );
            };
            if of_round % 5 > 0 {
                cell("P_avg", of_round % 90, NO_QUALITY);
            }
            if of_round % 4 > 0 {
                // Of another round it is another value.
                cell("Ws_avg", of_round % 50 + u16::from(round % 2), round % 3);
            }
        }
        world.commit_batch(builder.build());
        if round == 2 {
            world.store.compact().unwrap();
        } else if round < 5 {
            world.store.flush_now().unwrap();
        }
    }
    world
}

#[tokio::test]
async fn whatever_is_stored_and_however_groups_by_device_are_those_of_datafusion() {
    let world = muddled();
    let ours = world.engine.session().unwrap();
    let alone = of_datafusion_alone(&ours);
    let functions = r#"device, count(*), count("P_avg"), avg("P_avg"), max("Ws_avg"), sum("Ws_avg"),
        min(time), count("Ws_avg.quality"), max(sequence)"#;
    for condition in [
        "true",
        r#""Ws_avg.quality" = 1"#,
        r#""P_avg" > 5 AND time < '2014-01-01T09:00:00Z'"#,
        r#""P_avg" IS NULL"#,
        "device <> 'R80721'",
        "time >= '2014-01-01T13:00:00Z'",
    ] {
        let sql =
            format!(r#"SELECT {functions} FROM "wind-farm" WHERE {condition} GROUP BY device"#);
        assert!(is_by_runs(&ours, &sql).await, "{sql}");
        let groups = answer(&ours, &sql).await;
        assert!(groups.len() >= 2, "{sql}: {groups:?}");
        assert_eq!(groups, answer(&alone, &sql).await, "{sql}");
    }
    let other = r#"SELECT device, "P_avg", count(*) FROM "wind-farm" GROUP BY device, "P_avg""#;
    assert!(!is_by_runs(&ours, other).await, "it has other groups too");
    let one = r#"SELECT device, count(*) FROM "wind-farm" WHERE device = 'R80711' GROUP BY device"#;
    assert_eq!(answer(&ours, one).await, answer(&alone, one).await);
}
