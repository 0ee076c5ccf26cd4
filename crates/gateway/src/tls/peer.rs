//! Who a client is by its certificate.

use std::fmt;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What names somebody in a certificate's subject: our word, and its object identifier.
const SUBJECT_NAMES: [(&str, &str); 10] = [
    ("CN", "2.5.4.3"),
    ("serialNumber", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("DC", "0.9.2342.19200300.100.1.25"),
];

/// A certificate that a client has proved to be its own, of an authority that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// Of the certificate's DER: its fingerprint.
    pub sha256: [u8; 32],
    /// What the subject says, in its order; what has no name in [`subject_names`] is left out.
    pub subject: Vec<(&'static str, String)>,
}

impl ClientCertificate {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let subject = parsed.subject().iter_attributes().filter_map(|attribute| {
            let oid = attribute.attr_type().to_id_string();
            let (name, _) = SUBJECT_NAMES.iter().find(|(_, known)| *known == oid)?;
            Some((*name, attribute.as_str().ok()?.to_owned()))
        });
        Some(Self {
            sha256: Sha256::digest(certificate).into(),
            subject: subject.collect(),
        })
    }

    /// Whether the subject says this.
    pub fn says(&self, name: &str, value: &str) -> bool {
        self.subject
            .iter()
            .any(|(known, said)| *known == name && said == value)
    }
}

impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.subject {
            write!(f, "{name}={value}, ")?;
        }
        write!(f, "sha256 {}", hex::encode(self.sha256))
    }
}

/// Whether a subject can be asked for this.
pub fn is_subject_name(name: &str) -> bool {
    SUBJECT_NAMES.iter().any(|(known, _)| *known == name)
}

/// All that a subject can be asked for.
pub fn subject_names() -> impl Iterator<Item = &'static str> {
    SUBJECT_NAMES.iter().map(|(name, _)| *name)
}
