//! The one way to the store from the async side: a burst at a time.

use backtide_store::{Commit, CommitError, Committed, Store};
use tokio::sync::oneshot;

/// Submits `commits` at once; the future resolves when each is durable or refused.
///
/// Dropping the future takes nothing back: what was submitted will be committed.
///
/// # Errors
/// The store takes no submission: its queue is full, or it is closing.
pub fn submit(
    store: &Store,
    commits: Vec<Commit>,
) -> Result<
    impl Future<Output = Result<Vec<Result<Committed, CommitError>>, CommitError>>,
    CommitError,
> {
    let (done, outcome) = oneshot::channel();
    let done = move |results| {
        // An error means that nobody waits any more; the commits stand all the same.
        drop(done.send(results));
    };
    store.submit(commits, Box::new(done))?;
    Ok(async { outcome.await.map_err(|_| CommitError::Closing) })
}
