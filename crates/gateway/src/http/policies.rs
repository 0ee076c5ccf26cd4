//! `/api/v1/policies`, what of them is in force for a point, and what a change would touch.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use backtide_model::ElementName;
use backtide_store::Floor;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals, apply,
    objects::{self, ListParams, Page, Position},
    problem::Params,
};
use crate::{
    limits::PREVIEW_POINTS_MAX,
    policy::Step,
    query::{Asked, Question},
    registry::{Kind, Product, Snapshot, written},
    retention,
};

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
    params.only(Kind::Policy, &[])?;
    let snapshot = api.registry.snapshot();
    let after = params.after()?;
    let after = after.as_ref().map(|Position(_, name)| name.as_str());
    objects::page(
        &params,
        snapshot.policies_after(after).map(|policy| {
            let name = policy.name.as_str();
            let position = Position(String::new(), name.to_owned());
            (position, move || written(Kind::Policy, name, &policy.file))
        }),
    )
}

/// Show a policy
#[utoipa::path(get, path = "/api/v1/policies/{name}", tag = "objects", operation_id = "get_policy",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The policy, as apply takes it", body = ref("#/components/schemas/Policy")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let policy = snapshot
        .policy(&name)
        .ok_or_else(|| objects::not_found(Kind::Policy, &name))?;
    Ok(objects::one(written(Kind::Policy, &name, &policy.file)))
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
    /// How long they are kept; for ever where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<Kept>,
}

/// How long values are kept.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Kept {
    policy: String,
    keep_days: u32,
    /// event or import.
    by: &'static str,
    /// Kept from here on, milliseconds since 1970: the time of a value, or of the arrival of its
    /// message.
    from: i64,
}

impl Kept {
    fn of(snapshot: &Snapshot, product: &Product, now_ms: i64) -> Option<Self> {
        let (policy, storage) = snapshot.storage(&product.name)?;
        Some(Self {
            policy: policy.name.to_string(),
            keep_days: storage.keep_days,
            by: storage.by.word(),
            from: storage.oldest_ms(now_ms),
        })
    }
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
    Ok(Json(Effective {
        product: question.product.name.to_string(),
        device_key: device.to_string(),
        point: point.name.to_string(),
        revision: snapshot.policies().revision(),
        storage: Kept::of(&snapshot, &question.product, api.clock.now_ms()),
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
    /// Products whose values would be kept for another time.
    storage: Vec<Expiring>,
}

/// What a change of retention would do to a product.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Expiring {
    product: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Kept>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Kept>,
    /// Rows that would go, reckoned, of those in segments.
    rows: u64,
    rows_in_all: u64,
    /// Segments that would go whole, and their size. The rest goes row by row, later.
    segments: u64,
    bytes: u64,
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

/// Show what declaring objects would change for points, without doing it
#[utoipa::path(post, path = "/api/v1/policy-preview", tag = "policies", operation_id = "policy_preview",
    request_body(description = "Documents, as apply takes them",
        content((String = "application/yaml"), (Object = "application/json"))),
    responses((status = 200, description = "Points whose processing would be another, and what would be too old", body = Preview), Refusals))]
async fn preview(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Preview>, Problem> {
    let form = apply::form_of(&headers)?;
    let body = body?;
    let pool = api.pool.clone();
    let preview = move || -> Result<Preview, Problem> {
        let documents = apply::documents(&body, form)?;
        let (before, after) = api.registry.preview(documents)?;
        let mut preview = compared(&before, &after);
        preview.storage = expiring(&api, &before, &after)?;
        Ok(preview)
    };
    Ok(Json(pool.run(preview).await??))
}

fn compared(before: &Snapshot, after: &Snapshot) -> Preview {
    let mut preview = Preview {
        processing: Vec::new(),
        more: 0,
        storage: Vec::new(),
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

fn expiring(api: &Api, before: &Snapshot, after: &Snapshot) -> Result<Vec<Expiring>, Problem> {
    let now_ms = api.clock.now_ms();
    let mut all = Vec::new();
    for product in after.products_after(None) {
        let (was, is) = (
            Kept::of(before, product, now_ms),
            Kept::of(after, product, now_ms),
        );
        if was == is {
            continue;
        }
        let floor = match after.storage(&product.name) {
            Some((_, storage)) => retention::floor(&api.store, storage, now_ms)?,
            None => Floor::NONE,
        };
        let expirable = api.store.expirable(&product.key, floor);
        all.push(Expiring {
            product: product.name.to_string(),
            before: was,
            after: is,
            rows: expirable.rows,
            rows_in_all: expirable.rows_in_all,
            segments: expirable.segments,
            bytes: expirable.bytes,
        });
    }
    Ok(all)
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
