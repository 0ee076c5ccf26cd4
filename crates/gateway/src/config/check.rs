//! What a value must be, said of its key.

use std::fmt::Debug;

use config::ValueKind;

use super::ConfigError;

pub(super) fn require(
    key: &'static str,
    holds: bool,
    reason: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::Value {
            key,
            reason: reason(),
        })
    }
}

pub(super) fn check_url(key: &'static str, url: Option<&str>) -> Result<(), ConfigError> {
    let schemes = ["tcp://", "ssl://", "mqtt://", "mqtts://", "ws://", "wss://"];
    let url = url.unwrap_or(schemes[0]);
    let is_known = schemes.iter().any(|scheme| url.starts_with(scheme));
    require(key, is_known, || {
        format!("{url:?} starts with none of {}", schemes.join(", "))
    })
}

pub(super) fn one_of<T: Copy>(
    key: &'static str,
    word: &str,
    words: &[(&str, T)],
) -> Result<T, ConfigError> {
    words
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(known, _)| *known).collect();
            ConfigError::Value {
                key,
                reason: format!("{word:?} is none of {}", known.join(", ")),
            }
        })
}

pub(super) fn at_least<T: PartialOrd + Debug + Copy>(
    key: &'static str,
    value: Option<T>,
    min: T,
) -> Result<(), ConfigError> {
    require(key, value.is_none_or(|value| value >= min), || {
        format!(
            "{} is below {min:?}",
            value.map_or(String::new(), |value| format!("{value:?}"))
        )
    })
}

/// Refuses keys that are not in `known`, by their whole path and where they come from.
pub(super) fn refuse_unknown(
    value: &config::Value,
    known: &serde_json::Value,
    path: &str,
) -> Result<(), ConfigError> {
    let (ValueKind::Table(table), Some(known)) = (&value.kind, known.as_object()) else {
        return Ok(());
    };
    for (key, value) in table {
        let whole = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match known.get(key) {
            Some(known) => refuse_unknown(value, known, &whole)?,
            None => {
                let known: Vec<_> = known.keys().map(String::as_str).collect();
                return Err(ConfigError::Unknown {
                    key: whole,
                    origin: value.origin().unwrap_or("the command line").to_owned(),
                    known: known.join(", "),
                });
            }
        }
    }
    Ok(())
}
