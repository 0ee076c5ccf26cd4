//! What a message passed on its way, told from its verdict.

use backtide_model::Code;

use super::judge::Judged;
use crate::recorder::Step;

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
            format!("an envelope of {items} items"),
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
            made: None,
        });
        if !ok {
            break;
        }
    }
    steps
}
