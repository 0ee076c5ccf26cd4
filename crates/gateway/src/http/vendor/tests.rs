//! The vendor-compatible API without sockets, over a registry and a store of the test's own.

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode},
};
use backtide_model::{
    BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY, ProductKey,
};
use backtide_store::{
    Commit, Origin, Part,
    disk::{Disk, RealDisk},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use openssl::{pkey::PKey, rsa::Padding};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::*;
use crate::{
    http::{self, router},
    registry::{Form, Run, read},
};

const NOW_MS: i64 = 1_700_000_000_000;
const AK: &str = "11111111-2222-3333-4444-555555555555";
const FARM: &str = "\
kind: Model
name: turbine
measurepoints:
  P: { type: double, signal: AI, quality: true }
  state: { type: int, signal: DI }
  energy: { type: long, signal: PI }
  note: { type: string }
attributes: { rated: { type: int } }
---
kind: Product
name: wind
key: pk1
model: turbine
---
kind: Device
name: T1
product: wind
key: T1
assetId: a1
timezone: Europe/Paris
---
kind: Device
name: T2
product: wind
key: T2
assetId: a2
timezone: Asia/Shanghai
---
kind: Channel
name: history
product: wind
---
kind: AccessKey
name: analytics
key: 11111111-2222-3333-4444-555555555555
rights: [query, manage, integrate]
---
kind: AccessKey
name: subscriber
";

pub(super) struct World {
    _dir: tempfile::TempDir,
    pub(super) api: Arc<Api>,
    posted: Arc<Mutex<Vec<Posted>>>,
    token: String,
}

impl World {
    pub(super) fn new() -> Self {
        Self::on(Arc::new(RealDisk))
    }

    pub(super) fn on(disk: Arc<dyn Disk>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut api = http::tests::api_on(disk, dir.path(), "t0ken".into());
        let posted: Arc<Mutex<Vec<Posted>>> = Arc::default();
        let seen = Arc::clone(&posted);
        api.integrate = Box::new(move |message| {
            seen.lock().push(message);
            Box::pin(async {
                Ok(Verdict {
                    code: backtide_model::Code::Ok,
                    reply: "{}".into(),
                })
            })
        });
        let documents = read(FARM, Form::Yaml).unwrap();
        api.registry.apply(documents, Run::Commit).unwrap();
        let token = token_of(&api, "analytics");
        Self {
            _dir: dir,
            api: Arc::new(api),
            posted,
            token,
        }
    }

    pub(super) fn store(&self, device: &str, rows: &[(i64, &str, Cell, u8)]) {
        let mut batch = BatchBuilder::new();
        for (time_ms, point, cell, quality) in rows {
            batch.row(&DeviceKey::new(device).unwrap(), *time_ms);
            let point = ElementName::new(point).unwrap();
            batch.cell(&point, ConflictPolicy::KeepLast, cell.clone(), *quality);
        }
        let commit = Commit {
            origin: Origin {
                channel: ChannelName::new("history").unwrap(),
                client: "c".into(),
                topic: "t".into(),
                message_id: "1".into(),
                policies: None,
                packet_id: None,
                arrived_ms: NOW_MS,
            },
            product: ProductKey::new("pk1").unwrap(),
            parts: vec![Part::Points(batch.build())],
            redrive: None,
        };
        let mut committed = self.api.store.commit(vec![commit]).unwrap();
        committed.remove(0).unwrap();
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = router(Arc::clone(&self.api))
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")),
        )
    }

    /// The answer, as it comes.
    pub(super) async fn open(&self, path: &str, body: &Value) -> Response {
        let request = Request::post(path)
            .header("apim-accesstoken", &self.token)
            .header("content-type", "application/json");
        let request: Request<Body> = request.body(body.to_string().into()).unwrap();
        router(Arc::clone(&self.api))
            .oneshot(request)
            .await
            .unwrap()
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Value {
        let body = self.open(path, &body).await.into_body();
        serde_json::from_slice(&to_bytes(body, usize::MAX).await.unwrap()).unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let request = Request::get(path).header("apim-accesstoken", &self.token);
        self.send(request.body(Body::empty()).unwrap()).await.1
    }

    async fn message(&self, action: &str, message: &str) -> Value {
        let path = format!("/connect-service/v2.1/integration?action={action}&orgId=o1");
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"enos-message\"\r\n\r\n{message}\r\n--b--\r\n"
        );
        let request = Request::post(path)
            .header("apim-accesstoken", &self.token)
            .header("content-type", "multipart/form-data; boundary=b");
        self.send(request.body(body.into()).unwrap()).await.1
    }
}

/// A token, asked for as an application does.
fn token_of(api: &Api, name: &str) -> String {
    let snapshot = api.registry.snapshot();
    let key = snapshot.access_key(name).unwrap();
    let timestamp = NOW_MS.to_string();
    let secret = key.secret().unwrap().text();
    let encryption = hex::encode(Sha256::digest(format!("{}{timestamp}{secret}", key.key)));
    let issued = api
        .applications
        .token(&key.key, &timestamp, &encryption, None, None);
    issued.unwrap().0
}

fn secret(world: &World) -> String {
    let snapshot = world.api.registry.snapshot();
    let key = snapshot.access_key("analytics").unwrap();
    key.secret().unwrap().text().to_owned()
}

pub(super) fn double(value: f64) -> Cell {
    Cell::Double(value)
}

/// Minutes of 2014-01-01 in Paris, from local midnight.
pub(super) fn paris(minute: i64) -> i64 {
    1_388_530_800_000 + minute * 60_000
}

pub(super) fn items(answer: &Value) -> &Vec<Value> {
    assert!(answer["code"] == 0 || answer["status"] == 0, "{answer}");
    answer["data"]["items"].as_array().unwrap()
}

/// (time, value) of a point in items.
pub(super) fn series<'a>(answer: &'a Value, point: &str) -> Vec<(i64, &'a Value)> {
    let has = items(answer)
        .iter()
        .filter(|item| item.get(point).is_some());
    has.map(|item| (item["timestamp"].as_i64().unwrap(), &item[point]))
        .collect()
}

pub(super) const DAY: (&str, &str) = ("2014-01-01 00:00:00", "2014-01-02 00:00:00");

pub(super) fn asked(assets: &str, points: &str) -> Value {
    json!({ "assetIds": assets, "pointIds": points, "startTime": DAY.0, "endTime": DAY.1 })
}

#[tokio::test]
async fn raw_data_come_by_asset_and_point_in_the_order_of_time_on_each_devices_clock() {
    let world = World::new();
    let shanghai = |minute: i64| paris(minute) - 7 * 3_600_000;
    world.store(
        "T1",
        &[
            (paris(1), "P", double(1.5), 3),
            (paris(0), "P", double(0.1), NO_QUALITY),
        ],
    );
    world.store(
        "T1",
        &[
            (paris(1_440), "P", double(9.0), 1),
            (paris(2), "note", Cell::Text("x".into()), NO_QUALITY),
        ],
    );
    world.store("T2", &[(shanghai(0), "P", double(7.0), NO_QUALITY)]);
    let mut question = asked("a1,a2", "P,note");
    question["withQuality"] = json!(true);
    let answer = world
        .post("/tsdb-service/v2.1/raw?orgId=o1", question)
        .await;
    assert_eq!(
        items(&answer)[..2],
        [
            json!({ "assetId": "a1", "timestamp": paris(0), "localtime": "2014-01-01 00:00:00", "P": 0.1, "quality": null }),
            json!({ "assetId": "a1", "timestamp": paris(1), "localtime": "2014-01-01 00:01:00", "P": 1.5, "quality": 3 }),
        ]
    );
    assert_eq!(items(&answer)[2]["note"], "x");
    // The same wall clock is another moment in Shanghai.
    assert_eq!(items(&answer)[3]["timestamp"], shanghai(0));
    assert_eq!(items(&answer).len(), 4);

    // With an offset it is one moment for all, and v2.0 tells values as text, from its query.
    let path = "/tsdb-service/v2.0/ai?orgId=o1&assetIds=a1,a2&measurepoints=P&orderBy=timestamp%20desc\
        &startTime=2014-01-01T00:00:00%2B01:00&endTime=2014-01-01T00:02:00+01:00&ifWithLocalTime=false";
    let answer = world.get(path).await;
    assert_eq!(answer["submsg"], "");
    assert_eq!(
        items(&answer)[..],
        [
            json!({ "assetId": "a1", "timestamp": paris(1), "localtime": null, "P": "1.5" }),
            json!({ "assetId": "a1", "timestamp": paris(0), "localtime": null, "P": "0.1" }),
        ]
    );
}

#[tokio::test]
async fn a_page_holds_so_many_of_each_point_and_the_limits_are_the_vendors() {
    let world = World::new();
    let rows: Vec<_> = (0..10)
        .map(|n| (paris(n), "P", double(1.0), NO_QUALITY))
        .collect();
    world.store("T1", &rows);
    let times =
        |answer: &Value| -> Vec<i64> { series(answer, "P").into_iter().map(|(t, _)| t).collect() };
    let mut question = asked("a1", "P");
    question["pageSize"] = json!(3);
    let answer = world.post("/tsdb-service/v2.1/ai", question.clone()).await;
    assert_eq!(times(&answer), [paris(0), paris(1), paris(2)]);
    question["orderBy"] = json!("timestamp desc");
    let answer = world.post("/tsdb-service/v2.1/ai", question.clone()).await;
    assert_eq!(times(&answer), [paris(9), paris(8), paris(7)]);

    for (member, value, code) in [
        ("pageSize", json!(640_001), 430),
        ("pageSize", json!(0), 702),
        ("pageSize", json!(-1), 702),
        ("startTime", json!("2014-01-01T00:00:00Z"), 702),
        ("startTime", json!("2014-01-03 00:00:00"), 702),
        ("startTime", json!(""), 702),
        ("endTime", json!("soon"), 702),
        ("assetIds", json!("nobody"), 702),
        ("pointIds", json!("none"), 702),
        ("pointIds", json!(" , "), 702),
        ("pointIds", json!("state"), 702),
        ("modelId", json!("other"), 702),
        ("itemFormat", json!(1), 702),
        ("interpolation", json!("linear"), 702),
        ("orderBy", json!("value"), 702),
    ] {
        let mut question = asked("a1", "P");
        question[member] = value;
        let answer = world.post("/tsdb-service/v2.1/ai", question).await;
        assert_eq!(answer["code"], code, "{member}: {answer}");
        assert!(answer["data"].is_null() && answer["requestId"].is_string());
    }
    let many: Vec<_> = (0..3_001).map(|n| format!("p{n}")).collect();
    let answer = world
        .post("/tsdb-service/v2.1/raw", asked("a1", &many.join(",")))
        .await;
    assert!(
        answer["code"] == 702 && answer["msg"].as_str().unwrap().contains("3000"),
        "{answer}"
    );
}

#[tokio::test]
async fn points_that_no_model_declares_are_read_beside_and_apart_from_the_others() {
    let world = World::new();
    let model = FARM
        .split("---")
        .next()
        .unwrap()
        .replace("measurepoints:", "passthrough: true\nmeasurepoints:");
    let documents = read(&model, Form::Yaml).unwrap();
    world.api.registry.apply(documents, Run::Commit).unwrap();
    let at = paris(0);
    world.store("T1", &[(at, "P", double(1.0), NO_QUALITY)]);
    world.store("T1", &[(at, "extra", double(2.0), NO_QUALITY)]);
    let both = world
        .post("/tsdb-service/v2.1/unified-raw", asked("a1", "P,extra"))
        .await;
    assert_eq!(series(&both, "P"), [(at, &json!(1.0))]);
    assert_eq!(series(&both, "extra"), [(at, &json!(2.0))]);
    let apart = world
        .post("/tsdb-service/v2.1/unformatted", asked("a1", "extra"))
        .await;
    assert_eq!(items(&apart).len(), 1);
    let declared = world
        .post("/tsdb-service/v2.1/unformatted", asked("a1", "P"))
        .await;
    assert_eq!(declared["code"], 702, "{declared}");
    assert!(
        declared["msg"].as_str().unwrap().contains("/raw"),
        "{declared}"
    );
    let mut formatted = asked("a1", "P");
    formatted["itemFormat"] = json!(1);
    let formatted = world.post("/tsdb-service/v2.1/raw", formatted).await;
    assert_eq!(formatted["code"], 702, "{formatted}");
}

#[tokio::test]
async fn digital_points_tell_their_changes_and_how_long_each_state_lasted() {
    let world = World::new();
    let state = |minute, value| (paris(minute), "state", Cell::Int(value), NO_QUALITY);
    world.store(
        "T1",
        &[
            state(-60, 0),
            state(10, 0),
            state(20, 1),
            state(30, 1),
            state(40, 0),
        ],
    );
    let answer = world
        .post("/tsdb-service/v2.1/di", asked("a1", "state"))
        .await;
    let mut backwards = asked("a1", "state");
    backwards["orderBy"] = json!("timestamp desc");
    let refused = world.post("/tsdb-service/v2.1/di", backwards).await;
    assert_eq!(refused["code"], 702, "{refused}");
    let (off, on) = (json!(0), json!(1));
    assert_eq!(
        series(&answer, "state"),
        [(paris(0), &off), (paris(20), &on), (paris(40), &off)]
    );

    let mut question = asked("a1", "state");
    question["endTime"] = json!("2014-01-01 01:00:00");
    let answer = world
        .post("/tsdb-service/v2.1/di/duration", question.clone())
        .await;
    let item = &items(&answer)[0];
    let durations = |item: &Value| item["durations"].clone();
    assert_eq!(item["scanEndTimestamp"], paris(60));
    assert_eq!(
        durations(item),
        json!([{ "status": "0", "duration": 2_400_000 }, { "status": "1", "duration": 1_200_000 }])
    );
    question["status"] = json!("1");
    question["assetIds"] = json!("a2");
    let answer = world
        .post("/tsdb-service/v2.1/di/duration", question.clone())
        .await;
    assert_eq!(durations(&items(&answer)[0]), json!([]));
    question["status"] = json!("Unknown,1");
    let answer = world.post("/tsdb-service/v2.1/di/duration", question).await;
    assert_eq!(
        durations(&items(&answer)[0]),
        json!([{ "status": "Unknown", "duration": 3_600_000 }])
    );
}

#[tokio::test]
async fn minute_values_fold_over_intervals_and_counters_tell_what_they_counted() {
    let world = World::new();
    let p = |ms, value| (paris(0) + ms, "P", double(value), NO_QUALITY);
    world.store(
        "T1",
        &[
            p(0, 1.0),
            p(30_000, 2.0),
            p(60_000, 4.0),
            p(3_600_000, 10.0),
        ],
    );
    let e = |minute, value| (paris(minute), "energy", Cell::Long(value), NO_QUALITY);
    world.store("T1", &[e(0, 100), e(1, 103), e(2, 1), e(60, 5)]);
    let question = |logic: &str, interval: i64| {
        json!({ "assetIds": "a1", "pointIdsWithLogic": logic, "interval": interval,
            "startTime": DAY.0, "endTime": DAY.1 })
    };
    let told = |answer: &Value, key: &str| -> Vec<(i64, f64)> {
        series(answer, key)
            .into_iter()
            .map(|(t, v)| (t, v.as_f64().unwrap()))
            .collect()
    };
    let answer = world
        .post("/tsdb-service/v2.1/ai-normalized", question("P", 0))
        .await;
    assert_eq!(
        told(&answer, "P"),
        [(paris(0), 2.0), (paris(1), 4.0), (paris(60), 10.0)]
    );
    let answer = world
        .post(
            "/tsdb-service/v2.1/ai-normalized",
            question("avg(P),count(P),max(P)", 60),
        )
        .await;
    assert_eq!(
        told(&answer, "avg(P)"),
        [(paris(0), 3.0), (paris(60), 10.0)]
    );
    assert_eq!(
        told(&answer, "count(P)"),
        [(paris(0), 2.0), (paris(60), 1.0)]
    );
    assert_eq!(
        told(&answer, "max(P)"),
        [(paris(0), 4.0), (paris(60), 10.0)]
    );
    let answer = world
        .post(
            "/tsdb-service/v2.1/electric-power",
            question("sum(energy)", 60),
        )
        .await;
    assert_eq!(
        told(&answer, "sum(energy)"),
        [(paris(0), 4.0), (paris(60), 4.0)]
    );
    world.api.clock.set(paris(61));
    let today = json!({ "assetIds": "a1", "pointIds": "energy" });
    let answer = world
        .post("/tsdb-service/v2.1/electric-power/current-day", today)
        .await;
    assert_eq!(told(&answer, "energy"), [(paris(60), 8.0)]);
    for (logic, interval) in [
        ("P", 60),
        ("avg(P)", 0),
        ("avg(P)", 1_441),
        ("avg(note)", 60),
        ("avg(energy)", 60),
    ] {
        let answer = world
            .post(
                "/tsdb-service/v2.1/ai-normalized",
                question(logic, interval),
            )
            .await;
        assert_eq!(answer["code"], 702, "{logic} {interval}");
    }
}

#[tokio::test]
async fn latest_values_are_those_of_the_greatest_event_time_and_can_be_filtered() {
    let world = World::new();
    world.store("T1", &[(NOW_MS - 60_000, "P", double(5.0), NO_QUALITY)]);
    world.store("T1", &[(NOW_MS - 120_000, "P", double(6.0), NO_QUALITY)]);
    world.store("T2", &[(NOW_MS - 7_200_000, "P", double(7.0), NO_QUALITY)]);
    let question = json!({ "assetIds": "a1,a2", "pointIds": "P", "timeWindow": 60 });
    let answer = world.post("/tsdb-service/v2.1/latest", question).await;
    assert_eq!(series(&answer, "P"), [(NOW_MS - 60_000, &json!(5.0))]);
    let question =
        json!({ "assetIds": "a1,a2", "pointId": "P", "operator": "between", "valueFilter": "6,8" });
    let answer = world
        .post("/tsdb-service/v2.1/latest/filter", question)
        .await;
    assert_eq!(series(&answer, "P"), [(NOW_MS - 7_200_000, &json!(7.0))]);
    let path = "/connect-service/v2.1/measurepoints?action=queryLatest&productKey=pk1&deviceKey=T1";
    let answer = world
        .post(path, json!({ "measurepointIds": ["P", "state"] }))
        .await;
    assert_eq!(
        answer["data"],
        json!([{ "id": "P", "time": NOW_MS - 60_000, "value": 5.0 }])
    );
}

#[tokio::test]
async fn models_products_and_devices_are_declared_found_changed_and_deleted() {
    let world = World::new();
    let model = json!({ "modelId": "battery", "measurepoints": { "soc": { "dataType": "FLOAT", "signalType": "AI" } } });
    let path = |resource: &str, action: &str| match resource {
        "thing-models" => format!("/model-service/v2.1/thing-models?action={action}&orgId=o1"),
        other => format!("/connect-service/v2.1/{other}?action={action}&orgId=o1"),
    };
    assert_eq!(
        world
            .post(&path("thing-models", "create"), model.clone())
            .await["data"],
        "battery"
    );
    assert_eq!(
        world.post(&path("thing-models", "create"), model).await["code"],
        409
    );
    let shown = world
        .get(&format!("{}&modelId=battery", path("thing-models", "get")))
        .await;
    assert_eq!(shown["data"]["measurepoints"]["soc"]["dataType"], "FLOAT");

    let product = json!({ "productName": { "defaultValue": "Battery pack" }, "modelId": "battery",
        "dataFormat": "Json", "productType": "Device", "biDirectionalAuth": false });
    let key = world
        .post(&path("products", "create"), product.clone())
        .await["data"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        world.post(&path("products", "create"), product).await["code"],
        409
    );
    let found = world
        .post(
            &path("products", "search"),
            json!({ "expression": format!("productKey = '{key}'") }),
        )
        .await;
    assert_eq!(
        (
            &found["data"][0]["productName"]["defaultValue"],
            &found["pagination"]["totalSize"]
        ),
        (&json!("Battery-pack"), &json!(1))
    );

    let device = json!({ "productKey": key, "timezone": "+08:00", "deviceName": { "defaultValue": "Pack 1" },
        "deviceKey": "b1", "deviceTags": { "a": "b" } });
    let made = world.post(&path("devices", "create"), device.clone()).await;
    assert_eq!(
        (&made["code"], &made["submsg"]),
        (&json!(0), &json!("not kept: deviceTags"))
    );
    let asset = made["data"]["assetId"].as_str().unwrap();
    let again = world.post(&path("devices", "create"), device).await;
    assert_eq!(again["code"], 409);
    let one = |key: &str| json!({ "productKey": key, "timezone": "+08:00", "deviceName": { "defaultValue": "Pack" } });
    let list = json!({ "deviceList": [one(&key), one("nowhere"), one(&key)] });
    let batch = world.post(&path("devices", "batchCreate"), list).await;
    assert_eq!(
        (&batch["code"], &batch["data"][1]["code"]),
        (&json!(400), &json!(404))
    );
    assert!(batch["data"][2]["data"]["assetId"].is_string(), "{batch}");
    let found = world
        .post(
            &path("devices", "search"),
            json!({ "expression": "productKey != 'pk1'",
        "projection": ["assetId"], "pagination": { "pageNo": 1, "pageSize": 2 } }),
        )
        .await;
    assert_eq!(
        (
            found["data"].as_array().unwrap().len(),
            &found["pagination"]["totalSize"]
        ),
        (2, &json!(3))
    );

    let changed = format!(
        "{}&assetId={asset}&IsPatchUpdate=True",
        path("devices", "update")
    );
    assert_eq!(
        world.post(&changed, json!({ "timezone": "-03:00" })).await["code"],
        0
    );
    let shown = world
        .get(&format!("{}&assetId={asset}", path("devices", "get")))
        .await;
    assert_eq!(
        (&shown["data"]["timezone"], &shown["data"]["deviceKey"]),
        (&json!("-03:00"), &json!("b1"))
    );
    assert_eq!(
        world
            .get(&format!("{}&productKey={key}", path("products", "delete")))
            .await["code"],
        409
    );
    assert_eq!(
        world
            .get(&format!("{}&assetId={asset}", path("devices", "delete")))
            .await["code"],
        0
    );
    assert_eq!(
        world
            .get(&format!("{}&assetId={asset}", path("devices", "get")))
            .await["code"],
        404
    );
    // Who did it is in the trail.
    let request = Request::get("/api/v1/access/audit?author=analytics")
        .header("authorization", "Bearer t0ken");
    let (_, trail) = world.send(request.body(Body::empty()).unwrap()).await;
    let deeds: Vec<_> = trail["items"].as_array().unwrap().iter().collect();
    let deleted = deeds.iter().find(|deed| deed["action"] == "device deleted");
    assert_eq!(deleted.unwrap()["via"], "access-key", "{trail}");
}

#[tokio::test]
async fn what_is_posted_goes_through_the_products_channel_with_devices_by_key() {
    let world = World::new();
    let message = "{'method': 'integration.measurepoint.post', 'version': '1.1', 'id': 7, \
        'isRealtimeIntegration': false, 'params': [{'assetId':a1, 'time':5, 'measurepoints': {'P':1.50}}]}";
    let answer = world.message("postMeasurepoint", message).await;
    assert_eq!(
        (&answer["code"], &answer["data"]),
        (&json!(0), &json!({ "uriInfoList": [] }))
    );
    let posted = world.posted.lock().remove(0);
    assert_eq!(
        (posted.channel.as_str(), &*posted.client),
        ("history", "http:analytics")
    );
    assert_eq!(posted.topic, "/sys/pk1/integration/measurepoint/post");
    assert_eq!(
        std::str::from_utf8(&posted.payload).unwrap(),
        r#"{"id":7,"version":"1.1","method":"integration.measurepoint.post","params":[{"deviceKey":"T1","measurepoints":{"P":1.50},"time":5}]}"#
    );
    for (message, code) in [
        ("{'params': [{'assetId': nobody}]}", 1257),
        ("{'params': [}", 1220),
        ("{'isRealtimeIntegration': true, 'params': []}", 400),
        ("{'files': {'f': {}}, 'params': []}", 400),
    ] {
        assert_eq!(
            world.message("postEvent", message).await["code"],
            code,
            "{message}"
        );
    }
    let large = format!("{{'params': ['{}']}}", "x".repeat(600_000));
    assert_eq!(
        world.message("postMeasurepoint", &large).await["code"],
        1008
    );
    assert!(world.posted.lock().is_empty());

    // With several channels the key says which; then what nobody can read goes into its quarantine.
    let more = "kind: Channel\nname: other\nproduct: wind\n---\nkind: AccessKey\nname: analytics\nrights: [integrate]\n";
    let applied = |yaml: &str| {
        world
            .api
            .registry
            .apply(read(yaml, Form::Yaml).unwrap(), Run::Commit)
    };
    applied(more).unwrap();
    let message = "{'params': [{'assetId': a1}]}";
    let answer = world.message("postMeasurepoint", message).await;
    assert!(
        answer["msg"].as_str().unwrap().contains("several channels"),
        "{answer}"
    );
    applied("kind: AccessKey\nname: analytics\nrights: [integrate]\nchannels: [other]\n").unwrap();
    assert_eq!(
        world.message("postMeasurepoint", "{'params': [}").await["code"],
        0
    );
    let posted = world.posted.lock().remove(0);
    assert_eq!(
        (posted.channel.as_str(), &posted.payload[..]),
        ("other", &b"{'params': [}"[..])
    );
    assert!(
        world
            .api
            .registry
            .delete(crate::registry::Kind::Channel, "other", None)
            .is_err()
    );
}

#[tokio::test]
async fn every_generation_of_signatures_is_let_in_and_nobody_else() {
    let world = World::new();
    let ask = async |request: axum::http::request::Builder, body: &str| {
        world
            .send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    };
    let (now, secret) = (NOW_MS.to_string(), secret(&world));
    let products = "/connect-service/v2.1/products?orgId=o1&action=get&productKey=pk1";

    // A: SHA-1 over the query.
    let text = format!("{AK}orgIdo1requestTimestamp{now}{secret}");
    let sign = hex::encode_upper(Sha1::digest(text));
    let query = format!("accessKey={AK}&requestTimestamp={now}&orgId=o1&sign={sign}");
    let path = format!("/enosapi/connectService/products?{query}");
    let (status, answer) = ask(Request::get(&path), "").await;
    assert_eq!((status, &answer["status"]), (StatusCode::OK, &json!(0)));
    assert_eq!(answer["data"]["products"][0]["productKey"], "pk1");
    let (status, _) = ask(Request::get(path.replace("orgId=o1", "orgId=o2")), "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    // A, multipart: text parts are signed, files are not.
    let data = r#"[{"assetId":"a1","time":5,"measurepoints":{"P":1}}]"#;
    let text = format!("{AK}data{data}orgIdo1requestTimestamp{now}{secret}");
    let sign = hex::encode_upper(Sha1::digest(text));
    let path = format!(
        "/enosapi/connectService/products/pk1/devices/measurepoints?accessKey={AK}&requestTimestamp={now}&orgId=o1&sign={sign}"
    );
    let part = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file =
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\r\n\r\n";
    let body = format!(
        "{}{}{}{file}--b--\r\n",
        part("data", data),
        part("orgId", "o1"),
        part("requestTimestamp", &now)
    );
    let request = Request::post(&path).header("content-type", "multipart/form-data; boundary=b");
    let (_, answer) = ask(request, &body).await;
    assert_eq!(
        (&answer["status"], &answer["submsg"]),
        (&json!(0), &json!("")),
        "{answer}"
    );
    assert!(
        std::str::from_utf8(&world.posted.lock()[0].payload)
            .unwrap()
            .contains("\"deviceKey\":\"T1\"")
    );

    // B: a token, and a signature over query and body.
    let body = r#"{"expression":"productKey='pk1'"}"#;
    let path = "/connect-service/v2.1/products?orgId=o1&action=search";
    let text = format!("{}actionsearchorgIdo1{body}{now}{secret}", world.token);
    let signed = |signature: String| {
        Request::post(path)
            .header("apim-accesstoken", &world.token)
            .header("apim-timestamp", &now)
            .header("apim-signature", signature)
    };
    let (_, answer) = ask(signed(hex::encode(Sha256::digest(text))), body).await;
    assert_eq!(answer["pagination"]["totalSize"], 1, "{answer}");
    assert_eq!(
        ask(signed("00".into()), body).await.0,
        StatusCode::UNAUTHORIZED
    );

    // C: key and secret, encrypted for the gateway's own key.
    let der = STANDARD
        .decode(world.api.applications.public_key().unwrap())
        .unwrap();
    let key = PKey::public_key_from_der(&der).unwrap().rsa().unwrap();
    let sealed = |secret: &str| {
        let mut sealed = vec![0; 256];
        let text = format!("123456${AK}${secret}$a$b");
        key.public_encrypt(text.as_bytes(), &mut sealed, Padding::PKCS1_OAEP)
            .unwrap();
        Request::get(products).header("apim-accesstoken", STANDARD.encode(sealed))
    };
    assert_eq!(
        ask(sealed(&secret), "").await.1["data"]["modelId"],
        "turbine"
    );
    assert_eq!(ask(sealed("guess"), "").await.0, StatusCode::UNAUTHORIZED);

    assert_eq!(
        ask(Request::get(products), "").await.0,
        StatusCode::UNAUTHORIZED
    );
    let token = token_of(&world.api, "subscriber");
    let (status, answer) = ask(Request::get(products).header("apim-accesstoken", token), "").await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::FORBIDDEN, &json!(400))
    );
}

#[tokio::test]
async fn tokens_are_given_with_the_codes_of_the_vendor() {
    let world = World::new();
    let secret = secret(&world);
    let ask = async |path: &str, key: &str, secret: &str, timestamp: i64, token: &str| {
        let encryption = hex::encode(Sha256::digest(format!("{key}{timestamp}{secret}")));
        let body = json!({ "appKey": key, "encryption": encryption, "timestamp": timestamp, "accessToken": token });
        let request = Request::post(format!("/apim-token-service/v2.0/token/{path}"));
        world
            .send(request.body(body.to_string().into()).unwrap())
            .await
            .1
    };
    let answer = ask("get", AK, &secret, NOW_MS + 1, "").await;
    assert_eq!(
        (&answer["status"], &answer["business"]),
        (&json!(0), &json!("apim-token-service"))
    );
    assert_eq!(
        (&answer["data"]["accessToken"], &answer["data"]["expire"]),
        (&json!(world.token), &json!(7_200))
    );
    assert_eq!(
        ask("get", AK, &secret, NOW_MS + 1, "").await["status"],
        1001
    );
    assert_eq!(
        ask("get", "none", &secret, NOW_MS, "").await["status"],
        1002
    );
    assert_eq!(ask("get", AK, "guess", NOW_MS, "").await["status"], 1003);
    world.api.clock.set(NOW_MS + 60_000);
    let renewed = ask("refresh", AK, &secret, NOW_MS + 2, &world.token).await;
    assert_eq!(renewed["data"]["expire"], 7_200);
    assert_ne!(renewed["data"]["accessToken"], json!(world.token));
    assert_eq!(
        ask("refresh", AK, &secret, NOW_MS + 3, "bt1.x").await["status"],
        1004
    );
}

#[tokio::test]
async fn what_is_no_operation_is_refused_in_the_same_envelope() {
    let world = World::new();
    for (method, path, status, code) in [
        (
            Method::GET,
            "/connect-service/v2.1/devices?action=fly",
            200,
            400,
        ),
        (
            Method::PUT,
            "/connect-service/v2.1/devices?action=get",
            405,
            400,
        ),
        (
            Method::GET,
            "/connect-service/v2.1/devices?action=get",
            200,
            400,
        ),
        (
            Method::GET,
            "/connect-service/v2.1/devices?action=get&assetId=none",
            200,
            404,
        ),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("apim-accesstoken", &world.token);
        let (got, answer) = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (got.as_u16(), &answer["code"]),
            (status, &json!(code)),
            "{path}: {answer}"
        );
    }
    let request = Request::post("/tsdb-service/v2.1/raw").header("apim-accesstoken", &world.token);
    let large = vec![b' '; crate::limits::VENDOR_BODY_BYTES_MAX + 1];
    let (status, _) = world.send(request.body(large.into()).unwrap()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn the_description_of_the_vendor_api_stays_as_it_is_promised() {
    let description = description();
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(description.pointer(pointer).is_some(), "{pointer}");
    }
    insta::assert_json_snapshot!("vendor-openapi", description);
}
