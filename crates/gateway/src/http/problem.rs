//! Every refusal of the HTTP door, as problem+json (RFC 9457): what happened, where, how to fix it.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Query, Request,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder},
};

use crate::{
    pool::PoolError,
    registry::{Fault, Refused, User},
    script::{Cause, Failure},
};

/// A refusal, to be answered.
#[derive(Debug, Clone)]
pub struct Problem(Box<Details>);

/// A refusal (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    /// Identifies the kind of problem: `urn:backtide:problem:` and the code.
    #[serde(rename = "type")]
    type_uri: String,
    /// The kind of problem in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The kind of problem as one stable word.
    code: &'static str,
    /// What happened this time.
    detail: String,
    /// Which part of the request it is about.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
    /// Where in a script's source it is, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    /// What uses the object that was to be deleted; capped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    used_by: Vec<UsedBy>,
    /// What is wrong with each document that was to be applied; capped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<DocumentError>,
}

/// An object that uses another.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct UsedBy {
    kind: &'static str,
    name: String,
}

/// What is wrong with a document.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct DocumentError {
    /// Which document, from 1.
    document: usize,
    /// Which line of the body, from 1.
    line: usize,
    /// What it declares, such as `device R80711`, where that was readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    message: String,
}

/// How many objects a page is to have: `default` unless given, 1 to `max`.
pub(super) fn limit(given: Option<usize>, default: usize, max: usize) -> Result<usize, Problem> {
    let limit = given.unwrap_or(default);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("limit {limit} is not between 1 and {max}");
    Err(Problem::bad_request("limit", detail))
}

impl Problem {
    /// A problem of this kind. `code` is one stable word, `detail` what happened this time.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Details {
            type_uri: format!("urn:backtide:problem:{code}"),
            title: status.canonical_reason().unwrap_or("refused"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            place: None,
            fix: None,
            line: None,
            column: None,
            used_by: Vec::new(),
            errors: Vec::new(),
        }))
    }

    /// A part of the request makes no sense.
    pub fn bad_request(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail).at(place)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// A script that must not go live, with the place in its source.
    pub fn of_script(name: &str, failure: &Failure) -> Self {
        let detail = format!("script {name}: {failure}");
        let mut problem = match failure.cause {
            Cause::Unavailable => Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail),
            _ => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "script", detail),
        };
        problem.0.line = failure.line;
        problem.0.column = failure.column;
        problem
    }

    /// Names the part of the request that it is about.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place = Some(place.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix = Some(fix.into());
        self
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).expect("made from a status")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The refusals of the registry, outward.
impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Faults { faults, .. } => {
                let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
                problem.0.place = faults.first().map(|fault| {
                    format!(
                        "document {}, line {}",
                        fault.place.document, fault.place.line
                    )
                });
                problem.0.errors = faults.into_iter().map(document_error).collect();
                problem
            }
            Refused::NotFound { .. } => Self::not_found(detail),
            Refused::Ambiguous { .. } => {
                Self::new(StatusCode::CONFLICT, "ambiguous", detail).fix("add ?product=NAME")
            }
            Refused::InUse { users, .. } => {
                let mut problem = Self::new(StatusCode::CONFLICT, "in-use", detail)
                    .fix("delete what uses it first");
                problem.0.used_by = users.into_iter().map(used_by).collect();
                problem
            }
            Refused::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", detail),
            Refused::Records(error) => {
                tracing::error!(%error, "the registry cannot be written");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "registry", detail)
                    .fix("look at the gateway's log and at the disk it writes to")
            }
        }
    }
}

fn used_by(user: User) -> UsedBy {
    UsedBy {
        kind: user.kind.word(),
        name: user.name,
    }
}

fn document_error(fault: Fault) -> DocumentError {
    let Fault {
        place,
        object,
        message,
    } = fault;
    DocumentError {
        document: place.document,
        line: place.line,
        object,
        message,
    }
}

impl From<PoolError> for Problem {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Full => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string())
            }
            PoolError::Panicked => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                error.to_string(),
            ),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("the body is over {} MiB", super::BODY_BYTES_MAX >> 20);
            return Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
                .at("body")
                .fix("send it in parts");
        }
        Self::bad_request("body", rejection.body_text())
    }
}

/// The query of a request: unknown and malformed parameters are refused by name.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        match query {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let text = rejection.body_text();
                let detail = text
                    .split_once(": ")
                    .map_or(text.as_str(), |(_, detail)| detail);
                Err(Problem::bad_request("query", detail))
            }
        }
    }
}

/// The JSON body of a request: unknown and malformed members are refused by name.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Problem::bad_request("body", error.to_string()))
    }
}

/// What any operation may answer instead of its result.
pub struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let problem = |description: &str| {
            let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let response = ResponseBuilder::new()
                .description(description)
                .content("application/problem+json", content)
                .build();
            RefOr::T(response)
        };
        BTreeMap::from([
            (
                "401".to_owned(),
                problem("The bearer token is missing or wrong"),
            ),
            ("default".to_owned(), problem("Refused")),
        ])
    }
}

pub(super) async fn no_such_resource(uri: Uri) -> Problem {
    Problem::not_found(format!("{} is no resource of this gateway", uri.path()))
        .fix("see /api/openapi.json")
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        .fix("see /api/openapi.json")
}
