//! What the load generator and the peers' writer share, in the order in which a message meets it:
//! the data, the messages made of it, the protocol, a connection, and what is measured beside them.

pub mod link;
pub mod message;
pub mod mqtt;
pub mod order;
pub mod process;
pub mod series;
pub mod subscription;
pub mod truth;
