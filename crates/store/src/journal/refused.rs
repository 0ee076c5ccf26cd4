//! What goes to quarantine, as bytes.

use backtide_model::Code;

use super::wire::{DecodeError, Reader, put_bytes, put_count, put_str, put_varint};
use crate::{Refused, RefusedItem};

pub(super) fn encode(refused: &Refused, out: &mut Vec<u8>) {
    put_varint(out, u64::from(refused.code.number()));
    put_bytes(out, &refused.raw);
    put_varint(out, refused.payload_bytes);
    out.extend_from_slice(&refused.payload_sha256);
    put_varint(out, u64::from(refused.more));
    put_count(out, refused.items.len());
    for item in &refused.items {
        encode_item(item, out);
    }
}

pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Refused, DecodeError> {
    let code = decode_code(reader)?;
    let raw = Box::from(reader.bytes("the refused payload")?);
    let payload_bytes = reader.varint("the payload's size")?;
    let payload_sha256 = reader.array("the payload's digest")?;
    let more = reader.number("the count of further refusals")?;
    let count = reader.count(ITEM_BYTES_MIN, "refused items")?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(decode_item(reader)?);
    }
    Ok(Refused {
        code,
        raw,
        payload_bytes,
        payload_sha256,
        items,
        more,
    })
}

/// In the place of a point: the version of a script follows. Records of before have none.
const SCRIPT: u8 = 2;

/// Index, device and point absent, a code of two bytes, an empty message.
const ITEM_BYTES_MIN: usize = 6;

fn encode_item(item: &RefusedItem, out: &mut Vec<u8>) {
    put_varint(out, item.index.map_or(0, |index| u64::from(index) + 1));
    encode_optional(item.device.as_deref(), out);
    match (&item.point, item.script_version) {
        (None, Some(version)) => {
            out.push(SCRIPT);
            put_varint(out, u64::from(version));
        }
        (point, _) => encode_optional(point.as_deref(), out),
    }
    put_varint(out, u64::from(item.code.number()));
    put_str(out, &item.message);
}

fn decode_item(reader: &mut Reader<'_>) -> Result<RefusedItem, DecodeError> {
    let what = "an item's index";
    let index = match reader.varint(what)?.checked_sub(1) {
        Some(index) => Some(u32::try_from(index).map_err(|_| DecodeError::Number { what })?),
        None => None,
    };
    let device = decode_optional(reader, "an item's device")?;
    let (point, script_version) = match reader.byte("an item's point")? {
        SCRIPT => (None, Some(reader.number("a script's version")?)),
        tag => (decode_tagged(reader, tag, "an item's point")?, None),
    };
    Ok(RefusedItem {
        index,
        device,
        point,
        script_version,
        code: decode_code(reader)?,
        message: Box::from(reader.str("an item's message")?),
    })
}

fn encode_optional(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_str(out, text);
        }
    }
}

fn decode_optional(
    reader: &mut Reader<'_>,
    what: &'static str,
) -> Result<Option<Box<str>>, DecodeError> {
    let tag = reader.byte(what)?;
    decode_tagged(reader, tag, what)
}

fn decode_tagged(
    reader: &mut Reader<'_>,
    tag: u8,
    what: &'static str,
) -> Result<Option<Box<str>>, DecodeError> {
    match tag {
        0 => Ok(None),
        1 => Ok(Some(Box::from(reader.str(what)?))),
        tag => Err(DecodeError::Tag { what, tag }),
    }
}

fn decode_code(reader: &mut Reader<'_>) -> Result<Code, DecodeError> {
    let what = "a code";
    Code::from_number(reader.number(what)?).ok_or(DecodeError::Number { what })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::select};

    use super::*;

    fn any_item() -> impl Strategy<Value = RefusedItem> {
        (
            option::of(any::<u32>()),
            option::of(any::<String>()),
            option::of(any::<String>()),
            option::of(any::<u32>()),
            select(Code::ALL.to_vec()),
            any::<String>(),
        )
            .prop_map(
                |(index, device, point, version, code, message)| RefusedItem {
                    index,
                    device: device.map(Into::into),
                    script_version: version.filter(|_| point.is_none()),
                    point: point.map(Into::into),
                    code,
                    message: message.into(),
                },
            )
    }

    pub(in crate::journal) fn any_refused() -> impl Strategy<Value = Refused> {
        (
            select(Code::ALL.to_vec()),
            vec(any::<u8>(), 0..100),
            any::<u64>(),
            any::<[u8; 32]>(),
            vec(any_item(), 0..5),
            any::<u32>(),
        )
            .prop_map(
                |(code, raw, payload_bytes, payload_sha256, items, more)| Refused {
                    code,
                    raw: raw.into(),
                    payload_bytes,
                    payload_sha256,
                    items,
                    more,
                },
            )
    }

    proptest! {
        #[test]
        fn a_refusal_reads_back(refused in any_refused()) {
            let mut out = Vec::new();
            encode(&refused, &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(decode(&mut reader).unwrap(), refused);
            prop_assert!(reader.end("refused").is_ok());
        }
    }
}
