//! What decodes cost: CPU of worker processes and of the gateway's side of the exchange together.
//!
//! `cargo run --release --example decode_bench -- target/release/backtide [FILE]`, where FILE holds
//! foreign decoders with their frames, as tests/outside/clients/decoders.cjs prints them. One JSON
//! line for each measurement.

use std::{error::Error, io::Write, sync::Arc, time::Instant};

use backtide::{
    limits::Scripts as Limits,
    script::{Call, Detail, Dialect, Mapping, Operation, Program, Scripts, WorkerCommand},
};
use bytes::Bytes;
use serde_json::{Value, json};

/// 40 bytes: id, packet, device, time, six values in hundredths.
const FRAME: &str = include_str!("frame40.js");
/// Writes the id and the code, six bytes.
const REPLY: &str = "function jsonStrToRawData(text) {
  var reply = JSON.parse(text), id = reply.id;
  return [id >> 24 & 255, id >> 16 & 255, id >> 8 & 255, id & 255, reply.code >> 8, reply.code & 255];
}";
/// Calls handed over at once: a burst of the MQTT door.
const BURST: usize = 256;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or("name the backtide binary")?;
    let command = WorkerCommand {
        program: std::fs::canonicalize(program)?,
        arguments: vec!["script-worker".into()],
    };
    let scripts = Scripts::start(&command, &Limits::default())?;
    let frames: Vec<Bytes> = (0..BURST).map(frame).collect();
    for (name, keep_state, calls) in [("kept", true, 400_000), ("default", false, 200_000)] {
        let own = program_of(FRAME, Dialect::default(), None, keep_state)?;
        report(&scripts, name, &own, Operation::Decode, &frames, calls).await?;
    }
    let own = program_of(REPLY, Dialect::default(), None, true)?;
    let replies = [Bytes::from_static(
        b"{\"id\":20,\"code\":200,\"data\":\"\"}",
    )];
    report(
        &scripts,
        "kept, encode",
        &own,
        Operation::Encode,
        &replies,
        200_000,
    )
    .await?;
    if let Some(file) = arguments.next() {
        foreign(&scripts, &std::fs::read_to_string(file)?).await?;
    }
    Ok(())
}

/// Twenty decoders of others with their own frames.
async fn foreign(scripts: &Scripts, text: &str) -> Outcome<()> {
    let decoders: Vec<Value> = serde_json::from_str(text)?;
    let chosen = decoders
        .iter()
        .step_by((decoders.len() / 20).max(1))
        .take(20);
    for decoder in chosen {
        let dialect = decoder["dialect"].as_str().and_then(Dialect::from_word);
        let dialect = dialect.ok_or("a decoder of no known dialect")?;
        let frames: Vec<Bytes> = decoder["frames"]
            .as_array()
            .ok_or("a decoder has no frames")?
            .iter()
            .filter_map(|frame| Some(hex::decode(frame["hex"].as_str()?).ok()?.into()))
            .collect();
        let source = decoder["source"]
            .as_str()
            .ok_or("a decoder has no source")?;
        let name = decoder["name"].as_str().unwrap_or_default();
        for keep_state in [true, false] {
            let mapping: Mapping = serde_json::from_value(json!({ "device": "d1" }))?;
            let own = program_of(source, dialect, Some(mapping), keep_state)?;
            let mode = if keep_state { "kept" } else { "default" };
            let name = format!("{name}, {mode}");
            report(scripts, &name, &own, Operation::Decode, &frames, 2_000).await?;
        }
    }
    Ok(())
}

fn program_of(
    source: &str,
    dialect: Dialect,
    mapping: Option<Mapping>,
    keep_state: bool,
) -> Outcome<Arc<Program>> {
    let way = (dialect, mapping);
    let own = Program::new("bench", Some(1), source.into(), way, keep_state)?;
    Ok(Arc::new(own))
}

async fn report(
    scripts: &Scripts,
    name: &str,
    program: &Arc<Program>,
    operation: Operation,
    inputs: &[Bytes],
    calls: usize,
) -> Outcome<()> {
    let burst = || -> Vec<Call> {
        (0..BURST)
            .map(|n| Call {
                operation,
                input: inputs[n % inputs.len()].clone(),
                time_ms: 1_718_000_000_000,
            })
            .collect()
    };
    // Once to load and warm.
    let first = scripts.run(program, burst(), Detail::Outcome).await;
    if let Some(failure) = first.iter().find_map(|done| done.outcome.as_ref().err()) {
        return Err(format!("{name}: {failure}").into());
    }
    let (start, before) = (Instant::now(), cpu_s()?);
    let mut done = 0;
    while done < calls {
        // Two bursts at a time: both workers have something to do.
        let (a, b) = tokio::join!(
            scripts.run(program, burst(), Detail::Outcome),
            scripts.run(program, burst(), Detail::Outcome)
        );
        done += a.len() + b.len();
    }
    let (cpu, seconds) = (cpu_s()? - before, start.elapsed().as_secs_f64());
    let line = json!({
        "name": name, "calls": done, "cpuSeconds": cpu, "seconds": seconds,
        "perCpuSecond": done as f64 / cpu, "cpuMicroseconds": cpu * 1e6 / done as f64,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn frame(n: usize) -> Bytes {
    let mut frame = Vec::with_capacity(40);
    frame.extend_from_slice(&u32::try_from(n).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&[0, 1, 0, 7]);
    frame.extend_from_slice(&1_718_000_000_000_u64.to_be_bytes());
    for value in [4_512_i32, -120, 98_765, 3, 0, 100_000] {
        frame.extend_from_slice(&value.to_be_bytes());
    }
    frame.into()
}

/// CPU seconds of this process and of its workers.
fn cpu_s() -> Outcome<f64> {
    let own = std::process::id();
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc")? {
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        let id: u32 = stat
            .split(' ')
            .next()
            .unwrap_or_default()
            .parse()
            .unwrap_or(0);
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        if id == own || number(1) == u64::from(own) {
            ticks += number(11) + number(12);
        }
    }
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
