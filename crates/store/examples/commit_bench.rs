//! What committing and recovery cost.
//!
//! ```text
//! commit_bench commit DIR SECONDS    batches of 100 rows × 7 doubles, 64 in flight
//! commit_bench load DIR SECONDS RATE the same, each row of a random device and time, at most RATE
//!                                    points a second; then reads of a million points
//! commit_bench fill DIR MIB          a journal of that size, nothing of it in segments
//! commit_bench recover DIR           opens it
//! commit_bench follow DIR            opens it and reads its whole log
//! ```

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers"
)]

use std::{
    fs,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use backtide_model::{
    Batch, BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY,
    ProductKey,
};
use backtide_store::{
    Commit, Options, Order, Origin, Part, Range, Sequence, Store, disk::RealDisk,
};

const ROWS: i64 = 100;
const POINTS: [&str; 7] = [
    "P_avg", "Ws_avg", "Wa_avg", "Ot_avg", "Ba_avg", "Rs_avg", "Gost_avg",
];
const IN_FLIGHT: usize = 64;
const DEVICES: usize = 1000;
/// Rows of each device that are shuffled together.
const BLOCK_ROWS: usize = 2000;
const STEP_MS: i64 = 600_000;
const START_MS: i64 = 1_400_000_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["commit", dir, seconds] => commit(Path::new(dir), seconds.parse().unwrap()),
        ["load", dir, seconds, rate] => load(
            Path::new(dir),
            seconds.parse().unwrap(),
            rate.parse().unwrap(),
        ),
        ["fill", dir, mib] => fill(Path::new(dir), mib.parse::<u64>().unwrap() << 20),
        ["recover", dir] => recover(Path::new(dir)),
        ["follow", dir] => follow(Path::new(dir)),
        _ => println!(
            "commit_bench commit DIR SECONDS | load DIR SECONDS RATE | fill DIR MIB | recover DIR | follow DIR"
        ),
    }
}

fn commit(dir: &Path, seconds: u64) {
    let (store, _) = Store::open(dir, Arc::new(RealDisk), Options::default()).unwrap();
    let (began, cpu) = (Instant::now(), cpu_s(Path::new("/proc/self")));
    let mut latencies = Vec::new();
    let mut walk = Walk::default();
    let next = || walk.commit();
    let points = pump(&store, next, |latency| {
        latencies.push(latency);
        began.elapsed() < Duration::from_secs(seconds)
    });
    let (wall, cpu) = (
        began.elapsed().as_secs_f64(),
        cpu_s(Path::new("/proc/self")) - cpu,
    );
    latencies.sort();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 1000];
    println!("{points} points in {wall:.1} s wall, {cpu:.1} s CPU");
    println!(
        "{:.0} points/s, {:.0} points per CPU-second",
        points / wall,
        points / cpu
    );
    println!(
        "answered after p50 {:?}, p99 {:?}, max {:?}",
        at(500),
        at(990),
        at(1000)
    );
    println!("{:?}", store.stats());
    println!("peak memory {} MiB", peak_mib());
    show_threads();
}

fn show_threads() {
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        println!("{:>6.2} CPU-seconds {}", cpu_s(&task), name.trim());
    }
}

fn load(dir: &Path, seconds: u64, rate: f64) {
    let (store, _) = Store::open(dir, Arc::new(RealDisk), Options::default()).unwrap();
    let (began, cpu) = (Instant::now(), cpu_s(Path::new("/proc/self")));
    let mut shuffled = Shuffled::new();
    let (mut sent, mut looked, mut overlapping) = (0.0, began, Vec::new());
    let goes_on = |_| {
        sent += 700.0;
        let ahead = sent / rate - began.elapsed().as_secs_f64();
        if ahead > 0.0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "a load at a pace: nothing to wait for"
            )]
            std::thread::sleep(Duration::from_secs_f64(ahead));
        }
        if looked.elapsed() > Duration::from_millis(250) {
            looked = Instant::now();
            overlapping.push(store.segment_stats().unwrap().overlapping_segments_max);
        }
        began.elapsed() < Duration::from_secs(seconds)
    };
    let points = pump(&store, || shuffled.commit(), goes_on);
    let (wall, cpu) = (
        began.elapsed().as_secs_f64(),
        cpu_s(Path::new("/proc/self")) - cpu,
    );
    println!(
        "{:.2} M points/s, {:.2} M points per CPU-second",
        points / wall / 1e6,
        points / cpu / 1e6
    );
    println!("overlapping files {overlapping:?}");
    let rows = usize::try_from(shuffled.rows).unwrap();
    read_both(&store, rows);
    println!("{:?}", store.segment_stats().unwrap());
    println!("peak memory {} MiB", peak_mib());
    show_threads();
    let (began, cpu) = (Instant::now(), cpu_s(Path::new("/proc/self")));
    store.compact().unwrap();
    println!(
        "compacted in {:.1} s wall, {:.1} s CPU",
        began.elapsed().as_secs_f64(),
        cpu_s(Path::new("/proc/self")) - cpu
    );
    let stats = store.segment_stats().unwrap();
    println!(
        "{} bytes, {} cells, {} segments",
        stats.bytes, stats.cells, stats.segments
    );
    read_both(&store, rows);
}

/// A million points: all of some devices, and some time of all devices.
fn read_both(store: &Store, rows: usize) {
    let wanted = 1_000_000 / POINTS.len();
    let of_device = rows / DEVICES;
    let some = (wanted / of_device).clamp(1, DEVICES);
    let devices = (0..some).map(|at| device(at * (DEVICES / some)));
    let devices: Vec<DeviceKey> = devices.collect();
    read(
        store,
        "some devices, by time",
        &devices,
        (i64::MIN, i64::MAX),
        Order::TimeDevice,
    );
    read(
        store,
        "some devices, by device",
        &devices,
        (i64::MIN, i64::MAX),
        Order::DeviceTime,
    );
    let span = i64::try_from(wanted / DEVICES).unwrap() * STEP_MS;
    let from = START_MS + i64::try_from(BLOCK_ROWS / 2).unwrap() * STEP_MS;
    read(
        store,
        "some time, by time",
        &[],
        (from, from + span),
        Order::TimeDevice,
    );
}

fn read(store: &Store, name: &str, devices: &[DeviceKey], span: (i64, i64), order: Order) {
    let range = Range {
        product: ProductKey::new("farm").unwrap(),
        devices: devices.to_vec(),
        points: Vec::new(),
        from_ms: span.0,
        to_ms: span.1,
        order,
        after: None,
        rows_max: usize::MAX,
    };
    let mut took = Vec::new();
    let mut rows = 0;
    for _ in 0..5 {
        let this = Path::new("/proc/thread-self");
        let (began, cpu) = (Instant::now(), cpu_s(this));
        let slabs = store.read(&range).unwrap();
        rows = slabs.map(|slab| slab.unwrap().num_rows()).sum();
        took.push((began.elapsed(), cpu_s(this) - cpu));
    }
    took.sort_by_key(|(wall, _)| *wall);
    println!(
        "{name}: {rows} rows in {:?} ({:.0} ms of CPU)",
        took[2].0,
        took[2].1 * 1e3
    );
}

fn fill(dir: &Path, bytes: u64) {
    let options = Options {
        memtable_bytes_max: usize::MAX,
        ..Options::default()
    };
    let (store, _) = Store::open(dir, Arc::new(RealDisk), options).unwrap();
    let mut walk = Walk::default();
    let points = pump(
        &store,
        || walk.commit(),
        |_| store.stats().log_bytes < bytes,
    );
    println!(
        "{points} points in {} bytes of journal",
        store.stats().log_bytes
    );
}

fn recover(dir: &Path) {
    let (began, cpu) = (Instant::now(), cpu_s(Path::new("/proc/self")));
    let (store, recovery) = Store::open(dir, Arc::new(RealDisk), Options::default()).unwrap();
    let (wall, cpu) = (
        began.elapsed().as_secs_f64(),
        cpu_s(Path::new("/proc/self")) - cpu,
    );
    println!("{recovery:?} in {wall:.1} s wall, {cpu:.1} s CPU");
    println!("peak memory {} MiB", peak_mib());
    println!("{:?}", store.stats());
}

fn follow(dir: &Path) {
    let (store, _) = Store::open(dir, Arc::new(RealDisk), Options::default()).unwrap();
    let cpu = cpu_s(Path::new("/proc/thread-self"));
    let (mut at, mut commits) = (Sequence(0), 0);
    loop {
        let page = store.follow(at, 1 << 20).unwrap();
        let Some(last) = page.last() else { break };
        at = last.sequence;
        commits += page.len();
    }
    println!(
        "{commits} commits, {:.1} s CPU",
        cpu_s(Path::new("/proc/thread-self")) - cpu
    );
}

/// Commits with some submissions in flight until `goes_on` says no, which hears how long each took.
fn pump(
    store: &Store,
    mut next: impl FnMut() -> Commit,
    mut goes_on: impl FnMut(Duration) -> bool,
) -> f64 {
    let (tell, told) = mpsc::sync_channel(IN_FLIGHT);
    let (mut points, mut in_flight, mut open) = (0.0, 0, true);
    while open || in_flight > 0 {
        if open && in_flight < IN_FLIGHT {
            let (began, tell) = (Instant::now(), tell.clone());
            let done = move |results: Vec<Result<_, _>>| {
                assert!(results.iter().all(Result::is_ok));
                tell.send(began.elapsed()).unwrap();
            };
            store.submit(vec![next()], Box::new(done)).unwrap();
            points += 700.0;
            in_flight += 1;
            continue;
        }
        let took = told.recv().unwrap();
        in_flight -= 1;
        open = goes_on(took) && open;
    }
    points
}

/// Two-decimal random walks of a thousand devices.
#[derive(Default)]
struct Walk {
    batch: i64,
    seed: u64,
    at: [i32; 7],
}

impl Walk {
    fn commit(&mut self) -> Commit {
        let mut batch = BatchBuilder::new();
        let policy = ConflictPolicy::KeepLast;
        let points = POINTS.map(|point| ElementName::new(point).unwrap());
        let device = device(usize::try_from(self.batch).unwrap() % DEVICES);
        for row in 0..ROWS {
            batch.row(
                &device,
                START_MS + (self.batch / 1000 * ROWS + row) * STEP_MS,
            );
            for (point, at) in points.iter().zip(&mut self.at) {
                self.seed = self
                    .seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let step = i32::try_from(self.seed >> 40).unwrap() % 101 - 50;
                *at = (*at + step).clamp(-200_000, 200_000);
                batch.cell(
                    point,
                    policy,
                    Cell::Double(f64::from(*at) / 100.0),
                    NO_QUALITY,
                );
            }
        }
        self.batch += 1;
        commit_of(batch.build(), self.batch)
    }
}

fn commit_of(batch: Batch, number: i64) -> Commit {
    let origin = Origin {
        channel: ChannelName::new("scada-history").unwrap(),
        client: "sender|securemode=2,signmethod=sha256|".into(),
        topic: "/sys/farm/device/thing/measurepoint/post".into(),
        message_id: number.to_string().into(),
        packet_id: None,
        policies: None,
        arrived_ms: number,
    };
    let product = ProductKey::new("farm").unwrap();
    Commit {
        origin,
        product,
        parts: vec![Part::Points(batch)],
        redrive: None,
    }
}

fn device(number: usize) -> DeviceKey {
    DeviceKey::new(&format!("device-{number:04}")).unwrap()
}

/// The largest steps of the points' walks, in hundredths.
const STEPS: [i32; 7] = [10, 2_000, 50, 30, 20, 100, 100];

/// Walks of a thousand devices, shuffled in blocks; every twentieth row is sent twice.
struct Shuffled {
    devices: Vec<DeviceKey>,
    points: [ElementName; 7],
    walks: Vec<[i32; 7]>,
    block: Vec<[i32; 7]>,
    /// Rows before the block.
    start: i64,
    order: Vec<u32>,
    seed: u64,
    batch: i64,
    rows: u64,
}

impl Shuffled {
    fn new() -> Self {
        let mut shuffled = Self {
            devices: (0..DEVICES).map(device).collect(),
            points: POINTS.map(|point| ElementName::new(point).unwrap()),
            walks: vec![[5_000; 7]; DEVICES],
            block: Vec::new(),
            start: -i64::try_from(BLOCK_ROWS).unwrap(),
            order: Vec::new(),
            seed: 7,
            batch: 0,
            rows: 0,
        };
        shuffled.next_block();
        shuffled
    }

    fn random(&mut self, below: u32) -> u32 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u32::try_from(((self.seed >> 32) * u64::from(below)) >> 32).unwrap()
    }

    fn next_block(&mut self) {
        self.start += i64::try_from(BLOCK_ROWS).unwrap();
        self.block.clear();
        for device in 0..DEVICES {
            for _ in 0..BLOCK_ROWS {
                for (point, step) in STEPS.into_iter().enumerate() {
                    let by = self.random(u32::try_from(2 * step + 1).unwrap());
                    let at = &mut self.walks[device][point];
                    *at = (*at + i32::try_from(by).unwrap() - step).clamp(-18_000, 205_000);
                }
                self.block.push(self.walks[device]);
            }
        }
        let rows = u32::try_from(self.block.len()).unwrap();
        self.order = (0..rows).collect();
        for _ in 0..rows / 20 {
            let again = self.random(rows);
            self.order.push(again);
        }
        for at in (1..self.order.len()).rev() {
            let other = self.random(u32::try_from(at).unwrap() + 1);
            self.order.swap(at, other as usize);
        }
    }

    fn commit(&mut self) -> Commit {
        let mut batch = BatchBuilder::new();
        for _ in 0..ROWS {
            let Some(at) = self.order.pop() else {
                self.next_block();
                break;
            };
            self.rows += 1;
            let (device, row) = (at as usize / BLOCK_ROWS, at as usize % BLOCK_ROWS);
            let time = START_MS + (self.start + i64::try_from(row).unwrap()) * STEP_MS;
            batch.row(&self.devices[device], time);
            for (point, value) in self.points.iter().zip(self.block[at as usize]) {
                let cell = Cell::Double(f64::from(value) / 100.0);
                batch.cell(point, ConflictPolicy::KeepLast, cell, NO_QUALITY);
            }
        }
        self.batch += 1;
        commit_of(batch.build(), self.batch)
    }
}

/// CPU time of a process (`/proc/self`) or one of its threads, user and system.
fn cpu_s(of: &Path) -> f64 {
    let stat = fs::read_to_string(of.join("stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum();
    ticks / 100.0
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}
