//! A script step tried on rows of the types that it reads, before it acts on anything.

use std::sync::Arc;

use backtide_model::ObjectName;

use super::step::script::Script;
use crate::script::{Program, SaidOfRow};

/// What a script step is to be asked, and what of its answers would do.
#[derive(Debug)]
pub struct Trial<'c> {
    pub policy: &'c ObjectName,
    /// From 1.
    pub step: usize,
    script: &'c Script,
}

impl<'c> Trial<'c> {
    pub(super) fn new(policy: &'c ObjectName, step: usize, script: &'c Script) -> Self {
        Self {
            policy,
            step,
            script,
        }
    }

    pub fn program(&self) -> Arc<Program> {
        Arc::clone(self.script.program())
    }

    /// JSON arrays of the values that it reads.
    pub fn rows(&self) -> Vec<Box<str>> {
        self.script.samples()
    }

    /// Whether what it said of [`Self::rows`] can be right.
    ///
    /// # Errors
    /// What is wrong whatever the values are, with the step.
    pub fn passes(&self, said: &[SaidOfRow]) -> Result<(), String> {
        let passes = self.script.check_said(said);
        passes.map_err(|why| format!("step {}: {why}", self.step))
    }
}
