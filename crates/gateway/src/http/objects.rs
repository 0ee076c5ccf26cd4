//! What the resources of all kinds have in common: a list in pages, one object, its deletion.

use std::sync::Arc;

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::{Api, Problem, problem::limit};
use crate::registry::{Kind, Refused, Registry, written};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Objects in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    pub(super) cursor: Option<String>,
    /// Only those of this product.
    pub(super) product: Option<String>,
    /// Only those of this model.
    pub(super) model: Option<String>,
    /// Only that of this key.
    pub(super) key: Option<String>,
    /// Only that of this asset id.
    pub(super) asset_id: Option<String>,
    /// Only those whose name contains this.
    name: Option<String>,
}

/// Tells devices of one name apart.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfProduct {
    /// The product of the device, where several have one of that name.
    pub(super) product: Option<String>,
}

impl ListParams {
    /// Where the page before ended, as [`Position`] says.
    pub(super) fn after(&self) -> Result<Option<Position>, Problem> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        hex::decode(cursor)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .map(Some)
            .ok_or_else(|| {
                Problem::bad_request("cursor", "the cursor is none of ours")
                    .fix("send next of the page before, or leave it out")
            })
    }

    /// The name with which the page before ended, of objects that have names of their own; of the
    /// filters, only `allowed` may be given.
    pub(super) fn after_name(
        &self,
        kind: Kind,
        allowed: &[&str],
    ) -> Result<Option<String>, Problem> {
        self.only(kind, allowed)?;
        Ok(self.after()?.map(|Position(_, name)| name))
    }

    /// Refuses filters that this kind has no member for: they would hide nothing, silently.
    pub(super) fn only(&self, kind: Kind, allowed: &[&str]) -> Result<(), Problem> {
        let given = [
            ("product", &self.product),
            ("model", &self.model),
            ("key", &self.key),
            ("assetId", &self.asset_id),
        ];
        match given
            .into_iter()
            .find(|(name, value)| value.is_some() && !allowed.contains(name))
        {
            Some((name, _)) => Err(Problem::bad_request(
                name,
                format!("{} are not filtered by {name}", kind.plural()),
            )),
            None => Ok(()),
        }
    }
}

/// The last object of a page: its product where it is a device, and its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position(pub(super) String, pub(super) String);

/// Some objects, in order.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    items: Vec<Box<RawValue>>,
    /// Asks for the page after this; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The page of `objects`, which begin after the page before; each with its position and its text.
pub(super) fn page(
    params: &ListParams,
    objects: impl Iterator<Item = (Position, impl FnOnce() -> String)>,
) -> Result<Json<Page>, Problem> {
    let limit = limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let mut objects = objects.filter(|(position, _)| {
        params
            .name
            .as_ref()
            .is_none_or(|part| position.1.contains(part.as_str()))
    });
    let mut items = Vec::new();
    let mut last = None;
    for (position, text) in objects.by_ref().take(limit) {
        items.push(raw(text()));
        last = Some(position);
    }
    let next = match (last, objects.next()) {
        (Some(last), Some(_)) => Some(hex::encode(
            serde_json::to_vec(&last).expect("texts are JSON"),
        )),
        (_, None) | (None, _) => None,
    };
    Ok(Json(Page { items, next }))
}

/// The page of objects that have names of their own, each with its name and what its file says.
pub(super) fn page_of<'s, F: Serialize>(
    params: &ListParams,
    kind: Kind,
    objects: impl Iterator<Item = (&'s str, F)>,
) -> Result<Json<Page>, Problem> {
    let objects = objects.map(|(name, file)| {
        let position = Position(String::new(), name.to_owned());
        (position, move || written(kind, name, &file))
    });
    page(params, objects)
}

/// Changes what `apply` does not say about an object: whether it is stopped, its secret.
pub(super) async fn change<T: Send + 'static>(
    api: &Api,
    change: impl FnOnce(&Registry) -> Result<T, Refused> + Send + 'static,
) -> Result<T, Problem> {
    let registry = Arc::clone(&api.registry);
    Ok(api.pool.run(move || change(&registry)).await??)
}

/// One object, as `apply` takes it.
pub(super) fn one<F: Serialize>(kind: Kind, name: &str, file: &F) -> Response {
    let text = written(kind, name, file);
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// What was looked up, or that it is not declared.
pub(super) fn declared<T>(found: Option<T>, kind: Kind, name: &str) -> Result<T, Problem> {
    found.ok_or_else(|| not_found(kind, name))
}

pub(super) fn not_found(kind: Kind, name: &str) -> Problem {
    Refused::not_found(kind, name).into()
}

pub(super) async fn delete(
    api: Arc<Api>,
    kind: Kind,
    name: String,
    product: Option<String>,
) -> Result<StatusCode, Problem> {
    api.pool
        .clone()
        .run(move || api.registry.delete(kind, &name, product.as_deref()))
        .await??;
    Ok(StatusCode::NO_CONTENT)
}

fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("an object was written as JSON")
}
