//! The audit trail: who did what to what, and what it was before and after.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Access;
use crate::{author::Author, registry::Altered};

/// What of a text before or after is kept.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Members whose values nobody shall read here.
const SECRETS: [&str; 6] = [
    "password",
    "secret",
    "sealed",
    "token",
    "privateKey",
    "accessSecret",
];
const STRUCK_OUT: &str = "•••";

/// Something that somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Deed {
    /// Ascending.
    pub id: i64,
    /// Milliseconds since 1970 UTC.
    pub time: i64,
    /// The user or token; `gateway` for what it did by itself.
    pub author: String,
    /// session, token, admin-token or gateway.
    pub via: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub action: String,
    pub object: String,
    /// What it was; JSON where it is an object. Secrets are struck out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What a reader of the trail asks for.
#[derive(Debug, Clone, Default)]
pub struct TrailFilter {
    pub author: Option<String>,
    pub action: Option<String>,
    /// Occurs in author, action or object, in any case.
    pub text: Option<String>,
    pub from_ms: Option<i64>,
    /// Exclusive.
    pub to_ms: Option<i64>,
    /// Only deeds with a smaller id.
    pub before: Option<i64>,
    pub limit: usize,
}

/// Some deeds, the last first.
#[derive(Debug, Clone)]
pub struct Trail {
    pub deeds: Vec<Deed>,
    /// `before` of the page after this.
    pub next: Option<i64>,
}

impl Access {
    /// Writes down what became of declared objects; `more` were changed in the same go.
    pub(super) fn note_altered(&self, altered: Vec<Altered>, more: usize) {
        let author = Author::current();
        author.set_noted();
        let deed = |action: String, object: String, before, after| Deed {
            id: 0,
            time: self.clock.now_ms(),
            author: author.name.to_string(),
            via: author.via.word().to_owned(),
            address: author.address.map(|address| address.to_string()),
            action,
            object,
            before,
            after,
        };
        let mut deeds: Vec<Deed> = altered
            .into_iter()
            .map(|altered| {
                let verb = match (&altered.before, &altered.after) {
                    (None, _) => "created",
                    (Some(_), Some(_)) => "changed",
                    (Some(_), None) => "deleted",
                };
                let (before, after) = (altered.before.map(redacted), altered.after.map(redacted));
                deed(
                    format!("{} {verb}", altered.kind),
                    altered.name,
                    before,
                    after,
                )
            })
            .collect();
        if more > 0 {
            let object = format!("{more} more in the same declaration");
            deeds.push(deed("objects declared".to_owned(), object, None, None));
        }
        if let Err(error) = self.book.lock().note(&deeds) {
            tracing::error!(%error, "the audit trail cannot be written");
        }
    }
}

/// The text without its secrets, and not too long.
pub(super) fn redacted(text: String) -> String {
    let mut text = match serde_json::from_str::<Value>(&text) {
        Ok(mut value) => {
            strike_out(&mut value);
            value.to_string()
        }
        Err(_) => text,
    };
    if text.len() > TEXT_BYTES_MAX {
        let bytes = text.len();
        let mut end = TEXT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(&format!("… ({bytes} bytes in all)"));
    }
    text
}

fn strike_out(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                // The text alone: what stands beside it, such as its number, tells what changed.
                if SECRETS.contains(&name.as_str()) && member.is_string() {
                    *member = STRUCK_OUT.into();
                } else {
                    strike_out(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strike_out),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_struck_out_wherever_they_stand() {
        let text = r#"{"a":[{"password":"x"}],"secret":{"id":2,"sealed":"ab"},"name":"n"}"#;
        assert_eq!(
            redacted(text.to_owned()),
            r#"{"a":[{"password":"•••"}],"name":"n","secret":{"id":2,"sealed":"•••"}}"#
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let cut = redacted("é".repeat(TEXT_BYTES_MAX));
        assert!(cut.len() < TEXT_BYTES_MAX + 64 && cut.ends_with("bytes in all)"));
    }
}
