//! A table's rows as DataFusion takes them. Reading blocks: each scan has a thread, which stops when
//! nobody takes any more.

use std::{fmt, sync::Arc, thread};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    common::{DataFusionError, Result, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};

use super::error::unreadable;

/// Batches that are read before they are taken.
const AHEAD: usize = 2;

/// Batches of one read.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch>>>;

/// What a scan reads. Its display is what EXPLAIN shows of it.
pub(super) trait Source: fmt::Debug + fmt::Display + Send + Sync {
    /// Begins to read; called on the scan's thread.
    ///
    /// # Errors
    /// What cannot be read.
    fn batches(&self) -> Result<Batches>;
}

/// A read of a table.
#[derive(Debug)]
pub(super) struct Scan {
    source: Arc<dyn Source>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    /// Threads that scans may have.
    readers: Arc<Semaphore>,
    metrics: ExecutionPlanMetricsSet,
}

impl Scan {
    /// `schema` is that of the source's batches, `orderings` what their rows are sorted by.
    pub(super) fn new(
        source: Arc<dyn Source>,
        schema: SchemaRef,
        orderings: Vec<LexOrdering>,
        readers: Arc<Semaphore>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(Arc::clone(&schema), orderings),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            source,
            schema,
            properties: Arc::new(properties),
            readers,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Starts the thread.
    fn read(&self) -> Result<mpsc::Receiver<Result<RecordBatch>>> {
        let reader = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| {
            let what = "so many tables are read at once that no more can be";
            DataFusionError::ResourcesExhausted(what.to_owned())
        })?;
        let (give, taken) = mpsc::channel(AHEAD);
        let source = Arc::clone(&self.source);
        let read = move || {
            let _reader = reader;
            match source.batches() {
                Ok(mut batches) => {
                    while batches
                        .next()
                        .is_some_and(|b| give.blocking_send(b).is_ok())
                    {}
                }
                // Nobody is there to hear of it any more.
                Err(error) => drop(give.blocking_send(Err(error))),
            }
        };
        thread::Builder::new()
            .name("sql-read".to_owned())
            .spawn(read)
            .map_err(unreadable)?;
        Ok(taken)
    }
}

impl DisplayAs for Scan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scan: {}", self.source)
    }
}

impl ExecutionPlan for Scan {
    fn name(&self) -> &'static str {
        "Scan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => internal_err!("a scan has no children"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => internal_err!("a scan has no children"),
        }
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = stream::unfold(self.read()?, async |mut taken| {
            Some((taken.recv().await?, taken))
        });
        let counted = batches.inspect(move |batch| {
            if let Ok(batch) = batch {
                metrics.record_output(batch.num_rows());
            }
        });
        let stream = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), counted);
        Ok(Box::pin(stream))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
