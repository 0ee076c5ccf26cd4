//! What is kept, and for how long: the store and its log, quarantine, channel log, recorder, dead
//! letters; and where archives are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    ConfigError,
    check::{at_least, one_of},
};
use crate::{
    channel_log,
    clock::Clock,
    limits,
    quarantine::{self, WhenFull},
    recorder,
};

const DAY_MS: i64 = 24 * 3_600 * 1_000;
const WHEN_FULL: [(&str, WhenFull); 2] = [
    ("hold", WhenFull::Hold),
    ("drop-oldest", WhenFull::DropOldest),
];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStore {
    memtable_bytes_max: usize,
    journal_file_bytes: u64,
    log_retention_days: u32,
    log_bytes_max: u64,
    /// What rules that lag may keep of it.
    log_held_bytes_max: u64,
    disk_reserve_bytes: u64,
}

impl Default for RawStore {
    fn default() -> Self {
        let options = backtide_store::Options::default();
        Self {
            memtable_bytes_max: options.memtable_bytes_max,
            journal_file_bytes: options.journal_file_bytes,
            log_retention_days: days(options.log_retention_ms),
            log_bytes_max: options.log_bytes_max,
            log_held_bytes_max: options.log_held_bytes_max,
            disk_reserve_bytes: options.disk_reserve_bytes,
        }
    }
}

impl RawStore {
    pub(super) fn check(&self) -> Result<backtide_store::Options, ConfigError> {
        at_least(
            "store.memtable_bytes_max",
            Some(self.memtable_bytes_max),
            1 << 20,
        )?;
        at_least(
            "store.journal_file_bytes",
            Some(self.journal_file_bytes),
            8 << 20,
        )?;
        at_least(
            "store.log_held_bytes_max",
            Some(self.log_held_bytes_max),
            self.log_bytes_max,
        )?;
        Ok(backtide_store::Options {
            memtable_bytes_max: self.memtable_bytes_max,
            journal_file_bytes: self.journal_file_bytes,
            log_retention_ms: i64::from(self.log_retention_days) * DAY_MS,
            log_bytes_max: self.log_bytes_max,
            log_held_bytes_max: self.log_held_bytes_max,
            may_let_go: |cursor| {
                cursor.starts_with(crate::rules::CURSOR_PREFIX) || cursor == crate::archive::CURSOR
            },
            disk_reserve_bytes: self.disk_reserve_bytes,
            clock: || Clock::system().now_ms(),
            ..backtide_store::Options::default()
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawQuarantine {
    age_days_max: u32,
    bytes_max: u64,
    /// A word of [`WHEN_FULL`].
    when_full: String,
}

impl Default for RawQuarantine {
    fn default() -> Self {
        let bounds = quarantine::Bounds::default();
        Self {
            age_days_max: days(bounds.age_ms_max),
            bytes_max: bounds.bytes_max,
            when_full: "hold".into(),
        }
    }
}

impl RawQuarantine {
    pub(super) fn check(&self) -> Result<quarantine::Bounds, ConfigError> {
        at_least("quarantine.age_days_max", Some(self.age_days_max), 1)?;
        at_least("quarantine.bytes_max", Some(self.bytes_max), 1 << 20)?;
        Ok(quarantine::Bounds {
            age_ms_max: i64::from(self.age_days_max) * DAY_MS,
            bytes_max: self.bytes_max,
            when_full: one_of("quarantine.when_full", &self.when_full, &WHEN_FULL)?,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawChannelLog {
    age_days_max: u32,
    bytes_max: u64,
}

impl Default for RawChannelLog {
    fn default() -> Self {
        let bounds = channel_log::Bounds::default();
        Self {
            age_days_max: days(bounds.age_ms_max),
            bytes_max: bounds.bytes_max,
        }
    }
}

impl RawChannelLog {
    pub(super) fn check(&self) -> Result<channel_log::Bounds, ConfigError> {
        at_least("channel_log.age_days_max", Some(self.age_days_max), 1)?;
        at_least("channel_log.bytes_max", Some(self.bytes_max), 1 << 20)?;
        Ok(channel_log::Bounds {
            age_ms_max: i64::from(self.age_days_max) * DAY_MS,
            bytes_max: self.bytes_max,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRecorder {
    age_days_max: u32,
    bytes_max: u64,
}

impl Default for RawRecorder {
    fn default() -> Self {
        let bounds = recorder::Bounds::default();
        Self {
            age_days_max: days(bounds.age_ms_max),
            bytes_max: bounds.bytes_max,
        }
    }
}

impl RawRecorder {
    pub(super) fn check(&self) -> Result<recorder::Bounds, ConfigError> {
        at_least("recorder.age_days_max", Some(self.age_days_max), 1)?;
        at_least("recorder.bytes_max", Some(self.bytes_max), 1 << 20)?;
        Ok(recorder::Bounds {
            age_ms_max: i64::from(self.age_days_max) * DAY_MS,
            bytes_max: self.bytes_max,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRules {
    dead_letter_age_days_max: u32,
    dead_letter_bytes_max: u64,
}

impl Default for RawRules {
    fn default() -> Self {
        let limits = limits::Rules::default();
        Self {
            dead_letter_age_days_max: limits.dead_letter_age_days_max,
            dead_letter_bytes_max: limits.dead_letter_bytes_max,
        }
    }
}

impl RawRules {
    pub(super) fn check(&self) -> Result<limits::Rules, ConfigError> {
        let (days, bytes) = (self.dead_letter_age_days_max, self.dead_letter_bytes_max);
        at_least("rules.dead_letter_age_days_max", Some(days), 1)?;
        at_least("rules.dead_letter_bytes_max", Some(bytes), 1 << 20)?;
        Ok(limits::Rules {
            dead_letter_age_days_max: days,
            dead_letter_bytes_max: bytes,
            ..limits::Rules::default()
        })
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawArchive {
    /// `archive` in the data directory unless given.
    folder: Option<PathBuf>,
}

impl RawArchive {
    /// Where archives are, for a data directory.
    pub(super) fn folder(self, data_dir: &Path) -> PathBuf {
        self.folder.unwrap_or_else(|| data_dir.join("archive"))
    }
}

fn days(ms: i64) -> u32 {
    u32::try_from(ms / DAY_MS).expect("defaults are a few days")
}
