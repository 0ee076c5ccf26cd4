//! Which days are touched: the committed log is looked through as it grows, so that a run knows what
//! it has to write without reading all of history, and the log is not held from run to run.

use std::collections::HashMap;

use backtide_model::ProductKey;
use backtide_store::{
    EventRange, FollowError, Followed, Order, Part, PartKind, Range, Sequence, Store, Wanted,
};

use super::{
    ArchiveError, Archives, CURSOR, DAY_MS, WHOLE, records,
    shelf::{Shelf, Touched},
};
use crate::{limits::ARCHIVE_STRIDE_BYTES, registry::ArchiveOf};

/// Days that are noted at once while a product is swept.
const SWEPT_AT_ONCE: usize = 200;

/// What touched a day of a product.
type Days = HashMap<(String, i64), Touch>;

#[derive(Clone, Copy)]
struct Touch {
    /// The last commit.
    sequence: u64,
    /// The first place that a commit took which drives again.
    lowest: Option<u64>,
}

fn touch(days: &mut Days, of: ArchiveOf, part: &Part, followed: &Followed) {
    let product = &followed.commit.product;
    let sequence = followed.sequence.0;
    let order = followed.commit.redrive.map(|redrive| redrive.order.0);
    let mut touch = |day: i64| {
        let first = Touch {
            sequence,
            lowest: None,
        };
        let touch = days.entry((product.to_string(), day)).or_insert(first);
        touch.sequence = sequence;
        touch.lowest = touch.lowest.into_iter().chain(order).min();
    };
    match (of, part) {
        (ArchiveOf::Points, Part::Points(batch)) => {
            batch
                .row_time
                .iter()
                .for_each(|time_ms| touch(time_ms.div_euclid(DAY_MS)));
        }
        (ArchiveOf::Events, Part::Events(events)) => {
            events
                .iter()
                .for_each(|event| touch(event.time_ms.div_euclid(DAY_MS)));
        }
        (ArchiveOf::Attributes, Part::Attributes(values)) if !values.is_empty() => touch(WHOLE),
        _ => {}
    }
}

fn listed(days: Days) -> Vec<Touched> {
    let touched = |((product, day), touch): (_, Touch)| Touched {
        product,
        day,
        sequence: touch.sequence,
        lowest: touch.lowest,
    };
    days.into_iter().map(touched).collect()
}

/// Begins again where the store is older than what was noted: it was put back from a backup.
pub(super) fn agree(shelf: &mut Shelf, store: &Store) -> Result<(), ArchiveError> {
    let durable = store.durable();
    let Some(ahead) = shelf.agree_with(durable.0)? else {
        return Ok(());
    };
    if shelf.place()?.is_some() {
        store.set_cursor(CURSOR, durable)?;
    }
    tracing::error!(
        store = durable.0,
        archives_at = ahead.noted,
        days = ahead.days,
        "the store is older than its archives: every day is looked at again; files of days that were \
         written since stay, and what the store has of them goes into further parts"
    );
    Ok(())
}

impl Archives {
    /// Looks through the log up to its end. Blocks.
    ///
    /// # Errors
    /// The log or the file cannot be read or written.
    pub(super) fn catch_up(&self) -> Result<(), ArchiveError> {
        // One at a time: a run asks too.
        let _turn = self.following.lock();
        loop {
            let place = self.shelf.lock().place()?;
            let Some(place) = place else {
                return self.begin();
            };
            let mut reached = None;
            let mut touched = Vec::new();
            for of in self.kinds() {
                let mut days = HashMap::new();
                match self.follow(of, place, reached, &mut days) {
                    Ok(until) => reached = Some(until),
                    // It was let go, or a backup was put back: every day may be another.
                    Err(FollowError::Trimmed { .. }) => return self.begin(),
                    Err(error) => return Err(ArchiveError::Log(error.to_string())),
                }
                touched.push((of, listed(days)));
            }
            let Some(reached) = reached.filter(|reached| *reached > place) else {
                return Ok(());
            };
            self.shelf.lock().followed(&touched, reached)?;
            self.store.set_cursor(CURSOR, Sequence(reached))?;
        }
    }

    /// What the archives that are declared are of.
    fn kinds(&self) -> Vec<ArchiveOf> {
        let snapshot = self.registry.snapshot();
        let is_wanted = |of: &ArchiveOf| {
            let mut archives = snapshot.archives_after(None);
            archives.any(|archive| archive.file.of == *of)
        };
        ArchiveOf::ALL.into_iter().filter(is_wanted).collect()
    }

    /// Looks for the days of a kind that commits behind `place` touch: a stride of them, or those up to
    /// `until`. Says up to where it came.
    fn follow(
        &self,
        of: ArchiveOf,
        place: u64,
        until: Option<u64>,
        days: &mut Days,
    ) -> Result<u64, FollowError> {
        let wanted = Wanted {
            kind: match of {
                ArchiveOf::Points => PartKind::Points,
                ArchiveOf::Events => PartKind::Events,
                ArchiveOf::Attributes => PartKind::Attributes,
            },
            topic_begins: "",
        };
        let mut at = place;
        loop {
            let some = self
                .store
                .follow_wanted(Sequence(at), ARCHIVE_STRIDE_BYTES, wanted)?;
            for followed in &some.commits {
                // What lies behind is looked at with its own stride, for all kinds.
                if until.is_some_and(|until| followed.sequence.0 > until) {
                    break;
                }
                for part in &followed.commit.parts {
                    touch(days, of, part, followed);
                }
            }
            let is_stuck = some.reached.0 <= at;
            at = some.reached.0;
            match until {
                None => return Ok(at),
                Some(until) if at >= until || is_stuck => return Ok(until),
                Some(_) => {}
            }
        }
    }

    /// Begins to follow at the end of the log.
    fn begin(&self) -> Result<(), ArchiveError> {
        let durable = self.store.durable();
        self.store.set_cursor(CURSOR, durable)?;
        self.shelf.lock().begin_at(durable.0)
    }

    /// Notes every day that a product has, once: what was there before the log was followed. Blocks.
    pub(super) fn sweep(&self, of: ArchiveOf, product: &ProductKey) -> Result<(), ArchiveError> {
        if self.shelf.lock().is_swept(of, product.as_str())? {
            return Ok(());
        }
        loop {
            let forgotten = self.shelf.lock().forgotten(of);
            self.note_all(of, product)?;
            // An archive may go and another come meanwhile: what was noted for the first is forgotten then.
            let shelf = self.shelf.lock();
            if shelf.set_swept(of, product.as_str(), forgotten)? {
                return Ok(());
            }
            drop(shelf);
            if !self.kinds().contains(&of) {
                return Ok(());
            }
        }
    }

    fn note_all(&self, of: ArchiveOf, product: &ProductKey) -> Result<(), ArchiveError> {
        // What comes behind it is noted as the log is followed.
        let place = self.shelf.lock().place()?;
        let sequence = place.unwrap_or_else(|| self.store.durable().0);
        let (mut days, mut from_ms) = (Vec::new(), i64::MIN);
        loop {
            self.check()?;
            let next = self.first_day(of, product, from_ms)?;
            if let Some(day) = next {
                days.push(Touched {
                    product: product.to_string(),
                    day,
                    sequence,
                    // Nobody looked at what touched it.
                    lowest: Some(0),
                });
                from_ms = day.saturating_add(1).saturating_mul(DAY_MS);
            }
            let is_last = next.is_none_or(|day| day == WHOLE);
            if days.len() >= SWEPT_AT_ONCE || is_last {
                self.shelf.lock().touch(of, &days)?;
                days.clear();
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The first day of a product that has something from a moment on.
    fn first_day(
        &self,
        of: ArchiveOf,
        product: &ProductKey,
        from_ms: i64,
    ) -> Result<Option<i64>, ArchiveError> {
        match of {
            ArchiveOf::Points => {
                let range = Range {
                    product: product.clone(),
                    devices: Vec::new(),
                    points: Vec::new(),
                    from_ms,
                    to_ms: i64::MAX,
                    order: Order::TimeDevice,
                    after: None,
                    rows_max: 1,
                };
                let next = self.store.read(&range)?.next().transpose()?;
                let next = next.filter(|slab| slab.num_rows() > 0);
                let time_ms = next
                    .map(|slab| super::sheet::first_time(&slab))
                    .transpose()?;
                Ok(time_ms.map(|time_ms| time_ms.div_euclid(DAY_MS)))
            }
            ArchiveOf::Events => {
                let range = EventRange {
                    product: product.clone(),
                    devices: Vec::new(),
                    events: Vec::new(),
                    from_ms,
                    to_ms: i64::MAX,
                    after: None,
                    rows_max: 1,
                };
                let next = self.store.events(&range)?.next().transpose()?;
                let first = next.and_then(|slab| Some(slab.first()?.place.time_ms));
                Ok(first.map(|time_ms| time_ms.div_euclid(DAY_MS)))
            }
            ArchiveOf::Attributes => {
                let mut slabs = records::attributes(&self.store, product)?;
                let next =
                    slabs.find(|slab| slab.as_ref().map_or(true, |slab| slab.num_rows() > 0));
                Ok(next.transpose()?.map(|_| WHOLE))
            }
        }
    }
}
