//! Files of history as rows: CSV, NDJSON and Parquet, wide and long, packed or not.
//!
//! ```text
//! bytes ─▶ Source (Mapping, Points, Clockwork) ─▶ Row, Item ─▶ Builder ─▶ messages of a channel
//! ```
//!
//! Whoever carries them, the same file makes the same messages. Nothing is mended on the way: what
//! does not fit goes as it is, and is refused where everything else is.

pub mod mapping;
pub mod message;
pub mod moment;
mod render;
pub mod source;
pub mod value;
