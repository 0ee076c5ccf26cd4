//! Processing: what the user wants done to values between the check and the commit.
//!
//! A policy's file lists steps ([`file`]); for each channel the steps of all policies that apply to it
//! are lowered once, in order, to a [`Chain`] that acts on one row at a time. A chain is a pure
//! function: no clock, no memory of other rows, so that history that arrives shuffled or twice gives
//! the same values.

//!
//! ```text
//! chain ─▶ step ─┬ linear, clamp, range, moving (rename, copy), compute (expression)
//!    │           └ script ─▶ answers: a table; what is missing is asked of worker processes by whoever drives
//!    └ slots: where the values of a row are
//! ```

mod analysis;
mod answers;
mod chain;
mod expression;
mod file;
mod number;
#[cfg(test)]
mod script_tests;
mod slots;
mod step;
#[cfg(test)]
mod tests;
mod trial;
mod unit;

pub use analysis::{
    Keep, Pace, ReductionFile, ReductionPlan, RollupFile, RollupPlan, check_derived, is_number,
    points_of,
};
pub use answers::{Answers, Pass, Question};
pub use chain::{Chain, Part, Step, StepFault};
pub use file::{Bounds, Otherwise, RangeStep, ScaleStep, ScriptStep, StepFile, UnitStep};
pub use step::script::Programs;
pub use trial::Trial;
