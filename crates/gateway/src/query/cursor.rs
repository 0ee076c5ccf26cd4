//! Where a page ends: the place of its last row, as opaque text that outlives restarts.

use std::fmt::Display;

use arrow_array::{RecordBatch, cast::AsArray, types::Int64Type};
use backtide_model::DeviceKey;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::columns::{DEVICE, TIME};

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
    /// The place behind the last row of a slab; `None` where it has no row.
    pub fn behind(slab: &RecordBatch) -> Option<Self> {
        let last = slab.num_rows().checked_sub(1)?;
        let devices = slab.column_by_name(DEVICE)?.as_string_opt::<i32>()?;
        let times = slab.column_by_name(TIME)?.as_primitive_opt::<Int64Type>()?;
        Some(Self {
            device: DeviceKey::new(devices.value(last)).ok()?,
            time_ms: times.value(last),
        })
    }

    pub fn encode(&self) -> String {
        seal(&[&self.time_ms, &self.device])
    }

    /// The same for the windows of aggregates, whose order is another one.
    pub fn encode_window(&self) -> String {
        seal(&[&"window", &self.device, &self.time_ms])
    }

    /// `None`: the text was not made by [`Cursor::encode_window`].
    pub fn decode_window(text: &str) -> Option<Self> {
        let [kind, device, time] = open(text)?.try_into().ok()?;
        (kind == "window").then_some(())?;
        Some(Self {
            device: DeviceKey::new(&device).ok()?,
            time_ms: time.parse().ok()?,
        })
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
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor.clone()));
        assert_eq!(Cursor::decode(&cursor.encode_window()), None);
        assert_eq!(Cursor::decode_window(&cursor.encode()), None);
        assert_eq!(Cursor::decode_window(&cursor.encode_window()), Some(cursor));
        for wrong in ["", "x", "MS8x", "!!"] {
            assert_eq!(Cursor::decode(wrong), None, "{wrong}");
        }
    }
}
