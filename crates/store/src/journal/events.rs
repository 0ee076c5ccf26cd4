//! Events as bytes, in order of arrival.

use backtide_model::{DeviceKey, ElementName, Occurrence};

use super::{
    names::{self, Names},
    wire::{DecodeError, Reader, put_count, put_signed, put_str, put_varint},
};

pub(super) fn encode(occurrences: &[Occurrence], out: &mut Vec<u8>) {
    let devices = Names::of(occurrences.iter().map(|o| o.device.as_str()));
    let events = Names::of(occurrences.iter().map(|o| o.event.as_str()));
    devices.encode(out);
    events.encode(out);
    put_count(out, occurrences.len());
    let mut before = 0_i64;
    for occurrence in occurrences {
        put_varint(out, devices.number(occurrence.device.as_str()));
        put_varint(out, events.number(occurrence.event.as_str()));
        put_signed(out, occurrence.time_ms.wrapping_sub(before));
        before = occurrence.time_ms;
        put_str(out, &occurrence.output);
    }
}

pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Vec<Occurrence>, DecodeError> {
    let devices = names::decode(reader, "a device key", DeviceKey::new)?;
    let events = names::decode(reader, "an event", ElementName::new)?;
    let count = reader.count(ROW_BYTES_MIN, "events")?;
    let mut occurrences = Vec::with_capacity(count);
    let mut time_ms = 0_i64;
    for _ in 0..count {
        let device = names::named(reader, &devices, "an event's device")?;
        let event = names::named(reader, &events, "an event's name")?;
        time_ms = time_ms.wrapping_add(reader.signed("an event's time")?);
        occurrences.push(Occurrence {
            device,
            time_ms,
            event,
            output: Box::from(reader.str("an event's output")?),
        });
    }
    Ok(occurrences)
}

/// Two numbers, a time, the length of the output.
const ROW_BYTES_MIN: usize = 4;

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    pub(in crate::journal) fn any_events() -> impl Strategy<Value = Vec<Occurrence>> {
        let row = ("[a-c]{1,2}", any::<i64>(), "[x-z]{1,2}", any::<String>());
        let occurrence =
            |(device, time_ms, event, output): (String, i64, String, String)| Occurrence {
                device: DeviceKey::new(&device).unwrap(),
                time_ms,
                event: ElementName::new(&event).unwrap(),
                output: output.into(),
            };
        vec(row.prop_map(occurrence), 0..20)
    }

    proptest! {
        #[test]
        fn events_read_back(occurrences in any_events()) {
            let mut out = Vec::new();
            encode(&occurrences, &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(decode(&mut reader).unwrap(), occurrences);
            prop_assert!(reader.end("events").is_ok());
        }

        #[test]
        fn damaged_events_are_an_error_or_others(
            occurrences in any_events(), at: prop::sample::Index, to: u8,
        ) {
            let mut out = Vec::new();
            encode(&occurrences, &mut out);
            let at = at.index(out.len());
            out[at] = to;
            drop(decode(&mut Reader::new(&out)));
        }
    }
}
