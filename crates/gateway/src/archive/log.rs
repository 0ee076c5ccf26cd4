//! Which days are touched: the committed log is looked through as it grows, so that a run knows what
//! it has to write without reading all of history, and the log is not held from run to run.

use std::collections::HashMap;

use backtide_model::ProductKey;
use backtide_store::{FollowError, Order, Part, PartKind, Range, Sequence, Wanted};

use super::{ArchiveError, Archives, CURSOR, DAY_MS};
use crate::limits::ARCHIVE_STRIDE_BYTES;

/// Days that are noted at once while a product is swept.
const SWEPT_AT_ONCE: usize = 200;

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
            let wanted = Wanted {
                kind: PartKind::Points,
                topic_begins: "",
            };
            let some = match self
                .store
                .follow_wanted(Sequence(place), ARCHIVE_STRIDE_BYTES, wanted)
            {
                Ok(some) => some,
                // It was let go, or a backup was put back: every day may be another.
                Err(FollowError::Trimmed { .. }) => return self.begin(),
                Err(error) => return Err(ArchiveError::Log(error.to_string())),
            };
            if some.reached.0 <= place {
                return Ok(());
            }
            let mut days: HashMap<(String, i64), u64> = HashMap::new();
            for followed in &some.commits {
                let times = followed.commit.parts.iter().flat_map(|part| match part {
                    Part::Points(batch) => batch.row_time.as_slice(),
                    Part::Events(_) | Part::Attributes(_) | Part::Refused(_) => &[],
                });
                for time_ms in times {
                    let key = (
                        followed.commit.product.to_string(),
                        time_ms.div_euclid(DAY_MS),
                    );
                    days.insert(key, followed.sequence.0);
                }
            }
            let days: Vec<_> = days
                .into_iter()
                .map(|((product, day), sequence)| (product, day, sequence))
                .collect();
            self.shelf.lock().touch(&days, Some(some.reached.0))?;
            self.store.set_cursor(CURSOR, some.reached)?;
        }
    }

    /// Begins to follow at the end of the log.
    fn begin(&self) -> Result<(), ArchiveError> {
        let durable = self.store.durable();
        self.store.set_cursor(CURSOR, durable)?;
        self.shelf.lock().begin_at(durable.0)
    }

    /// Notes every day that a product has, once: what was there before the log was followed. Blocks.
    pub(super) fn sweep(&self, product: &ProductKey) -> Result<(), ArchiveError> {
        if self.shelf.lock().is_swept(product.as_str())? {
            return Ok(());
        }
        let durable = self.store.durable().0;
        let mut range = Range {
            product: product.clone(),
            devices: Vec::new(),
            points: Vec::new(),
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            order: Order::TimeDevice,
            after: None,
            rows_max: 1,
        };
        let mut days = Vec::new();
        loop {
            self.check()?;
            let next = self.store.read(&range)?.next().transpose()?;
            let next = next.filter(|slab| slab.num_rows() > 0);
            if let Some(slab) = &next {
                let time_ms = super::sheet::first_time(slab)?;
                let day = time_ms.div_euclid(DAY_MS);
                days.push((product.to_string(), day, durable));
                range.from_ms = day.saturating_add(1).saturating_mul(DAY_MS);
            }
            if days.len() >= SWEPT_AT_ONCE || next.is_none() {
                self.shelf.lock().touch(&days, None)?;
                days.clear();
            }
            if next.is_none() {
                return self.shelf.lock().set_swept(product.as_str());
            }
        }
    }
}
