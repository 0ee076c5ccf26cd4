//! The one way to the store from the async side: a burst at a time, and no more of them at once than
//! the store's queue holds. Who finds no room waits, and its client is not read meanwhile: a full
//! queue would close its connection instead.

use std::sync::Arc;

use backtide_store::{Commit, CommitError, Committed, Store};
use tokio::sync::{Semaphore, oneshot};

use crate::limits::{ON_THE_WAY_BYTES_MAX, SUBMISSION_BYTES_MIN};

/// The way to a store.
pub struct Way {
    store: Store,
    /// In units of `UNIT_BYTES`.
    room: Arc<Semaphore>,
}

const UNIT_BYTES: usize = 1 << 10;

/// Commits on their way to the disk. Dropping it takes nothing back: what was submitted will be
/// committed.
pub struct Submitted(oneshot::Receiver<Vec<Result<Committed, CommitError>>>);

impl Way {
    pub fn to(store: Store) -> Self {
        Self {
            store,
            room: Arc::new(Semaphore::new(ON_THE_WAY_BYTES_MAX / UNIT_BYTES)),
        }
    }

    /// Waits for room, in the order of coming, and hands `commits` over together. The room is free
    /// again when they are durable or refused, whoever still waits for that.
    ///
    /// # Errors
    /// The store takes no submission: it is poisoned or closing, or this one is too large.
    pub async fn submit(&self, commits: Vec<Commit>) -> Result<Submitted, CommitError> {
        let bytes: usize = commits.iter().map(Commit::weight_bytes).sum();
        let bytes = bytes.clamp(SUBMISSION_BYTES_MIN, ON_THE_WAY_BYTES_MAX);
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(units).await;
        let room = room.map_err(|_| CommitError::Closing)?;
        let (done, outcome) = oneshot::channel();
        let done = move |results| {
            drop(room);
            // An error means that nobody waits any more; the commits stand all the same.
            drop(done.send(results));
        };
        self.store.submit(commits, Box::new(done))?;
        Ok(Submitted(outcome))
    }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use backtide_model::{ChannelName, Code, ProductKey};
    use backtide_store::{Options, Origin, Part, Refused, disk::RealDisk};

    use super::*;

    fn refusal(bytes: usize) -> Commit {
        let refused = Refused {
            code: Code::Malformed,
            raw: vec![b' '; bytes].into(),
            payload_bytes: 1,
            payload_sha256: [0; 32],
            items: Vec::new(),
            more: 0,
        };
        Commit {
            origin: Origin {
                channel: ChannelName::new("history").unwrap(),
                client: "client".into(),
                topic: "topic".into(),
                message_id: "\"1\"".into(),
                packet_id: None,
                policies: None,
                arrived_ms: 1,
            },
            product: ProductKey::new("PK").unwrap(),
            parts: vec![Part::Refused(refused)],
            redrive: None,
        }
    }

    #[tokio::test]
    async fn what_the_queue_has_no_room_for_waits_and_is_committed_in_the_order_of_coming() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::default();
        let (bytes_max, submissions_max) = (options.queue_bytes_max, options.queue_submissions_max);
        let (store, _) = Store::open(dir.path(), Arc::new(RealDisk), options).unwrap();
        let (go, held) = mpsc::sync_channel(1);
        let stall = Box::new(move |_| held.recv().unwrap());
        store.submit(vec![refusal(1)], stall).unwrap();
        let way = Arc::new(Way::to(store.clone()));
        let room = way.room.available_permits();

        let large = vec![4 << 20; bytes_max / (4 << 20) + 2];
        let sizes = large.into_iter().chain(vec![1; submissions_max + 2]);
        let waiting: Vec<_> = sizes
            .map(|bytes| {
                let way = Arc::clone(&way);
                tokio::spawn(async move {
                    let submitted = way.submit(vec![refusal(bytes)]).await.unwrap();
                    submitted.results().await.unwrap()
                })
            })
            .collect();
        while way.room.available_permits() > 4 << 10 {
            tokio::task::yield_now().await;
        }
        assert!(waiting.iter().all(|task| !task.is_finished()));
        go.send(()).unwrap();
        let mut last = None;
        for task in waiting {
            let results = task.await.unwrap();
            let [Ok(committed)] = results.as_slice() else {
                unreachable!("{results:?}")
            };
            assert!(last < Some(committed.sequence()), "{last:?}");
            last = Some(committed.sequence());
        }
        assert_eq!(
            way.room.available_permits(),
            room,
            "all of it is free again"
        );
        store.close();
    }
}
