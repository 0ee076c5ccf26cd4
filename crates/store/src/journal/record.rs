//! One commit as bytes: origin, product, parts.

use backtide_model::ProductKey;

use super::{
    attributes, events, origin, points, refused,
    wire::{DecodeError, Reader, put_count, put_signed, put_str, put_varint},
};
use crate::{Commit, Part, Redrive, Sequence};

pub(super) const POINTS: u8 = 1;
pub(super) const REFUSED: u8 = 2;
pub(super) const EVENTS: u8 = 3;
pub(super) const ATTRIBUTES: u8 = 4;
/// Not a part of the message, but which refusal it tries again: the first part where it is there.
pub(super) const REDRIVE: u8 = 16;

pub(super) fn encode(commit: &Commit, out: &mut Vec<u8>) {
    origin::encode(&commit.origin, out);
    put_str(out, commit.product.as_str());
    put_count(
        out,
        commit.parts.len() + usize::from(commit.redrive.is_some()),
    );
    if let Some(Redrive {
        order,
        part,
        tried_ms,
    }) = commit.redrive
    {
        out.push(REDRIVE);
        put_varint(out, order.0);
        put_varint(out, u64::from(part));
        put_signed(out, tried_ms);
    }
    for part in &commit.parts {
        match part {
            Part::Points(batch) => {
                out.push(POINTS);
                points::encode(batch, out);
            }
            Part::Refused(refusal) => {
                out.push(REFUSED);
                refused::encode(refusal, out);
            }
            Part::Events(occurrences) => {
                out.push(EVENTS);
                events::encode(occurrences, out);
            }
            Part::Attributes(values) => {
                out.push(ATTRIBUTES);
                attributes::encode(values, out);
            }
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Commit, DecodeError> {
    let mut reader = Reader::new(bytes);
    let origin = origin::decode(&mut reader)?;
    let product = ProductKey::new(reader.str("the product")?)?;
    // A tag and two numbers.
    let count = reader.count(3, "parts")?;
    let mut parts = Vec::with_capacity(count);
    let mut redrive = None;
    for _ in 0..count {
        parts.push(match reader.byte("a part's kind")? {
            REDRIVE => {
                redrive = Some(Redrive {
                    order: Sequence(reader.varint("the re-driven commit")?),
                    part: reader.number("the re-driven part")?,
                    tried_ms: reader.signed("the time of the re-drive")?,
                });
                continue;
            }
            POINTS => Part::Points(points::decode(&mut reader)?),
            REFUSED => Part::Refused(refused::decode(&mut reader)?),
            EVENTS => Part::Events(events::decode(&mut reader)?),
            ATTRIBUTES => Part::Attributes(attributes::decode(&mut reader)?),
            tag => {
                return Err(DecodeError::Tag {
                    what: "a part",
                    tag,
                });
            }
        });
    }
    reader.end("the record")?;
    Ok(Commit {
        origin,
        product,
        parts,
        redrive,
    })
}

/// What a record tells at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glance<'r> {
    pub(super) arrived_ms: i64,
    topic: &'r [u8],
    holds: Holds,
}

/// The parts of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// One, with this tag.
    One(u8),
    /// Any.
    Several,
}

/// Looks at a record without decoding what it stores: that of a message all of which was good, and so
/// of nearly all there are, has one part.
pub(super) fn glance(bytes: &[u8]) -> Result<Glance<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let (topic, arrived_ms) = origin::skim(&mut reader)?;
    reader.bytes("the product")?;
    let holds = match reader.count(3, "parts")? {
        0 => Holds::Nothing,
        1 => Holds::One(reader.byte("a part's kind")?),
        _ => Holds::Several,
    };
    Ok(Glance {
        arrived_ms,
        topic,
        holds,
    })
}

impl Glance<'_> {
    /// It may hold a refusal, or tries one again. `false` is certain.
    pub(super) fn may_refuse(&self) -> bool {
        match self.holds {
            Holds::Nothing => false,
            Holds::One(tag) => !matches!(tag, POINTS | EVENTS | ATTRIBUTES),
            Holds::Several => true,
        }
    }

    /// It may be one of those. `false` is certain.
    pub(super) fn may_be(&self, wanted: Wanted) -> bool {
        let tag = match wanted.kind {
            PartKind::Points => POINTS,
            PartKind::Events => EVENTS,
            PartKind::Attributes => ATTRIBUTES,
        };
        let has_kind = match self.holds {
            Holds::Nothing => false,
            Holds::One(own) => own == tag,
            Holds::Several => true,
        };
        has_kind && self.topic.starts_with(wanted.topic_begins.as_bytes())
    }
}

/// Commits that a follower has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// They hold some of these.
    pub kind: PartKind,
    /// Their topic begins so.
    pub topic_begins: &'static str,
}

/// What a part of a commit stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    Points,
    Events,
    Attributes,
}

#[cfg(test)]
pub(in crate::journal) mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    pub(in crate::journal) fn any_commit() -> impl Strategy<Value = Commit> {
        let part = prop_oneof![
            points::tests::any_batch().prop_map(Part::Points),
            refused::tests::any_refused().prop_map(Part::Refused),
            events::tests::any_events().prop_map(Part::Events),
            attributes::tests::any_attributes().prop_map(Part::Attributes),
        ];
        (
            origin::tests::any_origin(),
            "[a-zA-Z0-9:]{1,64}",
            vec(part, 0..3),
            prop::option::of(any::<(u64, u32, i64)>()),
        )
            .prop_map(|(origin, product, parts, redrive)| Commit {
                origin,
                product: ProductKey::new(&product).unwrap(),
                parts,
                redrive: redrive.map(|(order, part, tried_ms)| Redrive {
                    order: Sequence(order),
                    part,
                    tried_ms,
                }),
            })
    }

    proptest! {
        #[test]
        fn a_glance_misses_no_refusal(commit in any_commit()) {
            let mut out = Vec::new();
            encode(&commit, &mut out);
            let seen = glance(&out).unwrap();
            prop_assert_eq!(seen.arrived_ms, commit.origin.arrived_ms);
            let is_refused = commit.parts.iter().any(|part| matches!(part, Part::Refused(_)));
            prop_assert!(seen.may_refuse() || !(is_refused || commit.redrive.is_some()));
            prop_assert!(!seen.may_refuse() || is_refused || commit.redrive.is_some() || commit.parts.len() > 1);
        }

        #[test]
        fn a_glance_misses_no_part_of_a_kind(commit in any_commit(), other in "[a-z]{3}") {
            let mut out = Vec::new();
            encode(&commit, &mut out);
            let seen = glance(&out).unwrap();
            let wanted = |kind| Wanted { kind, topic_begins: "" };
            for part in &commit.parts {
                let kind = match part {
                    Part::Points(_) => PartKind::Points,
                    Part::Events(_) => PartKind::Events,
                    Part::Attributes(_) => PartKind::Attributes,
                    Part::Refused(_) => continue,
                };
                prop_assert!(seen.may_be(wanted(kind)));
                let begins: &'static str = other.clone().leak();
                let of_topic = Wanted { kind, topic_begins: begins };
                prop_assert_eq!(seen.may_be(of_topic), commit.origin.topic.starts_with(begins));
            }
            if commit.parts.is_empty() && commit.redrive.is_none() {
                prop_assert!(!seen.may_be(wanted(PartKind::Points)));
            }
        }

        #[test]
        fn a_commit_reads_back(commit in any_commit()) {
            let mut out = Vec::new();
            encode(&commit, &mut out);
            prop_assert_eq!(decode(&out).unwrap(), commit);
        }

        #[test]
        fn a_record_cut_short_is_an_error(commit in any_commit(), at: prop::sample::Index) {
            let mut out = Vec::new();
            encode(&commit, &mut out);
            out.truncate(at.index(out.len()));
            prop_assert!(decode(&out).is_err());
        }
    }

    #[test]
    fn an_unknown_part_names_the_newer_version() {
        let mut out = Vec::new();
        let commit = Commit {
            origin: crate::Origin {
                channel: backtide_model::ChannelName::new("c").unwrap(),
                client: "".into(),
                topic: "".into(),
                message_id: "".into(),
                packet_id: None,
                policies: None,
                arrived_ms: 0,
            },
            product: ProductKey::new("p").unwrap(),
            parts: vec![Part::Points(backtide_model::Batch::default())],
            redrive: None,
        };
        encode(&commit, &mut out);
        let tag = out.len() - 4;
        out[tag] = 9;
        assert_eq!(
            decode(&out).unwrap_err().to_string(),
            "a part has the tag 9, which a newer version of backtide may know"
        );
    }
}
