//! What was answered with 200, and whether the product's own query gives exactly that back.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::series::{self, POINTS, START_MS, STEP_MS, Walk};

/// The rows that were answered, a bit for each index of each device.
pub struct Answered {
    bits: Vec<Vec<u64>>,
}

impl Answered {
    pub fn new(devices: u32) -> Self {
        Self {
            bits: vec![Vec::new(); devices as usize],
        }
    }

    pub fn add(&mut self, device: u32, index: u32) {
        let words = &mut self.bits[device as usize];
        let word = index as usize / 64;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (index % 64);
    }

    fn has(&self, device: u32, index: u32) -> bool {
        let word = self.bits[device as usize].get(index as usize / 64);
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Rows, each counted once however often it was sent.
    pub fn rows(&self) -> u64 {
        (0..self.bits.len())
            .map(|device| self.rows_of(device))
            .sum()
    }

    fn rows_of(&self, device: usize) -> u64 {
        self.bits[device]
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }
}

/// What a check found. Everything but the first two and `seconds` must be 0.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    pub rows: u64,
    pub values: u64,
    pub rows_missing: u64,
    pub rows_unexpected: u64,
    pub values_wrong: u64,
    pub seconds: f64,
}

const DEVICES_A_QUERY: usize = 50;

/// Reads everything back through `backtide query`: all seven points of the first fifty devices, one
/// point of all others, and compares every row and value.
pub fn check(answered: &Answered, backtide: &Path, product: &str, seed: u64) -> Result<Found> {
    let started = std::time::Instant::now();
    let devices: Vec<u32> = (0..answered.bits.len() as u32).collect();
    let mut found = Found::default();
    for (n, some) in devices.chunks(DEVICES_A_QUERY).enumerate() {
        let points = if n == 0 {
            0..POINTS.len()
        } else {
            n % POINTS.len()..n % POINTS.len() + 1
        };
        check_devices(answered, backtide, product, seed, some, points, &mut found)?;
    }
    found.seconds = started.elapsed().as_secs_f64();
    Ok(found)
}

fn check_devices(
    answered: &Answered,
    backtide: &Path,
    product: &str,
    seed: u64,
    devices: &[u32],
    points: std::ops::Range<usize>,
    found: &mut Found,
) -> Result<()> {
    let keys: Vec<String> = devices
        .iter()
        .map(|&device| series::device_key(device))
        .collect();
    let names: Vec<&str> = points.clone().map(|p| POINTS[p].name).collect();
    let mut query = Command::new(backtide)
        .args([
            "query",
            "--product",
            product,
            "--device",
            &keys.join(","),
            "--points",
            &names.join(","),
        ])
        .args([
            "--from",
            "2014-01-01T00:00:00Z",
            "--to",
            "2100-01-01T00:00:00Z",
            "-o",
            "ndjson",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", backtide.display()))?;

    // Rows of a device come in time order, so each device's walk is walked once.
    let mut walks: HashMap<&str, (u32, Walk)> = keys
        .iter()
        .zip(devices)
        .map(|(key, &device)| (key.as_str(), (device, Walk::new(seed, device))))
        .collect();
    let mut expected_rows = devices
        .iter()
        .map(|&device| answered.rows_of(device as usize))
        .sum::<u64>();
    let mut lines =
        BufReader::with_capacity(1 << 18, query.stdout.take().context("no standard output")?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let row: QueryRow<'_> =
            serde_json::from_str(&line).with_context(|| format!("no row: {line}"))?;
        let (device, walk) = walks
            .get_mut(row.device_key)
            .with_context(|| format!("not asked for: {line}"))?;
        found.rows += 1;
        let index = u32::try_from((row.time - START_MS) / STEP_MS).unwrap_or(u32::MAX);
        if series::time_ms(index) != row.time
            || index < walk.index()
            || !answered.has(*device, index)
        {
            found.rows_unexpected += 1;
        } else {
            expected_rows -= 1;
            let mut expected = walk.advance();
            while walk.index() <= index {
                expected = walk.advance();
            }
            for p in points.clone() {
                found.values += 1;
                found.values_wrong +=
                    u64::from(row.value(p) != Some(f64::from(expected[p]) / 100.0));
            }
        }
        line.clear();
    }
    found.rows_missing += expected_rows;
    let status = query.wait()?;
    ensure!(status.success(), "backtide query ended with {status}");
    Ok(())
}

#[derive(Deserialize)]
struct QueryRow<'a> {
    #[serde(rename = "deviceKey")]
    device_key: &'a str,
    time: i64,
    #[serde(rename = "Ba_avg")]
    ba: Option<f64>,
    #[serde(rename = "P_avg")]
    p: Option<f64>,
    #[serde(rename = "Ws_avg")]
    ws: Option<f64>,
    #[serde(rename = "Va_avg")]
    va: Option<f64>,
    #[serde(rename = "Ot_avg")]
    ot: Option<f64>,
    #[serde(rename = "Ya_avg")]
    ya: Option<f64>,
    #[serde(rename = "Wa_avg")]
    wa: Option<f64>,
}

impl QueryRow<'_> {
    fn value(&self, point: usize) -> Option<f64> {
        [self.ba, self.p, self.ws, self.va, self.ot, self.ya, self.wa][point]
    }
}
