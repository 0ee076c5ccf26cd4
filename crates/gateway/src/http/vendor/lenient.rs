//! Messages as the vendor's samples write them: JSON with single quotes, names and ids without any,
//! and Python's constants. Made strict before anything reads it; numbers keep their digits. Pure.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::limits::VENDOR_JSON_DEPTH_MAX;

/// Where a text is neither, counted in characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not JSON, not even leniently read: {what} at character {at}")]
pub(super) struct LenientError {
    what: &'static str,
    at: usize,
}

/// The same as strict JSON. Its length is bounded by six times that of the text.
pub(super) fn strict(text: &str) -> Result<Cow<'_, str>, LenientError> {
    if serde_json::from_str::<&RawValue>(text).is_ok() {
        return Ok(Cow::Borrowed(text));
    }
    let mut reader = Reader {
        chars: text.char_indices().peekable(),
        text,
        out: String::with_capacity(text.len() + text.len() / 8),
        at: 0,
    };
    reader.value(0)?;
    reader.blanks();
    match reader.chars.peek() {
        None => Ok(Cow::Owned(reader.out)),
        Some(_) => Err(reader.fault("something behind the end")),
    }
}

struct Reader<'t> {
    chars: std::iter::Peekable<std::str::CharIndices<'t>>,
    text: &'t str,
    out: String,
    /// Characters read.
    at: usize,
}

impl Reader<'_> {
    fn fault(&self, what: &'static str) -> LenientError {
        let at = self.at + 1;
        LenientError { what, at }
    }

    fn next(&mut self) -> Option<char> {
        self.at += 1;
        self.chars.next().map(|(_, char)| char)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, char)| *char)
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), LenientError> {
        if depth > VENDOR_JSON_DEPTH_MAX {
            return Err(self.fault("it nests too deep"));
        }
        self.blanks();
        match self.peek() {
            Some('{') => self.list(depth, '{', '}'),
            Some('[') => self.list(depth, '[', ']'),
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            Some(_) => self.bare(false),
            None => Err(self.fault("it ends too early")),
        }
    }

    /// An object or an array; a comma before its end is let pass.
    fn list(&mut self, depth: usize, open: char, close: char) -> Result<(), LenientError> {
        self.next();
        self.out.push(open);
        let mut is_first = true;
        loop {
            self.blanks();
            if self.peek() == Some(close) {
                self.next();
                self.out.push(close);
                return Ok(());
            }
            if !is_first {
                self.out.push(',');
            }
            is_first = false;
            if open == '{' {
                self.name()?;
            }
            self.value(depth + 1)?;
            self.blanks();
            match self.peek() {
                Some(',') => {
                    self.next();
                }
                Some(end) if end == close => {}
                Some(_) => return Err(self.fault("a comma is missing")),
                None => return Err(self.fault("it ends too early")),
            }
        }
    }

    fn name(&mut self) -> Result<(), LenientError> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => self.bare(true)?,
        }
        self.blanks();
        if self.next() != Some(':') {
            return Err(self.fault("a colon is missing"));
        }
        self.out.push(':');
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<(), LenientError> {
        self.next();
        self.out.push('"');
        loop {
            match self.next() {
                None => return Err(self.fault("a text does not end")),
                Some(end) if end == quote => break,
                Some('"') => self.out.push_str("\\\""),
                Some('\\') => match self.next() {
                    // No escape of strict JSON.
                    Some('\'') => self.out.push('\''),
                    Some(escaped) => self.out.extend(['\\', escaped]),
                    None => return Err(self.fault("a text does not end")),
                },
                Some(control) if control.is_control() => {
                    self.out.push_str(&format!("\\u{:04x}", u32::from(control)));
                }
                Some(char) => self.out.push(char),
            }
        }
        self.out.push('"');
        Ok(())
    }

    /// A word without quotes: a number or constant stays, anything else is a text.
    fn bare(&mut self, is_name: bool) -> Result<(), LenientError> {
        let from = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        while self
            .peek()
            .is_some_and(|char| !char.is_whitespace() && !",:{}[]\"'".contains(char))
        {
            self.next();
        }
        let to = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        let word = self.text.get(from..to).unwrap_or_default();
        if word.is_empty() {
            return Err(self.fault("a value is missing"));
        }
        let is_scalar = !is_name && serde_json::from_str::<&RawValue>(word).is_ok();
        match word {
            "True" if !is_name => self.out.push_str("true"),
            "False" if !is_name => self.out.push_str("false"),
            "None" if !is_name => self.out.push_str("null"),
            word if is_scalar => self.out.push_str(word),
            word => {
                let text = serde_json::to_string(word).expect("texts are JSON");
                self.out.push_str(&text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Value {
        serde_json::from_str(&strict(text).unwrap()).unwrap()
    }

    #[test]
    fn the_samples_of_the_vendor_are_read() {
        let message = "{'method': 'integration.measurepoint.post', 'version': '1.1', 'params': \
            [{'assetId':G5M8Ojhd, 'time':1646000000000, 'measurepoints': {'Int_Output':1000}}]}";
        assert_eq!(
            read(message),
            json!({ "method": "integration.measurepoint.post", "version": "1.1", "params":
                [{ "assetId": "G5M8Ojhd", "time": 1_646_000_000_000_i64, "measurepoints": { "Int_Output": 1000 } }] })
        );
        assert_eq!(
            read("{id: 'it\\'s \"x\"', on: True, off: None, list: [1.50, -2e3, a-b,],}"),
            json!({ "id": "it's \"x\"", "on": true, "off": null, "list": [1.5, -2000.0, "a-b"] })
        );
        assert!(
            strict("{a: 1.10000000000000000001}")
                .unwrap()
                .contains("1.10000000000000000001")
        );
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_place() {
        for (text, at) in [
            ("", 1),
            ("{", 2),
            ("{a 1}", 5),
            ("[1 2]", 4),
            ("'x", 4),
            ("{}x", 3),
        ] {
            assert_eq!(strict(text).unwrap_err().at, at, "{text}");
        }
        assert!(
            strict(&"[".repeat(100))
                .unwrap_err()
                .to_string()
                .contains("too deep")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_is_json(text in "[\\[\\]{}:,'\"a-c1-3 .\\\\é-]{0,40}") {
            if let Ok(read) = strict(&text) {
                // An escape that JSON has not is left for the strict reader to refuse.
                let is_json = serde_json::from_str::<Value>(&read).is_ok();
                prop_assert!(is_json || text.contains('\\'), "{read}");
            }
        }

        #[test]
        fn strict_json_stays_as_it_is(number: f64, text in ".*") {
            let json = json!({ "a": [number, text] }).to_string();
            prop_assert_eq!(strict(&json).unwrap(), json.as_str());
        }
    }
}
