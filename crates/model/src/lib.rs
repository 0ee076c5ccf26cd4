//! The words of Backtide and the rules between them: names, values, thing models, topics,
//! envelopes, codes, login strings and the check of a message against its model.
//!
//! Nothing here does I/O: no clock, no file, no socket. Everything is a function of its arguments,
//! so that everything can be tested by example and by property.

mod batch;
mod check;
mod code;
mod content;
mod envelope;
mod login;
mod names;
mod process;
mod thing;
mod topic;
mod types;

pub use batch::{Batch, BatchBuilder, Cell, Column, ConflictPolicy, NO_QUALITY, Presence, Values};
pub use check::{Checked, Mode, Oldest, Rejection, Rules, TimeRule, TooOld, check};
pub use code::Code;
pub use content::{AttributeValue, Content, Occurrence};
pub use envelope::{Envelope, Fault, MessageId, open};
pub use login::{Compression, ConnectionStrings, Credentials, LoginError, SignMethod};
pub use names::{AssetId, ChannelName, DeviceKey, ElementName, NameError, ObjectName, ProductKey};
pub use process::{Objection, PointValue, Process, Processed};
pub use thing::{Attribute, ElementFile, Event, Level, Measurepoint, Model, Signal};
pub use topic::{Items, Kind, Topic, TopicError};
pub use types::{DataType, ItemType, Member, Storage};
