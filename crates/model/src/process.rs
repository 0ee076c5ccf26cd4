//! What policies make of the values of one row, between the check and the commit.
//!
//! The policies themselves are compiled elsewhere; the check only needs to know when they act: once
//! all values of an item are read and good, before any of them is kept.

use crate::{Cell, ConflictPolicy, ElementName, Measurepoint};

/// A value of a row that fits the model.
#[derive(Debug, Clone, PartialEq)]
pub struct PointValue {
    pub point: ElementName,
    pub conflict: ConflictPolicy,
    pub cell: Cell,
    /// 0–9, or [`NO_QUALITY`](crate::NO_QUALITY).
    pub quality: u8,
}

/// Why a policy refuses a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    pub point: ElementName,
    /// Names the policy, and says what it found.
    pub message: String,
}

/// What policies did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processed {
    /// A step had a value of the row to act on.
    pub is_touched: bool,
    /// Values that were dropped because the user said so.
    pub reduced: u32,
}

/// Policies, compiled. A pure function of the row: the same values give the same result.
pub trait Process: Sync {
    /// The point that a name the model does not declare is read as, where a policy renames it.
    fn alias(&self, name: &str) -> Option<(&ElementName, &Measurepoint)>;

    /// Acts on a row, in the declared order. A point that stands in it twice counts with its last
    /// value.
    ///
    /// # Errors
    /// Every objection; then what the row holds is of no use.
    fn row(&self, values: &mut Vec<PointValue>) -> Result<Processed, Vec<Objection>>;
}
