//! `POST /api/v1/apply`: declares objects, all of them or none.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
};
use backtide_model::ProductKey;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals, problem::Params};
use crate::{
    redrive::{Cure, Declared},
    registry::{self, Applied, Document, Effect, Form, Kind, Run, Script},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(apply))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ApplyParams {
    /// Check and say what would happen, but change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What became of the documents.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    dry_run: bool,
    created: usize,
    changed: usize,
    unchanged: usize,
    /// In the order of the documents.
    objects: Vec<ObjectOutcome>,
    /// Quarantined messages that would be stored now, by cause: what `/quarantine/cures` says of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    cures: Vec<Cure>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ObjectOutcome {
    #[schema(value_type = String, example = "Device")]
    kind: &'static str,
    name: String,
    /// created, changed or unchanged.
    #[schema(value_type = String, example = "created")]
    result: Effect,
}

/// Declare objects: all of them, or none
#[utoipa::path(post, path = "/api/v1/apply", tag = "objects", params(ApplyParams),
    request_body(description = "Documents of YAML; or JSON: an object, an array of objects, or one after the other",
        content((String = "application/yaml"), (Object = "application/json"))),
    responses((status = 200, description = "What became of each", body = Outcome), Refusals))]
async fn apply(
    State(api): State<Arc<Api>>,
    Params(params): Params<ApplyParams>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Outcome>, Problem> {
    let form = form_of(&headers)?;
    let body = body?;
    let run = if params.dry_run {
        Run::Dry
    } else {
        Run::Commit
    };
    let documents = api.pool.run(move || documents(&body, form)).await??;
    super::scripts::trials(&api, &documents)
        .await
        .map_err(registry::refused)?;
    super::policies::trials(&api, &documents)
        .await
        .map_err(registry::refused)?;
    let (applied, cures) = api
        .pool
        .clone()
        .run(move || -> Result<_, Problem> {
            let applied = api.registry.apply(documents, run)?;
            let cures = match run {
                Run::Dry => Vec::new(),
                Run::Commit => cures(&api, &applied),
            };
            Ok((applied, cures))
        })
        .await??;
    let count = |effect| {
        applied
            .iter()
            .filter(|applied| applied.effect == effect)
            .count()
    };
    Ok(Json(Outcome {
        dry_run: params.dry_run,
        created: count(Effect::Created),
        changed: count(Effect::Changed),
        unchanged: count(Effect::Unchanged),
        objects: applied
            .into_iter()
            .map(|Applied { kind, name, effect }| ObjectOutcome {
                kind: kind.word(),
                name,
                result: effect,
            })
            .collect(),
        cures,
    }))
}

/// What a body declares.
pub(super) fn documents(body: &[u8], form: Form) -> Result<Vec<Document>, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Problem::bad_request("body", format!("the body is not UTF-8: {error}")))?;
    let documents = registry::read(text, form).map_err(registry::refused)?;
    if documents.is_empty() {
        return Err(Problem::bad_request("body", "the body declares nothing"));
    }
    Ok(documents)
}

/// What of the quarantine the changes cure. They stand, whether this can be said or not.
fn cures(api: &Api, applied: &[Applied]) -> Vec<Cure> {
    let snapshot = api.registry.snapshot();
    let mut declared = BTreeSet::new();
    let changed = applied
        .iter()
        .filter(|applied| applied.effect != Effect::Unchanged);
    for Applied { kind, name, .. } in changed {
        let of_product = |key: &ProductKey| Declared::Product(key.to_string());
        match kind {
            Kind::Model => {
                let products = snapshot.products_after(None);
                let its = products.filter(|product| product.model_name.as_str() == name);
                declared.extend(its.map(|product| of_product(&product.key)));
            }
            Kind::Product => {
                declared.extend(
                    snapshot
                        .product(name)
                        .map(|product| of_product(&product.key)),
                );
            }
            Kind::Channel => {
                let channel = snapshot.channel(name);
                declared.extend(channel.map(|channel| of_product(&channel.product_key)));
            }
            Kind::Script => {
                let product = snapshot
                    .script(name)
                    .and_then(|script| snapshot.product(&script.product));
                declared.extend(product.map(|product| of_product(&product.key)));
            }
            Kind::Device => {
                let devices = snapshot.devices_named(name);
                declared.extend(devices.map(|(product, device)| {
                    Declared::Device(product.key.to_string(), device.key.to_string())
                }));
            }
            Kind::Policy => {
                let file = snapshot.policy(name).map(|policy| &policy.file);
                let products = snapshot.products_after(None);
                let its =
                    products.filter(|product| file.is_some_and(|file| file.is_about(product)));
                declared.extend(its.map(|product| of_product(&product.key)));
            }
            Kind::AccessKey | Kind::Subscription | Kind::Rule | Kind::Archive => {}
        }
    }
    cured_by(api, &declared)
}

/// What of the quarantine a change of a product's script cures.
pub(super) fn cures_of_script(api: &Api, script: &Script) -> Vec<Cure> {
    let snapshot = api.registry.snapshot();
    let product = snapshot.product(&script.product);
    let declared = product.map(|product| Declared::Product(product.key.to_string()));
    cured_by(api, &declared.into_iter().collect())
}

fn cured_by(api: &Api, declared: &BTreeSet<Declared>) -> Vec<Cure> {
    api.redriver.cured_by(declared).unwrap_or_else(|error| {
        tracing::warn!(%error, "what a change cures cannot be said");
        Vec::new()
    })
}

pub(super) fn form_of(headers: &HeaderMap) -> Result<Form, Problem> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim();
    match media_type.to_ascii_lowercase().as_str() {
        "application/json" | "application/x-ndjson" | "application/ndjson" => Ok(Form::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Form::Yaml),
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            format!("content type {other:?} is not read here"),
        )
        .at("Content-Type")
        .fix("send application/yaml or application/json")),
    }
}
