//! A JSON object a line: rows as `query` prints them, or items of `params`.

use std::{
    collections::HashMap,
    fmt,
    io::{BufRead, BufReader, Read},
};

use backtide_model::Items;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{super::value::whole_number, Item, Row, Rows, SourceError, spoiled};
use crate::{
    files::{
        mapping::{self, Mapping, Points, Role},
        moment::{self, Clockwork, Notes},
    },
    limits::FILE_ROW_BYTES_MAX,
};

/// In an item of `params` the points stand in an object of this name.
const NESTED: &str = "measurepoints";
/// What is kept of a line that is too long, to recognise it.
const LINE_HEAD_BYTES: usize = 4 << 10;
/// Fields that are remembered to be what they are; further ones are looked up each time.
const FIELDS_MAX: usize = 10_000;

pub(super) struct Ndjson {
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    mapping: Mapping,
    points: Points,
    clock: Clockwork,
    /// What each field is, looked up once.
    targets: HashMap<String, Target>,
    /// The same of the fields of the nested object: they are points, whatever they are called.
    nested: HashMap<String, Target>,
}

#[derive(Debug, Clone)]
enum Target {
    Device,
    Time,
    Dropped,
    Nested,
    Point(Vec<u8>),
    /// Of a long file.
    PointName,
    Value,
    Quality,
}

impl Ndjson {
    pub(super) fn new(
        text: Box<dyn Read + Send>,
        mapping: Mapping,
        points: Points,
        clock: Clockwork,
    ) -> Self {
        let reader = BufReader::with_capacity(256 << 10, text);
        Self {
            reader,
            line: Vec::new(),
            mapping,
            points,
            clock,
            targets: HashMap::new(),
            nested: HashMap::new(),
        }
    }
}

impl Rows for Ndjson {
    fn next(&mut self, item: &mut Item) -> Result<Option<Row>, SourceError> {
        let row = match self.read_line()? {
            None => return Ok(None),
            Some(false) => {
                self.line.truncate(LINE_HEAD_BYTES);
                Row::Unreadable(format!("the line has more than {FILE_ROW_BYTES_MAX} bytes"))
            }
            Some(true) if self.line.trim_ascii().is_empty() => Row::Empty,
            Some(true) => self.row(item)?,
        };
        if matches!(row, Row::Unreadable(_)) {
            item.raw.clear();
            item.raw.extend_from_slice(self.line.trim_ascii_end());
        }
        Ok(Some(row))
    }

    fn notes(&self) -> Notes {
        self.clock.notes
    }
}

/// What the fields of an object say.
#[derive(Default)]
struct Said<'l> {
    device: Option<String>,
    time: Option<String>,
    values: Vec<(Vec<u8>, &'l RawValue)>,
    /// Of a long file: the point's name, its value and quality.
    long: [Option<&'l RawValue>; 3],
}

impl Ndjson {
    /// Reads a line; `false` where it is too long, and was read past. `None` at the end.
    fn read_line(&mut self) -> Result<Option<bool>, SourceError> {
        self.line.clear();
        let mut limited = self.reader.by_ref().take(FILE_ROW_BYTES_MAX);
        if limited.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if limited.limit() > 0 || self.line.ends_with(b"\n") {
            return Ok(Some(true));
        }
        // Piece by piece, so that no more than one is in memory.
        loop {
            let piece = self.reader.fill_buf()?;
            let end = piece.iter().position(|byte| *byte == b'\n');
            let count = end.map_or(piece.len(), |at| at + 1);
            self.reader.consume(count);
            if end.is_some() || count == 0 {
                return Ok(Some(false));
            }
        }
    }

    fn row(&mut self, item: &mut Item) -> Result<Row, SourceError> {
        let Self {
            line,
            mapping,
            points,
            clock,
            targets,
            nested,
            ..
        } = self;
        let fields: Fields<'_> = match serde_json::from_slice(line) {
            Ok(fields) => fields,
            Err(error) => return Ok(Row::Unreadable(format!("no JSON object: {error}"))),
        };
        let mut said = Said {
            device: mapping.device.clone(),
            ..Said::default()
        };
        for (name, raw) in &fields.0 {
            match target(targets, mapping, points, name, raw, false)? {
                Target::Device => said.device = serde_json::from_str(raw.get()).ok(),
                Target::Time => said.time = Some(text_of(raw)),
                Target::Dropped => {}
                Target::Point(key) => said.values.push((key.clone(), *raw)),
                Target::PointName => said.long[0] = Some(*raw),
                Target::Value => said.long[1] = Some(*raw),
                Target::Quality => said.long[2] = Some(*raw),
                Target::Nested => {
                    let values: Fields<'_> = match serde_json::from_str(raw.get()) {
                        Ok(values) => values,
                        Err(error) => return Ok(Row::Unreadable(error.to_string())),
                    };
                    for (name, raw) in values.0 {
                        let target = target(nested, mapping, points, &name, raw, true)?;
                        if let Target::Point(key) = target {
                            said.values.push((key.clone(), raw));
                        }
                    }
                }
            }
        }
        let Some(device) = said.device.as_ref().filter(|key| !key.is_empty()) else {
            let column = mapping.device_column();
            return Ok(Row::Unreadable(format!("{column:?} is no device key")));
        };
        let time_ms = match &said.time {
            _ if mapping.items() == Items::Attributes => None,
            None => {
                let column = mapping.time_column();
                return Ok(Row::Unreadable(format!("{column:?} is missing")));
            }
            Some(time) => match clock.read(time) {
                Ok(time_ms) => Some(time_ms),
                Err(error) => return spoiled(&error),
            },
        };
        item.begin(mapping.items(), device, time_ms);
        if mapping.is_long() {
            return Ok(long(mapping, said.long, item));
        }
        for (key, raw) in said.values {
            if !is_absent(mapping, raw) {
                item.value(&key, |out| out.extend_from_slice(raw.get().as_bytes()));
            }
        }
        Ok(item.end())
    }
}

fn is_absent(mapping: &Mapping, raw: &RawValue) -> bool {
    raw.get() == "null" || mapping.absent.iter().any(|absent| *absent == text_of(raw))
}

/// Adds the value of a long row, with its quality where there is one.
fn long(mapping: &Mapping, [name, value, quality]: [Option<&RawValue>; 3], item: &mut Item) -> Row {
    let name: Option<String> = name.and_then(|name| serde_json::from_str(name.get()).ok());
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let column = mapping.point_column();
        let noun = mapping.noun();
        return Row::Unreadable(format!("{column:?} names no {noun}"));
    };
    let value = value.filter(|value| !is_absent(mapping, value));
    if let (Some(point), Some(value)) = (mapping.point(&name), value) {
        let quality = quality.filter(|quality| !is_absent(mapping, quality));
        item.value(&mapping::key(point), |out| match quality {
            None => out.extend_from_slice(value.get().as_bytes()),
            Some(quality) => {
                let (value, quality) = (value.get(), whole_number(quality.get()));
                let whole = format!("{{\"value\":{value},\"quality\":{quality}}}");
                out.extend_from_slice(whole.as_bytes());
            }
        });
    }
    item.end()
}

/// What a field is. `inside` the nested object every field is a point.
fn target<'a>(
    targets: &'a mut HashMap<String, Target>,
    mapping: &Mapping,
    points: &Points,
    name: &str,
    raw: &RawValue,
    inside: bool,
) -> Result<&'a Target, SourceError> {
    if !targets.contains_key(name) {
        let point = |point: &str| -> Result<Target, SourceError> {
            points.form(point, name).map_err(SourceError::Usage)?;
            Ok(Target::Point(mapping::key(point)))
        };
        let is = |column: &str| !inside && mapping.is_long() && name == column;
        let target = match mapping.role(name) {
            _ if is(mapping.point_column()) => Target::PointName,
            _ if is(mapping.value_column()) => Target::Value,
            _ if is(mapping.quality_column()) => Target::Quality,
            Role::Dropped => Target::Dropped,
            _ if !inside && mapping.is_left_out(name) => Target::Dropped,
            Role::Point(renamed) => point(renamed)?,
            Role::PointOfItsName if !inside && name == NESTED && raw.get().starts_with('{') => {
                Target::Nested
            }
            Role::Device if !inside => Target::Device,
            Role::Time if !inside => Target::Time,
            Role::PointOfItsName if mapping.items() != Items::Points => {
                return Err(SourceError::Usage(format!(
                    "field {name:?} is none of a file of {}; leave it out with --drop {name:?}",
                    mapping.items().member()
                )));
            }
            Role::PointOfItsName | Role::Device | Role::Time => point(name)?,
        };
        // A model that takes any point may be sent any number of them.
        if targets.len() >= FIELDS_MAX {
            targets.clear();
        }
        targets.insert(name.to_owned(), target);
    }
    Ok(targets.get(name).expect("the field was just looked up"))
}

/// A string without its quotes; anything else as it is written.
fn text_of(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| moment::beginning(raw.get()))
}

/// The fields of an object in their order, values unparsed.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    fn read(text: &'static str) -> Result<Vec<String>, SourceError> {
        let text = Box::new(text.as_bytes());
        let mut rows = Ndjson::new(text, Mapping::default(), points(), Clockwork::default());
        read_all(&mut rows)
    }

    #[test]
    fn rows_of_query_and_items_of_params_read_the_same() {
        let wanted =
            r#"{"deviceKey":"R1","time":1388534400000,"measurepoints":{"P_avg":1.50,"label":"x"}}"#;
        let rows = read(concat!(
            r#"{"deviceKey":"R1","time":1388534400000,"P_avg":1.50,"label":"x"}"#,
            "\n",
            r#"{"deviceKey":"R1","time":"2014-01-01T01:00:00+01:00","measurepoints":{"P_avg":1.50,"label":"x"}}"#,
        ));
        assert_eq!(rows.unwrap(), [wanted, wanted]);
    }

    #[test]
    fn a_nested_point_may_have_the_name_of_the_time_or_the_device() {
        let line = r#"{"deviceKey":"R1","time":5,"measurepoints":{"time":7,"deviceKey":1,"P":1}}"#;
        let turned =
            r#"{"measurepoints":{"time":7,"deviceKey":1,"P":1},"deviceKey":"R1","time":5}"#;
        for text in [format!("{line}\n{turned}\n"), format!("{turned}\n{line}\n")] {
            let text = Box::new(std::io::Cursor::new(text));
            let (mapping, clock) = (Mapping::default(), Clockwork::default());
            let mut rows = Ndjson::new(text, mapping, Points::Unknown, clock);
            assert_eq!(read_all(&mut rows).unwrap(), [line, line]);
        }
    }

    #[test]
    fn null_is_absent_and_a_blank_line_is_empty() {
        let rows = read("{\"deviceKey\":\"R1\",\"time\":0,\"P_avg\":null}\n\n");
        assert_eq!(rows.unwrap(), ["-", "-"]);
    }

    #[test]
    fn a_line_that_is_no_row_says_why() {
        let rows =
            read("[1]\n{\"time\":0,\"P_avg\":1}\n{\"deviceKey\":\"R1\",\"P_avg\":1}\n").unwrap();
        assert!(rows[0].starts_with("!no JSON object"), "{}", rows[0]);
        assert_eq!(rows[1], "!\"deviceKey\" is no device key");
        assert_eq!(rows[2], "!\"time\" is missing");
    }

    #[test]
    fn a_field_that_is_no_point_ends_the_reading() {
        let error = read("{\"deviceKey\":\"R1\",\"time\":0,\"Px\":1}\n").unwrap_err();
        assert!(error.to_string().contains("Px"), "{error}");
    }

    #[test]
    fn a_long_object_has_one_point() {
        let long = Mapping {
            long: true,
            ..Mapping::default()
        };
        let text = "{\"deviceKey\":\"R1\",\"time\":0,\"point\":\"P_avg\",\"value\":1.50,\"quality\":3}\n\
                    {\"deviceKey\":\"R1\",\"time\":0,\"point\":\"label\",\"value\":null}\n\
                    {\"deviceKey\":\"R1\",\"time\":0,\"value\":1}\n";
        let mut rows = Ndjson::new(
            Box::new(text.as_bytes()),
            long,
            points(),
            Clockwork::default(),
        );
        assert_eq!(
            read_all(&mut rows).unwrap(),
            [
                r#"{"deviceKey":"R1","time":0,"measurepoints":{"P_avg":{"value":1.50,"quality":3}}}"#,
                "-",
                "!\"point\" names no point"
            ]
        );
    }

    #[test]
    fn events_and_attributes_have_a_line_each() {
        let read = |mapping: Mapping, text: &'static str| {
            let text = Box::new(text.as_bytes());
            let mut rows = Ndjson::new(text, mapping, points(), Clockwork::default());
            read_all(&mut rows)
        };
        let events = Mapping {
            events: true,
            ..Mapping::default()
        };
        assert_eq!(
            read(
                events.clone(),
                "{\"deviceKey\":\"R1\",\"time\":7,\"event\":\"leak\",\"output\":{\"n\":1},\"receipt\":\"r\"}\n\
                 {\"deviceKey\":\"R1\",\"time\":7,\"output\":{}}\n"
            )
            .unwrap(),
            [
                r#"{"deviceKey":"R1","time":7,"events":{"leak":{"n":1}}}"#,
                "!\"event\" names no event"
            ]
        );
        let error = read(events, "{\"deviceKey\":\"R1\",\"time\":7,\"why\":1}\n").unwrap_err();
        assert!(error.to_string().contains("\"why\""), "{error}");
        let attributes = Mapping {
            attributes: true,
            ..Mapping::default()
        };
        assert_eq!(
            read(
                attributes,
                "{\"deviceKey\":\"R1\",\"attribute\":\"label\",\"value\":\"\",\"confirmed\":1,\"time\":3}\n"
            )
            .unwrap(),
            [r#"{"deviceKey":"R1","attributes":{"label":""}}"#]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_read_past() {
        let size = usize::try_from(FILE_ROW_BYTES_MAX).unwrap();
        let line = format!("{{\"x\":\"{}\"}}\n", "y".repeat(2 * size));
        let text = line + "{\"deviceKey\":\"R1\",\"time\":0,\"P_avg\":1}\n";
        let mut rows = Ndjson::new(
            Box::new(std::io::Cursor::new(text.into_bytes())),
            Mapping::default(),
            points(),
            Clockwork::default(),
        );
        let rows = read_all(&mut rows).unwrap();
        assert!(
            rows[0].starts_with("!the line has more than"),
            "{}",
            rows[0]
        );
        assert_eq!(
            rows[1..],
            [r#"{"deviceKey":"R1","time":0,"measurepoints":{"P_avg":1}}"#]
        );
    }

    #[test]
    fn qualities_pass_as_they_are() {
        let rows = read(r#"{"deviceKey":"R1","time":0,"P_avg":{"value":1,"quality":3}}"#).unwrap();
        assert!(
            rows[0].ends_with(r#""P_avg":{"value":1,"quality":3}}}"#),
            "{}",
            rows[0]
        );
    }
}
