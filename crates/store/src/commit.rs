//! What is committed, and the proof that it was.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use backtide_model::{AttributeValue, Batch, ChannelName, Code, Occurrence, ProductKey};

/// The position of a commit in the committed log: 1, 2, 3, … without gaps, in order of commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

/// Where a commit came from: what lineage, receipts and the channel log need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub channel: ChannelName,
    /// The MQTT client id, or another name of the sender.
    pub client: Arc<str>,
    pub topic: Arc<str>,
    /// The `id` of the request as JSON text, or empty.
    pub message_id: Box<str>,
    /// The packet id of a QoS 2 publish: a persistent session rebuilds its set from these.
    pub packet_id: Option<NonZeroU16>,
    /// The revision of the policies that processed its values; `None` where none touched them.
    pub policies: Option<NonZeroU32>,
    /// Wall time of arrival, milliseconds since 1970 UTC.
    pub arrived_ms: i64,
}

/// One message's outcome: what is stored of it and what is refused, made durable together.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    pub origin: Origin,
    pub product: ProductKey,
    pub parts: Vec<Part>,
    /// The refusal that this commit tries again; `None` for a message that has just arrived.
    pub redrive: Option<Redrive>,
}

impl Commit {
    /// How much memory it takes: what the bounds of [`Options`](crate::Options) count.
    pub fn weight_bytes(&self) -> usize {
        crate::weight::commit(self)
    }
}

/// Names a refusal in the log: the commit that holds it, and which of its refused parts.
///
/// What a re-driven commit stores takes the place of that commit in the order of commits: it loses
/// to whatever was committed after it, and its lineage is that of the original arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redrive {
    pub order: Sequence,
    pub part: u32,
    /// Wall time of the try, milliseconds since 1970 UTC; the origin has that of the arrival.
    pub tried_ms: i64,
}

/// A part of a message's outcome.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Points(Batch),
    Events(Vec<Occurrence>),
    Attributes(Vec<AttributeValue>),
    Refused(Refused),
}

/// What goes to quarantine: bytes that can be driven again, and why they were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: Code,
    /// The payload, or in lenient mode an envelope with the refused items alone, or the first
    /// 4 KiB of a payload over the limit.
    pub raw: Box<[u8]>,
    /// Bytes of the whole payload as it arrived.
    pub payload_bytes: u64,
    /// SHA-256 of the whole payload as it arrived.
    pub payload_sha256: [u8; 32],
    pub items: Vec<RefusedItem>,
    /// Refusals found beyond `items`, which is capped.
    pub more: u32,
}

/// One reason, with its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedItem {
    /// Position in `params`; `None` where the whole message is meant.
    pub index: Option<u32>,
    pub device: Option<Box<str>>,
    /// The point, attribute, event or `event.output`.
    pub point: Option<Box<str>>,
    /// The version of the script that could not decode the message; it excludes a point.
    pub script_version: Option<u32>,
    pub code: Code,
    /// What, where, how to fix.
    pub message: Box<str>,
}

/// Names a stored message to its sender: `<store id>-<sequence>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt(String);

impl Receipt {
    pub(crate) fn new(store_id: u32, sequence: Sequence) -> Self {
        Self(format!("{store_id:08x}-{}", sequence.0))
    }

    /// The commit that a receipt of the store `store_id` names; `None` where the text is none.
    pub(crate) fn read(text: &str, store_id: u32) -> Option<Sequence> {
        let (store, sequence) = text.split_once('-')?;
        let sequence = Sequence(sequence.parse().ok()?);
        (store == format!("{store_id:08x}") && sequence.0 > 0).then_some(sequence)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Proof that a commit would survive power loss. Only the store makes one, after the fdatasync that
/// covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    sequence: Sequence,
    receipt: Receipt,
}

impl Committed {
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    pub(crate) fn new(store_id: u32, sequence: Sequence) -> Self {
        Self {
            sequence,
            receipt: Receipt::new(store_id, sequence),
        }
    }
}

/// Why a commit was not made. None of its parts is stored, then or later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A write or fsync failed: what is on disk is unknown until a restart.
    #[error("the store is poisoned by a failed write ({reason}); restart to recover")]
    Poisoned { reason: Arc<str> },
    #[error("the disk is full: {free_bytes} bytes free, {reserve_bytes} are kept in reserve")]
    DiskFull { free_bytes: u64, reserve_bytes: u64 },
    /// The same point was stored as another type before.
    #[error("point {point} of product {product} is stored as {stored:?}, not as {given:?}")]
    StorageChanged {
        product: ProductKey,
        point: Box<str>,
        stored: backtide_model::Storage,
        given: backtide_model::Storage,
    },
    /// A batch breaks an invariant of [`Batch`]: a fault of the caller.
    #[error("the commit is malformed: {reason}")]
    Malformed { reason: &'static str },
    #[error("the submission takes {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// More was submitted than the queue holds; the caller must bound what it has in flight.
    #[error("the commit queue is full")]
    QueueFull,
    #[error("the store is closing")]
    Closing,
}

/// Why the store was not compacted.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    #[error(transparent)]
    Unavailable(#[from] CommitError),
    /// Segments stay as they are.
    #[error("segments were not merged: {reason}")]
    Merge { reason: Arc<str> },
}

/// Called once, on the committer's thread, with one result for each commit of the submission, in
/// order. Must be quick and must not block.
pub type Done = Box<dyn FnOnce(Vec<Result<Committed, CommitError>>) + Send>;
