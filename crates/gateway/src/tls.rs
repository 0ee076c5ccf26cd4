//! TLS for the doors, by rustls: certificate files become what a handshake needs, and a client's
//! certificate becomes who it is.
//!
//! The files are read again every few seconds and served when they have changed: connections that
//! stand are not touched. Files that cannot be served are said in the log, once, and what was served
//! before stays.
//!
//! Client certificates are asked for where an authority is configured, and verified against it. That
//! a client comes without one is no fault here: which channel it means, and whether that channel
//! wants one, is known at CONNECT.

mod files;
mod peer;

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

pub use files::{Files, TlsError};
pub use peer::{ClientCertificate, is_subject_name, subject_names};

use crate::clock::Clock;
use files::{Bytes, Served};

/// How often the files are read again.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate that ends within this is warned of, once a day.
const ENDS_SOON_MS: i64 = 14 * DAY_MS;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What a door serves, kept as its files say.
pub struct Server {
    files: Files,
    current: ArcSwap<ServerConfig>,
    /// What the files held when they were last looked at, and when what is served ends.
    seen: Mutex<Seen>,
}

struct Seen {
    bytes: Bytes,
    not_after_ms: i64,
    warned_ms: i64,
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`]: what is wrong with which file.
    pub fn open(files: Files, clock: &Clock) -> Result<Arc<Self>, TlsError> {
        let bytes = files.read()?;
        let Served {
            config,
            not_after_ms,
        } = files.served(&bytes, clock.now_ms())?;
        gauge_end(not_after_ms);
        Ok(Arc::new(Self {
            files,
            current: ArcSwap::new(config),
            seen: Mutex::new(Seen {
                bytes,
                not_after_ms,
                warned_ms: i64::MIN,
            }),
        }))
    }

    /// Looks at the files until the doors close.
    pub async fn keep_fresh(self: Arc<Self>, clock: Clock, closing: CancellationToken) {
        loop {
            self.look(clock.now_ms());
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Serves what the files hold now, if that is new and can be served. Three small files: read on
    /// the spot.
    fn look(&self, now_ms: i64) {
        let mut seen = self.seen.lock();
        match self.files.read() {
            // As it was; or still what could not be served.
            Ok(bytes) if bytes == seen.bytes => {}
            Ok(bytes) => {
                match self.files.served(&bytes, now_ms) {
                    Ok(served) => {
                        self.current.store(served.config);
                        seen.not_after_ms = served.not_after_ms;
                        seen.warned_ms = i64::MIN;
                        gauge_end(served.not_after_ms);
                        metrics::counter!("backtide_tls_reloads_total", "result" => "ok")
                            .increment(1);
                        let certificate = self.files.certificate.display();
                        tracing::info!(%certificate, "the new certificate is served");
                    }
                    Err(error) => kept(&error),
                }
                seen.bytes = bytes;
            }
            Err(error) => {
                // Unreadable is said once too: as if the files had been empty.
                if seen.bytes != Bytes::default() {
                    kept(&error);
                    seen.bytes = Bytes::default();
                }
            }
        }
        let left_ms = seen.not_after_ms - now_ms;
        if left_ms < ENDS_SOON_MS && now_ms - DAY_MS >= seen.warned_ms {
            seen.warned_ms = now_ms;
            let until = crate::clock::iso(seen.not_after_ms);
            tracing::warn!(
                until,
                "the served certificate ends soon or has ended; renew it"
            );
        }
    }

    /// What makes handshakes with what is served now, for a door that begins with words of its own.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// The server's side of a handshake. The caller sets its time.
    ///
    /// # Errors
    /// In words, for the log: why no connection came of it.
    pub async fn accept<S>(
        &self,
        stream: S,
    ) -> Result<(TlsStream<S>, Option<ClientCertificate>), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self
            .acceptor()
            .accept(stream)
            .await
            .map_err(|error| why(&error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let client = certificates
            .and_then(|chain| chain.first())
            .and_then(ClientCertificate::of);
        Ok((stream, client))
    }
}

fn kept(error: &TlsError) {
    metrics::counter!("backtide_tls_reloads_total", "result" => "failed").increment(1);
    tracing::error!(%error, "the new certificate cannot be served, the one before stays");
}

fn gauge_end(not_after_ms: i64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!("backtide_tls_certificate_ends_seconds").set((not_after_ms / 1_000) as f64);
}

/// Why a handshake failed, in words that say what to do.
fn why(error: &io::Error) -> String {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "the client went away".to_owned(),
            _ => error.to_string(),
        };
    };
    match tls {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what came is not TLS; a client that speaks plain MQTT belongs at the plain port".into()
        }
        Error::InvalidCertificate(wrong) => {
            let reason = match wrong {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "has expired".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "is not valid yet".to_owned()
                }
                // A bad signature: an authority of the same name, with another key.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    "is of no authority in mqtts.client_ca".to_owned()
                }
                CertificateError::InvalidPurpose
                | CertificateError::InvalidPurposeContext { .. } => {
                    "is not meant for clients (extended key usage)".to_owned()
                }
                other => format!("cannot be verified: {other}"),
            };
            format!("the client's certificate {reason}")
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => "the client does not trust this server's certificate; give it the authority's".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
