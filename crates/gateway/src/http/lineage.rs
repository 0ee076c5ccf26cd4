//! `/api/v1/points/lineage`: which message a value came with.

use std::sync::Arc;

use arrow_array::{RecordBatch, cast::AsArray, types::UInt64Type};
use axum::{Json, extract::State};
use backtide_model::ElementName;
use backtide_store::{Origin, Sequence, Store};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals, problem::Params};
use crate::{
    policy::Step,
    query::{Asked, Question},
    registry::{Product, Snapshot, chain},
};

const SEQUENCE: &str = "_sequence";

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(lineage))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LineageParams {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// The device's key.
    device: String,
    point: String,
    /// The time of the value, milliseconds since 1970.
    time: i64,
}

/// Where a value came from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Lineage {
    device_key: String,
    point: String,
    time: i64,
    sequence: u64,
    receipt: String,
    /// Absent, as is all that follows, where the message is too old to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// The `id` of the request, as JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// When the message arrived, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived: Option<i64>,
    /// What policies did to the message's values; absent where none touched them.
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Processing>,
}

/// What policies did to a value before it was stored.
#[derive(Debug, Serialize, ToSchema)]
struct Processing {
    /// Of all policies, as they were when the message was stored.
    revision: u32,
    /// Those with a part in this point, in order. Empty where they touched other points of the
    /// message alone.
    steps: Vec<Step>,
}

/// Show which message a value came with
#[utoipa::path(get, path = "/api/v1/points/lineage", tag = "history", operation_id = "point_lineage",
    params(LineageParams),
    responses((status = 200, description = "Channel, time of arrival and message", body = Lineage), Refusals))]
async fn lineage(
    State(api): State<Arc<Api>>,
    Params(params): Params<LineageParams>,
) -> Result<Json<Lineage>, Problem> {
    let (from, to) = (params.time.to_string(), (params.time + 1).to_string());
    let asked = Asked {
        product: params.product.as_deref(),
        devices: &params.device,
        names: &params.point,
        from: Some(&from),
        to: Some(&to),
        timezone: None,
        cursor: None,
    };
    let snapshot = api.registry.snapshot();
    let question = Question::new(&asked, &snapshot)?;
    if question.devices.len() != 1 || question.points.len() != 1 {
        return Err(Problem::bad_request(
            "device, point",
            "name one device and one point",
        ));
    }
    let store = api.store.clone();
    let product = Arc::clone(&question.product);
    let found = api.pool.run(move || traced(&store, &question)).await??;
    let point = ElementName::new(&params.point)
        .map_err(|error| Problem::bad_request("point", error.to_string()))?;
    let (sequence, receipt, origin) = found.ok_or_else(|| {
        let LineageParams {
            device,
            point,
            time,
            ..
        } = &params;
        Problem::not_found(format!("{device} has no value of {point} at {time}"))
    })?;
    Ok(Json(Lineage {
        device_key: params.device,
        point: params.point,
        time: params.time,
        sequence: sequence.0,
        receipt,
        channel: origin.as_ref().map(|origin| origin.channel.to_string()),
        client_id: origin.as_ref().map(|origin| origin.client.to_string()),
        topic: origin.as_ref().map(|origin| origin.topic.to_string()),
        message_id: origin
            .as_ref()
            .map(|origin| origin.message_id.clone().into()),
        arrived: origin.as_ref().map(|origin| origin.arrived_ms),
        policies: origin
            .as_ref()
            .and_then(|origin| processing(&snapshot, &product, origin, &point)),
    }))
}

/// What the policies of that day did. The channel and the model are those of today.
fn processing(
    snapshot: &Snapshot,
    product: &Product,
    origin: &Origin,
    point: &ElementName,
) -> Option<Processing> {
    let revision = origin.policies?.get();
    let compiled = || {
        let channel = snapshot.channel(&origin.channel)?;
        let policies = snapshot.policies().at(revision);
        chain(&policies, channel, product, revision).ok()?
    };
    let steps = compiled().map_or_else(Vec::new, |chain| chain.steps_of(point));
    Some(Processing { revision, steps })
}

type Traced = (Sequence, String, Option<Origin>);

fn traced(store: &Store, question: &Question) -> Result<Option<Traced>, Problem> {
    for slab in store.read(&question.range(1))? {
        if let Some(sequence) = sequence_of(&slab?) {
            let origin = store.origins(&[sequence])?.pop();
            let receipt = store.receipt(sequence).to_string();
            return Ok(Some((sequence, receipt, origin.map(|found| found.origin))));
        }
    }
    Ok(None)
}

fn sequence_of(slab: &RecordBatch) -> Option<Sequence> {
    let array = slab.column_by_name(SEQUENCE)?;
    let sequences = array.as_primitive_opt::<UInt64Type>()?;
    (!sequences.is_empty()).then(|| Sequence(sequences.value(0)))
}
