//! `/api/v1/points`: history by product, device, point and time.

use std::sync::Arc;

use axum::{Extension, extract::State, http::StatusCode, response::Response};
use backtide_store::{Thinning, View};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    aggregates::{Form, List},
    problem::{Body, Params},
    tables::{self, Answer, Format, LIMIT_DEFAULT},
};
use crate::{
    access::Caller,
    query::{
        Asked, Cursor, Filter, FilterError, Long, OutColumn, Question, QuestionError, TimeError,
    },
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(points))
        .routes(routes!(post_points))
}

#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
#[schema(as = PointQuery)]
struct PointParams {
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
    /// Where times without an offset are local, such as Europe/Paris.
    timezone: Option<String>,
    /// Rows at most. JSON: 1 to 10000, 1000 unless given. Streams: all unless given.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only values for which these comparisons hold, such as `P_avg>=0,P_avg.quality<3`: points, or
    /// their qualities, with `=`, `!=`, `<`, `<=`, `>`, `>=`. `quality` alone means those of all points.
    #[serde(default)]
    filter: String,
    #[serde(default)]
    #[param(inline)]
    format: Format,
    /// Values that have a quality come as `{"value":…,"quality":…}`; in CSV as a further column.
    #[serde(default)]
    quality: bool,
    /// `wide`: a row has all points of a device and time. `long`: a row for each: point, value, and with `quality` its quality.
    #[serde(default)]
    #[param(inline)]
    form: Form,
    /// `minute`: of each point the last value of each minute. `changes`: of each point the values that
    /// differ from the one before, and the first of each UTC day. Unless given, as values are kept.
    #[serde(default)]
    #[param(inline)]
    view: Option<Thinner>,
}

/// A thinner view of values.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Thinner {
    Minute,
    Changes,
}

impl From<Thinner> for View {
    fn from(thinner: Thinner) -> Self {
        Self::Thinned(match thinner {
            Thinner::Minute => Thinning::Minute,
            Thinner::Changes => Thinning::Changes,
        })
    }
}

/// Read points, in the order of time
#[utoipa::path(get, path = "/api/v1/points", tag = "history",
    params(PointParams),
    responses(
        (status = 200, description = "Wide rows: deviceKey, time in milliseconds, and each point that the row has",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn points(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(asked): Params<PointParams>,
) -> Result<Response, Problem> {
    rows(&api, &caller, &asked).await
}

/// Read points: the same question as a body, of any length
#[utoipa::path(post, path = "/api/v1/points/query", tag = "history", operation_id = "points_of_body",
    request_body = PointParams,
    responses((status = 200, description = "As for GET /api/v1/points", body = serde_json::Value), Refusals))]
async fn post_points(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Body(asked): Body<PointParams>,
) -> Result<Response, Problem> {
    rows(&api, &caller, &asked).await
}

async fn rows(api: &Api, caller: &Caller, params: &PointParams) -> Result<Response, Problem> {
    let (device, points) = (params.device.text(), params.points.text());
    let asked = Asked {
        product: params.product.as_deref(),
        devices: &device,
        names: &points,
        from: params.from.as_deref(),
        to: params.to.as_deref(),
        timezone: params.timezone.as_deref(),
        cursor: params.cursor.as_deref(),
    };
    let question = Question::new(&asked, &api.registry.snapshot())?;
    let filter = Filter::parse(&params.filter, &question.points)?;
    // Where nothing is left out, no more is read than is shown.
    let rows_max = match params.format {
        _ if !filter.is_empty() => usize::MAX,
        Format::Json => params.limit.unwrap_or(LIMIT_DEFAULT),
        _ => params.limit.unwrap_or(usize::MAX),
    };
    let range = question.range(rows_max);
    let view = params.view.map_or(View::Kept, View::from);
    let columns = OutColumn::of(&question.points);
    let long = (params.form == Form::Long).then(|| Long::of_points(&columns, params.quality));
    let answer = Answer {
        format: params.format,
        columns: long.as_ref().map_or(columns, Long::columns),
        with_quality: params.quality && long.is_none(),
        limit: params.limit,
        long,
        // Where values are left out, a page may read far for its rows.
        is_short: filter.is_empty(),
        cursor: Cursor::encode,
    };
    let (store, seat) = (api.store.clone(), tables::seat(api, caller)?);
    answer
        .send(api, seat, move |taker| {
            tables::read_ahead(&store, &range, view, |slab| {
                taker.check()?;
                taker.take(&filter.apply(slab).map_err(Problem::from)?)
            })
        })
        .await
}

impl From<QuestionError> for Problem {
    fn from(error: QuestionError) -> Self {
        let detail = error.to_string();
        match error {
            QuestionError::UnknownProduct(_) => Self::not_found(detail).at("product"),
            QuestionError::UnknownDevice { .. } => Self::not_found(detail).at("device"),
            QuestionError::UnknownElement { what: "point", .. } => {
                Self::not_found(detail).at("points")
            }
            QuestionError::UnknownElement { what, .. } => Self::not_found(detail).at(what),
            QuestionError::Ambiguous { .. } => {
                Self::new(StatusCode::CONFLICT, "ambiguous", detail).at("product")
            }
            QuestionError::NoProduct { .. } => Self::bad_request("product", detail),
            QuestionError::Name(_) => Self::bad_request("points", detail),
            QuestionError::Time(TimeError::Zone(_)) => Self::bad_request("timezone", detail),
            QuestionError::Time(_) => Self::bad_request("from, to", detail),
            QuestionError::Cursor => Self::bad_request("cursor", detail),
        }
    }
}

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Self::bad_request("filter", error.to_string())
    }
}
