//! The journal: what is answered stands here first, and stays readable as the committed log.
//!
//! A file is `journal/<first sequence>.btj`, preallocated. A group commit is one frame, one write,
//! one fdatasync; a group therefore exists whole or not at all. `docs/store-format.md` has every
//! byte and the rules of recovery.

mod attributes;
mod events;
mod file;
mod frame;
mod keys;
mod log;
mod names;
mod origin;
mod points;
mod record;
mod recover;
mod refused;
mod salvage;
mod wire;
mod writer;

pub(crate) use frame::FrameBuilder;
pub use frame::decode_frame;
pub use keys::Keys;
pub(crate) use log::{Choice, Log};
pub use log::{FollowError, Followed, FollowedSome};
pub(crate) use origin::{marks, unmark};
pub(crate) use points::check as check_batch;
pub use record::{PartKind, Wanted};
pub use recover::Recovery;
pub(crate) use recover::{Place, open};
pub use salvage::Salvaged;
pub(crate) use salvage::salvage;
pub use wire::DecodeError;
pub(crate) use writer::{AppendError, Writer};
