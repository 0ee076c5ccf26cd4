//! Long answers of the vendor-compatible API: they leave as they are read, and never look whole when
//! they are not.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    body::{Bytes, to_bytes},
    http::StatusCode,
};
use backtide_model::{Cell, NO_QUALITY};
use backtide_store::disk::{Disk, File, RealDisk};
use futures::StreamExt;
use serde_json::{Value, json};

use super::{
    tests::{World, asked, items, paris, series},
    *,
};
use crate::limits::{AGGREGATE_STATES_MAX, READS_PER_CALLER_MAX, VENDOR_HELD_READINGS_MAX};

const RAW: &str = "/tsdb-service/v2.1/raw";
/// Values of a long answer: some ten chunks.
const MANY: i64 = 8_000;

fn seconds(count: i64) -> Vec<(i64, &'static str, Cell, u8)> {
    let value = |second| {
        (
            paris(0) + 1_000 * second,
            "P",
            Cell::Double(0.5),
            NO_QUALITY,
        )
    };
    (0..count).map(value).collect()
}

fn page(assets: &str, points: &str, size: i64) -> Value {
    let mut question = asked(assets, points);
    question["pageSize"] = json!(size);
    question
}

/// Chunks of a body, up to its end or where it breaks off.
struct Chunks(axum::body::BodyDataStream);

impl Chunks {
    async fn of(world: &World, question: &Value) -> Self {
        let response = world.open(RAW, question).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self(response.into_body().into_data_stream())
    }

    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        self.0.next().await
    }
}

#[tokio::test]
async fn a_long_answer_leaves_in_chunks_and_is_whole_at_its_end() {
    let world = World::new();
    world.store("T1", &seconds(MANY));
    let mut chunks = Chunks::of(&world, &page("a1", "P", MANY)).await;
    let mut all = Vec::new();
    let mut count = 0;
    while let Some(chunk) = chunks.next().await {
        all.extend_from_slice(&chunk.unwrap());
        count += 1;
    }
    assert!(count > 5, "{count} chunks");
    let answer: Value = serde_json::from_slice(&all).unwrap();
    let times: Vec<_> = series(&answer, "P")
        .into_iter()
        .map(|(time, _)| time)
        .collect();
    let expected: Vec<_> = (0..MANY).map(|second| paris(0) + 1_000 * second).collect();
    assert_eq!(times, expected);
}

#[tokio::test]
async fn the_latest_come_first_however_many_they_are() {
    let world = World::new();
    // More than are held at a time, and a page that ends within an earlier piece.
    let count = i64::try_from(VENDOR_HELD_READINGS_MAX).unwrap() + 9_000;
    world.store("T1", &seconds(count));
    let mut question = page("a1", "P", count - 1_000);
    question["orderBy"] = json!("timestamp desc");
    let answer = world.post(RAW, question).await;
    let times: Vec<_> = series(&answer, "P")
        .into_iter()
        .map(|(time, _)| time)
        .collect();
    let expected: Vec<_> = (1_000..count)
        .rev()
        .map(|second| paris(0) + 1_000 * second)
        .collect();
    assert_eq!(times.len(), expected.len());
    assert!(times == expected);
}

#[tokio::test]
async fn pages_that_are_read_together_and_alone_have_the_same_values_in_the_order_asked_for() {
    let world = World::new();
    let mut rows = Vec::new();
    for minute in 0..50 {
        rows.push((paris(minute), "P", Cell::Double(0.5), NO_QUALITY));
        let text = Cell::Text(format!("n{minute}").into());
        rows.push((paris(minute), "note", text, NO_QUALITY));
        rows.push((paris(minute), "state", Cell::Int(1), NO_QUALITY));
    }
    world.store("T1", &rows);
    for order in ["timestamp asc", "timestamp desc"] {
        // Of so long pages one is read at a time; of short ones all but the text are read together.
        for size in [20, 200_000] {
            let mut question = page("a1", "P,state,note", size);
            question["orderBy"] = json!(order);
            let answer = world.post(RAW, question).await;
            let each = usize::try_from(size).unwrap().min(50);
            let mut told = items(&answer).iter();
            for point in ["P", "state", "note"] {
                let mut times: Vec<_> = told
                    .by_ref()
                    .take(each)
                    .filter(|item| item.get(point).is_some())
                    .map(|item| item["timestamp"].as_i64().unwrap())
                    .collect();
                if order == "timestamp desc" {
                    times.reverse();
                    let first = 50 - i64::try_from(each).unwrap();
                    assert_eq!(times, (first..50).map(paris).collect::<Vec<_>>());
                } else {
                    let end = i64::try_from(each).unwrap();
                    assert_eq!(times, (0..end).map(paris).collect::<Vec<_>>());
                }
            }
            assert_eq!(told.count(), 0);
        }
    }
}

#[tokio::test]
async fn an_answer_ends_when_its_client_leaves() {
    let world = World::new();
    world.store("T1", &seconds(MANY));
    let mut chunks = Chunks::of(&world, &page("a1", "P", MANY)).await;
    chunks.next().await.unwrap().unwrap();
    assert_eq!(world.api.reads.taken(), 1, "most of it is still to be read");
    drop(chunks);
    tokio::time::timeout(Duration::from_secs(60), async {
        while world.api.reads.taken() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the answer ends");
}

#[tokio::test]
async fn a_key_has_so_many_long_answers_at_a_time_and_short_ones_beside_them() {
    let world = World::new();
    world.store("T1", &seconds(MANY));
    let mut seats: Vec<_> = (0..READS_PER_CALLER_MAX)
        .map(|_| world.api.reads.take("access-key:analytics").unwrap())
        .collect();
    let refused = world.open(RAW, &page("a1", "P", MANY)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let body = to_bytes(refused.into_body(), usize::MAX).await.unwrap();
    let refusal: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(refusal["code"], 701, "{refusal}");
    assert!(refusal["data"].is_null());
    let short = world.post(RAW, page("a1", "P", 10)).await;
    assert_eq!(items(&short).len(), 10);
    seats.pop();
    let long = world.post(RAW, page("a1", "P", MANY)).await;
    assert_eq!(items(&long).len(), usize::try_from(MANY).unwrap());
}

#[tokio::test]
async fn what_has_too_many_values_has_no_durations() {
    let world = World::new();
    let states = i32::try_from(AGGREGATE_STATES_MAX).unwrap() + 2;
    let state = |value| {
        let time_ms = paris(0) + 1_000 * i64::from(value);
        (time_ms, "state", Cell::Int(value), NO_QUALITY)
    };
    world.store("T1", &(0..states).map(state).collect::<Vec<_>>());
    let answer = world
        .post("/tsdb-service/v2.1/di/duration", asked("a1", "state"))
        .await;
    assert_eq!(answer["code"], 430, "{answer}");
    let mut question = asked("a1", "state");
    question["endTime"] = json!("2014-01-01 00:10:00");
    let answer = world.post("/tsdb-service/v2.1/di/duration", question).await;
    assert_eq!(
        items(&answer)[0]["durations"].as_array().unwrap().len(),
        600
    );
}

/// A disk whose segments cannot be read any more, once it is told to.
#[derive(Default)]
struct Torn(Arc<AtomicBool>);

struct TornFile {
    file: Box<dyn File>,
    is_torn: Option<Arc<AtomicBool>>,
}

impl Torn {
    fn file(&self, path: &Path, file: Box<dyn File>) -> Box<dyn File> {
        let is_segment = path.extension().is_some_and(|ending| ending == "parquet");
        let is_torn = is_segment.then(|| Arc::clone(&self.0));
        Box::new(TornFile { file, is_torn })
    }
}

impl Disk for Torn {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.file(path, RealDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.file(path, RealDisk.open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl File for TornFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.is_torn {
            Some(torn) if torn.load(Ordering::SeqCst) => Err(io::Error::other("torn")),
            _ => self.file.read_at(buf, offset),
        }
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(buf, offset)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

#[tokio::test]
async fn a_read_that_fails_is_refused_before_the_first_byte_and_breaks_the_body_off_after_it() {
    let torn = Torn::default();
    let is_torn = Arc::clone(&torn.0);
    let world = World::on(Arc::new(torn));
    let rows = seconds(40_000);
    world.store("T1", &rows);
    world.store("T2", &rows);
    world.api.store.flush_now().unwrap();
    let mut question = page("a1,a2", "P", 40_000);
    question["startTime"] = json!("2013-12-31T00:00:00Z");
    question["endTime"] = json!("2014-01-03T00:00:00Z");

    // The client takes one chunk; those that wait do not reach to the end of the first device.
    let mut chunks = Chunks::of(&world, &question).await;
    let mut all = chunks.next().await.unwrap().unwrap().to_vec();
    is_torn.store(true, Ordering::SeqCst);
    let broken = loop {
        match chunks.next().await.expect("it does not look complete") {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(error) => break error,
        }
    };
    assert!(broken.to_string().contains("incomplete"), "{broken}");
    assert!(serde_json::from_slice::<Value>(&all).is_err());

    let refused = world.open(RAW, &question).await;
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = to_bytes(refused.into_body(), usize::MAX).await.unwrap();
    let refusal: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(refusal["code"], 701, "{refusal}");
    assert!(refusal["msg"].as_str().unwrap().contains("log"));
}
