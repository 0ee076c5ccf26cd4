//! Everything of Backtide that talks: the doors, and what stands behind them.

pub mod channel_log;
pub mod cli;
pub mod clock;
pub mod http;
pub mod pool;
pub mod quarantine;
pub mod query;
pub mod registry;
pub mod secrets;
