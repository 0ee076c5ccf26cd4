//! The command line: what `backtide` understands, and what its answers have in common.
//!
//! Data goes to stdout, talk and progress to stderr. Exit codes: 0 ok, 1 usage, 2 partial (some
//! items were rejected), 3 failed (`decisions.md` §1). A command never opens the data directory of
//! a running gateway: it asks over HTTP, through [`client::Client`].

pub mod access_key;
pub mod apply;
pub mod archive;
pub mod cert;
pub mod channel;
pub mod client;
pub mod compare;
pub mod completions;
pub mod config;
pub mod conflicts;
pub mod delete;
pub mod demo;
pub mod export;
pub mod get;
pub mod import;
pub mod kafka;
mod listing;
pub mod log;
pub mod output;
pub mod policy;
pub mod quarantine;
pub mod query;
pub mod rollup;
mod rule;
mod running;
mod salvage;
pub mod script;
pub mod send;
mod serve;
pub mod sql;
pub mod subscription;
#[cfg(test)]
mod tests;
pub mod trace;

use std::{
    ffi::OsString,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{ExitCode, Termination},
};

use clap::{Parser, Subcommand};
use secrecy::SecretString;

use client::Problem;

/// Everything the command line says.
#[derive(Debug, Parser)]
#[command(
    name = "backtide",
    version,
    about = "A self-hosted gateway for historical device data"
)]
#[command(after_help = "Exit codes: 0 ok, 1 usage, 2 partial (items were rejected), 3 failed.")]
pub struct Arguments {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// Which gateway a command talks to.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Base address of the gateway's HTTP door
    #[arg(
        long,
        global = true,
        env = "BACKTIDE_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub url: String,
    /// Bearer token; without one, `admin.token` in the data directory serves a loopback address
    #[arg(long, global = true, env = "BACKTIDE_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,
    /// Data directory [default: ./backtide-data]
    #[arg(long, global = true, env = "BACKTIDE__DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// The commands, in the order in which they are met.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(Serve),
    /// Declare objects from YAML or JSON files: all of them, or none
    Apply(apply::Apply),
    /// Read declared objects back, as `apply` takes them
    Get(get::Get),
    /// Delete a declared object that nothing uses
    Delete(delete::Delete),
    /// A channel: its connection strings, log and recorded messages; rotate, pause, resume
    #[command(subcommand)]
    Channel(channel::Channel),
    /// Send a file of history over MQTT
    Send(Box<send::Send>),
    /// Files of history over HTTP: upload one, list and show imports
    #[command(subcommand)]
    Import(import::Import),
    /// Print points, events or attributes by device, name and time
    Query(query::Query),
    /// Ask in SQL, and print the rows
    Sql(sql::Sql),
    /// Write points, events or attributes into a file
    Export(export::Export),
    /// Archives: list, show, run, start, stop; set the secret of their S3 access key
    #[command(subcommand)]
    Archive(archive::Archive),
    /// List values that were overwritten by different ones
    Conflicts(conflicts::Conflicts),
    /// Tell how much of some messages was there already, and how much was other
    Compare(compare::Compare),
    /// What was refused: list, show and export it, drive it again, discard it
    #[command(subcommand)]
    Quarantine(quarantine::Quarantine),
    /// Draft, test, publish and roll back data parsing scripts
    #[command(subcommand)]
    Script(script::Script),
    /// Policies: what is in force for a point, what a change would touch
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Rollups and reductions: how they stand, what changed in them
    #[command(subcommand)]
    Rollup(rollup::Rollup),
    /// Subscriptions: list, show, start, stop, replay
    #[command(subcommand)]
    Subscription(subscription::Subscription),
    /// Rules: list, show, start, stop, replay, test; their dead letters
    #[command(subcommand)]
    Rule(rule::Rule),
    /// Show, rotate or revoke the access key of an application
    #[command(subcommand)]
    AccessKey(access_key::AccessKey),
    /// Say what is wrong with the Kafka cluster that is configured
    #[command(subcommand)]
    Kafka(kafka::Kafka),
    /// Run a gateway with real sample history, to look around
    Demo(demo::Demo),
    /// Make certificates for a trial: a private authority, its servers and clients
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make a damaged store open again, keeping what is intact; the gateway must be stopped
    Salvage(salvage::Salvage),
    /// Run scripts for the gateway that started this
    #[command(hide = true)]
    ScriptWorker,
    /// Print shell completions
    Completions(completions::Completions),
}

/// What `serve` is told; each overrides the configuration file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Serve {
    /// Configuration file (TOML)
    #[arg(long, env = "BACKTIDE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the MQTT door
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Option<SocketAddr>,
    /// Address of the MQTT door over TLS, which a configured certificate opens
    #[arg(long, value_name = "ADDR")]
    pub mqtts: Option<SocketAddr>,
    /// Address of the HTTP door
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Address of the subscription door
    #[arg(long, value_name = "ADDR")]
    pub subscribe: Option<SocketAddr>,
    /// Address of the PostgreSQL door, which stays shut unless one is given
    #[arg(long, value_name = "ADDR")]
    pub postgres: Option<SocketAddr>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok,
    Usage,
    Partial,
    Failed,
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 1,
            Self::Partial => 2,
            Self::Failed => 3,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line, or a file it names, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No gateway answered.
    #[error(
        "no answer from {url}: {reason}\nfix: is a gateway running there? `backtide serve` starts one; --url or BACKTIDE_URL names another"
    )]
    Unreachable { url: String, reason: String },
    /// The gateway refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// A file or a stream failed.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// Anything else that ended the work.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    pub const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Unreachable { .. } | Self::Refused(_) | Self::Io { .. } | Self::Failed(_) => {
                Exit::Failed
            }
        }
    }

    /// A reader that closed early (`| head`) is no failure worth a word.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A failed write to the terminal; [`Failure::io`] names files.
impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Self {
        Self::io("cannot write the output", source)
    }
}

/// Where a command writes: data to `out`, everything else to `talk`.
pub struct Terminal {
    pub out: Box<dyn Write>,
    pub talk: Box<dyn Write>,
}

impl Terminal {
    pub fn standard() -> Self {
        Self {
            out: Box::new(io::BufWriter::with_capacity(64 << 10, io::stdout())),
            talk: Box::new(io::stderr()),
        }
    }
}

/// Reads the command line. `Err` holds the exit code after help, version or the complaint was
/// printed: clap's own code for a usage error is 2, ours is 1.
///
/// # Errors
/// [`Exit::Usage`], or [`Exit::Ok`] where help was asked for.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Exit> {
    Arguments::try_parse_from(arguments).map_err(|error| {
        let wanted = !error.use_stderr();
        match error.print() {
            Ok(()) if wanted => Exit::Ok,
            Ok(()) | Err(_) => Exit::Usage,
        }
    })
}

/// Runs a command, and says on the terminal why one failed.
pub fn run(arguments: Arguments, terminal: &mut Terminal) -> Exit {
    let outcome = dispatch(arguments, terminal)
        .and_then(|exit| terminal.out.flush().map(|()| exit).map_err(Failure::from));
    match outcome {
        Ok(exit) => exit,
        Err(failure) if failure.is_closed_pipe() => Exit::Ok,
        Err(failure) => {
            // Nothing is left to tell when stderr is gone too.
            drop(writeln!(terminal.talk, "error: {failure}"));
            failure.exit()
        }
    }
}

fn script_worker() -> Exit {
    match crate::script::work() {
        true => Exit::Ok,
        false => Exit::Failed,
    }
}

fn dispatch(arguments: Arguments, terminal: &mut Terminal) -> Result<Exit, Failure> {
    let Arguments {
        connection,
        command,
    } = arguments;
    match command {
        Command::Serve(serve) => serve.run(connection.data_dir.as_deref(), terminal),
        Command::Apply(apply) => apply.run(&connection, terminal),
        Command::Get(get) => get.run(&connection, terminal),
        Command::Delete(delete) => delete.run(&connection, terminal),
        Command::Channel(channel) => channel.run(&connection, terminal),
        Command::Send(send) => send.run(&connection, terminal),
        Command::Import(import) => import.run(&connection, terminal),
        Command::Query(query) => query.run(&connection, terminal),
        Command::Sql(sql) => sql.run(&connection, terminal),
        Command::Export(export) => export.run(&connection, terminal),
        Command::Archive(archive) => archive.run(&connection, terminal),
        Command::Conflicts(conflicts) => conflicts.run(&connection, terminal),
        Command::Compare(compare) => compare.run(&connection, terminal),
        Command::Quarantine(quarantine) => quarantine.run(&connection, terminal),
        Command::Script(script) => script.run(&connection, terminal),
        Command::Policy(policy) => policy.run(&connection, terminal),
        Command::Rollup(rollup) => rollup.run(&connection, terminal),
        Command::Subscription(subscription) => subscription.run(&connection, terminal),
        Command::Rule(rule) => rule.run(&connection, terminal),
        Command::AccessKey(access_key) => access_key.run(&connection, terminal),
        Command::Kafka(kafka) => kafka.run(&connection, terminal),
        Command::Demo(demo) => demo.run(&connection, terminal),
        Command::Cert(cert) => cert.run(terminal),
        Command::Config(config) => config.run(&connection, terminal),
        Command::Salvage(salvage) => salvage.run(connection.data_dir, terminal),
        Command::ScriptWorker => Ok(script_worker()),
        Command::Completions(completions) => completions.run(terminal),
    }
}
