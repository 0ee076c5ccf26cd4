//! What can be computed of the values in a window.

use std::fmt;

use backtide_model::Storage;

/// A function of the values of one point in one window. A window without values has a count of
/// zero and nothing of the others, but what still holds from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// How many values there are.
    Count,
    /// Whole numbers are added exactly, others with what rounding would lose.
    Sum,
    Min,
    Max,
    /// The mean of the values, whatever lies between them.
    Avg,
    /// The value with the least time.
    First,
    /// The value with the greatest time.
    Last,
    /// The mean over time: a value holds until the next one.
    Twa,
    /// How many milliseconds each value held: an object.
    Durations,
    /// By how much a counter grew; one that shows less than before began again at zero.
    Increase,
    /// The standard deviation of a sample: nothing for fewer than two values.
    Stddev,
    /// The least time of a value.
    FirstTime,
    /// The greatest time of a value.
    LastTime,
    /// How many spans longer than [`super::Plan::gap_ms`] have no value; of the whole range only. So are
    /// the next two.
    Gaps,
    /// The longest of them, milliseconds.
    LongestGap,
    /// The first of them, each with `from` and `to`: an array.
    GapList,
}

impl Function {
    /// Those that can be asked for by name.
    pub const ALL: [Self; 13] = [
        Self::Count,
        Self::Sum,
        Self::Min,
        Self::Max,
        Self::Avg,
        Self::First,
        Self::Last,
        Self::Twa,
        Self::Durations,
        Self::Increase,
        Self::Stddev,
        Self::FirstTime,
        Self::LastTime,
    ];

    /// As it is asked for, and as the ending of its column.
    pub fn word(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::First => "first",
            Self::Last => "last",
            Self::Twa => "twa",
            Self::Durations => "durations",
            Self::Increase => "increase",
            Self::Stddev => "stddev",
            Self::FirstTime => "firstTime",
            Self::LastTime => "lastTime",
            Self::Gaps => "gaps",
            Self::LongestGap => "longestGap",
            Self::GapList => "gapList",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|function| function.word() == word)
    }

    /// Whether it looks at values from before the window.
    pub fn looks_back(self) -> bool {
        matches!(self, Self::Twa | Self::Durations | Self::Increase)
    }

    /// Whether it can be computed of values that are stored as `storage`.
    pub fn takes(self, storage: Storage) -> bool {
        storage != Storage::Text
            || matches!(
                self,
                Self::Count
                    | Self::First
                    | Self::Last
                    | Self::Durations
                    | Self::FirstTime
                    | Self::LastTime
                    | Self::Gaps
                    | Self::LongestGap
                    | Self::GapList
            )
    }

    /// Whether its result is a moment.
    pub(super) fn is_time(self) -> bool {
        matches!(self, Self::FirstTime | Self::LastTime)
    }

    /// Whether its result is JSON, whatever the values are.
    pub(super) fn is_json(self) -> bool {
        matches!(self, Self::Durations | Self::GapList)
    }

    /// Whether a window without one may have that of others.
    pub(super) fn is_filled(self) -> bool {
        match self {
            Self::Sum
            | Self::Min
            | Self::Max
            | Self::Avg
            | Self::First
            | Self::Last
            | Self::Twa
            | Self::Durations
            | Self::Increase
            | Self::Stddev => true,
            Self::Count
            | Self::FirstTime
            | Self::LastTime
            | Self::Gaps
            | Self::LongestGap
            | Self::GapList => false,
        }
    }

    /// How its result is stored, for values that are stored as `of`.
    pub(super) fn storage(self, of: Storage) -> Storage {
        match self {
            Self::Count | Self::FirstTime | Self::LastTime | Self::Gaps | Self::LongestGap => {
                Storage::Long
            }
            Self::Min | Self::Max | Self::First | Self::Last => of,
            // Counts of a few years fit; sums of 64-bit numbers may not.
            Self::Sum if matches!(of, Storage::Bool | Storage::Int) => Storage::Long,
            Self::Sum | Self::Avg | Self::Twa | Self::Increase | Self::Stddev => Storage::Double,
            Self::Durations | Self::GapList => Storage::Text,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
