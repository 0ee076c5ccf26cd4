//! Settings of librdkafka that every client has, and where its talk goes.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::config::{Kafka, KafkaTls};

/// So long a client waits at most before it tries a broker again.
const RECONNECT_MS_MAX: &str = "2000";

/// Every setting is said, not left to a default: what holds shall stand here.
pub(super) fn config(settings: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config
        .set("bootstrap.servers", &settings.bootstrap_servers)
        .set("client.id", "backtide")
        .set("security.protocol", protocol)
        .set(
            "socket.connection.setup.timeout.ms",
            settings.connect_timeout_ms.to_string(),
        )
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", RECONNECT_MS_MAX)
        // A topic is made by us, with the partitions that are configured, or not at all.
        .set("allow.auto.create.topics", "false")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    if let Some(tls) = &settings.tls {
        set_tls(&mut config, tls);
    }
    if let Some(sasl) = &settings.sasl {
        config
            .set("sasl.mechanisms", sasl.mechanism.name())
            .set("sasl.username", &sasl.username)
            .set("sasl.password", sasl.password.reveal());
    }
    config
}

fn set_tls(config: &mut ClientConfig, tls: &KafkaTls) {
    let ca = tls.ca.as_ref();
    config
        .set(
            "ssl.ca.location",
            ca.map_or("probe".into(), |ca| ca.to_string_lossy()),
        )
        .set("ssl.endpoint.identification.algorithm", "https");
    if let Some((certificate, key)) = &tls.client {
        config
            .set("ssl.certificate.location", certificate.to_string_lossy())
            .set("ssl.key.location", key.to_string_lossy());
    }
}

/// What librdkafka said last about its connections, beside what goes to the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Option<String>>>);

impl Told {
    /// The last complaint.
    pub(crate) fn last(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// What was wrong is over.
    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            Emerg | Alert | Critical | Error => tracing::warn!(facility, "kafka: {message}"),
            Warning | Notice => tracing::info!(facility, "kafka: {message}"),
            Info | Debug => tracing::debug!(facility, "kafka: {message}"),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // Said beside what is wrong, and says less.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock() = Some(reason.to_owned());
        }
        tracing::debug!(%error, "kafka: {reason}");
    }
}

impl ConsumerContext for Told {}
