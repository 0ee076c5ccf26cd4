//! Sample payloads of a script over HTTP.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::tests::World;
use crate::limits::{SCRIPT_SAMPLES_BYTES_MAX, SCRIPT_SAMPLES_MAX};

const SAMPLES: &str = "/api/v1/scripts/frames/samples";

async fn world() -> World {
    let world = World::with_farm().await;
    let raw = "kind: Product\nname: meters\nmodel: turbine\nformat: custom\n";
    assert_eq!(world.apply("", raw).await.status, StatusCode::OK);
    let draft = json!({ "product": "meters", "source": "function rawDataToProtocol(b) {}" });
    let path = "/api/v1/scripts/frames/draft";
    let saved = world.tell(Method::PUT, path, draft).await;
    assert_eq!(saved.status, StatusCode::OK, "{}", saved.text);
    world
}

async fn keep(world: &World, name: &str, payload: Value) -> super::tests::Answer {
    let path = format!("{SAMPLES}/{name}");
    world
        .tell(Method::PUT, &path, json!({ "payload": payload }))
        .await
}

#[tokio::test]
async fn a_sample_is_kept_listed_shown_replaced_and_deleted_and_told_in_the_audit_trail() {
    let world = world().await;
    let kept = keep(&world, "one%20frame", json!({ "hex": "01 02" })).await;
    assert_eq!(kept.status, StatusCode::OK, "{}", kept.text);
    assert_eq!(kept.json()["bytes"], 2);
    keep(&world, "one%20frame", json!({ "text": "abc" })).await;
    keep(&world, "another", json!({ "base64": "AQ==" })).await;
    let listed = world.get(SAMPLES).await.json();
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2, "{listed}");
    assert_eq!(
        (&names[0]["name"], &names[1]["bytes"]),
        (&json!("another"), &json!(3))
    );
    assert!(names[0].get("payload").is_none());
    let shown = world.get(&format!("{SAMPLES}/one%20frame")).await.json();
    assert_eq!(shown["payload"], json!({ "text": "abc" }));
    let path = format!("{SAMPLES}/another");
    let gone = world.tell(Method::DELETE, &path, Value::Null).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    world.get(&path).await.problem(404, "not-found");
    let audit = world.get("/api/v1/access/audit?limit=50").await.text;
    for part in ["script-sample", "frames/one frame", "frames/another"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
}

#[tokio::test]
async fn a_sample_that_makes_no_sense_is_refused_by_the_part_that_is_wrong() {
    let world = world().await;
    for (name, payload, place) in [
        ("a", json!({ "hex": "0" }), "payload"),
        ("a", json!({ "base64": "?" }), "payload"),
        ("a", json!({ "text": "" }), "payload"),
        ("a%2Fb", json!({ "text": "x" }), "name"),
        ("a", json!({ "octal": "7" }), "body"),
    ] {
        let problem = keep(&world, name, payload)
            .await
            .problem(400, "bad-request");
        assert_eq!(problem["where"], place);
    }
    let path = "/api/v1/scripts/nobody/samples/a";
    let body = json!({ "payload": { "text": "x" } });
    world
        .tell(Method::PUT, path, body)
        .await
        .problem(404, "not-found");
    world
        .get("/api/v1/scripts/nobody/samples")
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn samples_have_a_bound_in_number_and_in_bytes() {
    let world = world().await;
    for number in 0..SCRIPT_SAMPLES_MAX {
        let kept = keep(&world, &format!("s{number}"), json!({ "text": "x" })).await;
        assert_eq!(kept.status, StatusCode::OK, "{}", kept.text);
    }
    keep(&world, "more", json!({ "text": "x" }))
        .await
        .problem(409, "conflict");
    // One that is there is replaced all the same.
    let kept = keep(&world, "s0", json!({ "text": "y" })).await;
    assert_eq!(kept.status, StatusCode::OK);
    let much = "x".repeat(500_000);
    let fits = SCRIPT_SAMPLES_BYTES_MAX / much.len();
    for number in 0..fits {
        let kept = keep(&world, &format!("s{number}"), json!({ "text": much })).await;
        assert_eq!(kept.status, StatusCode::OK, "{}", kept.text);
    }
    let refused = keep(&world, "s100", json!({ "text": much })).await;
    refused.problem(409, "conflict");
}

#[tokio::test]
async fn samples_go_with_their_script() {
    let world = world().await;
    keep(&world, "a", json!({ "text": "x" })).await;
    let gone = world
        .tell(Method::DELETE, "/api/v1/scripts/frames", Value::Null)
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let draft = json!({ "product": "meters", "source": "function rawDataToProtocol(b) {}" });
    world
        .tell(Method::PUT, "/api/v1/scripts/frames/draft", draft)
        .await;
    assert_eq!(world.get(SAMPLES).await.json(), json!({ "items": [] }));
}
