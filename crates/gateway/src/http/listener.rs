//! The HTTP door's accept loop: how many connections there are, and how long a client may take.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc};

use axum::{Router, body::Body, response::Response};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Duration, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;

use super::websocket::PeerAddress;
use crate::limits;

/// After an accept failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `closing` is cancelled, then finishes the requests that are under way, for a while.
/// Takes the right to a connection before it accepts: at the cap, clients wait in the kernel's queue.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: limits::Http,
    closing: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let tasks = TaskTracker::new();
    loop {
        let permit = Arc::clone(&connections).acquire_owned();
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            accepted = async { (permit.await, listener.accept().await) } => accepted,
        };
        match accepted {
            (permit, Ok((stream, peer))) => {
                let talk = talk(stream, peer, router.clone(), limits, closing.clone());
                tasks.spawn(async move {
                    if let Err(error) = talk.await {
                        tracing::debug!(%peer, %error, "an HTTP connection ended");
                    }
                    drop(permit);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "an HTTP connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tasks.close();
    if timeout(Duration::from_secs(limits.drain_s), tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(left = tasks.len(), "HTTP connections are left behind");
    }
}

async fn talk(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: limits::Http,
    closing: CancellationToken,
) -> Result<(), hyper::Error> {
    // Without it an answer is only later.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "small segments may wait");
    }
    let service = service_fn(move |request| answer(router.clone(), request, peer));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.header_s))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn answer(
    mut router: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(PeerAddress(peer));
    router.call(request).await
}
