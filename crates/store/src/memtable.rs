//! What is durable in the journal and waits in memory for its segment.

use std::sync::Arc;

use backtide_model::{Batch, ProductKey};

use crate::{Origin, Sequence};

/// The points of one commit. Shared between memtable, readers and the flush; never changed.
#[derive(Debug)]
pub struct Entry {
    pub sequence: Sequence,
    pub product: ProductKey,
    pub origin: Arc<Origin>,
    pub batch: Batch,
}
