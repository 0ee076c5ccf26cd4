//! The door as its clients see it: a small house that keeps what it is given, and clients that
//! speak bytes.

mod caps;
mod flows;
mod limits_and_faults;
mod sessions;
mod world;
