//! How much of what a channel sends may be refused, as its file says it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of what comes by a channel may be refused before somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ErrorBudget {
    /// The share of messages that may be refused, in whole or in part: 0 to 1, below 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub refused: f64,
    /// Counted over the last so many seconds: 1 to 86400.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub window_seconds: u32,
    /// Fewer messages than these in the window say nothing.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1))]
    pub messages_min: u32,
    /// Over budget, the channel is held until it is resumed: nothing of it is taken or acknowledged.
    #[serde(default)]
    pub hold: bool,
}

const fn five_minutes() -> u32 {
    300
}

const fn twenty() -> u32 {
    20
}

pub(super) fn check(budget: &ErrorBudget) -> Result<(), String> {
    if !(0.0..1.0).contains(&budget.refused) {
        let refused = budget.refused;
        return Err(format!(
            "errorBudget.refused: {refused} is no share; give 0 up to less than 1, such as 0.2"
        ));
    }
    if !(1..=86_400).contains(&budget.window_seconds) {
        return Err("errorBudget.windowSeconds: give 1 to 86400".to_owned());
    }
    if budget.messages_min == 0 {
        return Err("errorBudget.messagesMin: give 1 or more".to_owned());
    }
    Ok(())
}
