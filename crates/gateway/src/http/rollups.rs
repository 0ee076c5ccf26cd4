//! `/api/v1/rollups`: how they stand, and their rows: aggregates that are computed already.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    aggregates::{Form, List, after},
    problem::{Body, Params},
    tables::{self, Answer, Format},
};
use crate::{
    access::Caller,
    derive::{Derived, RowsAsked, Series, ShelfError, Work},
    query::{Asked, Cursor, Long, OutColumn, Question},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(rows))
        .routes(routes!(post_rows))
}

/// How a rollup or reduction of one product stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RollupStatus)]
struct Status {
    name: String,
    /// rollup or reduction.
    kind: &'static str,
    policy: String,
    product: String,
    product_key: String,
    /// Of a rollup how long its windows are, of a reduction after what time it begins anew.
    interval: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    points: Vec<String>,
    /// The columns of its rows.
    columns: Vec<String>,
    /// current: everything answered is in it. behind: some windows wait. backfilling: so does some of
    /// what was stored before it was declared.
    state: &'static str,
    /// Commits that are not looked at yet; of all of them.
    lag_commits: u64,
    dirty_devices: usize,
    /// Spans of windows of a device in which values came since they were computed.
    dirty_spans: usize,
    /// How long the longest of them waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ms: Option<i64>,
    /// Rows computed since the gateway started.
    rows_computed: u64,
    /// When some were computed last, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    computed: Option<i64>,
    /// Times that windows could not be computed since the gateway started, and why the last time.
    failures: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RollupStatuses)]
struct Statuses {
    items: Vec<Status>,
}

/// How all rollups and reductions stand
#[utoipa::path(get, path = "/api/v1/rollups", tag = "history", operation_id = "list_rollups",
    responses((status = 200, description = "One for each product that they are about", body = Statuses), Refusals))]
async fn list(State(api): State<Arc<Api>>) -> Json<Statuses> {
    let series = api.derived.series().into_iter();
    let items = series.map(|(id, series)| status(&api.derived, id, &series));
    Json(Statuses {
        items: items.collect(),
    })
}

/// How a rollup or reduction stands, in each product
#[utoipa::path(get, path = "/api/v1/rollups/{name}", tag = "history", operation_id = "rollup_status",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "One for each product that it is about", body = Statuses), Refusals))]
async fn show(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Statuses>, Problem> {
    let series = api.derived.series().into_iter();
    let named = series.filter(|(_, series)| series.name.as_str() == name);
    let items: Vec<Status> = named
        .map(|(id, series)| status(&api.derived, id, &series))
        .collect();
    match items.is_empty() {
        true => Err(unknown(&name)),
        false => Ok(Json(Statuses { items })),
    }
}

#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
#[schema(as = RollupQuery)]
struct RowParams {
    /// Name or key of the product; may be left out where the device, or the rollup, is of one only.
    product: Option<String>,
    /// Device keys, separated by commas, in a body also as an array; all unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    device: List,
    /// Points, likewise; all of the rollup unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    points: List,
    /// Windows that begin here or later: milliseconds since 1970, ISO time, or local time in `timezone`.
    from: Option<String>,
    /// And that begin before.
    to: Option<String>,
    /// Where times without an offset are local, such as Europe/Paris.
    timezone: Option<String>,
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

/// Read a rollup: each window of each device, by device, then time
#[utoipa::path(get, path = "/api/v1/rollups/{name}/rows", tag = "history", operation_id = "rollup_rows",
    params(("name" = String, Path, description = "Its name"), RowParams),
    responses(
        (status = 200, description = "deviceKey, the time with which the window begins, and for each point and function `<point>.<function>`",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn rows(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Params(params): Params<RowParams>,
) -> Result<Response, Problem> {
    answer(&api, &caller, &name, &params).await
}

/// Read a rollup: the same question as a body, of any length
#[utoipa::path(post, path = "/api/v1/rollups/{name}/rows", tag = "history", operation_id = "rollup_rows_of_body",
    params(("name" = String, Path, description = "Its name")),
    request_body = RowParams,
    responses((status = 200, description = "As for GET", body = serde_json::Value), Refusals))]
async fn post_rows(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(params): Body<RowParams>,
) -> Result<Response, Problem> {
    answer(&api, &caller, &name, &params).await
}

async fn answer(
    api: &Api,
    caller: &Caller,
    name: &str,
    params: &RowParams,
) -> Result<Response, Problem> {
    let (device, points) = (params.device.text(), params.points.text());
    let product = product_of(api, name, params.product.as_deref(), &device)?;
    let question = Question::new(
        &Asked {
            product: product.as_deref(),
            devices: &device,
            names: &points,
            from: params.from.as_deref(),
            to: params.to.as_deref(),
            timezone: params.timezone.as_deref(),
            cursor: None,
        },
        &api.registry.snapshot(),
    )?;
    let (id, series) = series_of(&api.derived, name, &question)?;
    let columns = columns(&series, &question, !points.is_empty())?;
    let long = (params.form == Form::Long).then(|| long_of(&columns));
    let mut devices = question.devices.clone();
    devices.sort();
    devices.dedup();
    let asked = RowsAsked {
        id,
        series,
        devices,
        from_ms: question.from_ms.unwrap_or(i64::MIN),
        to_ms: question.to_ms.unwrap_or(i64::MAX),
        after: after(params.cursor.as_deref())?
            .map(|(device, time_ms)| (device.to_string(), time_ms)),
    };
    let answer = Answer {
        format: params.format,
        columns: match &long {
            Some(long) => long.columns(),
            None => columns
                .into_iter()
                .flat_map(|(_, columns)| columns)
                .collect(),
        },
        with_quality: false,
        limit: params.limit,
        long,
        is_short: true,
        cursor: Cursor::encode_window,
    };
    let (derived, seat) = (Arc::clone(&api.derived), tables::seat(api, caller)?);
    answer
        .send(api, seat, move |taker| {
            for batch in derived.rows(asked).map_err(Problem::from)? {
                taker.check()?;
                taker.take(&batch.map_err(Problem::from)?)?;
            }
            Ok(())
        })
        .await
}

/// The product that is named, or the only one of the rollup.
fn product_of(
    api: &Api,
    name: &str,
    named: Option<&str>,
    devices: &str,
) -> Result<Option<String>, Problem> {
    if named.is_some() {
        return Ok(named.map(str::to_owned));
    }
    let series = api.derived.series();
    let of_name = series
        .iter()
        .filter(|(_, series)| series.name.as_str() == name);
    let products: Vec<_> = of_name
        .map(|(_, series)| series.product.name.to_string())
        .collect();
    match products.as_slice() {
        [] => Err(unknown(name)),
        [only] => Ok(Some(only.clone())),
        _ if !devices.is_empty() => Ok(None),
        several => {
            let detail = format!(
                "rollup {name} is of several products: {}",
                several.join(", ")
            );
            Err(Problem::bad_request("product", detail).fix("name one of them, or a device"))
        }
    }
}

/// The series of a name that is about the product of a question.
pub(super) fn series_of(
    derived: &Derived,
    name: &str,
    question: &Question,
) -> Result<(i64, Arc<Series>), Problem> {
    let mut of_name = derived
        .series()
        .into_iter()
        .filter(|(_, series)| series.name.as_str() == name)
        .peekable();
    if of_name.peek().is_none() {
        return Err(unknown(name));
    }
    let product = &question.product;
    of_name
        .find(|(_, series)| series.product.key == product.key)
        .ok_or_else(|| {
            let detail = format!("{name} is not about product {}", product.name);
            Problem::not_found(detail).at("product")
        })
}

type PointColumns = Vec<(String, Vec<OutColumn>)>;

/// The columns of each point that is asked for.
fn columns(series: &Series, question: &Question, is_named: bool) -> Result<PointColumns, Problem> {
    let Work::Rollup { points, .. } = &series.work else {
        let detail = format!("{} is a reduction", series.name);
        return Err(Problem::bad_request("name", detail).fix("read it at /api/v1/points/reduced"));
    };
    let mut all = series.columns().into_iter();
    let mut found = Vec::new();
    for (point, functions) in points {
        let own: Vec<OutColumn> = all.by_ref().take(functions.len()).collect();
        if !is_named || question.points.iter().any(|asked| asked.name == point.name) {
            found.push((point.name.to_string(), own));
        }
    }
    let is_there = |name: &str| points.iter().any(|(point, _)| point.name.as_str() == name);
    let missing = question
        .points
        .iter()
        .find(|asked| !is_there(asked.name.as_str()));
    match missing.filter(|_| is_named) {
        Some(missing) => {
            let detail = format!(
                "rollup {} does not have point {}",
                series.name, missing.name
            );
            Err(Problem::not_found(detail).at("points"))
        }
        None => Ok(found),
    }
}

fn long_of(points: &PointColumns) -> Long {
    let mut functions: Vec<String> = Vec::new();
    for (point, columns) in points {
        for column in columns {
            let function = column.name.strip_prefix(&format!("{point}."));
            let function = function.unwrap_or_default().to_owned();
            if !functions.contains(&function) {
                functions.push(function);
            }
        }
    }
    Long::of_functions(points, &functions)
}

fn status(derived: &Derived, id: i64, series: &Series) -> Status {
    let (standing, lag_commits) = (derived.standing(id), derived.lag());
    let state = standing.state(lag_commits);
    Status {
        name: series.name.to_string(),
        kind: series.work.kind(),
        policy: series.policy.to_string(),
        product: series.product.name.to_string(),
        product_key: series.product.key.to_string(),
        interval: series.interval.clone(),
        time_zone: series.zone.clone(),
        points: series
            .points()
            .iter()
            .map(|point| point.name.to_string())
            .collect(),
        columns: series
            .columns()
            .into_iter()
            .map(|column| column.name)
            .collect(),
        state,
        lag_commits,
        dirty_devices: standing.dirty_devices,
        dirty_spans: standing.dirty_spans,
        waited_ms: standing.waited_ms,
        rows_computed: standing.rows,
        computed: standing.computed_ms,
        failures: standing.failures,
        failure: standing.failure,
    }
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("no policy has a rollup or reduction {name}"))
        .at("name")
        .fix("GET /api/v1/rollups lists them; one that was applied a moment ago is there within a second")
}

impl From<ShelfError> for Problem {
    fn from(error: ShelfError) -> Self {
        tracing::error!(%error, "rollups cannot be read");
        tables::unreadable()
    }
}
