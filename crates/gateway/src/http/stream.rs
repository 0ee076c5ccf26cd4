//! Answers of any length: made by a thread of a pool, sent as the client takes them.
//!
//! A few chunks wait at most. A client that is gone ends the work, one that stands still ends it
//! after a while. An answer that is not whole never ends as if it were: its body breaks off.
//!
//! Whoever asks for trailers (`TE: trailers`) is told at the end how long the work took: it goes on
//! while the answer is under way, so that no header could say so.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TrySendError},
    time::timeout,
};

use super::Problem;
use crate::pool::{Pool, PoolError};

/// Chunks that wait for the client.
pub(super) const WAITING_MAX: usize = 4;
/// A chunk is sent when it has grown to this.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long is given up.
const TAKE_WITHIN: Duration = Duration::from_secs(60);

pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Why an answer is not whole.
pub(super) enum Broken<P> {
    Problem(P),
    /// The client took nothing for too long.
    Stalled,
}

pub(super) type Made<P> = Result<Frame<Bytes>, Broken<P>>;

/// Where a job puts what it makes. `P` is how its door puts what goes wrong.
pub(super) struct Outlet<P = Problem> {
    chunks: mpsc::Sender<Made<P>>,
    runtime: Handle,
    /// How long the job stood still because the client did.
    waited: Cell<Duration>,
}

/// How long an answer took to make: from the request to the last row written, waiting for the
/// client left out. Noted as a metric too.
pub(super) fn timing(began: Instant, waited: Duration, format: &'static str) -> HeaderValue {
    let worked = began.elapsed().saturating_sub(waited);
    metrics::histogram!("backtide_query_seconds", "format" => format).record(worked);
    let (work, client) = (1e3 * worked.as_secs_f64(), 1e3 * waited.as_secs_f64());
    HeaderValue::from_str(&format!("work;dur={work:.1}, client;dur={client:.1}"))
        .expect("numbers are visible ASCII")
}

/// Nobody takes any more.
pub(super) struct Gone;

/// Hands over what was made. Waits while the client is slow, but not for ever.
pub(super) async fn give<P>(chunks: &mpsc::Sender<Made<P>>, made: Made<P>) -> Result<(), Gone> {
    match timeout(TAKE_WITHIN, chunks.send(made)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

impl<P> Outlet<P> {
    /// Hands over what `chunk` holds; it is empty afterwards. Waits while the client is slow.
    pub(super) fn send(&self, chunk: &mut Vec<u8>) -> Result<(), Gone> {
        let frame = Frame::data(Bytes::from(std::mem::take(chunk)));
        let frame = match self.chunks.try_send(Ok(frame)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Gone),
            Err(TrySendError::Full(frame)) => frame,
        };
        let began = Instant::now();
        // The time-out is made inside the runtime: this thread has none of its own.
        let sent = self.runtime.block_on(give(&self.chunks, frame));
        self.waited.set(self.waited.get() + began.elapsed());
        sent
    }

    /// Nobody will take what is sent.
    pub(super) fn is_gone(&self) -> bool {
        self.chunks.is_closed()
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
pub(super) enum Ended<P = Problem> {
    Gone,
    /// The answer has all the rows it may have.
    Full,
    Problem(P),
}

impl<P> From<Gone> for Ended<P> {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl<P> Ended<P> {
    /// What the client is to see of it; `None`: the answer is whole.
    pub(super) fn broken(self) -> Option<Broken<P>> {
        match self {
            Self::Gone => Some(Broken::Stalled),
            Self::Full => None,
            Self::Problem(problem) => Some(Broken::Problem(problem)),
        }
    }
}

impl From<Problem> for Ended {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Answers with what `job` puts into its outlet. A problem before the first chunk is answered as
/// such; a later one breaks the body off, which the client sees as an incomplete answer.
pub(super) async fn answer<P: From<PoolError> + Send + 'static>(
    pool: &Pool,
    content_type: &'static str,
    format: &'static str,
    job: impl FnOnce(&Outlet<P>) -> Result<(), Ended<P>> + Send + 'static,
) -> Result<Response, P> {
    let began = Instant::now();
    let (chunks, made) = mpsc::channel(WAITING_MAX);
    let outlet = Outlet {
        chunks: chunks.clone(),
        runtime: Handle::current(),
        waited: Cell::default(),
    };
    let pool = pool.clone();
    tokio::spawn(async move {
        let run = move || {
            job(&outlet)?;
            let timing = timing(began, outlet.waited.get(), format);
            Ok::<_, Ended<P>>(HeaderMap::from_iter([(SERVER_TIMING, timing)]))
        };
        let last = match pool.run(run).await {
            Ok(Ok(trailers)) => Ok(Frame::trailers(trailers)),
            Ok(Err(ended)) => match ended.broken() {
                Some(broken) => Err(broken),
                None => return,
            },
            Err(error) => Err(Broken::Problem(error.into())),
        };
        // A client that is gone hears nothing; one that stood still does, whenever it goes on.
        drop(chunks.send(last).await);
    });
    let body = body(made).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::TRAILER, HeaderValue::from(SERVER_TIMING)),
    ];
    Ok((headers, body).into_response())
}

/// What is made, as it is made. A problem before the first chunk is given back; later, what is not whole
/// breaks off.
pub(super) async fn body<P: Send + 'static>(mut made: mpsc::Receiver<Made<P>>) -> Result<Body, P> {
    let first = match made.recv().await {
        Some(Err(Broken::Problem(problem))) => return Err(problem),
        first => first,
    };
    let rest = stream::unfold(made, async |mut made| Some((made.recv().await?, made)));
    let frames = stream::iter(first).chain(rest);
    let frames = frames.map(|made| made.map_err(|_| io::Error::other("the answer is incomplete")));
    Ok(Body::new(StreamBody::new(frames)))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_whose_client_stands_still_does_not_end_as_if_it_were_whole() {
        let pool = Pool::start("answers", 1, 1).unwrap();
        let (ended, has_ended) = oneshot::channel();
        let job = move |outlet: &Outlet| {
            while outlet.send(&mut b"row\n".to_vec()).is_ok() {}
            ended.send(()).unwrap();
            Err(Ended::Gone)
        };
        let Ok(response) = answer(&pool, "text/csv", "csv", job).await else {
            panic!("there are rows");
        };
        // Nobody takes anything until the work has ended.
        has_ended.await.unwrap();
        let mut body = response.into_body();
        let mut rows = 0;
        let end = loop {
            match body.frame().await {
                Some(Ok(_)) => rows += 1,
                end => break end,
            }
        };
        assert!(rows > WAITING_MAX, "what was made is sent");
        assert!(matches!(end, Some(Err(_))), "and that more was to come");
    }
}
