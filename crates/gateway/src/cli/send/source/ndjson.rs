//! A JSON object a line: rows as `query` prints them, or items of `params`.

use std::{
    collections::HashMap,
    fmt,
    io::{BufRead, BufReader, Read},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Item, Row, Rows, SourceError, spoiled};
use crate::cli::send::{
    mapping::{self, Mapping, Points, Role},
    moment::{self, Clockwork, Notes},
};

/// In an item of `params` the points stand in an object of this name.
const NESTED: &str = "measurepoints";
/// A longer line is no row.
const LINE_BYTES_MAX: u64 = 4 << 20;

pub(super) struct Ndjson {
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    mapping: Mapping,
    points: Points,
    clock: Clockwork,
    /// What each field is, looked up once.
    targets: HashMap<String, Target>,
}

#[derive(Debug, Clone)]
enum Target {
    Device,
    Time,
    Dropped,
    Nested,
    Point(Vec<u8>),
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
        }
    }
}

impl Rows for Ndjson {
    fn next(&mut self, item: &mut Item) -> Result<Option<Row>, SourceError> {
        self.line.clear();
        let count = self
            .reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut self.line)?;
        if count == 0 {
            return Ok(None);
        }
        if self.line.trim_ascii().is_empty() {
            return Ok(Some(Row::Empty));
        }
        let Self {
            line,
            mapping,
            points,
            clock,
            targets,
            ..
        } = self;
        let fields: Fields<'_> = match serde_json::from_slice(line) {
            Ok(fields) => fields,
            Err(error) => return Ok(Some(Row::Unreadable(format!("no JSON object: {error}")))),
        };
        let mut device = mapping.device.clone();
        let mut time = None;
        let mut values = Vec::with_capacity(fields.0.len());
        for (name, raw) in &fields.0 {
            match target(targets, mapping, points, name, raw, false)? {
                Target::Device => device = serde_json::from_str(raw.get()).ok(),
                Target::Time => time = Some(text_of(raw)),
                Target::Dropped => {}
                Target::Point(key) => values.push((key.clone(), *raw)),
                Target::Nested => {
                    let nested: Fields<'_> = match serde_json::from_str(raw.get()) {
                        Ok(nested) => nested,
                        Err(error) => return Ok(Some(Row::Unreadable(error.to_string()))),
                    };
                    for (name, raw) in nested.0 {
                        if let Target::Point(key) =
                            target(targets, mapping, points, &name, raw, true)?
                        {
                            values.push((key.clone(), raw));
                        }
                    }
                }
            }
        }
        let Some(device) = device.filter(|key| !key.is_empty()) else {
            let column = mapping.device_column();
            return Ok(Some(Row::Unreadable(format!(
                "{column:?} is no device key"
            ))));
        };
        let Some(time) = time else {
            return Ok(Some(Row::Unreadable(format!(
                "{:?} is missing",
                mapping.time_column()
            ))));
        };
        let time_ms = match clock.read(&time) {
            Ok(time_ms) => time_ms,
            Err(error) => return spoiled(&error),
        };
        item.begin(&device, time_ms);
        for (key, raw) in values {
            let text = raw.get();
            if text != "null" && !mapping.absent.iter().any(|absent| *absent == text_of(raw)) {
                item.value(&key, |out| out.extend_from_slice(text.as_bytes()));
            }
        }
        Ok(Some(item.end()))
    }

    fn notes(&self) -> Notes {
        self.clock.notes
    }
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
        let target = match mapping.role(name) {
            Role::Dropped => Target::Dropped,
            Role::Point(renamed) => point(renamed)?,
            Role::PointOfItsName if !inside && name == NESTED && raw.get().starts_with('{') => {
                Target::Nested
            }
            Role::Device if !inside => Target::Device,
            Role::Time if !inside => Target::Time,
            Role::PointOfItsName | Role::Device | Role::Time => point(name)?,
        };
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
    fn qualities_pass_as_they_are() {
        let rows = read(r#"{"deviceKey":"R1","time":0,"P_avg":{"value":1,"quality":3}}"#).unwrap();
        assert!(
            rows[0].ends_with(r#""P_avg":{"value":1,"quality":3}}}"#),
            "{}",
            rows[0]
        );
    }
}
