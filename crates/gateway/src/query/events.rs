//! Questions about events, and events as lines.

use arrow_array::ArrayRef;
use backtide_model::{DeviceKey, ElementName, Storage};
use backtide_store::{EventPlace, EventRange, Sequence, StoredEvent};

use super::{
    Asked, Line, OutColumn, QuestionError,
    columns::{DEVICE, TIME},
    cursor,
    question::{self, Subject, subject},
    records::{longs, names},
    rows::csv_text,
    time::{span, zone},
};
use crate::{clock, registry::Snapshot};

/// What to ask of the store; [`Asked::names`] are events.
///
/// # Errors
/// A [`QuestionError`] that names what is wrong.
pub fn events_asked(asked: &Asked<'_>, registry: &Snapshot) -> Result<EventRange, QuestionError> {
    let Subject { product, devices } = subject(asked, registry)?;
    let is_declared = |name: &ElementName| product.model.events.contains_key(name);
    let events = question::names(&product, "event", asked.names, is_declared)?;
    let zone = asked.timezone.map(zone).transpose()?;
    let (from_ms, to_ms) = span(asked.from, asked.to, zone.as_ref())?;
    let after = |text| place(text).ok_or(QuestionError::Cursor);
    Ok(EventRange {
        product: product.key.clone(),
        devices,
        events,
        from_ms: from_ms.unwrap_or(i64::MIN),
        to_ms: to_ms.unwrap_or(i64::MAX),
        after: asked.cursor.map(after).transpose()?,
        rows_max: usize::MAX,
    })
}

/// The place that a cursor names.
fn place(text: &str) -> Option<EventPlace> {
    let [time, device, event, digest] = cursor::open(text)?.try_into().ok()?;
    let digest: Vec<u8> = hex::decode(digest).ok()?;
    Some(EventPlace {
        time_ms: time.parse().ok()?,
        device: DeviceKey::new(&device).ok()?,
        event: ElementName::new(&event).ok()?,
        digest: digest.try_into().ok()?,
    })
}

impl Line for StoredEvent {
    const COLUMNS: &'static str = "deviceKey,time,event,output";

    fn json(&self, out: &mut Vec<u8>) {
        let EventPlace {
            time_ms,
            device,
            event,
            ..
        } = &self.place;
        // Keys and names have no characters that JSON escapes; the output is JSON.
        let text = format!(
            "\"deviceKey\":\"{device}\",\"time\":{time_ms},\"event\":\"{event}\",\"output\":{}",
            self.output
        );
        out.extend_from_slice(text.as_bytes());
    }

    fn csv(&self, out: &mut Vec<u8>) {
        let EventPlace {
            time_ms,
            device,
            event,
            ..
        } = &self.place;
        let time = clock::iso(*time_ms);
        out.extend_from_slice(format!("{device},{time},{event},").as_bytes());
        csv_text(out, &self.output);
    }

    fn columns() -> Vec<OutColumn> {
        vec![
            OutColumn::of_records("deviceKey", Storage::Text).of_source(DEVICE),
            OutColumn::of_moments("time").of_source(TIME),
            OutColumn::of_records("event", Storage::Text),
            OutColumn::of_records("output", Storage::Text),
        ]
    }

    fn arrays(events: &[Self]) -> Vec<(&'static str, ArrayRef)> {
        vec![
            (DEVICE, names(events, |event| event.place.device.as_str())),
            (TIME, longs(events, |event| event.place.time_ms)),
            ("event", names(events, |event| event.place.event.as_str())),
            ("output", names(events, |event| &event.output)),
        ]
    }

    fn sequence(&self) -> Sequence {
        self.sequence
    }

    fn came(&self) -> (&str, i64) {
        (self.channel.as_str(), self.arrived_ms)
    }

    fn cursor(&self) -> String {
        let EventPlace {
            time_ms,
            device,
            event,
            digest,
        } = &self.place;
        cursor::seal(&[time_ms, device, event, &hex::encode(digest)])
    }
}

#[cfg(test)]
mod tests {
    use backtide_model::ChannelName;

    use super::*;
    use crate::query::{LineWriter, RowForm};

    fn stored() -> StoredEvent {
        StoredEvent {
            place: EventPlace {
                time_ms: 1_388_534_400_000,
                device: DeviceKey::new("R80711:a").unwrap(),
                event: ElementName::new("leak.now").unwrap(),
                digest: [7; 16],
            },
            output: r#"{"litres":4.0}"#.into(),
            sequence: Sequence(9),
            channel: ChannelName::new("历史").unwrap(),
            arrived_ms: 1_700_000_000_000,
        }
    }

    fn written(form: RowForm) -> String {
        let mut writer = LineWriter::new(form, |sequence| format!("abc-{}", sequence.0));
        let mut out = Vec::new();
        writer.begin::<StoredEvent>(&mut out);
        writer.write(&mut out, &[stored()]);
        assert_eq!(place(writer.cursor().unwrap()), Some(stored().place));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_a_line_with_where_it_came_from() {
        let json = concat!(
            r#"{"deviceKey":"R80711:a","time":1388534400000,"event":"leak.now","output":{"litres":4.0},"#,
            r#""channel":"历史","arrived":1700000000000,"receipt":"abc-9"}"#
        );
        assert_eq!(written(RowForm::JsonItems), json);
        assert_eq!(written(RowForm::Ndjson), format!("{json}\n"));
        assert_eq!(
            written(RowForm::Csv),
            "deviceKey,time,event,output,channel,arrived,receipt\n\
             R80711:a,2014-01-01T00:00:00.000Z,leak.now,\"{\"\"litres\"\":4.0}\",历史,\
             2023-11-14T22:13:20.000Z,abc-9\n"
        );
    }
}
