//! The configuration: a TOML file, environment over it, command line over that; checked once.
//!
//! [`Raw`] is what may be written; it is lowered to [`Config`], which needs no further looking at: each
//! section, in a file of its own, checks itself.
//! Nothing else in the product reads the environment (but the command line's own `BACKTIDE_URL`,
//! `BACKTIDE_TOKEN`, `BACKTIDE_CONFIG`).

mod check;
mod doors;
mod kafka;
mod kept;
mod log;
mod scripts;
mod sql;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use backtide_model::ObjectName;
use config::{Environment, File, FileFormat};
use serde::{Deserialize, Serialize};

pub use doors::{Http, Mqtt, Mqtts, Subscribe};
pub use kafka::{Compression, Hidden, Kafka, KafkaTls, Sasl, SaslMechanism};
pub use log::Log;

use crate::{channel_log, limits, quarantine, recorder};
use check::refuse_unknown;
use doors::{RawHttp, RawMqtt, RawMqtts, RawSubscribe};
use kafka::RawKafka;
use kept::{RawArchive, RawChannelLog, RawQuarantine, RawRecorder, RawRules, RawStore};
use log::RawLog;
use scripts::RawScripts;
use sql::{RawPostgres, RawSql};

const PREFIX: &str = "BACKTIDE";

/// Everything that can be configured, ready for use.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// The organization id that topics, APIs and messages carry.
    pub organization: ObjectName,
    pub mqtt: Mqtt,
    /// Absent: no certificate is configured, and the door stays shut.
    pub mqtts: Option<Mqtts>,
    pub http: Http,
    pub subscribe: Subscribe,
    pub sql: limits::Sql,
    /// Where PostgreSQL's clients connect; absent: no address is configured, and the door stays shut.
    pub postgres: Option<SocketAddr>,
    /// Absent: no bootstrap server is configured, and nothing speaks to Kafka.
    pub kafka: Option<Kafka>,
    pub rules: limits::Rules,
    pub store: backtide_store::Options,
    pub quarantine: quarantine::Bounds,
    pub channel_log: channel_log::Bounds,
    pub scripts: limits::Scripts,
    pub recorder: recorder::Bounds,
    /// Folders of archives are below it.
    pub archive_folder: PathBuf,
    pub log: Log,
}

/// The configuration as it is written. Units are in the names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    data_dir: PathBuf,
    organization: String,
    mqtt: RawMqtt,
    mqtts: RawMqtts,
    http: RawHttp,
    subscribe: RawSubscribe,
    sql: RawSql,
    postgres: RawPostgres,
    kafka: RawKafka,
    rules: RawRules,
    store: RawStore,
    quarantine: RawQuarantine,
    channel_log: RawChannelLog,
    scripts: RawScripts,
    recorder: RawRecorder,
    archive: RawArchive,
    log: RawLog,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            data_dir: "./backtide-data".into(),
            organization: "o1".into(),
            mqtt: RawMqtt::default(),
            mqtts: RawMqtts::default(),
            http: RawHttp::default(),
            subscribe: RawSubscribe::default(),
            sql: RawSql::default(),
            postgres: RawPostgres::default(),
            kafka: RawKafka::default(),
            rules: RawRules::default(),
            store: RawStore::default(),
            quarantine: RawQuarantine::default(),
            channel_log: RawChannelLog::default(),
            scripts: RawScripts::default(),
            recorder: RawRecorder::default(),
            archive: RawArchive::default(),
            log: RawLog::default(),
        }
    }
}

/// What the command line says; it wins.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub data_dir: Option<PathBuf>,
    pub mqtt: Option<SocketAddr>,
    pub mqtts: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub subscribe: Option<SocketAddr>,
    pub postgres: Option<SocketAddr>,
}

/// Why the configuration cannot be used: which key, from where, what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration: {0}")]
    Unreadable(String),
    #[error("configuration key {key} in {origin} is unknown; known beside it are {known}")]
    Unknown {
        key: String,
        origin: String,
        known: String,
    },
    #[error("configuration key {key}: {reason}")]
    Value { key: &'static str, reason: String },
}

impl Raw {
    /// Reads the file, where one is given, and the environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self::read_with(file, variables, overrides)
    }

    fn read_with(
        file: Option<&Path>,
        variables: HashMap<String, String>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let unreadable = |error: config::ConfigError| ConfigError::Unreadable(error.to_string());
        let mut sources = config::Config::builder();
        if let Some(file) = file {
            sources = sources.add_source(File::from(file).format(FileFormat::Toml));
        }
        let environment = Environment::with_prefix(PREFIX)
            .prefix_separator("__")
            .separator("__")
            .source(Some(variables));
        let merged = sources
            .add_source(environment)
            .build()
            .map_err(unreadable)?;
        let known = serde_json::to_value(Self::default()).expect("the defaults are JSON");
        refuse_unknown(&merged.cache, &known, "")?;
        let mut raw: Self = merged.try_deserialize().map_err(unreadable)?;
        raw.data_dir = overrides.data_dir.unwrap_or(raw.data_dir);
        raw.mqtt.listen = overrides.mqtt.unwrap_or(raw.mqtt.listen);
        raw.mqtts.listen = overrides.mqtts.unwrap_or(raw.mqtts.listen);
        raw.http.listen = overrides.http.unwrap_or(raw.http.listen);
        raw.subscribe.listen = overrides.subscribe.unwrap_or(raw.subscribe.listen);
        raw.postgres.listen = overrides.postgres.or(raw.postgres.listen);
        Ok(raw)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(self) -> Result<Config, ConfigError> {
        let organization =
            ObjectName::new(&self.organization).map_err(|error| ConfigError::Value {
                key: "organization",
                reason: error.to_string(),
            })?;
        let archive_folder = self.archive.folder(&self.data_dir);
        Ok(Config {
            data_dir: self.data_dir,
            organization,
            mqtt: self.mqtt.check()?,
            http: self.http.check()?,
            store: self.store.check()?,
            quarantine: self.quarantine.check()?,
            channel_log: self.channel_log.check()?,
            scripts: self.scripts.check()?,
            recorder: self.recorder.check()?,
            log: self.log.check()?,
            mqtts: self.mqtts.check()?,
            subscribe: self.subscribe.check()?,
            sql: self.sql.check(&self.postgres)?,
            postgres: self.postgres.check()?,
            kafka: self.kafka.check()?,
            rules: self.rules.check()?,
            archive_folder,
        })
    }

    /// As a file that says the same.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables of plain values are TOML")
    }
}
