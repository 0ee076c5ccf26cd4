//! What committing and recovery cost.
//!
//! ```text
//! commit_bench commit DIR SECONDS    batches of 100 rows × 7 doubles, 64 in flight
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
    BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY, ProductKey,
};
use backtide_store::{Commit, Options, Origin, Part, Sequence, Store, disk::RealDisk};

const ROWS: i64 = 100;
const POINTS: [&str; 7] = [
    "P_avg", "Ws_avg", "Wa_avg", "Ot_avg", "Ba_avg", "Rs_avg", "Gost_avg",
];
const IN_FLIGHT: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["commit", dir, seconds] => commit(Path::new(dir), seconds.parse().unwrap()),
        ["fill", dir, mib] => fill(Path::new(dir), mib.parse::<u64>().unwrap() << 20),
        ["recover", dir] => recover(Path::new(dir)),
        ["follow", dir] => follow(Path::new(dir)),
        _ => println!("commit_bench commit DIR SECONDS | fill DIR MIB | recover DIR | follow DIR"),
    }
}

fn commit(dir: &Path, seconds: u64) {
    let (store, _) = Store::open(dir, Arc::new(RealDisk), Options::default()).unwrap();
    let (began, cpu) = (Instant::now(), cpu_s(Path::new("/proc/self")));
    let mut latencies = Vec::new();
    let points = pump(&store, |latency| {
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
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        println!("{:>6.2} CPU-seconds {}", cpu_s(&task), name.trim());
    }
}

fn fill(dir: &Path, bytes: u64) {
    let options = Options {
        memtable_bytes_max: usize::MAX,
        ..Options::default()
    };
    let (store, _) = Store::open(dir, Arc::new(RealDisk), options).unwrap();
    let points = pump(&store, |_| store.stats().log_bytes < bytes);
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
fn pump(store: &Store, mut goes_on: impl FnMut(Duration) -> bool) -> f64 {
    let (tell, told) = mpsc::sync_channel(IN_FLIGHT);
    let mut walk = Walk::default();
    let (mut points, mut in_flight, mut open) = (0.0, 0, true);
    while open || in_flight > 0 {
        if open && in_flight < IN_FLIGHT {
            let (began, tell) = (Instant::now(), tell.clone());
            let done = move |results: Vec<Result<_, _>>| {
                assert!(results.iter().all(Result::is_ok));
                tell.send(began.elapsed()).unwrap();
            };
            store.submit(vec![walk.commit()], Box::new(done)).unwrap();
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
        let device = DeviceKey::new(&format!("device-{:04}", self.batch % 1000)).unwrap();
        for row in 0..ROWS {
            batch.row(
                &device,
                1_400_000_000_000 + (self.batch / 1000 * ROWS + row) * 600_000,
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
        let origin = Origin {
            channel: ChannelName::new("scada-history").unwrap(),
            client: "sender|securemode=2,signmethod=sha256|".into(),
            topic: "/sys/farm/device/thing/measurepoint/post".into(),
            message_id: self.batch.to_string().into(),
            packet_id: None,
            arrived_ms: self.batch,
        };
        let product = ProductKey::new("farm").unwrap();
        Commit {
            origin,
            product,
            parts: vec![Part::Points(batch.build())],
            redrive: None,
        }
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
