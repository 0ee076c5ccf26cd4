//! How fast the store reads a million points from 1, 4 and 8 overlapping segments, and how fast it
//! merges: `cargo run --release -p backtide-store --example read_bench [DIR]`. The merged store
//! stays in DIR where one is given.

use std::{
    error::Error,
    fs,
    io::{Write, stdout},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use backtide_model::{
    Batch, BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
    ProductKey,
};
use backtide_store::{Commit, Options, Order, Origin, Part, Range, Store, disk::RealDisk};

type Outcome<T> = Result<T, Box<dyn Error>>;

const POINTS: usize = 7;
const ROWS: i64 = 143_000;
const DEVICES: i64 = 4;
const MESSAGE_ROWS: usize = 100;

fn main() -> Outcome<()> {
    let kept = std::env::args().nth(1).map(PathBuf::from);
    let mut dir = std::env::temp_dir().join(format!("backtide-read-bench-{}", std::process::id()));
    let mut out = stdout();
    for files in [1, 4, 8] {
        let store = filled(&dir, files, ROWS)?;
        for (name, order) in [
            ("device, time", Order::DeviceTime),
            ("time, device", Order::TimeDevice),
        ] {
            let mut times = Vec::new();
            for _ in 0..9 {
                let (started, cpu) = (Instant::now(), cpu_s()?);
                let rows = read(&store, order)?;
                times.push((started.elapsed(), cpu_s()? - cpu, rows));
            }
            times.sort_by_key(|(time, _, _)| *time);
            let (time, cpu, rows) = times[times.len() / 2];
            writeln!(
                out,
                "{files} files, by {name}: {rows} rows x {POINTS} in {:.1} ms ({:.0} ms of CPU)",
                1e3 * time.as_secs_f64(),
                1e3 * cpu,
            )?;
        }
        store.close();
        fs::remove_dir_all(&dir)?;
    }
    dir = kept.clone().unwrap_or(dir);
    merge(&dir, &mut out)?;
    if kept.is_none() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// Opens a store of eight overlapping segments with an ordinary bound and waits for the merges.
fn merge(dir: &Path, out: &mut impl Write) -> Outcome<()> {
    let rows = 8 * ROWS;
    filled(dir, 8, rows)?.close();
    let (started, cpu) = (Instant::now(), cpu_s()?);
    let options = Options {
        quiet_ms: 0,
        ..Options::default()
    };
    let (store, _) = Store::open(dir, Arc::new(RealDisk), options)?;
    // Nobody ever sends: it only waits.
    let (_sender, never) = mpsc::sync_channel::<()>(1);
    while store.segment_stats()?.segments > 1 {
        if never.recv_timeout(Duration::from_millis(20)).is_ok() {
            break;
        }
    }
    let (cpu, stats) = (cpu_s()? - cpu, store.segment_stats()?);
    let (points, bytes) = (u32::try_from(stats.cells)?, u32::try_from(stats.bytes)?);
    writeln!(
        out,
        "merged {points} points of 8 files in {:.2} s: {:.1} M points per CPU-second, {:.2} bytes a point",
        started.elapsed().as_secs_f64(),
        f64::from(points) / cpu / 1e6,
        f64::from(bytes) / f64::from(points),
    )?;
    store.close();
    Ok(())
}

/// A store of `rows` rows, spread over `files` segments that all hold every stretch of time.
fn filled(dir: &Path, files: i64, rows: i64) -> Outcome<Store> {
    let options = Options {
        overlapping_segments_max: 1_000,
        quiet_ms: u64::MAX,
        memtable_bytes_max: 1 << 30,
        ..Options::default()
    };
    let (store, _) = Store::open(dir, Arc::new(RealDisk), options)?;
    for file in 0..files {
        let mut commits = Vec::new();
        let rows: Vec<i64> = (0..rows)
            .filter(|row| row / DEVICES % files == file)
            .collect();
        for part in rows.chunks(MESSAGE_ROWS) {
            commits.push(commit(batch(part)?)?);
            if commits.len() == 64 {
                committed(&store, std::mem::take(&mut commits))?;
            }
        }
        committed(&store, commits)?;
        store.flush_now()?;
    }
    Ok(store)
}

fn committed(store: &Store, commits: Vec<Commit>) -> Outcome<()> {
    for result in store.commit(commits)? {
        result?;
    }
    Ok(())
}

fn batch(rows: &[i64]) -> Outcome<Batch> {
    let mut builder = BatchBuilder::new();
    for row in rows {
        let (device, number) = (row % DEVICES, row / DEVICES);
        builder.row(
            &DeviceKey::new(&format!("device-{device}"))?,
            1_400_000_000_000 + number * 600_000,
        );
        for (at, phase) in (0_u32..7).zip([0.1, 1.7, 2.9, 0.4, 5.1, 3.3, 4.2]) {
            // Two decimals that wander with some noise, as sensors do.
            let time = f64::from(i32::try_from(number)?);
            let noise = f64::from(u8::try_from((row * 7_919 + i64::from(at) * 104_729) % 97)?);
            let value = 50.0 + 40.0 * (time / 700.0 + phase).sin() + noise / 97.0;
            let cell = Cell::Double((value * 100.0).round() / 100.0);
            let point = ElementName::new(&format!("p{at}"))?;
            builder.cell(&point, ConflictPolicy::KeepLast, cell, NO_QUALITY);
        }
    }
    Ok(builder.build())
}

fn commit(batch: Batch) -> Outcome<Commit> {
    let origin = Origin {
        channel: ChannelName::new("bench")?,
        client: "bench".into(),
        topic: "bench".into(),
        message_id: "1".into(),
        packet_id: None,
        policies: None,
        arrived_ms: 0,
    };
    let product = ProductKey::new("farm")?;
    Ok(Commit {
        origin,
        product,
        parts: vec![Part::Points(batch)],
        redrive: None,
    })
}

fn read(store: &Store, order: Order) -> Outcome<usize> {
    let range = Range {
        product: ProductKey::new("farm")?,
        devices: Vec::new(),
        points: Vec::new(),
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        order,
        after: None,
        rows_max: usize::MAX,
    };
    let mut rows = 0;
    for slab in store.read(&range)? {
        rows += slab?.num_rows();
    }
    Ok(rows)
}

/// CPU time of the process, seconds, at the usual hundred ticks a second.
fn cpu_s() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat
        .rsplit_once(')')
        .ok_or("/proc/self/stat has no name")?
        .1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}
