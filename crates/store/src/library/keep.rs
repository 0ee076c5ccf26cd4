//! What of a product is kept: a floor for each point, and whether a point is thinned.
//!
//! A [`Keep`] is a rule of the moment, set by whoever knows the policies. Reads show what it says at
//! once; what it hides goes from the disk in merges. Both ask the same pure functions ([`super::thin`]),
//! so a read gives the same before and after a merge has done its work.

use std::collections::BTreeMap;

use backtide_model::ElementName;

use crate::Sequence;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// What is below is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Values with an earlier event time, in milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Values that were committed before.
    pub sequence: Sequence,
}

impl Floor {
    /// Everything is kept.
    pub const NONE: Self = Self {
        time_ms: i64::MIN,
        sequence: Sequence(0),
    };

    /// Whether a value of this time and commit stays.
    pub(super) fn keeps(&self, time_ms: i64, sequence: u64) -> bool {
        time_ms >= self.time_ms && sequence >= self.sequence.0
    }
}

impl Default for Floor {
    fn default() -> Self {
        Self::NONE
    }
}

/// Which values of a point stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Thinning {
    /// The last of each minute, by event time.
    Minute,
    /// Those that differ from the one before, by event time, and the first of each UTC day: so that
    /// nobody has to look back further than a day for the state of a moment.
    Changes,
}

impl Thinning {
    /// Values of different windows have nothing to do with each other.
    pub(super) fn window_ms(self) -> i64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::Changes => DAY_MS,
        }
    }

    /// As a segment's metadata has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Changes => "changes",
        }
    }
}

/// A thinning, and of which values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thin {
    pub kind: Thinning,
    /// Only windows that end at or before, milliseconds since 1970 UTC; [`i64::MAX`]: all of them.
    pub before_ms: i64,
    /// Of [`Thinning::Changes`]: a window with a commit from here on is not quiet yet, and its
    /// values stay on the disk.
    pub quiet: Sequence,
}

impl Thin {
    /// Of every value, at once.
    pub(super) fn all(kind: Thinning) -> Self {
        Self {
            kind,
            before_ms: i64::MAX,
            quiet: Sequence(u64::MAX),
        }
    }

    /// The window that a time falls in, where it is thinned at all.
    pub(super) fn window(self, time_ms: i64) -> Option<i64> {
        let window_ms = self.kind.window_ms();
        (time_ms < down(self.before_ms, window_ms)).then(|| time_ms.div_euclid(window_ms))
    }
}

/// What of a point is kept. Of a point that is thinned the floor lies between two windows, so that what
/// a window shows does not change while the floor passes through it: rather a little more is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PointKeep {
    floor: Floor,
    thin: Option<Thin>,
}

impl PointKeep {
    pub fn new(floor: Floor, thin: Option<Thin>) -> Self {
        let time_ms = match thin {
            Some(thin) => down(floor.time_ms, thin.kind.window_ms()),
            None => floor.time_ms,
        };
        Self {
            floor: Floor { time_ms, ..floor },
            thin,
        }
    }

    pub fn floor(&self) -> Floor {
        self.floor
    }

    pub fn thin(&self) -> Option<Thin> {
        self.thin
    }
}

/// What of a product's events, or of its attributes' history, is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKeep {
    /// Those with an earlier event time go, milliseconds since 1970 UTC. Attributes have none.
    pub time_ms: i64,
    /// Those that arrived earlier go; attribute values where they were said last, and are in force no
    /// longer.
    pub arrived_ms: i64,
}

impl RecordKeep {
    /// Everything is kept.
    pub const ALL: Self = Self {
        time_ms: i64::MIN,
        arrived_ms: i64::MIN,
    };
}

impl Default for RecordKeep {
    fn default() -> Self {
        Self::ALL
    }
}

/// What of a product is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keep {
    /// Of points that are not named.
    pub rest: PointKeep,
    pub points: BTreeMap<ElementName, PointKeep>,
    pub events: RecordKeep,
    pub attributes: RecordKeep,
}

impl Keep {
    /// From this moment on every value of some points is shown that is not earlier than `from_ms`, where
    /// that is one moment for all of them: then a row is shown if it is there.
    pub(super) fn all_shown_from(&self, points: &[ElementName], from_ms: i64) -> Option<i64> {
        let shown_from = |point: &ElementName| {
            let keep = self.of(point);
            let is_thinned = keep.thin().is_some_and(|thin| thin.before_ms > from_ms);
            let floor = keep.floor();
            (!is_thinned && floor.sequence.0 == 0).then_some(floor.time_ms)
        };
        let mut all = points.iter().map(shown_from);
        let first = all.next().unwrap_or(Some(i64::MIN))?;
        all.all(|one| one == Some(first)).then_some(first)
    }

    pub fn of(&self, point: &ElementName) -> &PointKeep {
        self.points.get(point).unwrap_or(&self.rest)
    }

    pub(super) fn has(&self, kind: Thinning) -> bool {
        let all = self.points.values().chain([&self.rest]);
        all.filter_map(|keep| keep.thin)
            .any(|thin| thin.kind == kind)
    }

    /// Below it, nothing of these points is kept.
    pub(super) fn lowest<'p>(&self, points: impl Iterator<Item = &'p ElementName>) -> Floor {
        let floors = points.map(|point| self.of(point).floor);
        let lowest = floors.reduce(|a, b| Floor {
            time_ms: a.time_ms.min(b.time_ms),
            sequence: a.sequence.min(b.sequence),
        });
        lowest.unwrap_or(self.rest.floor)
    }

    /// The first commit that counts for any rule by import: up to there a duplicate may leave the first
    /// commit that said the value; from there on it must leave the last, from which its age counts.
    pub(super) fn by_import_from(&self) -> Option<u64> {
        let floors = self.points.values().chain([&self.rest]);
        let sequences = floors.map(|keep| keep.floor.sequence.0);
        sequences.filter(|sequence| *sequence > 0).min()
    }
}

/// A thinner view of values than they are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// As they are kept.
    #[default]
    Kept,
    /// Of what is kept.
    Thinned(Thinning),
}

/// The beginning of the window that a time falls in.
pub(super) fn down(time_ms: i64, window_ms: i64) -> i64 {
    match time_ms {
        i64::MIN | i64::MAX => time_ms,
        time_ms => time_ms - time_ms.rem_euclid(window_ms),
    }
}

/// The end of the window that a time falls in, unless it begins there.
pub(super) fn up(time_ms: i64, window_ms: i64) -> i64 {
    let begin_ms = down(time_ms, window_ms);
    match begin_ms == time_ms {
        true => time_ms,
        false => begin_ms.saturating_add(window_ms),
    }
}
