//! What rules of storage hide is not there, and costs no more than it must.

use backtide_store::{Floor, Keep, PointKeep, Sequence, Thin, Thinning};

use super::*;

/// Keeps of every point of the farm what a rule says.
fn keep(world: &World, floor_ms: i64, thin: Option<Thinning>) {
    let floor = Floor {
        time_ms: floor_ms,
        ..Floor::NONE
    };
    let thin = thin.map(|kind| Thin {
        kind,
        before_ms: i64::MAX,
        quiet: Sequence(u64::MAX),
    });
    let keep = Keep {
        rest: PointKeep::new(floor, thin),
        ..Keep::default()
    };
    let product = ProductKey::new("LHBfarm1").unwrap();
    world.store.set_keeps([(product, keep)].into());
}

#[tokio::test]
async fn what_retention_took_is_not_there_whatever_is_asked() {
    let world = small();
    keep(&world, T0 + 1, None);
    for (asked, rows) in [
        (r#"SELECT count(*) FROM "wind-farm""#, "1"),
        (r#"SELECT count("Ws_avg") FROM "wind-farm""#, "0"),
        (
            r#"SELECT count(*) FROM "wind-farm" WHERE "P_avg" IS NULL"#,
            "0",
        ),
        (r#"SELECT count(*) FROM "wind-farm" WHERE "P_avg" > 5"#, "1"),
        ("SELECT count(*) FROM points", "1"),
    ] {
        assert_eq!(world.cells(asked).await, [rows], "{asked}");
    }
}

#[tokio::test]
async fn a_row_is_there_where_a_rule_shows_any_of_its_values() {
    let world = small();
    world.commit(&[
        ("R80711", T0 + 1_000, "P_avg", 1.0),
        ("R80711", T0 + 1_000, "Ws_avg", 5.0),
        ("R80711", T0 + 2_000, "P_avg", 2.0),
    ]);
    keep(&world, i64::MIN, Some(Thinning::Minute));
    let all = r#"SELECT extract(epoch from time) - 1388534400 AS s, "P_avg", "Ws_avg" FROM "wind-farm" WHERE device = 'R80711' ORDER BY time"#;
    assert_eq!(
        world.cells(all).await,
        ["1.0  5.0", "2.0 2.0 ", "3600.0 300.0 "]
    );
    for (condition, rows) in [
        ("true", "4"),
        (r#""P_avg" IS NOT NULL"#, "2"),
        (r#""P_avg" > 2 AND sequence > 0"#, "1"),
        (r#""P_avg" BETWEEN 2 AND 300"#, "2"),
        (r#""P_avg" IS NULL"#, "2"),
        (r#""P_avg" > 2 OR "Ws_avg" > 4"#, "2"),
    ] {
        let asked = format!(r#"SELECT count(*) FROM "wind-farm" WHERE {condition}"#);
        assert_eq!(world.cells(&asked).await, [rows], "{condition}");
    }
}

#[tokio::test]
async fn a_condition_on_values_spares_the_points_that_nobody_asked_for() {
    let world = World::new(limits::Sql::default());
    let rows = (0..20_000).flat_map(|at| {
        let value = f64::from(u32::try_from(at * 7_919 % 99_991).unwrap()) / 7.0;
        let time_ms = T0 + at * 30_000;
        [
            ("R80711", time_ms, "P_avg", value),
            ("R80711", time_ms + 1, "Ws_avg", value / 3.0),
        ]
    });
    world.commit(&rows.collect::<Vec<_>>());
    world.store.compact().unwrap();
    keep(&world, i64::MIN, Some(Thinning::Minute));
    let read_by = async |condition: &str| {
        let before = world.read_bytes.load(Ordering::Relaxed);
        let asked = format!(r#"SELECT count("P_avg") FROM "wind-farm" WHERE {condition}"#);
        let count = world.cells(&asked).await.remove(0);
        (count, world.read_bytes.load(Ordering::Relaxed) - before)
    };
    let (all, joined_bytes) = read_by("true").await;
    let (same, own_bytes) = read_by(r#""P_avg" IS NOT NULL"#).await;
    assert_eq!((all.as_str(), same.as_str()), ("10000", "10000"));
    assert!(
        own_bytes * 5 < joined_bytes * 4,
        "{own_bytes} of {joined_bytes}"
    );
    let asked = r#"EXPLAIN SELECT "P_avg" FROM "wind-farm" WHERE "P_avg" > 5"#;
    let plan = world.rows(asked).await.unwrap();
    assert!(plan.contains("rows with a value, points=[P_avg]"), "{plan}");
}
