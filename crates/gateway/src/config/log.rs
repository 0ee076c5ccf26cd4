//! The process's own log.

use serde::{Deserialize, Serialize};

use super::{ConfigError, check::one_of};
use crate::telemetry::LogFormat;

const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// The process's own log.
#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// error, warn, info, debug or trace, or a filter such as `info,backtide::mqtt=debug`.
    pub level: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    /// A word of [`FORMATS`].
    format: String,
    level: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            format: "text".into(),
            level: "info".into(),
        }
    }
}

impl RawLog {
    pub(super) fn check(self) -> Result<Log, ConfigError> {
        check_level(&self.level)?;
        Ok(Log {
            format: one_of("log.format", &self.format, &FORMATS)?,
            level: self.level,
        })
    }
}

/// A filter takes any word for the name of a module: a misspelt level would silence the log.
fn check_level(filter: &str) -> Result<(), ConfigError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let value = |reason| ConfigError::Value {
        key: "log.level",
        reason,
    };
    let levels = filter
        .split(',')
        .map(|part| part.rsplit_once('=').map_or(part, |(_, l)| l));
    for level in levels {
        if !LEVELS.contains(&level.trim().to_ascii_lowercase().as_str()) {
            return Err(value(format!("{level:?} is none of {}", LEVELS.join(", "))));
        }
    }
    tracing_subscriber::EnvFilter::try_new(filter)
        .map(drop)
        .map_err(|error| value(error.to_string()))
}
