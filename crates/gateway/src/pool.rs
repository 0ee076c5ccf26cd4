//! A named pool of threads for work that blocks: registry writes, reads of the store.
//!
//! Bounded twice: so many jobs run, so many wait. Beyond that [`Pool::run`] refuses at once, so
//! that a flood of slow requests costs a bounded amount of memory and its senders hear of it.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::author::Author;

type Job = Box<dyn FnOnce() + Send>;

/// Why a job has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("too many requests wait for a thread; try again later")]
    Full,
    #[error("the work ended in a bug; the log has its place")]
    Panicked,
}

/// Runs blocking work; clones share the threads. They end when the last clone is gone.
#[derive(Clone)]
pub struct Pool {
    jobs: SyncSender<Job>,
}

impl Pool {
    /// Starts `threads` threads; `waiting_max` jobs may wait for one.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(name: &str, threads: usize, waiting_max: usize) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(waiting_max);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs `job` on a thread of the pool. Dropping the future does not stop it.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (done, result) = oneshot::channel();
        let author = Author::current();
        let job = Box::new(move || {
            let work = AssertUnwindSafe(|| author.asks_blocking(job));
            // Nobody waits any more: the work is done all the same.
            drop(done.send(catch_unwind(work)));
        });
        self.jobs.try_send(job).map_err(|_| PoolError::Full)?;
        let outcome: Result<T, Box<dyn Any + Send>> =
            result.await.expect("a worker answers every job it takes");
        outcome.map_err(|_| PoolError::Panicked)
    }
}

impl Pool {
    /// Runs `job` on a thread of the pool; nobody waits for it.
    ///
    /// # Errors
    /// [`PoolError::Full`]: `job` is dropped here.
    pub fn leave(&self, job: impl FnOnce() + Send + 'static) -> Result<(), PoolError> {
        let job = Box::new(move || {
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("work that nobody waits for ended in a bug");
            }
        });
        self.jobs.try_send(job).map_err(|_| PoolError::Full)
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while waiting: the others wait for the lock instead of a job.
        let job = queue.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_pool_refuses_and_works_on_once_it_drains() {
        let pool = Pool::start("test", 1, 1).unwrap();
        let (release, held) = sync_channel::<()>(0);
        let (started, is_started) = oneshot::channel();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    started.send(()).unwrap();
                    held.recv().unwrap();
                })
                .await
            }
        });
        is_started.await.unwrap();
        let mut waiting = std::pin::pin!(pool.run(|| 2));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(pool.run(|| 3).await, Err(PoolError::Full));
        release.send(()).unwrap();
        assert_eq!(waiting.await, Ok(2));
        assert_eq!(running.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_request_only() {
        let pool = Pool::start("test", 1, 1).unwrap();
        assert_eq!(
            pool.run(|| panic!("broken")).await,
            Err::<(), _>(PoolError::Panicked)
        );
        assert_eq!(pool.run(|| 1).await, Ok(1));
    }
}
