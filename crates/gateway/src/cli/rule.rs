//! `backtide rule ls|show|start|stop|secret|replay|test|dead-letters`.

mod dead_letters;

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    listing::text,
    output::{self, Column, Format},
    running::{Ls, Named, Running, Secret, Show},
};

#[derive(Debug, Subcommand)]
pub enum Rule {
    /// List rules with their state, lag and dead letters
    Ls(Ls),
    /// Show how a rule stands: cursor, lag, what it published, what is wrong
    Show(Show),
    /// Let a stopped rule follow the log again, from where it was
    Start(Named),
    /// Publish nothing, and hold the log no longer
    Stop(Named),
    /// Set what ${secret} stands for in the rule's headers, read from standard input
    Secret(Secret),
    /// Publish again what arrived since a moment, beside what is new
    Replay(Replay),
    /// Try a rule on a message, a request or stored history; nothing is published
    Test(Box<Test>),
    /// What could not be made or delivered: list, show, drive again, discard
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
}

#[derive(Debug, clap::Args)]
pub struct Replay {
    name: String,
    /// What arrived at or after it: ISO-8601 with an offset, or epoch milliseconds
    #[arg(long)]
    from: String,
    /// What arrived before it; up to where the rule is unless given
    #[arg(long)]
    to: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Test {
    /// A rule that is declared
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    name: Option<String>,
    /// A file with one rule, which need not be declared
    #[arg(short, long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    sample: SampleOf,
    /// The product of the request
    #[arg(long, requires = "request")]
    product: Option<String>,
    /// The channel that the request would come by
    #[arg(long, requires = "request")]
    channel: Option<String>,
    /// Stored history since
    #[arg(long, requires = "device")]
    from: Option<String>,
    /// Stored history before
    #[arg(long, requires = "device")]
    to: Option<String>,
    /// Rows of stored history at most [default: 20]
    #[arg(long, requires = "device")]
    limit: Option<usize>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct SampleOf {
    /// A file with a message as it is published; - is standard input
    #[arg(long)]
    message: Option<PathBuf>,
    /// A file with a request as a device sends it; - is standard input
    #[arg(long, requires = "product")]
    request: Option<PathBuf>,
    /// A device, as PRODUCT/NAME or by its asset id: what is stored of it
    #[arg(long)]
    device: Option<String>,
}

impl Rule {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        let rules = Running {
            client: &client,
            word: "rule",
        };
        match self {
            Self::Ls(ls) => {
                list(terminal, ls.output, &rules.statuses()?)?;
            }
            Self::Show(show) => {
                print(terminal, show.output, &rules.status(&show.name)?)?;
            }
            Self::Start(Named { name }) => {
                let status = rules.tell(&name, "start")?;
                writeln!(terminal.talk, "rule {name} is {}", text(&status, "state"))?;
                if let Some(reason) = status["reason"].as_str() {
                    writeln!(terminal.talk, "{reason}")?;
                }
            }
            Self::Stop(Named { name }) => {
                rules.tell(&name, "stop")?;
                writeln!(terminal.talk, "rule {name} is stopped")?;
            }
            Self::Secret(secret) => rules.set_secret(&secret, terminal)?,
            Self::Replay(Replay { name, from, to }) => {
                let mut query = vec![("from", from.as_str())];
                query.extend(to.as_deref().map(|to| ("to", to)));
                let replayed: Value = rules.post(&name, "replay", &query, &json!({}))?;
                let (from, until) = (text(&replayed, "from"), text(&replayed, "until"));
                writeln!(
                    terminal.talk,
                    "rule {name} publishes commits {from} to {until} again; `rule show` says how far \
                     it is"
                )?;
            }
            Self::Test(test) => return test.run(rules, terminal),
            Self::DeadLetters(letters) => return letters.run(rules, terminal),
        }
        Ok(Exit::Ok)
    }
}

impl Test {
    fn run(self, rules: Running<'_>, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let sample = self.sample()?;
        let trial: Value = match (&self.name, &self.file) {
            (_, Some(file)) => {
                let body = json!({ "rule": read(file)?, "sample": sample });
                let body = body.to_string();
                let path = "/api/v1/rule-files/test";
                rules
                    .client
                    .post(path, &[], "application/json", body.as_bytes())?
            }
            (name, None) => {
                let name = name.as_deref().unwrap_or_default();
                rules.post(name, "test", &[], &sample)?
            }
        };
        let errors = items(&trial, "errors");
        match self.output {
            Format::Json => {
                serde_json::to_writer_pretty(&mut terminal.out, &trial)
                    .map_err(std::io::Error::from)?;
                writeln!(terminal.out)?;
            }
            Format::Ndjson => writeln!(terminal.out, "{trial}")?,
            Format::Table | Format::Csv => {
                let columns: [Column<'_, Value>; 3] = [
                    ("to", &|record| text(record, "address")),
                    ("key", &|record| text(record, "key")),
                    ("value", &|record| record["value"].to_string()),
                ];
                let records = items(&trial, "records");
                output::write(&mut *terminal.out, self.output, &columns, records)?;
                let (rows, matched) = (text(&trial, "rows"), text(&trial, "matched"));
                writeln!(
                    terminal.talk,
                    "{rows} rows, {matched} of them taken, {} records for {}",
                    records.len(),
                    text(&trial, "destination"),
                )?;
                if let Some(console) = trial["console"].as_str() {
                    write!(terminal.talk, "console:\n{console}")?;
                }
                for error in errors {
                    writeln!(terminal.talk, "dead letter: {}", text(error, "reason"))?;
                }
                if let Some(idle) = trial["idle"].as_str() {
                    writeln!(terminal.talk, "idle: {idle}")?;
                }
            }
        }
        Ok(if errors.is_empty() {
            Exit::Ok
        } else {
            Exit::Partial
        })
    }

    fn sample(&self) -> Result<Value, Failure> {
        let document = |path: &Path| -> Result<Value, Failure> {
            serde_json::from_str(&read(path)?)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
        };
        let of = &self.sample;
        if let Some(path) = &of.message {
            return Ok(json!({ "message": document(path)? }));
        }
        if let Some(path) = &of.request {
            return Ok(json!({ "envelope": {
                "product": self.product, "channel": self.channel, "request": document(path)?,
            } }));
        }
        Ok(json!({ "history": {
            "device": of.device, "from": self.from, "to": self.to, "limit": self.limit,
        } }))
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::io(path.display().to_string(), error);
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    fs::read_to_string(path).map_err(failed)
}

fn items<'v>(of: &'v Value, member: &str) -> &'v [Value] {
    of[member].as_array().map_or(&[], Vec::as_slice)
}

fn list(terminal: &mut Terminal, format: Format, items: &[Value]) -> Result<(), Failure> {
    let columns: [Column<'_, Value>; 8] = [
        ("name", &|item| text(item, "name")),
        ("type", &|item| text(item, "type")),
        ("to", &|item| text(item, "destination")),
        ("state", &|item| state(item)),
        ("lag", &|item| text(item, "lag")),
        ("published", &|item| text(item, "published")),
        ("deadLetters", &|item| text(item, "deadLetters")),
        ("why", &|item| why(item)),
    ];
    Ok(output::write(&mut *terminal.out, format, &columns, items)?)
}

fn state(item: &Value) -> String {
    match item["error"]["reason"].as_str() {
        Some(_) => "failing".to_owned(),
        None => text(item, "state"),
    }
}

fn why(item: &Value) -> String {
    let failing = item["error"]["reason"].as_str();
    let reason = failing.or(item["reason"].as_str()).unwrap_or_default();
    match reason.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", reason.get(..end).unwrap_or_default()),
        None => reason.to_owned(),
    }
}

/// A line for each figure.
fn print(terminal: &mut Terminal, format: Format, status: &Value) -> Result<(), Failure> {
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut terminal.out, status)
                .map_err(std::io::Error::from)?;
            Ok(writeln!(terminal.out)?)
        }
        Format::Ndjson => Ok(writeln!(terminal.out, "{status}")?),
        Format::Table | Format::Csv => {
            let members = status.as_object().cloned().unwrap_or_default();
            let lines: Vec<(String, Value)> = members.into_iter().collect();
            let columns: [Column<'_, (String, Value)>; 2] = [
                ("what", &|line| line.0.clone()),
                ("value", &|line| match &line.1 {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                }),
            ];
            Ok(output::write(&mut *terminal.out, format, &columns, &lines)?)
        }
    }
}
