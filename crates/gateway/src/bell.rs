//! Wakes the thread of a topic: there is something to do, or it is to end.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A bell that many may ring and one listens to.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    has_news: bool,
    has_ended: bool,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.state.lock().has_news = true;
        self.rung.notify_one();
    }

    pub(crate) fn end(&self) {
        self.state.lock().has_ended = true;
        self.rung.notify_one();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().has_ended
    }

    /// Waits until it is rung, at most `patience`.
    pub(crate) fn wait(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        while !state.has_news
            && !state.has_ended
            && !self.rung.wait_until(&mut state, until).timed_out()
        {}
        state.has_news = false;
    }

    /// Waits for so long, whether it is rung or not, unless it ends.
    pub(crate) fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.has_ended && !self.rung.wait_until(&mut state, until).timed_out() {}
    }
}
