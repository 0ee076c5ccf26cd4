//! What `enos-poseidon` sends: access key and secret, encrypted with RSA-OAEP (SHA-1) for the holder
//! of a private key. The vendor's is the vendor's; ours is made here, and users assign its public half.
//!
//! The text is `pin$key$secret$short$long`. The pin is derived from the others, and the last two are
//! digests over moments that are not sent: they prove nothing, and are not looked at.

use std::{io, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use openssl::{
    error::ErrorStack,
    pkey::Private,
    rsa::{Padding, Rsa},
};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use crate::secrets::{SecretError, private_file};

const KEY_BITS: u32 = 2_048;

/// Why the gateway's own key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    File(#[from] SecretError),
    #[error("{} holds no RSA key; remove it, and a new one is made: {source}", path.display())]
    NoKey { path: PathBuf, source: ErrorStack },
    #[error("no RSA key can be made: {0}")]
    Make(ErrorStack),
}

/// Why a text is not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// It was not encrypted for us, or says something else.
    #[error("not encrypted for this gateway")]
    Sealed,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The RSA key of this gateway: a file of mode 0600, made when it is first needed.
pub(super) struct PoseidonKey {
    path: PathBuf,
    key: Mutex<Option<Rsa<Private>>>,
}

/// What was encrypted.
pub(super) struct Opened {
    pub(super) access_key: String,
    pub(super) secret: String,
}

impl PoseidonKey {
    pub(super) fn at(path: PathBuf) -> Self {
        Self {
            path,
            key: Mutex::default(),
        }
    }

    /// Base64 of the public key's DER (`SubjectPublicKeyInfo`).
    pub(super) fn public(&self) -> Result<String, KeyError> {
        let der = self.own()?.public_key_to_der().map_err(KeyError::Make)?;
        Ok(STANDARD.encode(der))
    }

    /// Decrypts. OpenSSL blinds the private operation, and one answer stands for every failure:
    /// nobody learns from time or text where it failed.
    pub(super) fn open(&self, text: &str) -> Result<Opened, OpenError> {
        let sealed = STANDARD.decode(text).map_err(|_| OpenError::Sealed)?;
        let key = self.own()?;
        let size = usize::try_from(key.size()).map_err(|_| OpenError::Sealed)?;
        let mut plain = vec![0; size];
        let length = key
            .private_decrypt(&sealed, &mut plain, Padding::PKCS1_OAEP)
            .map_err(|_| OpenError::Sealed)?;
        plain.truncate(length);
        let text = String::from_utf8(plain).map_err(|_| OpenError::Sealed)?;
        let text = SecretString::from(text);
        let mut parts = text.expose_secret().split('$').skip(1).map(str::to_owned);
        match (parts.next(), parts.next()) {
            (Some(access_key), Some(secret)) => Ok(Opened { access_key, secret }),
            (None | Some(_), _) => Err(OpenError::Sealed),
        }
    }

    fn own(&self) -> Result<Rsa<Private>, KeyError> {
        let mut known = self.key.lock();
        if let Some(key) = &*known {
            return Ok(key.clone());
        }
        let text = private_file(&self.path, || {
            let pem = Rsa::generate(KEY_BITS).and_then(|key| key.private_key_to_pem());
            let text = |pem| String::from_utf8(pem).map_err(io::Error::other);
            pem.map_err(io::Error::other).and_then(text)
        })?;
        let key = Rsa::private_key_from_pem(text.as_bytes()).map_err(|source| KeyError::NoKey {
            path: self.path.clone(),
            source,
        })?;
        *known = Some(key.clone());
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use openssl::{pkey::PKey, rsa::Rsa};

    use super::*;

    fn seal(public: &str, text: &str) -> String {
        let der = STANDARD.decode(public).unwrap();
        let key: Rsa<_> = PKey::public_key_from_der(&der).unwrap().rsa().unwrap();
        let mut sealed = vec![0; 256];
        key.public_encrypt(text.as_bytes(), &mut sealed, Padding::PKCS1_OAEP)
            .unwrap();
        STANDARD.encode(sealed)
    }

    #[test]
    fn what_is_encrypted_for_the_key_opens_after_a_restart_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("application-rsa.key");
        let public = PoseidonKey::at(file.clone()).public().unwrap();
        let key = PoseidonKey::at(file.clone());
        let opened = key.open(&seal(&public, "123456$AK$SK$a$b")).unwrap();
        assert_eq!(
            (opened.access_key.as_str(), opened.secret.as_str()),
            ("AK", "SK")
        );
        let other = PoseidonKey::at(dir.path().join("other.key"))
            .public()
            .unwrap();
        for wrong in [
            "not base64",
            "AAAA",
            &seal(&public, "nothing"),
            &seal(&other, "123456$AK$SK$a$b"),
        ] {
            assert!(matches!(key.open(wrong), Err(OpenError::Sealed)));
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&file).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
}
