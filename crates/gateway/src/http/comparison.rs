//! `/api/v1/comparison`: how much of some messages was there already, and how much was other.

use std::sync::Arc;

use axum::{Json, extract::State};
use backtide_model::ChannelName;
use backtide_store::{Sequence, Store};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals, problem::Params};
use crate::compared::{self, Comparison, Stretch, Whose};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(comparison))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ComparisonParams {
    /// Only messages that came by this channel.
    channel: Option<String>,
    /// Only those of this client id, such as `import:1`.
    client: Option<String>,
    /// Only those whose `id` begins with this: `backtide send` says its own.
    messages: Option<String>,
    /// Only commits behind this sequence: `durable` of `/api/v1/store` before the first was sent.
    #[serde(default)]
    after: u64,
    /// Only commits up to this sequence; to the newest unless given.
    through: Option<u64>,
}

/// What of messages was there already.
#[derive(Debug, Serialize, ToSchema)]
struct Compared {
    /// Messages that were committed; one that was sent twice is two.
    messages: u64,
    /// Those whose values policies processed: what they stored is not what they said.
    processed: u64,
    /// Values that were there already, and are stored once.
    repeated: u64,
    /// Values that were other than what stood there.
    conflicts: u64,
    /// All is compared; else more may be found within a minute of quiet.
    complete: bool,
    through: u64,
}

/// Tell how much of messages was there already, and how much was other than what stood there
#[utoipa::path(get, path = "/api/v1/comparison", tag = "history", operation_id = "compare_messages",
    params(ComparisonParams),
    responses((status = 200, description = "Values of points, counted; events and attributes are not", body = Compared), Refusals))]
async fn comparison(
    State(api): State<Arc<Api>>,
    Params(params): Params<ComparisonParams>,
) -> Result<Json<Compared>, Problem> {
    let whose = whose(params.channel.as_deref(), params.client, params.messages)?;
    let stretch = stretch(&api.store, params.after, params.through);
    let store = api.store.clone();
    let found = api
        .streams
        .run(move || compared::compare(&store, &whose, stretch))
        .await??;
    let Comparison {
        messages,
        processed,
        repeated,
        conflicts,
        is_complete,
    } = found;
    Ok(Json(Compared {
        messages,
        processed,
        repeated,
        conflicts,
        complete: is_complete,
        through: stretch.through.0,
    }))
}

/// # Errors
/// The channel's name is none.
pub(super) fn whose(
    channel: Option<&str>,
    client: Option<String>,
    messages: Option<String>,
) -> Result<Whose, Problem> {
    let channel = channel.map(ChannelName::new).transpose();
    Ok(Whose {
        channel: channel.map_err(|error| Problem::bad_request("channel", error.to_string()))?,
        client,
        messages,
    })
}

/// Commits that there are, of those that are asked for.
pub(super) fn stretch(store: &Store, after: u64, through: Option<u64>) -> Stretch {
    let durable = store.durable();
    Stretch {
        after: Sequence(after),
        through: through.map_or(durable, |through| Sequence(through).min(durable)),
    }
}
