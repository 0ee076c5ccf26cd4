//! Builds the whole gateway bottom-up and takes it down top-down: doors open last and close first.

use std::{
    fs::{self, File, TryLockError},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use backtide_model::{ElementName, ProductKey, Storage};
use backtide_store::{State, Store, disk::RealDisk};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    channel_log::{Log, LogError},
    clock::Clock,
    config::Config,
    house::House,
    http::{self, Api, Readiness},
    ingest::Ingest,
    limits,
    mqtt::{self, Door},
    pool::Pool,
    quarantine::{Quarantine, QuarantineError},
    registry::{Registry, StoredTypes},
    secrets::{AdminToken, SecretError},
    telemetry::{TelemetryError, collect_metrics},
};

/// Answers of any length that are made at one time: a slow client keeps a thread.
const STREAM_THREADS: usize = 8;
const STREAMS_WAITING_MAX: usize = 64;
/// How often logins are checked against time alone: the end of a rotated secret's overlap.
const LOGINS_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often counters are drained, so that histograms stay small without a scraper.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why the gateway does not start. Nothing is listened on then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("data directory {dir}: {source}")]
    DataDir { dir: PathBuf, source: io::Error },
    #[error("data directory {dir} is in use by another backtide; stop it, or give another")]
    InUse { dir: PathBuf },
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("store: {0}")]
    Store(#[from] backtide_store::OpenError),
    #[error("registry: {0}")]
    Registry(#[from] crate::registry::OpenError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Mqtt(#[from] mqtt::BindError),
    #[error(transparent)]
    Sessions(#[from] mqtt::KeptError),
    #[error("cannot listen for HTTP on {address}: {source}; choose another address or a free port")]
    Http {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Where the doors are, as `serve` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Addresses {
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
}

/// A gateway whose doors are open.
pub struct Running {
    pub addresses: Addresses,
    door: Arc<Door<House>>,
    store: Store,
    closing: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Held until everything is closed.
    _data_dir: File,
}

/// Starts a gateway. Must be called inside a runtime.
///
/// # Errors
/// [`StartError`].
pub async fn start(config: Config) -> Result<Running, StartError> {
    let clock = Clock::system();
    let data_dir = claim(&config.data_dir)?;
    let metrics = collect_metrics()?;
    let store = open_store(&config)?;
    let registry = Arc::new(Registry::open(
        &config.data_dir,
        Arc::new(StoredPoints(store.clone())),
        clock.clone(),
    )?);
    let log = Arc::new(Log::open(
        &config.data_dir.join("channel-log.db"),
        config.channel_log,
    )?);
    let quarantine = Arc::new(Quarantine::open(
        &config.data_dir.join("quarantine.db"),
        config.quarantine,
        store.clone(),
    )?);
    let ingest = Arc::new(Ingest {
        registry: Arc::clone(&registry),
        store: store.clone(),
        quarantine: Arc::clone(&quarantine),
        log: Arc::clone(&log),
        clock: clock.clone(),
    });
    let house = Arc::new(House::new(ingest));
    let sessions = config.data_dir.join("sessions.db");
    let wall_clock = || Clock::system().now_ms();
    let door = Door::open(
        Arc::clone(&house),
        mqtt_limits(&config),
        wall_clock,
        Some(&sessions),
    )?;

    let has_advertised = config.mqtt.advertised_url.is_some();
    let (mqtt_listener, mqtt) = listen_mqtt(config.mqtt.listen).await?;
    let (http_listener, http) = listen_http(config.http.listen).await?;
    let closing = CancellationToken::new();
    let api = Arc::new(Api {
        registry: Arc::clone(&registry),
        store: store.clone(),
        quarantine: Arc::clone(&quarantine),
        log,
        streams: Pool::start("streams", STREAM_THREADS, STREAMS_WAITING_MAX)
            .map_err(StartError::Thread)?,
        closing: closing.clone(),
        pool: Pool::start("api", config.http.threads, config.http.waiting_max)
            .map_err(StartError::Thread)?,
        clock,
        token: AdminToken::open(&config.data_dir)?,
        broker_url: config
            .mqtt
            .advertised_url
            .unwrap_or_else(|| format!("tcp://{mqtt}")),
        metrics: render(metrics.clone(), store.clone(), Arc::clone(&registry)),
        readiness: readiness(store.clone(), Arc::clone(&quarantine)),
    });
    let tasks = vec![
        tokio::spawn(keep_logins_true(
            house,
            Arc::clone(&registry),
            closing.clone(),
        )),
        tokio::spawn(upkeep(metrics, closing.clone())),
        tokio::spawn(serve_http(http_listener, api)),
        tokio::spawn(Arc::clone(&door).serve(mqtt_listener)),
    ];
    let addresses = Addresses { mqtt, http };
    if mqtt.ip().is_unspecified() && !has_advertised {
        tracing::warn!(
            "channel show prints {mqtt}, which no other machine can reach; \
             set mqtt.advertised_url"
        );
    }
    tracing::info!(%mqtt, %http, "doors are open");
    Ok(Running {
        addresses,
        door,
        store,
        closing,
        tasks,
        _data_dir: data_dir,
    })
}

impl Running {
    /// Drains and closes: what is in flight becomes durable and is answered.
    pub async fn stop(self) {
        self.door.close().await;
        self.closing.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task ended in a bug");
            }
        }
        self.store.close();
        tracing::info!("closed");
    }
}

/// Makes the data directory and locks it: two processes on one would corrupt it.
fn claim(dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir {
        dir: dir.to_owned(),
        source,
    };
    // It holds secrets and payloads: for nobody else on the machine.
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn open_store(config: &Config) -> Result<Store, StartError> {
    let disk = Arc::new(RealDisk);
    let (store, recovery) =
        Store::open(&config.data_dir.join("store"), disk, config.store.clone())?;
    tracing::info!(?recovery, durable = store.durable().0, "the store is open");
    Ok(store)
}

fn mqtt_limits(config: &Config) -> limits::Mqtt {
    let own = limits::Mqtt::default();
    let given = &config.mqtt;
    limits::Mqtt {
        connections_max: given.connections_max.unwrap_or(own.connections_max),
        connections_per_channel_max: given
            .connections_per_channel_max
            .unwrap_or(own.connections_per_channel_max),
        connections_per_address_max: given
            .connections_per_address_max
            .unwrap_or(own.connections_per_address_max),
        ..own
    }
}

async fn listen_mqtt(
    address: SocketAddr,
) -> Result<(tokio::net::TcpListener, SocketAddr), StartError> {
    let listener = mqtt::bind(address).await?;
    let bound = listener
        .local_addr()
        .map_err(|source| mqtt::BindError { address, source })?;
    Ok((listener, bound))
}

async fn listen_http(
    address: SocketAddr,
) -> Result<(tokio::net::TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Http { address, source };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn serve_http(listener: tokio::net::TcpListener, api: Arc<Api>) {
    if let Err(error) = http::serve(listener, api).await {
        tracing::error!(%error, "the HTTP door failed");
    }
}

/// Connections end when their channel is paused or deleted or their secret ends.
async fn keep_logins_true(house: Arc<House>, registry: Arc<Registry>, closing: CancellationToken) {
    let mut changes = registry.subscribe();
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOGINS_LOOK_EVERY) => {}
        }
        house.recheck_logins();
    }
}

async fn upkeep(metrics: PrometheusHandle, closing: CancellationToken) {
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(METRICS_UPKEEP_EVERY) => metrics.run_upkeep(),
        }
    }
}

/// What the registry asks the store before a point may change its type.
struct StoredPoints(Store);

impl StoredTypes for StoredPoints {
    fn stored_as(&self, product: &ProductKey, point: &ElementName) -> Option<Storage> {
        self.0.storage_of(product, point)
    }

    fn committed(&self) -> u64 {
        self.0.durable().0
    }
}

fn readiness(
    store: Store,
    quarantine: Arc<Quarantine>,
) -> Box<dyn Fn() -> Readiness + Send + Sync> {
    Box::new(move || {
        let store = match store.health() {
            State::Ok => None,
            State::DiskFull {
                free_bytes,
                reserve_bytes,
            } => Some(format!(
                "disk full: {free_bytes} bytes free, {reserve_bytes} are kept in reserve"
            )),
            State::Poisoned { reason } => Some(format!(
                "store poisoned by a failed write: {reason}; restart to recover"
            )),
        };
        let quarantine = quarantine
            .is_full()
            .then(|| "quarantine full: messages with refusals are held".to_owned());
        Readiness::unless(store.into_iter().chain(quarantine).collect())
    })
}

/// Gauges are read when somebody looks.
fn render(
    metrics: PrometheusHandle,
    store: Store,
    registry: Arc<Registry>,
) -> Box<dyn Fn() -> String + Send + Sync> {
    Box::new(move || {
        crate::telemetry::gauge_store(&store);
        let snapshot = registry.current();
        crate::telemetry::gauge("backtide_devices", snapshot.devices_len());
        metrics.render()
    })
}
