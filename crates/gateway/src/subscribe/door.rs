//! The door itself: what all sessions share, the accept loop, and the way to close.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    login::Login,
    session::{self, End},
    wire::{Rewound, Speech, Wire, WireError, sniff},
};
use crate::{
    clock::Clock,
    limits,
    registry::Registry,
    subscription::Subscriptions,
    throttle::{Addresses, Budget, Held, Left, network},
    tls,
};

/// After an accept failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often logins are checked against time alone: the end of a rotated secret's overlap.
const LOGINS_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long sessions may take to end when the door closes.
const DRAIN: Duration = Duration::from_secs(5);

/// The subscription door.
pub struct Door {
    pub(super) registry: Arc<Registry>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) clock: Clock,
    pub(super) limits: limits::Subscribe,
    /// Cancelled when the gateway stops.
    pub(super) closing: CancellationToken,
    tls: Option<Arc<tls::Server>>,
    tasks: TaskTracker,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    connected_addresses: Arc<Addresses>,
    handshaking_addresses: Arc<Addresses>,
    failed_addresses: Budget<IpAddr>,
    guests: Mutex<HashMap<u64, (Login, CancellationToken)>>,
    next_guest: AtomicU64,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for subscriptions on {address}: {source}; give another address with --subscribe, or port 0 for a free one"
)]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Listens on an address; port 0 takes a free one.
///
/// # Errors
/// [`BindError`], which names the address.
pub async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The right to be a connection, and while it is one, to be in its handshake.
struct Pass {
    _connection: OwnedSemaphorePermit,
    _address: Held,
    handshake: (OwnedSemaphorePermit, Held),
    subscribe_by: Instant,
}

/// A login in use: given back by dropping it.
pub(super) struct Guest {
    number: u64,
    revoked: CancellationToken,
    door: Arc<Door>,
}

impl Guest {
    /// Names the session in the log and to its client.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Waits until the login no longer holds.
    pub(super) async fn revoked(&self) {
        self.revoked.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.guests.lock().remove(&self.number);
        metrics::gauge!("backtide_subscribe_sessions").decrement(1);
    }
}

impl Door {
    /// Prepares the door; nothing is listened on yet.
    pub fn new(
        registry: Arc<Registry>,
        subscriptions: Arc<Subscriptions>,
        clock: Clock,
        limits: limits::Subscribe,
        tls: Option<Arc<tls::Server>>,
    ) -> Arc<Self> {
        let refill = Duration::from_secs(limits.failed_login_refill_s);
        Arc::new(Self {
            registry,
            subscriptions,
            clock,
            closing: CancellationToken::new(),
            tls,
            tasks: TaskTracker::new(),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            connected_addresses: Arc::default(),
            handshaking_addresses: Arc::default(),
            failed_addresses: Budget::new(
                limits.failed_logins_burst,
                refill,
                limits.failed_logins_tracked_max,
            ),
            guests: Mutex::default(),
            next_guest: AtomicU64::new(1),
            limits,
        })
    }

    /// Accepts connections until the door closes. Takes the right to a connection before it
    /// accepts: at the cap, clients wait in the kernel's queue.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        self.tasks.spawn(Arc::clone(&self).keep_logins_true());
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, peer, permits)) => {
                    if let Some(pass) = self.pass(peer, permits) {
                        self.tasks
                            .spawn(Arc::clone(&self).attend(stream, peer, pass));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a subscription connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes: no new connections; sessions end. What was delivered and not committed is delivered
    /// again.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        if timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                left = self.tasks.len(),
                "subscription sessions are left behind"
            );
        }
    }

    /// One connection, from its first byte to its last.
    async fn attend(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, pass: Pass) {
        let begun = tokio::select! {
            begun = timeout_at(pass.subscribe_by, sniff(stream)) => begun,
            () = self.closing.cancelled() => return,
        };
        let end = match begun {
            Err(_) => End::Late,
            Ok(Err(error)) => End::Wire(error.into()),
            Ok(Ok((Speech::Tls, stream))) => {
                Box::pin(self.attend_securely(stream, peer, pass)).await
            }
            Ok(Ok((speech, stream))) => self.converse(stream, speech, peer, pass).await,
        };
        tracing::info!(%peer, reason = %end, "a subscription connection ended");
    }

    /// The TLS handshake, and then what is inside.
    async fn attend_securely(
        self: Arc<Self>,
        stream: Rewound<TcpStream>,
        peer: SocketAddr,
        pass: Pass,
    ) -> End {
        let Some(tls) = self.tls.clone() else {
            return End::NoTls;
        };
        let begun = async {
            let (stream, _) = tls.accept(stream).await.map_err(End::Tls)?;
            sniff(stream).await.map_err(|error| End::Wire(error.into()))
        };
        let begun = tokio::select! {
            begun = timeout_at(pass.subscribe_by, begun) => begun,
            () = self.closing.cancelled() => return End::Closing,
        };
        match begun {
            Err(_) => End::Late,
            Ok(Err(end)) => end,
            Ok(Ok((speech, stream))) => self.converse(stream, speech, peer, pass).await,
        }
    }

    /// The session, once it is known how the client frames what it says.
    async fn converse<S>(
        self: Arc<Self>,
        stream: S,
        speech: Speech,
        peer: SocketAddr,
        pass: Pass,
    ) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let bytes_max = self.limits.request_bytes_max;
        let begun: Result<Wire<S>, WireError> = match speech {
            Speech::WebSocket => {
                let upgraded = Wire::web_socket(stream, bytes_max);
                match timeout_at(pass.subscribe_by, upgraded).await {
                    Ok(upgraded) => upgraded,
                    Err(_) => return End::Late,
                }
            }
            // TLS inside TLS is no package: it ends at its length.
            Speech::Plain | Speech::Tls => Ok(Wire::plain(stream, bytes_max)),
        };
        let mut wire = match begun {
            Ok(wire) => wire,
            Err(error) => return error.into(),
        };
        let Pass {
            _connection,
            _address,
            handshake,
            subscribe_by,
        } = pass;
        let subscribed = move || drop(handshake);
        let end = session::run(&self, &mut wire, peer, subscribe_by, subscribed).await;
        // A client that takes nothing is not waited for.
        let goodbye = timeout(Duration::from_secs(1), wire.close());
        if goodbye.await.is_err() {
            tracing::trace!(%peer, "no goodbye");
        }
        end
    }

    /// Takes note of a login in use.
    pub(super) fn register(self: &Arc<Self>, login: Login) -> Guest {
        let number = self.next_guest.fetch_add(1, Ordering::Relaxed);
        let revoked = CancellationToken::new();
        self.guests.lock().insert(number, (login, revoked.clone()));
        metrics::gauge!("backtide_subscribe_sessions").increment(1);
        Guest {
            number,
            revoked,
            door: Arc::clone(self),
        }
    }

    /// Sessions end when what let them in no longer holds.
    async fn keep_logins_true(self: Arc<Self>) {
        let mut changes = self.registry.changes(self.closing.clone());
        while changes.next_within(LOGINS_LOOK_EVERY).await {
            let snapshot = self.registry.snapshot();
            let now_ms = self.clock.now_ms();
            for (login, revoked) in self.guests.lock().values() {
                if !login.holds(&snapshot, now_ms) {
                    revoked.cancel();
                }
            }
        }
    }

    pub(super) fn is_throttled(&self, address: IpAddr) -> bool {
        self.failed_addresses.left(&network(address)) != Left::Some
    }

    /// Takes note of a login that may have been a guess.
    pub(super) fn guessed(&self, address: IpAddr) {
        self.failed_addresses.spend(network(address));
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(
        TcpStream,
        SocketAddr,
        (OwnedSemaphorePermit, OwnedSemaphorePermit),
    )> {
        let never_closed = "the semaphores are never closed";
        let connection = Arc::clone(&self.connections).acquire_owned().await;
        let handshake = Arc::clone(&self.handshakes).acquire_owned().await;
        let permits = (
            connection.expect(never_closed),
            handshake.expect(never_closed),
        );
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Finds dead peers in about two minutes.
        let probes = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(15));
        SockRef::from(&stream).set_tcp_keepalive(&probes)?;
        Ok((stream, peer, permits))
    }

    /// Without a pass the stream is dropped: the client sees the connection close.
    fn pass(
        &self,
        peer: SocketAddr,
        (connection, handshake): (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> Option<Pass> {
        let limits = &self.limits;
        let address = self
            .connected_addresses
            .hold(peer.ip(), limits.connections_per_address_max);
        let handshaking = self
            .handshaking_addresses
            .hold(peer.ip(), limits.handshakes_per_address_max);
        let (Some(address), Some(handshaking)) = (address, handshaking) else {
            metrics::counter!("backtide_subscribe_refused_total", "reason" => "address_cap")
                .increment(1);
            tracing::debug!(%peer, "too many subscription connections from one address");
            return None;
        };
        Some(Pass {
            _connection: connection,
            _address: address,
            handshake: (handshake, handshaking),
            subscribe_by: Instant::now() + Duration::from_secs(limits.connect_s),
        })
    }
}
