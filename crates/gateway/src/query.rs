//! Reading history: what is asked, the rows of the store, and how they are written.
//!
//! ```text
//! parameters ─▶ Question (names checked against the registry) ─▶ store.read ─▶ slabs ─▶ RowWriter
//!            ├▶ aggregate::Plan ─▶ store.read ─▶ aggregate::Fold ─▶ batches ─▶ RowWriter, FileRows
//!            └▶ EventRange, AttributeRange (likewise) ─▶ store.events, store.attributes ─▶ LineWriter
//! ```

pub mod aggregate;
mod attributes;
mod cells;
mod columns;
mod cursor;
mod events;
mod extremes;
mod files;
mod filter;
mod lines;
mod long;
mod question;
mod readings;
mod records;
mod rows;
mod shape;
mod time;

pub use attributes::attributes_asked;
pub use columns::OutColumn;
use columns::{DEVICE, TIME};
pub use cursor::Cursor;
pub use events::events_asked;
pub use extremes::{Extremes, TooManySeries};
pub use files::{FileError, FileRows};
pub use filter::{Filter, FilterError};
pub use lines::{Line, LineWriter, came_columns, slab_of_lines};
pub use long::Long;
pub use question::{
    Asked, AskedPoint, Question, QuestionError, asked_point, declared_points, is_json, product_of,
};
pub use readings::{Reading, number, readings};
pub use records::{longs, names, texts};
pub use rows::{RowError, RowForm, RowWriter, write_cell};
pub use time::{TimeError, moment, moment_in, zone};
