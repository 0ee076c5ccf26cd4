//! The values of a measurement point message (`mqtt-channel.md` §3.2).

use super::{Fault, Oldest, Reading, Rules, declared};
use crate::{
    BatchBuilder, Cell, ConflictPolicy, Content, DeviceKey, ElementName, Measurepoint, NO_QUALITY,
    PointValue, Processed,
    types::{each_field, read_undeclared, shown},
};

#[derive(Default)]
pub(super) struct Points {
    builder: BatchBuilder,
    /// Of the item that is being read.
    values: Vec<PointValue>,
}

impl Reading for Points {
    const MEMBER: &'static str = "measurepoints";
    const HAS_TIME: bool = true;
    const VALUES_MAX: usize = usize::MAX;

    fn read(&mut self, rules: &Rules<'_>, name: &str, json: &str) -> Result<(), Vec<Fault>> {
        let value = read_point(rules, name, json).map_err(|why| vec![Fault::of(name, why)])?;
        // The same point twice: the builder keeps the last.
        self.values.push(value);
        Ok(())
    }

    fn process(&mut self, rules: &Rules<'_>, time_ms: i64) -> Result<Processed, Vec<Fault>> {
        let processed = match rules.policies {
            None => Processed::default(),
            Some(policies) => policies.row(&mut self.values).map_err(|objections| {
                let fault = |objection: crate::Objection| {
                    Fault::of(objection.point.as_str(), objection.message)
                };
                objections.into_iter().map(fault).collect::<Vec<_>>()
            })?,
        };
        let too_old = match rules.oldest {
            None => 0,
            Some(oldest) => self.leave_out_old(oldest, time_ms)?,
        };
        Ok(Processed {
            reduced: processed.reduced + too_old,
            ..processed
        })
    }

    fn keep(&mut self, device: &DeviceKey, time_ms: i64) {
        if self.values.is_empty() {
            return;
        }
        self.builder.expect_points(self.values.len());
        self.builder.row(device, time_ms);
        for value in self.values.drain(..) {
            self.builder
                .cell(&value.point, value.conflict, value.cell, value.quality);
        }
    }

    fn forget(&mut self) {
        self.values.clear();
    }

    fn finish(self) -> Content {
        Content::Points(self.builder.build())
    }
}

impl Points {
    /// Leaves out the values of the item that are too old, and counts them; an item of which none would
    /// be left is refused.
    fn leave_out_old(&mut self, oldest: &Oldest, time_ms: i64) -> Result<u32, Vec<Fault>> {
        let is_old = |value: &PointValue| oldest.of(&value.point, time_ms);
        let first = self
            .values
            .iter()
            .find_map(|value| Some((value, is_old(value)?)));
        let Some((value, too_old)) = first else {
            return Ok(0);
        };
        let all = self.values.len();
        if self.values.iter().all(|value| is_old(value).is_some()) {
            let message = format!("time {time_ms}: {}", too_old.message);
            return Err(vec![Fault::of(value.point.as_str(), message)]);
        }
        self.values
            .retain(|value| oldest.of(&value.point, time_ms).is_none());
        Ok(u32::try_from(all - self.values.len()).unwrap_or(u32::MAX))
    }
}

fn read_point(rules: &Rules<'_>, name: &str, json: &str) -> Result<PointValue, String> {
    let alias = || rules.policies.and_then(|policies| policies.alias(name));
    let declared_as = rules.model.measurepoints.get_key_value(name);
    let Some((identifier, point)) = declared_as.or_else(alias) else {
        if !rules.model.passthrough {
            return Err("the point is not in the model; declare it, or leave it out".to_owned());
        }
        return Ok(PointValue {
            point: ElementName::new(name).map_err(|error| error.to_string())?,
            conflict: without_quality(rules.conflict),
            cell: read_undeclared(json)?,
            quality: NO_QUALITY,
        });
    };
    let expected = |why| {
        let quality = if point.quality { " with quality" } else { "" };
        let declared = declared(&point.data_type, point.unit.as_ref());
        format!("{why}; the model declares {declared}{quality}")
    };
    let (cell, quality) = if point.quality && json.starts_with('{') {
        read_with_quality(point, json).map_err(expected)?
    } else {
        (point.data_type.read(json).map_err(expected)?, NO_QUALITY)
    };
    Ok(PointValue {
        point: identifier.clone(),
        conflict: point.conflict_in(rules.conflict),
        cell,
        quality,
    })
}

impl Measurepoint {
    /// How conflicts of this point are decided on a channel.
    pub fn conflict_in(&self, channel: ConflictPolicy) -> ConflictPolicy {
        self.conflict.unwrap_or(match self.quality {
            true => channel,
            false => without_quality(channel),
        })
    }
}

/// Without qualities the higher one is always the last.
fn without_quality(policy: ConflictPolicy) -> ConflictPolicy {
    match policy {
        ConflictPolicy::HigherQuality => ConflictPolicy::KeepLast,
        other => other,
    }
}

/// `{"value":<number>,"quality":<0–9>}`; either order, no other member.
fn read_with_quality(point: &Measurepoint, json: &str) -> Result<(Cell, u8), String> {
    let (mut value, mut quality, mut other) = (None, None, None);
    let outcome = each_field(json, |name, json| match name.as_ref() {
        "value" => value = Some(json),
        "quality" => quality = Some(json),
        name => other = Some(shown(name).into_owned()),
    });
    if let Some(Err(error)) = outcome {
        return Err(error.to_string());
    }
    if let Some(name) = other {
        return Err(format!("member {name:?} is neither value nor quality"));
    }
    let value = value.ok_or("member value is absent")?;
    let quality = match quality {
        None => NO_QUALITY,
        Some(json) => json
            .parse()
            .ok()
            .filter(|quality| *quality <= 9)
            .ok_or_else(|| format!("quality {} is not an integer 0–9", shown(json)))?,
    };
    Ok((point.data_type.read(value)?, quality))
}
