//! The topics of a channel (`mqtt-channel.md` §2) in every spelling.

use crate::ProductKey;

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Points,
    Events,
    Attributes,
    /// Bytes for the product's script.
    Raw,
}

/// What the items of an envelope are. Raw data decodes to one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Items {
    Points,
    Events,
    Attributes,
}

impl Items {
    pub const ALL: [Self; 3] = [Self::Points, Self::Events, Self::Attributes];

    /// The `method` of their envelope.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Points => "integration.measurepoint.post",
            Self::Events => "integration.event.post",
            Self::Attributes => "integration.attribute.post",
        }
    }

    /// What follows `/sys/<product key>/integration/` in their topic.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Points => "measurepoint/post",
            Self::Events => "event/post",
            Self::Attributes => "attribute/post",
        }
    }

    /// The member of an item that holds its values.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Points => "measurepoints",
            Self::Events => "events",
            Self::Attributes => "attributes",
        }
    }
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Points, Self::Events, Self::Attributes, Self::Raw];

    /// The levels below `integration/`, old and new.
    const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Points => &["measurepoint/post"],
            Self::Events => &["event/post"],
            Self::Attributes => &["attribute/post", "attributes/post"],
            Self::Raw => &["model/up_raw", "up_raw"],
        }
    }

    /// What follows `[/]sys/<product key>/` in its reply topics, old and new.
    pub fn reply_paths(self) -> impl Iterator<Item = String> {
        let replies = |path: &&str| format!("integration/{path}_reply");
        self.paths().iter().map(replies)
    }

    /// What its envelopes hold; for raw data the decoded text says so.
    pub const fn items(self) -> Option<Items> {
        match self {
            Self::Points => Some(Items::Points),
            Self::Events => Some(Items::Events),
            Self::Attributes => Some(Items::Attributes),
            Self::Raw => None,
        }
    }
}

/// A request topic: what is posted, for which product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub kind: Kind,
    pub product: ProductKey,
}

/// Why nothing can be published to a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic is none of [/]sys/<product key>/integration/(measurepoint|event|attribute)/post, \
     [/]sys/<product key>/integration/model/up_raw"
)]
pub struct TopicError;

impl Topic {
    /// Reads a request topic with or without the leading slash.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let (product, path) = split(text).ok_or(TopicError)?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.paths().contains(&path));
        let product = ProductKey::new(product).map_err(|_| TopicError)?;
        Ok(Self {
            kind: kind.ok_or(TopicError)?,
            product,
        })
    }

    /// Where the reply to `request` goes: its exact spelling plus `_reply`.
    pub fn reply(request: &str) -> String {
        format!("{request}_reply")
    }
}

/// `[/]sys/<product>/integration/<path>` → (product, path).
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('/').unwrap_or(text);
    text.strip_prefix("sys/")?.split_once("/integration/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> ProductKey {
        ProductKey::new("PK").unwrap()
    }

    #[test]
    fn every_spelling_names_its_kind() {
        for (path, kind) in [
            ("measurepoint/post", Kind::Points),
            ("event/post", Kind::Events),
            ("attribute/post", Kind::Attributes),
            ("attributes/post", Kind::Attributes),
            ("model/up_raw", Kind::Raw),
            ("up_raw", Kind::Raw),
        ] {
            for slash in ["", "/"] {
                let text = format!("{slash}sys/PK/integration/{path}");
                assert_eq!(
                    Topic::parse(&text),
                    Ok(Topic {
                        kind,
                        product: product()
                    }),
                    "{text}"
                );
                assert_eq!(Topic::reply(&text), format!("{text}_reply"));
            }
        }
    }

    #[test]
    fn anything_else_is_no_request_topic() {
        for text in [
            "",
            "/",
            "sys",
            "sys/PK",
            "sys//integration/event/post",
            "//sys/PK/integration/up_raw",
            "sys/PK/integration/measurepoint/post_reply",
            "sys/PK/integration/measurepoint/post/",
            "sys/P K/integration/event/post",
            "sys/PK/DK/thing/measurepoint/post",
        ] {
            assert_eq!(Topic::parse(text), Err(TopicError), "{text}");
        }
    }
}
