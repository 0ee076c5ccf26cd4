//! What a message passed on its way, told from its verdict.

use backtide_model::Code;

use super::judge::Judged;
use crate::{limits::MADE_BYTES_MAX, recorder::Step};

/// The stage that refused a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Authorize,
    Decode,
    Check,
}

/// The stages that judge, up to the one that refused it.
pub(super) fn steps(judged: &Judged) -> Vec<Step> {
    let refused = judged.refused.as_ref();
    let first = refused.and_then(|refused| refused.items.first());
    let reason = first.map_or("", |item| &item.message);
    let failed = refused.map(
        |_| match (judged.code(), first.and_then(|item| item.index)) {
            (Code::NoPermission, _) => Stage::Authorize,
            (Code::ModelMismatch, _) | (_, Some(_)) => Stage::Check,
            (_, None) => Stage::Decode,
        },
    );
    let (items, values) = (judged.items, judged.values);
    let passed = [
        (
            Stage::Authorize,
            "authorize",
            "the channel may publish here".to_owned(),
        ),
        (
            Stage::Decode,
            "decode",
            match judged.is_raw {
                true => format!("the script made an envelope of {items} items"),
                false => format!("an envelope of {items} items"),
            },
        ),
        (
            Stage::Check,
            "check",
            format!("{items} items fit the model, {values} values"),
        ),
    ];
    let mut steps = Vec::new();
    for (stage, name, detail) in passed {
        let ok = failed != Some(stage);
        let detail = match (ok, stage) {
            (true, _) => detail,
            (false, Stage::Check) => {
                let fit = judged.items_stored;
                format!("{fit} of {items} items are taken: {reason}")
            }
            (false, Stage::Authorize | Stage::Decode) => reason.to_owned(),
        };
        steps.push(Step {
            stage: name.to_owned(),
            ok,
            detail,
            made: judged
                .decoded
                .as_deref()
                .filter(|_| stage == Stage::Decode)
                .map(shown),
        });
        if !ok {
            return steps;
        }
    }
    if let Some(revision) = judged.origin.policies {
        let reduced = judged.reduced;
        steps.push(Step {
            stage: "policies".to_owned(),
            ok: true,
            detail: format!("processed by revision {revision}, {reduced} values dropped"),
            made: None,
        });
    }
    steps
}

/// What a script made, as far as it is shown.
fn shown(text: &[u8]) -> String {
    let head = text.get(..MADE_BYTES_MAX).unwrap_or(text);
    let mut shown = String::from_utf8_lossy(head).into_owned();
    if head.len() < text.len() {
        shown.push('…');
    }
    shown
}
