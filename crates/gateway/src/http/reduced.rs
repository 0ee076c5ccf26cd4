//! `/api/v1/points/reduced`: the values that a reduction keeps, and what it says of all of them.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use arrow_schema::{Field, Schema};
use arrow_select::filter::filter_record_batch;
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
    stream::Ended,
    tables::{self, Answer, Format},
};
use crate::{
    access::Caller,
    derive::{
        RowsAsked, Work,
        reduce::{FAST, KEPT},
    },
    query::{Asked, Cursor, OutColumn, Question},
};

/// Columns of the store's slabs.
const DEVICE: &str = "_device";
const TIME: &str = "_time";

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
    let view = View {
        columns: columns.clone(),
        marks: series.columns(),
        shows_all: params.processing,
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
    let seat = tables::seat(&api, &caller)?;
    answer
        .send(&api, seat, move |taker| {
            let mut marks = Marks {
                rows: derived.rows(marks).map_err(Problem::from)?,
                batch: None,
                row: 0,
            };
            tables::read_ahead(&store, &range, backtide_store::View::Kept, |slab| {
                taker.check()?;
                taker.take(&view.apply(slab, &mut marks)?)
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

/// Marks in the order of rows.
struct Marks {
    rows: crate::derive::Rows,
    batch: Option<RecordBatch>,
    row: usize,
}

impl Marks {
    /// The batch and the row with the marks of a row of the store, if it has some. Rows are asked for in
    /// order.
    fn find(
        &mut self,
        device: &str,
        time_ms: i64,
    ) -> Result<Option<(&RecordBatch, usize)>, Problem> {
        loop {
            let is_read = self
                .batch
                .as_ref()
                .is_none_or(|batch| self.row >= batch.num_rows());
            if is_read {
                let Some(batch) = self.rows.next().transpose()? else {
                    self.batch = None;
                    return Ok(None);
                };
                (self.batch, self.row) = (Some(batch), 0);
                continue;
            }
            let Some(batch) = &self.batch else {
                return Ok(None);
            };
            let own = key(batch, self.row);
            match own.cmp(&Some((device, time_ms))) {
                std::cmp::Ordering::Less => self.row += 1,
                std::cmp::Ordering::Greater => return Ok(None),
                std::cmp::Ordering::Equal => break,
            }
        }
        Ok(self.batch.as_ref().map(|batch| (batch, self.row)))
    }
}

fn key(batch: &RecordBatch, row: usize) -> Option<(&str, i64)> {
    let devices = batch.column_by_name(DEVICE)?.as_string_opt::<i32>()?;
    let times = batch
        .column_by_name(TIME)?
        .as_primitive_opt::<Int64Type>()?;
    Some((devices.value(row), times.value(row)))
}

/// How rows are shown.
struct View {
    columns: Vec<OutColumn>,
    marks: Vec<OutColumn>,
    shows_all: bool,
}

impl View {
    fn apply(&self, slab: &RecordBatch, marks: &mut Marks) -> Result<RecordBatch, Ended> {
        let rows = slab.num_rows();
        let mut of_points: Vec<Vec<Option<i32>>> = vec![Vec::with_capacity(rows); self.marks.len()];
        for row in 0..rows {
            let (device, time_ms) = key(slab, row).ok_or_else(tables::unreadable)?;
            let found = marks.find(device, time_ms)?;
            for (column, of_point) in self.marks.iter().zip(&mut of_points) {
                let mark = found.and_then(|(batch, row)| {
                    let marks = batch.column_by_name(&column.source)?;
                    let marks: &Int32Array = marks.as_primitive_opt::<Int32Type>()?;
                    marks.is_valid(row).then(|| marks.value(row))
                });
                of_point.push(mark);
            }
        }
        let shown = match self.shows_all {
            true => self.with_processing(slab, &of_points),
            false => self.kept(slab, &of_points),
        };
        shown.map_err(|error| {
            tracing::error!(%error, "rows of a reduction do not fit those of the store");
            Ended::Problem(tables::unreadable())
        })
    }

    fn with_processing(
        &self,
        slab: &RecordBatch,
        of_points: &[Vec<Option<i32>>],
    ) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let mut columns = named(slab);
        for (column, marks) in self.columns.iter().zip(of_points) {
            let values = slab.column_by_name(&column.source);
            let words = marks.iter().enumerate().map(|(row, mark)| {
                values
                    .filter(|values| values.is_valid(row))
                    .map(|_| word(*mark))
            });
            let words: ArrayRef = Arc::new(StringArray::from_iter(words));
            columns.push((told(column).source, words));
        }
        of(columns)
    }

    fn kept(
        &self,
        slab: &RecordBatch,
        of_points: &[Vec<Option<i32>>],
    ) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let marks: HashMap<&str, &Vec<Option<i32>>> = self
            .columns
            .iter()
            .map(|column| column.source.as_str())
            .zip(of_points)
            .collect();
        let mut has_some = vec![false; slab.num_rows()];
        let mut columns = named(slab);
        for (name, column) in &mut columns {
            let Some(marks) = marks.get(name.as_str()) else {
                continue;
            };
            let is_kept: Vec<bool> = marks
                .iter()
                .enumerate()
                .map(|(row, mark)| column.is_valid(row) && mark.is_none_or(|mark| mark & KEPT != 0))
                .collect();
            for (some, kept) in has_some.iter_mut().zip(&is_kept) {
                *some |= kept;
            }
            *column = masked(column, is_kept)?;
        }
        filter_record_batch(&of(columns)?, &BooleanArray::from(has_some))
    }
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

/// A column without the values that are not kept.
fn masked(column: &ArrayRef, is_kept: Vec<bool>) -> Result<ArrayRef, arrow_schema::ArrowError> {
    let empty = arrow_array::new_null_array(column.data_type(), 1);
    let picks: Vec<(usize, usize)> = is_kept
        .into_iter()
        .enumerate()
        .map(|(row, is_kept)| if is_kept { (0, row) } else { (1, 0) })
        .collect();
    arrow_select::interleave::interleave(&[&**column, &*empty], &picks)
}

fn named(slab: &RecordBatch) -> Vec<(String, ArrayRef)> {
    let schema = slab.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    names.zip(slab.columns().iter().cloned()).collect()
}

fn of(columns: Vec<(String, ArrayRef)>) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
