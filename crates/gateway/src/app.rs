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
    access::{self, Access, AccessError},
    alarms::Alarms,
    application::Applications,
    archive::{self, ArchiveError, Archives},
    channel_log::{Log, LogError},
    clock::Clock,
    config::Config,
    derive::{self, Derived, DerivedError},
    growth::Growth,
    house::{self, House},
    http::{self, Api, Live, Readiness, Seats},
    imports::{ImportError, Imports},
    ingest::{Budgets, Ingest, Shares},
    kafka::Cluster,
    limits,
    mqtt::{self, Door, Peer, Transport},
    pool::Pool,
    quarantine::{Quarantine, QuarantineError},
    recorder::{Recorder, RecorderError},
    redrive::{RedriveError, Redriver},
    registry::{Refused, Registry, StoredTypes},
    retention::Retention,
    rules::{self, OfGateway, Rules, RulesError},
    script::{Scripts, WorkerCommand},
    secrets::{AdminToken, SecretError},
    store::Way,
    subscribe,
    subscription::{self, SubscriptionError, Subscriptions},
    telemetry::{TelemetryError, collect_metrics},
    tls::{self, TlsError},
};
#[cfg(feature = "sql")]
use crate::{
    postgres,
    sql::{Engine, Sources},
};

/// Answers of any length that are made at one time: a slow client keeps a thread.
const STREAM_THREADS: usize = 8;
const STREAMS_WAITING_MAX: usize = 64;
/// Threads that read messages of subscriptions.
const SUBSCRIPTION_THREADS: usize = 2;
/// The RSA key that applications of one SDK encrypt for.
const APPLICATION_KEY_FILE: &str = "application-rsa.key";
/// The same where they lie in Kafka: each read waits for an answer.
const KAFKA_SUBSCRIPTION_THREADS: usize = 8;
/// The one job that runs waits for each piece of its work.
const REDRIVE_WAITING_MAX: usize = 4;
/// Changes of rules that wait to be carried out.
const RULE_CHANGES_WAITING_MAX: usize = 64;
/// How often logins are checked against time alone: the end of a rotated secret's overlap.
const LOGINS_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where queries put what does not fit into memory; emptied at every start.
#[cfg(feature = "sql")]
const SPILL_DIR: &str = "sql-spill";
/// Logins of PostgreSQL's clients that wait for a password to be checked.
#[cfg(feature = "sql")]
const LOGINS_WAITING_MAX: usize = 16;
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
    Access(#[from] AccessError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    #[error(transparent)]
    Imports(#[from] ImportError),
    #[error(transparent)]
    Archives(#[from] ArchiveError),
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Mqtt(#[from] mqtt::BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Subscribe(#[from] subscribe::BindError),
    #[cfg(feature = "sql")]
    #[error("SQL: {0}")]
    Sql(io::Error),
    #[cfg(feature = "sql")]
    #[error(transparent)]
    Postgres(#[from] postgres::BindError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error("rollups: {0}")]
    Derived(#[from] DerivedError),
    #[error("default rules: {0}")]
    DefaultRules(Refused),
    #[error(transparent)]
    Sessions(#[from] mqtt::KeptError),
    #[error(
        "cannot listen for HTTP on {address}: {source}; give another address with --http, or port 0 for a free one"
    )]
    Http {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Where the doors are, as `serve` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Addresses {
    pub mqtt: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtts: Option<SocketAddr>,
    pub http: SocketAddr,
    pub subscribe: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<SocketAddr>,
}

/// A gateway whose doors are open.
pub struct Running {
    pub addresses: Addresses,
    door: Arc<Door<House>>,
    subscribe: Arc<subscribe::Door>,
    #[cfg(feature = "sql")]
    sql: Arc<Engine>,
    #[cfg(feature = "sql")]
    postgres: Option<Arc<postgres::Door>>,
    subscriptions: Arc<Subscriptions>,
    rules: Arc<Rules>,
    derived: Arc<Derived>,
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
    let access = Arc::new(Access::open(
        &config.data_dir.join("access.db"),
        AdminToken::open(&config.data_dir)?,
        clock.clone(),
    )?);
    registry.set_witness(access::witness(&access));
    let log = Arc::new(Log::open(
        &config.data_dir.join("channel-log.db"),
        config.channel_log,
    )?);
    let quarantine = Arc::new(Quarantine::open(
        &config.data_dir.join("quarantine.db"),
        config.quarantine,
        store.clone(),
    )?);
    let scripts = Scripts::start(&WorkerCommand::this_program(), &config.scripts);
    let scripts = Arc::new(scripts.map_err(StartError::Thread)?);
    let recorder = Arc::new(Recorder::open(
        &config.data_dir.join("recorder.db"),
        config.recorder,
    )?);
    let (budgets, alarms) = Budgets::new();
    let way = Arc::new(Way::to(store.clone()));
    let ingest = Arc::new(Ingest {
        registry: Arc::clone(&registry),
        way: Arc::clone(&way),
        store: store.clone(),
        quarantine: Arc::clone(&quarantine),
        log: Arc::clone(&log),
        scripts: Arc::clone(&scripts),
        budgets,
        recorder: Arc::clone(&recorder),
        clock: clock.clone(),
        shares: Shares::default(),
    });
    let redriver = Arc::new(Redriver::open(
        &config.data_dir.join("redrive.db"),
        Arc::clone(&ingest),
        Pool::start("redrive", 1, REDRIVE_WAITING_MAX).map_err(StartError::Thread)?,
    )?);
    let retention = Retention {
        registry: Arc::clone(&registry),
        store: store.clone(),
        clock: clock.clone(),
    };
    // Before anything is read: the store does not remember what is too old.
    retention.set();
    // Nothing is connected to here: Kafka may be away.
    let kafka = config.kafka.clone().map(|settings| {
        let organization = config.organization.clone();
        Cluster::new(settings, organization, store.id())
    });
    let subscriptions = open_subscriptions(&config, &registry, &store, &clock, kafka.clone())?;
    let rules = open_rules(
        &config,
        &registry,
        &store,
        &scripts,
        (way, &clock),
        kafka.clone(),
    )?;
    let derived = open_derived(&config, &registry, &store, &clock, kafka.clone())?;
    let closing = CancellationToken::new();
    let setting = archive::Setting {
        registry: Arc::clone(&registry),
        store: store.clone(),
        clock: clock.clone(),
        runtime: tokio::runtime::Handle::current(),
        root: config.archive_folder.clone(),
        closing: closing.clone(),
    };
    let archives = Arc::new(Archives::open(
        &config.data_dir.join("archives.db"),
        setting,
    )?);
    let applications = Applications::new(
        Arc::clone(&registry),
        clock.clone(),
        config.data_dir.join(APPLICATION_KEY_FILE),
    );
    let integrate = house::integrate(Arc::clone(&ingest));
    let imports = Arc::new(Imports::open(
        &config.data_dir,
        Arc::clone(&ingest),
        Pool::start("imports", 1, limits::IMPORTS_MAX * 4).map_err(StartError::Thread)?,
        closing.clone(),
    )?);
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
    let (secure_door, mqtts) = match &config.mqtts {
        Some(mqtts) => {
            let tls = tls::Server::open(mqtts.files.clone(), &clock)?;
            let (listener, bound) = listen_mqtt(mqtts.listen).await?;
            (Some((listener, tls)), Some(bound))
        }
        None => (None, None),
    };
    let (http_listener, http) = listen_http(config.http.listen).await?;
    let (subscribe_listener, subscribe) = subscribe::bind(config.subscribe.listen).await?;
    let subscribe_door = subscribe::Door::new(
        Arc::clone(&registry),
        Arc::clone(&subscriptions),
        clock.clone(),
        subscribe_limits(&config.subscribe),
        secure_door.as_ref().map(|(_, tls)| Arc::clone(tls)),
    );
    #[cfg(feature = "sql")]
    let sql = open_sql(&config, &registry, &store, (&log, &quarantine), &derived)?;
    #[cfg(feature = "sql")]
    let (postgres_listener, postgres) = match config.postgres {
        Some(address) => {
            let (listener, bound) = postgres::bind(address).await?;
            (Some(listener), Some(bound))
        }
        None => (None, None),
    };
    #[cfg(not(feature = "sql"))]
    let postgres = None;
    #[cfg(feature = "sql")]
    let postgres_door = postgres_listener.map(|listener| {
        let logins = Pool::start("logins", 1, LOGINS_WAITING_MAX).map_err(StartError::Thread)?;
        let tls = secure_door.as_ref().map(|(_, tls)| Arc::clone(tls));
        let (sql, access) = (Arc::clone(&sql), Arc::clone(&access));
        let door = postgres::Door::new(sql, access, logins, tls, config.sql.connections_max);
        Ok::<_, StartError>((listener, door))
    });
    #[cfg(feature = "sql")]
    let postgres_door = postgres_door.transpose()?;
    let growth = Arc::new(Growth::of(
        &config.data_dir,
        config.store.disk_reserve_bytes,
    ));
    let api = Arc::new(Api {
        registry: Arc::clone(&registry),
        store: store.clone(),
        quarantine: Arc::clone(&quarantine),
        redriver: Arc::clone(&redriver),
        recorder,
        log: Arc::clone(&log),
        scripts,
        subscriptions: Arc::clone(&subscriptions),
        kafka,
        rules: Arc::clone(&rules),
        derived: Arc::clone(&derived),
        #[cfg(feature = "sql")]
        sql: Arc::clone(&sql),
        streams: Pool::start("streams", STREAM_THREADS, STREAMS_WAITING_MAX)
            .map_err(StartError::Thread)?,
        closing: closing.clone(),
        pool: Pool::start("api", config.http.threads, config.http.waiting_max)
            .map_err(StartError::Thread)?,
        clock: clock.clone(),
        access,
        applications: Arc::new(applications),
        organization: config.organization.clone(),
        integrate,
        imports,
        archives: Arc::clone(&archives),
        live: Live::default(),
        growth: Arc::clone(&growth),
        reads: Seats::new(limits::READS_MAX, limits::READS_PER_CALLER_MAX),
        broker_url: config
            .mqtt
            .advertised_url
            .unwrap_or_else(|| format!("tcp://{mqtt}")),
        broker_tls_url: mqtts.map(|bound| {
            let advertised = config.mqtts.and_then(|mqtts| mqtts.advertised_url);
            advertised.unwrap_or_else(|| format!("ssl://{bound}"))
        }),
        subscribe_port: subscribe.port(),
        mqtt: websocket(Arc::clone(&door)),
        metrics: render(
            metrics.clone(),
            store.clone(),
            Arc::clone(&registry),
            Arc::clone(&subscriptions),
            (Arc::clone(&rules), Arc::clone(&derived)),
            Arc::clone(&growth),
        ),
        readiness: readiness(
            store.clone(),
            Arc::clone(&quarantine),
            Arc::clone(&registry),
            (Arc::clone(&rules), Arc::clone(&growth)),
        ),
    });
    let alarmed = Alarms {
        registry: Arc::clone(&registry),
        log,
        clock: clock.clone(),
        pool: Pool::start("alarms", 1, 1).map_err(StartError::Thread)?,
    };
    let mut tasks = vec![
        tokio::spawn(alarmed.raise_all(alarms, closing.clone())),
        tokio::spawn(keep_logins_true(
            house,
            Arc::clone(&registry),
            closing.clone(),
        )),
        tokio::spawn(upkeep(metrics, closing.clone())),
        tokio::spawn(keep_measured(
            growth,
            Pool::start("growth", 1, 1).map_err(StartError::Thread)?,
            closing.clone(),
        )),
        tokio::spawn(retention.keep(
            Pool::start("retention", 1, 1).map_err(StartError::Thread)?,
            closing.clone(),
        )),
        tokio::spawn(redriver.run(closing.clone())),
        tokio::spawn(http::beat(Arc::clone(&api))),
        tokio::spawn(http::serve(http_listener, api)),
        tokio::spawn(Arc::clone(&subscriptions).keep(closing.clone())),
        tokio::spawn(Arc::clone(&rules).keep(closing.clone())),
        tokio::spawn(
            Arc::clone(&archives)
                .keep_log(Pool::start("archive-log", 1, 1).map_err(StartError::Thread)?),
        ),
        tokio::spawn(archives.keep_runs(Pool::start("archive", 1, 1).map_err(StartError::Thread)?)),
        tokio::spawn(Arc::clone(&subscribe_door).serve(subscribe_listener)),
        tokio::spawn(Arc::clone(&door).serve(mqtt_listener, None)),
    ];
    if let Some((listener, tls)) = secure_door {
        tasks.push(tokio::spawn(
            Arc::clone(&tls).keep_fresh(clock, closing.clone()),
        ));
        tasks.push(tokio::spawn(Arc::clone(&door).serve(listener, Some(tls))));
    }
    #[cfg(feature = "sql")]
    let postgres_door = postgres_door.map(|(listener, door)| {
        tasks.push(tokio::spawn(Arc::clone(&door).serve(listener)));
        door
    });
    let addresses = Addresses {
        mqtt,
        mqtts,
        http,
        subscribe,
        postgres,
    };
    if mqtt.ip().is_unspecified() && !has_advertised {
        tracing::warn!(
            "channel show prints {mqtt}, which no other machine can reach; \
             set mqtt.advertised_url"
        );
    }
    let mqtts = mqtts.map(tracing::field::display);
    let postgres = postgres.map(tracing::field::display);
    tracing::info!(%mqtt, mqtts, %http, %subscribe, postgres, "doors are open");
    Ok(Running {
        addresses,
        door,
        subscribe: subscribe_door,
        #[cfg(feature = "sql")]
        sql,
        #[cfg(feature = "sql")]
        postgres: postgres_door,
        subscriptions,
        rules,
        derived,
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
        self.subscribe.close().await;
        #[cfg(feature = "sql")]
        if let Some(postgres) = &self.postgres {
            postgres.close().await;
        }
        #[cfg(feature = "sql")]
        self.sql.close();
        self.closing.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task ended in a bug");
            }
        }
        self.rules.close().await;
        self.derived.close();
        self.subscriptions.close();
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
    let backtide_store::Recovery {
        files,
        commits,
        bytes,
        torn_bytes,
    } = recovery;
    let durable = store.durable().0;
    tracing::info!(
        durable,
        journal_files = files,
        recovered_commits = commits,
        recovered_bytes = bytes,
        torn_bytes,
        "the store is open"
    );
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
        connects_burst: given
            .connections_per_address_max
            .max(given.connections_per_channel_max)
            .and_then(|most| u32::try_from(most).ok())
            .map_or(own.connects_burst, |most| most.max(own.connects_burst)),
        ..own
    }
}

fn open_subscriptions(
    config: &Config,
    registry: &Arc<Registry>,
    store: &Store,
    clock: &Clock,
    kafka: Option<Cluster>,
) -> Result<Arc<Subscriptions>, StartError> {
    let limits = limits::Topics {
        bytes_max: config.subscribe.bytes_max,
        ..limits::Topics::default()
    };
    // Each session has one pull under way: none of them is refused for want of room.
    let waiting_max = subscribe_limits(&config.subscribe).connections_max;
    let threads = match kafka {
        None => SUBSCRIPTION_THREADS,
        Some(_) => KAFKA_SUBSCRIPTION_THREADS,
    };
    let pool = Pool::start("subscriptions", threads, waiting_max);
    let setting = subscription::Setting {
        registry: Arc::clone(registry),
        store: store.clone(),
        organization: config.organization.clone(),
        clock: clock.clone(),
        pool: pool.map_err(StartError::Thread)?,
        limits,
        kafka,
    };
    let dir = config.data_dir.join("subscriptions");
    Ok(Subscriptions::open(&dir, setting)?)
}

fn open_rules(
    config: &Config,
    registry: &Arc<Registry>,
    store: &Store,
    scripts: &Arc<Scripts>,
    (way, clock): (Arc<Way>, &Clock),
    kafka: Option<Cluster>,
) -> Result<Arc<Rules>, StartError> {
    registry
        .make_default_rules()
        .map_err(StartError::DefaultRules)?;
    let pool = Pool::start("rules", 1, RULE_CHANGES_WAITING_MAX);
    let setting = rules::Setting {
        registry: Arc::clone(registry),
        store: store.clone(),
        scripts: Arc::clone(scripts),
        destinations: Arc::new(OfGateway {
            registry: Arc::clone(registry),
            way,
            clock: clock.clone(),
            kafka,
        }),
        organization: config.organization.clone(),
        clock: clock.clone(),
        pool: pool.map_err(StartError::Thread)?,
        runtime: tokio::runtime::Handle::current(),
        limits: config.rules.clone(),
    };
    Ok(Rules::open(&config.data_dir.join("rules"), setting)?)
}

fn open_derived(
    config: &Config,
    registry: &Arc<Registry>,
    store: &Store,
    clock: &Clock,
    kafka: Option<Cluster>,
) -> Result<Arc<Derived>, StartError> {
    let setting = derive::Setting {
        registry: Arc::clone(registry),
        store: store.clone(),
        clock: clock.clone(),
        organization: config.organization.clone(),
        kafka,
    };
    Ok(Derived::open(&config.data_dir.join("derived.db"), setting)?)
}

#[cfg(feature = "sql")]
fn open_sql(
    config: &Config,
    registry: &Arc<Registry>,
    store: &Store,
    (log, quarantine): (&Arc<Log>, &Arc<Quarantine>),
    derived: &Arc<Derived>,
) -> Result<Arc<Engine>, StartError> {
    let sources = Sources {
        registry: Arc::clone(registry),
        store: store.clone(),
        log: Arc::clone(log),
        quarantine: Arc::clone(quarantine),
        derived: Arc::clone(derived),
    };
    let spill = config.data_dir.join(SPILL_DIR);
    let engine = Engine::start(sources, &spill, config.sql.clone()).map_err(StartError::Sql)?;
    Ok(Arc::new(engine))
}

fn subscribe_limits(given: &crate::config::Subscribe) -> limits::Subscribe {
    let own = limits::Subscribe::default();
    limits::Subscribe {
        connections_max: given.connections_max.unwrap_or(own.connections_max),
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

/// The doors do not know each other: this is how the HTTP door comes by the MQTT door.
fn websocket(door: Arc<Door<House>>) -> http::Attend {
    Box::new(move |stream, address| {
        let transport = Transport::WebSocket;
        let peer = Peer { address, transport };
        Box::pin(Arc::clone(&door).attend(stream, peer))
    })
}

/// Connections end when their channel is paused or deleted or their secret ends.
async fn keep_logins_true(house: Arc<House>, registry: Arc<Registry>, closing: CancellationToken) {
    let mut changes = registry.changes(closing);
    while changes.next_within(LOGINS_LOOK_EVERY).await {
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

async fn keep_measured(growth: Arc<Growth>, pool: Pool, closing: CancellationToken) {
    growth.keep(pool, closing).await;
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

    fn trimmed(&self) -> u64 {
        let oldest = self.0.stats().oldest;
        oldest.map_or_else(|| self.committed(), |oldest| oldest.0.saturating_sub(1))
    }
}

fn readiness(
    store: Store,
    quarantine: Arc<Quarantine>,
    registry: Arc<Registry>,
    (rules, growth): (Arc<Rules>, Arc<Growth>),
) -> Box<dyn Fn() -> Readiness + Send + Sync> {
    Box::new(move || {
        let held = store.held_log().map(|held| {
            format!(
                "log held: the follower {} stands at commit {} and keeps {} bytes of log",
                held.cursor, held.at.0, held.log_bytes
            )
        });
        let free_bytes = store.disk_free_bytes();
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
        let full_soon = growth.outlook(free_bytes).warning();
        let warnings = warnings(&registry).into_iter().chain(held);
        let warnings = warnings.chain(rules.warnings()).chain(full_soon).collect();
        Readiness::unless(store.into_iter().chain(quarantine).collect()).with(warnings)
    })
}

/// Channels that are held: everybody else is served.
fn warnings(registry: &Registry) -> Vec<String> {
    let snapshot = registry.current();
    let held = snapshot.channels_after(None).filter_map(|channel| {
        let held = channel.held.as_ref()?;
        Some(format!("channel {} is held, {}", channel.name, held.reason))
    });
    held.collect()
}

/// Gauges are read when somebody looks.
fn render(
    metrics: PrometheusHandle,
    store: Store,
    registry: Arc<Registry>,
    subscriptions: Arc<Subscriptions>,
    (rules, derived): (Arc<Rules>, Arc<Derived>),
    growth: Arc<Growth>,
) -> Box<dyn Fn() -> String + Send + Sync> {
    Box::new(move || {
        crate::telemetry::gauge_store(&store);
        let snapshot = registry.current();
        crate::telemetry::gauge("backtide_devices", snapshot.devices_len());
        let held = snapshot
            .channels_after(None)
            .filter(|channel| channel.held.is_some());
        crate::telemetry::gauge("backtide_channels_held", held.count());
        subscriptions.gauge();
        rules.gauge();
        derived.gauge();
        growth.gauge(store.disk_free_bytes());
        metrics.render()
    })
}
