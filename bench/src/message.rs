//! A measure point message as the vendor's SDK writes it, and its reply. Encoding must be cheap: what
//! it costs is measured as the generator's share.

use serde::Deserialize;

use crate::mqtt;
use crate::order::Row;
use crate::series::{self, POINTS};

/// Writes messages of one connection.
pub struct Encoder {
    topic: String,
    /// By device number: the start of a row up to its time.
    heads: Vec<Vec<u8>>,
    /// In front of each value: what ends the one before, and the point's name.
    labels: Vec<Vec<u8>>,
    payload: Vec<u8>,
    /// Bytes for a script instead of JSON.
    is_raw: bool,
}

/// Points in a raw frame.
pub const RAW_POINTS: usize = 6;

impl Encoder {
    pub fn new(product_key: &str, devices: u32) -> Self {
        let label = |(p, point): (usize, &series::Point)| {
            let before = if p == 0 { ",\"measurepoints\":{" } else { "," };
            format!("{before}\"{}\":", point.name).into_bytes()
        };
        let head = |device| {
            format!(
                "{{\"deviceKey\":\"{}\",\"time\":",
                series::device_key(device)
            )
            .into_bytes()
        };
        Self {
            topic: request_topic(product_key),
            heads: (0..devices).map(head).collect(),
            labels: POINTS.iter().enumerate().map(label).collect(),
            payload: Vec::with_capacity(32 * 1024),
            is_raw: false,
        }
    }

    /// Writes frames of 40 bytes, one row each: sequence (4 bytes), packet (2), device (2), time in
    /// ms (8), six values in hundredths (4 each), all big-endian.
    pub fn raw(product_key: &str) -> Self {
        Self {
            topic: raw_topic(product_key),
            heads: Vec::new(),
            labels: Vec::new(),
            payload: Vec::with_capacity(64),
            is_raw: true,
        }
    }

    /// Appends a PUBLISH packet (QoS 1) and returns the bytes of its payload. The message's id is
    /// `<sequence>-<packet>`, from which [`Reply::packet`] finds the way back.
    pub fn publish(
        &mut self,
        packet: u16,
        sequence: u64,
        rows: &[Row],
        out: &mut Vec<u8>,
    ) -> usize {
        let mut digits = itoa::Buffer::new();
        let payload = &mut self.payload;
        payload.clear();
        if self.is_raw {
            let row = &rows[0];
            payload.extend_from_slice(&(sequence as u32).to_be_bytes());
            payload.extend_from_slice(&packet.to_be_bytes());
            payload.extend_from_slice(&(row.device as u16).to_be_bytes());
            payload.extend_from_slice(&(series::time_ms(row.index) as u64).to_be_bytes());
            for value in &row.values[..RAW_POINTS] {
                payload.extend_from_slice(&value.to_be_bytes());
            }
            mqtt::publish(out, &self.topic, Some(packet), payload);
            return payload.len();
        }
        payload.extend_from_slice(b"{\"id\":\"");
        payload.extend_from_slice(digits.format(sequence).as_bytes());
        payload.push(b'-');
        payload.extend_from_slice(digits.format(packet).as_bytes());
        payload.extend_from_slice(
            b"\",\"version\":\"1.0\",\"method\":\"integration.measurepoint.post\",\"params\":[",
        );
        for (n, row) in rows.iter().enumerate() {
            if n > 0 {
                payload.push(b',');
            }
            payload.extend_from_slice(&self.heads[row.device as usize]);
            payload.extend_from_slice(digits.format(series::time_ms(row.index)).as_bytes());
            for (label, &value) in self.labels.iter().zip(&row.values) {
                payload.extend_from_slice(label);
                push_hundredths(payload, value, &mut digits);
            }
            payload.extend_from_slice(b"}}");
        }
        payload.extend_from_slice(b"]}");
        mqtt::publish(out, &self.topic, Some(packet), payload);
        payload.len()
    }
}

/// The topic that measure points of a product are published to.
pub fn request_topic(product_key: &str) -> String {
    format!("/sys/{product_key}/integration/measurepoint/post")
}

/// The topic that raw frames of a product are published to.
pub fn raw_topic(product_key: &str) -> String {
    format!("/sys/{product_key}/integration/model/up_raw")
}

/// `-7` becomes `-0.07`.
fn push_hundredths(out: &mut Vec<u8>, value: i32, digits: &mut itoa::Buffer) {
    if value < 0 {
        out.push(b'-');
    }
    let value = value.unsigned_abs();
    out.extend_from_slice(digits.format(value / 100).as_bytes());
    let cents = (value % 100) as u8;
    out.extend_from_slice(&[b'.', b'0' + cents / 10, b'0' + cents % 10]);
}

/// What of a reply counts here.
#[derive(Deserialize)]
pub struct Reply<'a> {
    pub id: &'a str,
    pub code: u32,
}

impl<'a> Reply<'a> {
    pub fn parse(payload: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(payload)
    }

    /// The packet id and the sequence number of the request.
    pub fn request(&self) -> Option<(u16, u64)> {
        let (sequence, packet) = self.id.split_once('-')?;
        Some((packet.parse().ok()?, sequence.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Walk;

    #[test]
    fn a_message_is_json_with_two_decimals() {
        let mut walk = Walk::new(1, 3);
        let rows: Vec<Row> = (0..2)
            .map(|index| Row {
                device: 3,
                index,
                values: walk.advance(),
            })
            .collect();
        let mut packet = Vec::new();
        let bytes = Encoder::new("PK", 4).publish(9, 17, &rows, &mut packet);

        let (frame, used) = mqtt::Frame::first(&packet)
            .expect("well-formed")
            .expect("whole");
        assert_eq!(used, packet.len());
        let publish = frame.publish().expect("a PUBLISH");
        assert_eq!(
            (publish.topic, publish.packet),
            ("/sys/PK/integration/measurepoint/post", Some(9))
        );
        assert_eq!(publish.payload.len(), bytes);
        let json: serde_json::Value = serde_json::from_slice(publish.payload).expect("JSON");
        assert_eq!(json["id"], "17-9");
        assert_eq!(json["params"][1]["deviceKey"], "T000003");
        assert_eq!(
            json["params"][1]["time"],
            series::START_MS + series::STEP_MS
        );
        for (p, point) in POINTS.iter().enumerate() {
            assert_eq!(
                json["params"][1]["measurepoints"][point.name],
                f64::from(rows[1].values[p]) / 100.0
            );
        }
    }

    #[test]
    fn a_reply_leads_to_its_request() {
        let reply = Reply::parse(br#"{"id":"17-9","code":200,"data":{}}"#).expect("a reply");
        assert_eq!((reply.code, reply.request()), (200, Some((9, 17))));
    }
}
