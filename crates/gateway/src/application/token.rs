//! Access tokens of generation B. A token says whose it is and until when, authenticated by the
//! secret it was asked for with: so it outlives a restart, and ends with that secret. Pure.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const PREFIX: &str = "bt1";
/// What the digest is for: the same secret signs other things too.
const PURPOSE: &[u8] = b"backtide application token";

/// `bt1.<access key>.<expiry, ms>.<id of the secret>.<HMAC-SHA256>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) access_key: Box<str>,
    pub(super) expires_ms: i64,
    pub(super) secret_id: u64,
    mac: [u8; 32],
}

impl Token {
    pub(super) fn new(access_key: &str, expires_ms: i64, secret_id: u64, secret: &str) -> Self {
        let mac = digest(access_key, expires_ms, secret_id, secret);
        Self {
            access_key: access_key.into(),
            expires_ms,
            secret_id,
            mac: mac.finalize().into_bytes().into(),
        }
    }

    /// Whether a text looks like one of ours; else it is something else that stands in its header.
    pub(super) fn is_one(text: &str) -> bool {
        text.strip_prefix(PREFIX)
            .is_some_and(|rest| rest.starts_with('.'))
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut part = || parts.next();
        if part()? != PREFIX {
            return None;
        }
        let (access_key, expires, secret_id, mac) = (part()?, part()?, part()?, part()?);
        let mut read = [0; 32];
        hex::decode_to_slice(mac, &mut read).ok()?;
        Some(Self {
            access_key: access_key.into(),
            expires_ms: expires.parse().ok()?,
            secret_id: secret_id.parse().ok()?,
            mac: read,
        })
        .filter(|_| part().is_none())
    }

    /// Whether this secret made it; takes the same time wherever it differs.
    pub(super) fn is_made_with(&self, secret: &str) -> bool {
        digest(&self.access_key, self.expires_ms, self.secret_id, secret)
            .verify_slice(&self.mac)
            .is_ok()
    }
}

fn digest(access_key: &str, expires_ms: i64, secret_id: u64, secret: &str) -> Hmac<Sha256> {
    let mut digest = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes())
        .expect("HMAC takes a key of any length");
    digest.update(PURPOSE);
    digest.update(format!("\0{access_key}\0{expires_ms}\0{secret_id}").as_bytes());
    digest
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            access_key,
            expires_ms,
            secret_id,
            mac,
        } = self;
        let mac = hex::encode(mac);
        write!(f, "{PREFIX}.{access_key}.{expires_ms}.{secret_id}.{mac}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_nothing_of_it_can_be_changed() {
        let text = Token::new("AK", 1_000, 1, "secret").to_string();
        assert!(Token::is_one(&text));
        let token = Token::read(&text).unwrap();
        assert!(token.is_made_with("secret") && !token.is_made_with("other"));
        for (from, to) in [(".AK.", ".AL."), (".1000.", ".2000."), (".1.", ".2.")] {
            let forged = Token::read(&text.replacen(from, to, 1)).unwrap();
            assert!(!forged.is_made_with("secret"), "{from}");
        }
        for broken in ["", "bt1", "bt1.", "bt2.AK.1.1.00", &format!("{text}.x")] {
            assert_eq!(Token::read(broken), None, "{broken}");
        }
        assert!(!Token::is_one("c2VhbGVk"));
    }
}
