//! A webhook: records as the body of a POST, batch after batch, each in order.
//!
//! What an answer means: 2xx, it has them. 4xx that speaks of the records (400, 413, 422 …): the
//! batch is halved until the record that it will not take is found; that one is poison, the others
//! are delivered. Everything else speaks of the destination (401, 404, 429, 5xx, no answer): it is
//! tried again, whole, by whoever asked.

mod connection;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::{
    HeaderMap, Request, Uri,
    header::{self, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use super::{Poison, Record, Sink, SinkError, Stretch};
use crate::{
    limits::WEBHOOK_BYTES_MAX,
    message::SCHEMA_VERSION,
    registry::{BatchFormat, WebhookFile},
};
use connection::{Answer, Connection};

/// What stands for the rule's secret in a header.
const SECRET: &str = "${secret}";
/// Headers that are the connection's own.
const OWN_HEADERS: [&str; 6] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "content-type",
    "te",
];
/// Refusals of the destination as a whole, not of what it was sent.
const OF_DESTINATION: [u16; 12] = [401, 403, 404, 405, 407, 408, 410, 421, 423, 425, 426, 429];
/// Characters of an answer that are quoted.
const QUOTED_CHARS_MAX: usize = 300;

/// A webhook of one rule.
pub struct Webhook {
    uri: Uri,
    headers: HeaderMap,
    format: BatchFormat,
    records_max: usize,
    timeout: Duration,
    /// Held through a request: one at a time.
    connection: Mutex<Connection>,
}

/// What became of a request.
enum Outcome {
    Taken,
    /// It will never take this body; what it said.
    Refused(String),
}

/// Checks address and headers.
///
/// # Errors
/// The member of the file, what is wrong with it, how to mend it.
pub fn check(file: &WebhookFile) -> Result<(), String> {
    address(&file.url)?;
    headers(file, "secret").map(drop)
}

/// Whether the rule needs a secret before it can run.
pub fn needs_secret(file: &WebhookFile) -> bool {
    file.headers.values().any(|value| value.contains(SECRET))
}

fn address(url: &str) -> Result<Uri, String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("url: {url:?} is no address: {error}"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    if !["http", "https"].contains(&scheme) || uri.host().is_none_or(str::is_empty) {
        return Err(format!(
            "url: {url:?} does not begin with http:// or https:// and a host"
        ));
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(
            "url: a user name or password stands in it; put it in headers, with ${secret}"
                .to_owned(),
        );
    }
    Ok(uri)
}

fn headers(file: &WebhookFile, secret: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &file.headers {
        let wrong = |why: &str| format!("headers: {name}: {why}");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("it is no name"))?;
        if OWN_HEADERS.contains(&key.as_str()) {
            return Err(wrong("it is set by the gateway"));
        }
        let has_secret = value.contains(SECRET);
        let value = HeaderValue::from_str(&value.replace(SECRET, secret));
        let mut value = value.map_err(|_| wrong("its value has characters that no header has"))?;
        value.set_sensitive(has_secret);
        headers.insert(key, value);
    }
    Ok(headers)
}

impl Webhook {
    /// # Errors
    /// What is missing or wrong, and how to mend it.
    pub fn new(file: &WebhookFile, secret: Option<&SecretString>) -> Result<Self, String> {
        let uri = address(&file.url)?;
        let secret = match secret {
            Some(secret) => secret.expose_secret(),
            None if needs_secret(file) => {
                return Err(format!(
                    "its headers name {SECRET} and it has none; set it with `backtide rule secret`"
                ));
            }
            None => "",
        };
        let mut headers = headers(file, secret)?;
        let content_type = match file.format {
            BatchFormat::Ndjson | BatchFormat::Records => "application/x-ndjson",
            BatchFormat::Json => "application/json",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let agent = concat!("backtide/", env!("CARGO_PKG_VERSION"));
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(agent));
        headers.insert(
            HeaderName::from_static(crate::message::header::SCHEMA),
            HeaderValue::from_static(SCHEMA_VERSION),
        );
        Ok(Self {
            connection: Mutex::new(Connection::new(&uri)?),
            uri,
            headers,
            format: file.format,
            records_max: file.records_max,
            timeout: Duration::from_secs(file.timeout_s),
        })
    }

    async fn deliver_all(&self, records: &[Record]) -> Result<Vec<Poison>, SinkError> {
        let mut poison = Vec::new();
        let mut connection = self.connection.lock().await;
        let mut first = 0;
        while first < records.len() {
            let last = self.batch_end(records, first);
            self.deliver_batch(&mut connection, records, first, last, &mut poison)
                .await?;
            first = last;
        }
        Ok(poison)
    }

    /// One batch; halves of it where it is refused, in order.
    async fn deliver_batch(
        &self,
        connection: &mut Connection,
        records: &[Record],
        first: usize,
        last: usize,
        poison: &mut Vec<Poison>,
    ) -> Result<(), SinkError> {
        // What is still to be sent, the next at the end.
        let mut waiting = vec![(first, last)];
        while let Some((first, last)) = waiting.pop() {
            let body = self.body(&records[first..last]);
            match self.post(connection, body, last - first).await? {
                Outcome::Taken => {}
                Outcome::Refused(reason) if last - first == 1 => poison.push(Poison {
                    index: first,
                    reason,
                }),
                Outcome::Refused(_) => {
                    let middle = first + (last - first) / 2;
                    waiting.push((middle, last));
                    waiting.push((first, middle));
                }
            }
        }
        Ok(())
    }

    fn batch_end(&self, records: &[Record], first: usize) -> usize {
        let mut bytes = 0;
        let batch = records[first..].iter().take(self.records_max);
        let fitting = batch.take_while(|record| {
            let is_first = bytes == 0;
            bytes += record.value.len() + 1;
            is_first || bytes <= WEBHOOK_BYTES_MAX
        });
        first + fitting.count().max(1)
    }

    fn body(&self, records: &[Record]) -> Bytes {
        let bytes: usize = records.iter().map(|record| record.value.len() + 1).sum();
        let mut body = Vec::with_capacity(bytes + 2);
        match self.format {
            BatchFormat::Ndjson => {
                for record in records {
                    body.extend_from_slice(&record.value);
                    body.push(b'\n');
                }
            }
            BatchFormat::Json => {
                for (place, record) in records.iter().enumerate() {
                    body.push(if place == 0 { b'[' } else { b',' });
                    body.extend_from_slice(&record.value);
                }
                body.push(b']');
            }
            BatchFormat::Records => {
                for record in records {
                    write_record(record, &mut body);
                    body.push(b'\n');
                }
            }
        }
        body.into()
    }

    async fn post(
        &self,
        connection: &mut Connection,
        body: Bytes,
        records: usize,
    ) -> Result<Outcome, SinkError> {
        let request = || {
            let mut request =
                Request::post(self.uri.path_and_query().map_or("/", |path| path.as_str()));
            if let Some(headers) = request.headers_mut() {
                *headers = self.headers.clone();
                if let Some(authority) = self.uri.authority()
                    && let Ok(host) = HeaderValue::from_str(authority.as_str())
                {
                    headers.insert(header::HOST, host);
                }
            }
            request
                .body(http_body_util::Full::new(body.clone()))
                .map_err(|error| SinkError::Unavailable(error.to_string()))
        };
        let sent = tokio::time::timeout(self.timeout, connection.send(request)).await;
        let Ok(answer) = sent else {
            // Whatever comes on it now belongs to a request that nobody waits for.
            connection.forget();
            let seconds = self.timeout.as_secs();
            return Err(SinkError::Unavailable(format!(
                "{} did not answer in {seconds} s",
                self.uri
            )));
        };
        let Answer { status, text } =
            answer.map_err(|why| SinkError::Unavailable(format!("{}: {why}", self.uri)))?;
        if status.is_success() {
            return Ok(Outcome::Taken);
        }
        let quoted: String = text.trim().chars().take(QUOTED_CHARS_MAX).collect();
        let said = match quoted.as_str() {
            "" => format!("{} answered {status}", self.uri),
            quoted => format!("{} answered {status}: {quoted}", self.uri),
        };
        if status.is_client_error() && !OF_DESTINATION.contains(&status.as_u16()) {
            let reason =
                format!("{said}; mend the record by the rule, or what takes it, and re-drive");
            return Ok(Outcome::Refused(reason));
        }
        let fix = match status.as_u16() {
            401 | 403 => "; set its credential with `backtide rule secret`",
            300..=399 => "; redirects are not followed: give the final address",
            404 | 405 | 410 => "; look at the rule's url",
            _ => "",
        };
        tracing::debug!(records, %status, "a webhook did not take a batch");
        Err(SinkError::Unavailable(format!("{said}{fix}")))
    }
}

/// `{"key":…,"headers":{…},"value":…}`
fn write_record(record: &Record, body: &mut Vec<u8>) {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let quote = |body: &mut Vec<u8>, text: &str| {
        serde_json::to_writer(body, text).expect("a vector takes every write");
    };
    body.extend_from_slice(b"{\"key\":");
    quote(body, &text(&record.key));
    body.extend_from_slice(b",\"headers\":");
    for (place, (name, value)) in record.headers.iter().enumerate() {
        body.push(if place == 0 { b'{' } else { b',' });
        quote(body, name);
        body.push(b':');
        quote(body, &text(value));
    }
    if record.headers.is_empty() {
        body.push(b'{');
    }
    body.extend_from_slice(b"},\"value\":");
    let value = text(&record.value);
    match serde_json::from_str::<&RawValue>(&value) {
        Ok(_) => body.extend_from_slice(value.as_bytes()),
        Err(_) => quote(body, &value),
    }
    body.push(b'}');
}

impl Sink for Webhook {
    fn reached(&self) -> BoxFuture<'_, Result<Option<backtide_store::Sequence>, SinkError>> {
        Box::pin(async { Ok(None) })
    }

    fn deliver<'a>(
        &'a self,
        stretch: &'a Stretch,
    ) -> BoxFuture<'a, Result<Vec<Poison>, SinkError>> {
        Box::pin(self.deliver_all(&stretch.records))
    }
}

#[cfg(test)]
mod tests;
