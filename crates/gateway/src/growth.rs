//! How fast the data directory grows, and when its disk is full at that rate.
//!
//! The directory is measured now and then; a straight line through the measurements, by least squares,
//! is the growth. The log comes and goes with every flush and merges shrink what they touch, so two
//! measurements say little and an hour of them is the least that says anything. After a restart it
//! begins anew: nothing is made up for the time when nobody measured.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    limits::{GROWTH_DAYS_MAX, GROWTH_KNOWN_S, GROWTH_SAMPLE_S, GROWTH_WARN_DAYS, GROWTH_WINDOW_S},
    pool::Pool,
};

const DAY_S: f64 = 86_400.0;
/// What a disk block of [`fs::Metadata`] has, whatever the file system says of its own.
const BLOCK_BYTES: u64 = 512;

/// What the measurements come to.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DataGrowth)]
pub struct Outlook {
    pub state: Pace,
    /// What the data directory takes of the disk; absent before it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<u64>,
    /// How far back measurements reach.
    pub measured_seconds: u64,
    /// How far they must reach before they say anything.
    pub needed_seconds: u64,
    /// Absent where too little is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<f64>,
    /// Until nothing is taken any more: the free space less its reserve, at this rate. Absent where it
    /// does not grow, or where the free space cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days_left: Option<f64>,
}

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DataPace)]
pub enum Pace {
    /// Too little is known yet.
    Unknown,
    /// It does not grow, or so slowly that the disk lasts for years.
    Steady,
    Growing,
}

impl Outlook {
    /// What somebody should look after, where the disk does not last long.
    pub fn warning(&self) -> Option<String> {
        let days = self.days_left.filter(|days| *days < GROWTH_WARN_DAYS)?;
        let hours = self.measured_seconds / 3_600;
        Some(format!(
            "the disk is full in {days:.1} days, as the data grew in the last {hours} h: free some \
             space, or keep data for a shorter time (policies, quarantine, subscriptions)"
        ))
    }
}

/// Measurements of the data directory, the latest last.
pub struct Growth {
    data_dir: PathBuf,
    /// Below so much free space nothing is taken.
    reserve_bytes: u64,
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Growth {
    pub fn of(data_dir: &Path, reserve_bytes: u64) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            reserve_bytes,
            samples: Mutex::default(),
        }
    }

    /// Measures until `closing`.
    pub async fn keep(&self, pool: Pool, closing: CancellationToken) {
        loop {
            let data_dir = self.data_dir.clone();
            match pool.run(move || occupied(&data_dir)).await {
                Ok(Ok(bytes)) => self.add(bytes),
                // The next time tries again; a gap does not bend the line.
                Ok(Err(error)) => tracing::warn!(%error, "the data directory cannot be measured"),
                Err(_) => return,
            }
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(GROWTH_SAMPLE_S)) => {}
            }
        }
    }

    fn add(&self, bytes: u64) {
        let now = Instant::now();
        let mut samples = self.samples.lock();
        let window = Duration::from_secs(GROWTH_WINDOW_S);
        while let Some((at, _)) = samples.front()
            && now.duration_since(*at) > window
        {
            samples.pop_front();
        }
        samples.push_back((now, bytes));
    }

    /// What they come to at this moment, with so much free space; `u64::MAX` where that is not known.
    pub fn outlook(&self, free_bytes: u64) -> Outlook {
        let samples = self.samples.lock();
        let measured_seconds = match (samples.front(), samples.back()) {
            (Some((first, _)), Some((last, _))) => last.duration_since(*first).as_secs(),
            _ => 0,
        };
        let mut outlook = Outlook {
            state: Pace::Unknown,
            data_bytes: samples.back().map(|(_, bytes)| *bytes),
            measured_seconds,
            needed_seconds: GROWTH_KNOWN_S,
            bytes_per_day: None,
            days_left: None,
        };
        if measured_seconds < GROWTH_KNOWN_S {
            return outlook;
        }
        let Some(bytes_per_day) = slope(&samples).map(|per_second| per_second * DAY_S) else {
            return outlook;
        };
        let usable_bytes = free_bytes.saturating_sub(self.reserve_bytes) as f64;
        let days = usable_bytes / bytes_per_day;
        let is_known = free_bytes != u64::MAX;
        outlook.bytes_per_day = Some(bytes_per_day);
        outlook.state = match bytes_per_day > 0.0 && !(is_known && days > GROWTH_DAYS_MAX) {
            true => Pace::Growing,
            false => Pace::Steady,
        };
        outlook.days_left = Some(days).filter(|_| outlook.state == Pace::Growing && is_known);
        outlook
    }

    /// Sets the gauges. Without a number where too little is known, without an end where it does not grow.
    pub fn gauge(&self, free_bytes: u64) {
        let outlook = self.outlook(free_bytes);
        let bytes = outlook.data_bytes.map_or(f64::NAN, |bytes| bytes as f64);
        let days = match outlook.state {
            Pace::Steady => f64::INFINITY,
            Pace::Unknown | Pace::Growing => outlook.days_left.unwrap_or(f64::NAN),
        };
        metrics::gauge!("backtide_data_bytes").set(bytes);
        metrics::gauge!("backtide_data_growth_bytes_per_day")
            .set(outlook.bytes_per_day.unwrap_or(f64::NAN));
        metrics::gauge!("backtide_disk_days_left").set(days);
    }
}

/// Bytes a second, by least squares; none where all is of one moment.
fn slope(samples: &VecDeque<(Instant, u64)>) -> Option<f64> {
    let (first_at, first_bytes) = *samples.front()?;
    let points: Vec<(f64, f64)> = samples
        .iter()
        .map(|(at, bytes)| {
            let seconds = at.duration_since(first_at).as_secs_f64();
            (seconds, *bytes as f64 - first_bytes as f64)
        })
        .collect();
    let number = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / number;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / number;
    let spread = points
        .iter()
        .map(|(x, _)| (x - mean_x).powi(2))
        .sum::<f64>();
    let joint = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum::<f64>();
    (spread > 0.0).then(|| joint / spread)
}

/// What a folder and all that is in it take of the disk. What goes away meanwhile is not there; links
/// lead elsewhere.
fn occupied(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Some(entries) = unless_gone(fs::read_dir(&folder))? else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let Some(metadata) = unless_gone(entry.metadata())? else {
                continue;
            };
            bytes += metadata.blocks() * BLOCK_BYTES;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

fn unless_gone<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn growth() -> Growth {
        Growth::of(Path::new("/nowhere"), GIB)
    }

    /// Measurements every five minutes for so long, of what `bytes` says by the minute.
    async fn measured(growth: &Growth, minutes: u64, bytes: impl Fn(u64) -> u64) {
        for minute in (0..=minutes).step_by(5) {
            growth.add(bytes(minute));
            tokio::time::advance(Duration::from_secs(GROWTH_SAMPLE_S)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_before_an_hour_is_known() {
        let growth = growth();
        assert_eq!(growth.outlook(5 * GIB).data_bytes, None);
        measured(&growth, 55, |minute| minute * MIB).await;
        let outlook = growth.outlook(5 * GIB);
        assert_eq!(outlook.state, Pace::Unknown);
        assert_eq!(
            (outlook.measured_seconds, outlook.needed_seconds),
            (3_300, 3_600)
        );
        assert_eq!((outlook.bytes_per_day, outlook.days_left), (None, None));
        assert_eq!(outlook.data_bytes, Some(55 * MIB));
        assert_eq!(outlook.warning(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn days_left_are_the_free_space_above_its_reserve_at_the_measured_rate() {
        let growth = growth();
        // 1440 MiB a day; of 1 + 14.0625 GiB only the part above the reserve counts: ten days.
        measured(&growth, 60, |minute| 7 * GIB + minute * MIB).await;
        let outlook = growth.outlook(GIB + 14_400 * MIB);
        assert_eq!(outlook.state, Pace::Growing);
        let (rate, days) = (outlook.bytes_per_day.unwrap(), outlook.days_left.unwrap());
        assert!((rate / MIB as f64 - 1_440.0).abs() < 1e-6, "{rate}");
        assert!((days - 10.0).abs() < 1e-9, "{days}");
        assert_eq!(outlook.warning(), None);
        let soon = growth.outlook(GIB + 2_880 * MIB);
        assert!(
            soon.warning()
                .unwrap()
                .starts_with("the disk is full in 2.0 days")
        );
        let over = growth.outlook(GIB / 2);
        assert_eq!(over.days_left, Some(0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_comes_and_goes_does_not_bend_the_line() {
        let growth = growth();
        // 60 MiB an hour, and a log that grows to 500 MiB every half hour and is emptied.
        measured(&growth, 24 * 60, |minute| {
            minute * MIB + (minute % 30) * 16 * MIB
        })
        .await;
        let per_day = growth.outlook(100 * GIB).bytes_per_day.unwrap() / MIB as f64;
        assert!((1_400.0..1_500.0).contains(&per_day), "{per_day}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_grow_has_no_end() {
        for bytes in [|_| 5 * GIB, |minute| 5 * GIB - minute * MIB] {
            let growth = growth();
            measured(&growth, 120, bytes).await;
            let outlook = growth.outlook(100 * GIB);
            assert_eq!((outlook.state, outlook.days_left), (Pace::Steady, None));
            assert!(outlook.bytes_per_day.unwrap() <= 0.0);
        }
        // A few bytes a day: years.
        let growth = growth();
        measured(&growth, 120, |minute| 5 * GIB + minute).await;
        assert_eq!(growth.outlook(100 * GIB).state, Pace::Steady);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_whose_free_space_is_not_known_has_a_rate_but_no_days() {
        let growth = growth();
        measured(&growth, 120, |minute| minute * MIB).await;
        let outlook = growth.outlook(u64::MAX);
        assert_eq!((outlook.state, outlook.days_left), (Pace::Growing, None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_longer_ago_than_the_window_counts_no_more() {
        let growth = growth();
        measured(&growth, 6 * 60, |minute| minute * 100 * MIB).await;
        measured(&growth, 73 * 60, |_| GIB).await;
        let outlook = growth.outlook(100 * GIB);
        assert!(outlook.measured_seconds <= GROWTH_WINDOW_S);
        assert_eq!(outlook.state, Pace::Steady);
    }

    #[tokio::test(start_paused = true)]
    async fn the_directory_is_measured_at_once_and_then_every_five_minutes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        fs::write(dir.path().join("store/a"), vec![7; 100_000]).unwrap();
        let growth = std::sync::Arc::new(Growth::of(dir.path(), 0));
        let closing = CancellationToken::new();
        let pool = Pool::start("growth", 1, 1).unwrap();
        let keeper = {
            let (growth, closing) = (std::sync::Arc::clone(&growth), closing.clone());
            tokio::spawn(async move { growth.keep(pool, closing).await })
        };
        // Yielding, so that the paused clock stands while the pool's thread works.
        let measured = async |times: usize| {
            while growth.samples.lock().len() < times {
                tokio::task::yield_now().await;
            }
        };
        measured(1).await;
        let first = growth.outlook(GIB).data_bytes.unwrap();
        assert!((100_000..200_000).contains(&first), "{first}");
        fs::write(dir.path().join("b"), vec![7; 1_000_000]).unwrap();
        tokio::time::advance(Duration::from_secs(GROWTH_SAMPLE_S)).await;
        measured(2).await;
        let second = growth.outlook(GIB).data_bytes.unwrap();
        assert!(second >= first + 1_000_000, "{first} {second}");
        closing.cancel();
        keeper.await.unwrap();
    }
}
