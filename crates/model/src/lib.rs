//! The words of Backtide and the rules between them: names, values, thing models, topics,
//! envelopes, codes, login strings and the check of a message against its model.
//!
//! Nothing here does I/O: no clock, no file, no socket. Everything is a function of its arguments,
//! so that everything can be tested by example and by property.

mod batch;
mod code;
mod names;
mod types;

pub use batch::{Batch, BatchBuilder, Cell, Column, ConflictPolicy, NO_QUALITY, Presence, Values};
pub use code::Code;
pub use names::{
    AssetId, ChannelName, ClientId, DeviceKey, ElementName, NameError, ObjectName, ProductKey,
};
pub use types::Storage;
