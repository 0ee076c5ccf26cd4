//! States of digital points: where they change, and how long each lasts. Pure.

use std::collections::HashMap;

use crate::{limits::AGGREGATE_STATES_MAX, query::Reading};

/// The changes among readings, which come in the order of time and begin some time before `from_ms`:
/// the state at `from_ms`, if it is known from before and `from_before`, then each that differs from the
/// one before it. A reading at `from_ms` itself is told, whatever was before.
pub(super) fn changes<E>(
    readings: impl Iterator<Item = Result<Reading, E>>,
    from_ms: i64,
    from_before: bool,
) -> impl Iterator<Item = Result<Reading, E>> {
    let mut readings = readings.peekable();
    let mut before = None;
    let is_before = |next: &Result<Reading, E>| matches!(next, Ok(next) if next.time_ms < from_ms);
    while let Some(Ok(reading)) = readings.next_if(is_before) {
        before = Some(reading);
    }
    let begins_within = matches!(readings.peek(), Some(Ok(first)) if first.time_ms == from_ms);
    let mut state = before.as_ref().map(|reading| reading.cell.clone());
    let carried = before.filter(|_| from_before && !begins_within);
    let carried = carried.map(|reading| Reading {
        time_ms: from_ms,
        ..reading
    });
    let changed = readings.filter(move |reading| {
        let Ok(reading) = reading else { return true };
        let is_same = state.as_ref() == Some(&reading.cell);
        if !is_same {
            state = Some(reading.cell.clone());
        }
        !is_same || reading.time_ms == from_ms
    });
    carried.map(Ok).into_iter().chain(changed)
}

/// States in the order in which they were met, each with the milliseconds that it lasted.
pub(super) type Lasted = Vec<(Option<String>, i64)>;

/// How long each state lasts: from each change to the next. Before the first nothing is known (`None`).
#[derive(Debug)]
pub(super) struct Durations {
    state: Option<String>,
    since_ms: i64,
    lasted: Lasted,
    places: HashMap<Option<String>, usize>,
    bytes: usize,
}

/// What has so many states is no state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// What the texts of states may take.
const STATES_BYTES_MAX: usize = 1 << 20;

impl Durations {
    pub(super) fn from(from_ms: i64) -> Self {
        Self {
            state: None,
            since_ms: from_ms,
            lasted: Vec::new(),
            places: HashMap::new(),
            bytes: 0,
        }
    }

    /// Another state begins, no earlier than the one before.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(super) fn change(&mut self, time_ms: i64, state: String) -> Result<(), TooMany> {
        self.count(time_ms)?;
        self.state = Some(state);
        Ok(())
    }

    /// # Errors
    /// [`TooMany`].
    pub(super) fn end(mut self, to_ms: i64) -> Result<Lasted, TooMany> {
        self.count(to_ms)?;
        Ok(self.lasted)
    }

    fn count(&mut self, until_ms: i64) -> Result<(), TooMany> {
        let (state, ms) = (self.state.take(), until_ms - self.since_ms);
        self.since_ms = until_ms;
        if ms <= 0 {
            return Ok(());
        }
        if let Some(place) = self.places.get(&state) {
            self.lasted[*place].1 += ms;
            return Ok(());
        }
        self.bytes += state.as_ref().map_or(0, String::len);
        if self.lasted.len() >= AGGREGATE_STATES_MAX || self.bytes > STATES_BYTES_MAX {
            return Err(TooMany);
        }
        self.places.insert(state.clone(), self.lasted.len());
        self.lasted.push((state, ms));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use backtide_model::{Cell, NO_QUALITY};

    use super::*;

    fn told(readings: &[(i64, i32)], from_ms: i64, from_before: bool) -> Vec<(i64, i32)> {
        let readings = readings.iter().map(|(time_ms, state)| {
            Ok::<_, ()>(Reading {
                time_ms: *time_ms,
                cell: Cell::Int(*state),
                quality: NO_QUALITY,
            })
        });
        changes(readings, from_ms, from_before)
            .map(|reading| match reading.unwrap() {
                Reading {
                    time_ms,
                    cell: Cell::Int(state),
                    ..
                } => (time_ms, state),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn changes_are_told_from_the_state_at_the_beginning_on() {
        let readings = [(-2, 7), (-1, 0), (5, 0), (6, 1), (7, 1), (8, 0)];
        assert_eq!(told(&readings, 0, true), [(0, 0), (6, 1), (8, 0)]);
        assert_eq!(told(&readings, 0, false), [(6, 1), (8, 0)]);
        assert_eq!(told(&readings[2..], 0, true), [(5, 0), (6, 1), (8, 0)]);
        // One at the very beginning stands for itself, whatever was before.
        assert_eq!(told(&[(-1, 0), (0, 0), (1, 0)], 0, true), [(0, 0)]);
        assert_eq!(told(&[(-1, 0)], 0, true), [(0, 0)]);
        assert_eq!(told(&[], 0, true), []);
    }

    #[test]
    fn an_error_between_readings_is_told_where_it_happens() {
        let reading = |time_ms| Reading {
            time_ms,
            cell: Cell::Int(1),
            quality: NO_QUALITY,
        };
        let readings = [Ok(reading(-1)), Err("torn"), Ok(reading(5))];
        let told: Vec<_> = changes(readings.into_iter(), 0, true).collect();
        assert_eq!(told, [Ok(reading(0)), Err("torn")]);
    }

    fn lasted(changes: &[(i64, &str)], to_ms: i64) -> Lasted {
        let mut durations = Durations::from(0);
        for (time_ms, state) in changes {
            durations.change(*time_ms, (*state).to_owned()).unwrap();
        }
        durations.end(to_ms).unwrap()
    }

    #[test]
    fn durations_add_up_to_the_range() {
        let state = |state: &str| Some(state.to_owned());
        let changes = [(10, "on"), (30, "off"), (40, "on")];
        assert_eq!(
            lasted(&changes, 100),
            [(None, 10), (state("on"), 80), (state("off"), 10)]
        );
        assert_eq!(lasted(&[(0, "on")], 100), [(state("on"), 100)]);
        assert_eq!(lasted(&[], 100), [(None, 100)]);
    }

    #[test]
    fn values_without_end_are_no_states() {
        let mut durations = Durations::from(0);
        let mut changes = (0..).map(|at| durations.change(at, at.to_string()));
        let fitted = changes.position(|change| change == Err(TooMany)).unwrap();
        assert!(fitted > AGGREGATE_STATES_MAX && fitted < AGGREGATE_STATES_MAX + 5);
        let mut durations = Durations::from(0);
        durations.change(1, "x".repeat(2 << 20)).unwrap();
        assert_eq!(durations.end(2), Err(TooMany));
    }
}
