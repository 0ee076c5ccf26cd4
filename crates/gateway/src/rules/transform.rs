//! The script of a rule: messages go to the workers together, and come back as messages.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::plan::{Made, Source};
use crate::{
    limits::RULE_MESSAGES_PER_ROW_MAX,
    message::header,
    script::{Call, Cause, Detail, Operation, Program, Scripts},
};

/// Why a message has no result: the script's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) source: Source,
    pub(super) reason: String,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

/// What a script made of messages.
#[derive(Debug, Default)]
pub(super) struct Transformed {
    pub(super) made: Vec<Made>,
    pub(super) misfits: Vec<Misfit>,
    /// What it printed, in a test.
    pub(super) console: String,
}

/// Runs the script over messages, in order.
///
/// # Errors
/// No worker can be had: to be tried again.
pub(super) async fn transform(
    scripts: &Scripts,
    program: &Arc<Program>,
    messages: Vec<Made>,
    detail: Detail,
) -> Result<Transformed, String> {
    let calls = messages.iter().map(|made| Call {
        operation: Operation::Decode,
        input: made.record.value.clone(),
        time_ms: made.arrived_ms,
    });
    let done = scripts.run(program, calls.collect(), detail).await;
    let mut out = Transformed::default();
    for (message, done) in messages.into_iter().zip(done) {
        out.console.push_str(&done.console);
        let source = message.source;
        match done.outcome {
            Ok(text) => match spread(&message, &text) {
                Ok(made) => out.made.extend(made),
                Err(reason) => out.misfits.push(Misfit {
                    source,
                    reason: format!("script {}: {reason}", program.label()),
                    line: None,
                    column: None,
                }),
            },
            Err(failure) if failure.cause == Cause::Unavailable => return Err(failure.message),
            Err(failure) => out.misfits.push(Misfit {
                source,
                reason: format!("script {}: {failure}", program.label()),
                line: failure.line,
                column: failure.column,
            }),
        }
    }
    Ok(out)
}

/// The messages that a script's result is: none, one, or an array of them.
fn spread(message: &Made, text: &Bytes) -> Result<Vec<Made>, String> {
    let json = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let with = |value: &str, place: usize| {
        let mut made = message.clone();
        made.record.value = text.slice_ref(value.as_bytes());
        if place > 0 {
            // The row is one, the messages are several: each has an identity of its own.
            for (name, value) in &mut made.record.headers {
                if name == header::SEQUENCE {
                    let text = format!("{}.{place}", String::from_utf8_lossy(value));
                    *value = text.into();
                }
            }
        }
        made
    };
    match json.as_bytes().first() {
        Some(b'n') => Ok(Vec::new()),
        Some(b'{') => Ok(vec![with(json, 0)]),
        Some(b'[') => {
            let items: Vec<&RawValue> =
                serde_json::from_str(json).map_err(|error| error.to_string())?;
            if items.len() > RULE_MESSAGES_PER_ROW_MAX {
                return Err(format!(
                    "it returned {} messages, at most {RULE_MESSAGES_PER_ROW_MAX} are taken",
                    items.len()
                ));
            }
            if let Some(place) = items.iter().position(|item| !item.get().starts_with('{')) {
                return Err(format!("item {place} of what it returned is no message"));
            }
            Ok(items
                .iter()
                .enumerate()
                .map(|(place, item)| with(item.get(), place))
                .collect())
        }
        _ => Err("it returned neither a message nor an array of messages nor null".to_owned()),
    }
}
