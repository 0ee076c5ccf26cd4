//! The rows of an answer: they come until they end, the time is over or the gateway closes.

use std::{pin::Pin, time::Duration};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    execution::SendableRecordBatchStream,
};
use futures::StreamExt;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{SqlError, UnderWay};

/// Rows, a batch at a time. Dropping them ends the query.
pub struct Rows {
    schema: SchemaRef,
    stream: SendableRecordBatchStream,
    deadline: Pin<Box<Sleep>>,
    most: Duration,
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
            schema: stream.schema(),
            stream,
            deadline: Box::pin(sleep_until(deadline)),
            most,
            closing,
            begun: Instant::now(),
            left_at: None,
            waited: Duration::ZERO,
            _under_way: under_way,
        }
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The next batch; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, SqlError>> {
        if let Some(left_at) = self.left_at.take() {
            self.waited += left_at.elapsed();
        }
        let next = tokio::select! {
            biased;
            () = self.closing.cancelled() => Some(Err(SqlError::Closing)),
            () = &mut self.deadline => Some(Err(SqlError::Time(self.most))),
            batch = self.stream.next() => batch.map(|batch| batch.map_err(SqlError::from)),
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
