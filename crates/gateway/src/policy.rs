//! Processing: what the user wants done to values between the check and the commit.
//!
//! A policy's file lists steps ([`file`]); for each channel the steps of all policies that apply to it
//! are lowered once, in order, to a [`Chain`] that acts on one row at a time. A chain is a pure
//! function: no clock, no memory of other rows, so that history that arrives shuffled or twice gives
//! the same values.

mod analysis;
mod chain;
mod expression;
mod file;
mod unit;

pub use analysis::{
    Keep, Pace, ReductionFile, ReductionPlan, RollupFile, RollupPlan, check_derived, is_number,
    points_of,
};
pub use chain::{Chain, Part, Step, StepFault};
pub use file::{Bounds, Otherwise, RangeStep, ScaleStep, StepFile, UnitStep};
