//! Texts with places in braces, such as `MEASURE_POINT_ORIGIN_OFFLINE_{org}`, filled in for a row.

/// What a place may name.
pub const PLACES: [&str; 10] = [
    "org",
    "rule",
    "channel",
    "productKey",
    "modelId",
    "assetId",
    "deviceKey",
    "event",
    "time",
    "receipt",
];

/// A text with places, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Place(&'static str),
}

impl Template {
    /// `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// What is wrong, and which places there are.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '{' if chars.next_if_eq(&'{').is_some() => literal.push('{'),
                '}' if chars.next_if_eq(&'}').is_some() => literal.push('}'),
                '}' => {
                    return Err(format!(
                        "{text:?} has a brace that was not opened; write }}}}"
                    ));
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(char) => name.push(char),
                            None => return Err(format!("{text:?} has a brace that is not closed")),
                        }
                    }
                    let place = PLACES.into_iter().find(|place| *place == name);
                    let place = place.ok_or_else(|| {
                        let known = PLACES.join(", ");
                        format!("{{{name}}} in {text:?} is unknown; known are {known}")
                    })?;
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal).into()));
                    }
                    parts.push(Part::Place(place));
                }
                char => literal.push(char),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self { parts })
    }

    /// Appends the text for a row; `fill` writes what a place stands for.
    pub fn write(&self, out: &mut Vec<u8>, mut fill: impl FnMut(&'static str, &mut Vec<u8>)) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Place(place) => fill(place, out),
            }
        }
    }

    /// Whether it is `{assetId}` and nothing else.
    pub fn is_asset(&self) -> bool {
        self.parts == [Part::Place("assetId")]
    }

    /// The places that it names.
    pub fn places(&self) -> impl Iterator<Item = &'static str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Place(place) => Some(*place),
            Part::Text(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_braces_doubled() {
        let template = Template::new("{{x}}-{org}/{assetId}").unwrap();
        let mut out = Vec::new();
        template.write(&mut out, |place, out| {
            out.extend_from_slice(place.to_uppercase().as_bytes())
        });
        assert_eq!(out, b"{x}-ORG/ASSETID");
        assert_eq!(template.places().collect::<Vec<_>>(), ["org", "assetId"]);
        assert!(Template::new("{assetId}").unwrap().is_asset());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("{or}", "known are org"),
            ("{org", "not closed"),
            ("org}", "not opened"),
        ] {
            assert!(Template::new(text).unwrap_err().contains(reason), "{text}");
        }
    }
}
