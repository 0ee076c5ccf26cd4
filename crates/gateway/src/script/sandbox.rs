//! Where a script runs: an engine of its own, inside of a confined process.

mod confine;
mod engine;
mod output;
#[cfg(test)]
mod rows_tests;
#[cfg(test)]
mod tests;

pub(super) use confine::confine;
pub(super) use engine::Sandbox;
