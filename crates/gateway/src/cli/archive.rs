//! `backtide archive ls|show|run|start|stop|secret`.

use std::io::{self, Read, Write};

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    listing::{self, Columns, text, time},
    output::Format,
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
pub struct Ls {
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    name: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
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

#[derive(Debug, clap::Args)]
pub struct Named {
    name: String,
}

#[derive(Debug, clap::Args)]
pub struct Secret {
    name: String,
    /// Take it away
    #[arg(long)]
    remove: bool,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
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
        match self {
            Self::Ls(ls) => {
                let all: List = client.get("/api/v1/archive-status", &[])?;
                listing::print(&all.items, COLUMNS, ls.output, terminal)?;
            }
            Self::Show(show) => {
                let status: Value = client.get(&path(&show.name, "status"), &[])?;
                print(&status, show.output, terminal)?;
            }
            Self::Run(run) => return run.run(&client, terminal),
            Self::Start(Named { name }) => {
                let _: Value = post(&client, &path(&name, "start"), b"")?;
                writeln!(terminal.talk, "archive {name} runs by its schedule")?;
            }
            Self::Stop(Named { name }) => {
                let _: Value = post(&client, &path(&name, "stop"), b"")?;
                writeln!(terminal.talk, "archive {name} is stopped")?;
            }
            Self::Secret(secret) => {
                let given = match secret.remove {
                    true => None,
                    false => Some(from_input()?),
                };
                let body = json!({ "secret": given }).to_string();
                let _: Value = post(&client, &path(&secret.name, "secret"), body.as_bytes())?;
                let done = if secret.remove { "removed" } else { "set" };
                writeln!(
                    terminal.talk,
                    "the secret of archive {} is {done}",
                    secret.name
                )?;
            }
        }
        Ok(Exit::Ok)
    }
}

impl Run {
    fn run(self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        if self.dry_run {
            let plan: List = post(client, &path(&self.name, "dry-run"), b"")?;
            listing::print(&plan.items, PLAN_COLUMNS, self.output, terminal)?;
            writeln!(
                terminal.talk,
                "{} days would be written; nothing was",
                plan.days
            )?;
            return Ok(Exit::Ok);
        }
        let mut status: Value = post(client, &path(&self.name, "runs"), b"")?;
        while self.wait && text(&status, "state") == "running" {
            std::thread::park_timeout(LOOK_EVERY);
            status = client.get(&path(&self.name, "status"), &[])?;
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

fn from_input() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::io("cannot read the secret from standard input", error))?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() {
        return Err(Failure::Usage("standard input has no secret".to_owned()));
    }
    Ok(text)
}

fn path(name: &str, verb: &str) -> String {
    format!("/api/v1/archives/{}/{verb}", segment(name))
}

fn post<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    body: &[u8],
) -> Result<T, Failure> {
    client.post(path, &[], "application/json", body)
}
