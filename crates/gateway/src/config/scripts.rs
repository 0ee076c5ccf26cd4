//! Limits of scripts.

use serde::{Deserialize, Serialize};

use super::{
    ConfigError,
    check::{at_least, require},
};
use crate::limits;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawScripts {
    workers: usize,
    cpu_soft_ms: u64,
    cpu_hard_ms: u64,
    heap_bytes_max: usize,
    stack_bytes_max: usize,
    output_nodes_max: usize,
    output_depth_max: usize,
    console_bytes_max: usize,
}

impl Default for RawScripts {
    fn default() -> Self {
        let limits = limits::Scripts::default();
        Self {
            workers: limits.workers,
            cpu_soft_ms: limits.cpu_soft_ms,
            cpu_hard_ms: limits.cpu_hard_ms,
            heap_bytes_max: limits.heap_bytes_max,
            stack_bytes_max: limits.stack_bytes_max,
            output_nodes_max: limits.output_nodes_max,
            output_depth_max: limits.output_depth_max,
            console_bytes_max: limits.console_bytes_max,
        }
    }
}

impl RawScripts {
    pub(super) fn check(&self) -> Result<limits::Scripts, ConfigError> {
        at_least("scripts.workers", Some(self.workers), 1)?;
        at_least("scripts.cpu_soft_ms", Some(self.cpu_soft_ms), 1)?;
        at_least(
            "scripts.cpu_hard_ms",
            Some(self.cpu_hard_ms),
            self.cpu_soft_ms,
        )?;
        // The worker's clock ticks in hundredths of a second.
        at_least("scripts.cpu_hard_ms", Some(self.cpu_hard_ms), 50)?;
        at_least("scripts.heap_bytes_max", Some(self.heap_bytes_max), 1 << 20)?;
        // Beyond, the worker's own stack might end first.
        at_least(
            "scripts.stack_bytes_max",
            Some(self.stack_bytes_max),
            64 << 10,
        )?;
        require(
            "scripts.stack_bytes_max",
            self.stack_bytes_max <= 4 << 20,
            || format!("{} is above {}", self.stack_bytes_max, 4 << 20),
        )?;
        require(
            "scripts.output_depth_max",
            (1..=100).contains(&self.output_depth_max),
            || format!("{} is not between 1 and 100", self.output_depth_max),
        )?;
        at_least("scripts.output_nodes_max", Some(self.output_nodes_max), 1)?;
        Ok(limits::Scripts {
            workers: self.workers,
            cpu_soft_ms: self.cpu_soft_ms,
            cpu_hard_ms: self.cpu_hard_ms,
            heap_bytes_max: self.heap_bytes_max,
            stack_bytes_max: self.stack_bytes_max,
            output_nodes_max: self.output_nodes_max,
            output_depth_max: self.output_depth_max,
            console_bytes_max: self.console_bytes_max,
            ..limits::Scripts::default()
        })
    }
}
