//! The one way to the store: from the async side, a burst at a time.

use backtide_store::{Commit, CommitError, Committed, Store};
use tokio::sync::oneshot;

/// Submits `commits` as one group and waits until each is durable or refused.
///
/// Dropping the future does not take the submission back: what was submitted will be committed.
pub async fn commit(
    store: &Store,
    commits: Vec<Commit>,
) -> Result<Vec<Result<Committed, CommitError>>, CommitError> {
    let (done, outcome) = oneshot::channel();
    store.submit(
        commits,
        Box::new(move |results| {
            // Nobody waits any more: the commits stand all the same.
            drop(done.send(results));
        }),
    )?;
    outcome.await.map_err(|_| CommitError::Closing)
}
