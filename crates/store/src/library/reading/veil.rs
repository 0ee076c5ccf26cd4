//! What the rules of storage do not show of what is stored.

use backtide_model::ElementName;

use super::{Query, failed};
use crate::{
    Range, ReadError, View,
    library::{
        keep::{Keep, Thinning, down, up},
        thin::{Column, Shown},
        weave::{Depth, Woven},
    },
};

/// What is not shown of some points.
#[derive(Default, Clone)]
pub(in crate::library) struct Veil(Vec<(usize, Shown)>);

/// By number of a point: which values of some rows are not shown.
pub(in crate::library) type Hidden = Vec<(usize, Vec<bool>)>;

impl Veil {
    pub(in crate::library) fn new(
        points: &[ElementName],
        keep: &Keep,
        view: View,
        from_ms: i64,
    ) -> Self {
        let shown = points.iter().enumerate();
        let shown = shown.map(|(at, point)| (at, Shown::new(keep.of(point), view)));
        Self(shown.filter(|(_, shown)| !shown.is_all(from_ms)).collect())
    }

    /// Everything is shown.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The range to read so that the times that are wanted can be shown.
    pub(super) fn widened(&self, range: &Range, wanted: (i64, i64)) -> Range {
        let (mut from_ms, mut to_ms) = wanted;
        if self.has(Thinning::Changes) {
            from_ms = down(from_ms, Thinning::Changes.window_ms());
        }
        if self.has(Thinning::Minute) {
            to_ms = up(to_ms, Thinning::Minute.window_ms());
        }
        Range {
            from_ms,
            to_ms,
            ..range.clone()
        }
    }

    pub(super) fn has(&self, kind: Thinning) -> bool {
        self.0.iter().any(|(_, shown)| shown.has(kind))
    }

    /// Rows in the order of device and time, after those of the calls before.
    pub(in crate::library) fn hidden(
        &mut self,
        query: &Query,
        woven: &Woven,
    ) -> Result<Hidden, ReadError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let (keys, bases): (Vec<(u32, i64)>, _) = (woven.keys().collect(), woven.bases());
        let mut hidden = Vec::with_capacity(self.0.len());
        for (point, shown) in &mut self.0 {
            let Some(storage) = query.storages[*point] else {
                continue;
            };
            let joined = woven.join(*point, storage, Depth::Sequences, &bases);
            if let Some(joined) = joined.map_err(failed)?
                && let Some(column) = Column::new(&keys, &joined, &bases)
            {
                hidden.push((*point, shown.hidden(&column)));
            }
        }
        Ok(hidden)
    }

    /// Later rows are of this device or later ones.
    pub(in crate::library) fn only(&mut self, rank: Option<u32>) {
        for (_, shown) in &mut self.0 {
            rank.into_iter().for_each(|rank| shown.only(rank));
        }
    }
}
