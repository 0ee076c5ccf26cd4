//! `expression`: a point's value, computed from the points of the row.

use std::sync::Arc;

use backtide_model::ElementName;

use super::{
    super::{expression::Expression, slots::Row},
    Ground, Made, Target,
};

#[derive(Debug)]
pub(in crate::policy) struct Compute {
    pub(in crate::policy) slot: usize,
    target: Arc<Target>,
    inputs: Vec<usize>,
    expression: Box<Expression>,
}

impl Compute {
    pub(super) fn new(
        slot: usize,
        name: &ElementName,
        text: &str,
        ground: &mut Ground<'_>,
    ) -> Made<Self> {
        let target = ground.target(name)?;
        let expression = Box::new(Expression::compile(text)?);
        let (inputs, types) = ground.inputs(&expression.inputs)?;
        expression.try_types(&types, &target.data_type)?;
        let compute = Self {
            slot,
            target,
            inputs,
            expression,
        };
        Ok((compute, format!("= {text}")))
    }

    pub(super) fn act(&self, row: &mut Row<'_>) -> Result<(), String> {
        // A row that lacks an input is none of its business.
        let Some(cells) = row.cells(&self.inputs) else {
            return Ok(());
        };
        let computed = self
            .expression
            .compute(cells.into_iter(), &self.target.data_type)?;
        match computed {
            Some(cell) => row.put(self.slot, &self.target, cell),
            None => row.drop_value(self.slot),
        }
        Ok(())
    }
}
