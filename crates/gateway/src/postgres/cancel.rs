//! Cancelling a query from outside: by a cancel request, which comes on a connection of its own, or
//! because the client is gone.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion_postgres::pgwire::{
    api::cancel::CancelHandler,
    messages::{cancel::CancelRequest, startup::SecretKey},
};
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::{io::Interest, net::TcpStream, time::interval};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the client is there.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What runs on a connection at the moment.
#[derive(Debug, Default)]
pub(super) struct Current(Mutex<CancellationToken>);

impl Current {
    /// Begins a query; the one before cannot be cancelled any more.
    pub(super) fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.0.lock() = token.clone();
        token
    }
}

/// The connections, by what a cancel request has to show.
#[derive(Default)]
pub(super) struct Cancels(Mutex<HashMap<i32, (SecretKey, Arc<Current>)>>);

/// A connection that can be told of; forgotten when this is dropped.
pub(super) struct Listed {
    pid: i32,
    cancels: Arc<Cancels>,
}

impl Cancels {
    pub(super) fn list(
        self: &Arc<Self>,
        (pid, secret): (i32, SecretKey),
        current: Arc<Current>,
    ) -> Listed {
        self.0.lock().insert(pid, (secret, current));
        Listed {
            pid,
            cancels: Arc::clone(self),
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.cancels.0.lock().remove(&self.pid);
    }
}

#[async_trait]
impl CancelHandler for Cancels {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let listed = self.0.lock();
        if let Some((secret, current)) = listed.get(&request.pid)
            && secret.eq_value(&request.secret_key)
        {
            current.0.lock().cancel();
        }
    }
}

/// Waits until the other end of a connection has closed it, whatever it sent before.
pub(super) async fn gone(watched: &TcpStream) {
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        match watched.ready(Interest::READABLE).now_or_never() {
            Some(Ok(ready)) if !ready.is_read_closed() => {}
            None => {}
            Some(Ok(_) | Err(_)) => return,
        }
    }
}
