//! Items as answers list them, format 0: one point of one asset at one moment. Pure.

use backtide_model::{Cell, NO_QUALITY};
use jiff::tz::TimeZone;

use super::{
    Style,
    answer::{Refusal, TOO_LARGE},
    moments::LocalTime,
};
use crate::{limits::VENDOR_ANSWER_BYTES_MAX, query::write_cell};

/// Writes `{"items":[…]}`.
pub(super) struct Items {
    out: Vec<u8>,
    local: LocalTime,
    /// v2.0 tells numbers as text.
    as_text: bool,
    with_quality: bool,
}

/// Whose items follow.
pub(super) struct Of<'a> {
    pub(super) asset_id: &'a str,
    pub(super) zone: &'a TimeZone,
    /// The point, or a function of it.
    pub(super) point: &'a str,
    /// Its stored text is JSON.
    pub(super) is_json: bool,
}

impl Items {
    pub(super) fn new(style: Style, local: LocalTime, with_quality: bool) -> Self {
        Self {
            out: b"{\"items\":[".to_vec(),
            local,
            as_text: style == Style::Status,
            with_quality,
        }
    }

    /// # Errors
    /// The answer becomes too large.
    pub(super) fn push(
        &mut self,
        of: &Of<'_>,
        time_ms: i64,
        cell: &Cell,
        quality: u8,
    ) -> Result<(), Refusal> {
        let out = &mut self.out;
        if out.last() != Some(&b'[') {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"assetId\":");
        text(out, of.asset_id);
        out.extend_from_slice(b",\"timestamp\":");
        out.extend_from_slice(itoa::Buffer::new().format(time_ms).as_bytes());
        out.extend_from_slice(b",\"localtime\":");
        self.local.write(out, time_ms, of.zone);
        out.push(b',');
        text(out, of.point);
        out.push(b':');
        if self.as_text {
            let mut plain = Vec::new();
            match cell {
                Cell::Text(told) => text(out, told),
                number => {
                    write_cell(&mut plain, number, false);
                    out.push(b'"');
                    out.extend_from_slice(&plain);
                    out.push(b'"');
                }
            }
        } else {
            write_cell(out, cell, of.is_json);
        }
        if self.with_quality {
            out.extend_from_slice(b",\"quality\":");
            match quality {
                NO_QUALITY => out.extend_from_slice(b"null"),
                quality => out.extend_from_slice(itoa::Buffer::new().format(quality).as_bytes()),
            }
        }
        out.push(b'}');
        match out.len() <= VENDOR_ANSWER_BYTES_MAX {
            true => Ok(()),
            false => Err(Refusal::new(
                TOO_LARGE,
                format!(
                    "the answer has more than {VENDOR_ANSWER_BYTES_MAX} bytes; cut the time range, or ask for fewer \
                     assets, points or records of each"
                ),
            )),
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"]}");
        self.out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_in_v2_1_and_text_in_v2_0() {
        let zone = TimeZone::UTC;
        let of = Of {
            asset_id: "a1",
            zone: &zone,
            point: "P",
            is_json: false,
        };
        let told = |style, with_quality| {
            let local = LocalTime::Told {
                with_ms: false,
                with_zone: false,
            };
            let mut items = Items::new(style, local, with_quality);
            items.push(&of, 0, &Cell::Double(1.5), 3).unwrap();
            items
                .push(&of, 1, &Cell::Text("x\"".into()), NO_QUALITY)
                .unwrap();
            String::from_utf8(items.finish()).unwrap()
        };
        assert_eq!(
            told(Style::Code, true),
            concat!(
                r#"{"items":[{"assetId":"a1","timestamp":0,"localtime":"1970-01-01 00:00:00","P":1.5,"quality":3},"#,
                r#"{"assetId":"a1","timestamp":1,"localtime":"1970-01-01 00:00:00","P":"x\"","quality":null}]}"#
            )
        );
        assert!(told(Style::Status, false).contains(r#""P":"1.5"}"#));
    }

    #[test]
    fn an_answer_that_becomes_too_large_is_refused() {
        let zone = TimeZone::UTC;
        let of = Of {
            asset_id: "a1",
            zone: &zone,
            point: "P",
            is_json: false,
        };
        let mut items = Items::new(Style::Code, LocalTime::Absent, false);
        let text = Cell::Text("x".repeat(1 << 20).into());
        let told = (0..100).map(|at| items.push(&of, at, &text, NO_QUALITY));
        let refused = told.filter_map(Result::err).next().unwrap();
        assert_eq!(refused.code, TOO_LARGE);
    }
}
