//! How much one caller may have open at a time.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Seats by caller; clones share them.
#[derive(Debug, Clone)]
pub struct Seats {
    all_max: usize,
    per_caller_max: usize,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

/// The right to one of what is counted; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    caller: String,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

impl Seats {
    pub fn new(all_max: usize, per_caller_max: usize) -> Self {
        Self {
            all_max,
            per_caller_max,
            open: Arc::default(),
        }
    }

    /// # Errors
    /// No more fits; how many the caller has.
    pub fn take(&self, caller: &str) -> Result<Seat, usize> {
        let mut open = self.open.lock();
        let own = open.get(caller).copied().unwrap_or(0);
        if own >= self.per_caller_max || open.values().sum::<usize>() >= self.all_max {
            return Err(own);
        }
        open.insert(caller.to_owned(), own + 1);
        Ok(Seat {
            caller: caller.to_owned(),
            open: Arc::clone(&self.open),
        })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.open.lock().values().sum()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(own) = open.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_seats_and_all_have_so_many_together() {
        let seats = Seats::new(3, 2);
        let (first, _second) = (seats.take("a").unwrap(), seats.take("a").unwrap());
        assert_eq!(seats.take("a").unwrap_err(), 2);
        let _third = seats.take("b").unwrap();
        assert_eq!(seats.take("c").unwrap_err(), 0);
        drop(first);
        assert!(seats.take("a").is_ok());
        assert_eq!(seats.taken(), 2);
    }
}
