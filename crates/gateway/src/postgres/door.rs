//! Connections: accepted up to the cap, each with a session of its own.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use datafusion_postgres::pgwire::tokio::process_socket;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{cancel::Cancels, login::Login, session::Handlers};
use crate::{access::Access, pool::Pool, sql::Engine, tls};

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to end when the door closes.
const DRAIN: Duration = Duration::from_secs(5);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for PostgreSQL clients on {address}: {source}; give another address with --postgres, or port 0 for a free one"
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

/// The door.
pub struct Door {
    engine: Arc<Engine>,
    access: Arc<Access>,
    /// Checks passwords.
    pool: Pool,
    tls: Option<Arc<tls::Server>>,
    connections: Arc<Semaphore>,
    cancels: Arc<Cancels>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Door {
    /// Prepares the door; nothing is listened on yet.
    pub fn new(
        engine: Arc<Engine>,
        access: Arc<Access>,
        pool: Pool,
        tls: Option<Arc<tls::Server>>,
        connections_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            access,
            pool,
            tls,
            connections: Arc::new(Semaphore::new(connections_max)),
            cancels: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    /// Accepts connections until the door closes. Takes the right to a connection before it accepts: at
    /// the cap, clients wait in the kernel's queue.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.accept(&listener) => accepted,
            };
            let begun = accepted.and_then(|(stream, peer, right)| {
                let runtime = self.engine.runtime().map_err(io::Error::other)?;
                let attend = Arc::clone(&self).attend(stream, peer, right);
                self.tasks.spawn_on(attend, runtime);
                Ok(())
            });
            if let Err(error) = begun {
                tracing::warn!(%error, "a PostgreSQL connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let right = Arc::clone(&self.connections).acquire_owned().await;
        let right = right.map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        Ok((stream, peer, right))
    }

    async fn attend(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        _right: OwnedSemaphorePermit,
    ) {
        metrics::gauge!("backtide_postgres_connections").increment(1);
        let ended = tokio::select! {
            ended = Box::pin(self.converse(stream, peer)) => ended,
            () = self.closing.cancelled() => Ok(()),
        };
        metrics::gauge!("backtide_postgres_connections").decrement(1);
        match ended {
            Ok(()) => tracing::debug!(%peer, "a PostgreSQL connection ended"),
            Err(error) => tracing::info!(%peer, %error, "a PostgreSQL connection broke off"),
        }
    }

    async fn converse(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        // A second handle of the socket sees that the client is gone while a query still runs.
        let stream = stream.into_std()?;
        let watched = TcpStream::from_std(stream.try_clone()?)?;
        let stream = TcpStream::from_std(stream)?;
        let login = Login::new(
            Arc::clone(&self.access),
            self.pool.clone(),
            peer.ip(),
            self.tls.is_some(),
            Arc::clone(&self.cancels),
        );
        let engine = Arc::clone(&self.engine);
        let handlers = Handlers::new(engine, login, watched).map_err(io::Error::other)?;
        let acceptor = self.tls.as_ref().map(|tls| tls.acceptor());
        process_socket(stream, acceptor, handlers).await
    }

    /// Closes: no new connections, and those that stand end.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        if timeout(DRAIN, self.tasks.wait()).await.is_err() {
            let left = self.tasks.len();
            tracing::warn!(left, "PostgreSQL connections are left behind");
        }
    }
}
