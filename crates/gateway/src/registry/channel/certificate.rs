//! Which client certificate a channel wants, if any.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tls::{ClientCertificate, is_subject_name, subject_names};

/// Which client certificate a login over TLS has to show, besides its password. The authorities it
/// may come from are configured (`mqtts.client_ca`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(rename = "ClientCertificate")]
pub struct CertificateRule {
    /// Nobody logs in without one. Otherwise a client may come without; one that is shown has to
    /// fit.
    #[serde(default)]
    pub required: bool,
    /// Fingerprints, one of which it has: SHA-256 of the certificate (DER) in hex, with or without
    /// colons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sha256: Vec<String>,
    /// What its subject says, all of it, such as `{CN: plant-7, O: Acme}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subject: BTreeMap<String, String>,
}

impl CertificateRule {
    pub(super) fn check(&self) -> Result<(), String> {
        for fingerprint in &self.sha256 {
            if digest(fingerprint).is_none() {
                return Err(format!(
                    "clientCertificate.sha256: {fingerprint:?} is not a SHA-256 fingerprint, \
                     which is 64 hex digits"
                ));
            }
        }
        match self.subject.keys().find(|name| !is_subject_name(name)) {
            None => Ok(()),
            Some(name) => {
                let known: Vec<_> = subject_names().collect();
                Err(format!(
                    "clientCertificate.subject: {name:?} is none of {}",
                    known.join(", ")
                ))
            }
        }
    }

    /// Whether a client that shows this may log in.
    pub fn admits(&self, shown: Option<&ClientCertificate>) -> bool {
        let Some(shown) = shown else {
            return !self.required;
        };
        let is_pinned = self.sha256.is_empty()
            || self
                .sha256
                .iter()
                .any(|fingerprint| digest(fingerprint) == Some(shown.sha256));
        is_pinned
            && self
                .subject
                .iter()
                .all(|(name, value)| shown.says(name, value))
    }
}

/// What is expected, for the log.
impl fmt::Display for CertificateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a client certificate")?;
        for (at, (name, value)) in self.subject.iter().enumerate() {
            let joint = if at == 0 { " with" } else { "," };
            write!(f, "{joint} {name}={value}")?;
        }
        match &self.sha256[..] {
            [] => Ok(()),
            [only] => write!(f, " with sha256 {only}"),
            several => write!(f, " with one of {} fingerprints", several.len()),
        }
    }
}

fn digest(fingerprint: &str) -> Option<[u8; 32]> {
    hex::decode(fingerprint.replace(':', ""))
        .ok()?
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> ClientCertificate {
        ClientCertificate {
            sha256: [0xAB; 32],
            subject: vec![
                ("CN", "plant-7".into()),
                ("OU", "west".into()),
                ("OU", "7".into()),
            ],
        }
    }

    fn rule(required: bool, sha256: &[&str], subject: &[(&str, &str)]) -> CertificateRule {
        CertificateRule {
            required,
            sha256: sha256.iter().map(|&text| text.into()).collect(),
            subject: subject.iter().map(|&(n, v)| (n.into(), v.into())).collect(),
        }
    }

    #[test]
    fn what_is_declared_has_to_fit_and_what_is_required_has_to_be_there() {
        let own = "ab:".repeat(32);
        let own = own.trim_end_matches(':');
        let upper = own.to_uppercase().replace(':', "");
        let other = "cd".repeat(32);
        for (rule, without, with) in [
            (rule(false, &[], &[]), true, true),
            (rule(true, &[], &[]), false, true),
            (rule(true, &[&other, own], &[]), false, true),
            (rule(true, &[&upper], &[("OU", "7")]), false, true),
            (rule(true, &[&other], &[]), false, false),
            (rule(false, &[&other], &[]), true, false),
            (
                rule(false, &[], &[("CN", "plant-7"), ("OU", "west")]),
                true,
                true,
            ),
            (rule(true, &[], &[("CN", "plant-8")]), false, false),
            (rule(true, &[own], &[("O", "Acme")]), false, false),
        ] {
            rule.check().unwrap();
            assert_eq!(rule.admits(None), without, "{rule:?}");
            assert_eq!(rule.admits(Some(&shown())), with, "{rule:?}");
        }
    }

    #[test]
    fn a_rule_that_nothing_could_fit_is_refused() {
        let error = rule(true, &["abcd"], &[]).check().unwrap_err();
        assert!(error.contains("64 hex digits"), "{error}");
        let error = rule(true, &[], &[("commonName", "x")]).check().unwrap_err();
        assert!(error.contains("CN, serialNumber"), "{error}");
    }
}
