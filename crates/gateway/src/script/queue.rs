//! Slices of calls that wait for a worker. Each script has its turn, whatever others have queued.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Call, Detail, Done, Program};

/// Calls of one program that are run in one exchange.
pub(super) struct Slice {
    pub(super) program: Arc<Program>,
    pub(super) calls: Vec<Call>,
    pub(super) detail: Detail,
    /// Takes as many outcomes as there are calls.
    pub(super) done: oneshot::Sender<Vec<Done>>,
    /// Room in the queue, for as long as they wait.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Bounded by the permits that every slice holds.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Programs with waiting slices, in the order of their turns.
    turns: VecDeque<u64>,
    slices: HashMap<u64, VecDeque<Slice>>,
    is_closed: bool,
}

impl Queue {
    /// Puts a slice at the end of its program's line. A closed queue drops it: its sender then
    /// hears that nothing will come.
    pub(super) fn push(&self, slice: Slice) {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed {
            return;
        }
        let id = slice.program.id;
        let line = waiting.slices.entry(id).or_default();
        line.push_back(slice);
        if line.len() == 1 {
            waiting.turns.push_back(id);
        }
        self.arrived.notify_one();
    }

    /// The next slice; waits for one. `None` once the queue is closed.
    pub(super) fn pop(&self) -> Option<Slice> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.is_closed {
                return None;
            }
            if let Some(slice) = waiting.next() {
                return Some(slice);
            }
            self.arrived.wait(&mut waiting);
        }
    }

    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.is_closed = true;
        waiting.turns.clear();
        waiting.slices.clear();
        self.arrived.notify_all();
    }
}

impl Waiting {
    fn next(&mut self) -> Option<Slice> {
        let id = self.turns.pop_front()?;
        let line = self.slices.get_mut(&id)?;
        let slice = line.pop_front();
        if line.is_empty() {
            self.slices.remove(&id);
        } else {
            self.turns.push_back(id);
        }
        slice
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Dialect, Operation};
    use super::*;

    fn program(name: &str) -> Arc<Program> {
        let dialect = (Dialect::default(), None);
        let program = Program::new(name, None, "x".into(), dialect, false);
        Arc::new(program.unwrap())
    }

    fn slice(program: &Arc<Program>, input: &'static [u8]) -> Slice {
        Slice {
            program: Arc::clone(program),
            calls: vec![Call {
                operation: Operation::Decode,
                input: Bytes::from_static(input),
                time_ms: 0,
            }],
            detail: Detail::Outcome,
            done: oneshot::channel().0,
            permit: Arc::clone(&program.room).try_acquire_owned().unwrap(),
        }
    }

    #[test]
    fn every_script_has_its_turn_and_keeps_its_own_order() {
        let queue = Queue::default();
        let (flood, other) = (program("flood"), program("other"));
        for input in [&b"1"[..], b"2", b"3"] {
            queue.push(slice(&flood, input));
        }
        queue.push(slice(&other, b"a"));
        let order: Vec<_> = (0..4)
            .map(|_| queue.pop().unwrap().calls.remove(0).input)
            .collect();
        assert_eq!(order, ["1", "a", "2", "3"]);
    }

    #[test]
    fn a_closed_queue_ends_who_waits_and_takes_no_more() {
        let queue = Arc::new(Queue::default());
        let waiting = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.pop().is_none()
        });
        queue.close();
        assert!(waiting.join().unwrap());
        queue.push(slice(&program("late"), b""));
        assert!(queue.pop().is_none());
    }
}
