//! Submissions on their way to the committer: bounded in number and in bytes.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::{Commit, CommitError, Done};

/// One submission may weigh this much: a group is never much larger.
pub(crate) const SUBMISSION_BYTES_MAX: usize = 32 << 20;

/// Commits of one caller, and what to call with their results.
pub(crate) struct Submission {
    pub(crate) commits: Vec<Commit>,
    pub(crate) done: Done,
    bytes: usize,
}

impl Submission {
    pub(crate) fn new(commits: Vec<Commit>, done: Done) -> Result<Self, CommitError> {
        let bytes = commits.iter().map(Commit::weight_bytes).sum();
        let bytes_max = SUBMISSION_BYTES_MAX;
        if bytes > bytes_max {
            return Err(CommitError::TooLarge { bytes, bytes_max });
        }
        Ok(Self {
            commits,
            done,
            bytes,
        })
    }
}

pub(crate) struct Queue {
    submissions_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Submission>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(submissions_max: usize, bytes_max: usize) -> Self {
        Self {
            submissions_max,
            bytes_max,
            state: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, submission: Submission) -> Result<(), CommitError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(CommitError::Closing);
        }
        // The first is always taken, whatever the bounds.
        let full = state.waiting.len() >= self.submissions_max
            || state.bytes + submission.bytes > self.bytes_max;
        if full && !state.waiting.is_empty() {
            return Err(CommitError::QueueFull);
        }
        state.bytes += submission.bytes;
        state.waiting.push_back(submission);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for submissions, then takes what is there up to about `bytes_max`, at least one.
    /// Nothing is waited for beyond the first: while one group is written the next one gathers.
    /// `None`: closed, and everything was taken.
    pub(crate) fn take(&self, bytes_max: usize) -> Option<Vec<Submission>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            self.arrived.wait(&mut state);
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(submission) = state.waiting.pop_front() {
            if !taken.is_empty() && bytes + submission.bytes > bytes_max {
                state.waiting.push_front(submission);
                break;
            }
            bytes += submission.bytes;
            state.bytes -= submission.bytes;
            taken.push(submission);
        }
        Some(taken)
    }

    /// No further submissions; those waiting are still taken.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Closes, and drops those waiting: their `done` is never called.
    pub(crate) fn abandon(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Submissions waiting.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }
}
