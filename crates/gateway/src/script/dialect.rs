//! How a script is called and what its results mean, by the names that its functions have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The functions of a script and their shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum Dialect {
    /// `rawDataToJsonStr(bytes)` returns the text of an envelope, `jsonStrToRawData(text)` bytes.
    #[default]
    #[serde(rename = "rawDataToJsonStr")]
    RawDataToJsonStr,
    /// `rawDataToProtocol(bytes)` returns an envelope as an object, `protocolToRawData(object)`
    /// bytes.
    #[serde(rename = "rawDataToProtocol")]
    RawDataToProtocol,
    /// `decodeUplink({bytes, fPort})` returns `{data}`, `encodeDownlink({data})` `{bytes}`.
    #[serde(rename = "decodeUplink")]
    DecodeUplink,
    /// `Decoder(bytes, port)` returns an object, `Encoder(object, port)` bytes.
    #[serde(rename = "Decoder")]
    Decoder,
    /// `Decode(fPort, bytes)` returns an object, `Encode(fPort, object)` bytes.
    #[serde(rename = "Decode")]
    Decode,
    /// `transform(message)` of a rule returns messages; no product is decoded by it.
    #[serde(rename = "transform")]
    #[schemars(skip)]
    Transform,
}

impl Dialect {
    pub const ALL: [Self; 5] = [
        Self::RawDataToJsonStr,
        Self::RawDataToProtocol,
        Self::DecodeUplink,
        Self::Decoder,
        Self::Decode,
    ];

    /// Its name: that of the function that decodes.
    pub const fn decoder(self) -> &'static str {
        match self {
            Self::RawDataToJsonStr => "rawDataToJsonStr",
            Self::RawDataToProtocol => "rawDataToProtocol",
            Self::DecodeUplink => "decodeUplink",
            Self::Decoder => "Decoder",
            Self::Decode => "Decode",
            Self::Transform => "transform",
        }
    }

    pub const fn encoder(self) -> &'static str {
        match self {
            Self::RawDataToJsonStr => "jsonStrToRawData",
            Self::RawDataToProtocol => "protocolToRawData",
            Self::DecodeUplink => "encodeDownlink",
            Self::Decoder => "Encoder",
            Self::Decode => "Encode",
            // There is none: stands where the name of a function does.
            Self::Transform => "undefined",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|dialect| dialect.decoder() == word)
    }

    /// Its results are values alone: a mapping says whose they are.
    const fn needs_mapping(self) -> bool {
        matches!(self, Self::DecodeUplink | Self::Decoder | Self::Decode)
    }

    /// Its functions speak of replies, not of commands to one device.
    const fn speaks_envelopes(self) -> bool {
        matches!(self, Self::RawDataToJsonStr | Self::RawDataToProtocol)
    }

    /// Whether replies go through the script's encoder, where it has one.
    pub fn encodes_replies(self, mapping: Option<&Mapping>) -> bool {
        match mapping.and_then(|mapping| mapping.reply) {
            Some(reply) => reply == ReplyForm::Script,
            None => self.speaks_envelopes(),
        }
    }
}

/// Whose values a decoder's result holds, and since when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mapping {
    /// Which device the values are of.
    pub device: Device,
    /// The port that the decoder is given: a number, or where it stands in the message. 1 unless
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f_port: Option<FPort>,
    /// The part of the message that the decoder is given; all of it unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// When the values were measured; the time of receipt unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Where the values stand in the result, such as `data`; `data` of a `decodeUplink`, else the
    /// result itself, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// Points, and where each stands among the values; every value under its own name unless
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<std::collections::BTreeMap<String, String>>,
    /// Who writes replies; `script` where the dialect speaks of envelopes, else `json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplyForm>,
}

/// Which device: always one, one that the result names, or one that the message's bytes name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Device {
    /// The device key.
    Constant(String),
    Result(InResult),
    Bytes(DeviceBytes),
}

/// A place in the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InResult {
    /// Members joined by dots, such as `data.serial`.
    pub result: String,
}

/// A device key in the message's own bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceBytes {
    /// The first byte and the one behind the last, from 0.
    pub bytes: [u32; 2],
    #[serde(default, rename = "as")]
    pub form: DeviceForm,
}

/// How bytes are written as a device key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceForm {
    /// Lower-case hex digits.
    #[default]
    Hex,
    /// ASCII; zero bytes at the end are dropped.
    Text,
    /// A big-endian number.
    Number,
}

/// The port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FPort {
    Constant(u8),
    Byte(AtByte),
}

/// A byte of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtByte {
    /// From 0.
    pub byte: u32,
}

/// A part of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Its first byte, from 0.
    pub from: u32,
}

/// When: in the result, or in the message's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Time {
    Result(TimeResult),
    Bytes(TimeBytes),
}

/// A time in the result: a number, or ISO text with an offset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeResult {
    pub result: String,
    /// Of a number.
    #[serde(default)]
    pub unit: TimeUnit,
}

/// A big-endian number since 1970 UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeBytes {
    /// The first byte and the one behind the last, from 0; at most six.
    pub bytes: [u32; 2],
    #[serde(default)]
    pub unit: TimeUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TimeUnit {
    #[default]
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "s")]
    Seconds,
}

/// Who writes a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplyForm {
    /// The script's encoder, where it has one.
    Script,
    /// The gateway: JSON text.
    Json,
}

/// Checks that a mapping is there where it must be, and makes sense.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(dialect: Dialect, mapping: Option<&Mapping>) -> Result<(), String> {
    let Some(mapping) = mapping else {
        return match dialect.needs_mapping() {
            false => Ok(()),
            true => Err(format!(
                "dialect {} returns values alone: give a mapping with at least a device",
                dialect.decoder()
            )),
        };
    };
    if dialect == Dialect::RawDataToJsonStr {
        return Err("dialect rawDataToJsonStr returns whole envelopes and takes no mapping".into());
    }
    let ranges = [
        match &mapping.device {
            Device::Bytes(at) => Some(("device", at.bytes, 64)),
            Device::Constant(_) | Device::Result(_) => None,
        },
        match &mapping.time {
            Some(Time::Bytes(at)) => Some(("time", at.bytes, 6)),
            Some(Time::Result(_)) | None => None,
        },
    ];
    for (what, [from, to], bytes_max) in ranges.into_iter().flatten() {
        if from >= to || to - from > bytes_max {
            return Err(format!(
                "mapping: {what}: bytes [{from}, {to}] are not 1 to {bytes_max} bytes"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_read_as_it_is_documented() {
        for text in [
            r#"{"device":"probe-7"}"#,
            r#"{"device":{"result":"data.serial"},"fPort":2}"#,
            r#"{"device":{"bytes":[0,8],"as":"hex"},"fPort":{"byte":8},"payload":{"from":9},
                "time":{"bytes":[9,13],"unit":"s"},"values":"data","points":{"t":"temperature"},
                "reply":"json"}"#,
        ] {
            let mapping: Mapping = serde_json::from_str(text).unwrap();
            check(Dialect::DecodeUplink, Some(&mapping)).unwrap();
            let again: Mapping =
                serde_json::from_str(&serde_json::to_string(&mapping).unwrap()).unwrap();
            assert_eq!(again, mapping);
        }
    }

    #[test]
    fn values_alone_need_a_mapping_and_envelopes_take_none() {
        let mapping: Mapping = serde_json::from_str(r#"{"device":"a"}"#).unwrap();
        assert!(check(Dialect::Decoder, None).is_err());
        assert!(check(Dialect::RawDataToJsonStr, Some(&mapping)).is_err());
        assert!(check(Dialect::RawDataToJsonStr, None).is_ok());
        let none: Mapping = serde_json::from_str(r#"{"device":{"bytes":[8,8]}}"#).unwrap();
        assert!(check(Dialect::Decoder, Some(&none)).is_err());
    }

    #[test]
    fn every_dialect_is_known_by_the_name_of_its_decoder() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_word(dialect.decoder()), Some(dialect));
            assert_eq!(
                serde_json::to_value(dialect).unwrap(),
                serde_json::json!(dialect.decoder())
            );
        }
    }
}
