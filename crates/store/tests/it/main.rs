//! The store over disks that fail, lie and lose power.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod backlog;
mod chronicle;
mod crash;
mod damage;
mod fault_disk;
mod faults;
mod store;
mod thinning;
mod world;
