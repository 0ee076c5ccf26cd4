//! A long read by device on several threads: groups of devices are read ahead of whoever takes the rows.
//!
//! Order: groups are begun in the order of their devices, and given in that order. A thread that is
//! ahead piles up a few slabs and then waits, and no more groups are under way than there are
//! threads and one. So memory does not grow with the read, and a reader that stops taking stops all.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    thread::{self, available_parallelism},
};

use arrow_array::RecordBatch;
use parking_lot::{Condvar, Mutex};

use super::{After, Query, by_device::ByDevice};
use crate::{
    Lead, ReadError, Slabs,
    library::{scan::SLICE_ROWS, write::PAGE_ROWS},
};

/// Bytes of values that a group has, about.
const GROUP_BYTES: usize = 8 << 20;
/// More threads than this gain little: whoever takes the rows is one.
const THREADS_MAX: usize = 8;
/// How often what is in memory may be looked through, in rows of it for each row of the read.
const PASSES_MAX: usize = 4;

type Taken = Result<RecordBatch, ReadError>;

/// The devices of a read by their ranks, in groups of about as many rows; one where the read is short.
pub(super) fn groups(query: &Query, after: Option<After>) -> Vec<Range<usize>> {
    let all = after.map_or(0, |after| after.rank)..query.devices.len();
    if query.lead == Lead::InStep {
        return vec![all];
    }
    let group_rows = group_rows(query);
    let stored: usize = query.segments.iter().map(|segment| segment.rows()).sum();
    let most = stored.min(query.range.rows_max);
    if most < 2 * group_rows || all.len() < 2 || threads() < 2 {
        return vec![all];
    }
    let rows = rows_of_devices(query);
    let in_memory: usize = query.entries.iter().map(|entry| entry.batch.rows()).sum();
    let total: usize = rows[all.clone()].iter().sum();
    // Each group looks through what is in memory.
    let groups_max = (PASSES_MAX * total / in_memory.max(1)).max(1);
    let group_rows = group_rows.max(total / groups_max);
    let mut groups = Vec::new();
    let (mut start, mut sum) = (all.start, 0);
    for rank in all.clone() {
        sum += rows[rank];
        if sum >= group_rows {
            groups.push(start..rank + 1);
            (start, sum) = (rank + 1, 0);
        }
    }
    if start < all.end || groups.is_empty() {
        groups.push(start..all.end);
    }
    groups
}

/// Rows that a group should have.
fn group_rows(query: &Query) -> usize {
    // Every read of the tests is put together from many groups.
    if cfg!(test) {
        return 1;
    }
    (GROUP_BYTES / 8 / (query.storages.len() + 3)).max(SLICE_ROWS)
}

/// How many rows of segments have to be decoded of each device, about: as if they were evenly spread, and
/// a page at least.
fn rows_of_devices(query: &Query) -> Vec<usize> {
    let (from_ms, last_ms) = (query.range.from_ms, query.range.to_ms - 1);
    let mut rows = vec![0; query.devices.len()];
    for segment in &query.segments {
        let mut rank = 0;
        for stretch in &segment.card.index.0 {
            while query
                .devices
                .get(rank)
                .is_some_and(|device| *device < stretch.device)
            {
                rank += 1;
            }
            let first_ms = stretch.first_ms.max(from_ms);
            let last_ms = stretch.last_ms.min(last_ms);
            if query.devices.get(rank) != Some(&stretch.device) || first_ms > last_ms {
                continue;
            }
            let length = u128::from(stretch.last_ms.abs_diff(stretch.first_ms)) + 1;
            let wanted = u128::from(last_ms.abs_diff(first_ms)) + 1;
            let part = stretch.rows.len() as u128 * wanted / length;
            let part = usize::try_from(part).unwrap_or(usize::MAX);
            rows[rank] += part.max(stretch.rows.len().min(PAGE_ROWS));
        }
    }
    rows
}

fn threads() -> usize {
    if cfg!(test) {
        return 2;
    }
    available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS_MAX)
}

/// Rows of groups of devices, read by threads of its own.
pub(super) struct Ahead {
    shared: Arc<Shared>,
    rows_left: usize,
}

struct Shared {
    query: Arc<Query>,
    after: Option<After>,
    groups: Vec<Range<usize>>,
    state: Mutex<State>,
    /// Something was piled up.
    piled: Condvar,
    /// Something was taken.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    /// Groups of which all was given.
    given: usize,
    /// Of the groups behind those, as far as they are begun.
    piles: VecDeque<Pile>,
    /// Nobody takes any more.
    is_over: bool,
}

#[derive(Default)]
struct Pile {
    slabs: VecDeque<Taken>,
    is_whole: bool,
}

impl Ahead {
    /// `None` where there are no threads to be had.
    pub(super) fn new(
        query: &Arc<Query>,
        after: Option<After>,
        groups: Vec<Range<usize>>,
    ) -> Option<Self> {
        let shared = Arc::new(Shared {
            query: Arc::clone(query),
            after,
            groups,
            state: Mutex::default(),
            piled: Condvar::new(),
            taken: Condvar::new(),
        });
        let mut is_read = false;
        for number in 0..threads().min(shared.groups.len()) {
            let of_thread = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("read-{number}"));
            is_read |= thread.spawn(move || of_thread.work()).is_ok();
        }
        is_read.then(|| Self {
            rows_left: query.range.rows_max,
            shared,
        })
    }
}

impl Iterator for Ahead {
    type Item = Taken;

    fn next(&mut self) -> Option<Taken> {
        if self.rows_left == 0 {
            return None;
        }
        let slab = self.shared.take()?;
        Some(match slab {
            Ok(slab) => {
                let rows = slab.num_rows().min(self.rows_left);
                self.rows_left -= rows;
                Ok(slab.slice(0, rows))
            }
            Err(error) => {
                self.rows_left = 0;
                Err(error)
            }
        })
    }
}

impl Slabs for Ahead {}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.state.lock().is_over = true;
        self.shared.taken.notify_all();
    }
}

impl Shared {
    /// The next slab in order; `None` behind the last.
    fn take(&self) -> Option<Taken> {
        let mut state = self.state.lock();
        while state.given < self.groups.len() {
            match state.piles.front_mut() {
                Some(pile) if !pile.slabs.is_empty() => {
                    let slab = pile.slabs.pop_front();
                    self.taken.notify_all();
                    return slab;
                }
                Some(pile) if pile.is_whole => {
                    state.piles.pop_front();
                    state.given += 1;
                    self.taken.notify_all();
                }
                Some(_) | None => self.piled.wait(&mut state),
            }
        }
        None
    }

    /// Reads groups for as long as there are some.
    fn work(&self) {
        while let Some(number) = self.begin() {
            let turn = Turn {
                shared: self,
                number,
                is_read: false,
            };
            turn.read();
        }
    }

    /// The number of the next group, once it may be begun.
    fn begin(&self) -> Option<usize> {
        let mut state = self.state.lock();
        loop {
            let number = state.given + state.piles.len();
            if state.is_over || number == self.groups.len() {
                return None;
            }
            if state.piles.len() <= threads() {
                state.piles.push_back(Pile::default());
                return Some(number);
            }
            self.taken.wait(&mut state);
        }
    }

    /// Puts a slab on the pile of a group, once there is room; whether more are wanted.
    fn pile(&self, number: usize, slab: Taken) -> bool {
        let mut state = self.state.lock();
        while !state.is_over && state.pile(number).slabs.len() >= self.slabs_max() {
            self.taken.wait(&mut state);
        }
        let is_wanted = !state.is_over && slab.is_ok();
        state.pile(number).slabs.push_back(slab);
        self.piled.notify_all();
        is_wanted
    }

    /// Slabs that a group has, if it has as many rows as it should.
    fn slabs_max(&self) -> usize {
        group_rows(&self.query).div_ceil(SLICE_ROWS)
    }
}

impl State {
    fn pile(&mut self, number: usize) -> &mut Pile {
        // Given only once it is whole.
        &mut self.piles[number - self.given]
    }
}

/// A group in hand. It ends as whole or with an error, whatever happens: else its taker would wait
/// for ever, or take the rest for all there is.
struct Turn<'s> {
    shared: &'s Shared,
    number: usize,
    is_read: bool,
}

impl Turn<'_> {
    fn read(mut self) {
        let Shared {
            query,
            after,
            groups,
            ..
        } = self.shared;
        match ByDevice::new(Arc::clone(query), *after, groups[self.number].clone()) {
            Ok(mut slabs) => {
                while slabs
                    .next()
                    .is_some_and(|slab| self.shared.pile(self.number, slab))
                {}
            }
            Err(error) => {
                self.shared.pile(self.number, Err(error));
            }
        }
        self.is_read = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let pile = state.pile(self.number);
        if !self.is_read {
            pile.slabs.push_back(Err(ReadError::Segment {
                file: "slab".into(),
                reason: "the thread that read it ended".into(),
            }));
        }
        pile.is_whole = true;
        self.shared.piled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use backtide_model::{BatchBuilder, Cell, ConflictPolicy, NO_QUALITY};

    use super::*;
    use crate::{
        View,
        library::tests::{World, device, everything, point},
    };

    /// Segments with some rows of some devices.
    fn world(devices: usize) -> World {
        let mut world = World::new();
        for time_ms in 0..3 {
            let mut batch = BatchBuilder::new();
            for number in 0..devices {
                batch.row(&device(&format!("d{number:03}")), time_ms);
                let cell = Cell::Long(time_ms);
                batch.cell(&point("p"), ConflictPolicy::KeepLast, cell, NO_QUALITY);
            }
            world.commit(batch.build());
            world.flush();
        }
        world
    }

    fn ahead(world: &World) -> Ahead {
        let keep = world.library.keep(&everything().product);
        let query = world
            .library
            .query(Vec::new(), &everything(), (&keep, View::Kept));
        let query = Arc::new(query);
        let groups = groups(&query, None);
        assert!(groups.len() > 20, "{groups:?}");
        Ahead::new(&query, None, groups).expect("threads are there")
    }

    #[test]
    fn no_more_is_read_ahead_than_piles_hold() {
        let world = world(40);
        let mut slabs = ahead(&world);
        let shared = Arc::clone(&slabs.shared);
        let is_full = |state: &State| {
            state.piles.len() >= threads() && state.piles.iter().all(|pile| !pile.slabs.is_empty())
        };
        let mut state = shared.state.lock();
        while !is_full(&state) {
            shared.piled.wait(&mut state);
        }
        assert_eq!(state.given, 0);
        assert!(state.piles.len() <= threads() + 1);
        assert!(
            state
                .piles
                .iter()
                .all(|pile| pile.slabs.len() <= shared.slabs_max())
        );
        drop(state);
        let rows: usize = slabs.by_ref().map(|slab| slab.unwrap().num_rows()).sum();
        assert_eq!(rows, 120);
    }

    #[test]
    fn threads_end_once_nobody_takes_any_more() {
        let world = world(40);
        let mut slabs = ahead(&world);
        assert!(slabs.next().is_some());
        let shared = Arc::downgrade(&slabs.shared);
        drop(slabs);
        // They hold what they read from for as long as they run.
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_group_that_is_not_read_to_its_end_is_an_error() {
        let world = world(40);
        let shared = Arc::new(Shared {
            query: Arc::clone(&ahead(&world).shared.query),
            after: None,
            groups: vec![0..1, 1..2],
            state: Mutex::default(),
            piled: Condvar::new(),
            taken: Condvar::new(),
        });
        let number = shared.begin().unwrap();
        drop(Turn {
            shared: &shared,
            number,
            is_read: false,
        });
        let mut slabs = Ahead {
            shared,
            rows_left: usize::MAX,
        };
        let error = slabs.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("ended"), "{error}");
        assert!(slabs.next().is_none());
    }
}
