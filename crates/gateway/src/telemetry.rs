//! Logs and metrics of the process.

use backtide_store::{State, Store};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log level {level:?}: {reason}; use error, warn, info, debug or trace")]
    Level { level: String, reason: String },
    #[error("metrics: {0}")]
    Metrics(#[from] BuildError),
}

/// Writes log lines to stderr, so that stdout stays data. A second call in a process has no effect.
pub fn log_to_stderr(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(level).map_err(|error| TelemetryError::Level {
        level: level.to_owned(),
        reason: error.to_string(),
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "logging was set up before");
    }
    Ok(())
}

/// Bounds of the histogram of queries.
const QUERY_SECONDS: &[f64] = &[0.005, 0.02, 0.05, 0.15, 0.5, 1.5, 5.0, 15.0, 60.0];

/// Collects metrics from here on. The handle renders them as Prometheus text.
pub fn collect_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let query = Matcher::Full("backtide_query_seconds".to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(query, QUERY_SECONDS)?
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("metrics were set up before");
    }
    Ok(handle)
}

/// Sets a gauge from a count.
pub fn gauge(name: &'static str, count: usize) {
    // Counts stay far below 2^52, where a double stops being exact.
    metrics::gauge!(name).set(count as f64);
}

/// Sets the gauges of the store from its figures.
pub fn gauge_store(store: &Store) {
    let stats = store.stats();
    metrics::gauge!("backtide_store_durable_sequence").set(stats.durable.0 as f64);
    metrics::gauge!("backtide_store_flushed_sequence").set(stats.flushed.0 as f64);
    metrics::gauge!("backtide_store_log_bytes").set(stats.log_bytes as f64);
    gauge("backtide_store_log_files", stats.log_files);
    gauge(
        "backtide_store_log_held",
        usize::from(store.held_log().is_some()),
    );
    gauge("backtide_store_queued_submissions", stats.queued);
    gauge("backtide_store_memtable_bytes", stats.memtable.bytes);
    gauge(
        "backtide_store_overlapping_segments",
        stats.overlapping_segments,
    );
    metrics::counter!("backtide_store_flush_waited_milliseconds_total")
        .absolute(stats.flush_waited_ms);
    let is_ok = store.health() == State::Ok;
    gauge("backtide_store_up", usize::from(is_ok));
}
