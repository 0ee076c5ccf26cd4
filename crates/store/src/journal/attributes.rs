//! Attribute values as bytes, in order of arrival.

use backtide_model::{AttributeValue, DeviceKey, ElementName};

use super::{
    names::{self, Names},
    wire::{DecodeError, Reader, put_count, put_str, put_varint},
};

pub(super) fn encode(values: &[AttributeValue], out: &mut Vec<u8>) {
    let devices = Names::of(values.iter().map(|value| value.device.as_str()));
    let attributes = Names::of(values.iter().map(|value| value.attribute.as_str()));
    devices.encode(out);
    attributes.encode(out);
    put_count(out, values.len());
    for value in values {
        put_varint(out, devices.number(value.device.as_str()));
        put_varint(out, attributes.number(value.attribute.as_str()));
        put_str(out, &value.value);
    }
}

pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Vec<AttributeValue>, DecodeError> {
    let devices = names::decode(reader, "a device key", DeviceKey::new)?;
    let attributes = names::decode(reader, "an attribute", ElementName::new)?;
    let count = reader.count(ROW_BYTES_MIN, "attribute values")?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(AttributeValue {
            device: names::named(reader, &devices, "an attribute's device")?,
            attribute: names::named(reader, &attributes, "an attribute's name")?,
            value: Box::from(reader.str("an attribute's value")?),
        });
    }
    Ok(values)
}

/// Two numbers, the length of the value.
const ROW_BYTES_MIN: usize = 3;

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    pub(in crate::journal) fn any_attributes() -> impl Strategy<Value = Vec<AttributeValue>> {
        let row = ("[a-c]{1,2}", "[x-z]{1,2}", any::<String>());
        let value = |(device, attribute, value): (String, String, String)| AttributeValue {
            device: DeviceKey::new(&device).unwrap(),
            attribute: ElementName::new(&attribute).unwrap(),
            value: value.into(),
        };
        vec(row.prop_map(value), 0..20)
    }

    proptest! {
        #[test]
        fn attribute_values_read_back(values in any_attributes()) {
            let mut out = Vec::new();
            encode(&values, &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(decode(&mut reader).unwrap(), values);
            prop_assert!(reader.end("attributes").is_ok());
        }
    }
}
