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

pub mod commit;
pub mod read;

pub use commit::{Commit, CommitError, Committed, Done, Origin, Part, Receipt, Refused, RefusedItem, Sequence};
