//! The store over disks that fail, lie and lose power.

mod crash;
mod damage;
mod fault_disk;
mod faults;
mod store;
mod world;
