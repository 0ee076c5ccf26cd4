//! A request up to where its operation takes over: who sends it, its body, its parameters.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use axum::{
    RequestPartsExt,
    body::{Body, Bytes, to_bytes},
    extract::{RawPathParams, Request},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
};
use futures::{StreamExt, stream};
use serde_json::Value;

use super::{Operation, Style, answer::Refusal};
use crate::{
    application::{Claim, Said, Shown},
    http::Api,
    limits,
    registry::AccessKey,
};

/// A request whose body is not read yet.
pub(super) struct Envelope {
    parts: Parts,
    body: Body,
    query: Vec<(String, String)>,
    path: Vec<(String, String)>,
}

/// A request that is admitted.
pub(super) struct Call {
    pub(super) params: Params,
    /// The JSON body; null where there is none.
    pub(super) json: Value,
    /// Parts of a multipart body.
    pub(super) parts: Vec<Part>,
    /// Absent where the operation checks its caller itself.
    pub(super) key: Option<Arc<AccessKey>>,
    pub(super) address: Option<IpAddr>,
    pub(super) style: Style,
}

/// A part of a multipart body.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) is_file: bool,
    pub(super) bytes: Bytes,
}

impl Envelope {
    pub(super) async fn open(request: Request) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        if ![Method::GET, Method::POST].contains(&parts.method) {
            return Err(
                Refusal::bad(format!("{} is not taken here; send POST", parts.method))
                    .with_status(StatusCode::METHOD_NOT_ALLOWED),
            );
        }
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let query = query.into_owned().collect();
        let path = match parts.extract::<RawPathParams>().await {
            Ok(path) => path
                .iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
            Err(_) => Vec::new(),
        };
        Ok(Self {
            parts,
            body,
            query,
            path,
        })
    }

    /// The operation that is asked for.
    pub(super) fn choose(
        &self,
        operations: &[&'static Operation],
    ) -> Result<&'static Operation, Refusal> {
        let Some(action) = in_query(&self.query, "action") else {
            // Of a path that is read and saved, a POST saves.
            let save = operations
                .iter()
                .find(|operation| operation.action == Some("save"));
            if let Some(save) = save.filter(|_| self.parts.method == Method::POST) {
                return Ok(save);
            }
            return operations
                .first()
                .copied()
                .filter(|first| first.action.is_none_or(|action| action == "get"))
                .ok_or_else(|| unknown_action("", operations));
        };
        operations
            .iter()
            .copied()
            .find(|operation| operation.action.is_none_or(|own| own == action))
            .ok_or_else(|| unknown_action(action, operations))
    }

    /// Admits the request and reads its body.
    pub(super) async fn admit(
        self,
        api: &Arc<Api>,
        operation: &'static Operation,
        address: Option<IpAddr>,
    ) -> Result<Call, Refusal> {
        // Taken apart: a body is not shared between threads, and nothing may refer to it while waiting.
        let Self {
            parts,
            body,
            query,
            path,
        } = self;
        let claim = match operation.rights {
            [] => None,
            _ => Some(claim(&parts.headers, &query, api, address).await?),
        };
        let bytes = to_bytes(body, limits::VENDOR_BODY_BYTES_MAX)
            .await
            .map_err(|_| {
                let most = limits::VENDOR_BODY_BYTES_MAX >> 20;
                Refusal::bad(format!(
                    "the body is over {most} MiB, or broke off; send it in parts"
                ))
                .with_status(StatusCode::PAYLOAD_TOO_LARGE)
            })?;
        let content = Content::read(&parts.headers, bytes).await?;
        let key = match claim {
            None => None,
            Some(claim) => {
                let texts = content.texts();
                let said = Said {
                    query: &query,
                    texts: &texts,
                    body: content.signed_body(),
                };
                let admitted = api.applications.confirm(
                    &claim,
                    &said,
                    operation.rights,
                    operation.changes,
                    address,
                );
                Some(admitted.map_err(|denied| Refusal::denied(&denied))?)
            }
        };
        let json = content.json()?;
        let mut params = Params::default();
        // What stands in the body counts more.
        params.add(query);
        params.add(content.texts());
        params.add_json(&json);
        params.add(path);
        let parts = match content {
            Content::Multipart(parts) => parts,
            Content::Form(_) | Content::Text(_) => Vec::new(),
        };
        Ok(Call {
            params,
            json,
            parts,
            key,
            address,
            style: operation.style,
        })
    }
}

/// Who shows what outside of the body.
async fn claim(
    headers: &HeaderMap,
    query: &[(String, String)],
    api: &Arc<Api>,
    address: Option<IpAddr>,
) -> Result<Claim, Refusal> {
    let named = |name: &str| headers.get(name)?.to_str().ok();
    let (signature, timestamp) = (named("apim-signature"), named("apim-timestamp"));
    let applications = &api.applications;
    let claim = match (named("apim-accesstoken"), in_query(query, "accessKey")) {
        (Some(token), _) => match Shown::of_header(token, signature, timestamp) {
            Shown::Sealed(text) => {
                let (applications, text) = (Arc::clone(applications), text.to_owned());
                let open = move || applications.identify(Shown::Sealed(&text), address);
                let opened = api.pool.run(open).await;
                opened.map_err(|error| Refusal::busy(error.to_string()))?
            }
            shown => applications.identify(shown, address),
        },
        (None, Some(access_key)) => {
            let given = |name| in_query(query, name).unwrap_or_default();
            let shown = Shown::Query {
                access_key,
                timestamp: given("requestTimestamp"),
                sign: given("sign"),
            };
            applications.identify(shown, address)
        }
        (None, None) => {
            let message = "no access token: send apim-accesstoken, or accessKey, \
                    requestTimestamp and sign";
            return Err(Refusal::bad(message).with_status(StatusCode::UNAUTHORIZED));
        }
    };
    claim.map_err(|denied| Refusal::denied(&denied))
}

fn in_query<'q>(query: &'q [(String, String)], name: &str) -> Option<&'q str> {
    let mut found = query.iter().filter(|(other, _)| other == name);
    found.next().map(|(_, value)| value.as_str())
}

fn unknown_action(given: &str, operations: &[&'static Operation]) -> Refusal {
    let known: Vec<_> = operations
        .iter()
        .filter_map(|operation| operation.action)
        .collect();
    Refusal::bad(format!(
        "action {given:?} is not known here; known are {}",
        known.join(", ")
    ))
}

/// A body, by what it says it is.
enum Content {
    Multipart(Vec<Part>),
    Form(Vec<(String, String)>),
    /// JSON, or nothing.
    Text(Bytes),
}

impl Content {
    async fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, Refusal> {
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        match media_type.to_ascii_lowercase().as_str() {
            "multipart/form-data" => multipart(content_type, bytes).await.map(Self::Multipart),
            // Python's urllib says this of whatever it sends.
            "application/x-www-form-urlencoded" if !looks_like_json(&bytes) => Ok(Self::Form(
                form_urlencoded::parse(&bytes).into_owned().collect(),
            )),
            _ => Ok(Self::Text(bytes)),
        }
    }

    /// What is signed as parameters.
    fn texts(&self) -> Vec<(String, String)> {
        match self {
            Self::Multipart(parts) => parts
                .iter()
                .filter(|part| !part.is_file)
                .filter_map(|part| {
                    let text = std::str::from_utf8(&part.bytes).ok()?;
                    Some((part.name.clone(), text.to_owned()))
                })
                .collect(),
            Self::Form(fields) => fields.clone(),
            Self::Text(_) => Vec::new(),
        }
    }

    /// What is signed to the byte.
    fn signed_body(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Multipart(_) | Self::Form(_) => b"",
        }
    }

    fn json(&self) -> Result<Value, Refusal> {
        match self {
            Self::Text(bytes) if bytes.iter().any(|byte| !byte.is_ascii_whitespace()) => {
                serde_json::from_slice(bytes)
                    .map_err(|error| Refusal::bad(format!("the body is no JSON: {error}")))
            }
            Self::Text(_) | Self::Multipart(_) | Self::Form(_) => Ok(Value::Null),
        }
    }
}

fn looks_like_json(bytes: &[u8]) -> bool {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'{' | b'['))
}

async fn multipart(content_type: &str, bytes: Bytes) -> Result<Vec<Part>, Refusal> {
    let broken = |error: multer::Error| Refusal::bad(format!("the multipart body: {error}"));
    let boundary = multer::parse_boundary(content_type).map_err(broken)?;
    let body = stream::once(async move { Ok::<_, std::convert::Infallible>(bytes) }).boxed();
    let mut fields = multer::Multipart::new(body, boundary);
    let mut parts = Vec::new();
    while let Some(field) = fields.next_field().await.map_err(broken)? {
        if parts.len() >= limits::VENDOR_PARTS_MAX {
            let most = limits::VENDOR_PARTS_MAX;
            return Err(Refusal::bad(format!("the body has more than {most} parts")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let is_file = field.file_name().is_some();
        let bytes = field.bytes().await.map_err(broken)?;
        parts.push(Part {
            name,
            is_file,
            bytes,
        });
    }
    Ok(parts)
}

/// Parameters, wherever they stood. Names are told apart whatever their case: samples write
/// `IsPatchUpdate` and `isPatchUpdate`.
#[derive(Debug, Default)]
pub(super) struct Params(HashMap<String, String>);

impl Params {
    fn add(&mut self, pairs: Vec<(String, String)>) {
        let pairs = pairs.into_iter();
        self.0
            .extend(pairs.map(|(name, value)| (name.to_ascii_lowercase(), value)));
    }

    /// Members of an object: texts, numbers, and lists of them, joined.
    fn add_json(&mut self, json: &Value) {
        for (name, value) in json.as_object().into_iter().flatten() {
            let text = match value {
                Value::Array(list) => list.iter().map(scalar).collect::<Option<Vec<_>>>(),
                other => scalar(other).map(|text| vec![text]),
            };
            if let Some(text) = text {
                self.0.insert(name.to_ascii_lowercase(), text.join(","));
            }
        }
    }

    /// A parameter that is given and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(&name.to_ascii_lowercase())?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The first of these names that is given.
    pub(super) fn either(&self, names: &[&str]) -> Result<&str, Refusal> {
        names
            .iter()
            .find_map(|name| self.get(name))
            .ok_or_else(|| Refusal::parameter(format!("{} is missing", names[0])))
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.either(&[name])
    }

    pub(super) fn is_set(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(Refusal::parameter(format!(
                "{name} {other:?} is neither true nor false"
            ))),
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Refusal::parameter(format!("{name} {text:?} is not a number that is taken"))
        })
    }

    /// The texts that a parameter lists, separated by commas.
    pub(super) fn list(text: &str) -> Vec<&str> {
        text.split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .collect()
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
