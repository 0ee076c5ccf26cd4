//! The names that steps mention, numbered; and a row whose values are found by those numbers.

use std::collections::HashMap;

use backtide_model::{Cell, ElementName, NO_QUALITY, PointValue};

use super::step::Target;

/// Names up to which comparing is quicker than hashing.
const COMPARED_MAX: usize = 8;

/// A slot for each name.
#[derive(Debug, Default)]
pub(super) struct Slots {
    names: Vec<ElementName>,
    /// Empty where there are few names.
    by_name: HashMap<ElementName, usize>,
}

impl Slots {
    /// The slot of a name, which has one from now on.
    pub(super) fn of(&mut self, name: &ElementName) -> usize {
        match self.names.iter().position(|known| known == name) {
            Some(slot) => slot,
            None => {
                self.names.push(name.clone());
                self.names.len() - 1
            }
        }
    }

    /// There will be no more names.
    pub(super) fn close(&mut self) {
        if self.names.len() > COMPARED_MAX {
            self.by_name = self.names.iter().cloned().zip(0..).collect();
        }
    }

    pub(super) fn find(&self, name: &ElementName) -> Option<usize> {
        if self.by_name.is_empty() {
            self.names.iter().position(|known| known == name)
        } else {
            self.by_name.get(name).copied()
        }
    }

    pub(super) fn name(&self, slot: usize) -> &ElementName {
        &self.names[slot]
    }
}

/// A row in the works.
pub(super) struct Row<'r> {
    values: &'r mut Vec<PointValue>,
    /// Where the value of each slot is.
    at: Vec<Option<usize>>,
    /// Values to be taken out at the end, so that places stay.
    gone: Vec<usize>,
    reduced: u32,
}

impl<'r> Row<'r> {
    /// `None` where it has none of the names.
    pub(super) fn new(slots: &Slots, values: &'r mut Vec<PointValue>) -> Option<Self> {
        let mut at: Vec<Option<usize>> = Vec::new();
        let mut gone = Vec::new();
        for (place, value) in values.iter().enumerate() {
            let Some(slot) = slots.find(&value.point) else {
                continue;
            };
            if at.is_empty() {
                at = vec![None; slots.names.len()];
            }
            // The same point twice: the last one counts.
            gone.extend(at[slot].replace(place));
        }
        (!at.is_empty()).then_some(Self {
            values,
            at,
            gone,
            reduced: 0,
        })
    }

    pub(super) fn has(&self, slot: usize) -> bool {
        self.at[slot].is_some()
    }

    pub(super) fn value(&mut self, slot: usize) -> Option<&mut PointValue> {
        let place = self.at[slot]?;
        self.values.get_mut(place)
    }

    /// The cells of slots; `None` where one of them has no value.
    pub(super) fn cells(&self, slots: &[usize]) -> Option<Vec<&Cell>> {
        let cell = |slot: &usize| Some(&self.values.get(self.at[*slot]?)?.cell);
        slots.iter().map(cell).collect()
    }

    /// Puts a cell into a slot, whose quality stays if it had a value.
    pub(super) fn put(&mut self, slot: usize, target: &Target, cell: Cell) {
        match self.at[slot] {
            Some(place) => self.values[place].cell = cell,
            None => self.add(slot, target, cell, NO_QUALITY),
        }
    }

    /// Puts a value into a slot that has none.
    pub(super) fn add(&mut self, slot: usize, target: &Target, cell: Cell, quality: u8) {
        self.values.push(PointValue {
            point: target.point.clone(),
            conflict: target.conflict,
            cell,
            quality,
        });
        self.at[slot] = Some(self.values.len() - 1);
    }

    /// Takes the value of a slot out; it is not counted as dropped.
    pub(super) fn take(&mut self, slot: usize) -> Option<PointValue> {
        let place = self.at[slot].take()?;
        self.gone.push(place);
        self.values.get(place).cloned()
    }

    /// Drops the value of a slot, because the user said so.
    pub(super) fn drop_value(&mut self, slot: usize) {
        if let Some(place) = self.at[slot].take() {
            self.gone.push(place);
            self.reduced += 1;
        }
    }

    /// No later step has anything to say of a slot's value.
    pub(super) fn forget(&mut self, slot: usize) {
        self.at[slot] = None;
    }

    /// How many values were dropped; what is gone is taken out.
    pub(super) fn end(mut self) -> u32 {
        self.gone.sort_unstable();
        for place in self.gone.into_iter().rev() {
            self.values.swap_remove(place);
        }
        self.reduced
    }
}
