//! Data parsing scripts: JavaScript that turns raw bytes into envelopes, and replies into bytes.
//!
//! ```text
//! Scripts::run ─▶ queue (a turn for each script) ─▶ thread ─▶ worker process ─▶ sandbox (QuickJS)
//!                 breaker: pauses what hangs          └ watches the worker's CPU clock, kills, starts anew
//! ```
//!
//! An engine's own time limit proved to be none, so the limit that counts is a process that can be
//! killed. It must never run a script in this process, never wait for one without a bound, and
//! never lose a call: who was only waiting behind a killed one is run again.

mod breaker;
mod dialect;
mod golden;
mod input;
mod plain;
mod pool;
mod process;
mod program;
mod queue;
mod rows;
mod sandbox;
mod wire;
mod worker;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use dialect::{Device, Dialect, FPort, Mapping, Payload, ReplyForm, Time, TimeUnit};
pub use golden::{Golden, Verdict, bytes_of};
pub use input::Input;
pub use plain::{NotPlain, Plain, Value as PlainValue};
pub use pool::Scripts;
pub use process::WorkerCommand;
pub use program::{Program, State};
pub use rows::{Output, Rows, SaidOfRow};
pub use wire::Functions;
pub use worker::work;

/// What a call asks of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Bytes to the text of an envelope.
    Decode,
    /// The text of a reply or command to bytes.
    Encode,
}

/// One run of a script's function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub operation: Operation,
    /// Bytes to decode, or JSON text to encode.
    pub input: Bytes,
    /// What the script's clock says: the time of receipt, milliseconds since 1970 UTC.
    pub time_ms: i64,
}

/// What a caller wants to know beside the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    #[default]
    Outcome,
    /// Console output and memory too: a test run.
    Everything,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// JSON text of a decode, bytes of an encode.
    pub outcome: Result<Bytes, Failure>,
    /// CPU time of the worker.
    pub cpu_us: u32,
    /// With [`Detail::Everything`].
    pub console: Box<str>,
    /// The script's heap behind the call, with [`Detail::Everything`].
    pub heap_bytes: u64,
}

impl Done {
    /// A call that never reached a worker, or that none survived.
    fn failed(failure: Failure) -> Self {
        Self {
            outcome: Err(failure),
            cpu_us: 0,
            console: Box::default(),
            heap_bytes: 0,
        }
    }
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub cause: Cause,
    /// What happened, in lower case unless the script's own words.
    pub message: String,
    /// Of the script's source, from 1; absent where none is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The source is no script.
    Syntax,
    /// The function that the dialect names is not there.
    Missing,
    /// The script threw, or said that it cannot decode.
    Threw,
    /// The result is not what the dialect promises.
    Result,
    /// The soft limit of CPU time.
    Time,
    /// The hard limit: the worker was killed.
    Killed,
    /// The limit of memory or stack.
    Memory,
    /// The worker died of the call, twice.
    Crashed,
    /// The breaker holds the script.
    Paused,
    /// No worker can be started: nothing was tried.
    Unavailable,
}

impl Cause {
    /// The word of a metric's label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Missing => "missing",
            Self::Threw => "threw",
            Self::Result => "result",
            Self::Time => "time",
            Self::Killed => "killed",
            Self::Memory => "memory",
            Self::Crashed => "crashed",
            Self::Paused => "paused",
            Self::Unavailable => "unavailable",
        }
    }

    /// The script could not even be loaded.
    const fn is_of_loading(self) -> bool {
        matches!(
            self,
            Self::Syntax | Self::Missing | Self::Unavailable | Self::Killed | Self::Crashed
        )
    }

    /// The call took what others wait for.
    const fn is_over_limit(self) -> bool {
        matches!(
            self,
            Self::Time | Self::Killed | Self::Memory | Self::Crashed
        )
    }
}

impl Failure {
    fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
            line: None,
            column: None,
        }
    }
}

impl Failure {
    fn is_of_loading(&self) -> bool {
        self.cause.is_of_loading()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}, column {}: ", self.column.unwrap_or(1))?;
        }
        f.write_str(&self.message)
    }
}

/// Workers that none can be started of: for tests that run no script.
#[cfg(test)]
pub(crate) fn of_test() -> Scripts {
    let command = WorkerCommand {
        program: "/bin/false".into(),
        arguments: Vec::new(),
    };
    Scripts::start(&command, &crate::limits::Scripts::default()).expect("threads can be started")
}
