//! The text of a cell as a JSON value, without rounding: a number stays as it was written.

use backtide_model::DataType;

/// How a point's text is written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Number,
    Bool,
    /// Quoted, whatever it looks like.
    Text,
    /// Structs, arrays, maps: the text is JSON already.
    Json,
    /// The model does not declare the point, or there is no model to ask.
    Guess,
}

impl Form {
    /// The form of a data type of the model (`mqtt-channel.md` §7.2), from its declaration.
    pub fn of(declared: &serde_json::Value) -> Self {
        match declared["type"].as_str().unwrap_or_default() {
            "int" | "long" | "float" | "double" | "timestamp" => Self::Number,
            "bool" => Self::Bool,
            "enum" if has_numbers_only(&declared["values"]) => Self::Number,
            "struct" | "array" | "map" => Self::Json,
            _ => Self::Text,
        }
    }
}

impl Form {
    /// The same, of a data type that was read.
    pub fn of_type(data_type: &DataType) -> Self {
        match data_type {
            DataType::Int
            | DataType::Long
            | DataType::Float
            | DataType::Double
            | DataType::EnumInt(_)
            | DataType::Timestamp => Self::Number,
            DataType::Bool => Self::Bool,
            DataType::Struct(_) | DataType::Array { .. } | DataType::Map => Self::Json,
            DataType::EnumString(_)
            | DataType::String { .. }
            | DataType::Date
            | DataType::DateTime
            | DataType::File => Self::Text,
        }
    }
}

fn has_numbers_only(values: &serde_json::Value) -> bool {
    let integer = |text: &str| text.parse::<i64>().is_ok();
    match values {
        serde_json::Value::Object(map) => map.keys().all(|key| integer(key)),
        serde_json::Value::Array(list) => list.iter().all(serde_json::Value::is_i64),
        _ => false,
    }
}

/// Appends the value of a cell. What does not fit its form goes as a string, so that the gateway
/// refuses it and says why; nothing is dropped or mended here.
pub fn write(out: &mut Vec<u8>, form: Form, text: &str) {
    let text = if form == Form::Text {
        text
    } else {
        text.trim()
    };
    match form {
        Form::Number if is_json_number(text) => out.extend_from_slice(text.as_bytes()),
        Form::Number => match plain_number(text) {
            Some(number) => out.extend_from_slice(number.as_bytes()),
            None => quote(out, text),
        },
        Form::Bool => match text.to_ascii_lowercase().as_str() {
            known @ ("true" | "false" | "0" | "1") => out.extend_from_slice(known.as_bytes()),
            _ => quote(out, text),
        },
        Form::Text => quote(out, text),
        Form::Json => match serde_json::from_str::<&serde_json::value::RawValue>(text) {
            Ok(_) => out.extend_from_slice(text.as_bytes()),
            Err(_) => quote(out, text),
        },
        Form::Guess if is_json_number(text) || matches!(text, "true" | "false") => {
            out.extend_from_slice(text.as_bytes());
        }
        Form::Guess => quote(out, text),
    }
}

pub fn quote(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes every write");
}

/// The grammar of RFC 8259 §6.
fn is_json_number(text: &str) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = text.as_bytes();
    rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent
            .strip_prefix(b"-")
            .or(exponent.strip_prefix(b"+"))
            .unwrap_or(exponent);
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

/// The JSON spelling of `+1.5`, `.5`, `1.` and `007`: the same number, other characters.
fn plain_number(text: &str) -> Option<String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(['e', 'E']).unwrap_or(rest.len());
    let (mantissa, exponent) = rest.split_at(end);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    let plain = format!("{sign}{whole}{point}{fraction}{exponent}");
    is_json_number(&plain).then_some(plain)
}

/// How an integer stands in JSON: tables without missing integers write 3.0.
pub(super) fn whole_number(text: &str) -> &str {
    text.strip_suffix(".0").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written(form: Form, text: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, form, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_stay_as_they_were_written() {
        for text in [
            "7.119999900000001",
            "-0",
            "1e400",
            "642.780030000",
            "9007199254740993",
            "0.10",
        ] {
            assert_eq!(written(Form::Number, text), text);
        }
    }

    #[test]
    fn other_spellings_of_a_number_become_json() {
        for (text, number) in [
            ("+1.5", "1.5"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("1.", "1"),
            ("007", "7"),
            (" 3 ", "3"),
        ] {
            assert_eq!(written(Form::Number, text), number);
        }
    }

    #[test]
    fn what_does_not_fit_is_sent_as_a_string_for_the_gateway_to_refuse() {
        assert_eq!(written(Form::Number, "n/a"), r#""n/a""#);
        assert_eq!(written(Form::Number, "1,5"), r#""1,5""#);
        assert_eq!(written(Form::Number, "."), r#"".""#);
        assert_eq!(written(Form::Bool, "yes"), r#""yes""#);
        assert_eq!(written(Form::Json, "[1,"), r#""[1,""#);
    }

    #[test]
    fn texts_are_quoted_even_when_they_look_like_numbers() {
        assert_eq!(written(Form::Text, "007"), r#""007""#);
        assert_eq!(written(Form::Text, "a\"b"), r#""a\"b""#);
        assert_eq!(written(Form::Guess, "007"), r#""007""#);
        assert_eq!(written(Form::Guess, "7"), "7");
    }

    #[test]
    fn the_form_follows_the_declared_type() {
        assert_eq!(Form::of(&json!({"type": "double"})), Form::Number);
        assert_eq!(
            Form::of(&json!({"type": "enum", "values": {"0": "off"}})),
            Form::Number
        );
        assert_eq!(
            Form::of(&json!({"type": "enum", "values": {"A": "on"}})),
            Form::Text
        );
        assert_eq!(
            Form::of(&json!({"type": "array", "items": "int"})),
            Form::Json
        );
        assert_eq!(Form::of(&json!({"type": "date"})), Form::Text);
    }

    proptest! {
        #[test]
        fn every_number_that_serde_reads_passes_and_no_other(text in "[-+0-9.eE]{1,8}") {
            let read = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(is_json_number(&text), read);
        }

        #[test]
        fn whatever_is_written_is_json(text in "\\PC{0,20}") {
            for form in [Form::Number, Form::Bool, Form::Text, Form::Json, Form::Guess] {
                let out = written(form, &text);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
            }
        }
    }
}
