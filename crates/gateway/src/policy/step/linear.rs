//! `scale` and `unit`: value × factor + offset.

use super::{
    super::{
        ScaleStep, UnitStep,
        number::{number, set},
        slots::Row,
        unit,
    },
    Made,
};

#[derive(Debug)]
pub(in crate::policy) struct Linear {
    pub(in crate::policy) slot: usize,
    factor: f64,
    offset: f64,
}

impl Linear {
    pub(super) fn scale(slot: usize, step: ScaleStep) -> Made<Self> {
        let ScaleStep { factor, offset } = step;
        if !factor.is_finite() || !offset.is_finite() || factor == 0.0 {
            return Err(format!(
                "factor {factor} and offset {offset} make no value; factor is not 0"
            ));
        }
        let does = in_words(factor, offset);
        Ok((
            Self {
                slot,
                factor,
                offset,
            },
            does,
        ))
    }

    pub(super) fn unit(slot: usize, step: &UnitStep) -> Made<Self> {
        let UnitStep { from, to } = step;
        let (factor, offset) = unit::linear(from, to)?;
        let does = format!("{} (unit {from} to {to})", in_words(factor, offset));
        Ok((
            Self {
                slot,
                factor,
                offset,
            },
            does,
        ))
    }

    pub(super) fn act(&self, row: &mut Row<'_>) -> Result<(), String> {
        match row.value(self.slot) {
            None => Ok(()),
            Some(value) => {
                let number = number(&value.cell);
                set(&mut value.cell, number * self.factor + self.offset)
            }
        }
    }
}

fn in_words(factor: f64, offset: f64) -> String {
    let sign = if offset < 0.0 { '-' } else { '+' };
    format!("× {factor} {sign} {}", offset.abs())
}
