//! The Kafka cluster, how it is met over TLS, and who Backtide says it is.

use std::{fmt::Debug, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    ConfigError,
    check::{at_least, one_of, require},
};
use crate::limits;

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

const COMPRESSIONS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

impl Compression {
    /// As Kafka's own settings spell it.
    pub fn name(self) -> &'static str {
        name_of(&self, &COMPRESSIONS)
    }
}

/// How a password is shown to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

const MECHANISMS: [(&str, SaslMechanism); 3] = [
    ("PLAIN", SaslMechanism::Plain),
    ("SCRAM-SHA-256", SaslMechanism::ScramSha256),
    ("SCRAM-SHA-512", SaslMechanism::ScramSha512),
];

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

/// On when a bootstrap server is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawKafka {
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
    pub(super) fn check(self) -> Result<Option<Kafka>, ConfigError> {
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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawKafkaTls {
    enabled: bool,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSasl {
    /// A word of [`MECHANISMS`].
    mechanism: Option<String>,
    username: Option<String>,
    password: Option<Hidden>,
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
