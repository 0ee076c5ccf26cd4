//! The one commit path: what is queued becomes a group, the group becomes durable, then readable,
//! then answered. Runs on its own thread and is the only writer of the journal.

use std::{collections::HashMap, sync::Arc};

use backtide_model::{Batch, ElementName, ProductKey, Storage};

use crate::{
    Commit, CommitError, Committed, Part, Sequence,
    journal::{self, AppendError, FrameBuilder, Writer},
    library::Library,
    queue::Submission,
    store::Shared,
};

pub(crate) struct Committer {
    shared: Arc<Shared>,
    writer: Writer,
    /// The next commit gets this one. Refused commits take none.
    next: Sequence,
    group: FrameBuilder,
    storages: Storages,
}

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        writer: Writer,
        last: Sequence,
        storages: Storages,
    ) -> Self {
        let next = Sequence(last.0 + 1);
        Self {
            shared,
            writer,
            next,
            group: FrameBuilder::default(),
            storages,
        }
    }

    /// Commits until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _abandon = AbandonOnPanic(&shared);
        while let Some(submissions) = shared.queue.take(shared.options.group_bytes_max) {
            self.commit_all(submissions);
        }
    }

    fn commit_all(&mut self, submissions: Vec<Submission>) {
        let mut commits = Vec::new();
        let mut callers = Vec::with_capacity(submissions.len());
        for Submission {
            commits: its, done, ..
        } in submissions
        {
            callers.push((its.len(), done));
            commits.extend(its);
        }
        let before = self.next;
        let mut results = self.commit(commits).into_iter();
        for (count, done) in callers {
            done(results.by_ref().take(count).collect());
        }
        if self.next > before {
            self.shared.watchers.tell(Sequence(self.next.0 - 1));
        }
    }

    /// One result for each commit, in order. An `Ok` would survive power loss.
    fn commit(&mut self, commits: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        if let Err(error) = self.admit() {
            return vec![Err(error); commits.len()];
        }
        let (staged, mut results) = self.stage(commits);
        if self.group.is_empty() {
            return results;
        }
        let first = self.next;
        if let Err(error) = self.append(first) {
            self.storages.forget();
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(error.clone());
            }
            return results;
        }
        self.storages.keep();
        self.next = Sequence(first.0 + u64::from(self.group.count()));
        // Readable before it is answered: whoever has the answer finds the values.
        self.shared.library.note_refusals(first, &staged);
        for entry in self.shared.memtable.insert(first, staged) {
            self.shared.library.noted(&entry);
        }
        self.shared.set_durable(Sequence(self.next.0 - 1));
        results
    }

    /// Waits while the flusher is behind; says why nothing is taken now.
    fn admit(&self) -> Result<(), CommitError> {
        let health = &self.shared.health;
        self.shared
            .memtable
            .wait_for_room(|| health.is_poisoned() || health.flush_is_full());
        health.admit()
    }

    /// Encodes what can be committed.
    fn stage(
        &mut self,
        commits: Vec<Commit>,
    ) -> (Vec<Commit>, Vec<Result<Committed, CommitError>>) {
        let store_id = self.shared.library.store_id();
        self.group.clear();
        let mut staged = Vec::with_capacity(commits.len());
        let mut results = Vec::with_capacity(commits.len());
        for commit in commits {
            let sequence = Sequence(self.next.0 + u64::from(self.group.count()));
            let admitted = check_order(&commit, sequence)
                .and_then(|()| self.storages.admit(&self.shared.library, &commit));
            results.push(match admitted {
                Err(error) => Err(error),
                Ok(()) => {
                    self.group.push(&commit);
                    staged.push(commit);
                    Ok(Committed::new(store_id, sequence))
                }
            });
        }
        (staged, results)
    }

    fn append(&mut self, first: Sequence) -> Result<(), CommitError> {
        let health = &self.shared.health;
        match self.writer.append(&mut self.group, first) {
            Ok(()) => {
                health.set_journal_is_full(false);
                Ok(())
            }
            Err(AppendError::DiskFull) => {
                health.set_journal_is_full(true);
                Err(health.disk_full())
            }
            Err(error @ AppendError::Io { .. }) => Err(health.poison(&error.to_string())),
        }
    }
}

/// A re-driven commit takes the place of one that is there already: an order ahead of the log would
/// win over commits still to come.
fn check_order(commit: &Commit, sequence: Sequence) -> Result<(), CommitError> {
    let reason = "a re-driven commit takes the order of an earlier one";
    match commit.redrive {
        Some(redrive) if redrive.order >= sequence => Err(CommitError::Malformed { reason }),
        Some(_) | None => Ok(()),
    }
}

/// What each point of each product is stored as: it never changes.
#[derive(Default)]
pub(crate) struct Storages {
    known: HashMap<ProductKey, HashMap<ElementName, Storage>>,
    /// Added for commits that are not durable yet.
    fresh: Vec<(ProductKey, ElementName)>,
}

impl Storages {
    /// Takes a durable commit into account.
    pub(crate) fn learn(&mut self, commit: &Commit) {
        for part in &commit.parts {
            let Part::Points(batch) = part else { continue };
            let known = self.known.entry(commit.product.clone()).or_default();
            for column in &batch.columns {
                known.insert(column.point.clone(), column.values.storage());
            }
        }
    }

    fn admit(&mut self, library: &Library, commit: &Commit) -> Result<(), CommitError> {
        let before = self.fresh.len();
        let admitted = commit.parts.iter().try_for_each(|part| match part {
            Part::Points(batch) => self.admit_batch(library, &commit.product, batch),
            Part::Events(_) | Part::Attributes(_) | Part::Refused(_) => Ok(()),
        });
        if admitted.is_err() {
            self.forget_from(before);
        }
        admitted
    }

    fn admit_batch(
        &mut self,
        library: &Library,
        product: &ProductKey,
        batch: &Batch,
    ) -> Result<(), CommitError> {
        journal::check_batch(batch).map_err(|reason| CommitError::Malformed { reason })?;
        if !self.known.contains_key(product) {
            self.known.insert(product.clone(), HashMap::new());
        }
        let known = self.known.get_mut(product).expect("inserted when absent");
        for column in &batch.columns {
            let given = column.values.storage();
            let stored = match known.get(&column.point) {
                Some(stored) => *stored,
                None => {
                    let stored = library.storage_of(product, &column.point);
                    if stored.is_none() {
                        self.fresh.push((product.clone(), column.point.clone()));
                    }
                    let stored = stored.unwrap_or(given);
                    known.insert(column.point.clone(), stored);
                    stored
                }
            };
            if stored != given {
                let point = Box::from(column.point.as_str());
                let product = product.clone();
                return Err(CommitError::StorageChanged {
                    product,
                    point,
                    stored,
                    given,
                });
            }
        }
        Ok(())
    }

    /// The commits are durable.
    fn keep(&mut self) {
        self.fresh.clear();
    }

    /// The commits are not made.
    fn forget(&mut self) {
        self.forget_from(0);
    }

    fn forget_from(&mut self, at: usize) {
        for (product, point) in self.fresh.drain(at..) {
            if let Some(known) = self.known.get_mut(&product) {
                known.remove(&point);
            }
        }
    }
}

/// A panic on this thread must not leave callers waiting for ever.
struct AbandonOnPanic<'a>(&'a Shared);

impl Drop for AbandonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.health.poison("the committer panicked");
            self.0.queue.abandon();
        }
    }
}
