//! Which of two versions of one value stays. Everybody who joins versions asks here: the flush
//! within a memtable, merges, reads and the classification of conflicts.
//!
//! The meaning is sequential: each version in order of commit meets the one that stands. Equal
//! (value and quality, floats by their bits): a duplicate, the older stays. Different: a conflict,
//! and the *newcomer's* policy decides.
//!
//! A segment keeps one version per cell, so it must say how that version acts on whatever older
//! segments hold. Its [`Rule`] says so: the versions that a segment joined are a function of the
//! value that stands before them, and the rule with the version describes that function.
//!
//! | joined | function of the standing value W |
//! |---|---|
//! | keep-last versions, all equal: `Last` | W where equal, else the version |
//! | a keep-last version, then a different winner: `Settled` | the version |
//! | keep-first versions only: `First` | W where there is one, else the version |
//! | higher-quality versions only: `Higher` | W where its quality is greater, else the version |
//!
//! Keep-last mixed with either of the others stays exact in value. Keep-first mixed with
//! higher-quality in *one cell of one segment* has no such description: the earlier one is kept.

use backtide_model::{ConflictPolicy, NO_QUALITY};

/// How a stored version acts on an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Rule {
    #[default]
    Last,
    Settled,
    First,
    Higher,
}

impl Rule {
    /// `None` is what most cells have, and costs nothing in a file.
    pub(super) fn to_file(self) -> Option<u8> {
        match self {
            Self::Last => None,
            Self::Settled => Some(1),
            Self::First => Some(2),
            Self::Higher => Some(3),
        }
    }

    pub(super) fn from_file(byte: u8) -> Self {
        match byte {
            1 => Self::Settled,
            2 => Self::First,
            3 => Self::Higher,
            _ => Self::Last,
        }
    }

    /// Whether the outcome no longer depends on what stood before, but for equality.
    pub(super) fn is_absolute(self) -> bool {
        matches!(self, Self::Last | Self::Settled)
    }
}

impl From<ConflictPolicy> for Rule {
    fn from(policy: ConflictPolicy) -> Self {
        match policy {
            ConflictPolicy::KeepLast => Self::Last,
            ConflictPolicy::KeepFirst => Self::First,
            ConflictPolicy::HigherQuality => Self::Higher,
        }
    }
}

/// What became of the newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Equal to the standing version, which stays.
    Duplicate,
    /// Different, and refused.
    Refused,
    /// Different, and stands from now on.
    Wins,
}

/// One side of a fold: its rule and its quality, 0–9 or [`NO_QUALITY`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    pub(super) rule: Rule,
    pub(super) quality: u8,
}

/// Folds a newcomer into what stands; `same` says whether value and quality are equal. Gives the
/// outcome and the rule of whichever stands afterwards.
pub(super) fn fold(standing: Side, newcomer: Side, same: bool) -> (Outcome, Rule) {
    match newcomer.rule {
        Rule::Settled => (Outcome::Wins, Rule::Settled),
        Rule::Last if same && standing.rule.is_absolute() => (Outcome::Duplicate, standing.rule),
        Rule::Last if same => (Outcome::Duplicate, Rule::Last),
        Rule::Last if standing.rule.is_absolute() => (Outcome::Wins, Rule::Settled),
        Rule::Last => (Outcome::Wins, Rule::Last),
        Rule::First | Rule::Higher if same => (Outcome::Duplicate, standing.rule),
        Rule::First => (Outcome::Refused, standing.rule),
        Rule::Higher if rank(standing.quality) > rank(newcomer.quality) => {
            (Outcome::Refused, standing.rule)
        }
        Rule::Higher if standing.rule.is_absolute() => (Outcome::Wins, Rule::Settled),
        Rule::Higher => (Outcome::Wins, Rule::Higher),
    }
}

fn rank(quality: u8) -> u8 {
    if quality == NO_QUALITY {
        0
    } else {
        quality + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Version {
        value: u8,
        quality: u8,
        rule: Rule,
    }

    fn join(standing: Option<Version>, newcomer: Version) -> Version {
        let Some(standing) = standing else {
            return newcomer;
        };
        let same = (standing.value, standing.quality) == (newcomer.value, newcomer.quality);
        let side = |v: Version| Side {
            rule: v.rule,
            quality: v.quality,
        };
        let (outcome, rule) = fold(side(standing), side(newcomer), same);
        let stays = if outcome == Outcome::Wins {
            newcomer
        } else {
            standing
        };
        Version { rule, ..stays }
    }

    fn versions(other: Rule) -> impl Strategy<Value = Vec<Version>> {
        let one =
            (0_u8..3, 0_u8..3, any::<bool>()).prop_map(move |(value, quality, last)| Version {
                value,
                quality: if quality == 2 { NO_QUALITY } else { quality },
                rule: if last { Rule::Last } else { other },
            });
        proptest::collection::vec(one, 1..9)
    }

    proptest! {
        /// Wherever segments are cut, the value that stands in the end is the same.
        #[test]
        fn folding_in_pieces_gives_the_value_of_folding_one_by_one(
            all in prop_oneof![versions(Rule::First), versions(Rule::Higher)],
            cuts in proptest::collection::vec(any::<bool>(), 8),
        ) {
            let one_by_one = all.iter().fold(None, |standing, v| Some(join(standing, *v))).unwrap();
            let mut pieces: Vec<Option<Version>> = vec![None];
            for (version, cut) in all.iter().zip(cuts.iter().chain([&false])) {
                let last = pieces.last_mut().unwrap();
                *last = Some(join(*last, *version));
                if *cut {
                    pieces.push(None);
                }
            }
            let joined = pieces.into_iter().flatten().fold(None, |s, v| Some(join(s, v))).unwrap();
            prop_assert_eq!((joined.value, joined.quality), (one_by_one.value, one_by_one.quality));
        }
    }

    #[test]
    fn a_settled_version_stands_with_its_own_sequence_even_over_an_equal_one() {
        let last = Side {
            rule: Rule::Last,
            quality: NO_QUALITY,
        };
        assert_eq!(fold(last, last, false), (Outcome::Wins, Rule::Settled));
        let settled = Side {
            rule: Rule::Settled,
            quality: NO_QUALITY,
        };
        assert_eq!(fold(last, settled, true), (Outcome::Wins, Rule::Settled));
    }
}
