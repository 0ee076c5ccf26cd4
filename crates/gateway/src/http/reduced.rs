//! `/api/v1/points/reduced`: the values that a reduction keeps, and what it says of all of them.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use axum::{Extension, extract::State, response::Response};
use backtide_model::{DeviceKey, Storage};
use backtide_store::Order;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    aggregates::{List, after},
    problem::Params,
    rollups::series_of,
    tables::{self, Answer, Format},
};
use crate::{
    access::Caller,
    derive::{
        Marked, Marks, RowsAsked, Work, kept,
        reduce::{FAST, KEPT},
    },
    query::{Asked, Cursor, OutColumn, Question},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(reduced))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ReducedParams {
    /// The name of the reduction.
    reduction: String,
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// Device keys, separated by commas; all unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    device: List,
    /// Milliseconds since 1970, ISO time, or local time in `timezone`; inclusive.
    from: Option<String>,
    /// Exclusive.
    to: Option<String>,
    /// Where times without an offset are local, such as Europe/Paris.
    timezone: Option<String>,
    /// All values, each with what is said of it in `<point>.processing`: kept, fast, or both with a plus sign;
    /// dropped where it is neither, pending where it is not looked at yet. Otherwise kept values alone.
    #[serde(default)]
    processing: bool,
    /// Rows at most. JSON: 1 to 10000, 1000 unless given. Streams: all unless given.
    limit: Option<usize>,
    /// `next` of the page before; the rest of the question stays the same.
    cursor: Option<String>,
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Read the values that a reduction keeps, by device, then time; a value that is not looked at yet is kept
#[utoipa::path(get, path = "/api/v1/points/reduced", tag = "history", operation_id = "points_reduced",
    params(ReducedParams),
    responses(
        (status = 200, description = "Wide rows: deviceKey, time in milliseconds, and each point of the reduction that the row has and keeps",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn reduced(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<ReducedParams>,
) -> Result<Response, Problem> {
    let device = params.device.text();
    let question = Question::new(
        &Asked {
            product: params.product.as_deref(),
            devices: &device,
            names: "",
            from: params.from.as_deref(),
            to: params.to.as_deref(),
            timezone: params.timezone.as_deref(),
            cursor: None,
        },
        &api.registry.snapshot(),
    )?;
    let (id, series) = series_of(&api.derived, &params.reduction, &question)?;
    let Work::Reduction { points, .. } = &series.work else {
        let detail = format!("{} is a rollup", series.name);
        return Err(
            Problem::bad_request("reduction", detail).fix("read it at /api/v1/rollups/{name}/rows")
        );
    };
    let columns = OutColumn::of(points);
    let values = columns.clone();
    let cursor = after(params.cursor.as_deref())?;
    let mut range = question.range(usize::MAX);
    range.order = Order::DeviceTime;
    range.points = points.iter().map(|point| point.name.clone()).collect();
    range.after = match &cursor {
        None => None,
        Some((device, time_ms)) => {
            let device = DeviceKey::new(device).map_err(|_| crate::query::QuestionError::Cursor)?;
            Some((device, *time_ms))
        }
    };
    let mut devices = question.devices.clone();
    devices.sort();
    devices.dedup();
    let marks = RowsAsked {
        id,
        series: Arc::clone(&series),
        devices,
        from_ms: range.from_ms,
        to_ms: range.to_ms,
        after: cursor.map(|(device, time_ms)| (device.to_string(), time_ms)),
    };
    let answer = Answer {
        format: params.format,
        columns: match params.processing {
            false => columns,
            true => columns
                .into_iter()
                .flat_map(|column| [column.clone(), told(&column)])
                .collect(),
        },
        with_quality: false,
        limit: params.limit,
        long: None,
        is_short: true,
        cursor: Cursor::encode_window,
    };
    let (store, derived) = (api.store.clone(), Arc::clone(&api.derived));
    let (seat, shows_all) = (tables::seat(&api, &caller)?, params.processing);
    answer
        .send(&api, seat, move |taker| {
            let mut marks = Marks::new(derived.rows(marks).map_err(Problem::from)?, &series);
            tables::read_ahead(&store, &range, backtide_store::View::Kept, |slab| {
                taker.check()?;
                let marked = marks.of(slab).map_err(Problem::from)?;
                let shown = match shows_all {
                    true => with_processing(slab, &values, &marked),
                    false => kept(slab, &series, &marked),
                };
                taker.take(&shown.map_err(|error| {
                    tracing::error!(%error, "rows of a reduction do not fit those of the store");
                    tables::unreadable()
                })?)
            })
        })
        .await
}

/// What is said of a value, as a column of text.
fn told(column: &OutColumn) -> OutColumn {
    let name = format!("{}.processing", column.name);
    OutColumn {
        source: name.clone(),
        name,
        quality: None,
        storage: Storage::Text,
        is_json: false,
        is_time: false,
    }
}

/// A slab with what is said of each value beside it.
fn with_processing(
    slab: &RecordBatch,
    values: &[OutColumn],
    marked: &Marked,
) -> Result<RecordBatch, ArrowError> {
    let schema = slab.schema();
    let mut fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), field.data_type().clone(), true))
        .collect();
    let mut columns = slab.columns().to_vec();
    for (column, marks) in values.iter().zip(marked) {
        let values = slab.column_by_name(&column.source);
        let words = marks.iter().enumerate().map(|(row, mark)| {
            values
                .filter(|values| values.is_valid(row))
                .map(|_| word(*mark))
        });
        fields.push(Field::new(told(column).source, DataType::Utf8, true));
        columns.push(Arc::new(StringArray::from_iter(words)));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn word(mark: Option<i32>) -> &'static str {
    match mark {
        None => "pending",
        Some(mark) => match (mark & KEPT != 0, mark & FAST != 0) {
            (true, true) => "kept+fast",
            (true, false) => "kept",
            (false, true) => "fast",
            (false, false) => "dropped",
        },
    }
}
