//! `/mqtt`: MQTT over WebSocket (MQTT 5.0 §6), on the port of the API.
//!
//! This room turns the upgraded connection into a stream of bytes and hands it on; what MQTT is, and
//! who may log in, is the MQTT door's. The token of the API is not asked for: MQTT has its own login.

mod frames;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};

use super::{Api, Problem};

use frames::WebSocket;

/// An upgraded connection of the HTTP door.
pub type Stream = WebSocket<TokioIo<Upgraded>>;
/// Serves MQTT on such a stream until it ends.
pub type Attend = Box<dyn Fn(Stream, SocketAddr) -> BoxFuture<'static, ()> + Send + Sync>;

/// Who is at the other end of a connection of the HTTP door.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

/// RFC 6455 §1.3.
const ACCEPT_SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const SUBPROTOCOL: &str = "mqtt";

/// Upgrades a request for the subprotocol `mqtt`.
pub(super) async fn upgrade(
    State(api): State<Arc<Api>>,
    Extension(PeerAddress(peer)): Extension<PeerAddress>,
    mut request: Request,
) -> Result<Response, Problem> {
    let accept = accept(request.headers())?;
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(converse(api, upgrading, peer));
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        ),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

async fn converse(api: Arc<Api>, upgrading: OnUpgrade, peer: SocketAddr) {
    match upgrading.await {
        Ok(upgraded) => (api.mqtt)(WebSocket::new(TokioIo::new(upgraded)), peer).await,
        Err(error) => tracing::debug!(%peer, %error, "no WebSocket connection"),
    }
}

/// Checks the client's side of the handshake (RFC 6455 §4.2.1) and makes the answer to its key.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    if !has_word(headers, &header::UPGRADE, "websocket")
        || !has_word(headers, &header::CONNECTION, "upgrade")
    {
        let detail = "/mqtt speaks MQTT over WebSocket: an upgrade to websocket is expected";
        return Err(Problem::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade-required",
            detail,
        ));
    }
    if !has_word(headers, &header::SEC_WEBSOCKET_VERSION, "13") {
        let detail = "version 13 of WebSocket is spoken";
        return Err(Problem::bad_request("Sec-WebSocket-Version", detail));
    }
    if !has_word(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let detail = "the subprotocol mqtt is spoken";
        return Err(Problem::bad_request("Sec-WebSocket-Protocol", detail));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| Problem::bad_request("Sec-WebSocket-Key", "the key is missing"))?;
    Ok(answer(key.as_bytes()))
}

fn answer(key: &[u8]) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_SALT);
    let text = STANDARD.encode(digest.finalize());
    HeaderValue::from_str(&text).expect("base64 is visible ASCII")
}

/// Whether a header that lists words lists this one.
fn has_word(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_rfc_6455_says() {
        let answer = answer(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_upgrade_to_mqtt_is_refused() {
        let full = [
            (header::UPGRADE, "WebSocket"),
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_PROTOCOL, "mqttv3.1, mqtt"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let headers = |left_out: usize| -> HeaderMap {
            let kept = full.iter().enumerate().filter(|(at, _)| *at != left_out);
            kept.map(|(_, (name, value))| (name.clone(), HeaderValue::from_static(value)))
                .collect()
        };
        assert!(accept(&headers(usize::MAX)).is_ok());
        for (left_out, (name, _)) in full.iter().enumerate() {
            assert!(accept(&headers(left_out)).is_err(), "{name}");
        }
    }
}
