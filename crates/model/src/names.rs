//! Names that are valid when made.
//!
//! Grammar: `decisions.md` §1. Objects: 1–64 letters of any script, digits, `-_.`. Keys: 1–64
//! ASCII letters, digits, `-_.:`. Elements (points, events, attributes): up to 128, `-_.`.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} {text:?} has {chars} characters, at most {chars_max} are allowed")]
    TooLong {
        what: &'static str,
        text: String,
        chars: usize,
        chars_max: usize,
    },
    #[error("{what} {text:?} has the character {found:?}; allowed are {allowed}")]
    Character {
        what: &'static str,
        text: String,
        found: char,
        allowed: &'static str,
    },
}

fn validate(
    what: &'static str,
    text: &str,
    chars_max: usize,
    allowed: &'static str,
    is_allowed: fn(char) -> bool,
) -> Result<(), NameError> {
    let chars = text.chars().count();
    if chars == 0 {
        return Err(NameError::Empty { what });
    }
    if chars > chars_max {
        // The text may be a megabyte: quote its beginning only.
        let text = text.chars().take(chars_max).collect();
        return Err(NameError::TooLong {
            what,
            text,
            chars,
            chars_max,
        });
    }
    match text.chars().find(|c| !is_allowed(*c)) {
        Some(found) => Err(NameError::Character {
            what,
            text: text.to_owned(),
            found,
            allowed,
        }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:literal, $is:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the grammar.
            ///
            /// # Errors
            /// A [`NameError`] that says what is wrong and what is allowed.
            pub fn new(text: &str) -> Result<Self, NameError> {
                validate($what, text, $max, $allowed, $is)?;
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

fn is_object_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')
}

name!(
    /// The name of a declared object: a model, a product, a device, a script, …
    ObjectName, "name", 64, "letters, digits, - _ .", is_object_char
);
name!(
    /// The name of a channel, an object name of its own kind because so much carries it.
    ChannelName, "channel name", 64, "letters, digits, - _ .", is_object_char
);
name!(
    /// Names a product on the wire: the `{pk}` of topics and logins.
    ProductKey, "product key", 64, "ASCII letters, digits, - _ . :", is_key_char
);
name!(
    /// Names a device on the wire, unique in its product.
    DeviceKey, "device key", 64, "ASCII letters, digits, - _ . :", is_key_char
);
name!(
    /// Names a device everywhere else: unique in the organization, never reused.
    AssetId, "asset id", 64, "ASCII letters, digits, - _ . :", is_key_char
);
name!(
    /// The identifier of a measurement point, an event or an attribute in its model.
    ElementName, "identifier", 128, "letters, digits, - _ .", is_object_char
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_character_is_wrong() {
        let error = DeviceKey::new("R80 711").unwrap_err();
        assert_eq!(
            error.to_string(),
            "device key \"R80 711\" has the character ' '; allowed are ASCII letters, digits, - _ . :"
        );
    }

    #[test]
    fn object_names_take_letters_of_any_script_and_keys_only_ascii() {
        assert!(ObjectName::new("风机-1").is_ok());
        assert!(DeviceKey::new("风机-1").is_err());
        assert!(ProductKey::new("a:b.c_d-e").is_ok());
    }

    #[test]
    fn a_name_has_one_to_sixty_four_characters() {
        assert!(ObjectName::new("").is_err());
        assert!(ObjectName::new(&"x".repeat(64)).is_ok());
        assert!(ObjectName::new(&"x".repeat(65)).is_err());
        assert!(ElementName::new(&"x".repeat(128)).is_ok());
    }
}
