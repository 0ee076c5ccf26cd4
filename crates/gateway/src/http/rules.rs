//! `/api/v1/rules`, how they stand, their verbs, tests and dead letters.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    objects::{self, ListParams, Page},
    problem::{Body, Params, limit},
};
use crate::{
    limits::RULE_SECRET_BYTES_MAX,
    query,
    registry::{Declared, Form, Kind, Registry, Rule, Run, read, refused},
    rules::{
        AskError, DeadLetter, DrawerError, Letters, Phase, Sample, Standing, Trial, TrialError,
    },
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
        .routes(routes!(statuses))
        .routes(routes!(status))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(secret))
        .routes(routes!(replay))
        .routes(routes!(test))
        .routes(routes!(test_file))
        .routes(routes!(letters))
        .routes(routes!(letter))
        .routes(routes!(redrive))
        .routes(routes!(discard))
}

/// List rules
#[utoipa::path(get, path = "/api/v1/rules", tag = "objects", operation_id = "list_rules",
    params(ListParams),
    responses((status = 200, description = "A page of rules", body = ref("#/components/schemas/RulePage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::Rule, &[])?;
    let snapshot = api.registry.snapshot();
    let found = snapshot.rules_after(after.as_deref());
    let found = found.map(|rule| (rule.name.as_str(), &rule.file));
    objects::page_of(&params, Kind::Rule, found)
}

/// Show a rule
#[utoipa::path(get, path = "/api/v1/rules/{name}", tag = "objects", operation_id = "get_rule",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The rule, as apply takes it", body = ref("#/components/schemas/Rule")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let rule = declared(&api, &name)?;
    Ok(objects::one(Kind::Rule, &name, &rule.file))
}

/// Delete a rule, its place in the log and its dead letters
#[utoipa::path(delete, path = "/api/v1/rules/{name}", tag = "objects", operation_id = "delete_rule",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Rule, name, None).await
}

/// How a rule stands: its cursor, its lag, what it published, what is wrong.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RuleStatus)]
struct Status {
    name: String,
    /// points, events or attributes.
    #[serde(rename = "type")]
    contents: &'static str,
    /// kafka, webhook or calculated.
    destination: &'static str,
    /// The version of the rule: grows by one with every change.
    version: u32,
    /// running, stopped, idle (it has nowhere to go and keeps no log) or failed.
    state: &'static str,
    /// Why it is idle or failed, and how to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// It has a secret.
    has_secret: bool,
    /// Absent where it does not run.
    #[serde(flatten)]
    standing: Option<Standing>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RuleStatuses)]
struct Statuses {
    items: Vec<Status>,
}

/// How all rules stand
#[utoipa::path(get, path = "/api/v1/rule-status", tag = "rules", operation_id = "rule_statuses",
    responses((status = 200, description = "In the order of their names", body = Statuses), Refusals))]
async fn statuses(State(api): State<Arc<Api>>) -> Json<Statuses> {
    let snapshot = api.registry.snapshot();
    let items = snapshot.rules_after(None).map(|rule| stands(&api, rule));
    Json(Statuses {
        items: items.collect(),
    })
}

/// How a rule stands: cursor, lag, dead letters, replay
#[utoipa::path(get, path = "/api/v1/rules/{name}/status", tag = "rules", operation_id = "rule_status",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "How it stands", body = Status), Refusals))]
async fn status(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(stands(&api, &*declared(&api, &name)?)))
}

/// Let a stopped rule follow the log again, from where it was
#[utoipa::path(post, path = "/api/v1/rules/{name}/start", tag = "rules", operation_id = "start_rule",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is started", body = Status), Refusals))]
async fn start(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    set_stopped(&api, name, false).await
}

/// Publish nothing, and hold the log no longer
#[utoipa::path(post, path = "/api/v1/rules/{name}/stop", tag = "rules", operation_id = "stop_rule",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is stopped", body = Status), Refusals))]
async fn stop(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    set_stopped(&api, name, true).await
}

async fn set_stopped(api: &Api, name: String, stopped: bool) -> Result<Json<Status>, Problem> {
    let change = move |registry: &Registry| registry.set_rule_stopped(&name, stopped);
    let changed = objects::change(api, change).await?;
    tracing::info!(target: "audit", rule = %changed.name, stopped, "the rule was switched");
    // Whoever asks next finds it so.
    api.rules.agree_soon().await;
    Ok(Json(stands(api, &changed)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RuleSecret)]
struct Secret {
    /// What `${secret}` stands for in the rule's headers; null takes it away.
    secret: Option<String>,
}

/// Set what `${secret}` stands for in a rule
#[utoipa::path(post, path = "/api/v1/rules/{name}/secret", tag = "rules", operation_id = "set_rule_secret",
    params(("name" = String, Path, description = "Its name")), request_body = Secret,
    responses((status = 200, description = "It is set; it is shown to nobody", body = Status), Refusals))]
async fn secret(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Body(given): Body<Secret>,
) -> Result<Json<Status>, Problem> {
    let text = given.secret.as_deref().unwrap_or("x");
    let is_header = text
        .bytes()
        .all(|byte| byte == b'\t' || (32..127).contains(&byte));
    if text.is_empty() || text.len() > RULE_SECRET_BYTES_MAX || !is_header {
        let detail = format!("it is not 1 to {RULE_SECRET_BYTES_MAX} printable ASCII characters");
        return Err(Problem::bad_request("secret", detail));
    }
    let secret = given.secret.map(SecretString::from);
    let change = move |registry: &Registry| registry.set_rule_secret(&name, secret);
    let changed = objects::change(&api, change).await?;
    tracing::info!(target: "audit", rule = %changed.name, "the rule's secret was set");
    api.rules.agree_soon().await;
    Ok(Json(stands(&api, &changed)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReplayParams {
    /// ISO-8601 with an offset, or epoch milliseconds: what arrived at or after it.
    from: String,
    /// What arrived before it; up to where the rule is unless given.
    to: Option<String>,
}

/// What is published again.
#[derive(Serialize, ToSchema)]
#[schema(as = RuleReplay)]
struct Replayed {
    /// The first commit and the last.
    from: u64,
    until: u64,
}

/// Publish again what arrived since a moment, beside what is new
#[utoipa::path(post, path = "/api/v1/rules/{name}/replay", tag = "rules", operation_id = "replay_rule",
    params(("name" = String, Path, description = "Its name"), ReplayParams),
    responses((status = 200, description = "It has begun; the status says how far it is", body = Replayed), Refusals))]
async fn replay(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<ReplayParams>,
) -> Result<Json<Replayed>, Problem> {
    let moment = |member: &'static str, text: &str| {
        query::moment(text).map_err(|error| Problem::bad_request(member, error.to_string()))
    };
    let from_ms = moment("from", &params.from)?;
    let to_ms = params
        .to
        .as_deref()
        .map(|to| moment("to", to))
        .transpose()?;
    let (rules, rule) = (Arc::clone(&api.rules), declared(&api, &name)?);
    let replayed = api
        .pool
        .run(move || rules.replay(&rule, from_ms, to_ms))
        .await?;
    let (from, until) = replayed?;
    tracing::info!(target: "audit", rule = name, from, until, "commits are published again");
    Ok(Json(Replayed { from, until }))
}

/// Try a rule on a sample; nothing is published
#[utoipa::path(post, path = "/api/v1/rules/{name}/test", tag = "rules", operation_id = "test_rule",
    params(("name" = String, Path, description = "Its name")), request_body = Sample,
    responses((status = 200, description = "What it would make and where that would go", body = Trial), Refusals))]
async fn test(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Body(sample): Body<Sample>,
) -> Result<Json<Trial>, Problem> {
    let rule = declared(&api, &name)?;
    tried(&api, rule, sample).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RuleTest)]
struct FileTest {
    /// A rule as apply takes it, YAML or JSON text.
    rule: String,
    sample: Sample,
}

/// Try a rule that is not declared on a sample; nothing is published
#[utoipa::path(post, path = "/api/v1/rule-files/test", tag = "rules", operation_id = "test_rule_file",
    request_body = FileTest,
    responses((status = 200, description = "What it would make and where that would go", body = Trial), Refusals))]
async fn test_file(
    State(api): State<Arc<Api>>,
    Body(given): Body<FileTest>,
) -> Result<Json<Trial>, Problem> {
    let documents = read(&given.rule, Form::Yaml).map_err(refused)?;
    let one = match documents.as_slice() {
        [document] => match &document.declared {
            Declared::Rule(name, file) => Some(Rule::untried(name.clone(), (**file).clone())),
            _ => None,
        },
        _ => None,
    };
    let rule =
        one.ok_or_else(|| Problem::bad_request("rule", "it is not one object of kind Rule"))?;
    super::scripts::trials(&api, &documents)
        .await
        .map_err(refused)?;
    let registry = Arc::clone(&api.registry);
    // The very checks of apply.
    api.pool
        .run(move || registry.apply(documents, Run::Dry))
        .await??;
    tried(&api, Arc::new(rule), given.sample).await
}

async fn tried(api: &Api, rule: Arc<Rule>, sample: Sample) -> Result<Json<Trial>, Problem> {
    let (rules, runtime) = (Arc::clone(&api.rules), Handle::current());
    // It reads the store: not on a thread of the runtime.
    let trial = api
        .pool
        .run(move || runtime.block_on(rules.try_out(rule, sample)))
        .await?;
    Ok(Json(trial?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LetterParams {
    /// Letters in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct DeadLetterPage {
    items: Vec<DeadLetter>,
    /// Asks for the page after this; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// List a rule's dead letters, the oldest first, without their messages
#[utoipa::path(get, path = "/api/v1/rules/{name}/dead-letters", tag = "rules", operation_id = "list_dead_letters",
    params(("name" = String, Path, description = "Its name"), LetterParams),
    responses((status = 200, description = "A page of dead letters", body = DeadLetterPage), Refusals))]
async fn letters(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<LetterParams>,
) -> Result<Json<DeadLetterPage>, Problem> {
    let limit = limit(params.limit, 100, 1_000)?;
    let (rules, rule) = (Arc::clone(&api.rules), declared(&api, &name)?);
    let after = params.cursor.unwrap_or(0);
    let found = api
        .pool
        .run(move || rules.letters(&rule, after, limit + 1))
        .await??;
    let has_more = found.len() > limit;
    let items: Vec<DeadLetter> = found.into_iter().take(limit).collect();
    let next = items.last().map(|letter| letter.id).filter(|_| has_more);
    let items = items.into_iter().map(|letter| DeadLetter {
        message: None,
        made: None,
        ..letter
    });
    Ok(Json(DeadLetterPage {
        items: items.collect(),
        next,
    }))
}

/// Show a dead letter with its message and what the rule made of it
#[utoipa::path(get, path = "/api/v1/rules/{name}/dead-letters/{id}", tag = "rules", operation_id = "show_dead_letter",
    params(("name" = String, Path, description = "The rule's name"), ("id" = i64, Path, description = "The letter's number")),
    responses((status = 200, description = "The letter", body = DeadLetter), Refusals))]
async fn letter(
    State(api): State<Arc<Api>>,
    Path((name, id)): Path<(String, i64)>,
) -> Result<Json<DeadLetter>, Problem> {
    let (rules, rule) = (Arc::clone(&api.rules), declared(&api, &name)?);
    let found = api.pool.run(move || rules.letter(&rule, id)).await??;
    let absent = || Problem::not_found(format!("rule {name} has no dead letter {id}"));
    found.map(Json).ok_or_else(absent)
}

/// Which letters: some ids, or all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeadLetterSelection)]
struct Selection {
    #[serde(default)]
    ids: Vec<i64>,
    #[serde(default)]
    all: bool,
}

impl Selection {
    fn letters(self) -> Result<Letters, Problem> {
        match (self.all, self.ids.is_empty()) {
            (true, true) => Ok(Letters::All),
            (false, false) => Ok(Letters::Ids(self.ids)),
            (true, false) | (false, true) => Err(Problem::bad_request(
                "ids",
                "name some ids, or all: one of the two",
            )),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterCount)]
struct Count {
    letters: u64,
}

/// Drive dead letters again, through the rule as it is now
#[utoipa::path(post, path = "/api/v1/rules/{name}/dead-letters/redrive", tag = "rules", operation_id = "redrive_dead_letters",
    params(("name" = String, Path, description = "Its name")), request_body = Selection,
    responses((status = 200, description = "How many will be; the status says how many still wait", body = Count), Refusals))]
async fn redrive(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Body(selection): Body<Selection>,
) -> Result<Json<Count>, Problem> {
    let letters = selection.letters()?;
    let (rules, rule) = (Arc::clone(&api.rules), declared(&api, &name)?);
    let marked = api.pool.run(move || rules.redrive(&rule, &letters)).await?;
    let letters = marked?;
    tracing::info!(target: "audit", rule = name, letters, "dead letters are driven again");
    Ok(Json(Count { letters }))
}

/// Discard dead letters, for good
#[utoipa::path(post, path = "/api/v1/rules/{name}/dead-letters/discard", tag = "rules", operation_id = "discard_dead_letters",
    params(("name" = String, Path, description = "Its name")), request_body = Selection,
    responses((status = 200, description = "How many are gone", body = Count), Refusals))]
async fn discard(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Body(selection): Body<Selection>,
) -> Result<Json<Count>, Problem> {
    let letters = selection.letters()?;
    let (rules, rule) = (Arc::clone(&api.rules), declared(&api, &name)?);
    let letters = api
        .pool
        .run(move || rules.discard(&rule, &letters))
        .await??;
    tracing::info!(target: "audit", rule = name, letters, "dead letters were discarded");
    Ok(Json(Count { letters }))
}

fn declared(api: &Api, name: &str) -> Result<Arc<Rule>, Problem> {
    let found = api.registry.current().rule(name).cloned();
    objects::declared(found, Kind::Rule, name)
}

fn stands(api: &Api, rule: &Rule) -> Status {
    let (state, reason, standing) = match api.rules.phase(rule) {
        Phase::Running(standing) => ("running", None, Some(*standing)),
        Phase::Stopped => ("stopped", None, None),
        Phase::Idle(why) => ("idle", Some(why), None),
        Phase::Failed(why) => ("failed", Some(why), None),
    };
    Status {
        name: rule.name.to_string(),
        contents: rule.file.from.contents.word(),
        destination: rule.file.to.word(),
        version: rule.revision,
        state,
        reason,
        has_secret: rule.secret.is_some(),
        standing,
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let detail = error.to_string();
        match error {
            AskError::NotRunning(_) => {
                Self::new(StatusCode::CONFLICT, "stopped", detail).fix("start it first")
            }
            AskError::NothingToReplay => Self::new(StatusCode::CONFLICT, "nothing", detail),
            AskError::Drawer(error) => error.into(),
            AskError::Read(_) => {
                tracing::error!(detail, "a replay cannot begin");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store", detail)
            }
        }
    }
}

impl From<DrawerError> for Problem {
    fn from(error: DrawerError) -> Self {
        tracing::error!(%error, "a rule's file");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "rule", error.to_string())
            .fix("look at the disk and at the gateway's log")
    }
}

impl From<TrialError> for Problem {
    fn from(error: TrialError) -> Self {
        let detail = error.to_string();
        match error {
            TrialError::Wrong(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail),
            TrialError::NoWorker(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail),
            TrialError::Read(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store", detail),
        }
    }
}
