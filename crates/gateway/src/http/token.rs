//! The bearer token before everything under `/api/v1`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Api, Problem};

/// Lets a request pass that needs no token or has it.
pub(super) async fn require(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_open = path != "/api/v1" && !path.starts_with("/api/v1/");
    if is_open || presented(&request).is_some_and(|token| api.token.verify(token)) {
        return next.run(request).await;
    }
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the bearer token is missing or wrong",
    )
    .at("Authorization")
    .fix("send Authorization: Bearer and the text of admin.token in the data directory")
    .into_response()
}

fn presented(request: &Request) -> Option<&str> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}
