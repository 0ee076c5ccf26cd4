//! `clamp`: what is beyond a bound becomes the bound.

use super::{
    super::{
        Bounds,
        number::{between, bounded, number, set},
        slots::Row,
    },
    Made,
};

#[derive(Debug)]
pub(in crate::policy) struct Clamp {
    pub(in crate::policy) slot: usize,
    min: f64,
    max: f64,
}

impl Clamp {
    pub(super) fn new(slot: usize, bounds: Bounds) -> Made<Self> {
        let (min, max) = bounded(bounds.min, bounds.max)?;
        let does = format!("clamp to {}", between(min, max));
        Ok((Self { slot, min, max }, does))
    }

    pub(super) fn act(&self, row: &mut Row<'_>) -> Result<(), String> {
        let Some(value) = row.value(self.slot) else {
            return Ok(());
        };
        let number = number(&value.cell);
        match number < self.min || number > self.max {
            true => set(&mut value.cell, number.max(self.min).min(self.max)),
            false => Ok(()),
        }
    }
}
