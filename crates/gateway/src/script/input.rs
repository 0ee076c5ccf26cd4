//! Bytes as a person writes them down: what a test run decodes, what a sample keeps.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::bytes_of;

/// Bytes, as hex digits, base64 or text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ScriptInput)]
pub enum Input {
    Hex(String),
    Base64(String),
    Text(String),
}

impl Input {
    /// # Errors
    /// The text is not of the form that it is said to be of.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Hex(text) => bytes_of(text)
                .ok_or_else(|| "this is no text of hex digits, two for each byte".to_owned()),
            Self::Base64(text) => BASE64_STANDARD
                .decode(text.trim())
                .map_err(|error| format!("this is no base64: {error}")),
            Self::Text(text) => Ok(text.as_bytes().to_vec()),
        }
    }
}
