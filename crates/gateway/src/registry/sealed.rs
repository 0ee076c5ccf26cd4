//! Records of what has a secret: JSON at rest, with the secret in it sealed for its owner.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::secrets::{Seal, SecretError};

/// A secret at rest, where there is one: opens for its owner alone.
#[derive(Serialize, Deserialize, Default)]
#[serde(transparent)]
pub(super) struct Sealed(Option<String>);

impl Sealed {
    pub(super) fn new(owner: &str, secret: Option<&SecretString>, seal: &Seal) -> Self {
        Self(secret.map(|secret| seal.seal(owner, secret)))
    }

    pub(super) fn open(
        self,
        owner: &str,
        seal: &Seal,
    ) -> Result<Option<SecretString>, SecretError> {
        let opened = self.0.map(|sealed| seal.unseal(owner, &sealed));
        opened.transpose()
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

/// Reads the record of an owner.
pub(super) fn read<T: DeserializeOwned>(owner: &str, record: &str) -> Result<T, SecretError> {
    serde_json::from_str(record).map_err(|_| SecretError::Unsealable {
        owner: owner.to_owned(),
    })
}

/// Whether two secrets are the same, or neither is there.
pub(super) fn is_same(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    one.map(SecretString::expose_secret) == other.map(SecretString::expose_secret)
}
