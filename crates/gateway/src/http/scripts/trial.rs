//! Test runs: what a script makes of an input, and what the model would say of that.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
};
use backtide_model::{Kind, Mode, ObjectName, Rules, TimeRule, check, open};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Api, Problem, as_value, found, read, version_of};
use crate::{
    http::Refusals,
    registry::{Declared, Document, Fault, Product, RuleFile, ScriptFile, ScriptVersion, Snapshot},
    script::{Call, Detail, Failure, Golden, Input, Operation, Program, Verdict},
};

/// Reasons of the model named in an answer.
const REASONS_MAX: usize = 50;

/// What is to be run: one of `decode`, `encode`, `golden`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = ScriptTest)]
pub(in crate::http) struct Run {
    /// A version, `live` or `draft`; the draft unless given, or the live one without a draft.
    #[serde(default)]
    version: Option<String>,
    /// Bytes to decode.
    #[serde(default)]
    decode: Option<Input>,
    /// A JSON document to encode.
    #[serde(default)]
    encode: Option<Value>,
    /// What the script's clock says, milliseconds since 1970 UTC; now unless given.
    #[serde(default)]
    time: Option<i64>,
    /// Golden tests; without any, those that the version has.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    golden: Option<Vec<Golden>>,
    /// Keep these golden tests with the draft: publishing it runs them again.
    #[serde(default)]
    keep: bool,
}

/// What came of a test run.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScriptTestOutcome)]
pub(in crate::http) struct Outcome {
    /// Which version ran, such as `frames@3` or `frames (draft)`.
    script: String,
    /// What was decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    decoded: Option<Value>,
    /// The bytes that were encoded, as hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoded: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    failure: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    console: Option<String>,
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<f64>,
    /// The script's memory behind the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    heap_bytes: Option<u64>,
    /// What would become of the decoded message on a strict channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelVerdict>,
    /// How each golden test went.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    golden: Option<Vec<Verdict>>,
}

/// What the model says of a decoded message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScriptModelVerdict)]
struct ModelVerdict {
    #[schema(value_type = u16)]
    code: backtide_model::Code,
    items: u32,
    /// Items that would be stored.
    good: u32,
    rejected: Vec<Reason>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScriptModelReason)]
struct Reason {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    point: Option<String>,
    #[schema(value_type = u16)]
    code: backtide_model::Code,
    message: String,
}

/// Run a script on an input, or its golden tests; nothing is stored but golden tests to keep
#[utoipa::path(post, path = "/api/v1/scripts/{name}/test", tag = "scripts", operation_id = "test_script",
    params(("name" = String, Path, description = "Its name")),
    request_body(content((Run = "application/json"))),
    responses((status = 200, description = "What came of it, a failure of the script too", body = Outcome), Refusals))]
pub(super) async fn test(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Outcome>, Problem> {
    let run: Run = read(&body?)?;
    let script = found(&api, &name)?;
    let word = match (&run.version, &script.draft) {
        (Some(word), _) => word.as_str(),
        (None, Some(_)) => "draft",
        (None, None) => "live",
    };
    let version = version_of(&script, word)?;
    let label = version.program.label();
    let mut outcome = match (run.decode, run.encode) {
        (Some(input), None) => decode(&api, version, bytes(&input)?, run.time).await,
        (None, Some(value)) => encode(&api, version, &value, run.time).await,
        (None, None) => golden(&api, version, run.golden, run.keep).await?,
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request(
                "body",
                "give one of decode and encode",
            ));
        }
    };
    outcome.script = label;
    Ok(Json(outcome))
}

/// # Errors
/// The input is not of the form that it is said to be of.
fn bytes(input: &Input) -> Result<Vec<u8>, Problem> {
    input
        .bytes()
        .map_err(|detail| Problem::bad_request("decode", detail))
}

async fn run(
    api: &Api,
    version: &ScriptVersion,
    operation: Operation,
    input: Vec<u8>,
    time_ms: Option<i64>,
) -> (Option<Bytes>, Outcome) {
    let call = Call {
        operation,
        input: input.into(),
        time_ms: time_ms.unwrap_or_else(|| api.clock.now_ms()),
    };
    let done = api
        .scripts
        .run(&version.program, vec![call], Detail::Everything)
        .await;
    let Some(done) = done.into_iter().next() else {
        return (None, Outcome::default());
    };
    let (output, failure) = match done.outcome {
        Ok(output) => (Some(output), None),
        Err(failure) => (None, Some(failure)),
    };
    let outcome = Outcome {
        failure,
        console: Some(done.console.into()),
        cpu_ms: Some(f64::from(done.cpu_us) / 1_000.0),
        heap_bytes: Some(done.heap_bytes),
        ..Outcome::default()
    };
    (output, outcome)
}

async fn decode(
    api: &Api,
    version: &ScriptVersion,
    input: Vec<u8>,
    time_ms: Option<i64>,
) -> Outcome {
    let (output, outcome) = run(api, version, Operation::Decode, input, time_ms).await;
    let snapshot = api.registry.snapshot();
    let product = snapshot.product(&version.file.product);
    Outcome {
        decoded: output.as_deref().and_then(as_value),
        model: output
            .as_deref()
            .zip(product)
            .map(|(text, product)| model_verdict(product, text, api.clock.now_ms())),
        ..outcome
    }
}

async fn encode(
    api: &Api,
    version: &ScriptVersion,
    value: &Value,
    time_ms: Option<i64>,
) -> Outcome {
    let input = value.to_string().into_bytes();
    let (output, outcome) = run(api, version, Operation::Encode, input, time_ms).await;
    Outcome {
        encoded: output.map(hex::encode),
        ..outcome
    }
}

async fn golden(
    api: &Api,
    version: &Arc<ScriptVersion>,
    given: Option<Vec<Golden>>,
    keep: bool,
) -> Result<Outcome, Problem> {
    let golden = match given {
        Some(golden) => {
            for one in &golden {
                one.check()
                    .map_err(|message| Problem::bad_request("golden", message))?;
            }
            if keep {
                keep_golden(api, version, golden.clone()).await?;
            }
            golden
        }
        None => version.file.golden.clone(),
    };
    Ok(Outcome {
        golden: Some(api.scripts.test(&version.program, &golden).await),
        ..Outcome::default()
    })
}

/// Keeps golden tests with the draft, in the place of those that it had.
async fn keep_golden(
    api: &Api,
    version: &ScriptVersion,
    golden: Vec<Golden>,
) -> Result<(), Problem> {
    if version.number.is_some() {
        let detail = "a published version never changes: golden tests are kept with a draft";
        return Err(Problem::bad_request("keep", detail));
    }
    let name = version.program.name.to_string();
    let file = ScriptFile {
        golden,
        ..version.file.clone()
    };
    let registry = Arc::clone(&api.registry);
    api.pool
        .run(move || registry.draft_script(&name, file))
        .await??;
    Ok(())
}

fn model_verdict(product: &Product, text: &[u8], now_ms: i64) -> ModelVerdict {
    let stamps_arrival =
        !product.channels.is_empty() && product.channels.iter().all(|c| c.stamp_arrival);
    let rules = Rules {
        model: &product.model,
        mode: Mode::Strict,
        time: match stamps_arrival {
            true => TimeRule::Arrival { now_ms },
            false => TimeRule::Required,
        },
        conflict: backtide_model::ConflictPolicy::default(),
        // A trial is of the script and the model; policies belong to channels.
        policies: None,
        oldest: None,
    };
    let envelope = match open(text, Kind::Raw, Mode::Strict) {
        Ok(envelope) => envelope,
        Err(fault) => {
            let reason = Reason {
                index: None,
                device_key: None,
                point: None,
                code: fault.code,
                message: fault.message,
            };
            return ModelVerdict {
                code: fault.code,
                items: 0,
                good: 0,
                rejected: vec![reason],
            };
        }
    };
    let checked = check(envelope.items, envelope.params, &rules, |key| {
        product.find_device(key)
    });
    let code = checked.code();
    let reasons = checked.rejections.into_iter().take(REASONS_MAX);
    ModelVerdict {
        code,
        items: checked.items,
        good: checked.items_good,
        rejected: reasons
            .map(|rejection| Reason {
                index: Some(rejection.index),
                device_key: rejection.device.map(Into::into),
                point: rejection.point.map(Into::into),
                code: rejection.code,
                message: rejection.message,
            })
            .collect(),
    }
}

/// Tries every script among documents that are to be applied and would run anew.
///
/// # Errors
/// A fault for each that must not go live.
pub(in crate::http) async fn trials(api: &Api, documents: &[Document]) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    let snapshot = api.registry.snapshot();
    for document in documents {
        if let Declared::Rule(name, file) = &document.declared {
            if let Err(message) = trial_of_rule(api, &snapshot, name, file).await {
                faults.push(Fault {
                    place: document.place,
                    object: Some(document.declared.object()),
                    message,
                });
            }
            continue;
        }
        let Declared::Script(name, file) = &document.declared else {
            continue;
        };
        let live = snapshot
            .script(name)
            .and_then(|script| script.live.as_ref());
        if live.is_some_and(|live| live.file == **file) {
            continue;
        }
        let outcome = match ScriptVersion::untried(name, ScriptFile::clone(file)) {
            Ok(version) => {
                let trial = api.scripts.trial(&version.program, &file.golden).await;
                trial.map_err(|failure| failure.to_string())
            }
            Err(message) => Err(message),
        };
        if let Err(message) = outcome {
            faults.push(Fault {
                place: document.place,
                object: Some(document.declared.object()),
                message,
            });
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(faults),
    }
}

/// Whether the script of a rule, where it has one, is a script with the function it needs.
async fn trial_of_rule(
    api: &Api,
    snapshot: &Snapshot,
    name: &ObjectName,
    file: &RuleFile,
) -> Result<(), String> {
    let Some(source) = file.script() else {
        return Ok(());
    };
    let declared = snapshot.rule(name).and_then(|rule| rule.file.script());
    if declared == Some(source) {
        return Ok(());
    }
    let program = Arc::new(Program::transform(name.as_str(), None, source.into())?);
    let trial = api.scripts.trial(&program, &[]).await;
    trial
        .map(drop)
        .map_err(|failure| format!("make: script: {failure}"))
}
