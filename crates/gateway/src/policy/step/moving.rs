//! `rename` and `copy`: a value becomes one of another point, instead or as well.

use std::sync::Arc;

use backtide_model::{ElementName, Measurepoint, NO_QUALITY};

use super::{
    super::slots::{Row, Slots},
    Ground, Made, Target,
};

#[derive(Debug)]
pub(in crate::policy) struct Move {
    pub(in crate::policy) from: usize,
    pub(in crate::policy) to: usize,
    target: Arc<Target>,
    keeps: bool,
}

impl Move {
    pub(super) fn rename(
        from: usize,
        name: &ElementName,
        point: &Measurepoint,
        to: &ElementName,
        ground: &mut Ground<'_>,
    ) -> Made<Self> {
        let moving = Self::new(from, name, point, to, ground)?;
        Ok((moving, format!("rename to {to}")))
    }

    pub(super) fn copy(
        from: usize,
        name: &ElementName,
        point: &Measurepoint,
        to: &ElementName,
        ground: &mut Ground<'_>,
    ) -> Made<Self> {
        let moving = Self::new(from, name, point, to, ground)?;
        let copy = Self {
            keeps: true,
            ..moving
        };
        Ok((copy, format!("copy to {to}")))
    }

    fn new(
        from: usize,
        name: &ElementName,
        point: &Measurepoint,
        to: &ElementName,
        ground: &mut Ground<'_>,
    ) -> Result<Self, String> {
        let target = ground.target(to)?;
        if target.data_type != point.data_type {
            return Err(format!(
                "{name} is {} and {to} is {}: only points of one type pass into each other",
                point.data_type.word(),
                target.data_type.word()
            ));
        }
        if to == name {
            return Err(format!("{name} is {to} already"));
        }
        Ok(Self {
            from,
            to: ground.slots.of(to),
            target,
            keeps: false,
        })
    }

    pub(super) fn act(&self, row: &mut Row<'_>, slots: &Slots) -> Result<(), String> {
        if !row.has(self.from) {
            return Ok(());
        }
        if row.has(self.to) {
            return Err(format!(
                "the row has a value of {} already, which {} would replace",
                self.target.point,
                slots.name(self.from)
            ));
        }
        let value = match self.keeps {
            true => row.value(self.from).cloned(),
            false => row.take(self.from),
        };
        if let Some(value) = value {
            let quality = match self.target.has_quality {
                true => value.quality,
                false => NO_QUALITY,
            };
            row.add(self.to, &self.target, value.cell, quality);
        }
        Ok(())
    }
}
