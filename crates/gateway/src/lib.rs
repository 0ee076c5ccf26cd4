//! Everything of Backtide that talks: doors, ingest, queries, command line.

pub mod channel_log;
