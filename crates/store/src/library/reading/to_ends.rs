//! Sources read to their ends, several at once.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use parking_lot::Mutex;

use crate::{
    ReadError,
    library::scan::{Slice, Slices},
};

/// Reads sources to their ends on as many threads as there are cores, in the memory that their slices
/// take.
pub(super) fn to_ends(sources: Vec<Slices>) -> Result<Vec<Slices>, ReadError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(sources.len());
    let places: Vec<Mutex<Place>> = sources
        .into_iter()
        .map(|source| Mutex::new(Place::Unread(source)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut place = place.lock();
            if let Place::Unread(source) = &mut *place {
                *place = Place::Read(source.collect());
            }
        }
    };
    thread::scope(|scope| {
        for number in 1..threads {
            // Without a thread the others do its work.
            let reader = thread::Builder::new().name(format!("read-{number}"));
            drop(reader.spawn_scoped(scope, work));
        }
        work();
    });
    let read = |place: Mutex<Place>| match place.into_inner() {
        Place::Read(slices) => Ok(Box::new(slices?.into_iter().map(Ok)) as Slices),
        Place::Unread(source) => Ok(source),
    };
    places.into_iter().map(read).collect()
}

enum Place {
    Unread(Slices),
    Read(Result<Vec<Slice>, ReadError>),
}
