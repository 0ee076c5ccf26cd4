//! `/api/v1/points/aggregates` and `/api/v1/points/coverage`: what happened in each window of time,
//! and what is there at all.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Extension, extract::State, http::StatusCode, response::Response};
use backtide_model::DeviceKey;
use backtide_store::{Order, Range};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    folds::{self, Job},
    problem::{Body, Params},
    stream::Ended,
    tables::{self, Answer, Format, LIMIT_DEFAULT},
};
use crate::{
    access::Caller,
    query::{
        Asked, AskedPoint, Cursor, Filter, Long, Question, QuestionError,
        aggregate::{
            AggregateError, BATCH_ROWS, Fill, Function, Interval, IntervalError, Plan, Windows,
            elapsed,
        },
    },
};

/// Times that can be stored: 1970 to 2100, milliseconds.
const STORABLE_MS: (i64, i64) = (0, 4_102_444_800_000);
/// How far before `from` a value is looked for, unless it is told.
const LOOKBACK_MS: i64 = 24 * 3_600_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(aggregates, post_aggregates))
        .routes(routes!(coverage, post_coverage))
}

/// What stands where a window has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Fill)]
enum AskedFill {
    /// Windows without any result are left out.
    #[default]
    None,
    /// Nothing; but every window has a row.
    Null,
    /// The result of the window before.
    Previous,
    /// A point on the line between the results before and after.
    Linear,
}

/// Wide: a row has all points. Long: a row for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    #[default]
    Wide,
    Long,
}

/// Text with commas, or a list: what a query and a body have in common.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum List {
    #[default]
    None,
    Text(String),
    Items(Vec<String>),
}

impl List {
    pub(super) fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(text) => text.clone(),
            Self::Items(items) => items.join(","),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct Aggregates {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// Device keys, separated by commas, in a body also as an array; all unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    device: List,
    /// Points, likewise; all that the model declares and the functions take unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    points: List,
    /// Milliseconds since 1970, ISO time, or local time in `timezone`; inclusive. Unless given: the first value.
    from: Option<String>,
    /// Exclusive. Unless given: through the last value.
    to: Option<String>,
    /// Functions, likewise: count, sum, min, max, avg, first, last, twa (the mean over time), durations
    /// (milliseconds of each state), increase (of a counter that may begin again), stddev, firstTime, lastTime.
    #[param(value_type = String, example = "avg,max")]
    aggregate: List,
    /// Elapsed time (250ms, 30s, 10m, 1h) or time of the calendar (1d, 1w, 1mo, 1y); one window for the
    /// whole range unless given.
    #[param(example = "1h")]
    interval: Option<String>,
    /// Where days begin and where times without an offset are local, such as Europe/Paris; UTC unless given.
    timezone: Option<String>,
    #[serde(default)]
    #[param(inline)]
    fill: AskedFill,
    /// For twa and durations: how long a value holds at most, such as 1h; until the next unless given.
    hold: Option<String>,
    /// For twa, durations and increase: how far before `from` the value before is looked for; `hold`, else 1d, unless given.
    lookback: Option<String>,
    /// Only values for which these comparisons hold, as for points.
    #[serde(default)]
    filter: String,
    /// Windows at most. JSON: 1 to 10000, 1000 unless given. Streams: all unless given.
    limit: Option<usize>,
    /// `next` of the page before; the rest of the question stays the same.
    cursor: Option<String>,
    #[serde(default)]
    #[param(inline)]
    format: Format,
    /// `wide`: `<point>.<function>` in a row of all points. `long`: a row for each point.
    #[serde(default)]
    #[param(inline)]
    form: Form,
}

#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct Coverage {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// Device keys, separated by commas, in a body also as an array; all unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    device: List,
    /// Points, likewise; all that the model declares unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    points: List,
    /// Milliseconds since 1970, ISO time, or local time in `timezone`; inclusive.
    from: Option<String>,
    /// Exclusive.
    to: Option<String>,
    /// A row for each window, as for aggregates.
    interval: Option<String>,
    /// Where days begin and where times without an offset are local; UTC unless given.
    timezone: Option<String>,
    /// Tell the spans longer than this that have no value, such as 1h; not with `interval`.
    gap: Option<String>,
    /// Only values for which these comparisons hold, as for points.
    #[serde(default)]
    filter: String,
    /// Windows at most, each with a row for every point. JSON: 1 to 10000, 1000 unless given. Streams: all unless given.
    limit: Option<usize>,
    /// `next` of the page before; the rest of the question stays the same.
    cursor: Option<String>,
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Aggregate points: each window of each device, by device, then time
#[utoipa::path(get, path = "/api/v1/points/aggregates", tag = "history", operation_id = "point_aggregates",
    params(Aggregates),
    responses(
        (status = 200, description = "deviceKey, the time with which the window begins, and for each point and function `<point>.<function>`",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn aggregates(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(asked): Params<Aggregates>,
) -> Result<Response, Problem> {
    aggregated(&api, &caller, &asked).await
}

/// Aggregate points: the same question as a body, of any length
#[utoipa::path(post, path = "/api/v1/points/aggregates", tag = "history", operation_id = "point_aggregates_of_body",
    request_body = Aggregates,
    responses((status = 200, description = "As for GET", body = serde_json::Value), Refusals))]
async fn post_aggregates(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Body(asked): Body<Aggregates>,
) -> Result<Response, Problem> {
    aggregated(&api, &caller, &asked).await
}

/// Tell what is there of each point, and what is missing
#[utoipa::path(get, path = "/api/v1/points/coverage", tag = "history", operation_id = "point_coverage",
    params(Coverage),
    responses(
        (status = 200, description = "A row for each point of each device, also without any value: deviceKey, time, point, count, firstTime, lastTime; with `gap` also gaps, longestGap (milliseconds) and gapList (the first 1000)",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn coverage(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(asked): Params<Coverage>,
) -> Result<Response, Problem> {
    covered(&api, &caller, &asked).await
}

/// Tell what is there of each point: the same question as a body, of any length
#[utoipa::path(post, path = "/api/v1/points/coverage", tag = "history", operation_id = "point_coverage_of_body",
    request_body = Coverage,
    responses((status = 200, description = "As for GET", body = serde_json::Value), Refusals))]
async fn post_coverage(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Body(asked): Body<Coverage>,
) -> Result<Response, Problem> {
    covered(&api, &caller, &asked).await
}

async fn aggregated(api: &Api, caller: &Caller, asked: &Aggregates) -> Result<Response, Problem> {
    let (device, points) = (asked.device.text(), asked.points.text());
    let question = Question::new(
        &Asked {
            product: asked.product.as_deref(),
            devices: &device,
            names: &points,
            from: asked.from.as_deref(),
            to: asked.to.as_deref(),
            timezone: asked.timezone.as_deref(),
            cursor: None,
        },
        &api.registry.snapshot(),
    )?;
    let functions = functions(&asked.aggregate.text())?;
    let span = |place: &'static str, text: &Option<String>| {
        let span = text.as_deref().map(elapsed).transpose();
        span.map_err(|error| of_interval(place, &error))
    };
    let hold_ms = span("hold", &asked.hold)?;
    let lookback_ms = span("lookback", &asked.lookback)?;
    let points = with_functions(&question, !points.is_empty(), &functions)?;
    let windows = windows(asked.interval.as_deref(), &question)?;
    let plan = Plan {
        from_ms: storable(question.from_ms),
        to_ms: storable(question.to_ms),
        fill: match asked.fill {
            AskedFill::None => Fill::None,
            AskedFill::Null => Fill::Null,
            AskedFill::Previous => Fill::Previous,
            AskedFill::Linear => Fill::Linear,
        },
        hold_ms: hold_ms.unwrap_or(i64::MAX),
        lookback_ms: lookback_ms.or(hold_ms).unwrap_or(LOOKBACK_MS),
        batch_rows: batch_rows(asked.format, asked.limit),
        after: after(asked.cursor.as_deref())?,
        ..Plan::new(points, windows)
    };
    let filter = Filter::parse(&asked.filter, &question.points)?;
    let answer = Folded {
        plan,
        filter,
        long: asked.form == Form::Long,
        functions,
    };
    answer
        .send(api, caller, &question, asked.format, asked.limit)
        .await
}

async fn covered(api: &Api, caller: &Caller, asked: &Coverage) -> Result<Response, Problem> {
    let (device, points) = (asked.device.text(), asked.points.text());
    let question = Question::new(
        &Asked {
            product: asked.product.as_deref(),
            devices: &device,
            names: &points,
            from: asked.from.as_deref(),
            to: asked.to.as_deref(),
            timezone: asked.timezone.as_deref(),
            cursor: None,
        },
        &api.registry.snapshot(),
    )?;
    let gap = asked.gap.as_deref().map(elapsed).transpose();
    let gap_ms = gap.map_err(|error| of_interval("gap", &error))?;
    let mut functions = vec![Function::Count, Function::FirstTime, Function::LastTime];
    if gap_ms.is_some() {
        if asked.interval.is_some() {
            let detail = "gaps are told of the whole range, not of each interval";
            return Err(Problem::bad_request("gap, interval", detail)
                .fix("ask for one of them; windows without values show a count of 0"));
        }
        functions.extend([Function::Gaps, Function::LongestGap, Function::GapList]);
    }
    let points = question.points.iter().cloned();
    let points = points.map(|point| (point, functions.clone())).collect();
    let windows = windows(asked.interval.as_deref(), &question)?;
    let plan = Plan {
        from_ms: storable(question.from_ms),
        to_ms: storable(question.to_ms),
        fill: Fill::Null,
        gap_ms,
        devices: named(&devices(&question)),
        batch_rows: batch_rows(asked.format, asked.limit),
        after: after(asked.cursor.as_deref())?,
        ..Plan::new(points, windows)
    };
    let filter = Filter::parse(&asked.filter, &question.points)?;
    let answer = Folded {
        plan,
        filter,
        long: true,
        functions,
    };
    answer
        .send(api, caller, &question, asked.format, asked.limit)
        .await
}

/// An answer that is folded from the rows of the store.
struct Folded {
    plan: Plan,
    filter: Filter,
    long: bool,
    functions: Vec<Function>,
}

impl Folded {
    async fn send(
        self,
        api: &Api,
        caller: &Caller,
        question: &Question,
        format: Format,
        limit: Option<usize>,
    ) -> Result<Response, Problem> {
        let Self {
            plan,
            filter,
            long,
            functions,
        } = self;
        let long = long.then(|| long_of(&plan, &functions));
        let answer = Answer {
            format,
            columns: long.as_ref().map_or_else(|| plan.columns(), Long::columns),
            with_quality: false,
            limit,
            long,
            is_short: false,
            cursor: Cursor::encode_window,
        };
        let job = Job {
            range: range(question, &plan)?,
            devices: devices(question),
            plan,
            filter,
        };
        // A page folds no more than it shows, anything else all there is.
        let fold = match format {
            Format::Json => folds::in_one,
            _ if limit.is_some() => folds::in_one,
            _ => folds::in_groups,
        };
        let (store, seat) = (api.store.clone(), tables::seat(api, caller)?);
        answer
            .send(api, seat, move |taker| fold(&store, &job, taker))
            .await
    }
}

/// What has to be read.
fn range(question: &Question, plan: &Plan) -> Result<Range, Problem> {
    let mut range = question.range(usize::MAX);
    range.order = Order::DeviceTime;
    range.points = plan
        .points
        .iter()
        .map(|(point, _)| point.name.clone())
        .collect();
    range.from_ms = plan.read_from_ms().unwrap_or(i64::MIN);
    range.to_ms = plan.to_ms.unwrap_or(i64::MAX);
    if let Some((device, time_ms)) = plan.read_after() {
        let device = DeviceKey::new(&device).map_err(|_| QuestionError::Cursor)?;
        range.after = Some((device, time_ms));
    }
    Ok(range)
}

fn long_of(plan: &Plan, functions: &[Function]) -> Long {
    let mut columns = plan.columns().into_iter();
    let of_point = |(point, functions): &(AskedPoint, Vec<Function>)| {
        let own = columns.by_ref().take(functions.len()).collect();
        (point.name.to_string(), own)
    };
    let points: Vec<_> = plan.points.iter().map(of_point).collect();
    let functions: Vec<String> = functions.iter().map(ToString::to_string).collect();
    Long::of_functions(&points, &functions)
}

fn functions(text: &str) -> Result<Vec<Function>, Problem> {
    let known = || {
        let words = Function::ALL.map(Function::word);
        format!("there are {}", words.join(", "))
    };
    let mut functions = Vec::new();
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let function = Function::parse(word).ok_or_else(|| {
            let detail = format!("{word:?} is no function; {}", known());
            Problem::bad_request("aggregate", detail)
        })?;
        if !functions.contains(&function) {
            functions.push(function);
        }
    }
    match functions.is_empty() {
        true => Err(Problem::bad_request("aggregate", "no function is named").fix(known())),
        false => Ok(functions),
    }
}

/// Each point with the functions that it takes. One that is named takes them all; of those that
/// nobody named, the ones that take none are left out.
fn with_functions(
    question: &Question,
    is_named: bool,
    functions: &[Function],
) -> Result<Vec<(AskedPoint, Vec<Function>)>, Problem> {
    let mut points = Vec::new();
    for point in &question.points {
        let takes = |function: &&Function| function.takes(point.storage);
        let taken: Vec<Function> = functions.iter().filter(takes).copied().collect();
        if is_named && taken.len() < functions.len() {
            let refused = functions.iter().find(|function| !takes(function));
            let refused = refused.map_or("", |function| function.word());
            let detail = format!(
                "{refused} is of numbers, and the values of {} are text",
                point.name
            );
            return Err(Problem::bad_request("aggregate, points", detail)
                .fix("texts have count, first, last, durations, firstTime and lastTime"));
        }
        if !taken.is_empty() {
            points.push((point.clone(), taken));
        }
    }
    if points.is_empty() {
        let detail = "the model declares no point that takes one of these functions";
        return Err(Problem::bad_request("aggregate", detail));
    }
    Ok(points)
}

fn windows(interval: Option<&str>, question: &Question) -> Result<Windows, Problem> {
    let Some(text) = interval else {
        return Ok(Windows::Whole);
    };
    let interval = Interval::parse(text).map_err(|error| of_interval("interval", &error))?;
    Ok(Windows::new(interval, question.zone.clone()))
}

fn of_interval(place: &'static str, error: &IntervalError) -> Problem {
    Problem::bad_request(place, error.to_string())
}

/// A page computes no more than it shows.
fn batch_rows(format: Format, limit: Option<usize>) -> usize {
    let wanted = match format {
        Format::Json => limit.unwrap_or(LIMIT_DEFAULT),
        _ => BATCH_ROWS,
    };
    wanted.clamp(1, BATCH_ROWS)
}

/// Windows in which nothing can be stored are not asked for.
fn storable(bound: Option<i64>) -> Option<i64> {
    bound.map(|bound| bound.clamp(STORABLE_MS.0, STORABLE_MS.1))
}

pub(super) fn after(cursor: Option<&str>) -> Result<Option<(Arc<str>, i64)>, Problem> {
    let Some(text) = cursor else {
        return Ok(None);
    };
    let Cursor { device, time_ms } = Cursor::decode_window(text).ok_or(QuestionError::Cursor)?;
    Ok(Some((device.as_str().into(), time_ms)))
}

/// Those that are asked for, or all of the product; sorted.
fn devices(question: &Question) -> Vec<DeviceKey> {
    let keys: BTreeSet<&DeviceKey> = match question.devices.is_empty() {
        false => question.devices.iter().collect(),
        true => {
            let all = question.product.devices.after(None);
            all.map(|device| &device.key).collect()
        }
    };
    keys.into_iter().cloned().collect()
}

fn named(devices: &[DeviceKey]) -> Vec<Arc<str>> {
    devices
        .iter()
        .map(|device| device.as_str().into())
        .collect()
}

impl From<AggregateError> for Ended {
    fn from(error: AggregateError) -> Self {
        Self::Problem(error.into())
    }
}

impl From<AggregateError> for Problem {
    fn from(error: AggregateError) -> Self {
        match error {
            AggregateError::States | AggregateError::Waiting | AggregateError::Windows(_) => {
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "too-much",
                    error.to_string(),
                )
            }
            AggregateError::Row(error) => error.into(),
            AggregateError::Type => {
                tracing::error!(%error, "the store answers with something else than its contract");
                tables::unreadable()
            }
        }
    }
}
