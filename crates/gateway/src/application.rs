//! Who an application is that calls the vendor-compatible API: three generations of signatures and
//! one bearer token (`data-plane.md` §3.1), all of them made with a secret of an access key.
//!
//! A call is admitted in two steps. [`Applications::identify`] looks at what stands outside of the
//! body, so that nobody makes the gateway read a body who shows nothing of his own;
//! [`Claim::confirm`] checks a signature over the whole. No secret, token or signature is logged.

mod poseidon;
mod seen;
mod signature;
mod token;

use std::{collections::HashMap, net::IpAddr, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Duration;

pub use poseidon::KeyError;
pub use signature::Said;

use crate::{
    clock::Clock,
    limits,
    registry::{AccessKey, Registry, Right},
    throttle::{Budget, Left, network},
};
use poseidon::PoseidonKey;
use seen::Seen;
use token::Token;

/// What a caller shows outside of the body.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// Generation A: parameters of the query.
    Query {
        access_key: &'a str,
        timestamp: &'a str,
        sign: &'a str,
    },
    /// Generation B: a token, and a signature made with the secret behind it.
    Signed {
        token: &'a str,
        timestamp: &'a str,
        signature: &'a str,
    },
    /// The token alone, as the vendor's HTTP integration SDK sends it.
    Token(&'a str),
    /// Generation C: key and secret, encrypted for the gateway.
    Sealed(&'a str),
}

impl<'a> Shown<'a> {
    /// What `apim-accesstoken` holds: one of our tokens, or what `enos-poseidon` encrypted.
    pub fn of_header(
        value: &'a str,
        signature: Option<&'a str>,
        timestamp: Option<&'a str>,
    ) -> Self {
        match (Token::is_one(value), signature, timestamp) {
            (false, _, _) => Self::Sealed(value),
            (true, Some(signature), Some(timestamp)) => Self::Signed {
                token: value,
                timestamp,
                signature,
            },
            (true, Some(signature), None) => Self::Signed {
                token: value,
                timestamp: "",
                signature,
            },
            (true, None, _) => Self::Token(value),
        }
    }
}

/// Why a call is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the access key is not known")]
    UnknownKey,
    #[error("the access key was revoked")]
    Revoked,
    #[error("the signature does not verify")]
    Signature,
    #[error("the token is none of this gateway's, has expired, or its secret was taken away")]
    Token,
    #[error("what enos-poseidon sent was not encrypted for this gateway")]
    Unsealable,
    #[error(
        "the timestamp is not within {} minutes of this gateway's clock",
        limits::APPLICATION_WINDOW_S / 60
    )]
    Stale,
    #[error("the request was made before; sign a new one")]
    Repeated,
    #[error("too many failed requests from this address")]
    Throttled,
    #[error("the access key makes too many requests; slow down")]
    Busy,
    #[error("access key {key} has no right to {}; declare it among its rights", right.word())]
    NoRight { key: String, right: Right },
    #[error("the gateway's own key cannot be used")]
    OwnKey,
}

impl Denied {
    /// What the caller is told. Whoever has not shown a secret learns nothing of what there is.
    pub fn outward(&self) -> String {
        match self {
            Self::UnknownKey | Self::Revoked | Self::Signature | Self::Unsealable => {
                "the access key, its secret or the signature is wrong".to_owned()
            }
            Self::Token
            | Self::Stale
            | Self::Repeated
            | Self::Throttled
            | Self::Busy
            | Self::NoRight { .. }
            | Self::OwnKey => self.to_string(),
        }
    }

    /// One word for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::UnknownKey => "access_key",
            Self::Revoked => "revoked",
            Self::Signature => "signature",
            Self::Token => "token",
            Self::Unsealable => "unsealable",
            Self::Stale => "stale",
            Self::Repeated => "repeated",
            Self::Throttled => "throttled",
            Self::Busy => "busy",
            Self::NoRight { .. } => "right",
            Self::OwnKey => "own_key",
        }
    }

    const fn is_guess(&self) -> bool {
        matches!(
            self,
            Self::UnknownKey | Self::Revoked | Self::Signature | Self::Token | Self::Unsealable
        )
    }
}

/// What of a request is signed where, and by whom it says it is.
pub struct Claim {
    key: Arc<AccessKey>,
    proof: Proof,
}

enum Proof {
    /// Nothing more to check.
    Whole,
    Sha1 {
        sign: String,
        now_ms: i64,
    },
    Sha256 {
        token: String,
        secret_id: u64,
        timestamp: String,
        signature: String,
        now_ms: i64,
    },
}

/// The applications that call.
pub struct Applications {
    registry: Arc<Registry>,
    clock: Clock,
    own_key: PoseidonKey,
    tokens: Mutex<HashMap<Box<str>, Token>>,
    seen: Mutex<Seen>,
    requests: Budget<Box<str>>,
    failures: Budget<IpAddr>,
}

impl Applications {
    /// `key_file` holds the RSA key of this gateway; it is made when it is first needed.
    pub fn new(registry: Arc<Registry>, clock: Clock, key_file: PathBuf) -> Self {
        Self {
            registry,
            clock,
            own_key: PoseidonKey::at(key_file),
            tokens: Mutex::default(),
            seen: Mutex::new(Seen::new(limits::APPLICATION_REPLAYS_REMEMBERED_MAX)),
            requests: Budget::new(
                limits::APPLICATION_REQUESTS_BURST,
                Duration::from_millis(limits::APPLICATION_REQUEST_REFILL_MS),
                limits::APPLICATION_TRACKED_MAX,
            ),
            failures: Budget::new(
                limits::APPLICATION_FAILURES_BURST,
                Duration::from_secs(limits::APPLICATION_FAILURE_REFILL_S),
                limits::APPLICATION_TRACKED_MAX,
            ),
        }
    }

    /// The public half of the gateway's RSA key, as Base64 of its DER: what users of
    /// `enos-poseidon` assign to `poseidon.poseidon.pubkey`. Blocks when the key is made.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn public_key(&self) -> Result<String, KeyError> {
        self.own_key.public()
    }

    /// Finds who calls, by what stands outside of the body. Decrypting takes a millisecond, making
    /// the key longer: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn identify(&self, shown: Shown<'_>, address: Option<IpAddr>) -> Result<Claim, Denied> {
        let outcome = self
            .check_failures(address)
            .and_then(|()| self.claim(shown));
        self.settle(outcome, address)
    }

    /// Checks what is signed over the whole request, the rights of the key and its rate. `changes`
    /// says that the call alters something: then it is taken once.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn confirm(
        &self,
        claim: &Claim,
        said: &Said<'_>,
        rights: &[Right],
        changes: bool,
        address: Option<IpAddr>,
    ) -> Result<Arc<AccessKey>, Denied> {
        let outcome = self.confirmed(claim, said, rights, changes);
        self.settle(outcome, address)
    }

    fn confirmed(
        &self,
        claim: &Claim,
        said: &Said<'_>,
        rights: &[Right],
        changes: bool,
    ) -> Result<Arc<AccessKey>, Denied> {
        let key = &claim.key;
        let signature = claim.verify(said)?;
        if self.requests.left(&key.key) != Left::Some {
            return Err(Denied::Busy);
        }
        self.requests.spend(key.key.clone());
        if let Some(right) = rights.first()
            && !rights.iter().any(|right| key.has(*right))
        {
            return Err(Denied::NoRight {
                key: key.name.to_string(),
                right: *right,
            });
        }
        if changes && let Some(signature) = signature {
            self.remember(&[key.key.as_bytes(), b"call", signature.as_bytes()])?;
        }
        Ok(Arc::clone(key))
    }

    /// Takes a request once within the window.
    fn remember(&self, parts: &[&[u8]]) -> Result<(), Denied> {
        let now_ms = self.clock.now_ms();
        // A timestamp may be as much ahead as it may be late.
        let until_ms = now_ms + 2 * window_ms();
        match self.seen.lock().first_time(parts, now_ms, until_ms) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denied::Repeated),
            Err(seen::Full) => Err(Denied::Busy),
        }
    }

    fn check_failures(&self, address: Option<IpAddr>) -> Result<(), Denied> {
        match address.map(|address| self.failures.left(&network(address))) {
            None | Some(Left::Some) => Ok(()),
            Some(Left::NoneAtFirst | Left::None) => Err(Denied::Throttled),
        }
    }

    fn settle<T>(&self, outcome: Result<T, Denied>, address: Option<IpAddr>) -> Result<T, Denied> {
        if let Err(denied) = &outcome {
            metrics::counter!("backtide_application_denied_total", "reason" => denied.word())
                .increment(1);
            match denied {
                // Whoever goes on is counted, and does not fill the log.
                Denied::Throttled | Denied::Busy => {
                    tracing::debug!(?address, reason = %denied, "an application is not admitted");
                }
                _ => tracing::info!(?address, reason = %denied, "an application is not admitted"),
            }
            if denied.is_guess()
                && let Some(address) = address
            {
                self.failures.spend(network(address));
            }
        }
        outcome
    }

    fn claim(&self, shown: Shown<'_>) -> Result<Claim, Denied> {
        let now_ms = self.clock.now_ms();
        match shown {
            Shown::Query {
                access_key,
                timestamp,
                sign,
            } => {
                let key = self.key(access_key)?;
                check_timestamp(timestamp, now_ms)?;
                let sign = sign.to_ascii_uppercase();
                Ok(Claim {
                    key,
                    proof: Proof::Sha1 { sign, now_ms },
                })
            }
            Shown::Token(token) => {
                let (key, _) = self.token_owner(token, now_ms)?;
                let proof = Proof::Whole;
                Ok(Claim { key, proof })
            }
            Shown::Signed {
                token,
                timestamp,
                signature,
            } => {
                let (key, secret_id) = self.token_owner(token, now_ms)?;
                check_timestamp(timestamp, now_ms)?;
                let proof = Proof::Sha256 {
                    token: token.to_owned(),
                    secret_id,
                    timestamp: timestamp.to_owned(),
                    signature: signature.to_ascii_lowercase(),
                    now_ms,
                };
                Ok(Claim { key, proof })
            }
            Shown::Sealed(text) => {
                let opened = self.own_key.open(text).map_err(|error| match error {
                    poseidon::OpenError::Sealed => Denied::Unsealable,
                    poseidon::OpenError::Key(error) => {
                        tracing::error!(%error, "what enos-poseidon sends cannot be opened");
                        Denied::OwnKey
                    }
                })?;
                let key = self.key(&opened.access_key)?;
                let is_secret = key
                    .secrets(now_ms)
                    .any(|secret| signature::same(secret.text(), &opened.secret));
                if !is_secret {
                    return Err(Denied::Signature);
                }
                let proof = Proof::Whole;
                Ok(Claim { key, proof })
            }
        }
    }

    fn key(&self, access_key: &str) -> Result<Arc<AccessKey>, Denied> {
        let snapshot = self.registry.current();
        let key = snapshot
            .access_key_by_key(access_key)
            .ok_or(Denied::UnknownKey)?;
        match key.secret() {
            Some(_) => Ok(Arc::clone(key)),
            None => Err(Denied::Revoked),
        }
    }

    /// Whose token it is, and the id of the secret behind it.
    fn token_owner(&self, text: &str, now_ms: i64) -> Result<(Arc<AccessKey>, u64), Denied> {
        let token = Token::read(text).ok_or(Denied::Token)?;
        let key = self.key(&token.access_key).map_err(|_| Denied::Token)?;
        let secret = key
            .secrets(now_ms)
            .find(|secret| secret.id == token.secret_id)
            .ok_or(Denied::Token)?;
        if token.expires_ms <= now_ms || !token.is_made_with(secret.text()) {
            return Err(Denied::Token);
        }
        Ok((Arc::clone(&key), token.secret_id))
    }

    /// Gives an application its token (`/token/get`): the same one until it expires, unless
    /// `renewed` asks for a new one in its place. `encryption` is the lower-case hex SHA-256 of key,
    /// timestamp and secret. Returns the token and for how many seconds it holds.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn token(
        &self,
        access_key: &str,
        timestamp: &str,
        encryption: &str,
        renewed: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<(String, i64), Denied> {
        let outcome = self
            .check_failures(address)
            .and_then(|()| self.issue(access_key, timestamp, encryption, renewed));
        self.settle(outcome, address)
    }

    fn issue(
        &self,
        access_key: &str,
        timestamp: &str,
        encryption: &str,
        renewed: Option<&str>,
    ) -> Result<(String, i64), Denied> {
        let now_ms = self.clock.now_ms();
        let key = self.key(access_key)?;
        check_timestamp(timestamp, now_ms)?;
        let encryption = encryption.to_ascii_lowercase();
        let secret = key
            .secrets(now_ms)
            .find(|secret| {
                let own = signature::encryption(access_key, timestamp, secret.text());
                signature::same(&own, &encryption)
            })
            .ok_or(Denied::Signature)?;
        if let Some(token) = renewed {
            let (owner, _) = self.token_owner(token, now_ms)?;
            if owner.key != key.key {
                return Err(Denied::Token);
            }
        }
        self.remember(&[key.key.as_bytes(), b"token", encryption.as_bytes()])?;
        let mut tokens = self.tokens.lock();
        let kept = tokens
            .get(&key.key)
            .filter(|token| token.secret_id == secret.id && token.expires_ms > now_ms)
            .filter(|_| renewed.is_none());
        let token = match kept {
            Some(token) => token.clone(),
            None => {
                let expires_ms = now_ms + limits::APPLICATION_TOKEN_S * 1_000;
                let token = Token::new(&key.key, expires_ms, secret.id, secret.text());
                tokens.insert(key.key.clone(), token.clone());
                token
            }
        };
        Ok((token.to_string(), (token.expires_ms - now_ms) / 1_000))
    }
}

impl Claim {
    /// Checks the signature; returns it where there is one.
    fn verify(&self, said: &Said<'_>) -> Result<Option<&str>, Denied> {
        let (verifies, signature) = match &self.proof {
            Proof::Whole => return Ok(None),
            Proof::Sha1 { sign, now_ms } => {
                let made = |secret: &str| signature::sha1(&self.key.key, said, secret);
                let mut secrets = self.key.secrets(*now_ms);
                (
                    secrets.any(|secret| signature::same(&made(secret.text()), sign)),
                    sign,
                )
            }
            Proof::Sha256 {
                token,
                secret_id,
                timestamp,
                signature,
                now_ms,
            } => {
                let made = |secret: &str| signature::sha256(token, said, timestamp, secret);
                let mut secrets = self
                    .key
                    .secrets(*now_ms)
                    .filter(|secret| secret.id == *secret_id);
                (
                    secrets.any(|secret| signature::same(&made(secret.text()), signature)),
                    signature,
                )
            }
        };
        verifies
            .then_some(Some(signature.as_str()))
            .ok_or(Denied::Signature)
    }
}

fn check_timestamp(text: &str, now_ms: i64) -> Result<(), Denied> {
    let timestamp_ms: i64 = text.parse().map_err(|_| Denied::Stale)?;
    if now_ms.saturating_sub(timestamp_ms).abs() <= window_ms() {
        Ok(())
    } else {
        Err(Denied::Stale)
    }
}

const fn window_ms() -> i64 {
    limits::APPLICATION_WINDOW_S * 1_000
}

#[cfg(test)]
mod tests;
