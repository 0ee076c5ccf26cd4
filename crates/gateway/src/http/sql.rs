//! `/api/v1/sql`: SQL over the history, read-only, in a binary that is built with it.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals, problem::Body, tables::Format};
use crate::access::Caller;

#[cfg(feature = "sql")]
mod answer;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(sql))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[cfg_attr(
    not(feature = "sql"),
    expect(
        dead_code,
        reason = "a binary without SQL checks what is asked, and no more"
    )
)]
struct SqlQuery {
    /// One statement that only reads, in PostgreSQL's dialect.
    sql: String,
    /// Rows at most; all unless given. Answers of every format are streamed.
    #[schema(minimum = 1)]
    limit: Option<usize>,
    #[serde(default)]
    #[schema(inline)]
    format: Format,
}

/// Ask in SQL
///
/// Tables: `points`, `events`, `attributes`, `devices`, `products`, `channels`, `channel_log`,
/// `quarantine`, and one for each product with a column for each point. See docs/sql.md. A binary
/// built without SQL answers 501.
#[utoipa::path(post, path = "/api/v1/sql", tag = "history",
    request_body = SqlQuery,
    responses(
        (status = 200, description = "JSON: columns with their names and types, and items with a member for each column. Times are ISO in UTC",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn sql(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Body(asked): Body<SqlQuery>,
) -> Result<Response, Problem> {
    answered(&api, caller, asked).await
}

#[cfg(feature = "sql")]
use answer::answered;

#[cfg(not(feature = "sql"))]
#[expect(clippy::unused_async, reason = "it is awaited where there is SQL")]
async fn answered(_: &Api, _: Caller, _: SqlQuery) -> Result<Response, Problem> {
    Err(Problem::new(
        axum::http::StatusCode::NOT_IMPLEMENTED,
        "no-sql",
        "this backtide is built without SQL",
    )
    .fix("take a released binary, or build one with `cargo build --release --features sql`"))
}
