//! Uploads through the door, over a real store and quarantine.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{Request, header},
};
use serde_json::{Value, json};

use super::tests::{Answer, World};

fn post(query: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method("POST")
        .uri(format!("/api/v1/imports?channel=scada-history&{query}"))
        .header(header::AUTHORIZATION, "Bearer t0ken")
        .body(body)
        .unwrap()
}

async fn upload(world: &World, query: &str, body: impl Into<Body>) -> Answer {
    world.send(post(query, body.into())).await
}

async fn stored(world: &World) -> usize {
    let page = world.get("/api/v1/points?product=wind-farm").await.json();
    page["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_rows_of_a_file_are_stored_and_each_bad_one_is_in_quarantine_with_its_number() {
    let world = World::with_farm().await;
    let text = "deviceKey,time,P_avg\nR80711,0,1.5\nnobody,0,1\nR80711,noon,1\nR80711,1000,x\nR80711,2000,\nR80711,3000,2\nR80711,1\n";
    let answer = upload(&world, "file=a.csv", text).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
    let import = answer.json();
    assert_eq!(import["state"], "complete");
    assert_eq!(answer.headers["location"], "/api/v1/imports/1");
    let rows =
        json!({"answered": 7, "stored": 2, "rejected": 4, "empty": 1, "values": 4, "messages": 4});
    assert_eq!(import["rows"], rows);
    assert_eq!(stored(&world).await, 2);
    let kept = world
        .get("/api/v1/quarantine?clientId=import:1")
        .await
        .json();
    let reasons: Vec<String> = kept["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| entry["rejected"].as_array().unwrap())
        .map(|item| item["message"].as_str().unwrap().to_owned())
        .collect();
    for (row, why) in [
        ("row 2: ", "nobody"),
        ("row 3: ", "noon"),
        ("row 4: ", "P_avg"),
        ("row 7: ", "2 cells"),
    ] {
        let found = reasons
            .iter()
            .any(|reason| reason.starts_with(row) && reason.contains(why));
        assert!(found, "{row}{why}: {reasons:?}");
    }
    let other = world
        .get("/api/v1/quarantine?clientId=import:2")
        .await
        .json();
    assert_eq!(other["items"], json!([]));
    let list = world.get("/api/v1/imports").await.json();
    let mut shown = world.get("/api/v1/imports/1").await.json();
    let repeated = shown.as_object_mut().unwrap().remove("repeated");
    // Nothing was there; it is not compared before it is flushed.
    assert_eq!(repeated, Some(json!({ "values": 0, "complete": false })));
    let conflicts = shown.as_object_mut().unwrap().remove("conflicts");
    assert_eq!(conflicts, repeated);
    assert_eq!(list["items"][0], shown);
}

#[tokio::test]
async fn a_file_that_breaks_off_keeps_what_is_answered_and_the_same_file_again_completes_it() {
    let world = World::with_farm().await;
    let rows: Vec<String> = (0..3_000)
        .map(|n| format!("R80711,{},{n}\n", n * 1_000))
        .collect();
    let head = "deviceKey,time,P_avg\n";
    let half = Bytes::from(head.to_owned() + &rows[..2_000].concat() + "R80711,99");
    let body = futures::stream::iter([
        Ok(half),
        Err(io::Error::from(io::ErrorKind::ConnectionReset)),
    ]);
    let answer = upload(&world, "file=a.csv", Body::from_stream(body)).await;
    let problem = answer.problem(400, "interrupted");
    let import = world.get("/api/v1/imports/1").await.json();
    assert_eq!(import["state"], "interrupted");
    let answered = import["rows"]["answered"].as_u64().unwrap();
    assert_eq!(import["rows"]["stored"], answered);
    assert!(
        problem["detail"].as_str().unwrap().contains("import 1"),
        "{problem}"
    );
    let whole = head.to_owned() + &rows.concat();
    let again = upload(&world, "file=a.csv", whole.clone()).await.json();
    assert_eq!(
        (&again["state"], &again["rows"]["stored"]),
        (&json!("complete"), &json!(3_000))
    );
    let rest = upload(&world, "file=a.csv&skipRows=2500", whole)
        .await
        .json();
    assert_eq!(rest["rows"]["stored"], 500);
    let page = world
        .get("/api/v1/points?product=wind-farm&limit=10000")
        .await
        .json();
    assert_eq!(page["items"].as_array().unwrap().len(), 3_000);
}

#[tokio::test]
async fn long_files_packed_ones_and_content_types_are_understood() {
    let world = World::with_farm().await;
    let long = "tag,at,turbine,value\nP_avg,2014-03-30 03:30:00,R80711,1.5\nws,2014-03-30 03:30:00,R80711,7\n";
    let packed = zstd::encode_all(long.as_bytes(), 3).unwrap();
    let query =
        "pointColumn=tag&timeColumn=at&deviceColumn=turbine&map=ws=Ws_avg&timezone=Europe/Paris";
    let answer = upload(&world, &format!("file=x.csv.zst&{query}"), packed).await;
    assert_eq!(answer.json()["rows"]["stored"], 2, "{}", answer.text);
    let page = world.get("/api/v1/points?product=wind-farm").await.json();
    assert_eq!(
        page["items"],
        json!([{"deviceKey": "R80711", "time": 1_396_143_000_000_i64, "P_avg": 1.5, "Ws_avg": 7.0}])
    );
    let ndjson = "{\"deviceKey\":\"R80711\",\"time\":0,\"P_avg\":1}\n";
    let mut request = post("mapping=device-column:+deviceKey", Body::from(ndjson));
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        "application/x-ndjson".parse().unwrap(),
    );
    assert_eq!(world.send(request).await.json()["rows"]["stored"], 1);
}

#[tokio::test]
async fn what_makes_no_sense_is_named_and_nothing_of_it_is_kept() {
    let world = World::with_farm().await;
    let csv = "deviceKey,time,P_avg\nR80711,0,1\n";
    upload(&world, "", csv)
        .await
        .problem(415, "unsupported-media-type");
    upload(&world, "file=a.xls", csv)
        .await
        .problem(400, "bad-request");
    let problem = upload(&world, "file=a.csv&timeColumn=at", csv)
        .await
        .problem(422, "import");
    assert!(
        problem["detail"].as_str().unwrap().contains("at"),
        "{problem}"
    );
    let hopeless = "deviceKey,time,P_avg\n".to_owned() + &"R80711,noon,1\n".repeat(500);
    let problem = upload(&world, "file=a.csv", hopeless)
        .await
        .problem(422, "import");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("row 1: \"noon\""),
        "{problem}"
    );
    upload(&world, "file=a.parquet", csv)
        .await
        .problem(422, "import");
    let kept: Value = world.get("/api/v1/quarantine").await.json();
    assert_eq!(kept["items"], json!([]));
    let none = Request::builder()
        .method("POST")
        .uri("/api/v1/imports?channel=none&file=a.csv")
        .header(header::AUTHORIZATION, "Bearer t0ken")
        .body(Body::from(csv))
        .unwrap();
    world.send(none).await.problem(404, "not-found");
}

#[tokio::test]
async fn an_import_that_waits_for_its_client_is_cancelled_and_one_that_ended_is_not() {
    let world = World::with_farm().await;
    // A client that has more to say, and says nothing.
    let (give, pieces) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(4);
    let body = Body::from_stream(futures::stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    }));
    let text = Bytes::from_static(b"deviceKey,time,P_avg\nR80711,0,1.5\n");
    give.send(Ok(text)).await.unwrap();
    let cancelled = async {
        loop {
            let import = world.get("/api/v1/imports/1").await;
            if import.status.is_success() {
                break;
            }
            tokio::task::yield_now().await;
        }
        world.send(request("/api/v1/imports/1/cancel")).await
    };
    let (ended, told) = tokio::join!(world.send(post("file=a.csv", body)), cancelled);
    assert_eq!(told.status.as_u16(), 202, "{}", told.text);
    assert_eq!(ended.status.as_u16(), 400, "{}", ended.text);
    assert_eq!(ended.json()["code"], "interrupted");
    let import = world.get("/api/v1/imports/1").await.json();
    assert_eq!(import["state"], "interrupted");
    assert_eq!(import["error"], "it was cancelled");
    let again = world.send(request("/api/v1/imports/1/cancel")).await;
    assert_eq!(again.status.as_u16(), 409, "{}", again.text);
    let none = world.send(request("/api/v1/imports/7/cancel")).await;
    assert_eq!(none.status.as_u16(), 404, "{}", none.text);
    drop(give);
}

fn request(path: &str) -> Request<Body> {
    Request::builder()
        .method("POST")
        .uri(path)
        .header(header::AUTHORIZATION, "Bearer t0ken")
        .body(Body::empty())
        .unwrap()
}
