//! Who may read a subscription: the client that signs with a secret of its access key.
//!
//! The signature is the lower-case hex SHA-256 of `access_key‖AK‖access_secret‖SK‖sub_id‖ID`. It
//! holds for ever and can be sent again by whoever sees it: let it travel over TLS.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::frame::{AuthReq, SubReq};
use crate::registry::{Contents, Snapshot, Subscription};

/// What a session was let in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) subscription: Box<str>,
    uid: Box<str>,
    access_key: Box<str>,
    secret_id: u64,
}

/// Why nobody is let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("subscription {0} is not declared")]
    NoSubscription(String),
    #[error("access key {given} is not that of subscription {subscription}")]
    OtherKey { given: String, subscription: String },
    #[error("the access key was revoked")]
    Revoked,
    #[error("the signature does not verify")]
    Signature,
    #[error("too many failed logins from this address")]
    Throttled,
    #[error("subscription {0} is stopped; start it")]
    Stopped(String),
    #[error(
        "subscription {subscription} is of type {}, which clients ask for as {}, not as {given}",
        contents.word(), contents.number()
    )]
    Type {
        subscription: String,
        contents: Contents,
        given: i32,
    },
    #[error("the request names another subscription than the login")]
    OtherSubscription,
}

impl Refused {
    /// What the client is told. Whoever has not signed learns nothing of what there is.
    pub(super) fn outward(&self) -> String {
        match self {
            Self::NoSubscription(_) | Self::OtherKey { .. } | Self::Revoked | Self::Signature => {
                "the access key, its secret or the subscription's id is wrong".to_owned()
            }
            Self::Throttled | Self::Stopped(_) | Self::Type { .. } | Self::OtherSubscription => {
                self.to_string()
            }
        }
    }

    /// One word for metrics.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::NoSubscription(_) => "subscription",
            Self::OtherKey { .. } => "access_key",
            Self::Revoked => "revoked",
            Self::Signature => "signature",
            Self::Throttled => "throttled",
            Self::Stopped(_) => "stopped",
            Self::Type { .. } | Self::OtherSubscription => "type",
        }
    }

    /// Whether it was a guess, and counts against the address it came from.
    pub(super) const fn is_guess(&self) -> bool {
        matches!(
            self,
            Self::NoSubscription(_) | Self::OtherKey { .. } | Self::Revoked | Self::Signature
        )
    }
}

/// Checks a login.
pub(super) fn verify(
    request: &AuthReq,
    snapshot: &Snapshot,
    now_ms: i64,
) -> Result<Login, Refused> {
    let name = &request.sub_id;
    let subscription = snapshot
        .subscription(name)
        .ok_or_else(|| Refused::NoSubscription(name.clone()))?;
    let key = snapshot
        .access_key(&subscription.file.access_key)
        .filter(|key| *key.key == *request.access_key)
        .ok_or_else(|| Refused::OtherKey {
            given: request.access_key.clone(),
            subscription: name.clone(),
        })?;
    if key.secret().is_none() {
        return Err(Refused::Revoked);
    }
    let given = request.sign.to_ascii_lowercase();
    let signs = |secret: &str| {
        let sign = sign(&request.access_key, secret, name);
        bool::from(sign.as_bytes().ct_eq(given.as_bytes()))
    };
    let secret = key
        .secrets(now_ms)
        .find(|secret| signs(secret.text()))
        .ok_or(Refused::Signature)?;
    check_type(subscription, request.sub_type)?;
    if subscription.stopped {
        return Err(Refused::Stopped(name.clone()));
    }
    Ok(Login {
        subscription: name.as_str().into(),
        uid: subscription.uid.clone(),
        access_key: key.name.as_str().into(),
        secret_id: secret.id,
    })
}

/// Checks that who logged in asks for what it logged in to.
pub(super) fn verify_sub(
    login: &Login,
    request: &SubReq,
    subscription: &Subscription,
) -> Result<(), Refused> {
    if *request.sub_id != *login.subscription {
        return Err(Refused::OtherSubscription);
    }
    check_type(subscription, request.category)
}

fn check_type(subscription: &Subscription, given: i32) -> Result<(), Refused> {
    let contents = subscription.file.contents;
    if contents.number() == given {
        return Ok(());
    }
    Err(Refused::Type {
        subscription: subscription.name.to_string(),
        contents,
        given,
    })
}

impl Login {
    /// Whether it would be let in again.
    pub(super) fn holds(&self, snapshot: &Snapshot, now_ms: i64) -> bool {
        let subscription = snapshot
            .subscription(&self.subscription)
            .filter(|subscription| subscription.uid == self.uid && !subscription.stopped)
            .filter(|subscription| subscription.file.access_key.as_str() == &*self.access_key);
        let key = subscription.and_then(|_| snapshot.access_key(&self.access_key));
        key.is_some_and(|key| {
            key.secrets(now_ms)
                .any(|secret| secret.id == self.secret_id)
        })
    }
}

/// The signature of a login.
pub(super) fn sign(access_key: &str, secret: &str, subscription: &str) -> String {
    let mut digest = Sha256::new();
    for part in [
        "access_key",
        access_key,
        "access_secret",
        secret,
        "sub_id",
        subscription,
    ] {
        digest.update(part);
    }
    hex::encode(digest.finalize())
}
