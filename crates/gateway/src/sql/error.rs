//! Why SQL is not answered, told once for every door: a stable word, PostgreSQL's code, what
//! happened, how to fix it.

use std::time::Duration;

use datafusion::{
    arrow::error::ArrowError,
    common::{DataFusionError, SchemaError},
};

/// How DataFusion says that a query has its share of the disk: by naming its own setting.
const SPILL_FULL: &str = "max_temp_directory_size";

/// Why a statement has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    #[error("{0}")]
    Syntax(String),
    #[error("{}", told(.0))]
    Plan(DataFusionError),
    #[error("{0} is refused: SQL only reads here")]
    Writes(String),
    #[error("{0} statements were given, and one is answered")]
    Statements(usize),
    #[error("the statement has {bytes} bytes, and {bytes_max} is the most")]
    Long { bytes: usize, bytes_max: usize },
    #[error("{caller} has {own} queries under way")]
    TooMany { caller: String, own: usize },
    #[error("the query took longer than {} s", .0.as_secs_f64())]
    Time(Duration),
    #[error("the query needs more memory or disk than it may have: {0}")]
    Memory(String),
    #[error("the query was cancelled")]
    Cancelled,
    #[error("the gateway is closing")]
    Closing,
    /// The store or a file of the gateway, in words for the log.
    #[error("the store cannot be read")]
    Unreadable(String),
}

impl SqlError {
    /// One stable word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Syntax(_) | Self::Plan(_) | Self::Statements(_) | Self::Long { .. } => "sql",
            Self::Writes(_) => "read-only",
            Self::TooMany { .. } => "too-many",
            Self::Time(_) => "sql-time",
            Self::Memory(_) => "sql-memory",
            Self::Cancelled => "cancelled",
            Self::Closing => "closing",
            Self::Unreadable(_) => "store",
        }
    }

    /// PostgreSQL's code for it, five characters.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Syntax(_) | Self::Statements(_) => "42601",
            Self::Plan(error) => sqlstate(error),
            Self::Writes(_) => "25006",
            Self::Long { .. } => "54000",
            Self::TooMany { .. } => "53300",
            Self::Time(_) | Self::Cancelled => "57014",
            Self::Memory(_) => "53200",
            Self::Closing => "57P01",
            Self::Unreadable(_) => "58030",
        }
    }

    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "write PostgreSQL's SQL; docs/sql.md has examples",
            Self::Plan(_) => {
                "look the names up in information_schema.columns; names with capitals stand in \
                 double quotes, texts in single ones"
            }
            Self::Writes(_) => "devices write over MQTT, people declare with apply",
            Self::Statements(_) => "send one statement at a time",
            Self::Long { .. } => "write lists of values as a join or a range",
            Self::TooMany { .. } => "wait for one to end",
            Self::Time(_) => "narrow the range of time, or aggregate in steps",
            Self::Memory(_) => {
                "narrow the range of time, select fewer columns, or sort and group by less"
            }
            Self::Cancelled => "ask again",
            Self::Closing => "ask again once it is back",
            Self::Unreadable(_) => "look at the gateway's log and at the disk it reads from",
        }
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(what) => Self::Memory(first_line(what)),
            DataFusionError::SQL(error, _) => Self::Syntax(error.to_string()),
            DataFusionError::ArrowError(error, _) => match error.as_ref() {
                ArrowError::IoError(what, _) if what.contains(SPILL_FULL) => {
                    Self::Memory("more would go to disk than sql.spill_bytes_max".to_owned())
                }
                ArrowError::IoError(what, _) => {
                    tracing::error!(error = what, "what a query puts on disk cannot be kept");
                    Self::Unreadable(what.clone())
                }
                _ => Self::Plan(error_of(error.to_string())),
            },
            DataFusionError::External(error) => match error.downcast_ref::<Unreadable>() {
                Some(Unreadable(what)) => {
                    tracing::error!(error = what, "the store cannot be read");
                    Self::Unreadable(what.clone())
                }
                None => Self::Plan(error_of(error.to_string())),
            },
            _ => Self::Plan(error),
        }
    }
}

fn error_of(text: String) -> DataFusionError {
    DataFusionError::Execution(text)
}

/// A read of the gateway's own files that failed, on its way through DataFusion.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(pub(super) String);

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(super) fn unreadable(error: impl ToString) -> DataFusionError {
    DataFusionError::External(Box::new(Unreadable(error.to_string())))
}

/// DataFusion's words, without those that are for its developers.
fn told(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Configuration(text) => text.clone(),
        root => first_line(&root.strip_backtrace()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn sqlstate(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => match **error {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            SchemaError::DuplicateQualifiedField { .. }
            | SchemaError::DuplicateUnqualifiedField { .. } => "42701",
        },
        DataFusionError::Plan(text) if text.starts_with("table '") => "42P01",
        DataFusionError::Plan(text) if text.starts_with("Invalid function") => "42883",
        DataFusionError::Plan(_) => "42601",
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => "22000",
        _ => "XX000",
    }
}
