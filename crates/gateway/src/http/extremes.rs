//! `/api/v1/points/extremes`: history as a chart draws it, of any length.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use backtide_store::View;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals, problem::Params, stream, tables};
use crate::{
    access::Caller,
    limits::{EXTREMES_BUCKETS_MAX, EXTREMES_SERIES_MAX},
    query::{Asked, Extremes, Question},
};

const BUCKETS_DEFAULT: usize = 1_000;
const BUCKETS_MIN: usize = 10;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(extremes))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ExtremesParams {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// Device keys, separated by commas; all unless given.
    #[serde(default)]
    device: String,
    /// Points, separated by commas; all that the model declares unless given.
    #[serde(default)]
    points: String,
    /// Milliseconds since 1970, ISO time, or local time in `timezone`; inclusive.
    from: Option<String>,
    /// Exclusive.
    to: Option<String>,
    /// Where times without an offset are local, such as Europe/Paris.
    timezone: Option<String>,
    /// Buckets of time at most, 10 to 5000; 1000 unless given.
    #[param(minimum = 10, maximum = 5000)]
    buckets: Option<usize>,
}

/// One point of one device: for each bucket the first, least, greatest and last value.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExtremeSeries)]
struct Series {
    device_key: String,
    point: String,
    /// Values that were read; as many as `times` where nothing had to be left out.
    count: u64,
    /// How much time a bucket covers; 1 where nothing had to be left out.
    bucket_ms: i64,
    /// Ascending, milliseconds since 1970.
    times: Vec<i64>,
    /// At these times; booleans are 0 and 1.
    values: Vec<f64>,
    /// Their qualities, where any has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    qualities: Option<Vec<Option<u8>>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Extremes)]
struct Answer {
    /// By device, then point; points without numbers are left out.
    series: Vec<Series>,
    /// Rows that were read.
    rows: u64,
}

/// Read points for a chart: few values, and no peak lost
#[utoipa::path(get, path = "/api/v1/points/extremes", tag = "history", operation_id = "point_extremes",
    params(ExtremesParams),
    responses((status = 200, description = "A series for each point of each device", body = Answer), Refusals))]
async fn extremes(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<ExtremesParams>,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let buckets = params.buckets.unwrap_or(BUCKETS_DEFAULT);
    if !(BUCKETS_MIN..=EXTREMES_BUCKETS_MAX).contains(&buckets) {
        let detail = format!("{buckets} is not between {BUCKETS_MIN} and {EXTREMES_BUCKETS_MAX}");
        return Err(Problem::bad_request("buckets", detail));
    }
    let asked = Asked {
        product: params.product.as_deref(),
        devices: &params.device,
        names: &params.points,
        from: params.from.as_deref(),
        to: params.to.as_deref(),
        timezone: params.timezone.as_deref(),
        cursor: None,
    };
    let question = Question::new(&asked, &api.registry.snapshot())?;
    let range = question.range(usize::MAX);
    let (store, seat) = (api.store.clone(), tables::seat(&api, &caller)?);
    // It may read for long: on the pool for long answers.
    let read = move || -> Result<Extremes, Problem> {
        let _seat = seat;
        let mut extremes = Extremes::new(&question.points, buckets, EXTREMES_SERIES_MAX);
        for slab in store.values(&range, View::Kept)? {
            let added = extremes.add(&slab?)?;
            added.map_err(|many| Problem::bad_request("device, points", many.to_string()))?;
        }
        Ok(extremes)
    };
    let extremes = api.streams.run(read).await??;
    let timing = stream::timing(began, std::time::Duration::ZERO, "extremes");
    let mut response = Json(answer(&extremes)).into_response();
    response.headers_mut().insert(stream::SERVER_TIMING, timing);
    Ok(response)
}

fn answer(extremes: &Extremes) -> Answer {
    let series = extremes.series().into_iter();
    let series = series.map(|(device, point, series)| {
        let (mut times, mut values, mut qualities) = (Vec::new(), Vec::new(), Vec::new());
        for reading in series.readings() {
            times.push(reading.time_ms);
            values.push(reading.value);
            qualities.push(reading.quality);
        }
        Series {
            device_key: device.to_owned(),
            point: point.to_owned(),
            count: series.count(),
            bucket_ms: series.width_ms(),
            times,
            values,
            qualities: qualities.iter().any(Option::is_some).then_some(qualities),
        }
    });
    Answer {
        series: series.collect(),
        rows: extremes.rows(),
    }
}
