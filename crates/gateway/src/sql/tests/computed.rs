//! Tables of rollups and reductions.

use super::*;

const POLICY: &str = "
kind: Policy
name: analysis
products: [wind-farm]
analysis:
  - rollup: hourly
    points: [P_avg]
    interval: 1h
    functions: [avg, max]
    quiet: 0s
    within: 0s
afterCommit:
  - reduction: slim
    points: [P_avg]
    deadBand: { deviation: 50 }
    restart: 6h
    quiet: 0s
    within: 0s
";

#[tokio::test]
async fn a_rollup_is_a_table_of_its_windows_and_a_reduction_one_of_what_it_keeps() {
    let world = small();
    world.commit(&[
        ("R80711", T0 + 60_000, "P_avg", 110.0),
        ("R80711", T0 + 120_000, "P_avg", 120.0),
    ]);
    world.apply(POLICY);
    world.until_derived(2).await;
    let hourly = r#"SELECT time, device, "P_avg.count", "P_avg.avg", "P_avg.max" FROM "wind-farm_hourly" ORDER BY device, time"#;
    assert_eq!(
        world.cells(hourly).await,
        [
            "2014-01-01T00:00:00Z R80711 3 110.0 120.0",
            "2014-01-01T01:00:00Z R80711 1 300.0 300.0"
        ]
    );
    assert_eq!(
        world
            .cells(r#"SELECT count(*) FROM "wind-farm_hourly" LIMIT 5"#)
            .await,
        ["2"]
    );
    let slim = r#"SELECT time, device, "P_avg" FROM "wind-farm_slim" ORDER BY device, time"#;
    let kept = world.cells(slim).await;
    assert_eq!(kept.first().unwrap(), "2014-01-01T00:00:00Z R80711 100.0");
    assert!(!kept.iter().any(|row| row.contains("110.0")), "{kept:?}");
    let listed = "SELECT rollup, kind, product, table_name, state FROM rollups ORDER BY 1";
    assert_eq!(
        world.cells(listed).await,
        [
            "hourly rollup wind-farm wind-farm_hourly current",
            "slim reduction wind-farm wind-farm_slim current"
        ]
    );
    let columns =
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'wind-farm_hourly'";
    assert_eq!(
        world.cells(columns).await,
        ["time", "device", "P_avg.count", "P_avg.avg", "P_avg.max"]
    );
}

#[tokio::test]
async fn conditions_on_time_and_device_reach_a_rollup() {
    let world = small();
    world.apply(POLICY);
    world.until_derived(2).await;
    let asked = r#"SELECT "P_avg.avg" FROM "wind-farm_hourly"
        WHERE device = 'R80711' AND time >= '2014-01-01T01:00:00Z' AND time < '2014-01-02' ORDER BY time LIMIT 5"#;
    let plan = world.rows(&format!("EXPLAIN {asked}")).await.unwrap();
    let scan = "Scan: wind-farm_hourly, devices=[R80711], from=2014-01-01T01:00:00.000Z, to=2014-01-02T00:00:00.000Z";
    assert!(plan.contains(scan), "{plan}");
    assert!(
        !plan.contains("FilterExec") && !plan.contains("SortExec"),
        "{plan}"
    );
    assert_eq!(world.cells(asked).await, ["300.0"]);
    for nothing in [
        "device = 'no key!'",
        "time < '2013-01-01'",
        "device = 'other'",
    ] {
        let asked = format!(r#"SELECT count(*) FROM "wind-farm_hourly" WHERE {nothing}"#);
        assert_eq!(world.cells(&asked).await, ["0"], "{nothing}");
    }
}

#[tokio::test]
async fn a_product_keeps_its_table_where_a_rollup_would_be_called_the_same() {
    let world = small();
    world.apply(
        "kind: Product\nname: wind-farm_hourly\nkey: p2\nmodel: turbine\n---\nkind: Product\nname: rollups\nkey: p3\nmodel: turbine\n",
    );
    world.apply(POLICY);
    world.until_derived(2).await;
    let named = "SELECT table_name FROM rollups WHERE rollup = 'hourly'";
    assert_eq!(world.cells(named).await, ["rollup_wind-farm_hourly"]);
    let windows = r#"SELECT count(*) FROM "rollup_wind-farm_hourly""#;
    assert_eq!(world.cells(windows).await, ["2"]);
    assert_eq!(
        world
            .cells(r#"SELECT count(*) FROM "wind-farm_hourly""#)
            .await,
        ["0"]
    );
    assert_eq!(
        world.cells("SELECT count(*) FROM product_rollups").await,
        ["0"]
    );
}
