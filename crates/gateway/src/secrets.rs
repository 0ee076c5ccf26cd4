//! What must be unguessable, and what must not be readable: the only reader of randomness, the
//! files of mode 0600, and the seal on channel secrets (`decisions.md` §2).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

const KEY_FILE: &str = "secret.key";
const TOKEN_FILE: &str = "admin.token";
const NONCE_BYTES: usize = 24;

/// Why a secret cannot be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot use {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no key of 64 hex digits; restore the file that belongs to this data", path.display())]
    NoKey { path: PathBuf },
    #[error(
        "secret of {owner} does not open with this {KEY_FILE}; restore the one it was sealed with"
    )]
    Unsealable { owner: String },
}

/// `N` random bytes of the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// `chars` random letters and digits.
pub fn random_alphanumeric(chars: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(chars);
    while text.len() < chars {
        // 248 is the greatest multiple of 62 in a byte: beyond it some letters would be likelier.
        text.extend(
            random::<32>()
                .into_iter()
                .filter(|byte| *byte < 248)
                .take(chars - text.len())
                .map(|byte| char::from(ALPHABET[usize::from(byte % 62)])),
        );
    }
    text
}

/// A new channel secret: GUID-shaped, as one vendor SDK needs.
pub fn channel_secret() -> SecretString {
    guid().into()
}

/// A random GUID.
pub fn guid() -> String {
    uuid::Builder::from_random_bytes(random())
        .into_uuid()
        .to_string()
}

/// Seals secrets at rest with XChaCha20-Poly1305 under the key file of the data directory.
pub struct Seal {
    cipher: XChaCha20Poly1305,
}

impl Seal {
    /// Takes the key file, or makes it at first start.
    ///
    /// # Errors
    /// [`SecretError`]: the file cannot be read or written, or holds no key.
    pub fn open(data_dir: &Path) -> Result<Self, SecretError> {
        let path = data_dir.join(KEY_FILE);
        let text = private_file(&path, || Ok(hex::encode(random::<32>())))?;
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| SecretError::NoKey { path })?;
        Ok(Self {
            cipher: XChaCha20Poly1305::new(&Key::from(key)),
        })
    }

    /// `nonce ‖ ciphertext` as hex. `owner` is bound in: a sealed secret opens for nobody else.
    pub fn seal(&self, owner: &str, secret: &SecretString) -> String {
        let nonce = random::<NONCE_BYTES>();
        let payload = Payload {
            msg: secret.expose_secret().as_bytes(),
            aad: owner.as_bytes(),
        };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a secret is far shorter than the cipher's limit");
        hex::encode([&nonce[..], &sealed].concat())
    }

    /// # Errors
    /// [`SecretError::Unsealable`]: another key, another owner, or damaged text.
    pub fn unseal(&self, owner: &str, sealed: &str) -> Result<SecretString, SecretError> {
        let unsealable = || SecretError::Unsealable {
            owner: owner.to_owned(),
        };
        let bytes = hex::decode(sealed).map_err(|_| unsealable())?;
        let (nonce, sealed) = bytes
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(unsealable)?;
        let payload = Payload {
            msg: sealed,
            aad: owner.as_bytes(),
        };
        let secret = self
            .cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| unsealable())?;
        Ok(String::from_utf8(secret).map_err(|_| unsealable())?.into())
    }
}

/// The administrator's bearer token.
#[derive(Clone)]
pub struct AdminToken(SecretString);

impl AdminToken {
    /// Takes the token file, or makes it at first start.
    ///
    /// # Errors
    /// [`SecretError::File`].
    pub fn open(data_dir: &Path) -> Result<Self, SecretError> {
        let text = private_file(&data_dir.join(TOKEN_FILE), || {
            Ok(hex::encode(random::<32>()))
        })?;
        Ok(Self(text.trim().to_owned().into()))
    }

    /// Whether `presented` is the token; takes the same time wherever they differ.
    pub fn verify(&self, presented: &str) -> bool {
        let own = self.0.expose_secret().as_bytes();
        // An emptied file must not open the door for an empty token.
        !own.is_empty() && bool::from(own.ct_eq(presented.as_bytes()))
    }
}

impl From<&str> for AdminToken {
    fn from(text: &str) -> Self {
        Self(text.to_owned().into())
    }
}

/// The text of `path`; where there is no such file, writes it with mode 0600, durably, before it
/// is used for anything.
///
/// # Errors
/// [`SecretError::File`]: it can be neither read nor made.
pub fn private_file(
    path: &Path,
    make: impl FnOnce() -> io::Result<String>,
) -> Result<String, SecretError> {
    let failed = |source| SecretError::File {
        path: path.to_owned(),
        source,
    };
    match fs::read_to_string(path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let text = make().map_err(failed)?;
    // Written beside and renamed: a crash leaves either no file or the whole of it.
    let beside = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent()
            .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    write().map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_sealed_secret_opens_again_after_a_restart_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let secret = channel_secret();
        let sealed = Seal::open(dir.path()).unwrap().seal("history", &secret);
        let seal = Seal::open(dir.path()).unwrap();
        let opened = seal.unseal("history", &sealed).unwrap();
        assert_eq!(opened.expose_secret(), secret.expose_secret());
        assert!(seal.unseal("other", &sealed).is_err());
        assert!(!sealed.contains(secret.expose_secret()));
    }

    #[test]
    fn another_key_and_any_changed_digit_are_noticed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let seal = Seal::open(dir.path()).unwrap();
        let sealed = seal.seal("history", &channel_secret());
        assert!(
            Seal::open(other.path())
                .unwrap()
                .unseal("history", &sealed)
                .is_err()
        );
        for at in [0, sealed.len() / 2, sealed.len() - 1] {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            assert!(
                seal.unseal("history", std::str::from_utf8(&bytes).unwrap())
                    .is_err()
            );
        }
        assert!(seal.unseal("history", "").is_err());
    }

    #[test]
    fn key_and_token_files_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let token = AdminToken::open(dir.path()).unwrap();
        Seal::open(dir.path()).unwrap();
        for file in [KEY_FILE, TOKEN_FILE] {
            let mode = fs::metadata(dir.path().join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let text = fs::read_to_string(dir.path().join(TOKEN_FILE)).unwrap();
        assert!(token.verify(text.trim()));
        assert!(!token.verify(""));
        assert!(AdminToken::open(dir.path()).unwrap().verify(text.trim()));
    }

    #[test]
    fn an_emptied_token_file_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TOKEN_FILE), "\n").unwrap();
        assert!(!AdminToken::open(dir.path()).unwrap().verify(""));
    }

    #[test]
    fn generated_keys_are_letters_and_digits() {
        let key = random_alphanumeric(8);
        assert_eq!(key.len(), 8);
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(channel_secret().expose_secret().len(), 36);
    }
}
