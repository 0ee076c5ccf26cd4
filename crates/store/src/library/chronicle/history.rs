//! The history of one attribute: a pure account of what was said and when.
//!
//! It is a list of stretches, each the time that one value was in force: from the moment it was first
//! said to the moment it was last said before another. What is said again adds nothing but its
//! moment; neighbours always differ. Moments are compared by order first, and what is driven again
//! from quarantine has the order of its first arrival: it takes its place in the past.

use backtide_model::ChannelName;

use crate::Sequence;

/// When something was said. Compared by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) position: Position,
    pub(super) channel: ChannelName,
    pub(super) arrived_ms: i64,
}

/// The order of a commit, its sequence, and the place of the value in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) order: Sequence,
    pub(super) sequence: Sequence,
    pub(super) item: u32,
}

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: Moment,
    pub(super) last: Moment,
    pub(super) value: Box<str>,
}

/// Takes into account that `value` was said at `moment`. Saying the same thing twice changes nothing.
pub(super) fn say(stretches: &mut Vec<Stretch>, moment: Moment, value: &str) {
    let at = stretches.partition_point(|stretch| stretch.first.position <= moment.position);
    if let Some(before) = at.checked_sub(1).map(|at| &mut stretches[at]) {
        if *before.value == *value {
            if before.last.position < moment.position {
                before.last = moment;
            }
            return;
        }
        if moment.position < before.last.position {
            // Inside a stretch of another value: that was in force before and is again after.
            let after = Stretch {
                first: before.last.clone(),
                last: before.last.clone(),
                value: before.value.clone(),
            };
            before.last = before.first.clone();
            stretches.insert(at, after);
        }
    }
    match stretches.get_mut(at) {
        Some(next) if *next.value == *value => next.first = moment,
        _ => stretches.insert(
            at,
            Stretch {
                first: moment.clone(),
                last: moment,
                value: value.into(),
            },
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn moment(order: u64, sequence: u64) -> Moment {
        Moment {
            position: Position {
                order: Sequence(order),
                sequence: Sequence(sequence),
                item: 0,
            },
            channel: ChannelName::new("c").unwrap(),
            arrived_ms: 0,
        }
    }

    fn told(said: &[(u64, u64, u8)]) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        for (order, sequence, value) in said {
            say(
                &mut stretches,
                moment(*order, *sequence),
                &value.to_string(),
            );
        }
        stretches
    }

    fn shown(stretches: &[Stretch]) -> Vec<(u64, u64, &str)> {
        let order = |moment: &Moment| moment.position.order.0;
        stretches
            .iter()
            .map(|s| (order(&s.first), order(&s.last), s.value.as_ref()))
            .collect()
    }

    #[test]
    fn what_is_said_again_adds_no_entry() {
        let stretches = told(&[(1, 1, 7), (2, 2, 7), (3, 3, 8), (4, 4, 8), (5, 5, 7)]);
        assert_eq!(shown(&stretches), [(1, 2, "7"), (3, 4, "8"), (5, 5, "7")]);
    }

    #[test]
    fn what_is_driven_again_takes_its_place_in_the_past() {
        // 7 was said as commits 1 and 5; 8 arrived as 3, was refused, and is committed as 6.
        let stretches = told(&[(1, 1, 7), (5, 5, 7), (3, 6, 8)]);
        assert_eq!(shown(&stretches), [(1, 1, "7"), (3, 3, "8"), (5, 5, "7")]);
        let stretches = told(&[(5, 5, 7), (3, 6, 7), (4, 7, 7)]);
        assert_eq!(shown(&stretches), [(3, 5, "7")]);
    }

    proptest! {
        #[test]
        fn in_the_order_of_commit_it_is_the_list_of_changes(values in vec(0..3_u8, 0..40)) {
            let said: Vec<_> = (1..).zip(&values).map(|(at, value)| (at, at, *value)).collect();
            let mut changes: Vec<(u64, u8)> = Vec::new();
            for (order, _, value) in &said {
                if changes.last().is_none_or(|(_, last)| last != value) {
                    changes.push((*order, *value));
                }
            }
            let stretches = told(&said);
            let found: Vec<_> = shown(&stretches).into_iter()
                .map(|(first, _, value)| (first, value.parse::<u8>().unwrap())).collect();
            prop_assert_eq!(found, changes);
        }

        #[test]
        fn in_any_order_the_greatest_order_is_in_force_and_neighbours_differ(
            said in vec((1..30_u64, 0..3_u8), 1..40), again in any::<bool>(),
        ) {
            // An order may be shared: the parts of one message, driven again one by one.
            let said: Vec<_> = (1..).zip(said).map(|(sequence, (order, value))| (order, sequence, value)).collect();
            let mut stretches = told(&said);
            let current: BTreeMap<_, _> = said.iter().map(|(o, s, v)| ((*o, *s), *v)).collect();
            if again {
                for (order, sequence, value) in &said {
                    say(&mut stretches, moment(*order, *sequence), &value.to_string());
                }
            }
            let last = stretches.last().unwrap();
            prop_assert_eq!(last.value.parse::<u8>().unwrap(), *current.last_key_value().unwrap().1);
            for pair in stretches.windows(2) {
                prop_assert!(pair[0].last.position < pair[1].first.position);
                prop_assert_ne!(&pair[0].value, &pair[1].value);
            }
            for stretch in &stretches {
                for moment in [&stretch.first, &stretch.last] {
                    let key = (moment.position.order.0, moment.position.sequence.0);
                    prop_assert_eq!(current[&key].to_string(), stretch.value.to_string());
                }
            }
        }
    }
}
