//! `range`: what is outside is flagged, dropped or refused.

use backtide_model::{ElementName, Measurepoint};

use super::{
    super::{
        Otherwise, RangeStep,
        number::{between, bounded, number},
        slots::Row,
    },
    Made,
};

#[derive(Debug)]
pub(in crate::policy) struct Range {
    pub(in crate::policy) slot: usize,
    min: f64,
    max: f64,
    otherwise: Outside,
}

#[derive(Debug, Clone, Copy)]
enum Outside {
    Flag(u8),
    Drop,
    Refuse,
}

impl Range {
    pub(super) fn new(
        slot: usize,
        step: &RangeStep,
        name: &ElementName,
        point: &Measurepoint,
    ) -> Made<Self> {
        let (min, max) = bounded(step.min, step.max)?;
        let otherwise = outside(step.otherwise, step.quality)?;
        let act = match otherwise {
            Outside::Flag(quality) if !point.quality => {
                return Err(format!(
                    "point {name} has no quality to be set to {quality}; declare it with quality: \
                     true"
                ));
            }
            Outside::Flag(quality) => format!("flag with quality {quality}"),
            Outside::Drop => "drop".to_owned(),
            Outside::Refuse => "quarantine".to_owned(),
        };
        let does = format!("{act} what is not {}", between(min, max));
        let range = Self {
            slot,
            min,
            max,
            otherwise,
        };
        Ok((range, does))
    }

    pub(super) fn act(&self, row: &mut Row<'_>) -> Result<(), String> {
        let Some(value) = row.value(self.slot) else {
            return Ok(());
        };
        let number = number(&value.cell);
        if (self.min..=self.max).contains(&number) {
            return Ok(());
        }
        match self.otherwise {
            Outside::Flag(quality) => value.quality = quality,
            Outside::Drop => row.drop_value(self.slot),
            Outside::Refuse => {
                return Err(format!("{number} is not {}", between(self.min, self.max)));
            }
        }
        Ok(())
    }
}

fn outside(otherwise: Otherwise, quality: Option<u8>) -> Result<Outside, String> {
    match (otherwise, quality) {
        (Otherwise::Flag, Some(quality)) if quality <= 9 => Ok(Outside::Flag(quality)),
        (Otherwise::Flag, _) => Err("flag needs a quality of 0 to 9".to_owned()),
        (Otherwise::Drop, None) => Ok(Outside::Drop),
        (Otherwise::Quarantine, None) => Ok(Outside::Refuse),
        (Otherwise::Drop | Otherwise::Quarantine, Some(_)) => {
            Err("quality is for otherwise: flag".to_owned())
        }
    }
}
