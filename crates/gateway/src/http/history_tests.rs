//! History over HTTP, against a real store.

use axum::http::StatusCode;
use backtide_model::{
    BatchBuilder, Cell, ChannelName, Code, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
    ProductKey,
};
use backtide_store::{Commit, Origin, Part, Refused, RefusedItem};
use serde_json::json;

use super::tests::World;
use crate::channel_log::{Entry, What};

pub(super) const T0: i64 = 1_388_534_400_000;

fn origin() -> Origin {
    Origin {
        channel: ChannelName::new("scada-history").unwrap(),
        client: "client-1".into(),
        topic: "/sys/LHBfarm1/integration/measurepoint/post".into(),
        message_id: "\"41\"".into(),
        packet_id: None,
        policies: None,
        arrived_ms: 1_700_000_000_000,
    }
}

fn commit(world: &World, part: Part) {
    let product = ProductKey::new("LHBfarm1").unwrap();
    let commit = Commit {
        origin: origin(),
        product,
        parts: vec![part],
        redrive: None,
    };
    world
        .api
        .store
        .commit(vec![commit])
        .unwrap()
        .remove(0)
        .unwrap();
}

/// Rows of (device, time, P_avg).
pub(super) fn store(world: &World, rows: &[(&str, i64, f64)]) {
    let mut builder = BatchBuilder::new();
    for (device, time_ms, value) in rows {
        builder.row(&DeviceKey::new(device).unwrap(), *time_ms);
        let point = ElementName::new("P_avg").unwrap();
        builder.cell(
            &point,
            ConflictPolicy::KeepLast,
            Cell::Double(*value),
            NO_QUALITY,
        );
    }
    commit(world, Part::Points(builder.build()));
}

pub(super) async fn farm_with_rows() -> World {
    let world = World::with_farm().await;
    store(
        &world,
        &[
            ("R80711", T0, 642.78003),
            ("R80721", T0, 0.1),
            ("R80711", T0 + 600_000, -1.0),
        ],
    );
    world
}

#[tokio::test]
async fn points_come_in_the_order_of_time_in_every_format() {
    let world = farm_with_rows().await;
    let asked = "/api/v1/points?product=wind-farm&points=P_avg";
    let page = world.get(asked).await.json();
    assert_eq!(
        page["items"],
        json!([
            {"deviceKey": "R80711", "time": T0, "P_avg": 642.78003},
            {"deviceKey": "R80721", "time": T0, "P_avg": 0.1},
            {"deviceKey": "R80711", "time": T0 + 600_000, "P_avg": -1.0}
        ])
    );
    let csv = world.get(&format!("{asked}&format=csv")).await;
    assert!(
        csv.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/csv")
    );
    assert_eq!(
        csv.text,
        "deviceKey,time,P_avg\nR80711,2014-01-01T00:00:00.000Z,642.78003\n\
         R80721,2014-01-01T00:00:00.000Z,0.1\nR80711,2014-01-01T00:10:00.000Z,-1.0\n"
    );
    let lines = world
        .get(&format!("{asked}&format=ndjson&limit=1&from={T0}"))
        .await;
    assert_eq!(
        lines.text,
        format!("{{\"deviceKey\":\"R80711\",\"time\":{T0},\"P_avg\":642.78003}}\n")
    );
}

#[tokio::test]
async fn a_range_without_rows_still_has_its_header() {
    let world = farm_with_rows().await;
    let csv = world
        .get("/api/v1/points?device=R80711&points=P_avg&to=0&format=csv")
        .await;
    assert_eq!(csv.text, "deviceKey,time,P_avg\n");
}

#[tokio::test]
async fn pages_of_points_follow_each_other_to_the_end() {
    let world = farm_with_rows().await;
    let mut times = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/points?product=wind-farm&points=P_avg&limit=2{cursor}");
        let page = world.get(&path).await.json();
        times.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["time"].clone()),
        );
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(times, [json!(T0), json!(T0), json!(T0 + 600_000)]);
}

#[tokio::test]
async fn a_wrong_question_is_answered_by_name() {
    let world = farm_with_rows().await;
    for (query, status, code, named) in [
        ("device=nobody", 404, "not-found", "nobody"),
        ("device=R80711&points=Px", 404, "not-found", "Px"),
        ("product=nothing", 404, "not-found", "nothing"),
        (
            "device=R80711&from=yesterday",
            400,
            "bad-request",
            "yesterday",
        ),
        ("device=R80711&cursor=x", 400, "bad-request", "cursor"),
        ("device=R80711&limit=0", 400, "bad-request", "limit"),
        ("device=R80711&colour=red", 400, "bad-request", "colour"),
    ] {
        let answer = world.get(&format!("/api/v1/points?{query}")).await;
        let problem = answer.problem(status, code);
        assert!(
            problem["detail"].as_str().unwrap().contains(named),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_parquet_file_holds_the_same_rows() {
    let world = farm_with_rows().await;
    let bytes = world
        .bytes("/api/v1/points?product=wind-farm&format=parquet")
        .await;
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes, 100)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(reader.num_rows(), 3);
    let names: Vec<_> = reader
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(names[..2], ["deviceKey", "time"]);
    assert!(
        names.contains(&"Ws_avg".to_owned()),
        "a point without values is a column too"
    );
}

#[tokio::test]
async fn the_latest_value_is_the_one_of_the_greatest_time() {
    let world = farm_with_rows().await;
    store(&world, &[("R80711", T0 - 1, 7.0)]);
    let page = world
        .get("/api/v1/latest?device=R80711&points=P_avg")
        .await
        .json();
    assert_eq!(
        page["items"],
        json!([{"deviceKey": "R80711", "points": {"P_avg": {"time": T0 + 600_000, "value": -1.0}}}])
    );
}

#[tokio::test]
async fn a_changed_value_is_listed_with_both_values_and_receipts() {
    let world = farm_with_rows().await;
    store(&world, &[("R80711", T0, 5.5), ("R80721", T0, 0.1)]);
    let store = world.api.store.clone();
    world
        .api
        .pool
        .run(move || store.compact().unwrap())
        .await
        .unwrap();
    let page = world.get("/api/v1/conflicts?device=R80711").await.json();
    assert_eq!(
        (page["total"].clone(), page["complete"].clone()),
        (json!(1), json!(true))
    );
    let change = &page["items"][0];
    assert_eq!(change["overwritten"], 642.78003);
    assert_eq!(change["kept"], 5.5);
    assert_eq!(change["time"], T0);
    assert_eq!(change["keptChannel"], "scada-history");
    let receipt = change["keptReceipt"].as_str().unwrap();
    let message = world
        .get(&format!("/api/v1/receipts/{receipt}"))
        .await
        .json();
    assert_eq!(message["sequence"], 2);
    assert_eq!(message["messageId"], "\"41\"");
    let rows = world.get("/api/v1/conflicts?by=row").await.json();
    assert_eq!(rows["items"][0]["conflicts"], 1);
    world
        .get("/api/v1/receipts/00000000-9")
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn a_receipt_is_known_before_its_message_is_in_a_segment() {
    let world = farm_with_rows().await;
    let receipt = world.api.store.receipt(backtide_store::Sequence(1));
    let message = world
        .get(&format!("/api/v1/receipts/{receipt}"))
        .await
        .json();
    assert_eq!(message["channel"], "scada-history");
}

#[tokio::test]
async fn what_was_refused_is_listed_shown_and_exported() {
    let world = World::with_farm().await;
    for _ in 0..3 {
        commit(
            &world,
            Part::Refused(Refused {
                code: Code::UnknownDevice,
                raw: br#"{"id":"41"}"#.as_slice().into(),
                payload_bytes: 11,
                payload_sha256: [1; 32],
                items: vec![RefusedItem {
                    index: Some(0),
                    device: Some("nobody".into()),
                    point: None,
                    script_version: None,
                    code: Code::UnknownDevice,
                    message: "device nobody not found".into(),
                }],
                more: 0,
            }),
        );
    }
    let page = world
        .get("/api/v1/quarantine?limit=2&device=nobody")
        .await
        .json();
    assert_eq!(
        (page["items"].as_array().unwrap().len(), &page["next"]),
        (2, &json!("2"))
    );
    let rest = world
        .get("/api/v1/quarantine?limit=2&cursor=2")
        .await
        .json();
    assert_eq!(rest["items"][0]["id"], "3");
    let causes = world.get("/api/v1/quarantine/causes").await.json();
    assert_eq!(causes["items"][0]["entries"], 3);
    let shown = world.get("/api/v1/quarantine/1").await.json();
    assert_eq!(shown["payload"], r#"{"id":"41"}"#);
    assert_eq!(shown["payloadBase64"], "eyJpZCI6IjQxIn0=");
    let lines = world.get("/api/v1/quarantine/export?code=1257").await.text;
    assert_eq!(lines.lines().count(), 3);
    world
        .get("/api/v1/quarantine/99")
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn the_log_of_a_channel_is_listed_and_followed() {
    let world = World::with_farm().await;
    let note = |time_ms, message: &str| {
        world.api.log.note(Entry {
            time_ms,
            channel: ChannelName::new("scada-history").unwrap(),
            client: "client-1".into(),
            what: What::Error {
                topic: None,
                code: Some(1257),
                message: message.into(),
                device_key: None,
                point: None,
            },
        });
    };
    note(1, "first");
    note(2, "second");
    let path = "/api/v1/channels/scada-history/log";
    let page = world
        .get(&format!("{path}?kind=error&text=SECOND"))
        .await
        .json();
    assert_eq!(page["items"][0]["message"], "second");
    assert_eq!(page["items"][0]["clientId"], "client-1");
    world
        .get("/api/v1/channels/nowhere/log")
        .await
        .problem(404, "not-found");
    world
        .get(&format!("{path}?kind=x"))
        .await
        .problem(400, "bad-request");

    let mut follower = world
        .open(&format!("{path}?follow=true&tail=true&limit=1"))
        .await;
    assert_eq!(follower.status, StatusCode::OK);
    assert!(follower.chunk().await.contains("second"));
    note(3, "third");
    assert!(follower.chunk().await.contains("third"));
    world.api.closing.cancel();
    assert_eq!(follower.chunk().await, "", "the stream ends with the door");
}
