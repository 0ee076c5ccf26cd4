//! CONNECT's credentials to a channel (`decisions.md` §2): a pure look at the registry's snapshot.
//!
//! The channel is the one of the product whose secret verifies. At most 64 channels of a product
//! are tried, so that a wrong password costs a bounded number of digests.

use backtide_model::{ChannelName, Compression, Credentials, LoginError, ProductKey};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::registry::{Channel, Snapshot};

/// A login that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub channel: ChannelName,
    pub product: ProductKey,
    pub compression: Compression,
    /// Which of the channel's secrets signed it: the login ends when that secret does.
    pub signed_with: SecretPrint,
}

/// Tells secrets apart without holding them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretPrint([u8; 32]);

impl SecretPrint {
    pub fn of(secret: &SecretString) -> Self {
        Self(Sha256::digest(secret.expose_secret()).into())
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
    #[error("channel {channel} refuses logins signed with {method}; sign with sha256")]
    MethodRefused { channel: ChannelName, method: &'static str },
}

/// Finds the channel that a login is for.
pub fn admit(
    snapshot: &Snapshot,
    client_id: &str,
    user_name: Option<&str>,
    password: Option<&[u8]>,
    now_ms: i64,
) -> Result<Admitted, AuthError> {
    let login = Credentials::parse(client_id, user_name, password)?;
    let product = snapshot
        .product(login.product.as_str())
        .ok_or_else(|| AuthError::UnknownProduct(login.product.clone()))?;
    let signed_by = |channel: &Channel| {
        channel
            .secrets(now_ms)
            .find(|secret| login.verify(secret.expose_secret()))
            .map(SecretPrint::of)
    };
    let (channel, signed_with) = product
        .channels
        .iter()
        .find_map(|channel| Some((channel, signed_by(channel)?)))
        .ok_or_else(|| AuthError::WrongPassword(login.product.clone()))?;
    if channel.is_paused() {
        return Err(AuthError::Paused(channel.name.clone()));
    }
    if channel.refuse.contains(&login.method) {
        let (channel, method) = (channel.name.clone(), login.method.as_str());
        return Err(AuthError::MethodRefused { channel, method });
    }
    Ok(Admitted {
        channel: channel.name.clone(),
        product: login.product,
        compression: login.compression,
        signed_with,
    })
}
