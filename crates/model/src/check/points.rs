//! The values of a measurement point message (`mqtt-channel.md` §3.2).

use super::{Fault, Reading, Rules, declared};
use crate::{
    BatchBuilder, Cell, ConflictPolicy, Content, DeviceKey, ElementName, Measurepoint, NO_QUALITY,
    types::{each_field, read_undeclared, shown},
};

#[derive(Default)]
pub(super) struct Points {
    builder: BatchBuilder,
    /// Of the item that is being read.
    cells: Vec<PointCell>,
}

type PointCell = (ElementName, ConflictPolicy, Cell, u8);

impl Reading for Points {
    const MEMBER: &'static str = "measurepoints";
    const HAS_TIME: bool = true;
    const VALUES_MAX: usize = usize::MAX;

    fn read(&mut self, rules: &Rules<'_>, name: &str, json: &str) -> Result<(), Vec<Fault>> {
        let cell = read_point(rules, name, json).map_err(|why| vec![Fault::of(name, why)])?;
        // The same point twice: the builder keeps the last.
        self.cells.push(cell);
        Ok(())
    }

    fn keep(&mut self, device: &DeviceKey, time_ms: i64) {
        if self.cells.is_empty() {
            return;
        }
        self.builder.row(device, time_ms);
        for (point, policy, cell, quality) in self.cells.drain(..) {
            self.builder.cell(&point, policy, cell, quality);
        }
    }

    fn forget(&mut self) {
        self.cells.clear();
    }

    fn finish(self) -> Content {
        Content::Points(self.builder.build())
    }
}

fn read_point(rules: &Rules<'_>, name: &str, json: &str) -> Result<PointCell, String> {
    let Some((identifier, point)) = rules.model.measurepoints.get_key_value(name) else {
        if !rules.model.passthrough {
            return Err("the point is not in the model; declare it, or leave it out".to_owned());
        }
        let identifier = ElementName::new(name).map_err(|error| error.to_string())?;
        return Ok((
            identifier,
            without_quality(rules.conflict),
            read_undeclared(json)?,
            NO_QUALITY,
        ));
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
    let policy = point.conflict.unwrap_or(match point.quality {
        true => rules.conflict,
        false => without_quality(rules.conflict),
    });
    Ok((identifier.clone(), policy, cell, quality))
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
