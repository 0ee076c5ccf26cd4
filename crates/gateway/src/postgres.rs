//! The PostgreSQL door: SQL for psql, Grafana, DBeaver, pandas and whoever else speaks PostgreSQL's
//! wire protocol, version 3. It only reads.
//!
//! ```text
//! socket ─▶ TLS, where there is a certificate ─▶ login: token or user ─▶ session ─▶ sql::Engine ─▶ rows
//! ```
//!
//! The protocol is pgwire's; what clients ask of `pg_catalog` is answered by datafusion-pg-catalog. All
//! of it runs on SQL's own threads.

mod cancel;
mod catalogue;
mod cursor;
mod door;
mod fault;
mod hooks;
mod login;
mod session;
mod settings;
mod statements;
mod transactions;

pub use door::{BindError, Door, bind};
