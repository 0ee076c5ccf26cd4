//! The envelopes of answers, one for each generation of the vendor's API.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{application::Denied, pool::PoolError, registry::Refused};

/// Bad or missing arguments, no right.
pub(super) const BAD_REQUEST: u32 = 400;
/// More than is answered at once.
pub(super) const TOO_LARGE: u32 = 430;
/// The gateway cannot, for now.
pub(super) const SERVICE: u32 = 701;
/// A parameter makes no sense: a time, a name that the model has not, a page size.
pub(super) const PARAMETER: u32 = 702;
/// An object is not declared.
pub(super) const NOT_FOUND: u32 = 404;
/// An object is there already, or something uses it.
pub(super) const CONFLICT: u32 = 409;

pub(super) const JSON: &str = "application/json;charset=utf-8";
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// How a generation puts its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// v2.1: `code`.
    Code,
    /// v2.0 and 2018: `status`.
    Status,
    /// The token service.
    Token,
}

/// What an operation answers.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// JSON text.
    pub(super) data: Vec<u8>,
    /// Members that stand beside `data`, as `,"name":value`.
    pub(super) beside: String,
    /// What was left out of account, in words.
    pub(super) note: String,
}

/// Why an operation is refused.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: u32,
    pub(super) message: String,
    /// 200 but for those who are not admitted, and bodies that are not read.
    status: StatusCode,
    /// JSON text for `data`; null unless given.
    pub(super) data: Option<String>,
}

impl Data {
    pub(super) fn of<T: Serialize>(data: &T) -> Self {
        Self {
            data: serde_json::to_vec(data).expect("answers have texts as keys"),
            ..Self::default()
        }
    }

    pub(super) fn null() -> Self {
        Self {
            data: b"null".to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl Refusal {
    pub(super) fn new(code: impl Into<u32>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            status: StatusCode::OK,
            data: None,
        }
    }

    /// A parameter makes no sense.
    pub(super) fn parameter(message: impl Into<String>) -> Self {
        Self::new(PARAMETER, message)
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(BAD_REQUEST, message)
    }

    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(SERVICE, message).with_status(StatusCode::SERVICE_UNAVAILABLE)
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn denied(denied: &Denied) -> Self {
        let status = match denied {
            Denied::NoRight { .. } => StatusCode::FORBIDDEN,
            Denied::Throttled | Denied::Busy => StatusCode::TOO_MANY_REQUESTS,
            Denied::OwnKey => StatusCode::INTERNAL_SERVER_ERROR,
            Denied::UnknownKey
            | Denied::Revoked
            | Denied::Signature
            | Denied::Token
            | Denied::Unsealable
            | Denied::Stale
            | Denied::Repeated => StatusCode::UNAUTHORIZED,
        };
        Self::bad(denied.outward()).with_status(status)
    }

    /// What the store cannot read is told to people on this side only.
    pub(super) fn unreadable(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "the store cannot be read");
        Self::new(
            SERVICE,
            "the store cannot be read; look at the gateway's log",
        )
        .with_status(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match &refused {
            Refused::Faults { faults, .. } => {
                let first = faults
                    .first()
                    .map_or_else(|| refused.to_string(), ToString::to_string);
                Self::bad(first)
            }
            Refused::NotFound { .. } => Self::new(NOT_FOUND, refused.to_string()),
            Refused::Ambiguous { .. } | Refused::InUse { .. } | Refused::Conflict(_) => {
                Self::new(CONFLICT, refused.to_string())
            }
            Refused::Records(error) => {
                tracing::error!(%error, "the registry cannot be written");
                Self::new(
                    SERVICE,
                    "the registry cannot be written; look at the gateway's log",
                )
                .with_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        Self::busy(error.to_string())
    }
}

impl Style {
    pub(super) fn response(self, request_id: &str, outcome: Result<Data, Refusal>) -> Response {
        let (status, mut body, data) = match outcome {
            Ok(answer) => {
                let head = self.head(0, "OK", &answer.note, request_id, &answer.beside);
                (StatusCode::OK, head, answer.data)
            }
            Err(refusal) => {
                let head = self.head(refusal.code, &refusal.message, "", request_id, "");
                let data = refusal.data.unwrap_or_else(|| "null".to_owned());
                (refusal.status, head, data.into_bytes())
            }
        };
        body.extend_from_slice(&data);
        body.push(b'}');
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(JSON)),
            (header::CACHE_CONTROL, NO_STORE),
        ];
        (status, headers, body).into_response()
    }

    /// An envelope up to its data.
    pub(super) fn head(
        self,
        code: u32,
        message: &str,
        note: &str,
        request_id: &str,
        beside: &str,
    ) -> Vec<u8> {
        let text = |text: &str| serde_json::to_string(text).expect("texts are JSON");
        let member = match self {
            Self::Code => "code",
            Self::Status | Self::Token => "status",
        };
        let note = match self {
            _ if !note.is_empty() => text(note),
            // The 2018 SDK cannot do without it.
            Self::Status => "\"\"".to_owned(),
            Self::Code | Self::Token => "null".to_owned(),
        };
        let id = match self {
            Self::Code | Self::Status => format!("\"requestId\":{}", text(request_id)),
            Self::Token => "\"business\":\"apim-token-service\"".to_owned(),
        };
        let message = text(message);
        let head = format!(
            "{{\"{member}\":{code},\"msg\":{message},\"submsg\":{note},{id}{beside},\"data\":"
        );
        head.into_bytes()
    }
}

/// JSON text as it stands.
pub(super) fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("it was written as JSON")
}
