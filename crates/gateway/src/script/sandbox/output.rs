//! Whether a decoded text is JSON of bearable size.

use serde::de::IgnoredAny;

use crate::limits::Scripts as Limits;

/// Checks syntax, size, depth and the count of values.
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
    // Skips values without recursion and without reading numbers.
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| format!("the result is not JSON: {error}"))?;
    let size = Size::of(text);
    if size.depth > limits.output_depth_max {
        return Err(format!(
            "the result is nested deeper than {} levels",
            limits.output_depth_max
        ));
    }
    if size.nodes > limits.output_nodes_max {
        return Err(format!(
            "the result has more than {} values",
            limits.output_nodes_max
        ));
    }
    Ok(())
}

/// How large a JSON text is, by its punctuation.
struct Size {
    depth: usize,
    /// Values of any kind, containers too: each comma separates two, and the first of a container
    /// has none before it.
    nodes: usize,
}

impl Size {
    fn of(text: &str) -> Self {
        let (mut depth, mut deepest, mut nodes) = (0_usize, 0, 1);
        let (mut is_text, mut is_escaped, mut has_begun) = (false, false, false);
        for byte in text.bytes() {
            if is_text {
                is_text = is_escaped || byte != b'"';
                is_escaped = !is_escaped && byte == b'\\';
                continue;
            }
            let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            let closes = matches!(byte, b']' | b'}');
            if has_begun && !is_space {
                nodes += usize::from(!closes);
                has_begun = false;
            }
            match byte {
                b'"' => is_text = true,
                b'[' | b'{' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                    has_begun = true;
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' => nodes += 1,
                _ => {}
            }
        }
        Self {
            depth: deepest,
            nodes,
        }
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
    fn values_and_levels_are_counted_by_punctuation_outside_texts() {
        for (text, depth, nodes) in [
            ("1", 0, 1),
            ("[]", 1, 1),
            ("[ ]", 1, 1),
            ("[\n1]", 1, 2),
            ("{}", 1, 1),
            ("{\"a\":1}", 1, 2),
            ("{\"a,[{\":[1,2,{}],\"b\":\"]},\\\"[\"}", 3, 6),
            ("[[],[[]],\"\\\\\",3]", 3, 6),
        ] {
            let size = Size::of(text);
            assert_eq!((size.depth, size.nodes), (depth, nodes), "{text}");
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
