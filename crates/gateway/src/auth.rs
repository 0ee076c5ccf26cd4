//! CONNECT's credentials to a channel (`decisions.md` §2): a pure look at the registry's snapshot.
//!
//! The channel is the one of the product whose secret verifies. At most 64 channels of a product
//! are tried, so that a wrong password costs a bounded number of digests.

use std::{fmt, sync::Arc};

use backtide_model::{ChannelName, Compression, Credentials, LoginError, ProductKey};

use crate::{registry::Snapshot, tls::ClientCertificate};

/// A login that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub channel: ChannelName,
    pub product: ProductKey,
    pub compression: Compression,
    /// Of the channel; absent where it sets none.
    pub connections_max: Option<u32>,
    /// Which of the channel's secrets signed it; it ends when that secret does.
    pub secret_id: u64,
    /// What the client showed, where the channel has a rule for it: the login ends when it fits
    /// no longer.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// What a client shows besides its password.
pub struct Shown<'a> {
    pub certificate: Option<&'a Arc<ClientCertificate>>,
    /// What it came over, in words.
    pub transport: &'a str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.certificate {
            Some(certificate) => write!(f, "{certificate} came"),
            None => write!(f, "none came over {}", self.transport),
        }
    }
}

/// Why a login is refused. Says nothing that helps to guess.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    Malformed(#[from] LoginError),
    #[error("product {0} is not declared")]
    UnknownProduct(ProductKey),
    #[error("the password fits no channel of product {0}; paste the channel's strings again")]
    WrongPassword(ProductKey),
    #[error("channel {0} is paused; resume it")]
    Paused(ChannelName),
    #[error("channel {channel} expects {expected}; {came}")]
    Certificate {
        channel: ChannelName,
        expected: String,
        came: String,
    },
    #[error("channel {channel} refuses logins signed with {method}; sign with sha256")]
    MethodRefused {
        channel: ChannelName,
        method: &'static str,
    },
}

/// Finds the channel that a login is for.
pub fn admit(
    snapshot: &Snapshot,
    client_id: &str,
    user_name: Option<&str>,
    password: Option<&[u8]>,
    shown: &Shown<'_>,
    now_ms: i64,
) -> Result<Admitted, AuthError> {
    let login = Credentials::parse(client_id, user_name, password)?;
    let product = snapshot
        .product_by_key(&login.product)
        .ok_or_else(|| AuthError::UnknownProduct(login.product.clone()))?;
    let (channel, secret_id) = snapshot
        .channels_of(&product.name)
        .find_map(|channel| {
            let secret = channel
                .secrets(now_ms)
                .find(|secret| login.verify(secret.text()))?;
            Some((channel, secret.id))
        })
        .ok_or_else(|| AuthError::WrongPassword(login.product.clone()))?;
    if channel.paused {
        return Err(AuthError::Paused(channel.name.clone()));
    }
    if channel.refuse.contains(&login.method) {
        let (channel, method) = (channel.name.clone(), login.method.as_str());
        return Err(AuthError::MethodRefused { channel, method });
    }
    let mut certificate = None;
    if let Some(rule) = &channel.client_certificate {
        if !rule.admits(shown.certificate.map(Arc::as_ref)) {
            return Err(AuthError::Certificate {
                channel: channel.name.clone(),
                expected: rule.to_string(),
                came: shown.to_string(),
            });
        }
        certificate = shown.certificate.cloned();
    }
    Ok(Admitted {
        channel: channel.name.clone(),
        product: login.product,
        compression: login.compression,
        connections_max: channel.connections_max,
        secret_id,
        certificate,
    })
}
