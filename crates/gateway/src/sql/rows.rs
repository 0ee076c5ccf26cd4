//! The rows of an answer: they come until they end, the time is over or the gateway closes.

use std::{pin::Pin, time::Duration};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    common::DataFusionError,
    execution::SendableRecordBatchStream,
};
use futures::StreamExt;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    SqlError, UnderWay,
    arrow::{as_shown, shown},
};

/// Rows, a batch at a time. Dropping them ends the query.
pub struct Rows {
    schema: SchemaRef,
    stream: SendableRecordBatchStream,
    deadline: Pin<Box<Sleep>>,
    most: Duration,
    /// The time that its reader takes is not its own.
    is_patient: bool,
    closing: CancellationToken,
    begun: Instant,
    /// How long the query stood still because its reader did.
    left_at: Option<Instant>,
    waited: Duration,
    _under_way: UnderWay,
}

impl Rows {
    pub(super) fn new(
        stream: SendableRecordBatchStream,
        deadline: Instant,
        most: Duration,
        closing: CancellationToken,
        under_way: UnderWay,
    ) -> Self {
        Self {
            schema: shown(&stream.schema()),
            stream,
            deadline: Box::pin(sleep_until(deadline)),
            most,
            is_patient: false,
            closing,
            begun: Instant::now(),
            left_at: None,
            waited: Duration::ZERO,
            _under_way: under_way,
        }
    }

    /// The same rows, for a reader that takes its time: only what the query itself takes counts.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.is_patient = true;
        self.left_at = Some(Instant::now());
        self
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn shown(&self, batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
        Ok(as_shown(batch, &self.schema).map_err(DataFusionError::from)?)
    }

    /// The next batch; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, SqlError>> {
        if let Some(left_at) = self.left_at.take() {
            let waited = left_at.elapsed();
            self.waited += waited;
            if self.is_patient {
                let deadline = self.deadline.deadline() + waited;
                self.deadline.as_mut().reset(deadline);
            }
        }
        let next = tokio::select! {
            biased;
            () = self.closing.cancelled() => Some(Err(SqlError::Closing)),
            () = &mut self.deadline => Some(Err(SqlError::Time(self.most))),
            batch = self.stream.next() => batch.map(|batch| self.shown(&batch?)),
        };
        self.left_at = Some(Instant::now());
        next
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        let worked = self.begun.elapsed().saturating_sub(self.waited);
        metrics::histogram!("backtide_sql_seconds").record(worked);
    }
}
