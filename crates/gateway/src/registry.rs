//! What has been declared.

mod kind;

pub use kind::Kind;
