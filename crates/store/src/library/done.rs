//! What was taken out of a segment when it was written, as its metadata tells: so that a file is written
//! again only where there is more to take.

use std::collections::BTreeMap;

use backtide_model::ElementName;
use serde_json::{Value, json};

use super::keep::{PointKeep, Thinning};

/// By point; those that are not named have everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Done(BTreeMap<ElementName, OfPoint>);

/// What was taken of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OfPoint {
    /// What is earlier is not there.
    pub(super) time_ms: i64,
    /// What was committed before is not there.
    pub(super) sequence: u64,
    thin: Option<(Thinning, i64)>,
}

impl OfPoint {
    const NOTHING: Self = Self {
        time_ms: i64::MIN,
        sequence: 0,
        thin: None,
    };

    /// Windows that end at or before are thinned so.
    pub(super) fn thinned_before(&self, kind: Thinning) -> i64 {
        match self.thin {
            Some((of, before_ms)) if of == kind => before_ms,
            _ => i64::MIN,
        }
    }
}

impl Done {
    /// The key of the file's metadata that it is under.
    pub(super) const KEY: &'static str = "backtide.kept";

    pub(super) fn new(keeps: &BTreeMap<ElementName, PointKeep>) -> Self {
        let of_point = |keep: &PointKeep| OfPoint {
            time_ms: keep.floor().time_ms,
            sequence: keep.floor().sequence.0,
            thin: keep.thin().map(|thin| (thin.kind, thin.before_ms)),
        };
        let all = keeps.iter();
        Self(
            all.map(|(point, keep)| (point.clone(), of_point(keep)))
                .collect(),
        )
    }

    pub(super) fn of(&self, point: &ElementName) -> OfPoint {
        self.0.get(point).copied().unwrap_or(OfPoint::NOTHING)
    }

    /// `None` where nothing was taken.
    pub(super) fn to_text(&self) -> Option<String> {
        let of_point = |of: &OfPoint| {
            let mut about = json!({ "time": of.time_ms, "sequence": of.sequence });
            if let Some((kind, before_ms)) = of.thin {
                about["thin"] = json!([kind.name(), before_ms]);
            }
            about
        };
        let all = self.0.iter();
        let all: serde_json::Map<String, Value> = all
            .map(|(point, of)| (point.to_string(), of_point(of)))
            .collect();
        (!all.is_empty()).then(|| Value::Object(all).to_string())
    }

    /// A text that cannot be read says nothing: the worst is that a file is written again.
    pub(super) fn read(text: &str) -> Self {
        let Ok(Value::Object(all)) = serde_json::from_str(text) else {
            return Self::default();
        };
        let of_point = |(point, about): (String, Value)| {
            let kinds = [Thinning::Minute, Thinning::Changes];
            let thin = about.get("thin").and_then(|thin| {
                let name = thin.get(0)?.as_str()?;
                let kind = kinds.into_iter().find(|kind| kind.name() == name)?;
                Some((kind, thin.get(1)?.as_i64()?))
            });
            let of = OfPoint {
                time_ms: about.get("time")?.as_i64()?,
                sequence: about.get("sequence")?.as_u64()?,
                thin,
            };
            Some((ElementName::new(&point).ok()?, of))
        };
        Self(all.into_iter().filter_map(of_point).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::keep::*, *};
    use crate::Sequence;

    #[test]
    fn what_was_taken_reads_back_and_nonsense_says_nothing() {
        let floor = Floor {
            time_ms: 120_000,
            sequence: Sequence(7),
        };
        let thin = Thin {
            before_ms: 180_000,
            ..Thin::all(Thinning::Minute)
        };
        let names = ["a", "b"].map(|name| ElementName::new(name).unwrap());
        let keeps = [
            (names[0].clone(), PointKeep::new(floor, Some(thin))),
            (names[1].clone(), PointKeep::new(floor, None)),
        ];
        let done = Done::new(&keeps.into_iter().collect());
        assert_eq!(Done::read(&done.to_text().unwrap()), done);
        assert_eq!(done.of(&names[0]).thinned_before(Thinning::Minute), 180_000);
        assert_eq!(
            done.of(&names[0]).thinned_before(Thinning::Changes),
            i64::MIN
        );
        assert_eq!(Done::default().to_text(), None);
        assert_eq!(Done::read("["), Done::default());
        assert_eq!(
            Done::read(r#"{"a":{"time":1}}"#).of(&names[0]),
            OfPoint::NOTHING
        );
    }
}
