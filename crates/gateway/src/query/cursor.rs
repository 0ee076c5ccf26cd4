//! Where a page ends: the device and time of its last row, as opaque text that outlives restarts.

use backtide_model::DeviceKey;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// A place between two rows, in the order of time, then device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub device: DeviceKey,
    pub time_ms: i64,
}

/// Comes first in the text, so that another form can follow one day.
const FORM: &str = "1";

impl Cursor {
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{FORM}/{}/{}", self.time_ms, self.device))
    }

    /// `None`: the text was not made by [`Cursor::encode`].
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let plain = std::str::from_utf8(&bytes).ok()?;
        let (time, device) = plain
            .strip_prefix(FORM)?
            .strip_prefix('/')?
            .split_once('/')?;
        Some(Self {
            device: DeviceKey::new(device).ok()?,
            time_ms: time.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let cursor = Cursor {
            device: DeviceKey::new("R80711:a").unwrap(),
            time_ms: -5,
        };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for wrong in ["", "x", "MS8x", "!!"] {
            assert_eq!(Cursor::decode(wrong), None, "{wrong}");
        }
    }
}
