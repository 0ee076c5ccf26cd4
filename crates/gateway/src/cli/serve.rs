//! `backtide serve`: runs the gateway until it is told to stop.

use std::{io::Write, path::Path};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use super::{Exit, Failure, Serve, Terminal};
use crate::{
    app,
    config::{Config, Overrides, Raw},
    telemetry,
};

impl Serve {
    /// Starts, prints the bound addresses as one line of JSON, waits for SIGTERM or SIGINT, drains.
    ///
    /// # Errors
    /// What keeps the gateway from starting.
    pub(super) fn run(
        self,
        data_dir: Option<&Path>,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let overrides = Overrides {
            data_dir: data_dir.map(Into::into),
            mqtt: self.mqtt,
            mqtts: self.mqtts,
            http: self.http,
            subscribe: self.subscribe,
            postgres: self.postgres,
        };
        let raw = Raw::read(self.config.as_deref(), overrides).map_err(usage)?;
        let config = raw.check().map_err(usage)?;
        telemetry::log_to_stderr(config.log.format, &config.log.level).map_err(usage)?;
        let runtime = runtime()?;
        runtime.block_on(serve(config, terminal))
    }
}

async fn serve(config: Config, terminal: &mut Terminal) -> Result<Exit, Failure> {
    // Taken before the doors open: a signal in between must not be lost.
    let failed = |source| Failure::io("signals cannot be taken", source);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let running = app::start(config)
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let line = serde_json::to_string(&running.addresses).expect("addresses are JSON");
    writeln!(terminal.out, "{line}")?;
    terminal.out.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop().await;
    Ok(Exit::Ok)
}

/// What a gateway runs on.
///
/// # Errors
/// The operating system gives no threads.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::io("the runtime cannot be started", source))
}

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}
