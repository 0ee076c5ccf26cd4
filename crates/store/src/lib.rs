//! The durable store of Backtide. Synchronous, files only; knows the model, nothing of MQTT, HTTP
//! or Kafka.
//!
//! The story, left to right:
//!
//! ```text
//! submit ─▶ committer ─▶ journal (one fdatasync per group) ─▶ memtable ─▶ done(Committed)
//!                                       │                        │ flush
//!                                    follow(cursor)              ▼
//!                     read ◀───────────────────────────── Parquet segments ◀─ merge, classify
//! ```

mod background;
mod commit;
mod committer;
pub mod disk;
mod error;
mod health;
mod journal;
mod library;
mod memtable;
mod options;
mod queue;
mod read;
mod store;
mod watch;
mod weight;

pub use commit::{
    Commit, CommitError, Committed, CompactError, Done, Origin, Part, Receipt, Redrive, Refused,
    RefusedItem, Sequence,
};
pub use error::OpenError;
pub use health::State;
pub use journal::{
    DecodeError, FollowError, Followed, FollowedSome, Keys, PartKind, Recovery, Salvaged, Wanted,
    decode_frame,
};
pub use library::{
    AttributePlace, AttributeRange, ChronicleStats, Conflict, ConflictFilter, ConflictPage,
    ConflictRow, ConflictRows, ConflictSide, DeviceSpan, EventPlace, EventRange, Expirable,
    ExpirableRecords, Floor, FlushError, Going, Keep, Latest, LibraryStats, Lineage, PointKeep,
    RecordKeep, StoredAttribute, StoredEvent, Thin, Thinning, View, quality_column, value_column,
};
pub use memtable::MemtableStats;
pub use options::Options;
pub use read::{Lead, Order, Range, ReadError, Slabs};
pub use store::{HeldLog, Stats, Store, salvage};
pub use watch::Watch;
