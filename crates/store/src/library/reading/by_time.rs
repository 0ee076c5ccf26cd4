//! Rows by time, then device.

use arrow_array::RecordBatch;

use super::{
    Query,
    veil::{Hidden, Veil},
};
use crate::{
    ReadError, Slabs,
    library::{
        index::Stretch,
        keep::{Thinning, up},
        scan::SLICE_ROWS,
        weave::Woven,
    },
};

/// Bytes of values that a window of a read by time may hold.
const WINDOW_BYTES: usize = 64 << 20;

/// By time: a window of time is read in the order of segments and sorted. Windows grow and shrink,
/// so that each holds many rows and never too many.
pub(super) struct ByTime {
    query: Query,
    veil: Veil,
    /// The next window, both ends inclusive; `None` at the end.
    next: Option<(i64, i64)>,
    /// The last time wanted.
    last_ms: i64,
    rows_wanted: usize,
    rows_max: usize,
    /// What is being given.
    window: Option<Window>,
    rows_left: usize,
}

/// The rows of a window of time, woven by device, and their order by time.
struct Window {
    woven: Woven,
    hidden: Hidden,
    order: Vec<usize>,
    at: usize,
}

impl Window {
    fn new(woven: Woven, hidden: Hidden) -> Self {
        let mut order: Vec<(i64, u32, usize)> = woven
            .keys()
            .zip(0..)
            .map(|((rank, time_ms), row)| (time_ms, rank, row))
            .collect();
        // Made of runs, one a device: this sort merges them.
        order.sort();
        Self {
            woven,
            hidden,
            order: order.into_iter().map(|(_, _, row)| row).collect(),
            at: 0,
        }
    }

    fn next(&mut self) -> Option<(Woven, Hidden)> {
        let to = (self.at + SLICE_ROWS).min(self.order.len());
        let rows = &self.order[self.at..to];
        self.at = to;
        let hidden = self.hidden.iter().map(|(point, hidden)| {
            let hidden = rows.iter().map(|row| hidden[*row]);
            (*point, hidden.collect())
        });
        let hidden = hidden.collect();
        (!rows.is_empty()).then(|| (self.woven.reordered(rows.iter().copied()), hidden))
    }
}

impl ByTime {
    pub(super) fn new(query: Query) -> Self {
        let columns = query.storages.len() + 3;
        let rows_max = (WINDOW_BYTES / 8 / columns).max(SLICE_ROWS);
        let rows_left = query.range.rows_max;
        let mut by_time = Self {
            veil: Veil::default(),
            query,
            next: None,
            last_ms: 0,
            // More than is wanted: some rows may have no value.
            rows_wanted: rows_left.saturating_mul(2).clamp(1_024, rows_max),
            rows_max,
            window: None,
            rows_left,
        };
        by_time.begin();
        by_time.veil = std::mem::take(&mut by_time.query.veil);
        by_time
    }

    /// The first window: as long as rows are dense on average.
    fn begin(&mut self) {
        let query = &self.query;
        let is_wanted = |stretch: &&Stretch| {
            query.range.devices.is_empty() || query.devices.binary_search(&stretch.device).is_ok()
        };
        let of_segments = query
            .segments
            .iter()
            .flat_map(|segment| &segment.card.index.0)
            .filter(is_wanted)
            .map(|stretch| (stretch.first_ms, stretch.last_ms, stretch.rows.len()));
        let of_entries = query.entries.iter().filter_map(|entry| {
            let times = &entry.batch.row_time;
            Some((*times.iter().min()?, *times.iter().max()?, times.len()))
        });
        let (mut first_ms, mut last_ms, mut rows) = (i64::MAX, i64::MIN, 0_usize);
        for (first, last, count) in of_segments.chain(of_entries) {
            (first_ms, last_ms, rows) = (first_ms.min(first), last_ms.max(last), rows + count);
        }
        // The row itself too: another device may have one of the same time.
        let after = query.range.after.as_ref();
        let after_ms = after.map_or(i64::MIN, |(_, time_ms)| {
            query.resume_ms(time_ms.saturating_sub(1))
        });
        let from_ms = query.range.from_ms.max(first_ms).max(after_ms);
        self.last_ms = last_ms.min(query.range.to_ms - 1);
        if rows > 0 && from_ms <= self.last_ms {
            // A span without rounding, where it is short and where it is long.
            let span_ms = u128::from(last_ms.abs_diff(first_ms)) * self.rows_wanted as u128;
            let span_ms = u64::try_from(span_ms / rows as u128).unwrap_or(u64::MAX);
            self.next = Some((from_ms, from_ms.saturating_add_unsigned(span_ms)));
        }
    }

    fn slab(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        while self.rows_left > 0 {
            let Some((woven, hidden)) = self.window.as_mut().and_then(Window::next) else {
                self.window = None;
                match self.next {
                    None => return Ok(None),
                    Some(span) => self.read(span)?,
                }
                continue;
            };
            let after = self.query.range.after.as_ref().map(|(device, after_ms)| {
                let devices = &self.query.devices;
                move |rank: u32, time_ms: i64| {
                    (time_ms, &devices[rank as usize]) > (*after_ms, device)
                }
            });
            let is_after = after
                .as_ref()
                .map(|after| after as &dyn Fn(u32, i64) -> bool);
            let mut slab = self.query.slab(&woven, &hidden, is_after)?;
            slab.truncate(self.rows_left);
            if !slab.keys.is_empty() {
                self.rows_left -= slab.keys.len();
                return self.query.batch(slab).map(Some);
            }
        }
        Ok(None)
    }

    /// Reads a window, or makes it shorter where it has too many rows.
    fn read(&mut self, (from_ms, to_ms): (i64, i64)) -> Result<(), ReadError> {
        let (mut to_ms, mut least_ms) = (to_ms, 0);
        if self.veil.has(Thinning::Minute) {
            // Minutes are not parted. Half of two and less could be as long again.
            let minute_ms = Thinning::Minute.window_ms();
            to_ms = up(to_ms.saturating_add(1), minute_ms).saturating_sub(1);
            least_ms = 2 * minute_ms.unsigned_abs();
        }
        let to_ms = to_ms.min(self.last_ms);
        let span_ms = to_ms.abs_diff(from_ms);
        // A single moment is read whatever it holds.
        let rows_max = if span_ms <= least_ms {
            usize::MAX
        } else {
            self.rows_max
        };
        let Some(woven) = self.query.weave_whole((from_ms, to_ms), rows_max)? else {
            self.next = Some((from_ms, from_ms.saturating_add_unsigned(span_ms / 2)));
            return Ok(());
        };
        let rows = woven.rows();
        let hidden = self.veil.hidden(&self.query, &woven)?;
        self.window = Some(Window::new(woven, hidden));
        let factor = if rows < self.rows_wanted / 2 { 4 } else { 1 };
        self.rows_wanted = (self.rows_wanted * 2).min(self.rows_max);
        let next_ms = to_ms.saturating_add(1);
        let next_span_ms = span_ms.saturating_mul(factor).max(1);
        self.next = (to_ms < self.last_ms)
            .then(|| (next_ms, next_ms.saturating_add_unsigned(next_span_ms)));
        Ok(())
    }
}

impl Iterator for ByTime {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let slab = self.slab().transpose();
        if matches!(slab, Some(Err(_))) {
            self.rows_left = 0;
        }
        slab
    }
}

impl Slabs for ByTime {}
