//! Items as answers list them, format 0: one point of one asset at one moment; and how they leave, a
//! chunk at a time, however many they are.
//!
//! Nothing has left before the first chunk is full: until then an answer can be refused. What goes wrong
//! later breaks the body off before its end, so that no client takes it for whole.

use backtide_model::{Cell, NO_QUALITY};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{Style, answer::Refusal, moments::LocalTime};
use crate::{
    http::stream::{self, CHUNK_BYTES, Outlet},
    query::write_cell,
    seats::Seat,
};

/// Why an answer ends early.
pub(super) type Ended = stream::Ended<Refusal>;

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Problem(refusal)
    }
}

/// An answer of which nothing is written yet.
pub(super) struct Opening<'a> {
    pub(super) outlet: &'a Outlet<Refusal>,
    /// The envelope up to its data.
    pub(super) head: Vec<u8>,
    /// The right to an answer that a slow client can hold up.
    pub(super) seat: &'a dyn Fn() -> Result<Seat, Refusal>,
}

/// Writes `{"items":[…]}`, and the end of the envelope.
pub(super) struct Items<'a> {
    form: Form,
    chunk: Vec<u8>,
    is_first: bool,
    outlet: &'a Outlet<Refusal>,
    take_seat: &'a dyn Fn() -> Result<Seat, Refusal>,
    /// Taken when the first chunk leaves: short answers wait for nobody, and need none.
    seat: Option<Seat>,
}

/// What an item looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
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

impl<'a> Opening<'a> {
    pub(super) fn items(self, form: Form) -> Items<'a> {
        let mut chunk = self.head;
        chunk.extend_from_slice(b"{\"items\":[");
        Items {
            form,
            chunk,
            is_first: true,
            outlet: self.outlet,
            take_seat: self.seat,
            seat: None,
        }
    }
}

impl Items<'_> {
    /// # Errors
    /// [`Ended`]: the client is gone, or has too many long answers under way.
    pub(super) fn push(
        &mut self,
        of: &Of<'_>,
        time_ms: i64,
        cell: &Cell,
        quality: u8,
    ) -> Result<(), Ended> {
        self.separate();
        self.form.write(&mut self.chunk, of, time_ms, cell, quality);
        self.send_full()
    }

    pub(super) fn push_number(
        &mut self,
        of: &Of<'_>,
        (time_ms, value): (i64, f64),
    ) -> Result<(), Ended> {
        self.push(of, time_ms, &Cell::Double(value), NO_QUALITY)
    }

    /// An item of another form.
    pub(super) fn push_json(&mut self, item: &Value) -> Result<(), Ended> {
        self.separate();
        serde_json::to_writer(&mut self.chunk, item).expect("a vector takes every write");
        self.send_full()
    }

    /// The end, without which nobody takes an answer for whole.
    pub(super) fn finish(mut self) -> Result<(), Ended> {
        self.chunk.extend_from_slice(b"]}}");
        Ok(self.outlet.send(&mut self.chunk)?)
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.chunk.push(b',');
        }
    }

    fn send_full(&mut self) -> Result<(), Ended> {
        if self.chunk.len() < CHUNK_BYTES {
            return Ok(());
        }
        if self.seat.is_none() {
            self.seat = Some((self.take_seat)()?);
        }
        Ok(self.outlet.send(&mut self.chunk)?)
    }
}

impl Form {
    pub(super) fn new(style: Style, local: LocalTime) -> Self {
        Self {
            local,
            as_text: style == Style::Status,
            with_quality: false,
        }
    }

    pub(super) fn with_quality(self, with_quality: bool) -> Self {
        Self {
            with_quality,
            ..self
        }
    }

    fn write(self, out: &mut Vec<u8>, of: &Of<'_>, time_ms: i64, cell: &Cell, quality: u8) {
        out.extend_from_slice(b"{\"assetId\":");
        text(out, of.asset_id);
        out.extend_from_slice(b",\"timestamp\":");
        out.extend_from_slice(itoa::Buffer::new().format(time_ms).as_bytes());
        out.extend_from_slice(b",\"localtime\":");
        self.local.write(out, time_ms, of.zone);
        out.push(b',');
        text(out, of.point);
        out.push(b':');
        match cell {
            Cell::Text(told) if self.as_text => text(out, told),
            number if self.as_text => {
                out.push(b'"');
                write_cell(out, number, false);
                out.push(b'"');
            }
            cell => write_cell(out, cell, of.is_json),
        }
        if self.with_quality {
            out.extend_from_slice(b",\"quality\":");
            match quality {
                NO_QUALITY => out.extend_from_slice(b"null"),
                quality => out.extend_from_slice(itoa::Buffer::new().format(quality).as_bytes()),
            }
        }
        out.push(b'}');
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
        let local = LocalTime::Told {
            with_ms: false,
            with_zone: false,
        };
        let told = |style, with_quality, time_ms, cell: &Cell, quality| {
            let mut out = Vec::new();
            let form = Form::new(style, local).with_quality(with_quality);
            form.write(&mut out, &of, time_ms, cell, quality);
            String::from_utf8(out).unwrap()
        };
        let (number, words) = (Cell::Double(1.5), Cell::Text("x\"".into()));
        assert_eq!(
            told(Style::Code, true, 0, &number, 3),
            r#"{"assetId":"a1","timestamp":0,"localtime":"1970-01-01 00:00:00","P":1.5,"quality":3}"#
        );
        assert_eq!(
            told(Style::Code, true, 1, &words, NO_QUALITY),
            r#"{"assetId":"a1","timestamp":1,"localtime":"1970-01-01 00:00:00","P":"x\"","quality":null}"#
        );
        assert!(told(Style::Status, false, 0, &number, 3).ends_with(r#""P":"1.5"}"#));
        assert!(told(Style::Status, false, 0, &words, 3).ends_with(r#""P":"x\""}"#));
    }
}
