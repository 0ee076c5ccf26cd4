//! The door without sockets: requests in, answers out.

use std::path::Path;

use axum::{
    body::{Body, BodyDataStream, Bytes, to_bytes},
    http::{Method, Request, StatusCode, header},
    response::Response,
};
use backtide_store::{
    Options,
    disk::{Disk, RealDisk},
};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{registry::StoredTypes, secrets::AdminToken};

const FARM: &str = include_str!("../registry/farm.yaml");
const TOKEN: &str = "t0ken";

struct NothingStored;

impl StoredTypes for NothingStored {
    fn stored_as(
        &self,
        _: &backtide_model::ProductKey,
        _: &backtide_model::ElementName,
    ) -> Option<backtide_model::Storage> {
        None
    }
}

pub(super) struct World {
    _dir: tempfile::TempDir,
    pub(super) api: Arc<Api>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) text: String,
}

/// An answer that is read as it comes.
pub(super) struct Reading {
    pub(super) status: StatusCode,
    body: BodyDataStream,
}

impl Reading {
    /// The next chunk; empty at the end.
    pub(super) async fn chunk(&mut self) -> String {
        let chunk = self
            .body
            .next()
            .await
            .transpose()
            .unwrap()
            .unwrap_or_default();
        String::from_utf8(chunk.to_vec()).unwrap()
    }
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }

    /// Asserts that it is a problem in its documented form.
    pub(super) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["code"], code);
        assert_eq!(problem["type"], format!("urn:backtide:problem:{code}"));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        problem
    }
}

/// What the handlers work with, over an empty data directory.
pub(crate) fn api(dir: &Path, token: AdminToken) -> Api {
    api_on(Arc::new(RealDisk), dir, token)
}

/// The same, its store on another disk. Scripts have workers that end at once: the door is tested here,
/// not what is behind it.
pub(super) fn api_on(disk: Arc<dyn Disk>, dir: &Path, token: AdminToken) -> Api {
    let clock = Clock::stopped(1_700_000_000_000);
    let registry = Registry::open(dir, Arc::new(NothingStored), clock.clone()).unwrap();
    let (store, _) = Store::open(&dir.join("store"), disk, Options::default()).unwrap();
    let bounds = crate::quarantine::Bounds::default();
    let quarantine = Quarantine::open(&dir.join("quarantine.db"), bounds, store.clone()).unwrap();
    let bounds = crate::channel_log::Bounds::default();
    let log = Arc::new(Log::open(&dir.join("channel-log.db"), bounds).unwrap());
    let (registry, quarantine) = (Arc::new(registry), Arc::new(quarantine));
    let scripts = Arc::new(crate::script::of_test());
    let bounds = crate::recorder::Bounds::default();
    let recorder = Arc::new(Recorder::open(&dir.join("recorder.db"), bounds).unwrap());
    let ingest =
        crate::redrive::ingest_of_test(&registry, &store, &quarantine, &log, &recorder, &clock);
    let closing = CancellationToken::new();
    let imports = crate::imports::Imports::open(
        dir,
        Arc::clone(&ingest),
        Pool::start("imports", 1, 8).unwrap(),
        closing.clone(),
    );
    let redriver = crate::redrive::of_test(dir, ingest);
    let setting = crate::archive::Setting {
        registry: Arc::clone(&registry),
        store: store.clone(),
        clock: clock.clone(),
        runtime: tokio::runtime::Handle::current(),
        root: dir.join("archive"),
        closing: closing.clone(),
    };
    let archives = crate::archive::Archives::open(&dir.join("archives.db"), setting).unwrap();
    let access = Access::open(&dir.join("access.db"), token, clock.clone()).unwrap();
    let access = Arc::new(access);
    registry.set_witness(crate::access::witness(&access));
    let setting = crate::subscription::Setting {
        registry: Arc::clone(&registry),
        store: store.clone(),
        organization: backtide_model::ObjectName::new("o1").unwrap(),
        clock: clock.clone(),
        pool: Pool::start("subscriptions", 1, 8).unwrap(),
        limits: crate::limits::Topics::default(),
        kafka: None,
    };
    let subscriptions =
        crate::subscription::Subscriptions::open(&dir.join("subscriptions"), setting).unwrap();
    let applications = crate::application::Applications::new(
        Arc::clone(&registry),
        clock.clone(),
        dir.join("application-rsa.key"),
    );
    let setting = crate::rules::Setting {
        registry: Arc::clone(&registry),
        store: store.clone(),
        scripts: Arc::clone(&scripts),
        destinations: Arc::new(crate::rules::OfGateway {
            registry: Arc::clone(&registry),
            way: Arc::new(crate::store::Way::to(store.clone())),
            clock: clock.clone(),
            kafka: None,
        }),
        organization: backtide_model::ObjectName::new("o1").unwrap(),
        clock: clock.clone(),
        pool: Pool::start("rules", 1, 8).unwrap(),
        runtime: tokio::runtime::Handle::current(),
        limits: crate::limits::Rules::default(),
    };
    let rules = crate::rules::Rules::open(&dir.join("rules"), setting).unwrap();
    let setting = crate::derive::Setting {
        registry: Arc::clone(&registry),
        store: store.clone(),
        clock: clock.clone(),
        organization: backtide_model::ObjectName::new("o1").unwrap(),
        kafka: None,
    };
    let derived = crate::derive::Derived::open(&dir.join("derived.db"), setting).unwrap();
    #[cfg(feature = "sql")]
    let sql = {
        let sources = crate::sql::Sources {
            registry: Arc::clone(&registry),
            store: store.clone(),
            log: Arc::clone(&log),
            quarantine: Arc::clone(&quarantine),
            derived: Arc::clone(&derived),
        };
        let limits = crate::limits::Sql {
            threads: 1,
            ..crate::limits::Sql::default()
        };
        crate::sql::Engine::start(sources, &dir.join("sql-spill"), limits).unwrap()
    };
    Api {
        derived,
        applications: Arc::new(applications),
        organization: ObjectName::new("o1").unwrap(),
        integrate: Box::new(|_| Box::pin(async { Err("no house is here".to_owned()) })),
        registry,
        subscriptions,
        kafka: None,
        rules,
        #[cfg(feature = "sql")]
        sql: Arc::new(sql),
        store,
        quarantine,
        redriver,
        recorder,
        log,
        scripts,
        pool: Pool::start("test", 1, 8).unwrap(),
        streams: Pool::start("test-streams", 2, 8).unwrap(),
        closing,
        imports: Arc::new(imports.unwrap()),
        archives: Arc::new(archives),
        clock,
        access,
        live: Live::default(),
        growth: Arc::new(Growth::of(dir, 0)),
        reads: Seats::new(limits::READS_MAX, limits::READS_PER_CALLER_MAX),
        broker_url: "tcp://127.0.0.1:11883".into(),
        subscribe_port: 9001,
        broker_tls_url: None,
        mqtt: Box::new(|_, _| Box::pin(async {})),
        metrics: Box::new(|| "backtide_up 1\n".into()),
        readiness: Box::new(|| Readiness::unless(vec!["the disk is full".into()])),
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let api = Arc::new(api(dir.path(), TOKEN.into()));
        Self { _dir: dir, api }
    }

    pub(super) async fn with_farm() -> Self {
        let world = Self::new();
        assert_eq!(world.apply("", FARM).await.status, StatusCode::OK);
        world
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = router(Arc::clone(&self.api))
            .oneshot(request)
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(Body::empty())
            .unwrap();
        self.send(request).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).await
    }

    pub(super) async fn bytes(&self, path: &str) -> Bytes {
        to_bytes(self.answer(path).await.into_body(), usize::MAX)
            .await
            .unwrap()
    }

    pub(super) async fn open(&self, path: &str) -> Reading {
        let response = self.answer(path).await;
        let status = response.status();
        Reading {
            status,
            body: response.into_body().into_data_stream(),
        }
    }

    async fn answer(&self, path: &str) -> Response {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        let request = request.body(Body::empty()).unwrap();
        router(Arc::clone(&self.api))
            .oneshot(request)
            .await
            .unwrap()
    }

    async fn post(&self, path: &str, media_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("bearer {TOKEN}"))
            .header(header::CONTENT_TYPE, media_type)
            .body(body.into())
            .unwrap();
        self.send(request).await
    }

    pub(super) async fn tell(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(body.to_string().into())
            .unwrap();
        self.send(request).await
    }

    pub(super) async fn apply(&self, query: &str, yaml: &str) -> Answer {
        let path = format!("/api/v1/apply{query}");
        self.post(&path, "application/yaml; charset=utf-8", yaml.to_owned())
            .await
    }
}

#[tokio::test]
async fn nothing_under_api_v1_answers_without_the_token() {
    let world = World::new();
    for path in [
        "/api/v1/models",
        "/api/v1/channels/x/connection",
        "/api/v1/nothing",
        "/api/v1",
    ] {
        for token in [
            None,
            Some("Bearer wrong"),
            Some("Bearer "),
            Some("Basic t0ken"),
            Some(TOKEN),
        ] {
            let mut request = Request::get(path);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, token);
            }
            let answer = world.send(request.body(Body::empty()).unwrap()).await;
            answer.problem(401, "unauthorized");
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
        }
    }
    for path in ["/healthz", "/metrics", "/api/openapi.json"] {
        let answer = world
            .send(Request::get(path).body(Body::empty()).unwrap())
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_not_ready_says_why() {
    let answer = World::new().get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.json(),
        json!({ "ready": false, "reasons": ["the disk is full"] })
    );
}

#[tokio::test]
async fn apply_answers_what_became_of_each_object() {
    let world = World::new();
    let dry = world.apply("?dryRun=true", FARM).await;
    insta::assert_json_snapshot!("applied", dry.json());
    assert!(
        world.get("/api/v1/models").await.json()["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let wet = world.apply("", FARM).await.json();
    assert_eq!(
        (&wet["dryRun"], &wet["created"]),
        (&json!(false), &json!(4))
    );
    assert_eq!(world.apply("", FARM).await.json()["unchanged"], 4);
    let json = r#"[{"kind":"Device","name":"R2","product":"wind-farm"}]"#;
    let answer = world.post("/api/v1/apply", "application/json", json).await;
    assert_eq!(answer.json()["created"], 1);
}

#[tokio::test]
async fn every_fault_of_a_body_is_named() {
    let world = World::new();
    let body = "kind: Device\nname: a\nproduct: none\n---\nkind: Device\nname: b\nprod: none\n";
    let problem = world.apply("", body).await.problem(422, "invalid");
    assert_eq!(problem["where"], "document 2, line 7");
    let both = "kind: Device\nname: a\nproduct: none\n---\nkind: Device\nname: b\nproduct: none\n";
    let problem = world.apply("", both).await.problem(422, "invalid");
    insta::assert_json_snapshot!("invalid", problem);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_as_a_problem() {
    let world = World::with_farm().await;
    world.get("/nowhere").await.problem(404, "not-found");
    world.get("/api/v1/nowhere").await.problem(404, "not-found");
    world
        .get("/api/v1/devices/none")
        .await
        .problem(404, "not-found");
    world
        .get("/api/v1/schemas/none")
        .await
        .problem(404, "not-found");
    world
        .ask(Method::PUT, "/api/v1/models")
        .await
        .problem(405, "method-not-allowed");
    world
        .get("/api/v1/apply")
        .await
        .problem(405, "method-not-allowed");
    world
        .get("/api/v1/models?limit=0")
        .await
        .problem(400, "bad-request");
    world
        .get("/api/v1/models?limit=x")
        .await
        .problem(400, "bad-request");
    world
        .get("/api/v1/models?limitt=1")
        .await
        .problem(400, "bad-request");
    world
        .get("/api/v1/models?cursor=zz")
        .await
        .problem(400, "bad-request");
    world
        .get("/api/v1/models?key=zz")
        .await
        .problem(400, "bad-request");
    world
        .apply("?dryrun=true", FARM)
        .await
        .problem(400, "bad-request");
    world
        .apply("", "# nothing\n")
        .await
        .problem(400, "bad-request");
    world
        .post("/api/v1/apply", "text/html", FARM)
        .await
        .problem(415, "media-type");
    world
        .post("/api/v1/apply", "application/yaml", vec![0xff, 0xfe])
        .await
        .problem(400, "bad-request");
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    world
        .post("/api/v1/apply", "application/yaml", large)
        .await
        .problem(413, "too-large");
}

#[tokio::test]
async fn pages_follow_each_other_to_the_end() {
    let world = World::with_farm().await;
    let more: Vec<String> = (0..25)
        .map(|n| {
            let product = if n % 5 == 0 { "p2" } else { "wind-farm" };
            format!("kind: Device\nname: D{n:02}\nproduct: {product}\n")
        })
        .collect();
    let text = format!(
        "kind: Product\nname: p2\nmodel: turbine\n---\n{}",
        more.join("---\n")
    );
    assert_eq!(world.apply("", &text).await.status, StatusCode::OK);
    for (filter, expected) in [
        ("", 26),
        ("&product=wind-farm", 21),
        ("&product=p2", 5),
        ("&key=D05", 1),
        ("&name=D1", 10),
    ] {
        let mut cursor = String::new();
        let mut names = Vec::new();
        loop {
            let page = world
                .get(&format!("/api/v1/devices?limit=4{filter}{cursor}"))
                .await
                .json();
            for item in page["items"].as_array().unwrap() {
                names.push(format!("{}/{}", item["product"], item["name"]));
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(names.len(), expected, "{filter}");
        assert!(names.is_sorted(), "{names:?}");
    }
    let asset = world.get("/api/v1/devices/D07").await.json()["assetId"].clone();
    let path = format!("/api/v1/devices?assetId={}", asset.as_str().unwrap());
    assert_eq!(world.get(&path).await.json()["items"][0]["name"], "D07");
    for kind in ["models", "products", "channels"] {
        let page = world.get(&format!("/api/v1/{kind}?limit=1")).await.json();
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted_and_its_users_are_named() {
    let world = World::with_farm().await;
    let problem = world
        .ask(Method::DELETE, "/api/v1/products/wind-farm")
        .await
        .problem(409, "in-use");
    assert_eq!(
        problem["usedBy"],
        json!([
            { "kind": "Channel", "name": "scada-history" },
            { "kind": "Device", "name": "R80711" }
        ])
    );
    let deleted = world.ask(Method::DELETE, "/api/v1/devices/R80711").await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    world
        .get("/api/v1/devices/R80711")
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn a_device_name_of_two_products_needs_the_product() {
    let world = World::with_farm().await;
    let twin =
        "kind: Product\nname: p2\nmodel: turbine\n---\nkind: Device\nname: R80711\nproduct: p2\n";
    world.apply("", twin).await;
    world
        .get("/api/v1/devices/R80711")
        .await
        .problem(409, "ambiguous");
    assert_eq!(
        world.get("/api/v1/devices/R80711?product=p2").await.json()["product"],
        "p2"
    );
}

#[tokio::test]
async fn the_secret_is_in_the_connection_and_nowhere_else() {
    let world = World::with_farm().await;
    let shown = world.get("/api/v1/channels/scada-history/connection").await;
    assert_eq!(shown.headers[header::CACHE_CONTROL], "no-store");
    let strings = shown.json();
    let secret = strings["secret"].as_str().unwrap();
    assert_eq!(strings["brokerUrl"], "tcp://127.0.0.1:11883");
    assert_eq!(
        strings["clientId"],
        "LHBfarm1|securemode=4,signmethod=sha256,timestamp=1700000000000|"
    );
    assert_eq!(strings["username"], "%channel%&LHBfarm1");
    for path in [
        "/api/v1/channels",
        "/api/v1/channels/scada-history",
        "/metrics",
        "/api/openapi.json",
    ] {
        let text = world.get(path).await.text;
        assert!(!text.contains(secret), "{path}");
        assert!(
            !text.contains(strings["password"].as_str().unwrap()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_channel_rotates_pauses_and_resumes() {
    let world = World::with_farm().await;
    let old = world
        .get("/api/v1/channels/scada-history/connection")
        .await
        .json();
    let verb = |verb| format!("/api/v1/channels/scada-history/{verb}");
    let new = world
        .ask(Method::POST, &verb("rotate?overlapSeconds=60"))
        .await
        .json();
    assert_ne!(old["secret"], new["secret"]);
    assert_eq!(old["clientId"], new["clientId"]);
    assert_eq!(new["previousSecretValidUntil"], "2023-11-14T22:14:20.000Z");
    assert_eq!(
        world.ask(Method::POST, &verb("pause")).await.json()["paused"],
        true
    );
    assert_eq!(world.get(&verb("connection")).await.json()["paused"], true);
    assert_eq!(
        world.ask(Method::POST, &verb("resume")).await.json()["paused"],
        false
    );
    world
        .ask(Method::POST, "/api/v1/channels/none/pause")
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn names_of_any_script_are_found_by_their_path() {
    let world = World::with_farm().await;
    world
        .apply("", "kind: Product\nname: 风场\nmodel: turbine\n")
        .await;
    let found = world
        .get("/api/v1/products/%E9%A3%8E%E5%9C%BA")
        .await
        .json();
    assert_eq!(found["name"], "风场");
}

#[tokio::test]
async fn each_kind_has_its_schema() {
    let world = World::new();
    for kind in ["model", "products", "Device", "channel"] {
        let schema = world.get(&format!("/api/v1/schemas/{kind}")).await;
        assert_eq!(
            schema.headers[header::CONTENT_TYPE],
            "application/schema+json"
        );
        assert_eq!(schema.json()["required"][0], "kind");
    }
}

#[test]
fn the_api_description_stays_as_it_is_promised() {
    let description = description();
    assert_eq!(description["openapi"], "3.1.0");
    // Every reference leads somewhere.
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(description.pointer(pointer).is_some(), "{pointer}");
    }
    insta::assert_json_snapshot!("openapi", description);
}

/// Somebody who signs in, and what their browser then sends.
async fn signed_in(world: &World, role: &str) -> (String, String) {
    let order = json!({ "role": role, "password": "correct horse" });
    let made = world
        .tell(Method::PUT, "/api/v1/access/users/mei", order)
        .await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let request = Request::post("/api/v1/access/sign-in")
        .body(
            json!({ "name": "mei", "password": "correct horse" })
                .to_string()
                .into(),
        )
        .unwrap();
    let answer = world.send(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap().to_owned();
    (pair, answer.json()["csrf"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_session_reads_with_its_cookie_and_changes_with_its_csrf_token_only() {
    let world = World::with_farm().await;
    let (cookie, csrf) = signed_in(&world, "operator").await;
    let request = |csrf: Option<&str>| {
        let request = Request::delete("/api/v1/channels/scada-history");
        let request = request.header(header::COOKIE, &cookie);
        let request = match csrf {
            Some(csrf) => request.header("X-CSRF-Token", csrf),
            None => request,
        };
        request.body(Body::empty()).unwrap()
    };
    world.send(request(None)).await.problem(403, "csrf");
    world
        .send(request(Some("wrong")))
        .await
        .problem(403, "csrf");
    assert_eq!(
        world.send(request(Some(&csrf))).await.status,
        StatusCode::NO_CONTENT
    );
    let audit = world.get("/api/v1/access/audit?author=mei").await.json();
    let deeds: Vec<_> = audit["items"].as_array().unwrap().iter().collect();
    assert_eq!(deeds[0]["action"], "login deleted");
    assert_eq!(deeds[1]["action"], "channel deleted");
    assert!(
        deeds[1]["before"].as_str().unwrap().contains("wind-farm"),
        "{audit}"
    );
}

#[tokio::test]
async fn a_viewer_changes_nothing_and_sees_no_secret() {
    let world = World::with_farm().await;
    let (cookie, csrf) = signed_in(&world, "viewer").await;
    for (method, path, status) in [
        (Method::GET, "/api/v1/channels", 200),
        (
            Method::GET,
            "/api/v1/channels/scada-history/connection",
            403,
        ),
        (Method::POST, "/api/v1/channels/scada-history/pause", 403),
        (Method::GET, "/api/v1/access/users", 403),
        (Method::GET, "/api/v1/access/me", 200),
    ] {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::COOKIE, &cookie)
            .header("X-CSRF-Token", &csrf)
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            world.send(request).await.status.as_u16(),
            status,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn the_trail_has_what_was_declared_before_and_after() {
    let world = World::with_farm().await;
    let lenient = FARM.replace("mode: strict", "mode: lenient");
    assert_eq!(world.apply("", &lenient).await.status, StatusCode::OK);
    let audit = world
        .get("/api/v1/access/audit?action=channel%20changed")
        .await
        .json();
    let deed = &audit["items"][0];
    assert_eq!(
        (&deed["author"], &deed["object"]),
        (&json!("admin.token"), &json!("scada-history"))
    );
    assert!(deed["before"].as_str().unwrap().contains("strict"));
    assert!(deed["after"].as_str().unwrap().contains("lenient"));
}

#[tokio::test]
async fn a_stream_tells_the_figures_and_what_a_channel_does() {
    let world = World::with_farm().await;
    let beating = tokio::spawn(beat(Arc::clone(&world.api)));
    let mut reading = world.open("/api/v1/stream?channel=scada-history").await;
    assert_eq!(reading.chunk().await, "retry: 1000\n\n");
    let events = reading.chunk().await;
    assert!(events.starts_with("event: overview\ndata: {"), "{events}");
    assert!(
        events.contains("event: channel\ndata: {\"name\":\"scada-history\""),
        "{events}"
    );
    world.api.closing.cancel();
    assert_eq!(reading.chunk().await, "");
    beating.await.unwrap();
}

#[tokio::test]
async fn a_browser_gets_the_page_for_any_address_and_a_program_a_problem() {
    let world = World::new();
    let page = |path: &str| {
        Request::get(path)
            .header(header::ACCEPT, "text/html,*/*")
            .body(Body::empty())
            .unwrap()
    };
    for path in ["/", "/channels/scada-history/log?kind=error"] {
        let answer = world.send(page(path)).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.text.contains("<html"), "{}", answer.text);
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("script-src 'self'"), "{policy}");
    }
    world
        .send(page("/api/nothing"))
        .await
        .problem(404, "not-found");
    let program = Request::get("/nothing").body(Body::empty()).unwrap();
    world.send(program).await.problem(404, "not-found");
}
