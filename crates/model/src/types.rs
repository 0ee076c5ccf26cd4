//! The data types of a thing model (`mqtt-channel.md` §7.2): how each is read from JSON text, and
//! what it is stored as.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Cell, ElementName};

/// Elements an array may hold (`mqtt-channel.md` §7.2).
pub(crate) const ARRAY_ITEMS_MAX: usize = 1024;
/// Bytes of a string where the model does not say (`mqtt-channel.md` §7.2).
pub(crate) const STRING_BYTES_DEFAULT: usize = 1024;

/// What a value is stored as. Several data types share a storage: an enum of numbers is an `Int`,
/// a timestamp a `Long`; dates, files, structs, arrays and maps are `Text`, the latter three as
/// canonical JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    Bool,
    Int,
    Long,
    Float,
    Double,
    Text,
}

impl Storage {
    pub fn of(cell: &Cell) -> Self {
        match cell {
            Cell::Bool(_) => Self::Bool,
            Cell::Int(_) => Self::Int,
            Cell::Long(_) => Self::Long,
            Cell::Float(_) => Self::Float,
            Cell::Double(_) => Self::Double,
            Cell::Text(_) => Self::Text,
        }
    }
}

/// The type of a point, an attribute, an event's output or a struct's member.
#[derive(Debug, Clone, PartialEq)]
pub enum DataType {
    /// 32-bit signed.
    Int,
    /// 64-bit signed; ours.
    Long,
    Float,
    Double,
    Bool,
    /// Allowed values with their texts.
    EnumInt(BTreeMap<i32, String>),
    EnumString(BTreeMap<String, String>),
    String {
        bytes_max: usize,
    },
    /// Milliseconds since 1970 UTC.
    Timestamp,
    /// `yyyy-MM-dd HH:mm:ss`.
    Date,
    /// ISO-8601 with offset.
    DateTime,
    Struct(BTreeMap<ElementName, Member>),
    Array {
        items: ItemType,
        items_max: usize,
    },
    /// A JSON object of any shape.
    Map,
    /// A URI.
    File,
}

/// The element type of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ItemType {
    Int,
    Long,
    Float,
    Double,
    String,
}

/// A member of a struct. Structs do not nest.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub data_type: DataType,
    pub required: bool,
}

impl DataType {
    /// The word in object files.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bool => "bool",
            Self::EnumInt(_) | Self::EnumString(_) => "enum",
            Self::String { .. } => "string",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::DateTime => "datetime",
            Self::Struct(_) => "struct",
            Self::Array { .. } => "array",
            Self::Map => "map",
            Self::File => "file",
        }
    }

    pub fn storage(&self) -> Storage {
        match self {
            Self::Int | Self::EnumInt(_) => Storage::Int,
            Self::Long | Self::Timestamp => Storage::Long,
            Self::Float => Storage::Float,
            Self::Double => Storage::Double,
            Self::Bool => Storage::Bool,
            Self::EnumString(_)
            | Self::String { .. }
            | Self::Date
            | Self::DateTime
            | Self::Struct(_)
            | Self::Array { .. }
            | Self::Map
            | Self::File => Storage::Text,
        }
    }

    /// A quality is for numbers only (`mqtt-channel.md` §7.2).
    pub fn may_have_quality(&self) -> bool {
        matches!(self, Self::Int | Self::Long | Self::Float | Self::Double)
    }

    /// Reads a value from valid JSON text.
    ///
    /// # Errors
    /// What is wrong and what is expected, without the place: the caller knows that.
    pub fn read(&self, json: &str) -> Result<Cell, String> {
        match self {
            Self::Int => Ok(Cell::Int(integer_i32(json)?)),
            Self::Long => Ok(Cell::Long(integer(json)?)),
            Self::Float => float(json).map(Cell::Float),
            Self::Double => double(json).map(Cell::Double),
            Self::Bool => boolean(json).map(Cell::Bool),
            Self::EnumInt(values) => {
                let value = integer_i32(json)?;
                if values.contains_key(&value) {
                    return Ok(Cell::Int(value));
                }
                Err(format!("{value} is not one of {}", listed(values.keys())))
            }
            Self::EnumString(values) => {
                let value = string(json)?;
                if values.contains_key(value.as_ref()) {
                    return Ok(Cell::Text(value.into()));
                }
                Err(format!(
                    "{} is not one of {}",
                    quoted(&value),
                    listed(values.keys())
                ))
            }
            Self::String { bytes_max } => bounded_string(json, *bytes_max),
            Self::File => bounded_string(json, STRING_BYTES_DEFAULT),
            Self::Timestamp => milliseconds(json).map(Cell::Long),
            Self::Date => {
                let text = string(json)?;
                jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text.as_ref())
                    .map_err(|_| format!("{} is not a date yyyy-MM-dd HH:mm:ss", quoted(&text)))?;
                Ok(Cell::Text(text.into()))
            }
            Self::DateTime => {
                let text = string(json)?;
                text.parse::<jiff::Timestamp>().map_err(|_| {
                    format!("{} is not an ISO-8601 time with offset", quoted(&text))
                })?;
                Ok(Cell::Text(text.into()))
            }
            Self::Struct(members) => read_struct(members, json),
            Self::Array { items, items_max } => read_array(*items, *items_max, json),
            Self::Map => {
                expect_object(json)?;
                canonical(json).map(Cell::Text)
            }
        }
    }
}

/// Reads a point that the model does not declare, where the model lets such pass.
pub(crate) fn read_undeclared(json: &str) -> Result<Cell, String> {
    read_undeclared_text(json).map(Cell::Text)
}

/// The canonical JSON of a value that the model does not declare.
pub(crate) fn read_undeclared_text(json: &str) -> Result<Box<str>, String> {
    if json == "null" {
        return Err("null is not a value; leave it out".to_owned());
    }
    canonical(json)
}

/// The canonical JSON of a value of `data_type`: equal values are equal text.
pub(crate) fn canonical_text(data_type: &DataType, json: &str) -> Result<Box<str>, String> {
    Ok(json_text(&data_type.read(json)?, data_type).into())
}

/// A JSON object of members whose values are JSON already.
pub(crate) fn object_text(members: &BTreeMap<Cow<'_, str>, Box<str>>) -> Box<str> {
    let mut text = String::from("{");
    for (name, value) in members {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&json_string(name));
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
    text.into()
}

/// The fields of a JSON object in order, each as its raw text without blanks around it. `None` where
/// `json` does not begin as an object.
pub(crate) fn each_field<'a>(
    json: &'a str,
    visit: impl FnMut(Cow<'a, str>, &'a str),
) -> Option<Result<(), serde_json::Error>> {
    if !json.starts_with('{') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let fields = serde::Deserializer::deserialize_map(&mut deserializer, FieldVisitor { visit });
    Some(fields.and_then(|()| deserializer.end()))
}

struct FieldVisitor<F> {
    visit: F,
}

impl<'a, F: FnMut(Cow<'a, str>, &'a str)> serde::de::Visitor<'a> for FieldVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: serde::de::MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(FieldName(name)) = map.next_key()? {
            let value: &'a RawValue = map.next_value()?;
            (self.visit)(name, value.get());
        }
        Ok(())
    }
}

/// A field name, borrowed unless it is escaped.
struct FieldName<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for FieldName<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> serde::de::Visitor<'de> for V {
            type Value = FieldName<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(FieldName(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(FieldName(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(V)
    }
}

/// A JSON string, borrowed unless it is escaped.
pub(crate) fn string(json: &str) -> Result<Cow<'_, str>, String> {
    if !json.starts_with('"') {
        return Err(format!("{} is not a string", shown(json)));
    }
    serde_json::from_str::<FieldName<'_>>(json)
        .map(|FieldName(text)| text)
        .map_err(|error| format!("{} is not a valid string: {error}", shown(json)))
}

/// A time in milliseconds: an integer, a string of digits, or a float without a fraction
/// (`decisions.md` §4).
pub(crate) fn milliseconds(json: &str) -> Result<i64, String> {
    let reading = if json.starts_with('"') {
        let text = string(json)?;
        let digits = text.strip_prefix('-').unwrap_or(&text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            Err(String::new())
        } else {
            text.parse().map_err(|_| String::new())
        }
    } else {
        integer(json)
    };
    reading.map_err(|_| {
        format!(
            "{} is not a time; send milliseconds since 1970-01-01 UTC",
            shown(json)
        )
    })
}

fn is_number(json: &str) -> bool {
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// An integer, also where it is written with an exponent or a zero fraction.
fn integer(json: &str) -> Result<i64, String> {
    if let Ok(value) = json.parse::<i64>() {
        return Ok(value);
    }
    let value = double(json)?;
    if value.fract() != 0.0 {
        return Err(format!(
            "{} has a fraction; an integer is expected",
            shown(json)
        ));
    }
    // 2^53: beyond it a float does not name one integer.
    if value.abs() > 9_007_199_254_740_992.0 {
        return Err(format!(
            "{} is out of the range of a 64-bit integer",
            shown(json)
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer below 2^53, checked above"
    )]
    Ok(value as i64)
}

fn integer_i32(json: &str) -> Result<i32, String> {
    i32::try_from(integer(json)?)
        .map_err(|_| format!("{} is out of the range of a 32-bit integer", shown(json)))
}

fn double(json: &str) -> Result<f64, String> {
    if !is_number(json) {
        return Err(format!("{} is not a number", shown(json)));
    }
    match json.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("{} is out of the range of a double", shown(json))),
    }
}

fn float(json: &str) -> Result<f32, String> {
    if !is_number(json) {
        return Err(format!("{} is not a number", shown(json)));
    }
    match json.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("{} is out of the range of a float", shown(json))),
    }
}

fn boolean(json: &str) -> Result<bool, String> {
    match json {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!(
            "{} is not a bool; send true, false, 1 or 0",
            shown(other)
        )),
    }
}

fn bounded_string(json: &str, bytes_max: usize) -> Result<Cell, String> {
    let text = string(json)?;
    if text.len() > bytes_max {
        return Err(format!(
            "the string has {} bytes, at most {bytes_max} are allowed",
            text.len()
        ));
    }
    Ok(Cell::Text(text.into()))
}

fn expect_object(json: &str) -> Result<(), String> {
    if json.starts_with('{') {
        return Ok(());
    }
    Err(format!("{} is not an object", shown(json)))
}

/// JSON text with sorted keys and no blanks, so that equal values are equal text.
fn canonical(json: &str) -> Result<Box<str>, String> {
    let value: serde_json::Value =
        serde_json::from_str(json).map_err(|error| format!("{}: {error}", shown(json)))?;
    Ok(value.to_string().into())
}

fn read_struct(members: &BTreeMap<ElementName, Member>, json: &str) -> Result<Cell, String> {
    let mut given: BTreeMap<Cow<'_, str>, &str> = BTreeMap::new();
    match each_field(json, |name, value| {
        given.insert(name, value);
    }) {
        None => return Err(format!("{} is not an object", shown(json))),
        Some(Err(error)) => return Err(error.to_string()),
        Some(Ok(())) => {}
    }
    if let Some(unknown) = given
        .keys()
        .find(|name| !members.contains_key(name.as_ref()))
    {
        return Err(format!(
            "member {} is not in the model; known are {}",
            quoted(unknown),
            listed(members.keys())
        ));
    }
    let mut text = String::from("{");
    for (name, member) in members {
        let Some(value) = given.get(name.as_str()) else {
            if member.required {
                return Err(format!("member {name} is required and absent"));
            }
            continue;
        };
        let cell = member
            .data_type
            .read(value)
            .map_err(|why| format!("member {name}: {why}"))?;
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&json_string(name.as_str()));
        text.push(':');
        text.push_str(&json_text(&cell, &member.data_type));
    }
    text.push('}');
    Ok(Cell::Text(text.into()))
}

fn read_array(items: ItemType, items_max: usize, json: &str) -> Result<Cell, String> {
    if !json.starts_with('[') {
        return Err(format!("{} is not an array", shown(json)));
    }
    let raw: Vec<&RawValue> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if raw.len() > items_max {
        return Err(format!(
            "the array has {} items, at most {items_max} fit",
            raw.len()
        ));
    }
    let item_type = match items {
        ItemType::Int => DataType::Int,
        ItemType::Long => DataType::Long,
        ItemType::Float => DataType::Float,
        ItemType::Double => DataType::Double,
        ItemType::String => DataType::String {
            bytes_max: STRING_BYTES_DEFAULT,
        },
    };
    let mut text = String::from("[");
    for (index, value) in raw.iter().enumerate() {
        let value = value.get();
        // Decimal strings stand for numbers here: the vendor's own sample does so (§10, 9).
        let unquoted = match items {
            ItemType::String => Cow::Borrowed(value),
            _ if value.starts_with('"') => string(value)?,
            _ => Cow::Borrowed(value),
        };
        let cell = item_type
            .read(&unquoted)
            .map_err(|why| format!("item {index}: {why}"))?;
        if index > 0 {
            text.push(',');
        }
        text.push_str(&json_text(&cell, &item_type));
    }
    text.push(']');
    Ok(Cell::Text(text.into()))
}

/// The canonical JSON text of a cell read as `data_type`.
fn json_text(cell: &Cell, data_type: &DataType) -> String {
    match cell {
        Cell::Bool(value) => value.to_string(),
        Cell::Int(value) => value.to_string(),
        Cell::Long(value) => value.to_string(),
        // The shortest text that reads back the same.
        Cell::Float(value) => shortest(value),
        Cell::Double(value) => shortest(value),
        Cell::Text(text) => match data_type {
            DataType::Struct(_) | DataType::Array { .. } | DataType::Map => text.to_string(),
            _ => json_string(text),
        },
    }
}

fn shortest(number: &impl Serialize) -> String {
    serde_json::to_string(number).expect("a number is JSON")
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// Enough of a text to recognise it by.
fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(64).collect();
    match shown.len() == text.len() {
        true => json_string(text),
        false => format!("{}…", json_string(&shown)),
    }
}

/// Enough of a JSON text to recognise it by.
pub(crate) fn shown(json: &str) -> Cow<'_, str> {
    match json.char_indices().nth(48) {
        None => Cow::Borrowed(json),
        Some((end, _)) => Cow::Owned(format!("{}…", json.get(..end).unwrap_or_default())),
    }
}

fn listed<T: std::fmt::Display>(names: impl Iterator<Item = T>) -> String {
    const NAMES_MAX: usize = 12;
    let mut text = String::new();
    for (index, name) in names.enumerate() {
        if index == NAMES_MAX {
            text.push_str(", …");
            break;
        }
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&name.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &str) -> Cell {
        Cell::Text(value.into())
    }

    #[test]
    fn each_type_reads_its_own_spellings_and_refuses_the_rest() {
        let int_enum = DataType::EnumInt([(0, "off".into()), (1, "on".into())].into());
        let word_enum = DataType::EnumString([("AUTO".into(), String::new())].into());
        let short = DataType::String { bytes_max: 4 };
        let array = DataType::Array {
            items: ItemType::Double,
            items_max: 3,
        };
        let good: Vec<(&DataType, &str, Cell)> = vec![
            (&DataType::Int, "-2147483648", Cell::Int(i32::MIN)),
            (&DataType::Int, "5.0", Cell::Int(5)),
            (&DataType::Int, "5e2", Cell::Int(500)),
            (&DataType::Long, "9223372036854775807", Cell::Long(i64::MAX)),
            (&DataType::Float, "1.5", Cell::Float(1.5)),
            (
                &DataType::Double,
                "7.119999900000001",
                Cell::Double(7.119_999_900_000_001),
            ),
            (&DataType::Double, "3", Cell::Double(3.0)),
            (&DataType::Bool, "1", Cell::Bool(true)),
            (&DataType::Bool, "false", Cell::Bool(false)),
            (&int_enum, "1", Cell::Int(1)),
            (&word_enum, "\"AUTO\"", text("AUTO")),
            (&short, "\"\\u0061bcd\"", text("abcd")),
            (
                &DataType::Timestamp,
                "\"1700000000000\"",
                Cell::Long(1_700_000_000_000),
            ),
            (
                &DataType::Date,
                "\"2014-03-30 02:30:00\"",
                text("2014-03-30 02:30:00"),
            ),
            (
                &DataType::DateTime,
                "\"2014-03-30T02:30:00Z\"",
                text("2014-03-30T02:30:00Z"),
            ),
            (&array, "[1, \"2.5\",3e0]", text("[1.0,2.5,3.0]")),
            (
                &DataType::Map,
                "{\"b\": 1, \"a\": [ ]}",
                text("{\"a\":[],\"b\":1}"),
            ),
            (&DataType::File, "\"local://x\"", text("local://x")),
        ];
        for (data_type, json, cell) in good {
            assert_eq!(data_type.read(json), Ok(cell), "{data_type:?} from {json}");
        }
        let bad: Vec<(&DataType, &str)> = vec![
            (&DataType::Int, "2147483648"),
            (&DataType::Int, "1.5"),
            (&DataType::Int, "\"1\""),
            (&DataType::Int, "null"),
            (&DataType::Long, "9223372036854775808"),
            (&DataType::Float, "1e39"),
            (&DataType::Double, "1e400"),
            (&DataType::Double, "\"1.0\""),
            (&DataType::Double, "{\"value\":1}"),
            (&DataType::Bool, "2"),
            (&DataType::Bool, "\"true\""),
            (&int_enum, "2"),
            (&word_enum, "\"auto\""),
            (&short, "\"abcde\""),
            (&DataType::Timestamp, "1.5"),
            (&DataType::Date, "\"2014-02-30 00:00:00\""),
            (&DataType::DateTime, "\"2014-02-28 00:00:00\""),
            (&array, "[1,2,3,4]"),
            (&array, "[true]"),
            (&DataType::Map, "[1]"),
        ];
        for (data_type, json) in bad {
            assert!(data_type.read(json).is_err(), "{data_type:?} took {json}");
        }
    }

    #[test]
    fn a_struct_wants_its_required_members_and_no_others() {
        let member = |data_type, required| Member {
            data_type,
            required,
        };
        let name = |text| ElementName::new(text).unwrap();
        let position = DataType::Struct(
            [
                (name("x"), member(DataType::Int, true)),
                (
                    name("note"),
                    member(DataType::String { bytes_max: 10 }, false),
                ),
            ]
            .into(),
        );
        assert_eq!(
            position.read("{\"x\": 1,\"note\":\"a\\\"b\"}"),
            Ok(text("{\"note\":\"a\\\"b\",\"x\":1}"))
        );
        assert!(
            position
                .read("{\"note\":\"a\"}")
                .unwrap_err()
                .contains("x is required")
        );
        assert!(
            position
                .read("{\"x\":1,\"y\":2}")
                .unwrap_err()
                .contains("known are note, x")
        );
        assert!(
            position
                .read("{\"x\":1.5}")
                .unwrap_err()
                .starts_with("member x: 1.5")
        );
    }

    #[test]
    fn a_long_text_stays_whole_inside_a_struct_and_an_array() {
        let long = "é".repeat(200);
        let string = DataType::String { bytes_max: 1000 };
        let name = ElementName::new("note").unwrap();
        let member = Member {
            data_type: string.clone(),
            required: false,
        };
        let note = DataType::Struct([(name, member)].into());
        let list = DataType::Array {
            items: ItemType::String,
            items_max: 2,
        };
        let given = format!("{{\"note\":\"{long}\"}}");
        assert_eq!(note.read(&given), Ok(text(&given)));
        let given = format!("[\"{long}\"]");
        assert_eq!(list.read(&given), Ok(text(&given)));
        assert_eq!(
            canonical_text(&string, &format!("\"{long}\""))
                .unwrap()
                .len(),
            402
        );
    }

    #[test]
    fn a_float_is_written_as_short_as_it_reads_back() {
        let text = |data_type: &DataType, json| canonical_text(data_type, json).unwrap();
        assert_eq!(text(&DataType::Float, "0.10").as_ref(), "0.1");
        assert_eq!(text(&DataType::Double, "4").as_ref(), "4.0");
        assert_eq!(text(&DataType::Bool, "1").as_ref(), "true");
    }

    #[test]
    fn a_fault_quotes_only_the_beginning_of_a_long_value() {
        let long = format!("\"{}\"", "é".repeat(1000));
        assert!(DataType::Int.read(&long).unwrap_err().chars().count() < 100);
    }

    proptest! {
        #[test]
        fn a_double_reads_back_to_the_bit(value in proptest::num::f64::NORMAL | proptest::num::f64::ZERO | proptest::num::f64::SUBNORMAL) {
            let json = serde_json::to_string(&value).unwrap();
            let Ok(Cell::Double(read)) = DataType::Double.read(&json) else { panic!("{json}") };
            prop_assert_eq!(read.to_bits(), value.to_bits());
        }

        #[test]
        fn any_valid_json_is_read_or_refused_without_panic(json in "[\\[{\"a-c0-9.:,eE+\\]}-]{1,24}") {
            if serde_json::from_str::<&RawValue>(&json).is_ok() {
                for data_type in [DataType::Int, DataType::Double, DataType::Timestamp, DataType::Map,
                    DataType::Date, DataType::Array { items: ItemType::Long, items_max: 4 }] {
                    drop(data_type.read(json.trim()));
                }
            }
        }
    }
}
