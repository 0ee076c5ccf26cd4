//! Which of two versions of one value stays. Everybody who joins versions asks here: the flush
//! within a memtable, merges, reads and the classification of conflicts.
//!
//! The meaning is sequential: each version in order of commit meets the one that stands. Equal
//! (value and quality, floats by their bits): a duplicate; the value that stands is from now on of
//! the later commit, but with keep-first. Different: a conflict, and the *later* one's policy
//! decides.
//!
//! A version may come later than its order says: a re-driven one has the order of its first
//! arrival. So a fold asks for orders and not for who came first. For that a duplicate must leave
//! the *last* commit that said the value (keep-first: the first): only then is a value that was
//! said, contradicted and said again safe from the contradiction when that is re-driven. (Before the
//! first refusal there is nothing to re-drive: a duplicate leaves the first commit then.) With one
//! policy, joining is then the same in whatever order versions meet: the greatest order stays
//! (keep-first: the least; higher-quality: the greatest of the highest quality).
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

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use backtide_model::{ConflictPolicy, NO_QUALITY};

use crate::Sequence;

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
    /// Equal to the standing version, and of a later commit: it stands from now on.
    Confirms,
    /// Different, and refused.
    Refused,
    /// Different, and stands from now on.
    Wins,
}

impl Outcome {
    pub(super) fn is_duplicate(self) -> bool {
        matches!(self, Self::Duplicate | Self::Confirms)
    }

    pub(super) fn newcomer_stands(self) -> bool {
        matches!(self, Self::Confirms | Self::Wins)
    }
}

/// One side of a fold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    pub(super) rule: Rule,
    /// 0–9 or [`NO_QUALITY`].
    pub(super) quality: u8,
    /// Its place in the order of commits.
    pub(super) order: u64,
}

/// Folds a newcomer into what stands; `same` says whether value and quality are equal. Gives the
/// outcome and the rule of whichever stands afterwards.
pub(super) fn fold(
    standing: Side,
    newcomer: Side,
    same: bool,
    refusals: FirstRefusal,
) -> (Outcome, Rule) {
    if newcomer.order < standing.order {
        return fold_late(standing, newcomer, same);
    }
    match fold_in_order(standing, newcomer, same) {
        (Outcome::Confirms, rule) if newcomer.order <= refusals.0 => (Outcome::Duplicate, rule),
        folded => folded,
    }
}

/// The first commit that refused something. Nothing is re-driven to a place before it: up to there a
/// duplicate leaves the first commit that said the value, and a resend changes nothing on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FirstRefusal(pub(super) u64);

/// The [`FirstRefusal`] of a store as it is known by now. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Refusals(Arc<AtomicU64>);

impl Refusals {
    /// `first` is `None` where nothing was ever refused.
    pub(super) fn new(first: Option<u64>) -> Self {
        Self(Arc::new(AtomicU64::new(first.unwrap_or(u64::MAX))))
    }

    pub(crate) fn note(&self, at: Sequence) {
        self.0.fetch_min(at.0, Ordering::Relaxed);
    }

    pub(super) fn first(&self) -> FirstRefusal {
        FirstRefusal(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn known(&self) -> Option<u64> {
        Some(self.first().0).filter(|first| *first < u64::MAX)
    }
}

/// What stands is of a later commit than the newcomer. Its policy may be forgotten (a merge of all
/// there is drops the rules), so the newcomer's decides: a point or channel has one.
fn fold_late(standing: Side, newcomer: Side, same: bool) -> (Outcome, Rule) {
    match newcomer.rule {
        Rule::First if same => (Outcome::Confirms, Rule::First),
        Rule::First => (Outcome::Wins, Rule::First),
        Rule::Last | Rule::Settled | Rule::Higher if same => (Outcome::Duplicate, standing.rule),
        Rule::Higher if rank(newcomer.quality) > rank(standing.quality) => {
            (Outcome::Wins, Rule::Higher)
        }
        Rule::Higher => (Outcome::Refused, standing.rule),
        Rule::Last | Rule::Settled if standing.rule.is_absolute() => {
            (Outcome::Refused, Rule::Settled)
        }
        Rule::Last | Rule::Settled => (Outcome::Refused, standing.rule),
    }
}

fn fold_in_order(standing: Side, newcomer: Side, same: bool) -> (Outcome, Rule) {
    match newcomer.rule {
        Rule::Settled => (Outcome::Wins, Rule::Settled),
        Rule::Last if same && standing.rule.is_absolute() => (Outcome::Confirms, standing.rule),
        Rule::Last if same => (Outcome::Confirms, Rule::Last),
        Rule::Last if standing.rule.is_absolute() => (Outcome::Wins, Rule::Settled),
        Rule::Last => (Outcome::Wins, Rule::Last),
        Rule::First if same => (Outcome::Duplicate, standing.rule),
        Rule::First => (Outcome::Refused, standing.rule),
        Rule::Higher if same => (Outcome::Confirms, standing.rule),
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
        order: u64,
    }

    fn join(standing: Option<Version>, newcomer: Version) -> Version {
        let Some(standing) = standing else {
            return newcomer;
        };
        let same = (standing.value, standing.quality) == (newcomer.value, newcomer.quality);
        let side = |v: Version| Side {
            rule: v.rule,
            quality: v.quality,
            order: v.order,
        };
        let (outcome, rule) = fold(side(standing), side(newcomer), same, FirstRefusal(0));
        let stays = if outcome.newcomer_stands() {
            newcomer
        } else {
            standing
        };
        Version { rule, ..stays }
    }

    fn version(rules: [Rule; 2]) -> impl Strategy<Value = Version> {
        (0_u8..3, 0_u8..3, any::<bool>()).prop_map(move |(value, quality, last)| Version {
            value,
            quality: if quality == 2 { NO_QUALITY } else { quality },
            rule: rules[usize::from(last)],
            order: 0,
        })
    }

    /// Versions in order of commit.
    fn versions(other: Rule) -> impl Strategy<Value = Vec<Version>> {
        proptest::collection::vec(version([other, Rule::Last]), 1..9).prop_map(|mut all| {
            for (version, order) in all.iter_mut().zip(1..) {
                version.order = order;
            }
            all
        })
    }

    /// Joins pieces of them, then the pieces.
    fn in_pieces(all: &[Version], cuts: &[bool]) -> Version {
        let mut pieces: Vec<Option<Version>> = vec![None];
        for (version, cut) in all.iter().zip(cuts.iter().chain([&false])) {
            let last = pieces.last_mut().unwrap();
            *last = Some(join(*last, *version));
            if *cut {
                pieces.push(None);
            }
        }
        let pieces = pieces.into_iter().flatten();
        pieces.fold(None, |s, v| Some(join(s, v))).unwrap()
    }

    proptest! {
        /// Wherever segments are cut, the value that stands in the end is the same.
        #[test]
        fn folding_in_pieces_gives_the_value_of_folding_one_by_one(
            all in prop_oneof![versions(Rule::First), versions(Rule::Higher)],
            cuts in proptest::collection::vec(any::<bool>(), 8),
        ) {
            let one_by_one = all.iter().fold(None, |standing, v| Some(join(standing, *v))).unwrap();
            let joined = in_pieces(&all, &cuts);
            prop_assert_eq!((joined.value, joined.quality), (one_by_one.value, one_by_one.quality));
        }

        /// With one policy, and whenever versions come, what stands is what would stand had they
        /// come in order.
        #[test]
        fn what_comes_late_finds_its_place(
            (ordered, shuffled) in prop_oneof![Just(Rule::Last), Just(Rule::First), Just(Rule::Higher)]
                .prop_flat_map(|rule| proptest::collection::vec(version([rule, rule]), 1..9))
                .prop_map(|mut all| {
                    all.iter_mut().zip(1..).for_each(|(version, order)| version.order = order);
                    all
                })
                .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            cuts in proptest::collection::vec(any::<bool>(), 8),
        ) {
            let in_order = ordered.iter().fold(None, |s, v| Some(join(s, *v))).unwrap();
            let joined = in_pieces(&shuffled, &cuts);
            prop_assert_eq!(
                (joined.value, joined.quality, joined.order),
                (in_order.value, in_order.quality, in_order.order)
            );
        }
    }

    #[test]
    fn a_settled_version_stands_with_its_own_sequence_even_over_an_equal_one() {
        let last = |order| Side {
            rule: Rule::Last,
            quality: NO_QUALITY,
            order,
        };
        assert_eq!(
            fold(last(1), last(2), false, FirstRefusal(0)),
            (Outcome::Wins, Rule::Settled)
        );
        let settled = Side {
            rule: Rule::Settled,
            ..last(2)
        };
        assert_eq!(
            fold(last(1), settled, true, FirstRefusal(0)),
            (Outcome::Wins, Rule::Settled)
        );
    }
}
