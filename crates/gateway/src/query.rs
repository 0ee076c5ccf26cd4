//! Reading history: what is asked, the rows of the store, and how they are written.
//!
//! ```text
//! parameters ─▶ Question (names checked against the registry) ─▶ store.read ─▶ slabs ─▶ RowWriter
//!            └▶ EventRange, AttributeRange (likewise) ─▶ store.events, store.attributes ─▶ LineWriter
//! ```

mod attributes;
mod cursor;
mod events;
mod extremes;
mod lines;
mod parquet;
mod question;
mod readings;
mod rows;
mod time;

pub use attributes::attributes_asked;
pub use cursor::Cursor;
pub use events::events_asked;
pub use extremes::{Extremes, TooManySeries};
pub use lines::{Line, LineWriter};
pub use parquet::ParquetRows;
pub use question::{Asked, AskedPoint, Question, QuestionError, is_json, product_of};
pub use readings::{Reading, number, readings};
pub use rows::{RowError, RowForm, RowWriter, write_cell};
pub use time::{TimeError, moment};
