//! Everything of Backtide that talks: the doors, and what stands behind them.

pub mod alarms;
pub mod app;
pub mod auth;
pub mod channel_log;
pub mod cli;
pub mod clock;
pub mod config;
pub mod house;
pub mod http;
pub mod ingest;
pub mod limits;
pub mod mqtt;
pub mod pool;
pub mod quarantine;
pub mod query;
pub mod recorder;
pub mod redrive;
pub mod registry;
pub mod script;
pub mod secrets;
pub mod sqlite;
pub mod store;
pub mod subscribe;
pub mod subscription;
pub mod telemetry;
mod throttle;
pub mod tls;
