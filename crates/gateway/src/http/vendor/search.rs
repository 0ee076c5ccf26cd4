//! What the vendor's searches have in common: an expression over members, a choice of members, a
//! page. Pure.
//!
//! `productKey in ('a', 'b') and (timezone = '+08:00' or deviceName like 'T%')`

use serde_json::{Map, Value, json};

use super::answer::{Data, Refusal};
use crate::limits::VENDOR_PAGE_MAX;

const PAGE_SIZE_DEFAULT: usize = 100;
/// Parentheses within parentheses.
const DEPTH_MAX: usize = 16;

/// The page of `objects` that a search asks for; of others no more is made than is looked at.
pub(super) fn page<V: FnOnce() -> Map<String, Value>>(
    json: &Value,
    objects: impl Iterator<Item = V>,
) -> Result<Data, Refusal> {
    let expression = match json.get("expression") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.trim().is_empty() => None,
        Some(Value::String(text)) => Some(Expression::read(text)?),
        Some(other) => return Err(Refusal::bad(format!("expression {other} is no text"))),
    };
    let page_of = json.get("pagination");
    let number = |name: &str, default: usize| match page_of.and_then(|page| page.get(name)) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| *number > 0)
            .ok_or_else(|| Refusal::bad(format!("pagination.{name} {value} is no number from 1"))),
    };
    let (number, size) = (number("pageNo", 1)?, number("pageSize", PAGE_SIZE_DEFAULT)?);
    if size > VENDOR_PAGE_MAX {
        return Err(Refusal::bad(format!(
            "pagination.pageSize {size} is over {VENDOR_PAGE_MAX}"
        )));
    }
    let projection = projection(json)?;
    let mut found = Vec::new();
    let skipped = size.saturating_mul(number - 1);
    let mut total = 0_usize;
    for view in objects {
        let is_on_page = (skipped..skipped.saturating_add(size)).contains(&total);
        match &expression {
            None if !is_on_page => {}
            None => found.push(projected(view(), projection.as_deref())),
            Some(expression) => {
                let object = view();
                if !expression.takes(&object)? {
                    continue;
                }
                if is_on_page {
                    found.push(projected(object, projection.as_deref()));
                }
            }
        }
        total += 1;
    }
    let page = json!({ "pageNo": number, "pageSize": size, "totalSize": total });
    let mut data = Data::of(&found);
    data.beside = format!(",\"pagination\":{page}");
    Ok(data)
}

/// The members that are asked for; all unless given.
fn projection(json: &Value) -> Result<Option<Vec<String>>, Refusal> {
    let Some(Value::Array(list)) = json.get("projection") else {
        return Ok(None);
    };
    let mut names = Vec::new();
    for name in list {
        let name = name
            .as_str()
            .ok_or_else(|| Refusal::bad(format!("projection {name} is no text")))?;
        // A part of a member stands for the member.
        let member = name.split(['.', '[']).next().unwrap_or_default();
        if member == "*" || member.is_empty() {
            return Ok(None);
        }
        names.push(member.to_owned());
    }
    Ok((!names.is_empty()).then_some(names))
}

fn projected(object: Map<String, Value>, names: Option<&[String]>) -> Map<String, Value> {
    match names {
        None => object,
        Some(names) => object
            .into_iter()
            .filter(|(name, _)| names.contains(name))
            .collect(),
    }
}

/// A condition on an object.
#[derive(Debug, PartialEq)]
enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Equals {
        field: String,
        values: Vec<String>,
        negated: bool,
    },
    Like {
        field: String,
        pattern: String,
    },
    Exists {
        field: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Sign {
    Word(String),
    Text(String),
    Mark(&'static str),
}

impl Expression {
    fn read(text: &str) -> Result<Self, Refusal> {
        let mut signs = Signs {
            signs: signs(text)?,
            at: 0,
        };
        let read = signs.any(0)?;
        match signs.peek() {
            None => Ok(read),
            Some(_) => Err(signs.fault("something behind the end")),
        }
    }

    fn takes(&self, object: &Map<String, Value>) -> Result<bool, Refusal> {
        match self {
            Self::And(all) => all
                .iter()
                .try_fold(true, |so_far, one| Ok(so_far & one.takes(object)?)),
            Self::Or(any) => any
                .iter()
                .try_fold(false, |so_far, one| Ok(so_far | one.takes(object)?)),
            Self::Equals {
                field,
                values,
                negated,
            } => {
                let own = member(object, field)?;
                Ok(own.is_some_and(|own| values.contains(&own)) != *negated)
            }
            Self::Like { field, pattern } => {
                Ok(member(object, field)?.is_some_and(|own| is_like(&own, pattern)))
            }
            Self::Exists { field } => Ok(member(object, field)?.is_some()),
        }
    }
}

/// A member as text: its name, or those of the members that lead to it. Of a text in several
/// languages the default.
fn member(object: &Map<String, Value>, path: &str) -> Result<Option<String>, Refusal> {
    let mut parts = path.split('.');
    let first = parts.next().unwrap_or_default();
    // Searches say `attributes.x` of what an object calls `deviceAttributes`.
    let alias = match first {
        "attributes" => "deviceAttributes",
        "tags" => "deviceTags",
        other => other,
    };
    let value = object.get(first).or_else(|| object.get(alias));
    let mut value = value.ok_or_else(|| {
        let known: Vec<_> = object.keys().map(String::as_str).collect();
        Refusal::bad(format!(
            "{path} is no member to search by; known are {}",
            known.join(", ")
        ))
    })?;
    for part in parts {
        match value.get(part) {
            Some(inner) => value = inner,
            None => return Ok(None),
        }
    }
    Ok(match value.get("defaultValue").unwrap_or(value) {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    })
}

/// `%` stands for any characters, `_` for one.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) =
        (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut in_pattern) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(in_pattern) {
            Some('%') => {
                retry = Some((in_pattern + 1, at));
                in_pattern += 1;
            }
            Some(wanted) if *wanted == '_' || *wanted == text[at] => {
                at += 1;
                in_pattern += 1;
            }
            _ => match &mut retry {
                Some((behind, from)) => {
                    *from += 1;
                    (in_pattern, at) = (*behind, *from);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(in_pattern..)
        .unwrap_or_default()
        .iter()
        .all(|rest| *rest == '%')
}

fn signs(text: &str) -> Result<Vec<Sign>, Refusal> {
    let mut signs = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let sign = match char {
            blank if blank.is_whitespace() => continue,
            '(' => Sign::Mark("("),
            ')' => Sign::Mark(")"),
            ',' => Sign::Mark(","),
            '=' => {
                chars.next_if_eq(&'=');
                Sign::Mark("=")
            }
            '!' | '<' if chars.next_if(|next| ['=', '>'].contains(next)).is_some() => {
                Sign::Mark("!=")
            }
            quote @ ('\'' | '"') => {
                let mut inner = String::new();
                loop {
                    match chars.next() {
                        None => return Err(Refusal::bad("expression: a text does not end")),
                        Some(end) if end == quote => break,
                        Some(char) => inner.push(char),
                    }
                }
                Sign::Text(inner)
            }
            first if first.is_alphanumeric() || "_-+".contains(first) => {
                let mut word = String::from(first);
                while let Some(next) =
                    chars.next_if(|next| next.is_alphanumeric() || "_-.:+".contains(*next))
                {
                    word.push(next);
                }
                Sign::Word(word)
            }
            other => {
                return Err(Refusal::bad(format!(
                    "expression: {other:?} is not understood"
                )));
            }
        };
        signs.push(sign);
    }
    Ok(signs)
}

struct Signs {
    signs: Vec<Sign>,
    at: usize,
}

impl Signs {
    fn peek(&self) -> Option<&Sign> {
        self.signs.get(self.at)
    }

    fn next(&mut self) -> Option<Sign> {
        let sign = self.signs.get(self.at).cloned();
        self.at += 1;
        sign
    }

    fn fault(&self, what: &str) -> Refusal {
        Refusal::bad(format!(
            "expression: {what} at word {}; write such as productKey = 'a' and deviceKey in ('b', 'c')",
            self.at + 1
        ))
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Sign::Word(own)) if own.eq_ignore_ascii_case(word));
        self.at += usize::from(is_it);
        is_it
    }

    fn takes_mark(&mut self, mark: &'static str) -> bool {
        let is_it = self.peek() == Some(&Sign::Mark(mark));
        self.at += usize::from(is_it);
        is_it
    }

    fn any(&mut self, depth: usize) -> Result<Expression, Refusal> {
        let mut any = vec![self.all(depth)?];
        while self.takes_word("or") {
            any.push(self.all(depth)?);
        }
        Ok(Expression::Or(any))
    }

    fn all(&mut self, depth: usize) -> Result<Expression, Refusal> {
        let mut all = vec![self.one(depth)?];
        while self.takes_word("and") {
            all.push(self.one(depth)?);
        }
        Ok(Expression::And(all))
    }

    fn one(&mut self, depth: usize) -> Result<Expression, Refusal> {
        if depth > DEPTH_MAX {
            return Err(self.fault("too many parentheses"));
        }
        if self.takes_mark("(") {
            let inner = self.any(depth + 1)?;
            return match self.takes_mark(")") {
                true => Ok(inner),
                false => Err(self.fault("a parenthesis is not closed")),
            };
        }
        let is_exists = self.takes_word("exists");
        let Some(Sign::Word(field)) = self.next() else {
            return Err(self.fault("a member is missing"));
        };
        if is_exists {
            return Ok(Expression::Exists { field });
        }
        if self.takes_mark("=") {
            let values = vec![self.value()?];
            return Ok(Expression::Equals {
                field,
                values,
                negated: false,
            });
        }
        if self.takes_mark("!=") {
            let values = vec![self.value()?];
            return Ok(Expression::Equals {
                field,
                values,
                negated: true,
            });
        }
        if self.takes_word("like") {
            let pattern = self.value()?;
            return Ok(Expression::Like { field, pattern });
        }
        let negated = self.takes_word("not");
        if !self.takes_word("in") || !self.takes_mark("(") {
            return Err(self.fault("=, !=, in (…) or like is missing"));
        }
        let mut values = vec![self.value()?];
        while self.takes_mark(",") {
            values.push(self.value()?);
        }
        match self.takes_mark(")") {
            true => Ok(Expression::Equals {
                field,
                values,
                negated,
            }),
            false => Err(self.fault("a parenthesis is not closed")),
        }
    }

    fn value(&mut self) -> Result<String, Refusal> {
        match self.next() {
            Some(Sign::Word(text) | Sign::Text(text)) => Ok(text),
            Some(Sign::Mark(_)) | None => Err(self.fault("a value is missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Map<String, Value> {
        let object = json!({
            "deviceKey": "T-01", "timezone": "+08:00", "deviceName": { "defaultValue": "Turbine 1" },
            "deviceAttributes": { "rated": 2050, "site": null }
        });
        object.as_object().unwrap().clone()
    }

    #[test]
    fn expressions_choose() {
        for (text, expected) in [
            ("deviceKey = 'T-01'", true),
            ("deviceKey=T-01 and timezone == '+08:00'", true),
            ("deviceKey != 'T-01' or deviceName like 'Tur%1'", true),
            ("deviceKey in ('a', 'T-01')", true),
            ("deviceKey not in ('a', 'T-01')", false),
            (
                "(deviceKey = 'a' or deviceKey = 'T-01') and attributes.rated = 2050",
                true,
            ),
            ("exists attributes.site", false),
            ("deviceName like 'Turbine__'", true),
            ("deviceName like '_'", false),
        ] {
            assert_eq!(
                Expression::read(text).unwrap().takes(&object()).unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for text in [
            "",
            "deviceKey",
            "deviceKey =",
            "deviceKey in ('a'",
            "(a = 'b'",
            "a = 'b",
            "a ~ 'b'",
            "a = b c",
        ] {
            assert_eq!(Expression::read(text).unwrap_err().code, 400, "{text}");
        }
        assert!(Expression::read(&"(".repeat(1_000)).is_err());
        let unknown = Expression::read("colour = 'red'").unwrap().takes(&object());
        assert!(unknown.unwrap_err().message.contains("known are"));
    }

    #[test]
    fn a_page_has_what_was_asked_for_and_says_how_many_there_are() {
        let many = (0..25).map(|n| move || json!({ "n": n, "m": 1 }).as_object().unwrap().clone());
        let asked = json!({ "projection": ["n.x"], "pagination": { "pageNo": 3, "pageSize": 10 } });
        let data = page(&asked, many).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&data.data).unwrap(),
            json!([{ "n": 20 }, { "n": 21 }, { "n": 22 }, { "n": 23 }, { "n": 24 }])
        );
        assert!(data.beside.contains("\"totalSize\":25"));
        for wrong in [
            json!({ "pagination": { "pageNo": 0 } }),
            json!({ "pagination": { "pageSize": 10_000 } }),
        ] {
            assert_eq!(
                page(&wrong, std::iter::empty::<fn() -> Map<String, Value>>())
                    .unwrap_err()
                    .code,
                400
            );
        }
    }
}
