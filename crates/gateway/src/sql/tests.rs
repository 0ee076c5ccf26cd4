//! SQL over a store and a registry of the test's own.

mod computed;
mod described;
mod keeps;
mod runs;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use backtide_model::{
    Batch, BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
    ObjectName, ProductKey, Storage,
};
use backtide_store::{
    Commit, Options, Origin, Part, Store,
    disk::{Disk, File, RealDisk},
};
use datafusion::arrow::util::pretty::pretty_format_batches;

use super::{Engine, Rows, Sources, SqlError};
use crate::{
    channel_log::{self, Log},
    clock::Clock,
    derive::{self, Derived},
    limits,
    quarantine::{self, Quarantine},
    registry::{self, Registry, StoredTypes},
};

const FARM: &str = include_str!("../registry/farm.yaml");
const T0: i64 = 1_388_534_400_000;
const HOUR_MS: i64 = 3_600_000;

/// A disk that counts what is read of segments.
struct Counting(Arc<AtomicU64>);

struct CountingFile {
    file: Box<dyn File>,
    is_segment: bool,
    read_bytes: Arc<AtomicU64>,
}

impl Counting {
    fn file(&self, path: &Path, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(CountingFile {
            file,
            is_segment: path.extension().is_some_and(|ending| ending == "parquet"),
            read_bytes: Arc::clone(&self.0),
        })
    }
}

impl Disk for Counting {
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

impl File for CountingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buf, offset)?;
        if self.is_segment {
            self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(read)
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

struct NothingStored;

impl StoredTypes for NothingStored {
    fn stored_as(&self, _: &ProductKey, _: &ElementName) -> Option<Storage> {
        None
    }
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    registry: Arc<Registry>,
    derived: Arc<Derived>,
    engine: Engine,
    read_bytes: Arc<AtomicU64>,
}

impl World {
    fn new(limits: limits::Sql) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path(), Arc::new(NothingStored), Clock::system());
        let registry = Arc::new(registry.unwrap());
        let read_bytes = Arc::new(AtomicU64::new(0));
        let disk = Arc::new(Counting(Arc::clone(&read_bytes)));
        let place = dir.path().join("counted");
        let (store, _) = Store::open(&place, disk, Options::default()).unwrap();
        let documents = registry::read(FARM, registry::Form::Yaml).unwrap();
        registry.apply(documents, registry::Run::Commit).unwrap();
        let derived = derive::Setting {
            registry: Arc::clone(&registry),
            store: store.clone(),
            clock: Clock::system(),
            organization: ObjectName::new("o1").unwrap(),
            kafka: None,
        };
        let derived = Derived::open(&dir.path().join("derived.db"), derived).unwrap();
        let sources = Sources {
            registry: Arc::clone(&registry),
            derived: Arc::clone(&derived),
            log: Arc::new(
                Log::open(&dir.path().join("log.db"), channel_log::Bounds::default()).unwrap(),
            ),
            quarantine: Arc::new(
                Quarantine::open(
                    &dir.path().join("quarantine.db"),
                    quarantine::Bounds::default(),
                    store.clone(),
                )
                .unwrap(),
            ),
            store: store.clone(),
        };
        let engine = Engine::start(sources, &dir.path().join("spill"), limits).unwrap();
        Self {
            _dir: dir,
            store,
            registry,
            derived,
            engine,
            read_bytes,
        }
    }

    fn apply(&self, yaml: &str) {
        let documents = registry::read(yaml, registry::Form::Yaml).unwrap();
        self.registry
            .apply(documents, registry::Run::Commit)
            .unwrap();
    }

    /// Waits until everything answered is in every rollup and reduction, of which there are so many.
    async fn until_derived(&self, series: usize) {
        let is_current = || {
            let all = self.derived.series();
            let state = |id: i64| self.derived.standing(id).state(self.derived.lag());
            all.len() == series && all.iter().all(|(id, _)| state(*id) == "current")
        };
        let waited = async {
            while !is_current() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waited)
            .await
            .unwrap();
    }

    /// Rows of (device, time, point, value).
    fn commit(&self, rows: &[(&str, i64, &str, f64)]) {
        let mut builder = BatchBuilder::new();
        for (device, time_ms, point, value) in rows {
            builder.row(&DeviceKey::new(device).unwrap(), *time_ms);
            let point = ElementName::new(point).unwrap();
            let keep = ConflictPolicy::KeepLast;
            builder.cell(&point, keep, Cell::Double(*value), NO_QUALITY);
        }
        self.commit_batch(builder.build());
    }

    fn commit_batch(&self, batch: Batch) {
        let commit = Commit {
            origin: Origin {
                channel: ChannelName::new("scada-history").unwrap(),
                client: "client-1".into(),
                topic: "topic".into(),
                message_id: "\"1\"".into(),
                packet_id: None,
                policies: None,
                arrived_ms: T0,
            },
            product: ProductKey::new("LHBfarm1").unwrap(),
            parts: vec![Part::Points(batch)],
            redrive: None,
        };
        self.store.commit(vec![commit]).unwrap().remove(0).unwrap();
    }

    async fn rows(&self, sql: &str) -> Result<String, SqlError> {
        let mut rows = self.engine.ask("tester", sql).await?;
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            batches.push(batch?);
        }
        Ok(pretty_format_batches(&batches).unwrap().to_string())
    }

    /// The cells of an answer, line by line.
    async fn cells(&self, sql: &str) -> Vec<String> {
        let table = self.rows(sql).await.unwrap();
        let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
        lines
            .map(|line| {
                let cells = line.trim_matches('|').split('|').map(str::trim);
                cells.collect::<Vec<_>>().join(" ")
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.derived.close();
    }
}

fn small() -> World {
    let world = World::new(limits::Sql::default());
    world.commit(&[
        ("R80711", T0, "P_avg", 100.0),
        ("R80711", T0, "Ws_avg", 7.5),
        ("R80711", T0 + HOUR_MS, "P_avg", 300.0),
        ("R80721", T0, "Ws_avg", 3.0),
    ]);
    world
}

#[tokio::test]
async fn a_product_is_a_table_with_a_column_for_each_point() {
    let world = small();
    let asked = r#"SELECT time, device, "P_avg", "Ws_avg" FROM "wind-farm" ORDER BY device, time"#;
    assert_eq!(
        world.cells(asked).await,
        [
            "2014-01-01T00:00:00Z R80711 100.0 7.5",
            "2014-01-01T01:00:00Z R80711 300.0 ",
            "2014-01-01T00:00:00Z R80721  3.0"
        ]
    );
}

#[tokio::test]
async fn how_many_rows_there_are_does_not_depend_on_the_columns() {
    let world = small();
    for (asked, rows) in [
        (r#"SELECT count(*) FROM "wind-farm""#, "3"),
        (r#"SELECT count("P_avg") FROM "wind-farm""#, "2"),
        (
            r#"SELECT count(*) FROM (SELECT time, "P_avg" FROM "wind-farm")"#,
            "3",
        ),
        (
            r#"SELECT count(*) FROM "wind-farm" WHERE "P_avg" IS NULL"#,
            "1",
        ),
        ("SELECT count(*) FROM points", "4"),
        ("SELECT count(*) FROM points WHERE product = 'other'", "0"),
        (
            r#"SELECT count(*) FROM "wind-farm" WHERE device = 'no key!'"#,
            "0",
        ),
    ] {
        assert_eq!(world.cells(asked).await, [rows], "{asked}");
    }
}

#[tokio::test]
async fn the_sequence_is_that_of_the_row_whatever_is_asked_of_it() {
    let world = small();
    world.commit(&[("R80711", T0, "Ws_avg", 8.0)]);
    let asked = r#"SELECT sequence > 1 FROM "wind-farm" WHERE device = 'R80711' AND time = '2014-01-01T00:00:00Z'"#;
    assert_eq!(world.cells(asked).await, ["true"]);
    let asked =
        r#"SELECT DISTINCT sequence, "P_avg" FROM "wind-farm" WHERE device = 'R80711' ORDER BY 2"#;
    assert_eq!(world.cells(asked).await.len(), 2);
    let asked = "SELECT point FROM points WHERE sequence > 1";
    assert_eq!(world.cells(asked).await, ["Ws_avg"]);
}

#[tokio::test]
async fn buckets_of_time_are_grouped_as_grafana_and_people_write_them() {
    let world = small();
    let grafana = r#"SELECT floor(extract(epoch from time)/3600)*3600 AS time, avg("P_avg") AS "P_avg"
        FROM "wind-farm" WHERE time BETWEEN '2014-01-01T00:00:00Z' AND '2014-01-02T00:00:00Z'
        AND device IN ('R80711') GROUP BY 1 ORDER BY 1"#;
    assert_eq!(
        world.cells(grafana).await,
        ["1388534400.0 100.0", "1388538000.0 300.0"]
    );
    let binned = r#"SELECT date_bin(interval '1 day', time) AS day, max("P_avg") FROM "wind-farm" GROUP BY day"#;
    assert_eq!(world.cells(binned).await, ["2014-01-01T00:00:00Z 300.0"]);
    let truncated =
        "SELECT date_trunc('hour', time) AS hour, count(*) FROM points GROUP BY 1 ORDER BY 1";
    assert_eq!(
        world.cells(truncated).await,
        ["2014-01-01T00:00:00Z 3", "2014-01-01T01:00:00Z 1"]
    );
}

#[tokio::test]
async fn conditions_on_time_and_device_and_a_limit_reach_the_store() {
    let world = small();
    let asked = r#"EXPLAIN SELECT "P_avg" FROM "wind-farm"
        WHERE device IN ('R80711', 'R80721') AND time >= '2014-01-01T00:00:00Z' AND time < '2014-01-02' LIMIT 5"#;
    let plan = world.rows(asked).await.unwrap();
    let scan = "product=wind-farm, points=[P_avg], devices=[R80711, R80721], \
                from=2014-01-01T00:00:00.000Z, to=2014-01-02T00:00:00.000Z, limit=5";
    assert!(plan.contains(scan), "{plan}");
    assert!(!plan.contains("FilterExec"), "{plan}");
    let asked = r#"EXPLAIN SELECT time FROM "wind-farm" WHERE device = 'R80711' ORDER BY time"#;
    let plan = world.rows(asked).await.unwrap();
    assert!(!plan.contains("SortExec"), "{plan}");
    let asked = "EXPLAIN SELECT value FROM points WHERE point = 'P_avg' AND time > now() - interval '1 day'";
    let plan = world.rows(asked).await.unwrap();
    assert!(
        plan.contains("series=1; product=wind-farm, points=[P_avg], from="),
        "{plan}"
    );
}

#[tokio::test]
async fn a_range_of_time_does_not_read_the_rest() {
    let world = World::new(limits::Sql::default());
    let devices = ["R80711", "R80721", "R80736", "R80790"];
    // A year of ten minutes, with values that do not compress away.
    for day in 0..360 {
        let rows = (0..144).flat_map(|slot| {
            let time_ms = T0 + (day * 144 + slot) * 600_000;
            devices.map(|device| {
                let value = f64::from(u32::try_from((time_ms / 600_000 * 7_919) % 99_991).unwrap());
                (device, time_ms, "P_avg", value / 7.0)
            })
        });
        world.commit(&rows.collect::<Vec<_>>());
    }
    world.store.compact().unwrap();
    let read_by = async |condition: &str| {
        let before = world.read_bytes.load(Ordering::Relaxed);
        let asked = format!(r#"SELECT count("P_avg") FROM "wind-farm" WHERE {condition}"#);
        let count = world.cells(&asked).await.remove(0);
        (count, world.read_bytes.load(Ordering::Relaxed) - before)
    };
    let (all, whole_bytes) = read_by("true").await;
    assert_eq!(all, (360 * 144 * 4).to_string());
    let of_day = "time >= '2014-06-01T00:00:00Z' AND time < '2014-06-02T00:00:00Z'";
    let (day, day_bytes) = read_by(of_day).await;
    assert_eq!(day, (144 * 4).to_string());
    // A page of each column and device at least: what a page has of other days is read with it.
    assert!(
        day_bytes * 5 < whole_bytes,
        "a day took {day_bytes} bytes, the year {whole_bytes}"
    );
    let (one, one_bytes) = read_by(&format!("{of_day} AND device = 'R80736'")).await;
    assert_eq!(one, "144");
    assert!(one_bytes < day_bytes, "{one_bytes} {day_bytes}");
    let (none, none_bytes) = read_by("time > '2020-01-01'").await;
    assert_eq!((none.as_str(), none_bytes), ("0", 0));
}

#[tokio::test]
async fn what_changes_something_is_refused() {
    let world = small();
    for asked in [
        r#"INSERT INTO "wind-farm" (device) VALUES ('x')"#,
        r#"UPDATE "wind-farm" SET device = 'x'"#,
        r#"DELETE FROM "wind-farm""#,
        r#"DROP TABLE "wind-farm""#,
        "CREATE TABLE x (a int)",
        "CREATE VIEW x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "COPY points TO STDOUT",
        "SELECT 1 INTO x",
        "SET datafusion.runtime.memory_limit = '100G'",
        "TRUNCATE points",
    ] {
        let refusal = world.rows(asked).await.unwrap_err();
        assert!(
            matches!(refusal, SqlError::Writes(_) | SqlError::Syntax(_)),
            "{asked}: {refusal:?}"
        );
    }
    let unread = world.rows("SELECT * FROM '/etc/passwd'").await.unwrap_err();
    assert_eq!(unread.sqlstate(), "42P01", "{unread}");
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong() {
    let world = small();
    for (asked, sqlstate, told) in [
        ("SELEC 1", "42601", "SELEC"),
        (
            "SELECT 1\nFROM points WHERE WHERE 2",
            "42601",
            "Line: 2, Column: 25",
        ),
        ("SELECT 1; SELECT 2", "42601", "2 statements"),
        ("", "42601", "0 statements"),
        ("SELECT * FROM nothing", "42P01", "nothing"),
        (r#"SELECT p_avg FROM "wind-farm""#, "42703", "P_avg"),
        ("SELECT nonsense(1)", "42883", "nonsense"),
    ] {
        let refusal = world.rows(asked).await.unwrap_err();
        assert_eq!(refusal.sqlstate(), sqlstate, "{asked}: {refusal:?}");
        assert!(refusal.to_string().contains(told), "{asked}: {refusal}");
    }
}

#[tokio::test]
async fn a_query_ends_when_its_time_is_over_and_when_the_gateway_closes() {
    let world = World::new(limits::Sql {
        query_s: 1,
        ..limits::Sql::default()
    });
    let endless = "SELECT count(*) FROM generate_series(1, 9000000000) a";
    let refusal = world.rows(endless).await.unwrap_err();
    assert!(matches!(refusal, SqlError::Time(_)), "{refusal:?}");
    world.engine.close();
    let refusal = world.rows(endless).await.unwrap_err();
    assert!(matches!(refusal, SqlError::Closing), "{refusal:?}");
}

#[tokio::test]
async fn a_query_that_needs_too_much_memory_is_refused_and_the_next_is_answered() {
    let world = World::new(limits::Sql {
        memory_bytes_max: 1 << 20,
        spill_bytes_max: 1 << 20,
        ..limits::Sql::default()
    });
    let large = "SELECT max(n) FROM (SELECT count(*) AS n FROM generate_series(1, 1000000) t(value) GROUP BY value * 7919 % 999983)";
    let refusal = world.rows(large).await.unwrap_err();
    assert!(matches!(refusal, SqlError::Memory(_)), "{refusal:?}");
    assert_eq!(world.cells("SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn a_caller_has_so_many_queries_at_once() {
    let world = World::new(limits::Sql {
        queries_per_caller_max: 1,
        ..limits::Sql::default()
    });
    let first: Rows = world.engine.ask("a", "SELECT 1").await.unwrap();
    let Err(SqlError::TooMany { own: 1, .. }) = world.engine.ask("a", "SELECT 1").await else {
        unreachable!("the second is refused");
    };
    world.engine.ask("b", "SELECT 1").await.unwrap();
    drop(first);
    world.engine.ask("a", "SELECT 1").await.unwrap();
}

#[tokio::test]
async fn what_is_declared_is_there_as_tables() {
    let world = small();
    assert_eq!(
        world
            .cells("SELECT product, key, model, devices FROM products")
            .await,
        ["wind-farm LHBfarm1 turbine 1"]
    );
    assert_eq!(
        world
            .cells("SELECT device, timezone FROM devices WHERE product = 'wind-farm'")
            .await,
        ["R80711 Europe/Paris"]
    );
    let tables = world
        .cells("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1")
        .await;
    assert_eq!(
        tables,
        [
            "attributes",
            "channel_log",
            "channels",
            "devices",
            "events",
            "points",
            "products",
            "quarantine",
            "rollups",
            "wind-farm"
        ]
    );
}
