//! Where a page ends: the place of its last row, as opaque text that outlives restarts.

use std::fmt::Display;

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

/// Fields without slashes as one text.
pub(super) fn seal(fields: &[&dyn Display]) -> String {
    let mut plain = FORM.to_owned();
    for field in fields {
        plain.push('/');
        plain.push_str(&field.to_string());
    }
    BASE64_URL_SAFE_NO_PAD.encode(plain)
}

/// The fields that [`seal`] was given; `None` where it made no such text.
pub(super) fn open(text: &str) -> Option<Vec<String>> {
    let plain = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let fields = plain.strip_prefix(FORM)?.strip_prefix('/')?;
    Some(fields.split('/').map(str::to_owned).collect())
}

impl Cursor {
    pub fn encode(&self) -> String {
        seal(&[&self.time_ms, &self.device])
    }

    /// `None`: the text was not made by [`Cursor::encode`].
    pub fn decode(text: &str) -> Option<Self> {
        let [time, device] = open(text)?.try_into().ok()?;
        Some(Self {
            device: DeviceKey::new(&device).ok()?,
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
