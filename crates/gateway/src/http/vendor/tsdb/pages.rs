//! Pages of values as they are stored: so many of each point of an asset, point by point, in memory that
//! does not grow with them.
//!
//! The store reads by time, all points of a row at once. Short pages of numbers are read together, and held
//! until their turn. A long page, or one of texts, is read alone and told as it comes; if the latest come
//! first, in pieces from the end of the range.

use std::{collections::VecDeque, iter};

use backtide_model::{Cell, ElementName};
use backtide_store::View;

use super::{
    super::items::Ended,
    history::{History, readings},
    question::{Asset, Sorted},
};
use crate::{
    limits::{VENDOR_HELD_BYTES_MAX, VENDOR_HELD_READINGS_MAX},
    query::Reading,
};

/// What a page has of each point.
#[derive(Clone, Copy)]
pub(super) struct Page {
    pub(super) size: usize,
    pub(super) sorted: Sorted,
}

/// Takes the readings of a page, one after the other.
pub(super) type Take<'t> = &'t mut dyn FnMut(&ElementName, &Reading) -> Result<(), Ended>;

impl Page {
    pub(super) fn read(
        self,
        history: &History<'_>,
        asset: &Asset,
        span: (i64, i64),
        take: Take<'_>,
    ) -> Result<(), Ended> {
        for group in groups(asset, self.size) {
            match (group, self.sorted) {
                ([point], Sorted::EarliestFirst) => {
                    for reading in history.readings(asset, point, span, View::Kept, self.size)? {
                        take(point, &reading?)?;
                    }
                }
                ([point], Sorted::LatestFirst) => {
                    self.latest_first(history, asset, (point, span), take)?;
                }
                (points, _) => self.together(history, asset, (points, span), take)?,
            }
        }
        Ok(())
    }

    /// In one read, as far as it has to go until each page is full.
    fn together(
        self,
        history: &History<'_>,
        asset: &Asset,
        (points, span): (&[ElementName], (i64, i64)),
        take: Take<'_>,
    ) -> Result<(), Ended> {
        let mut pages = vec![VecDeque::new(); points.len()];
        for slab in history.slabs(&asset.range(points, span, usize::MAX), View::Kept)? {
            let slab = slab?;
            for (point, page) in points.iter().zip(&mut pages) {
                if !self.is_done(page) {
                    self.fill(page, readings(&slab, point)?);
                }
            }
            if pages.iter().all(|page| self.is_done(page)) {
                break;
            }
        }
        for (point, page) in points.iter().zip(&pages) {
            page.iter().try_for_each(|reading| take(point, reading))?;
        }
        Ok(())
    }

    fn fill(self, page: &mut VecDeque<Reading>, readings: Vec<Reading>) {
        match self.sorted {
            Sorted::EarliestFirst => {
                let room = self.size - page.len();
                page.extend(readings.into_iter().take(room));
            }
            // The earliest fall off.
            Sorted::LatestFirst => {
                for reading in readings {
                    page.truncate(self.size - 1);
                    page.push_front(reading);
                }
            }
        }
    }

    /// Nothing that is read later belongs to it.
    fn is_done(self, page: &VecDeque<Reading>) -> bool {
        self.sorted == Sorted::EarliestFirst && page.len() >= self.size
    }

    /// Reads a span to its end for where its pieces lie, each as long as may be held. The last one is in
    /// hand then; those before it are read again while more are wanted.
    fn latest_first(
        self,
        history: &History<'_>,
        asset: &Asset,
        (point, span): (&ElementName, (i64, i64)),
        take: Take<'_>,
    ) -> Result<(), Ended> {
        let (mut spans, mut left) = (vec![span], self.size);
        while let Some(span) = spans.pop().filter(|_| left > 0) {
            let readings = history.readings(asset, point, span, View::Kept, usize::MAX)?;
            let last = last_piece(readings, span.0, &mut spans)?;
            for reading in last.iter().rev().take(left) {
                take(point, reading)?;
                left -= 1;
            }
        }
        Ok(())
    }
}

/// The last of the pieces that readings fall into; `spans` takes those before it.
fn last_piece<E>(
    readings: impl Iterator<Item = Result<Reading, E>>,
    mut from_ms: i64,
    spans: &mut Vec<(i64, i64)>,
) -> Result<Vec<Reading>, E> {
    let (mut held, mut bytes) = (Vec::new(), 0);
    for reading in readings {
        let reading = reading?;
        if held.len() >= VENDOR_HELD_READINGS_MAX || bytes >= VENDOR_HELD_BYTES_MAX {
            spans.push((from_ms, reading.time_ms));
            from_ms = reading.time_ms;
            held.clear();
            bytes = 0;
        }
        if let Cell::Text(text) = &reading.cell {
            bytes += text.len();
        }
        held.push(reading);
    }
    Ok(held)
}

/// Points that are read together: as many as fit while they wait, of those that are known to be short.
fn groups(asset: &Asset, page: usize) -> impl Iterator<Item = &[ElementName]> {
    let most = VENDOR_HELD_READINGS_MAX / page;
    let mut left = &asset.points[..];
    iter::from_fn(move || {
        let short = left.iter().take(most);
        let short = short.take_while(|point| asset.is_short(point)).count();
        let (group, rest) = left.split_at_checked(short.max(1))?;
        left = rest;
        Some(group)
    })
}

#[cfg(test)]
mod tests {
    use backtide_model::NO_QUALITY;

    use super::*;

    fn readings(cells: impl Iterator<Item = Cell>) -> impl Iterator<Item = Result<Reading, ()>> {
        (0..).zip(cells).map(|(time_ms, cell)| {
            Ok(Reading {
                time_ms,
                cell,
                quality: NO_QUALITY,
            })
        })
    }

    #[test]
    fn what_is_held_is_the_last_piece_and_the_others_follow_each_other_without_gap() {
        let count = i32::try_from(2 * VENDOR_HELD_READINGS_MAX + 10).unwrap();
        let mut spans = vec![(-100, -50)];
        let held = last_piece(readings((0..count).map(Cell::Int)), -50, &mut spans).unwrap();
        let piece = i64::try_from(VENDOR_HELD_READINGS_MAX).unwrap();
        assert_eq!(spans, [(-100, -50), (-50, piece), (piece, 2 * piece)]);
        assert_eq!((held.len(), held[0].time_ms), (10, 2 * piece));
    }

    #[test]
    fn long_texts_make_short_pieces() {
        let text = || Cell::Text("x".repeat(1 << 20).into());
        let mut spans = Vec::new();
        let count = 3 * (VENDOR_HELD_BYTES_MAX >> 20) + 1;
        let cells = (0..count).map(|_| text());
        let held = last_piece(readings(cells), 0, &mut spans).unwrap();
        assert_eq!((spans.len(), held.len()), (3, 1));
    }
}
