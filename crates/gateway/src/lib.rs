//! Everything of Backtide that talks: the doors, and what stands behind them.

pub mod access;
pub mod alarms;
pub mod app;
pub mod application;
pub mod auth;
pub mod author;
mod bell;
pub mod channel_log;
pub mod cli;
pub mod clock;
pub mod config;
pub mod derive;
pub mod expression;
pub mod house;
pub mod http;
pub mod ingest;
pub mod kafka;
pub mod limits;
pub mod message;
mod meter;
pub mod mqtt;
pub mod policy;
pub mod pool;
#[cfg(feature = "sql")]
pub mod postgres;
pub mod quarantine;
pub mod query;
pub mod recorder;
pub mod redrive;
pub mod registry;
pub mod retention;
pub mod rules;
pub mod script;
pub mod seats;
pub mod secrets;
pub mod sink;
#[cfg(feature = "sql")]
pub mod sql;
pub mod sqlite;
pub mod store;
pub mod subscribe;
pub mod subscription;
pub mod telemetry;
pub mod template;
mod throttle;
pub mod tls;
