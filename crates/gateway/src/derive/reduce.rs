//! Values in the order of their times: which change too fast, and which are kept. Pure, and a function of
//! the values alone: what was computed before is not asked.
//!
//! A reduction begins anew with each of its windows and keeps the first and the last value there; so
//! a value concerns its window only. A rate of change is that from the value before, which may be in
//! the window before.

use crate::policy::Keep;

/// The value is kept: the others lie where the kept ones say, within the deviation.
pub const KEPT: i32 = 1;
/// It is further from the value before than the rate of change allows. Such a value is always kept.
pub const FAST: i32 = 2;

/// A value of one point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Value {
    pub(super) time_ms: i64,
    pub(super) value: f64,
}

/// Marks for each value of one window, in order; `before` is the value before the first.
pub(super) fn marks(
    values: &[Value],
    before: Option<Value>,
    rate_per_ms: Option<f64>,
    keep: Keep,
) -> Vec<i32> {
    let mut marks = vec![0; values.len()];
    if let Some(rate_per_ms) = rate_per_ms {
        let mut last = before;
        for (value, mark) in values.iter().zip(&mut marks) {
            if last.is_some_and(|last| is_fast(last, *value, rate_per_ms)) {
                *mark |= FAST;
            }
            last = Some(*value);
        }
    }
    match keep {
        Keep::All => marks.iter_mut().for_each(|mark| *mark |= KEPT),
        Keep::DeadBand(deviation) => dead_band(values, deviation, &mut marks),
        Keep::SwingingDoor(deviation) => swinging_door(values, deviation, &mut marks),
    }
    if let [first, ..] = marks.as_mut_slice() {
        *first |= KEPT;
    }
    if let [.., last] = marks.as_mut_slice() {
        *last |= KEPT;
    }
    marks
}

fn is_fast(before: Value, now: Value, rate_per_ms: f64) -> bool {
    let ms = now.time_ms.saturating_sub(before.time_ms) as f64;
    // What is no number is no rate that could be allowed.
    let within = (now.value - before.value).abs() <= rate_per_ms * ms;
    !within
}

/// A value is kept if it is further than the deviation from the last one that was.
fn dead_band(values: &[Value], deviation: f64, marks: &mut [i32]) {
    let mut kept: Option<f64> = None;
    for (value, mark) in values.iter().zip(marks) {
        let is_near = kept.is_some_and(|kept| (value.value - kept).abs() <= deviation);
        if !is_near || *mark & FAST != 0 {
            *mark |= KEPT;
            kept = Some(value.value);
        }
    }
}

/// The two doors: from the last kept value, the steepest line up that still passes below
/// `value + deviation`, and the flattest that passes above `value - deviation`. Once they cross, no line
/// passes all values: the one before is kept, and the doors swing from there.
fn swinging_door(values: &[Value], deviation: f64, marks: &mut [i32]) {
    let mut at = 0;
    while at < values.len() {
        marks[at] |= KEPT;
        let origin = values[at];
        let (mut lower, mut upper) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut next = at + 1;
        while next < values.len() {
            if marks[next] & FAST != 0 {
                // A flagged value is kept, and the one before it, so that the line ends there.
                next = if next > at + 1 { next - 1 } else { next };
                break;
            }
            let ms = values[next].time_ms.saturating_sub(origin.time_ms).max(1) as f64;
            let off = values[next].value - origin.value;
            let slope = off / ms;
            // The line to this value passes those in between.
            let passes = slope >= lower && slope <= upper;
            if !passes && next > at + 1 {
                next -= 1;
                break;
            }
            lower = lower.max((off - deviation) / ms);
            upper = upper.min((off + deviation) / ms);
            next += 1;
        }
        if next >= values.len() {
            // The last value is kept by whoever called; the line to it passes all others.
            return;
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(values: &[(i64, f64)]) -> Vec<Value> {
        let value = |(time_ms, value): &(i64, f64)| Value {
            time_ms: *time_ms,
            value: *value,
        };
        values.iter().map(value).collect()
    }

    fn kept(marks: &[i32]) -> Vec<usize> {
        (0..marks.len())
            .filter(|at| marks[*at] & KEPT != 0)
            .collect()
    }

    #[test]
    fn a_dead_band_keeps_what_is_further_off_than_the_last_kept_value() {
        let values = values(&[(0, 0.0), (1, 0.5), (2, 1.5), (3, 1.0), (4, 0.4), (5, 0.5)]);
        let marks = marks(&values, None, None, Keep::DeadBand(1.0));
        assert_eq!(kept(&marks), [0, 2, 4, 5]);
    }

    #[test]
    fn a_swinging_door_keeps_the_corners_of_a_line() {
        let line: Vec<(i64, f64)> = (0..10)
            .map(|at: i32| {
                (
                    i64::from(at),
                    if at < 5 {
                        f64::from(at)
                    } else {
                        f64::from(8 - at)
                    },
                )
            })
            .collect();
        let marks = marks(&values(&line), None, None, Keep::SwingingDoor(0.1));
        assert_eq!(kept(&marks), [0, 4, 9]);
    }

    #[test]
    fn a_value_that_is_too_far_from_the_one_before_is_flagged_and_kept() {
        let values = values(&[
            (0, 0.0),
            (1_000, 1.0),
            (2_000, 9.0),
            (3_000, 9.0),
            (4_000, f64::NAN),
        ]);
        let before = Some(Value {
            time_ms: -1_000,
            value: 50.0,
        });
        let marks = marks(
            &values,
            before,
            Some(5.0 / 1_000.0),
            Keep::SwingingDoor(100.0),
        );
        let fast: Vec<bool> = marks.iter().map(|mark| mark & FAST != 0).collect();
        assert_eq!(fast, [true, false, true, false, true]);
        assert_eq!(kept(&marks), [0, 1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn lines_between_kept_values_pass_all_others_within_the_deviation(
            steps in prop::collection::vec((1_i64..50, -3.0..3.0_f64), 1..120),
            deviation in 0.0..4.0_f64,
            most in prop::option::of(0.01..1.0_f64),
        ) {
            let (mut time_ms, mut value) = (0, 0.0);
            let values: Vec<Value> = steps.iter().map(|(ms, change)| {
                time_ms += ms;
                value += change;
                Value { time_ms, value }
            }).collect();
            let of_band = marks(&values, None, most, Keep::DeadBand(deviation));
            let of_door = marks(&values, None, most, Keep::SwingingDoor(deviation));
            let mut last = values[0];
            for (value, mark) in values.iter().zip(&of_band) {
                if mark & KEPT != 0 { last = *value; }
                prop_assert!((value.value - last.value).abs() <= deviation);
            }
            let door = kept(&of_door);
            prop_assert_eq!(door.first(), Some(&0));
            prop_assert_eq!(door.last(), Some(&(values.len() - 1)));
            for pair in door.windows(2) {
                let (begin, end) = (values[pair[0]], values[pair[1]]);
                for value in &values[pair[0]..=pair[1]] {
                    let share = (value.time_ms - begin.time_ms) as f64 / (end.time_ms - begin.time_ms) as f64;
                    let on_line = begin.value + (end.value - begin.value) * share;
                    prop_assert!((value.value - on_line).abs() <= deviation + 1e-9, "{value:?} {on_line}");
                }
            }
            for (at, value) in values.iter().enumerate().skip(1) {
                let before = values[at - 1];
                let is_fast = most.is_some_and(|most| {
                    (value.value - before.value).abs() > most * (value.time_ms - before.time_ms) as f64
                });
                prop_assert_eq!(of_door[at] & FAST != 0, is_fast);
                prop_assert!(!is_fast || of_door[at] & KEPT != 0 && of_band[at] & KEPT != 0);
            }
        }
    }
}
