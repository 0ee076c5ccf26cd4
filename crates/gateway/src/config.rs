//! The configuration: a TOML file, environment over it, command line over that; checked once.
//!
//! [`Raw`] is what may be written; it is lowered to [`Config`], which needs no further looking at.
//! Nothing else in the product reads the environment (but the command line's own `BACKTIDE_URL`,
//! `BACKTIDE_TOKEN`, `BACKTIDE_CONFIG`).

use std::{
    collections::HashMap,
    fmt::Debug,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use backtide_model::ObjectName;
use config::{Environment, File, FileFormat, ValueKind};
use serde::{Deserialize, Serialize};

use crate::{
    channel_log,
    clock::Clock,
    limits,
    quarantine::{self, WhenFull},
    recorder,
    telemetry::LogFormat,
    tls,
};

const PREFIX: &str = "BACKTIDE";
const DAY_MS: i64 = 24 * 3_600 * 1_000;
const WHEN_FULL: [(&str, WhenFull); 2] = [
    ("hold", WhenFull::Hold),
    ("drop-oldest", WhenFull::DropOldest),
];
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

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

/// The MQTT door. What is `None` is the door's own limit.
#[derive(Debug, Clone)]
pub struct Mqtt {
    pub listen: SocketAddr,
    /// What `channel show` prints as the broker's address; the bound address unless given.
    pub advertised_url: Option<String>,
    pub connections_max: Option<usize>,
    pub connections_per_channel_max: Option<usize>,
    pub connections_per_address_max: Option<usize>,
}

/// The MQTT door over TLS.
#[derive(Debug, Clone)]
pub struct Mqtts {
    pub listen: SocketAddr,
    pub files: tls::Files,
    /// What `channel show` prints as its address; the bound address unless given.
    pub advertised_url: Option<String>,
}

/// The HTTP door.
#[derive(Debug, Clone)]
pub struct Http {
    pub listen: SocketAddr,
    /// Threads for requests that block.
    pub threads: usize,
    /// Requests that wait for one.
    pub waiting_max: usize,
}

/// The subscription door, and what subscriptions keep. What is `None` is the door's own limit.
#[derive(Debug, Clone)]
pub struct Subscribe {
    pub listen: SocketAddr,
    pub connections_max: Option<usize>,
    pub connections_per_address_max: Option<usize>,
    /// Disk that one subscription takes.
    pub bytes_max: u64,
}

/// The Kafka cluster that rules publish to and subscriptions live on.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, separated by commas: where the cluster is met first.
    pub bootstrap_servers: String,
    pub compression: Compression,
    /// Of topics that are made because they are absent.
    pub partitions: u16,
    /// Likewise; absent: the cluster's own default.
    pub replication: Option<u16>,
    /// The largest record, and the largest batch of them.
    pub message_bytes_max: u32,
    /// Goes before the names of transactional ids and of consumer groups' owners.
    pub transactional_id_prefix: String,
    pub connect_timeout_ms: u32,
    /// How long one attempt to deliver may take; it is tried again for ever.
    pub delivery_timeout_ms: u32,
    /// Absent: the connection is in plain text.
    pub tls: Option<KafkaTls>,
    pub sasl: Option<Sasl>,
}

/// How Kafka is met over TLS.
#[derive(Debug, Clone)]
pub struct KafkaTls {
    /// PEM; absent: the authorities that the system trusts.
    pub ca: Option<PathBuf>,
    /// A client's certificate and its key, both PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How Backtide says to Kafka who it is.
#[derive(Debug, Clone)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: Hidden,
}

/// How batches are compressed, as Kafka calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// How a password is shown to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

const COMPRESSIONS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];
const MECHANISMS: [(&str, SaslMechanism); 3] = [
    ("PLAIN", SaslMechanism::Plain),
    ("SCRAM-SHA-256", SaslMechanism::ScramSha256),
    ("SCRAM-SHA-512", SaslMechanism::ScramSha512),
];

impl Compression {
    /// As Kafka's own settings spell it.
    pub fn name(self) -> &'static str {
        name_of(&self, &COMPRESSIONS)
    }
}

impl SaslMechanism {
    /// As Kafka's own settings spell it.
    pub fn name(self) -> &'static str {
        name_of(&self, &MECHANISMS)
    }
}

fn name_of<T: PartialEq>(value: &T, words: &[(&'static str, T)]) -> &'static str {
    let found = words.iter().find(|(_, known)| known == value);
    found.expect("every value has its word").0
}

/// A password: neither `config show` nor a log has it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Where it is needed.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for Hidden {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

/// The process's own log.
#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// error, warn, info, debug or trace, or a filter such as `info,backtide::mqtt=debug`.
    pub level: String,
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMqtt {
    listen: SocketAddr,
    advertised_url: Option<String>,
    connections_max: Option<usize>,
    connections_per_channel_max: Option<usize>,
    connections_per_address_max: Option<usize>,
}

impl Default for RawMqtt {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 11883).into(),
            advertised_url: None,
            connections_max: None,
            connections_per_channel_max: None,
            connections_per_address_max: None,
        }
    }
}

/// On when a certificate is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMqtts {
    listen: SocketAddr,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    advertised_url: Option<String>,
}

impl Default for RawMqtts {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 18883).into(),
            certificate: None,
            key: None,
            client_ca: None,
            advertised_url: None,
        }
    }
}

impl RawMqtts {
    /// Only whether the files are named: what is in them is looked at when they are read.
    fn check(self) -> Result<Option<Mqtts>, ConfigError> {
        check_url("mqtts.advertised_url", self.advertised_url.as_deref())?;
        let (certificate, key) = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => {
                require("mqtts.client_ca", self.client_ca.is_none(), || {
                    "needs mqtts.certificate and mqtts.key: without them TLS is off".into()
                })?;
                return Ok(None);
            }
            (certificate, _) => {
                let key = match certificate {
                    Some(_) => "mqtts.key",
                    None => "mqtts.certificate",
                };
                let reason = "is missing: a certificate and its key go together".into();
                return Err(ConfigError::Value { key, reason });
            }
        };
        Ok(Some(Mqtts {
            listen: self.listen,
            files: tls::Files {
                certificate,
                key,
                client_ca: self.client_ca,
            },
            advertised_url: self.advertised_url,
        }))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHttp {
    listen: SocketAddr,
    threads: usize,
    waiting_max: usize,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            threads: 4,
            waiting_max: 64,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSubscribe {
    listen: SocketAddr,
    connections_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    bytes_max: u64,
}

impl Default for RawSubscribe {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 9001).into(),
            connections_max: None,
            connections_per_address_max: None,
            bytes_max: limits::Topics::default().bytes_max,
        }
    }
}

impl RawSubscribe {
    fn check(self) -> Result<Subscribe, ConfigError> {
        let (all, per_address) = (self.connections_max, self.connections_per_address_max);
        at_least("subscribe.connections_max", all, 1)?;
        at_least("subscribe.connections_per_address_max", per_address, 1)?;
        at_least("subscribe.bytes_max", Some(self.bytes_max), 1 << 20)?;
        Ok(Subscribe {
            listen: self.listen,
            connections_max: all,
            connections_per_address_max: per_address,
            bytes_max: self.bytes_max,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSql {
    threads: usize,
    queries_max: usize,
    queries_per_caller_max: usize,
    memory_bytes_max: usize,
    spill_bytes_max: u64,
    query_s: u64,
}

impl Default for RawSql {
    fn default() -> Self {
        let limits = limits::Sql::default();
        Self {
            threads: limits.threads,
            queries_max: limits.queries_max,
            queries_per_caller_max: limits.queries_per_caller_max,
            memory_bytes_max: limits.memory_bytes_max,
            spill_bytes_max: limits.spill_bytes_max,
            query_s: limits.query_s,
        }
    }
}

impl RawSql {
    fn check(&self, postgres: &RawPostgres) -> Result<limits::Sql, ConfigError> {
        at_least("sql.threads", Some(self.threads), 1)?;
        at_least("sql.queries_max", Some(self.queries_max), 1)?;
        let per_caller = self.queries_per_caller_max;
        at_least("sql.queries_per_caller_max", Some(per_caller), 1)?;
        at_least(
            "sql.memory_bytes_max",
            Some(self.memory_bytes_max),
            16 << 20,
        )?;
        at_least("sql.query_s", Some(self.query_s), 1)?;
        let connections = postgres.connections_max;
        at_least("postgres.connections_max", Some(connections), 1)?;
        Ok(limits::Sql {
            threads: self.threads,
            queries_max: self.queries_max,
            queries_per_caller_max: per_caller,
            memory_bytes_max: self.memory_bytes_max,
            spill_bytes_max: self.spill_bytes_max,
            query_s: self.query_s,
            connections_max: connections,
            ..limits::Sql::default()
        })
    }
}

/// On when an address is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPostgres {
    listen: Option<SocketAddr>,
    connections_max: usize,
}

impl Default for RawPostgres {
    fn default() -> Self {
        Self {
            listen: None,
            connections_max: limits::Sql::default().connections_max,
        }
    }
}

impl RawPostgres {
    fn check(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let is_served = self.listen.is_none() || cfg!(feature = "sql");
        require("postgres.listen", is_served, || {
            "this backtide is built without SQL; take a released binary, or build one with \
             `cargo build --release --features sql`"
                .into()
        })?;
        Ok(self.listen)
    }
}

/// On when a bootstrap server is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawKafka {
    bootstrap_servers: Option<String>,
    /// A word of [`COMPRESSIONS`].
    compression: String,
    partitions: u16,
    replication: Option<u16>,
    message_bytes_max: u32,
    transactional_id_prefix: String,
    connect_timeout_ms: u32,
    delivery_timeout_ms: u32,
    tls: RawKafkaTls,
    sasl: RawSasl,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawKafkaTls {
    enabled: bool,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSasl {
    /// A word of [`MECHANISMS`].
    mechanism: Option<String>,
    username: Option<String>,
    password: Option<Hidden>,
}

impl Default for RawKafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: None,
            compression: "lz4".into(),
            partitions: 6,
            replication: None,
            message_bytes_max: 1_000_000,
            transactional_id_prefix: "backtide".into(),
            connect_timeout_ms: 10_000,
            delivery_timeout_ms: 30_000,
            tls: RawKafkaTls::default(),
            sasl: RawSasl::default(),
        }
    }
}

impl RawKafka {
    /// Only what can be said without speaking to Kafka: `backtide kafka check` says the rest.
    fn check(self) -> Result<Option<Kafka>, ConfigError> {
        let tls = self.tls.check()?;
        let sasl = self.sasl.check()?;
        let Some(bootstrap_servers) = self.bootstrap_servers else {
            let is_untouched = tls.is_none() && sasl.is_none();
            require("kafka.bootstrap_servers", is_untouched, || {
                "is missing: kafka.tls and kafka.sasl have no effect without it".into()
            })?;
            return Ok(None);
        };
        for server in bootstrap_servers.split(',') {
            let port = server
                .trim()
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            let has_port = matches!(port, Some(Ok(port)) if port > 0);
            require("kafka.bootstrap_servers", has_port, || {
                format!("{server:?} is not host:port, for example \"kafka1:9092,kafka2:9092\"")
            })?;
        }
        require(
            "kafka.partitions",
            (1..=limits::KAFKA_PARTITIONS_MAX).contains(&self.partitions),
            || {
                let most = limits::KAFKA_PARTITIONS_MAX;
                format!("{} is not between 1 and {most}", self.partitions)
            },
        )?;
        at_least("kafka.replication", self.replication, 1)?;
        let (bytes, most) = (self.message_bytes_max, limits::KAFKA_MESSAGE_BYTES_MAX);
        require(
            "kafka.message_bytes_max",
            (1_000..=most).contains(&bytes),
            || format!("{bytes} is not between 1000 and {most}"),
        )?;
        at_least(
            "kafka.connect_timeout_ms",
            Some(self.connect_timeout_ms),
            1_000,
        )?;
        require(
            "kafka.delivery_timeout_ms",
            (1_000..=600_000).contains(&self.delivery_timeout_ms),
            || {
                format!(
                    "{} is not between 1000 and 600000",
                    self.delivery_timeout_ms
                )
            },
        )?;
        let prefix = &self.transactional_id_prefix;
        require("kafka.transactional_id_prefix", !prefix.is_empty(), || {
            "is empty: it tells the transactions of one installation from those of another".into()
        })?;
        Ok(Some(Kafka {
            bootstrap_servers,
            compression: one_of("kafka.compression", &self.compression, &COMPRESSIONS)?,
            partitions: self.partitions,
            replication: self.replication,
            message_bytes_max: self.message_bytes_max,
            transactional_id_prefix: self.transactional_id_prefix,
            connect_timeout_ms: self.connect_timeout_ms,
            delivery_timeout_ms: self.delivery_timeout_ms,
            tls,
            sasl,
        }))
    }
}

impl RawKafkaTls {
    fn check(self) -> Result<Option<KafkaTls>, ConfigError> {
        let client = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (certificate, _) => {
                let key = match certificate {
                    Some(_) => "kafka.tls.key",
                    None => "kafka.tls.certificate",
                };
                let reason = "is missing: a certificate and its key go together".into();
                return Err(ConfigError::Value { key, reason });
            }
        };
        let is_idle = self.ca.is_none() && client.is_none();
        require("kafka.tls.enabled", self.enabled || is_idle, || {
            "is false, and files of TLS are given: set it to true, or take them away".into()
        })?;
        Ok(self.enabled.then_some(KafkaTls {
            ca: self.ca,
            client,
        }))
    }
}

impl RawSasl {
    fn check(self) -> Result<Option<Sasl>, ConfigError> {
        let missing = |key| ConfigError::Value {
            key,
            reason: "is missing: mechanism, username and password go together".into(),
        };
        if self == Self::default() {
            return Ok(None);
        }
        let mechanism = self.mechanism.ok_or(missing("kafka.sasl.mechanism"))?;
        Ok(Some(Sasl {
            mechanism: one_of("kafka.sasl.mechanism", &mechanism, &MECHANISMS)?,
            username: self.username.ok_or(missing("kafka.sasl.username"))?,
            password: self.password.ok_or(missing("kafka.sasl.password"))?,
        }))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRules {
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
    fn check(&self) -> Result<limits::Rules, ConfigError> {
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStore {
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawQuarantine {
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawChannelLog {
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawScripts {
    workers: usize,
    cpu_soft_ms: u64,
    cpu_hard_ms: u64,
    heap_bytes_max: usize,
    stack_bytes_max: usize,
    output_nodes_max: usize,
    output_depth_max: usize,
    console_bytes_max: usize,
}

impl Default for RawScripts {
    fn default() -> Self {
        let limits = limits::Scripts::default();
        Self {
            workers: limits.workers,
            cpu_soft_ms: limits.cpu_soft_ms,
            cpu_hard_ms: limits.cpu_hard_ms,
            heap_bytes_max: limits.heap_bytes_max,
            stack_bytes_max: limits.stack_bytes_max,
            output_nodes_max: limits.output_nodes_max,
            output_depth_max: limits.output_depth_max,
            console_bytes_max: limits.console_bytes_max,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawArchive {
    /// `archive` in the data directory unless given.
    folder: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRecorder {
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

impl RawScripts {
    fn check(&self) -> Result<limits::Scripts, ConfigError> {
        at_least("scripts.workers", Some(self.workers), 1)?;
        at_least("scripts.cpu_soft_ms", Some(self.cpu_soft_ms), 1)?;
        at_least(
            "scripts.cpu_hard_ms",
            Some(self.cpu_hard_ms),
            self.cpu_soft_ms,
        )?;
        // The worker's clock ticks in hundredths of a second.
        at_least("scripts.cpu_hard_ms", Some(self.cpu_hard_ms), 50)?;
        at_least("scripts.heap_bytes_max", Some(self.heap_bytes_max), 1 << 20)?;
        // Beyond, the worker's own stack might end first.
        at_least(
            "scripts.stack_bytes_max",
            Some(self.stack_bytes_max),
            64 << 10,
        )?;
        require(
            "scripts.stack_bytes_max",
            self.stack_bytes_max <= 4 << 20,
            || format!("{} is above {}", self.stack_bytes_max, 4 << 20),
        )?;
        require(
            "scripts.output_depth_max",
            (1..=100).contains(&self.output_depth_max),
            || format!("{} is not between 1 and 100", self.output_depth_max),
        )?;
        at_least("scripts.output_nodes_max", Some(self.output_nodes_max), 1)?;
        Ok(limits::Scripts {
            workers: self.workers,
            cpu_soft_ms: self.cpu_soft_ms,
            cpu_hard_ms: self.cpu_hard_ms,
            heap_bytes_max: self.heap_bytes_max,
            stack_bytes_max: self.stack_bytes_max,
            output_nodes_max: self.output_nodes_max,
            output_depth_max: self.output_depth_max,
            console_bytes_max: self.console_bytes_max,
            ..limits::Scripts::default()
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
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
        check_url("mqtt.advertised_url", self.mqtt.advertised_url.as_deref())?;
        at_least("mqtt.connections_max", self.mqtt.connections_max, 1)?;
        at_least(
            "mqtt.connections_per_channel_max",
            self.mqtt.connections_per_channel_max,
            1,
        )?;
        at_least(
            "mqtt.connections_per_address_max",
            self.mqtt.connections_per_address_max,
            1,
        )?;
        at_least("http.threads", Some(self.http.threads), 1)?;
        at_least("http.waiting_max", Some(self.http.waiting_max), 1)?;
        at_least(
            "store.memtable_bytes_max",
            Some(self.store.memtable_bytes_max),
            1 << 20,
        )?;
        at_least(
            "store.journal_file_bytes",
            Some(self.store.journal_file_bytes),
            8 << 20,
        )?;
        at_least(
            "quarantine.age_days_max",
            Some(self.quarantine.age_days_max),
            1,
        )?;
        at_least(
            "quarantine.bytes_max",
            Some(self.quarantine.bytes_max),
            1 << 20,
        )?;
        at_least(
            "channel_log.age_days_max",
            Some(self.channel_log.age_days_max),
            1,
        )?;
        at_least(
            "channel_log.bytes_max",
            Some(self.channel_log.bytes_max),
            1 << 20,
        )?;
        let scripts = self.scripts.check()?;
        at_least(
            "store.log_held_bytes_max",
            Some(self.store.log_held_bytes_max),
            self.store.log_bytes_max,
        )?;
        at_least("recorder.age_days_max", Some(self.recorder.age_days_max), 1)?;
        at_least("recorder.bytes_max", Some(self.recorder.bytes_max), 1 << 20)?;
        check_level(&self.log.level)?;
        let when_full = one_of(
            "quarantine.when_full",
            &self.quarantine.when_full,
            &WHEN_FULL,
        )?;
        let format = one_of("log.format", &self.log.format, &FORMATS)?;
        let own = || self.data_dir.join("archive");
        let archive_folder = self.archive.folder.clone().unwrap_or_else(own);
        Ok(Config {
            data_dir: self.data_dir,
            organization,
            mqtt: Mqtt {
                listen: self.mqtt.listen,
                advertised_url: self.mqtt.advertised_url,
                connections_max: self.mqtt.connections_max,
                connections_per_channel_max: self.mqtt.connections_per_channel_max,
                connections_per_address_max: self.mqtt.connections_per_address_max,
            },
            mqtts: self.mqtts.check()?,
            http: Http {
                listen: self.http.listen,
                threads: self.http.threads,
                waiting_max: self.http.waiting_max,
            },
            subscribe: self.subscribe.check()?,
            sql: self.sql.check(&self.postgres)?,
            postgres: self.postgres.check()?,
            kafka: self.kafka.check()?,
            rules: self.rules.check()?,
            store: backtide_store::Options {
                memtable_bytes_max: self.store.memtable_bytes_max,
                journal_file_bytes: self.store.journal_file_bytes,
                log_retention_ms: i64::from(self.store.log_retention_days) * DAY_MS,
                log_bytes_max: self.store.log_bytes_max,
                log_held_bytes_max: self.store.log_held_bytes_max,
                may_let_go: |cursor| {
                    cursor.starts_with(crate::rules::CURSOR_PREFIX)
                        || cursor == crate::archive::CURSOR
                },
                disk_reserve_bytes: self.store.disk_reserve_bytes,
                clock: || Clock::system().now_ms(),
                ..backtide_store::Options::default()
            },
            quarantine: quarantine::Bounds {
                age_ms_max: i64::from(self.quarantine.age_days_max) * DAY_MS,
                bytes_max: self.quarantine.bytes_max,
                when_full,
            },
            channel_log: channel_log::Bounds {
                age_ms_max: i64::from(self.channel_log.age_days_max) * DAY_MS,
                bytes_max: self.channel_log.bytes_max,
            },
            scripts,
            archive_folder,
            recorder: recorder::Bounds {
                age_ms_max: i64::from(self.recorder.age_days_max) * DAY_MS,
                bytes_max: self.recorder.bytes_max,
            },
            log: Log {
                format,
                level: self.log.level,
            },
        })
    }

    /// As a file that says the same.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables of plain values are TOML")
    }
}

fn days(ms: i64) -> u32 {
    u32::try_from(ms / DAY_MS).expect("defaults are a few days")
}

fn require(
    key: &'static str,
    holds: bool,
    reason: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::Value {
            key,
            reason: reason(),
        })
    }
}

fn check_url(key: &'static str, url: Option<&str>) -> Result<(), ConfigError> {
    let schemes = ["tcp://", "ssl://", "mqtt://", "mqtts://", "ws://", "wss://"];
    let url = url.unwrap_or(schemes[0]);
    let is_known = schemes.iter().any(|scheme| url.starts_with(scheme));
    require(key, is_known, || {
        format!("{url:?} starts with none of {}", schemes.join(", "))
    })
}

fn one_of<T: Copy>(key: &'static str, word: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
    words
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(known, _)| *known).collect();
            ConfigError::Value {
                key,
                reason: format!("{word:?} is none of {}", known.join(", ")),
            }
        })
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

fn at_least<T: PartialOrd + Debug + Copy>(
    key: &'static str,
    value: Option<T>,
    min: T,
) -> Result<(), ConfigError> {
    require(key, value.is_none_or(|value| value >= min), || {
        format!(
            "{} is below {min:?}",
            value.map_or(String::new(), |value| format!("{value:?}"))
        )
    })
}

/// Refuses keys that are not in `known`, by their whole path and where they come from.
fn refuse_unknown(
    value: &config::Value,
    known: &serde_json::Value,
    path: &str,
) -> Result<(), ConfigError> {
    let (ValueKind::Table(table), Some(known)) = (&value.kind, known.as_object()) else {
        return Ok(());
    };
    for (key, value) in table {
        let whole = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match known.get(key) {
            Some(known) => refuse_unknown(value, known, &whole)?,
            None => {
                let known: Vec<_> = known.keys().map(String::as_str).collect();
                return Err(ConfigError::Unknown {
                    key: whole,
                    origin: value.origin().unwrap_or("the command line").to_owned(),
                    known: known.join(", "),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, variables: &[(&str, &str)]) -> Result<Raw, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backtide.toml");
        std::fs::write(&path, file).unwrap();
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        Raw::read_with(Some(&path), variables, Overrides::default())
            .map_err(|error| error.to_string())
    }

    fn refused(file: &str, variables: &[(&str, &str)]) -> String {
        match read(file, variables) {
            Err(error) => error,
            Ok(raw) => raw.check().unwrap_err().to_string(),
        }
    }

    #[test]
    fn the_defaults_stand_and_read_back_as_they_are_shown() {
        let raw = read("", &[]).unwrap();
        assert_eq!(raw, Raw::default());
        insta::assert_snapshot!(raw.to_toml());
        assert_eq!(read(&raw.to_toml(), &[]).unwrap(), raw);
        let config = raw.check().unwrap();
        assert_eq!(config.mqtt.listen.port(), 11883);
        assert!((config.store.clock)() > 0);
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
        let file = "organization = \"file\"\n[mqtt]\nlisten = \"0.0.0.0:1\"\n[http]\nthreads = 2\n";
        let variables = [
            ("BACKTIDE__ORGANIZATION", "007"),
            ("BACKTIDE__MQTT__LISTEN", "127.0.0.1:2"),
            ("BACKTIDE__QUARANTINE__WHEN_FULL", "drop-oldest"),
            ("BACKTIDE__STORE__LOG_BYTES_MAX", "1000"),
            ("BACKTIDE__MQTT__CONNECTIONS_MAX", "9"),
            ("BACKTIDE_URL", "http://elsewhere"),
        ];
        let config = read(file, &variables).unwrap().check().unwrap();
        assert_eq!(config.organization.as_str(), "007");
        assert_eq!(config.mqtt.listen.port(), 2);
        assert_eq!(config.mqtt.connections_max, Some(9));
        assert_eq!(config.http.threads, 2);
        assert_eq!(config.quarantine.when_full, WhenFull::DropOldest);
        assert_eq!(config.store.log_bytes_max, 1_000);
        let overrides = Overrides {
            mqtt: Some(([0, 0, 0, 0], 3).into()),
            ..Overrides::default()
        };
        let variables = HashMap::from([("BACKTIDE__MQTT__LISTEN".into(), "127.0.0.1:2".into())]);
        let raw = Raw::read_with(None, variables, overrides).unwrap();
        assert_eq!(raw.mqtt.listen.port(), 3);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key_its_place_and_what_is_expected() {
        for (file, variables, expected) in [
            (
                "datadir = 1",
                &[][..],
                &["key datadir in", "backtide.toml", "data_dir"][..],
            ),
            ("[mqtt]\nlistn = 1", &[], &["key mqtt.listn in", "listen"]),
            (
                "",
                &[("BACKTIDE__HTTP__LISTN", "1")],
                &["key http.listn in the environment"],
            ),
            (
                "[http]\nthreads = \"four\"",
                &[],
                &["http.threads", "backtide.toml", "integer"],
            ),
            (
                "[mqtt]\nlisten = \"localhost\"",
                &[],
                &["mqtt.listen", "socket address"],
            ),
            (
                "",
                &[("BACKTIDE__HTTP__THREADS", "x")],
                &["http.threads", "the environment"],
            ),
            (
                "[http]\nthreads = 0",
                &[],
                &["http.threads", "0 is below 1"],
            ),
            ("[log]\nformat = \"xml\"", &[], &["log.format", "text"]),
            (
                "[log]\nlevel = \"warnn\"",
                &[],
                &["log.level", "\"warnn\" is none of off, error"],
            ),
            ("organization = \"a b\"", &[], &["organization", "' '"]),
            (
                "[mqtt]\nadvertised_url = \"host\"",
                &[],
                &["mqtt.advertised_url", "tcp://"],
            ),
            (
                "[mqtts]\ncertificate = \"c.pem\"",
                &[],
                &["mqtts.key", "go together"],
            ),
            (
                "[mqtts]\nclient_ca = \"ca.pem\"",
                &[],
                &["mqtts.client_ca", "mqtts.certificate"],
            ),
            (
                "[kafka]\nbootstrap_servers = \"kafka\"",
                &[],
                &["kafka.bootstrap_servers", "\"kafka\" is not host:port"],
            ),
            (
                "[kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"",
                &[],
                &["kafka.sasl.password", "go together"],
            ),
            (
                "[kafka.tls]\nenabled = true",
                &[],
                &["kafka.bootstrap_servers", "is missing"],
            ),
            (
                "[kafka]\nbootstrap_servers = \"k:9\"\n[kafka.tls]\nca = \"ca.pem\"",
                &[],
                &["kafka.tls.enabled", "is false"],
            ),
            (
                "[kafka]\nbootstrap_servers = \"k:9\"\ncompression = \"rar\"",
                &[],
                &["kafka.compression", "lz4"],
            ),
            ("[mqtt", &[], &["backtide.toml"]),
        ] {
            let message = refused(file, variables);
            for part in expected {
                assert!(message.contains(part), "{file} {variables:?}: {message}");
            }
        }
    }

    #[test]
    fn a_password_is_neither_shown_nor_logged() {
        let file = "[kafka]\nbootstrap_servers = \"k:9092\"\n";
        let variables = [
            ("BACKTIDE__KAFKA__SASL__MECHANISM", "SCRAM-SHA-512"),
            ("BACKTIDE__KAFKA__SASL__USERNAME", "backtide"),
            ("BACKTIDE__KAFKA__SASL__PASSWORD", "swordfish"),
        ];
        let raw = read(file, &variables).unwrap();
        assert!(raw.to_toml().contains("(hidden)"));
        let config = raw.clone().check().unwrap();
        for shown in [raw.to_toml(), format!("{raw:?}"), format!("{config:?}")] {
            assert!(!shown.contains("swordfish"), "{shown}");
        }
        let sasl = config.kafka.unwrap().sasl.unwrap();
        assert_eq!(sasl.password.reveal(), "swordfish");
        assert_eq!(sasl.mechanism.name(), "SCRAM-SHA-512");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Raw::read(Some(Path::new("/nowhere/b.toml")), Overrides::default());
        assert!(error.unwrap_err().to_string().contains("/nowhere/b.toml"));
    }
}
