//! Questions about attributes, and attribute values as lines.

use arrow_array::ArrayRef;
use backtide_model::{DeviceKey, ElementName, Storage};
use backtide_store::{AttributePlace, AttributeRange, Sequence, StoredAttribute};

use super::{
    Asked, Line, OutColumn, QuestionError,
    columns::DEVICE,
    cursor,
    question::{self, Subject, subject},
    records::{longs, names, texts},
    rows::{csv_text, plain},
};
use crate::{clock, registry::Snapshot};

/// What to ask of the store; [`Asked::names`] are attributes, times have no meaning.
///
/// # Errors
/// A [`QuestionError`] that names what is wrong.
pub fn attributes_asked(
    asked: &Asked<'_>,
    history: bool,
    registry: &Snapshot,
) -> Result<AttributeRange, QuestionError> {
    let Subject { product, devices } = subject(asked, registry)?;
    let is_declared = |name: &ElementName| product.model.attributes.contains_key(name);
    let attributes = question::names(&product, "attribute", asked.names, is_declared)?;
    let after = |text| place(text).ok_or(QuestionError::Cursor);
    Ok(AttributeRange {
        product: product.key.clone(),
        devices,
        attributes,
        history,
        after: asked.cursor.map(after).transpose()?,
        rows_max: usize::MAX,
    })
}

/// The place that a cursor names.
fn place(text: &str) -> Option<AttributePlace> {
    let [device, attribute, order, sequence, item] = cursor::open(text)?.try_into().ok()?;
    Some(AttributePlace {
        device: DeviceKey::new(&device).ok()?,
        attribute: ElementName::new(&attribute).ok()?,
        order: Sequence(order.parse().ok()?),
        sequence: Sequence(sequence.parse().ok()?),
        item: item.parse().ok()?,
    })
}

impl Line for StoredAttribute {
    const COLUMNS: &'static str = "deviceKey,attribute,value,confirmed";

    fn json(&self, out: &mut Vec<u8>) {
        let AttributePlace {
            device, attribute, ..
        } = &self.place;
        // Keys and names have no characters that JSON escapes; the value is JSON.
        let text = format!(
            "\"deviceKey\":\"{device}\",\"attribute\":\"{attribute}\",\"value\":{},\"confirmed\":{}",
            self.value, self.confirmed_ms
        );
        out.extend_from_slice(text.as_bytes());
    }

    fn csv(&self, out: &mut Vec<u8>) {
        let AttributePlace {
            device, attribute, ..
        } = &self.place;
        out.extend_from_slice(format!("{device},{attribute},").as_bytes());
        csv_text(out, &plain(&self.value));
        out.push(b',');
        out.extend_from_slice(clock::iso(self.confirmed_ms).as_bytes());
    }

    fn columns() -> Vec<OutColumn> {
        vec![
            OutColumn::of_records("deviceKey", Storage::Text).of_source(DEVICE),
            OutColumn::of_records("attribute", Storage::Text),
            OutColumn::of_records("value", Storage::Text),
            OutColumn::of_moments("confirmed"),
        ]
    }

    fn arrays(values: &[Self]) -> Vec<(&'static str, ArrayRef)> {
        let attribute = |value: &'_ Self| value.place.attribute.to_string();
        vec![
            (DEVICE, names(values, |value| value.place.device.as_str())),
            ("attribute", texts(values, attribute)),
            (
                "value",
                texts(values, |value| plain(&value.value).into_owned()),
            ),
            ("confirmed", longs(values, |value| value.confirmed_ms)),
        ]
    }

    fn sequence(&self) -> Sequence {
        self.place.sequence
    }

    fn came(&self) -> (&str, i64) {
        (self.channel.as_str(), self.arrived_ms)
    }

    fn cursor(&self) -> String {
        let AttributePlace {
            device,
            attribute,
            order,
            sequence,
            item,
        } = &self.place;
        cursor::seal(&[device, attribute, &order.0, &sequence.0, item])
    }
}

#[cfg(test)]
mod tests {
    use backtide_model::ChannelName;

    use super::*;
    use crate::query::{LineWriter, RowForm};

    fn written(form: RowForm, value: &str) -> String {
        let stored = StoredAttribute {
            place: AttributePlace {
                device: DeviceKey::new("R80711").unwrap(),
                attribute: ElementName::new("serial").unwrap(),
                order: Sequence(3),
                sequence: Sequence(9),
                item: 1,
            },
            value: value.into(),
            channel: ChannelName::new("history").unwrap(),
            arrived_ms: 0,
            confirmed_ms: 1,
        };
        let mut writer = LineWriter::new(form, |sequence| format!("abc-{}", sequence.0));
        let mut out = Vec::new();
        writer.write(&mut out, std::slice::from_ref(&stored));
        assert_eq!(place(writer.cursor().unwrap()), Some(stored.place));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_value_is_a_line_with_where_it_came_from() {
        assert_eq!(
            written(RowForm::JsonItems, "\"A,1\""),
            concat!(
                r#"{"deviceKey":"R80711","attribute":"serial","value":"A,1","confirmed":1,"#,
                r#""channel":"history","arrived":0,"receipt":"abc-9"}"#
            )
        );
        let row = |value: &str| {
            format!(
                "R80711,serial,{value},1970-01-01T00:00:00.001Z,history,1970-01-01T00:00:00.000Z,abc-9\n"
            )
        };
        assert_eq!(written(RowForm::Csv, "\"A,1\""), row("\"A,1\""));
        assert_eq!(written(RowForm::Csv, "4.0"), row("4.0"));
        assert_eq!(written(RowForm::Csv, "{\"x\":1}"), row("\"{\"\"x\"\":1}\""));
    }
}
