//! One connection to a webhook, kept as long as it lasts.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{limits::WEBHOOK_ANSWER_BYTES_MAX, sink::SinkError};

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Its beginning.
    pub(super) text: String,
}

pub(super) struct Connection {
    host: String,
    port: u16,
    /// The name that the certificate must have; absent without TLS.
    tls: Option<ServerName<'static>>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// The authorities that the machine trusts, read once.
static ROOTS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the machine's trusted authorities cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
});

impl Connection {
    /// Nothing is opened yet.
    pub(super) fn new(uri: &Uri) -> Result<Self, String> {
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let name = || {
            ServerName::try_from(host.clone())
                .map_err(|_| format!("url: {host:?} is no name that a certificate has"))
        };
        Ok(Self {
            tls: is_tls.then(name).transpose()?,
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            host,
            sender: None,
        })
    }

    /// The next request gets a connection of its own.
    pub(super) fn forget(&mut self) {
        self.sender = None;
    }

    /// Sends a request and reads the answer. A kept connection may have been closed meanwhile: then
    /// once more on a new one.
    pub(super) async fn send(
        &mut self,
        request: impl Fn() -> Result<Request<Full<Bytes>>, SinkError>,
    ) -> Result<Answer, String> {
        let request = || request().map_err(|error| error.to_string());
        if let Some(mut kept) = self.sender.take()
            && kept.ready().await.is_ok()
            && let Ok(answer) = exchange(&mut kept, request()?).await
        {
            self.sender = Some(kept);
            return Ok(answer);
        }
        let mut sender = self.open().await?;
        let answer = exchange(&mut sender, request()?).await?;
        self.sender = Some(sender);
        Ok(answer)
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await;
        let socket = socket.map_err(|error| format!("no connection: {error}"))?;
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a webhook's socket");
        }
        match &self.tls {
            None => begin(socket).await,
            Some(name) => {
                let connector = TlsConnector::from(Arc::clone(&ROOTS));
                let stream = connector.connect(name.clone(), socket).await;
                begin(stream.map_err(|error| format!("no TLS: {error}"))?).await
            }
        }
    }
}

async fn begin<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Ends with the sender, or when the other side closes.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a webhook's connection ended");
        }
    });
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let answer = sender.send_request(request).await.map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    })?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), WEBHOOK_ANSWER_BYTES_MAX);
    let text = match body.collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        // It said what it thinks of the request; the rest is decoration.
        Err(error) => {
            tracing::debug!(%error, "a webhook's answer was not read to its end");
            String::new()
        }
    };
    Ok(Answer { status, text })
}
