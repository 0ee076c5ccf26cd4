//! Which topic filters a channel's client may subscribe to, and what they match. Pure.
//!
//! A filter is granted when everything it can match is a topic under the client's own product key
//! and it can match at least one reply topic (`mqtt-channel.md` §2): `sys`, with or without a
//! leading slash, and the product key stand literally; wildcards may follow.

use backtide_model::{Kind, ProductKey};

/// Why a well-formed filter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NotOwn,
    Shared,
}

/// Whether wildcards stand where they may (MQTT 5.0 §4.7.1): alone in their level, `#` last.
pub(crate) fn is_well_formed(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.contains(['+', '#']);
        if wild && level != "+" && (level != "#" || levels.peek().is_some()) {
            return false;
        }
    }
    !filter.is_empty()
}

/// Grants or refuses a well-formed filter to a client of this product.
pub(crate) fn grant(filter: &str, product: &ProductKey) -> Result<(), Refused> {
    if filter.starts_with("$share/") {
        return Err(Refused::Shared);
    }
    let own = filter
        .strip_prefix('/')
        .unwrap_or(filter)
        .strip_prefix("sys/")
        .and_then(|rest| rest.strip_prefix(product.as_str()))
        .and_then(|rest| rest.strip_prefix('/'));
    match own {
        Some(rest) if replies().any(|reply| matches(rest, &reply)) => Ok(()),
        // The reply to a publish that is refused for its topic goes to that topic's own.
        Some(rest) if rest.ends_with("_reply") && !rest.contains(['+', '#']) => Ok(()),
        _ => Err(Refused::NotOwn),
    }
}

/// What follows `sys/{product key}/` in the reply topics, in all spellings.
fn replies() -> impl Iterator<Item = String> {
    Kind::ALL.into_iter().flat_map(Kind::reply_paths)
}

/// Whether a well-formed filter matches a topic. Topics with `$` never come here.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            // `a/#` matches `a` too, but then `#` is met with the topic exhausted, above.
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn granted(filter: &str) -> bool {
        grant(filter, &ProductKey::new("PK").unwrap()).is_ok()
    }

    #[test]
    fn own_reply_topics_are_granted_in_every_spelling_and_with_wildcards() {
        for reply in replies() {
            assert!(granted(&format!("sys/PK/{reply}")), "{reply}");
            assert!(granted(&format!("/sys/PK/{reply}")), "{reply}");
        }
        for filter in [
            "sys/PK/#",
            "/sys/PK/integration/#",
            "/sys/PK/integration/+/post_reply",
            "sys/PK/+/+/+",
            "sys/PK/integration/event/post_reply/#",
            "/sys/PK/integration/nothing/post_reply",
        ] {
            assert!(granted(filter), "{filter}");
        }
    }

    #[test]
    fn what_can_match_anything_else_or_no_reply_is_refused() {
        for filter in [
            "#",
            "+/PK/integration/event/post_reply",
            "/+/PK/#",
            "sys/+/integration/event/post_reply",
            "sys/OTHER/#",
            "sys/PKX/#",
            "sys/PK",
            "sys/PK/integration/event/post",
            "//sys/PK/#",
            "$SYS/#",
            "sys/PK/+",
            "topic",
        ] {
            assert_eq!(
                grant(filter, &ProductKey::new("PK").unwrap()),
                Err(Refused::NotOwn),
                "{filter}"
            );
        }
        assert_eq!(
            grant("$share/g/sys/PK/#", &ProductKey::new("PK").unwrap()),
            Err(Refused::Shared)
        );
    }

    #[test]
    fn wildcards_stand_alone_in_their_level_and_the_multi_level_one_stands_last() {
        for good in ["a", "/", "+", "#", "a/+/b", "a/#", "+/+/#", "/a/"] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["", "a+", "a/b#", "#/a", "a/#/b", "+a/b", "a/##"] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn matching_follows_the_standards_examples() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    proptest! {
        /// The safety of the grant: a granted filter never matches under another product key.
        #[test]
        fn a_granted_filter_matches_nothing_foreign(
            filter in "(/?sys/PK|\\+/PK|/\\+/PK|sys/\\+|#)(/(integration|event|post_reply|model|\\+)){0,4}(/#)?",
            topic in "/?(sys|other)/(PK|XX)(/(integration|event|post_reply|model)){0,4}",
        ) {
            if is_well_formed(&filter) && granted(&filter) && matches(&filter, &topic) {
                let own = topic.strip_prefix('/').unwrap_or(&topic);
                prop_assert!(own == "sys/PK" || own.starts_with("sys/PK/"));
            }
        }
    }
}
