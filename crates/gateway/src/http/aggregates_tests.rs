//! Aggregates, coverage, filters and formats over HTTP, against a real store.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    history_tests::{T0, farm_with_rows, store},
    tests::World,
};
use crate::limits::READS_PER_CALLER_MAX;

const HOUR_MS: i64 = 3_600_000;
const ASKED: &str = "/api/v1/points/aggregates?product=wind-farm&points=P_avg";

/// Device, hours since [`T0`] and a function's column.
fn told(page: &Value, column: &str) -> Vec<(String, i64, Value)> {
    let rows = page["items"].as_array().unwrap().iter();
    rows.map(|row| {
        let hours = (row["time"].as_i64().unwrap() - T0) / HOUR_MS;
        let device = row["deviceKey"].as_str().unwrap().to_owned();
        (device, hours, row[column].clone())
    })
    .collect()
}

async fn farm_of_a_day() -> World {
    let world = World::with_farm().await;
    let rows: Vec<(&str, i64, f64)> = (0_i32..6)
        .flat_map(|hour| {
            let time_ms = T0 + i64::from(hour) * HOUR_MS;
            [
                ("R80711", time_ms, f64::from(hour)),
                ("R80711", time_ms + 60_000, f64::from(hour) + 1.0),
                ("R80721", time_ms, -1.0),
            ]
        })
        .filter(|(_, time_ms, _)| *time_ms / HOUR_MS % 6 != 3)
        .collect();
    store(&world, &rows);
    world
}

#[tokio::test]
async fn aggregates_come_by_device_then_time_and_the_same_by_post() {
    let world = farm_of_a_day().await;
    let page = world
        .get(&format!("{ASKED}&aggregate=avg,count&interval=2h"))
        .await
        .json();
    let expected: Vec<_> = [
        ("R80711", 0, json!(1.0)),
        ("R80711", 2, json!(2.5)),
        ("R80711", 4, json!(5.0)),
        ("R80721", 0, json!(-1.0)),
        ("R80721", 2, json!(-1.0)),
        ("R80721", 4, json!(-1.0)),
    ]
    .map(|(device, hours, avg)| (device.to_owned(), hours, avg))
    .into();
    assert_eq!(told(&page, "P_avg.avg"), expected);
    assert_eq!(page["items"][1]["P_avg.count"], 2);
    let body = json!({
        "product": "wind-farm", "device": ["R80711"], "points": "P_avg", "aggregate": ["avg", "count"],
        "interval": "2h",
    });
    let posted = world
        .tell(Method::POST, "/api/v1/points/aggregates", body)
        .await
        .json();
    assert_eq!(
        posted["items"].as_array().unwrap()[..],
        page["items"].as_array().unwrap()[..3]
    );
    let csv = world
        .get(&format!(
            "{ASKED}&aggregate=max&interval=1d&timezone=Asia/Tokyo&format=csv"
        ))
        .await;
    assert_eq!(
        csv.text,
        "deviceKey,time,P_avg.max\nR80711,2013-12-31T15:00:00.000Z,6.0\nR80721,2013-12-31T15:00:00.000Z,-1.0\n"
    );
    let long = world
        .get(&format!(
            "{ASKED}&device=R80711&aggregate=min,lastTime&form=long&format=csv"
        ))
        .await;
    assert_eq!(
        long.text,
        "deviceKey,time,point,min,lastTime\n\
         R80711,2014-01-01T00:00:00.000Z,P_avg,0.0,2014-01-01T05:01:00.000Z\n"
    );
}

#[tokio::test]
async fn pages_of_windows_follow_each_other_to_the_end() {
    let world = farm_of_a_day().await;
    for more in [
        "",
        "&fill=previous&to=2014-01-01T09:00:00Z",
        "&fill=null&from=2013-12-31T22:00:00Z",
    ] {
        let asked = format!("{ASKED}&aggregate=avg,twa&interval=1h{more}");
        let whole = world.get(&asked).await.json();
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = world.get(&format!("{asked}&limit=4{cursor}")).await.json();
            found.extend(page["items"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(json!(found), whole["items"], "{more}");
        assert!(found.len() > 8);
    }
}

#[tokio::test]
async fn many_devices_are_folded_side_by_side_and_come_in_order() {
    let world = World::with_farm().await;
    let keys: Vec<String> = (0..70).map(|number| format!("T{number:03}")).collect();
    let declared =
        |key: &String| format!("---\nkind: Device\nname: {key}\nproduct: wind-farm\nkey: {key}\n");
    let yaml: String = keys.iter().map(declared).collect();
    assert_eq!(world.apply("", &yaml).await.status.as_u16(), 200);
    // One that nobody declares any more, and some without values.
    let stored = keys
        .iter()
        .map(String::as_str)
        .chain(["Lost", "T0105"])
        .filter(|key| !key.ends_with('7'));
    let rows: Vec<(&str, i64, f64)> = stored
        .flat_map(|key| (0_i64..20).map(move |at| (key, T0 + at * HOUR_MS / 2, 0.5)))
        .collect();
    store(&world, &rows);
    let listed = format!("&device={}", keys.join(","));
    for asked in [
        format!("{ASKED}&aggregate=avg,twa&interval=1h&fill=previous&to=2014-01-02T00:00:00Z"),
        format!("{ASKED}&aggregate=avg,twa&interval=1h{listed}"),
        "/api/v1/points/coverage?product=wind-farm&gap=1h&to=2014-01-02T00:00:00Z".to_owned(),
    ] {
        let page = world.get(&format!("{asked}&limit=10000")).await.json();
        let lines = world.get(&format!("{asked}&format=ndjson")).await.text;
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(lines.len() > 200, "{asked}");
        assert_eq!(json!(lines), page["items"], "{asked}");
    }
}

#[tokio::test]
async fn a_wrong_question_about_aggregates_is_answered_by_name() {
    let world = farm_of_a_day().await;
    let raw = world
        .get("/api/v1/points?product=wind-farm&points=P_avg&limit=1")
        .await
        .json();
    let raw = format!("aggregate=avg&cursor={}", raw["next"].as_str().unwrap());
    for (query, place, told) in [
        ("interval=1h", "query", "aggregate"),
        ("aggregate=", "aggregate", "no function"),
        ("aggregate=median", "aggregate", "median"),
        ("aggregate=avg&interval=1x", "interval", "1mo"),
        ("aggregate=avg&hold=1mo", "hold", "2d"),
        ("aggregate=avg&timezone=Mars", "timezone", "Mars"),
        (
            "aggregate=avg&from=2014-01-01T00:00:00",
            "from, to",
            "timezone",
        ),
        (
            "aggregate=avg&timezone=Europe/Paris&from=2014-03-30T02:30",
            "from, to",
            "+02:00",
        ),
        ("aggregate=avg&filter=x%3D1", "filter", "x is not"),
        ("aggregate=avg&fill=cubic", "query", "cubic"),
        (raw.as_str(), "cursor", "cursor"),
    ] {
        let answer = world.get(&format!("{ASKED}&{query}")).await;
        let problem = answer.problem(400, "bad-request");
        assert_eq!(problem["where"], place, "{query}");
        assert!(problem.to_string().contains(told), "{query}: {problem}");
    }
}

#[tokio::test]
async fn what_is_there_and_what_is_missing_is_told_of_each_point() {
    let world = farm_of_a_day().await;
    let asked = "/api/v1/points/coverage?product=wind-farm&points=P_avg,Ws_avg&from=2014-01-01&to=2014-01-02\
                 &timezone=UTC";
    let page = world
        .get(&format!("{asked}&device=R80711&gap=90m"))
        .await
        .json();
    assert_eq!(
        page["items"],
        json!([
            {
                "deviceKey": "R80711", "time": T0, "point": "P_avg", "count": 10, "firstTime": T0,
                "lastTime": T0 + 5 * HOUR_MS + 60_000, "gaps": 2, "longestGap": 19 * HOUR_MS - 60_000,
                "gapList": [
                    {"from": T0 + 2 * HOUR_MS + 60_000, "to": T0 + 4 * HOUR_MS},
                    {"from": T0 + 5 * HOUR_MS + 60_000, "to": T0 + 24 * HOUR_MS},
                ]
            },
            {
                "deviceKey": "R80711", "time": T0, "point": "Ws_avg", "count": 0, "gaps": 1,
                "longestGap": 24 * HOUR_MS, "gapList": [{"from": T0, "to": T0 + 24 * HOUR_MS}]
            }
        ])
    );
    let windows = world
        .get(&format!("{asked}&device=R80711&interval=6h&format=csv"))
        .await
        .text;
    let counts: Vec<_> = windows
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(3).unwrap())
        .collect();
    assert_eq!(counts, ["10", "0", "0", "0", "0", "0", "0", "0"]);
    world
        .get(&format!("{asked}&gap=1h&interval=1h"))
        .await
        .problem(400, "bad-request");
    let all = world.get(&asked.replace(",Ws_avg", "")).await.json();
    assert_eq!(
        all["items"].as_array().unwrap().len(),
        2,
        "also of devices that are gone"
    );
}

#[tokio::test]
async fn values_that_a_filter_refuses_are_as_if_they_were_not_stored() {
    let world = farm_with_rows().await;
    let asked = "/api/v1/points?product=wind-farm&points=P_avg&filter=P_avg%3E0,P_avg%3C1";
    assert_eq!(
        world.get(asked).await.json()["items"],
        json!([{"deviceKey": "R80721", "time": T0, "P_avg": 0.1}])
    );
    let counted = world
        .get(&format!("{ASKED}&aggregate=count&filter=P_avg%3C0"))
        .await
        .json();
    assert_eq!(counted["items"].as_array().unwrap().len(), 1);
    let body = json!({"product": "wind-farm", "points": ["P_avg"], "filter": "P_avg>0,P_avg<1"});
    let posted = world
        .tell(Method::POST, "/api/v1/points/query", body)
        .await
        .json();
    assert_eq!(posted, world.get(asked).await.json());
    let first = world.get(&format!("{asked}&limit=1")).await.json();
    let next = first["next"].as_str().unwrap();
    let rest = world
        .get(&format!("{asked}&limit=1&cursor={next}"))
        .await
        .json();
    assert_eq!(rest["items"], json!([]));
}

#[tokio::test]
async fn local_times_are_read_in_their_zone() {
    let world = farm_with_rows().await;
    let asked = "/api/v1/points?product=wind-farm&points=P_avg&timezone=Europe/Paris";
    let count = async |bounds: &str| {
        let page = world.get(&format!("{asked}{bounds}")).await.json();
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(count("&from=2014-01-01T01:00").await, 3);
    assert_eq!(count("&from=2014-01-01T01:00:00.001").await, 1);
    assert_eq!(count("&to=2014-01-01T01:10").await, 2);
    assert_eq!(count("&from=2014-01-01T01:10%5BEurope/Paris%5D").await, 1);
}

#[tokio::test]
async fn an_arrow_stream_holds_the_same_rows() {
    let world = farm_of_a_day().await;
    for (asked, rows, columns) in [
        (
            format!("{ASKED}&aggregate=avg,firstTime&interval=1h"),
            10,
            vec!["deviceKey", "time", "P_avg.avg", "P_avg.firstTime"],
        ),
        (
            "/api/v1/points?product=wind-farm&points=P_avg,state".to_owned(),
            15,
            vec!["deviceKey", "time", "P_avg", "state"],
        ),
        (
            "/api/v1/points?product=wind-farm&points=P_avg&form=long".to_owned(),
            15,
            vec!["deviceKey", "time", "point", "value"],
        ),
    ] {
        let bytes = world.bytes(&format!("{asked}&format=arrow")).await;
        let reader = arrow_ipc::reader::StreamReader::try_new(bytes.as_ref(), None).unwrap();
        let schema = reader.schema();
        let names: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        assert_eq!(names, columns);
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(
            batches
                .iter()
                .map(arrow_array::RecordBatch::num_rows)
                .sum::<usize>(),
            rows
        );
    }
}

#[tokio::test]
async fn a_caller_with_too_many_reads_is_told_when_to_try_again() {
    let world = farm_with_rows().await;
    let mut seats: Vec<_> = (0..READS_PER_CALLER_MAX)
        .map(|_| world.api.reads.take("admin.token").unwrap())
        .collect();
    let refused = world.get(&format!("{ASKED}&aggregate=avg")).await;
    refused.problem(429, "too-many");
    assert_eq!(refused.headers["retry-after"], "5");
    seats.pop();
    let answer = world.get(&format!("{ASKED}&aggregate=avg")).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(
        world.api.reads.taken(),
        seats.len(),
        "a seat is free once the answer is made"
    );
}

#[tokio::test]
async fn a_read_ends_when_its_client_leaves() {
    let world = World::with_farm().await;
    let rows: Vec<_> = (0..40_000)
        .map(|at| ("R80711", T0 + 60_000 * at, 0.5))
        .collect();
    store(&world, &rows);
    for asked in [
        "/api/v1/points?product=wind-farm&points=P_avg&format=ndjson".to_owned(),
        format!("{ASKED}&aggregate=avg&interval=1m&format=ndjson"),
    ] {
        let mut reading = world.open(&asked).await;
        assert!(reading.chunk().await.starts_with("{\"deviceKey\""));
        assert_eq!(world.api.reads.taken(), 1, "most of it is still to be read");
        drop(reading);
        tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while world.api.reads.taken() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the read ends");
    }
}
