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

mod commit;
pub mod disk;
mod memtable;
mod options;
mod read;

pub use commit::{
    Commit, CommitError, Committed, Done, Origin, Part, Receipt, Refused, RefusedItem, Sequence,
};
pub use options::Options;
pub use read::{Order, Range, ReadError, Slabs};
