//! `backtide archive ls|show|run|start|stop|secret`.

use std::io::Write;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    listing::{self, Columns, text, time},
    output::Format,
    running::{Ls, Named, Running, Secret, Show},
};

/// How often a run that is waited for is asked how far it is.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub enum Archive {
    /// List archives with their last run and the next
    Ls(Ls),
    /// Show how an archive stands
    Show(Show),
    /// Write every day that changed since it was written
    Run(Run),
    /// Let a stopped archive run by its schedule again
    Start(Named),
    /// Let an archive run no more by its schedule
    Stop(Named),
    /// Set the secret of the archive's S3 access key, read from standard input
    Secret(Secret),
}

#[derive(Debug, clap::Args)]
pub struct Run {
    name: String,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until the run has ended; exit 3 if it failed
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The days that a run would write.
#[derive(Deserialize)]
struct Plan {
    days: u64,
    items: Vec<Value>,
}

const COLUMNS: Columns = &[
    ("name", |archive| text(archive, "name")),
    ("state", |archive| text(archive, "state")),
    ("lastRun", |archive| time(&archive["lastRun"], "began")),
    ("nextRun", |archive| time(archive, "nextRun")),
    ("daysDue", |archive| text(archive, "daysDue")),
    ("files", |archive| text(archive, "files")),
    ("rows", |archive| text(archive, "rows")),
    ("bytes", |archive| text(archive, "bytes")),
    ("error", |archive| text(&archive["lastRun"], "error")),
];
const PLAN_COLUMNS: Columns = &[
    ("product", |day| text(day, "product")),
    ("date", |day| text(day, "date")),
    ("isNew", |day| text(day, "isNew")),
];

impl Archive {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        let archives = Running {
            client: &client,
            word: "archive",
        };
        match self {
            Self::Ls(ls) => {
                listing::print(&archives.statuses()?, COLUMNS, ls.output, terminal)?;
            }
            Self::Show(show) => {
                print(&archives.status(&show.name)?, show.output, terminal)?;
            }
            Self::Run(run) => return run.run(archives, terminal),
            Self::Start(Named { name }) => {
                archives.tell(&name, "start")?;
                writeln!(terminal.talk, "archive {name} runs by its schedule")?;
            }
            Self::Stop(Named { name }) => {
                archives.tell(&name, "stop")?;
                writeln!(terminal.talk, "archive {name} is stopped")?;
            }
            Self::Secret(secret) => archives.set_secret(&secret, terminal)?,
        }
        Ok(Exit::Ok)
    }
}

impl Run {
    fn run(self, archives: Running<'_>, terminal: &mut Terminal) -> Result<Exit, Failure> {
        if self.dry_run {
            let plan: Plan = archives.post(&self.name, "dry-run", &[], &json!({}))?;
            listing::print(&plan.items, PLAN_COLUMNS, self.output, terminal)?;
            writeln!(
                terminal.talk,
                "{} days would be written; nothing was",
                plan.days
            )?;
            return Ok(Exit::Ok);
        }
        let mut status = archives.tell(&self.name, "runs")?;
        while self.wait && text(&status, "state") == "running" {
            std::thread::park_timeout(LOOK_EVERY);
            status = archives.status(&self.name)?;
        }
        print(&status, self.output, terminal)?;
        let has_failed = self.wait && text(&status, "state") == "failed";
        Ok(if has_failed { Exit::Failed } else { Exit::Ok })
    }
}

fn print(status: &Value, format: Format, terminal: &mut Terminal) -> Result<(), Failure> {
    match format {
        Format::Ndjson => Ok(writeln!(terminal.out, "{status}")?),
        Format::Json | Format::Table | Format::Csv => {
            listing::print(std::slice::from_ref(status), COLUMNS, format, terminal)
        }
    }
}
