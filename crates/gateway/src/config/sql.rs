//! SQL and its PostgreSQL door.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{
    ConfigError,
    check::{at_least, require},
};
use crate::limits;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSql {
    threads: usize,
    queries_max: usize,
    queries_per_caller_max: usize,
    memory_bytes_max: usize,
    spill_bytes_max: u64,
    query_s: u64,
}

impl Default for RawSql {
    fn default() -> Self {
        let limits = limits::Sql::default();
        Self {
            threads: limits.threads,
            queries_max: limits.queries_max,
            queries_per_caller_max: limits.queries_per_caller_max,
            memory_bytes_max: limits.memory_bytes_max,
            spill_bytes_max: limits.spill_bytes_max,
            query_s: limits.query_s,
        }
    }
}

impl RawSql {
    pub(super) fn check(&self, postgres: &RawPostgres) -> Result<limits::Sql, ConfigError> {
        at_least("sql.threads", Some(self.threads), 1)?;
        at_least("sql.queries_max", Some(self.queries_max), 1)?;
        let per_caller = self.queries_per_caller_max;
        at_least("sql.queries_per_caller_max", Some(per_caller), 1)?;
        at_least(
            "sql.memory_bytes_max",
            Some(self.memory_bytes_max),
            16 << 20,
        )?;
        at_least("sql.query_s", Some(self.query_s), 1)?;
        let connections = postgres.connections_max;
        at_least("postgres.connections_max", Some(connections), 1)?;
        Ok(limits::Sql {
            threads: self.threads,
            queries_max: self.queries_max,
            queries_per_caller_max: per_caller,
            memory_bytes_max: self.memory_bytes_max,
            spill_bytes_max: self.spill_bytes_max,
            query_s: self.query_s,
            connections_max: connections,
            ..limits::Sql::default()
        })
    }
}

/// On when an address is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPostgres {
    pub(super) listen: Option<SocketAddr>,
    connections_max: usize,
}

impl Default for RawPostgres {
    fn default() -> Self {
        Self {
            listen: None,
            connections_max: limits::Sql::default().connections_max,
        }
    }
}

impl RawPostgres {
    pub(super) fn check(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let is_served = self.listen.is_none() || cfg!(feature = "sql");
        require("postgres.listen", is_served, || {
            "this backtide is built without SQL; take a released binary, or build one with \
             `cargo build --release --features sql`"
                .into()
        })?;
        Ok(self.listen)
    }
}
