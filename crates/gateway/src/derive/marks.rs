//! Which windows are dirty: spans of time of each device in which a value came since they were computed
//! last. Pure; times of arrival are milliseconds of the engine's own clock.
//!
//! A span is dirty as a whole: computing a window that is not gives what is there. So spans that
//! are too many become fewer and longer, and nothing is lost.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::policy::Pace;

/// A device with more spans than this has values that come shuffled.
const SCATTERED: usize = 8;

/// Dirty from `from_ms` (inclusive) to `to_ms` (exclusive), both ends of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

/// Since when it is dirty, and when a value came last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since {
    to_ms: i64,
    first: i64,
    last: i64,
}

/// Spans of one device that neither touch nor overlap, by their beginnings.
#[derive(Debug, Clone, Default)]
struct Spans(BTreeMap<i64, Since>);

impl Spans {
    fn add(&mut self, span: Span, first: i64, last: i64) {
        let Span {
            mut from_ms,
            mut to_ms,
        } = span;
        let (mut first, mut last) = (first, last);
        // Those that touch it: the one that begins before, and those that begin inside.
        while let Some((begin, since)) = self.0.range(..=to_ms).next_back() {
            if since.to_ms < from_ms {
                break;
            }
            let (begin, since) = (*begin, *since);
            from_ms = from_ms.min(begin);
            to_ms = to_ms.max(since.to_ms);
            (first, last) = (first.min(since.first), last.max(since.last));
            self.0.remove(&begin);
        }
        self.0.insert(from_ms, Since { to_ms, first, last });
    }

    /// Takes a span out, and leaves what is around it.
    fn remove(&mut self, span: Span) {
        let touching: Vec<(i64, Since)> = self
            .0
            .range(..span.to_ms)
            .rev()
            .take_while(|(_, since)| since.to_ms > span.from_ms)
            .map(|(begin, since)| (*begin, *since))
            .collect();
        for (begin, since) in touching {
            self.0.remove(&begin);
            if begin < span.from_ms {
                let to_ms = span.from_ms;
                self.0.insert(begin, Since { to_ms, ..since });
            }
            if since.to_ms > span.to_ms {
                self.0.insert(span.to_ms, since);
            }
        }
    }

    /// When a value came last, wherever.
    fn last(&self) -> i64 {
        self.0.values().map(|since| since.last).max().unwrap_or(0)
    }

    /// Makes each two neighbours one.
    fn coarsen(&mut self) {
        let all: Vec<(i64, Since)> = std::mem::take(&mut self.0).into_iter().collect();
        for pair in all.chunks(2) {
            let (begin, mut one) = pair[0];
            if let Some((_, other)) = pair.get(1) {
                one.to_ms = other.to_ms;
                one.first = one.first.min(other.first);
                one.last = one.last.max(other.last);
            }
            self.0.insert(begin, one);
        }
    }
}

/// The dirty spans of every device of one series.
#[derive(Debug, Default)]
pub(super) struct Marks {
    devices: HashMap<Box<str>, Spans>,
    spans: usize,
    /// Devices whose spans are other ones than those that were written down last.
    touched: HashSet<Box<str>>,
}

impl Marks {
    /// Marks a span; `now` is the moment at which a value came. A device has `spans_max` at most.
    pub(super) fn add(&mut self, device: &str, span: Span, now: i64, spans_max: usize) {
        self.put(device, span, now, spans_max);
        if !self.touched.contains(device) {
            self.touched.insert(device.into());
        }
    }

    /// As it was written down.
    pub(super) fn load(&mut self, device: &str, span: Span, now: i64) {
        self.put(device, span, now, usize::MAX);
    }

    fn put(&mut self, device: &str, span: Span, now: i64, spans_max: usize) {
        let spans = match self.devices.get_mut(device) {
            Some(spans) => spans,
            None => self.devices.entry(device.into()).or_default(),
        };
        let before = spans.0.len();
        spans.add(span, now, now);
        while spans.0.len() > spans_max.max(1) {
            spans.coarsen();
        }
        self.spans = self.spans + spans.0.len() - before;
    }

    /// A span is computed.
    pub(super) fn remove(&mut self, device: &str, span: Span) {
        let Some(spans) = self.devices.get_mut(device) else {
            return;
        };
        let before = spans.0.len();
        spans.remove(span);
        self.spans = self.spans + spans.0.len() - before;
        if spans.0.is_empty() {
            self.devices.remove(device);
        }
        self.touched.insert(device.into());
    }

    /// What is due at `now`, the longest waiting devices first: spans that are quiet, or have waited
    /// long enough. Of a device that is dirty in many places all are quiet or none: its values come
    /// shuffled, and what is computed now will soon be dirty again. At most `devices_max` devices.
    pub(super) fn due(
        &self,
        pace: Pace,
        now: i64,
        devices_max: usize,
    ) -> Vec<(Box<str>, Vec<Span>)> {
        let is_due = |spans: &Spans, since: &Since| {
            let last = match spans.0.len() > SCATTERED {
                true => spans.last(),
                false => since.last,
            };
            now - last >= pace.quiet_ms || now - since.first >= pace.within_ms
        };
        let mut due: Vec<(i64, &Box<str>)> = self
            .devices
            .iter()
            .filter_map(|(device, spans)| {
                let waiting = spans.0.values().filter(|since| is_due(spans, since));
                Some((waiting.map(|since| since.first).min()?, device))
            })
            .collect();
        due.sort_unstable();
        due.truncate(devices_max);
        due.into_iter()
            .map(|(_, device)| {
                let all = &self.devices[device];
                let spans = all.0.iter().filter(|(_, since)| is_due(all, since));
                let spans = spans.map(|(from_ms, since)| Span {
                    from_ms: *from_ms,
                    to_ms: since.to_ms,
                });
                (device.clone(), spans.collect())
            })
            .collect()
    }

    /// Every span of a device.
    pub(super) fn of(&self, device: &str) -> Vec<Span> {
        let Some(spans) = self.devices.get(device) else {
            return Vec::new();
        };
        let spans = spans.0.iter();
        spans
            .map(|(from_ms, since)| Span {
                from_ms: *from_ms,
                to_ms: since.to_ms,
            })
            .collect()
    }

    /// Devices to be written down; they are then as written.
    pub(super) fn take_touched(&mut self) -> Vec<Box<str>> {
        self.touched.drain().collect()
    }

    /// Devices that were to be written down and were not.
    pub(super) fn touch(&mut self, devices: Vec<Box<str>>) {
        self.touched.extend(devices);
    }

    pub(super) fn devices(&self) -> usize {
        self.devices.len()
    }

    pub(super) fn spans(&self) -> usize {
        self.spans
    }

    /// Since when the longest waiting span is dirty.
    pub(super) fn first(&self) -> Option<i64> {
        let spans = self.devices.values().flat_map(|spans| spans.0.values());
        spans.map(|since| since.first).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace {
        quiet_ms: 5,
        within_ms: 60,
    };

    fn span(from_ms: i64, to_ms: i64) -> Span {
        Span { from_ms, to_ms }
    }

    #[test]
    fn a_span_is_due_once_it_is_quiet_or_has_waited_long_enough() {
        let mut marks = Marks::default();
        marks.add("d", span(0, 10), 100, 8);
        assert!(marks.due(PACE, 104, 8).is_empty());
        assert_eq!(marks.due(PACE, 105, 8), [("d".into(), vec![span(0, 10)])]);
        // A steady stream never lets it rest.
        for now in 101..160 {
            marks.add("d", span(0, 10), now, 8);
            assert!(marks.due(PACE, now, 8).is_empty());
        }
        assert_eq!(marks.due(PACE, 160, 8).len(), 1);
        // Another span of the device is not due for that.
        marks.add("d", span(20, 30), 160, 8);
        assert_eq!(marks.due(PACE, 160, 8), [("d".into(), vec![span(0, 10)])]);
    }

    #[test]
    fn a_device_whose_values_come_shuffled_is_quiet_as_a_whole() {
        let mut marks = Marks::default();
        for at in 0..=8 {
            marks.add("d", span(at * 20, at * 20 + 10), 100, 64);
        }
        marks.add("d", span(0, 10), 104, 64);
        assert!(marks.due(PACE, 106, 8).is_empty());
        assert_eq!(marks.due(PACE, 109, 8)[0].1.len(), 9);
        marks.add("d", span(0, 10), 159, 64);
        assert_eq!(marks.due(PACE, 160, 8)[0].1.len(), 9);
    }

    #[test]
    fn what_is_computed_is_taken_out_of_the_middle() {
        let mut marks = Marks::default();
        marks.add("d", span(0, 100), 1, 8);
        marks.remove("d", span(20, 40));
        assert_eq!(marks.of("d"), [span(0, 20), span(40, 100)]);
        marks.remove("d", span(0, 100));
        assert_eq!(
            (marks.of("d").len(), marks.spans(), marks.devices()),
            (0, 0, 0)
        );
        assert_eq!(marks.take_touched(), ["d".into()]);
    }

    #[test]
    fn the_longest_waiting_devices_come_first() {
        let mut marks = Marks::default();
        marks.add("young", span(0, 10), 50, 8);
        marks.add("old", span(0, 10), 10, 8);
        let due = marks.due(PACE, 100, 1);
        assert_eq!(due, [("old".into(), vec![span(0, 10)])]);
    }

    proptest! {
        /// Beside a set of unit windows.
        #[test]
        fn spans_hold_exactly_what_was_marked_and_not_removed_or_more_where_they_are_bounded(
            steps in prop::collection::vec((any::<bool>(), 0_i64..60, 1_i64..6), 0..60),
            spans_max in prop::option::of(1_usize..4),
        ) {
            let (mut marks, mut plain) = (Marks::default(), std::collections::BTreeSet::new());
            for (is_mark, from, length) in steps {
                let one = span(from, from + length);
                if is_mark {
                    marks.add("d", one, 0, spans_max.unwrap_or(usize::MAX));
                    plain.extend(from..from + length);
                } else if spans_max.is_none() {
                    marks.remove("d", one);
                    plain.retain(|at| !(from..from + length).contains(at));
                }
                let spans = marks.of("d");
                prop_assert_eq!(spans.len(), marks.spans());
                prop_assert!(spans.windows(2).all(|pair| pair[0].to_ms < pair[1].from_ms || !is_mark));
                prop_assert!(spans_max.is_none_or(|most| spans.len() <= most));
                let held: std::collections::BTreeSet<i64> =
                    spans.iter().flat_map(|span| span.from_ms..span.to_ms).collect();
                match spans_max {
                    None => prop_assert_eq!(&held, &plain),
                    Some(_) => prop_assert!(held.is_superset(&plain)),
                }
            }
        }
    }
}
