//! The one way to the store from the async side: a burst at a time.

use backtide_store::{Commit, CommitError, Committed, Store};
use tokio::sync::oneshot;

/// Commits on their way to the disk. Dropping it takes nothing back: what was submitted will be
/// committed.
pub struct Submitted(oneshot::Receiver<Vec<Result<Committed, CommitError>>>);

/// Hands `commits` to the store at once.
///
/// # Errors
/// The store takes no submission: its queue is full, or it is closing.
pub fn submit(store: &Store, commits: Vec<Commit>) -> Result<Submitted, CommitError> {
    let (done, outcome) = oneshot::channel();
    let done = move |results| {
        // An error means that nobody waits any more; the commits stand all the same.
        drop(done.send(results));
    };
    store.submit(commits, Box::new(done))?;
    Ok(Submitted(outcome))
}

impl Submitted {
    /// Resolves when each commit is durable or refused: one result for each, in order.
    ///
    /// # Errors
    /// The store closed before.
    pub async fn results(self) -> Result<Vec<Result<Committed, CommitError>>, CommitError> {
        self.0.await.map_err(|_| CommitError::Closing)
    }
}
