//! Everything of Backtide that talks: the doors, and what stands behind them.

pub mod cli;
pub mod clock;
pub mod http;
pub mod pool;
pub mod registry;
pub mod secrets;
