//! Callbacks for news in the committed log: followers wait without polling.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use crate::Sequence;

type Tell = Box<dyn Fn(Sequence) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Watchers {
    all: Arc<RwLock<Vec<Arc<Tell>>>>,
}

/// Keeps a callback registered; dropping it takes the callback away.
#[must_use = "dropping it takes the callback away"]
pub struct Watch {
    tell: Arc<Tell>,
    all: Weak<RwLock<Vec<Arc<Tell>>>>,
}

impl Watchers {
    pub(crate) fn add(&self, tell: Tell) -> Watch {
        let tell = Arc::new(tell);
        self.all.write().push(Arc::clone(&tell));
        Watch {
            tell,
            all: Arc::downgrade(&self.all),
        }
    }

    pub(crate) fn tell(&self, durable: Sequence) {
        // Called outside the lock: a callback may drop its own watch.
        let all = self.all.read().clone();
        for tell in all {
            tell(durable);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(all) = self.all.upgrade() {
            all.write().retain(|tell| !Arc::ptr_eq(tell, &self.tell));
        }
    }
}
