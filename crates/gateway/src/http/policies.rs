//! `/api/v1/policies`, what of them is in force for a point, and what a change would touch.

mod derived;
mod storage;
mod trial;

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use backtide_model::ElementName;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals, apply,
    objects::{self, ListParams, Page},
    problem::Params,
};
use crate::{
    limits::PREVIEW_POINTS_MAX,
    policy::Step,
    query::{Asked, Question},
    registry::{Kind, Product, ProductStorage, RuleInForce, Snapshot},
};
use derived::{DerivedChange, DerivedOfPoint};
use storage::{Expiring, Kept};
pub(super) use trial::trials;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
        .routes(routes!(effective))
        .routes(routes!(preview))
}

/// List policies
#[utoipa::path(get, path = "/api/v1/policies", tag = "objects", operation_id = "list_policies",
    params(ListParams),
    responses((status = 200, description = "A page of policies", body = ref("#/components/schemas/PolicyPage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::Policy, &[])?;
    let snapshot = api.registry.snapshot();
    let found = snapshot.policies_after(after.as_deref());
    let found = found.map(|policy| (policy.name.as_str(), &policy.file));
    objects::page_of(&params, Kind::Policy, found)
}

/// Show a policy
#[utoipa::path(get, path = "/api/v1/policies/{name}", tag = "objects", operation_id = "get_policy",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The policy, as apply takes it", body = ref("#/components/schemas/Policy")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let policy = objects::declared(snapshot.policy(&name), Kind::Policy, &name)?;
    Ok(objects::one(Kind::Policy, &name, &policy.file))
}

/// Delete a policy: what it did stays as it was stored
#[utoipa::path(delete, path = "/api/v1/policies/{name}", tag = "objects", operation_id = "delete_policy",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Policy, name, None).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PointParams {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// The device's key.
    device: String,
    point: String,
}

/// What policies mean for a point of a device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Effective {
    product: String,
    device_key: String,
    point: String,
    /// Of all policies; grows with each change of one.
    revision: u32,
    /// What is done to its values, by the channel that they come by.
    processing: Vec<OfChannel>,
    /// What of them is kept; everything, for ever, where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<Kept>,
    /// What of the product's events is kept; likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Kept>,
    /// What of its attributes' history is kept; likewise. Values in force always are.
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Kept>,
    /// Rollups and reductions that read the point.
    derived: Vec<DerivedOfPoint>,
}

#[derive(Serialize, ToSchema)]
struct OfChannel {
    channel: String,
    /// In the order in which they act.
    steps: Vec<Step>,
}

/// Show which policies are in force for a point
#[utoipa::path(get, path = "/api/v1/effective-policy", tag = "policies", operation_id = "effective_policy",
    params(PointParams),
    responses((status = 200, description = "What is done to its values, channel by channel", body = Effective), Refusals))]
async fn effective(
    State(api): State<Arc<Api>>,
    Params(params): Params<PointParams>,
) -> Result<Json<Effective>, Problem> {
    let asked = Asked {
        product: params.product.as_deref(),
        devices: &params.device,
        names: &params.point,
        ..Asked::default()
    };
    let snapshot = api.registry.snapshot();
    let question = Question::new(&asked, &snapshot)?;
    let ([device], [point]) = (question.devices.as_slice(), question.points.as_slice()) else {
        return Err(Problem::bad_request(
            "device, point",
            "name one device and one point",
        ));
    };
    let channels = question.product.channels.iter();
    let now_ms = api.clock.now_ms();
    let kept = |which: &dyn Fn(&ProductStorage) -> Option<&RuleInForce>| {
        let storage = snapshot.storage(&question.product.name)?;
        which(storage).map(|rule| Kept::of(rule, now_ms))
    };
    Ok(Json(Effective {
        product: question.product.name.to_string(),
        device_key: device.to_string(),
        point: point.name.to_string(),
        revision: snapshot.policies().revision(),
        storage: kept(&|storage| storage.point(&point.name)),
        events: kept(&|storage| storage.events.as_ref()),
        attributes: kept(&|storage| storage.attributes.as_ref()),
        derived: derived::of_point(&snapshot, &question.product, &point.name),
        processing: channels
            .map(|channel| OfChannel {
                channel: channel.name.to_string(),
                steps: steps(&snapshot, channel.name.as_str(), &point.name),
            })
            .collect(),
    }))
}

fn steps(snapshot: &Snapshot, channel: &str, point: &ElementName) -> Vec<Step> {
    let chain = snapshot.chain(channel);
    chain.map_or_else(Vec::new, |chain| chain.steps_of(point))
}

/// What declaring objects would change for points. Nothing is stored.
#[derive(Serialize, ToSchema)]
struct Preview {
    /// Points whose processing would be another, by channel.
    processing: Vec<Touched>,
    /// Further ones, beyond those shown.
    more: usize,
    /// Products of which something else would be kept.
    storage: Vec<Expiring>,
    /// Rollups and reductions that would appear, go, or be computed once more.
    derived: Vec<DerivedChange>,
}

#[derive(Serialize, ToSchema)]
struct Touched {
    product: String,
    channel: String,
    point: String,
    /// Devices of the product: each may have the point.
    devices: usize,
    before: Vec<Step>,
    after: Vec<Step>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PreviewParams {
    /// Values that would go are not counted by reading them: `valuesMax` is an upper bound.
    #[serde(default)]
    quick: bool,
}

/// Show what declaring objects would change for points, without doing it
#[utoipa::path(post, path = "/api/v1/policy-preview", tag = "policies", operation_id = "policy_preview",
    params(PreviewParams),
    request_body(description = "Documents, as apply takes them",
        content((String = "application/yaml"), (Object = "application/json"))),
    responses((status = 200, description = "Points whose processing would be another, what would be too old, and what would be computed", body = Preview), Refusals))]
async fn preview(
    State(api): State<Arc<Api>>,
    Params(params): Params<PreviewParams>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Preview>, Problem> {
    let form = apply::form_of(&headers)?;
    let body = body?;
    // It may read much: beside the threads that others wait for.
    let pool = api.streams.clone();
    let preview = move || -> Result<Preview, Problem> {
        let documents = apply::documents(&body, form)?;
        let (before, after) = api.registry.preview(documents)?;
        let mut preview = compared(&before, &after);
        preview.storage = storage::expiring(&api, &before, &after, params.quick)?;
        preview.derived = derived::changes(&api.store, &before, &after);
        Ok(preview)
    };
    Ok(Json(pool.run(preview).await??))
}

fn compared(before: &Snapshot, after: &Snapshot) -> Preview {
    let mut preview = Preview {
        processing: Vec::new(),
        more: 0,
        storage: Vec::new(),
        derived: Vec::new(),
    };
    for product in after.products_after(None) {
        for channel in &product.channels {
            let channel = channel.name.as_str();
            for point in product.model.measurepoints.keys() {
                let (was, is) = (steps(before, channel, point), steps(after, channel, point));
                if was == is {
                    continue;
                }
                if preview.processing.len() == PREVIEW_POINTS_MAX {
                    preview.more += 1;
                    continue;
                }
                preview
                    .processing
                    .push(touched(product, channel, point, was, is));
            }
        }
    }
    preview
}

fn touched(
    product: &Product,
    channel: &str,
    point: &ElementName,
    before: Vec<Step>,
    after: Vec<Step>,
) -> Touched {
    Touched {
        product: product.name.to_string(),
        channel: channel.to_owned(),
        point: point.to_string(),
        devices: product.devices.len(),
        before,
        after,
    }
}
