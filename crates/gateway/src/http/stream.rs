//! Answers of any length: made by a thread of a pool, sent as the client takes them.
//!
//! A few chunks wait at most. A client that is gone ends the work, one that stands still ends it
//! after a while.

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures::stream;
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

use super::Problem;
use crate::pool::Pool;

/// Chunks that wait for the client.
const WAITING_MAX: usize = 4;
/// A chunk is sent when it has grown to this.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long is given up.
const TAKE_WITHIN: Duration = Duration::from_secs(60);

/// Where a job puts what it makes.
pub(super) struct Outlet {
    chunks: mpsc::Sender<Result<Bytes, Problem>>,
    runtime: Handle,
}

/// Nobody takes any more.
pub(super) struct Gone;

impl Outlet {
    /// Hands over what `chunk` holds; it is empty afterwards. Waits while the client is slow.
    pub(super) fn send(&self, chunk: &mut Vec<u8>) -> Result<(), Gone> {
        let bytes = Bytes::from(std::mem::take(chunk));
        // The time-out is made inside the runtime: this thread has none of its own.
        let sent = self
            .runtime
            .block_on(async { timeout(TAKE_WITHIN, self.chunks.send(Ok(bytes))).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// The same, once the chunk is worth it.
    pub(super) fn send_full(&self, chunk: &mut Vec<u8>) -> Result<(), Gone> {
        if chunk.len() < CHUNK_BYTES {
            Ok(())
        } else {
            self.send(chunk)
        }
    }
}

/// Why a job ended early.
pub(super) enum Ended {
    Gone,
    Problem(Problem),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Problem> for Ended {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Answers with what `job` puts into its outlet. A problem before the first chunk is answered as
/// such; a later one breaks the body off, which the client sees as an incomplete answer.
pub(super) async fn answer(
    pool: &Pool,
    content_type: &'static str,
    job: impl FnOnce(&Outlet) -> Result<(), Ended> + Send + 'static,
) -> Result<Response, Problem> {
    let (chunks, mut made) = mpsc::channel(WAITING_MAX);
    let outlet = Outlet {
        chunks: chunks.clone(),
        runtime: Handle::current(),
    };
    let pool = pool.clone();
    tokio::spawn(async move {
        let problem = match pool.run(move || job(&outlet)).await {
            Ok(Ok(()) | Err(Ended::Gone)) => return,
            Ok(Err(Ended::Problem(problem))) => problem,
            Err(error) => error.into(),
        };
        // A client that is gone hears nothing.
        drop(chunks.send(Err(problem)).await);
    });
    let first = made.recv().await.transpose()?.unwrap_or_default();
    let rest = stream::unfold(made, async |mut made| {
        let chunk = made.recv().await?;
        Some((
            chunk.map_err(|_| io::Error::other("the answer is incomplete")),
            made,
        ))
    });
    let body = Body::from_stream(stream::StreamExt::chain(stream::iter([Ok(first)]), rest));
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}
