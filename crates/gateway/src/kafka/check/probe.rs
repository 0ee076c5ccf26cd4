//! Who answers at an address: a first request of Kafka's own, in plain text or over TLS, by hand.
//! The libraries say of a wrong listener only that the connection closed.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, InvalidMessage,
    RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::config::KafkaTls;

/// ApiVersions, version 0, correlation id 7, client id "backtide": every broker answers it, to
/// whoever asks.
const HELLO: &[u8] = b"\0\0\0\x12\0\x12\0\0\0\0\0\x07\0\x08backtide";
/// What its answer begins with, behind four bytes of length: the same correlation id.
const ANSWER: [u8; 4] = [0, 0, 0, 7];

const NO_TLS: &str = "the listener speaks plain text, not TLS; set kafka.tls.enabled = false, or take \
                      the port of its TLS listener";
const IS_TLS: &str =
    "the listener speaks TLS; set kafka.tls.enabled = true and name its authority in kafka.tls.ca";
const NO_KAFKA: &str = "something answers there that is not Kafka; check the port";

/// Kafka in plain text.
pub(super) fn plain(mut stream: TcpStream, patience: Duration) -> Result<String, String> {
    stream
        .set_read_timeout(Some(patience))
        .map_err(|e| e.to_string())?;
    let peer = stream.peer_addr().map_err(|e| e.to_string())?;
    match greet(&mut stream) {
        Greeted::Kafka => Ok("Kafka answers, in plain text".into()),
        Greeted::Tls => Err(IS_TLS.into()),
        Greeted::Other => Err(NO_KAFKA.into()),
        Greeted::Silence => Err(
            "the connection is taken, and nobody answers; is Kafka starting, or \
                                 stuck?"
                .into(),
        ),
        // TLS listeners close on what is no handshake: ask for one.
        Greeted::Closed => {
            match speaks_tls(TcpStream::connect_timeout(&peer, patience), patience) {
                true => Err(IS_TLS.into()),
                false => Err(NO_KAFKA.into()),
            }
        }
    }
}

/// Kafka over TLS.
pub(super) fn tls(
    stream: TcpStream,
    host: &str,
    settings: &KafkaTls,
    patience: Duration,
) -> Result<String, String> {
    stream
        .set_read_timeout(Some(patience))
        .map_err(|e| e.to_string())?;
    let peer = stream.peer_addr().map_err(|e| e.to_string())?;
    let config = client_config(settings)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("{host}: {e}"))?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|e| e.to_string())?;
    let mut stream = StreamOwned::new(connection, stream);
    if let Err(error) = handshake(&mut stream) {
        let is_plain = matches!(fault(&error), Some(Error::InvalidMessage(_)) | None)
            && TcpStream::connect_timeout(&peer, patience)
                .is_ok_and(|stream| plain(stream, patience).is_ok());
        return Err(if is_plain {
            NO_TLS.into()
        } else {
            why(&error, settings)
        });
    }
    // A broker that misses a client's certificate says so only now.
    let mut answer = [0; 8];
    let outcome = stream
        .write_all(HELLO)
        .and_then(|()| stream.flush())
        .and_then(|()| stream.read_exact(&mut answer));
    match outcome {
        Ok(()) if answer[4..] == ANSWER => Ok("Kafka answers, over TLS".into()),
        Ok(()) => Err(NO_KAFKA.into()),
        Err(error) => Err(why(&error, settings)),
    }
}

enum Greeted {
    Kafka,
    Tls,
    Other,
    Closed,
    Silence,
}

fn greet(stream: &mut TcpStream) -> Greeted {
    let mut answer = [0; 8];
    let outcome = stream
        .write_all(HELLO)
        .and_then(|()| stream.read_exact(&mut answer));
    match outcome {
        Ok(()) if answer[4..] == ANSWER => Greeted::Kafka,
        // An alert: 0x15, then the version.
        _ if answer[..2] == [0x15, 3] => Greeted::Tls,
        Ok(()) => Greeted::Other,
        Err(error) if is_late(&error) => Greeted::Silence,
        Err(_) => Greeted::Closed,
    }
}

fn speaks_tls(stream: io::Result<TcpStream>, patience: Duration) -> bool {
    let Ok(stream) = stream else { return false };
    let roots = Arc::new(RootCertStore::empty());
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let is_set = stream.set_read_timeout(Some(patience)).is_ok();
    let Ok(connection) = ClientConnection::new(Arc::new(config), name) else {
        return false;
    };
    let mut stream = StreamOwned::new(connection, stream);
    // Nobody is trusted: that it has a certificate is enough.
    is_set
        && match handshake(&mut stream) {
            Ok(()) => true,
            Err(error) => matches!(
                fault(&error),
                Some(Error::InvalidCertificate(_) | Error::AlertReceived(_))
            ),
        }
}

fn handshake(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<()> {
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(())
}

fn fault(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn why(error: &io::Error, settings: &KafkaTls) -> String {
    let Some(fault) = fault(error) else {
        return if is_late(error) {
            "the connection is taken, and nobody answers over TLS".into()
        } else {
            format!("the connection closed in the handshake: {error}")
        };
    };
    match fault {
        Error::InvalidCertificate(certificate) => of_certificate(certificate, settings),
        Error::AlertReceived(alert) => of_alert(*alert, settings),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => NO_KAFKA.into(),
        other => format!("TLS failed: {other}"),
    }
}

fn of_certificate(error: &CertificateError, settings: &KafkaTls) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match &settings.ca {
            Some(ca) => format!(
                "the broker's certificate was not signed by the authority in {}; name the one that \
                 signed it in kafka.tls.ca",
                ca.display()
            ),
            None => {
                "the broker's certificate was signed by an authority that this system does not \
                     know; name it in kafka.tls.ca"
                    .into()
            }
        },
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired; renew it".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet; is the clock of this machine right?".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the broker's certificate is for another name; use a name that it has in \
             kafka.bootstrap_servers, or make one with this name"
                .into()
        }
        other => format!("the broker's certificate is not good: {other}"),
    }
}

fn of_alert(alert: AlertDescription, settings: &KafkaTls) -> String {
    let certificate = match &settings.client {
        Some((certificate, _)) => certificate.display().to_string(),
        None => {
            return match alert {
                AlertDescription::CertificateRequired
                | AlertDescription::HandshakeFailure
                | AlertDescription::BadCertificate => {
                    "the broker wants a client's certificate; name it in kafka.tls.certificate, \
                     with its key in kafka.tls.key"
                        .into()
                }
                other => format!("the broker ended the handshake: {other:?}"),
            };
        }
    };
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown => {
            format!("the broker does not know who signed {certificate}; see its truststore")
        }
        AlertDescription::CertificateExpired => format!("{certificate} has expired; renew it"),
        other => format!("the broker does not take {certificate}: {other:?}"),
    }
}

fn client_config(settings: &KafkaTls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let file = match &settings.ca {
        Some(ca) => ca.clone(),
        None => system_authorities()?,
    };
    let certificates = certificates(&file, "kafka.tls.ca")?;
    let (taken, _) = roots.add_parsable_certificates(certificates);
    if taken == 0 {
        return Err(format!(
            "kafka.tls.ca: {} holds no certificate",
            file.display()
        ));
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let Some((certificate, key)) = &settings.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates_of_client(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("kafka.tls.key: {}: {error}", key.display()))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| {
            format!(
                "kafka.tls.certificate: {} and {} do not go together: {error}",
                certificate.display(),
                key.display()
            )
        })
}

fn certificates_of_client(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates(path, "kafka.tls.certificate")
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = fs::read(path).map_err(|error| format!("{key}: {}: {error}", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.map_err(|error| format!("{key}: {}: {error}", path.display()))
}

/// Where systems keep the authorities that they trust.
fn system_authorities() -> Result<PathBuf, String> {
    const PLACES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
        "/etc/ssl/ca-bundle.pem",
    ];
    let found = PLACES.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| {
        "this system has no list of authorities; name the broker's in kafka.tls.ca".into()
    })
}

/// Waiting would not help.
pub(super) fn is_refusal(said: &str) -> bool {
    ["uthentication", "SASL", "ssl_", "SSL handshake failed"]
        .iter()
        .any(|part| said.contains(part))
}
