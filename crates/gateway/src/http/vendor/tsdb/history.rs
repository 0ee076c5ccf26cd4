//! Reads of the store for one asset, a slab at a time: they end where nobody takes more, and where the
//! client is gone.

use arrow_array::RecordBatch;
use backtide_model::ElementName;
use backtide_store::{Lead, Range, ReadError, Store, Thinning, View};

use super::{
    super::{
        answer::Refusal,
        fold,
        items::{Ended, Opening},
        states,
    },
    question::Asset,
};
use crate::{
    http::{Api, stream::Outlet},
    query::{self, Reading},
};

/// How far back the state at the beginning of a range is looked for.
const STATE_BEFORE_MS: i64 = 30 * 24 * 3_600 * 1_000;

pub(super) struct History<'a> {
    store: &'a Store,
    outlet: &'a Outlet<Refusal>,
}

impl<'a> History<'a> {
    pub(super) fn of(api: &'a Api, opening: &Opening<'a>) -> Self {
        Self {
            store: &api.store,
            outlet: opening.outlet,
        }
    }

    pub(super) fn slabs(
        &self,
        range: &Range,
        view: View,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, Ended>> + use<'a>, Ended> {
        let unreadable = |error: ReadError| Ended::Problem(Refusal::unreadable(&error));
        let slabs = self.store.values(range, view, Lead::InStep);
        let outlet = self.outlet;
        Ok(slabs
            .map_err(unreadable)?
            .map(move |slab| match outlet.is_gone() {
                true => Err(Ended::Gone),
                false => slab.map_err(unreadable),
            }))
    }

    /// The values of a point in the order of time, at most so many.
    pub(super) fn readings(
        &self,
        asset: &Asset,
        point: &ElementName,
        span: (i64, i64),
        view: View,
        most: usize,
    ) -> Result<impl Iterator<Item = Result<Reading, Ended>> + use<'a>, Ended> {
        let points = std::slice::from_ref(point);
        let slabs = self.slabs(&asset.range(points, span, most), view)?;
        let point = point.clone();
        let readings = slabs.flat_map(move |slab| {
            let (found, failed) = match slab.and_then(|slab| readings(&slab, &point)) {
                Ok(found) => (found, None),
                Err(ended) => (Vec::new(), Some(Err(ended))),
            };
            found.into_iter().map(Ok).chain(failed)
        });
        Ok(readings.take(most))
    }

    /// The last number of each minute, at its beginning.
    pub(super) fn minutes(
        &self,
        asset: &Asset,
        point: &ElementName,
        span: (i64, i64),
    ) -> Result<impl Iterator<Item = Result<(i64, f64), Ended>> + use<'a>, Ended> {
        let view = View::Thinned(Thinning::Minute);
        let readings = self.readings(asset, point, span, view, usize::MAX)?;
        Ok(fold::by_minute(readings.filter_map(
            |reading| match reading {
                Ok(reading) => Some(Ok((reading.time_ms, reading.number()?))),
                Err(ended) => Some(Err(ended)),
            },
        )))
    }

    /// The changes of a digital point; `from_before`: with the state at the beginning, where it is known
    /// from before.
    pub(super) fn changes(
        &self,
        asset: &Asset,
        point: &ElementName,
        (from_ms, to_ms): (i64, i64),
        from_before: bool,
    ) -> Result<impl Iterator<Item = Result<Reading, Ended>> + use<'a>, Ended> {
        let span = (from_ms.saturating_sub(STATE_BEFORE_MS), to_ms);
        let view = View::Thinned(Thinning::Changes);
        let readings = self.readings(asset, point, span, view, usize::MAX)?;
        Ok(states::changes(readings, from_ms, from_before))
    }
}

pub(super) fn readings(slab: &RecordBatch, point: &ElementName) -> Result<Vec<Reading>, Ended> {
    let found = query::readings(slab, point.as_str());
    found.map_err(|error| Ended::Problem(Refusal::unreadable(&error)))
}
