//! `GROUP BY device` over rows that come by device: a group is a run of rows, and is folded as one.
//!
//! ```text
//! AggregateExec over sorted devices ─▶ FoldRuns: run of rows ─▶ an accumulator for each function ─▶ a row
//! ```
//!
//! DataFusion's aggregate looks for the group of every row, though all rows of most batches are of one
//! device. Here the ends of runs are searched for, and whole runs go to the accumulators that an aggregate
//! without groups would have: what a function means stays DataFusion's affair, here nothing is computed.

use std::{fmt, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray},
        datatypes::{DataType, SchemaRef},
    },
    common::{
        Result, ScalarValue, internal_datafusion_err, internal_err,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    config::ConfigOptions,
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_expr::{PhysicalExpr, aggregate::AggregateFunctionExpr},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan,
        InputDistributionRequirements, InputOrderMode, PlanProperties, ReplaceChildrenOptions,
        aggregates::{
            AccumulatorItem, AggregateExec, AggregateInputMode, AggregateMode, AggregateOutputMode,
            aggregate_expressions, create_accumulators,
        },
        filter::batch_filter,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};

use super::history::DEVICE;

/// Groups of a batch.
const GROUPS_MAX: usize = 8_192;

/// Puts [`FoldRuns`] where an aggregate groups by the device that its rows are sorted by. Of an aggregate in
/// two steps it takes both or none: what an accumulator says of rows without values is no other's to read.
#[derive(Debug)]
pub(super) struct ByDevice;

impl PhysicalOptimizerRule for ByDevice {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let replace = |plan: Arc<dyn ExecutionPlan>| {
            Ok(match by_runs(&plan)? {
                Some(runs) => Transformed::yes(runs),
                None => Transformed::no(plan),
            })
        };
        plan.transform_up(replace).data()
    }

    fn name(&self) -> &'static str {
        "by_device"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same aggregate, whole, by runs; `None` where it is none or another one.
fn by_runs(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(runs) = FoldRuns::of(plan.as_ref()) else {
        return Ok(None);
    };
    let mode = *runs.aggregate.mode();
    match (mode.input_mode(), mode.output_mode()) {
        (AggregateInputMode::Raw, AggregateOutputMode::Final) => Ok(Some(Arc::new(runs))),
        (AggregateInputMode::Partial, AggregateOutputMode::Final) => {
            let first = first_step(runs.aggregate.input())?;
            first.map(|first| over(Arc::new(runs), first)).transpose()
        }
        (_, AggregateOutputMode::Partial) => Ok(None),
    }
}

/// The same rows between the steps of an aggregate, where the first of the two can be by runs.
fn first_step(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if plan.is::<AggregateExec>() {
        let runs = FoldRuns::of(plan.as_ref());
        let runs = runs.filter(|runs| *runs.aggregate.mode() == AggregateMode::Partial);
        return Ok(runs.map(|runs| Arc::new(runs) as _));
    }
    let [child] = plan.children()[..] else {
        return Ok(None);
    };
    let child = first_step(child)?;
    child.map(|child| over(Arc::clone(plan), child)).transpose()
}

/// A plan over a child that is as the one it had.
fn over(
    plan: Arc<dyn ExecutionPlan>,
    child: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let same = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
    plan.replace_children(vec![child], same)
}

/// An aggregate whose groups come one after the other.
#[derive(Debug)]
struct FoldRuns {
    /// What it stands for: it tells all but how rows are folded.
    aggregate: Arc<AggregateExec>,
    /// The one expression that is grouped by.
    device: Arc<dyn PhysicalExpr>,
    metrics: ExecutionPlanMetricsSet,
}

impl FoldRuns {
    /// `None` where an aggregate is another one.
    fn of(plan: &dyn ExecutionPlan) -> Option<Self> {
        let aggregate = plan.downcast_ref::<AggregateExec>()?;
        let is_plain = *aggregate.input_order_mode() == InputOrderMode::Sorted
            && aggregate.group_expr().is_single()
            && aggregate.limit_options().is_none()
            && aggregate.dynamic_expressions_produced().is_empty();
        let [(device, name)] = aggregate.group_expr().expr() else {
            return None;
        };
        let rows = aggregate.input().schema();
        let is_device = name == DEVICE
            && device.data_type(&rows).ok()? == DataType::Utf8View
            && !device.nullable(&rows).ok()?;
        (is_plain && is_device).then(|| Self {
            device: Arc::clone(device),
            aggregate: Arc::new(aggregate.clone()),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl DisplayAs for FoldRuns {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions = self.aggregate.aggr_expr().iter();
        let functions: Vec<&str> = functions.map(|function| function.name()).collect();
        write!(
            f,
            "FoldRuns: mode={:?}, gby=[{}], aggr=[{}]",
            self.aggregate.mode(),
            self.device,
            functions.join(", ")
        )
    }
}

impl ExecutionPlan for FoldRuns {
    fn name(&self) -> &'static str {
        "FoldRuns"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.aggregate.input_distribution_requirements()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.aggregate.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.aggregate.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.aggregate.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = Arc::clone(&self.aggregate).replace_children(children, options)?;
        match Self::of(plan.as_ref()) {
            Some(runs) => Ok(Arc::new(runs)),
            None => internal_err!("rows are no longer sorted by device"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, anew)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new(format!("FoldRuns[{partition}]"));
        let memory = memory.register(context.memory_pool());
        let rows = self.aggregate.input().execute(partition, context)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let fold = Fold::new(&self.aggregate, Arc::clone(&self.device))?;
        let groups = stream::try_unfold(
            (rows, fold, memory, metrics),
            async |(mut rows, mut fold, memory, metrics)| {
                let groups = loop {
                    let batch = rows.next().await.transpose()?;
                    let _timer = metrics.elapsed_compute().timer();
                    let Some(batch) = batch else {
                        break fold.end()?;
                    };
                    fold.add(&batch)?;
                    memory.try_resize(fold.bytes())?;
                    if let Some(groups) = fold.full()? {
                        break Some(groups);
                    }
                };
                let groups = groups.map(|groups| groups.record_output(&metrics));
                Ok(groups.map(|groups| (groups, (rows, fold, memory, metrics))))
            },
        );
        let schema = self.aggregate.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, groups)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The runs of one partition.
struct Fold {
    device: Arc<dyn PhysicalExpr>,
    functions: Vec<Function>,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    takes: AggregateInputMode,
    gives: AggregateOutputMode,
    schema: SchemaRef,
    /// The run that may go on.
    open: Option<Run>,
    /// Those that ended: their devices, and a column for each value that a function gives.
    devices: Vec<String>,
    columns: Vec<Vec<ScalarValue>>,
    /// What those take, about.
    ended_bytes: usize,
}

/// What an accumulator takes of rows.
struct Function {
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

struct Run {
    device: String,
    /// One for each function.
    accumulators: Vec<AccumulatorItem>,
}

impl Fold {
    fn new(aggregate: &AggregateExec, device: Arc<dyn PhysicalExpr>) -> Result<Self> {
        let aggregates = aggregate.aggr_expr().to_vec();
        let takes = aggregate.mode().input_mode();
        // Of a second step, behind the device.
        let arguments = aggregate_expressions(&aggregates, aggregate.mode(), 1)?;
        let functions = arguments.into_iter().zip(aggregate.filter_expr());
        let functions = functions.map(|(arguments, filter)| Function {
            arguments,
            // The first step left out what a filter does.
            filter: filter.clone().filter(|_| takes == AggregateInputMode::Raw),
        });
        let schema = aggregate.schema();
        Ok(Self {
            device,
            functions: functions.collect(),
            aggregates,
            takes,
            gives: aggregate.mode().output_mode(),
            open: None,
            devices: Vec::new(),
            columns: vec![Vec::new(); schema.fields().len() - 1],
            schema,
            ended_bytes: 0,
        })
    }

    /// Takes in rows that follow those before by device.
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let devices = self.device.evaluate(batch)?.into_array(rows)?;
        let devices = devices.as_string_view_opt();
        let devices = devices.ok_or_else(|| internal_datafusion_err!("devices are no views"))?;
        let mut row = 0;
        while row < rows {
            let end = end_of_run(devices, row);
            let device = devices.value(row);
            if self.open.as_ref().is_none_or(|run| run.device != device) {
                self.end_run()?;
                self.open = Some(Run {
                    device: device.to_owned(),
                    accumulators: create_accumulators(&self.aggregates)?,
                });
            }
            if let Some(run) = &mut self.open {
                run.add(&batch.slice(row, end - row), &self.functions, self.takes)?;
            }
            row = end;
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<()> {
        let Some(mut run) = self.open.take() else {
            return Ok(());
        };
        self.ended_bytes += size_of::<String>() + run.device.len();
        self.devices.push(run.device);
        let mut columns = self.columns.iter_mut();
        for accumulator in &mut run.accumulators {
            let values = match self.gives {
                AggregateOutputMode::Partial => accumulator.state()?,
                AggregateOutputMode::Final => vec![accumulator.evaluate()?],
            };
            for value in values {
                self.ended_bytes += value.size();
                match columns.next() {
                    Some(column) => column.push(value),
                    None => return internal_err!("a function gives more values than it says"),
                }
            }
        }
        Ok(())
    }

    /// A batch of groups, once there are enough for one.
    fn full(&mut self) -> Result<Option<RecordBatch>> {
        match self.devices.len() >= GROUPS_MAX {
            true => self.take(),
            false => Ok(None),
        }
    }

    /// No rows follow. `None` where there are no more groups.
    fn end(&mut self) -> Result<Option<RecordBatch>> {
        self.end_run()?;
        self.take()
    }

    fn take(&mut self) -> Result<Option<RecordBatch>> {
        if self.devices.is_empty() {
            return Ok(None);
        }
        let devices = StringViewArray::from_iter_values(self.devices.drain(..));
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(devices)];
        for column in &mut self.columns {
            arrays.push(ScalarValue::iter_to_array(column.drain(..))?);
        }
        self.ended_bytes = 0;
        let groups = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        Ok(Some(groups))
    }

    /// What it holds, about.
    fn bytes(&self) -> usize {
        let open = self.open.iter().flat_map(|run| &run.accumulators);
        let open: usize = open.map(|accumulator| accumulator.size()).sum();
        open + self.ended_bytes
    }
}

impl Run {
    /// Rows of its device.
    fn add(
        &mut self,
        rows: &RecordBatch,
        functions: &[Function],
        takes: AggregateInputMode,
    ) -> Result<()> {
        for (accumulator, function) in self.accumulators.iter_mut().zip(functions) {
            let filtered;
            let rows = match &function.filter {
                None => rows,
                Some(filter) => {
                    filtered = batch_filter(rows, filter)?;
                    &filtered
                }
            };
            let values = function.arguments.iter().map(|argument| {
                let values = argument.evaluate(rows)?;
                values.into_array(rows.num_rows())
            });
            let values = values.collect::<Result<Vec<_>>>()?;
            match takes {
                AggregateInputMode::Raw => accumulator.update_batch(&values)?,
                AggregateInputMode::Partial => accumulator.merge_batch(&values)?,
            }
        }
        Ok(())
    }
}

/// Behind the last row of the device of a row. Devices are sorted: most batches have one only, and of
/// others the end is near.
fn end_of_run(devices: &StringViewArray, row: usize) -> usize {
    let device = devices.value(row);
    let is_same = |at: usize| devices.value(at) == device;
    if is_same(devices.len() - 1) {
        return devices.len();
    }
    let mut step = 1;
    while row + step < devices.len() && is_same(row + step) {
        step *= 2;
    }
    // Within the last step.
    let (mut same, mut other) = (row + step / 2, (row + step).min(devices.len() - 1));
    while other - same > 1 {
        let middle = same.midpoint(other);
        match is_same(middle) {
            true => same = middle,
            false => other = middle,
        }
    }
    other
}
