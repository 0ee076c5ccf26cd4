//! What events cost: commit, flush, size, reads.
//!
//! ```text
//! event_bench DIR MILLIONS (devices|sweep|random)    in which order they come
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
    time::Instant,
};

use backtide_model::{ChannelName, DeviceKey, ElementName, Occurrence, ProductKey};
use backtide_store::{Commit, EventRange, Options, Origin, Part, Store, disk::RealDisk};

const DEVICES: u64 = 1_000;
const MESSAGE_EVENTS: u64 = 100;
const IN_FLIGHT: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [dir, millions, order] = arguments.as_slice() else {
        println!("event_bench DIR MILLIONS (devices|sweep|random)");
        return;
    };
    let (dir, events) = (Path::new(dir), millions.parse::<u64>().unwrap() * 1_000_000);
    let (store, _) = Store::open(dir, Arc::new(RealDisk), Options::default()).unwrap();
    let began = Instant::now();
    pump(&store, events, order);
    let committed_s = began.elapsed().as_secs_f64();
    store.flush_now().unwrap();
    let (wall, count) = (began.elapsed().as_secs_f64(), events as f64);
    println!(
        "{:.0} events/s answered, {:.0} flushed too",
        count / committed_s,
        count / wall
    );
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        let cpu = cpu_s(&task);
        println!(
            "{cpu:>6.2} CPU-seconds {}, {:.2} µs an event",
            name.trim(),
            cpu * 1e6 / count
        );
    }
    let bytes = fs::metadata(dir.join("chronicle.db")).unwrap().len() as f64;
    println!(
        "{:.1} bytes an event, {:?}",
        bytes / count,
        store.chronicle_stats().unwrap()
    );
    for (what, devices, rows_max) in [
        ("all", Vec::new(), usize::MAX),
        ("one device", vec![device(7)], usize::MAX),
        ("a page of 1000 of all", Vec::new(), 1_000),
    ] {
        let range = EventRange {
            product: product(),
            devices,
            events: Vec::new(),
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            after: None,
            rows_max,
        };
        let began = Instant::now();
        let rows: usize = store
            .events(&range)
            .unwrap()
            .map(|slab| slab.unwrap().len())
            .sum();
        let took = began.elapsed().as_secs_f64();
        println!(
            "{what}: {rows} in {took:.3} s, {:.0} a second",
            rows as f64 / took
        );
    }
}

fn product() -> ProductKey {
    ProductKey::new("farm").unwrap()
}

fn device(number: u64) -> DeviceKey {
    DeviceKey::new(&format!("device-{number:04}")).unwrap()
}

fn pump(store: &Store, events: u64, order: &str) {
    let devices: Vec<DeviceKey> = (0..DEVICES).map(device).collect();
    let names = ["alarm", "door.open", "pitch.fault"].map(|name| ElementName::new(name).unwrap());
    let (tell, told) = mpsc::sync_channel(IN_FLIGHT);
    let (mut next, mut in_flight) = (0, 0);
    while next < events || in_flight > 0 {
        if next < events && in_flight < IN_FLIGHT {
            let tell = tell.clone();
            let done = move |results: Vec<Result<_, _>>| {
                assert!(results.iter().all(Result::is_ok));
                tell.send(()).unwrap();
            };
            let occurrence = |number: u64| {
                let (device, at) = match order {
                    "devices" => (number / (events / DEVICES), number % (events / DEVICES)),
                    "sweep" => (number % DEVICES, number / DEVICES),
                    _ => {
                        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                        (mixed % DEVICES, mixed >> 34)
                    }
                };
                Occurrence {
                    device: devices[usize::try_from(device % DEVICES).unwrap()].clone(),
                    time_ms: 1_400_000_000_000 + i64::try_from(at).unwrap() * 1_000,
                    event: names[usize::try_from(number % 3).unwrap()].clone(),
                    output: format!("{{\"code\":{},\"text\":\"pressure low\"}}", number % 500)
                        .into(),
                }
            };
            let message = (next..next + MESSAGE_EVENTS).map(occurrence).collect();
            store
                .submit(vec![commit(next, message)], Box::new(done))
                .unwrap();
            next += MESSAGE_EVENTS;
            in_flight += 1;
            continue;
        }
        told.recv().unwrap();
        in_flight -= 1;
    }
}

fn commit(number: u64, occurrences: Vec<Occurrence>) -> Commit {
    Commit {
        origin: Origin {
            channel: ChannelName::new("scada-history").unwrap(),
            client: "sender|securemode=4,signmethod=sha256|".into(),
            topic: "/sys/farm/integration/event/post".into(),
            message_id: number.to_string().into(),
            packet_id: None,
            policies: None,
            arrived_ms: i64::try_from(number).unwrap(),
        },
        product: product(),
        parts: vec![Part::Events(occurrences)],
        redrive: None,
    }
}

/// CPU time of a thread, user and system.
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
