//! Whether a decoded text is JSON of bearable size.

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::limits::Scripts as Limits;

/// Checks syntax, size, depth and the count of values in one pass.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn check(text: &str, limits: &Limits) -> Result<(), String> {
    if text.is_empty() {
        return Err("the result is an empty text".to_owned());
    }
    if text.len() > limits.output_bytes_max {
        return Err(format!(
            "the result has {} bytes, at most {} are taken",
            text.len(),
            limits.output_bytes_max
        ));
    }
    let mut nodes_left = limits.output_nodes_max;
    let mut json = serde_json::Deserializer::from_str(text);
    let node = Node {
        nodes_left: &mut nodes_left,
        depth_left: limits.output_depth_max,
        limits,
    };
    node.deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| match error.is_data() {
            true => without_place(&error.to_string()),
            false => format!("the result is not JSON: {error}"),
        })
}

fn without_place(message: &str) -> String {
    message
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

struct Node<'n> {
    nodes_left: &'n mut usize,
    depth_left: usize,
    limits: &'n Limits,
}

impl Node<'_> {
    fn inner<E: serde::de::Error>(&mut self) -> Result<Node<'_>, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Node {
                nodes_left: self.nodes_left,
                depth_left,
                limits: self.limits,
            }),
            None => Err(E::custom(format!(
                "the result is nested deeper than {} levels",
                self.limits.output_depth_max
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        use serde::de::Error;
        *self.nodes_left = self.nodes_left.checked_sub(1).ok_or_else(|| {
            D::Error::custom(format!(
                "the result has more than {} values",
                self.limits.output_nodes_max
            ))
        })?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut node = self.inner()?;
        while items.next_element_seed(node.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let mut node = self.inner()?;
        while members.next_key::<Key>()?.is_some() {
            members.next_value_seed(node.again())?;
        }
        Ok(())
    }
}

impl Node<'_> {
    fn again(&mut self) -> Node<'_> {
        Node {
            nodes_left: self.nodes_left,
            depth_left: self.depth_left,
            limits: self.limits,
        }
    }
}

struct Key;

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Limits {
        Limits {
            output_nodes_max: 5,
            output_depth_max: 2,
            output_bytes_max: 100,
            ..Limits::default()
        }
    }

    #[test]
    fn json_within_the_limits_passes() {
        for text in [
            "{}",
            "[1,[2],null]",
            "{\"a\":{\"b\":true},\"c\":1.5}",
            "\"x\"",
        ] {
            assert_eq!(check(text, &small()), Ok(()), "{text}");
        }
    }

    #[test]
    fn each_limit_is_named() {
        let long = format!("\"{}\"", "x".repeat(100));
        for (text, expected) in [
            ("", "an empty text"),
            ("{\"a\":", "not JSON"),
            ("{} {}", "not JSON"),
            ("NaN", "not JSON"),
            ("[1,2,3,4,5]", "more than 5 values"),
            ("[[[1]]]", "deeper than 2 levels"),
            (long.as_str(), "102 bytes, at most 100"),
        ] {
            let message = check(text, &small()).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
