//! Reading history: what is asked, the rows of the store, and how they are written.
//!
//! ```text
//! parameters ─▶ Question (names checked against the registry) ─▶ store.read ─▶ slabs ─▶ RowWriter
//! ```

mod cursor;
mod parquet;
mod question;
mod rows;
mod time;

pub use cursor::Cursor;
pub use parquet::ParquetRows;
pub use question::{Asked, AskedPoint, Question, QuestionError, is_json, product_of};
pub use rows::{RowError, RowForm, RowWriter, write_cell};
pub use time::{TimeError, moment};
