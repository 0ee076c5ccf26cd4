//! Certificate files: read, checked, made into what rustls serves. What is wrong is said in plain
//! words, with the file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    Error, InconsistentKeys, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::iso;

/// Where the certificates of a door are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The server's own certificate first, then those between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authorities of clients; without them no client certificate is asked for.
    pub client_ca: Option<PathBuf>,
}

/// What the files held.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Bytes {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

/// What is served, and when its certificate ends.
pub(super) struct Served {
    pub(super) config: Arc<ServerConfig>,
    pub(super) not_after_ms: i64,
}

/// What is wrong with a certificate file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key}: {path} is not there")]
    Missing { key: &'static str, path: PathBuf },
    #[error("{key}: {path} cannot be read: {source}")]
    Unreadable {
        key: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{key}: {path} holds no {wanted} as PEM")]
    Empty {
        key: &'static str,
        path: PathBuf,
        wanted: &'static str,
    },
    #[error("{key}: {path} is damaged: {reason}")]
    Damaged {
        key: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error(
        "mqtts.key: {key} is not the key of the first certificate in {certificate}; \
         the server's own certificate comes first"
    )]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("mqtts.certificate: {path} has expired on {on}; renew it")]
    Expired { path: PathBuf, on: String },
    #[error(
        "mqtts.certificate: {path} is not valid before {from}; look at the clock of this machine"
    )]
    NotYetValid { path: PathBuf, from: String },
}

const CERTIFICATE: &str = "mqtts.certificate";
const KEY: &str = "mqtts.key";
const CLIENT_CA: &str = "mqtts.client_ca";

impl Files {
    /// Says what is wrong, if anything is.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn check(&self, now_ms: i64) -> Result<(), TlsError> {
        self.served(&self.read()?, now_ms).map(drop)
    }

    pub(super) fn read(&self) -> Result<Bytes, TlsError> {
        Ok(Bytes {
            certificate: read(CERTIFICATE, &self.certificate)?,
            key: read(KEY, &self.key)?,
            client_ca: match &self.client_ca {
                Some(path) => read(CLIENT_CA, path)?,
                None => Vec::new(),
            },
        })
    }

    pub(super) fn served(&self, bytes: &Bytes, now_ms: i64) -> Result<Served, TlsError> {
        let chain = certificates(CERTIFICATE, &self.certificate, &bytes.certificate)?;
        let not_after_ms = self.in_time(&chain, now_ms)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes.key).map_err(|_| TlsError::Empty {
            key: KEY,
            path: self.key.clone(),
            wanted: "private key",
        })?;
        let provider = Arc::new(ring::default_provider());
        let own = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
                key: self.key.clone(),
                certificate: self.certificate.clone(),
            },
            other => TlsError::Damaged {
                key: KEY,
                path: self.key.clone(),
                reason: other.to_string(),
            },
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("ring has suites for both versions");
        let builder = match self.client_verifier(bytes, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let resolver = rustls::sign::SingleCertAndKey::from(own);
        let config = Arc::new(builder.with_cert_resolver(Arc::new(resolver)));
        Ok(Served {
            config,
            not_after_ms,
        })
    }

    /// When the server's own certificate ends, if it is valid now.
    fn in_time(&self, chain: &[CertificateDer<'_>], now_ms: i64) -> Result<i64, TlsError> {
        let own = chain
            .first()
            .expect("a chain without certificates is refused");
        let (_, own) = X509Certificate::from_der(own).map_err(|error| TlsError::Damaged {
            key: CERTIFICATE,
            path: self.certificate.clone(),
            reason: error.to_string(),
        })?;
        let from_ms = own.validity().not_before.timestamp() * 1_000;
        let until_ms = own.validity().not_after.timestamp() * 1_000;
        let path = self.certificate.clone();
        if now_ms < from_ms {
            let from = iso(from_ms);
            return Err(TlsError::NotYetValid { path, from });
        }
        if now_ms > until_ms {
            let on = iso(until_ms);
            return Err(TlsError::Expired { path, on });
        }
        Ok(until_ms)
    }

    fn client_verifier(
        &self,
        bytes: &Bytes,
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let Some(path) = &self.client_ca else {
            return Ok(None);
        };
        let damaged = |reason: String| TlsError::Damaged {
            key: CLIENT_CA,
            path: path.to_owned(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(CLIENT_CA, path, &bytes.client_ca)? {
            roots
                .add(authority)
                .map_err(|error| damaged(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| damaged(error.to_string()))?;
        Ok(Some(verifier))
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => TlsError::Missing {
            key,
            path: path.to_owned(),
        },
        _ => TlsError::Unreadable {
            key,
            path: path.to_owned(),
            source,
        },
    })
}

fn certificates(
    key: &'static str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| TlsError::Damaged {
        key,
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    if found.is_empty() {
        return Err(TlsError::Empty {
            key,
            path: path.to_owned(),
            wanted: "certificate",
        });
    }
    Ok(found)
}
