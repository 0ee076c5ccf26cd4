//! The door itself: what all connections share, the accept loop, and the way to close.

use std::{
    hash::Hash,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use backtide_model::ChannelName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{House, Peer, Transport, WallClock, connection, kept::KeptError, sessions::Sessions};
use crate::{
    limits,
    throttle::{Addresses, Budget, Held, Left, network},
    tls,
};

/// How often sessions and waiting replies are looked at for their age.
const SWEEP: Duration = Duration::from_secs(30);
/// After an accept failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The MQTT door. One for all its listeners: TCP, TLS and WebSocket share caps and sessions.
pub struct Door<H: House> {
    pub(super) house: Arc<H>,
    pub(super) limits: Arc<limits::Mqtt>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) failed_addresses: Budget<IpAddr>,
    pub(super) failed_clients: Budget<String>,
    pub(super) connecting_channels: Budget<ChannelName>,
    connecting_addresses: Budget<IpAddr>,
    /// Buffers of all connections, in KiB.
    pub(super) buffers: Arc<Semaphore>,
    /// Cancelled when the server shuts down.
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    connected_addresses: Arc<Addresses>,
    handshaking_addresses: Arc<Addresses>,
    next_connection: AtomicU64,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for MQTT on {address}: {source}; give another address (--mqtt, --mqtts), or port 0 for a free one"
)]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Listens on an address; port 0 takes a free one.
///
/// # Errors
/// [`BindError`], which names the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError { address, source })
}

/// The right to be a connection, and while it is one, to be in its handshake.
pub(super) struct Pass {
    /// Its CONNECT has to be there by then, a TLS handshake included.
    pub(super) connect_by: Instant,
    _connection: OwnedSemaphorePermit,
    _address: Held,
    pub(super) handshake: Option<(OwnedSemaphorePermit, Held)>,
}

impl<H: House> Door<H> {
    /// Prepares the door; nothing is listened on yet. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`KeptError`] when the file of kept sessions cannot be used.
    pub fn open(
        house: Arc<H>,
        limits: limits::Mqtt,
        clock: WallClock,
        kept_sessions: Option<&Path>,
    ) -> Result<Arc<Self>, KeptError> {
        let limits = Arc::new(limits);
        let sessions = Sessions::open(Arc::clone(&limits), clock, kept_sessions)?;
        let door = Arc::new(Self {
            house,
            sessions,
            failed_addresses: failures(&limits),
            failed_clients: failures(&limits),
            connecting_channels: connects(&limits),
            connecting_addresses: connects(&limits),
            buffers: Arc::new(Semaphore::new(limits.buffer_bytes_max / 1024)),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            connected_addresses: Arc::default(),
            handshaking_addresses: Arc::default(),
            next_connection: AtomicU64::new(1),
            limits,
        });
        door.tasks
            .spawn(sweep(Arc::clone(&door.sessions), door.closing.clone()));
        Ok(door)
    }

    /// Accepts connections until the door closes. Takes the right to a connection before it
    /// accepts: at the cap, clients wait in the kernel's queue.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<tls::Server>>) {
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, address, permits)) => {
                    self.admit(stream, address, permits, tls.clone());
                }
                Err(error) => {
                    tracing::warn!(%error, "an MQTT connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves one connection that another door has accepted, until it ends. Returns at once when
    /// there are too many.
    pub async fn attend<S>(self: Arc<Self>, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connection = Arc::clone(&self.connections).try_acquire_owned();
        let handshake = Arc::clone(&self.handshakes).try_acquire_owned();
        let (Ok(connection), Ok(handshake)) = (connection, handshake) else {
            refused("connections_cap");
            return;
        };
        if let Some(pass) = self.pass(peer.address, (connection, handshake)) {
            let task = Arc::clone(&self).converse(stream, peer, pass);
            self.tasks.track_future(task).await;
        }
    }

    async fn converse<S>(self: Arc<Self>, stream: S, peer: Peer, pass: Pass)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        connection::run(self, stream, peer, number, pass).await;
    }

    /// The TLS handshake, in the time of CONNECT, and then the connection.
    async fn converse_securely(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        pass: Pass,
        tls: Arc<tls::Server>,
    ) {
        let accepted = tokio::select! {
            accepted = timeout_at(pass.connect_by, tls.accept(stream)) => accepted,
            () = self.closing.cancelled() => return,
        };
        let late = || Err("it took too long".to_owned());
        match accepted.unwrap_or_else(|_| late()) {
            Ok((stream, certificate)) => {
                let transport = Transport::Tls(certificate.map(Arc::new));
                let peer = Peer { address, transport };
                Box::pin(self.converse(stream, peer, pass)).await;
            }
            Err(reason) => {
                tracing::info!(peer = %address, reason, "no TLS connection");
                refused("tls");
            }
        }
    }

    /// Closes: no new connections; bursts in flight are finished and acknowledged; clients of 5.0
    /// are told; sessions are kept. Takes at most `drain_s` and a moment.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        // A connection ends within its own drain and write times; beyond them there is a bug or a
        // stuck store, and nothing more is acknowledged anyway.
        let limit = Duration::from_secs(self.limits.drain_s + self.limits.write_s + 2);
        if timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "MQTT connections are left behind");
        }
        self.sessions.close();
    }

    async fn permits(&self) -> (OwnedSemaphorePermit, OwnedSemaphorePermit) {
        let connection = Arc::clone(&self.connections).acquire_owned().await;
        let handshake = Arc::clone(&self.handshakes).acquire_owned().await;
        let never_closed = "the semaphores are never closed";
        (
            connection.expect(never_closed),
            handshake.expect(never_closed),
        )
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(
        TcpStream,
        SocketAddr,
        (OwnedSemaphorePermit, OwnedSemaphorePermit),
    )> {
        let permits = self.permits().await;
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Finds dead peers of clients without keep-alive, in about two minutes.
        let probes = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(15));
        SockRef::from(&stream).set_tcp_keepalive(&probes)?;
        Ok((stream, peer, permits))
    }

    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
        tls: Option<Arc<tls::Server>>,
    ) {
        // Without a pass the stream is dropped: the client sees the connection close.
        let Some(pass) = self.pass(address, permits) else {
            return;
        };
        let door = Arc::clone(self);
        match tls {
            None => {
                let transport = Transport::Tcp;
                let peer = Peer { address, transport };
                self.tasks.spawn(door.converse(stream, peer, pass));
            }
            Some(tls) => {
                let secured = door.converse_securely(stream, address, pass, tls);
                self.tasks.spawn(secured);
            }
        }
    }

    fn pass(
        &self,
        peer: SocketAddr,
        (connection, handshake): (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> Option<Pass> {
        let limits = &self.limits;
        let network = network(peer.ip());
        match self.connecting_addresses.left(&network) {
            Left::Some => self.connecting_addresses.spend(network),
            left => {
                refused("address_rate");
                if left == Left::NoneAtFirst {
                    tracing::info!(%peer, "connections from this address come too fast");
                }
                return None;
            }
        }
        let address = self
            .connected_addresses
            .hold(peer.ip(), limits.connections_per_address_max);
        let handshaking = self
            .handshaking_addresses
            .hold(peer.ip(), limits.handshakes_per_address_max);
        let (Some(address), Some(handshaking)) = (address, handshaking) else {
            refused("address_cap");
            tracing::debug!(%peer, "too many MQTT connections from one address");
            return None;
        };
        Some(Pass {
            connect_by: Instant::now() + Duration::from_secs(limits.connect_s),
            _connection: connection,
            _address: address,
            handshake: Some((handshake, handshaking)),
        })
    }
}

fn failures<K: Eq + Hash>(limits: &limits::Mqtt) -> Budget<K> {
    let refill = Duration::from_secs(limits.failed_login_refill_s);
    Budget::new(
        limits.failed_logins_burst,
        refill,
        limits.throttle_tracked_max,
    )
}

fn connects<K: Eq + Hash>(limits: &limits::Mqtt) -> Budget<K> {
    let refill = Duration::from_millis(limits.connect_refill_ms);
    Budget::new(limits.connects_burst, refill, limits.throttle_tracked_max)
}

fn refused(reason: &'static str) {
    metrics::counter!("backtide_mqtt_connects_refused_total", "reason" => reason).increment(1);
}

async fn sweep(sessions: Arc<Sessions>, closing: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            _ = every.tick() => sessions.sweep(),
        }
    }
}
