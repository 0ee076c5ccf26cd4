//! `backtide quarantine redrive|jobs|cancel|discard`: the ways out of the quarantine.

use std::{
    io::{BufRead, BufReader, Write},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{PATH, Selection};
use crate::cli::{
    Exit, Failure, Terminal,
    client::Client,
    listing::{Columns, Listing, text, time},
    output::Format,
};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Redrive {
    #[command(flatten)]
    entries: Entries,
    /// Say of each what would become of it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Messages a second at most [default: 1000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Leave when it has begun; `jobs` says how far it is
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// Its number, as `jobs` prints it
    job: i64,
}

#[derive(Debug, clap::Args)]
pub struct Discard {
    #[command(flatten)]
    entries: Entries,
    /// They are gone for good: say so
    #[arg(long)]
    yes: bool,
}

/// Entries to be worked on: some condition is needed, or `--all`.
#[derive(Debug, clap::Args)]
struct Entries {
    /// Ids, as `ls` prints them
    ids: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Every entry there is
    #[arg(long)]
    all: bool,
}

impl Entries {
    fn selection(&self) -> Value {
        let mut selection: Map<String, Value> = Map::new();
        for (name, value) in self.selection.pairs() {
            let value = match (name, value.parse::<i64>()) {
                ("cause" | "code", Ok(number)) => number.into(),
                _ => value.into(),
            };
            selection.insert(name.to_owned(), value);
        }
        if !self.ids.is_empty() {
            selection.insert("ids".to_owned(), json!(self.ids));
        }
        if self.all {
            selection.insert("all".to_owned(), true.into());
        }
        selection.into()
    }
}

impl Redrive {
    pub(super) fn run(self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        if self.dry_run {
            return self.dry(client, terminal);
        }
        let mut order = json!({ "selection": self.entries.selection() });
        if let Some(rate) = self.rate {
            order["messagesPerSecond"] = rate.into();
        }
        let mut job = post(client, "redrives", &order)?;
        writeln!(
            terminal.talk,
            "re-drive {} of {} messages has begun",
            text(&job, "id"),
            text(&job, "entries")
        )?;
        if !self.detach {
            job = watch(client, job, terminal)?;
        }
        print_job(&job, self.output, terminal)?;
        let is_partial = ["partly", "refused", "skipped"]
            .iter()
            .any(|outcome| job[outcome].as_u64() > Some(0));
        Ok(if is_partial { Exit::Partial } else { Exit::Ok })
    }

    fn dry(&self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let order = json!({ "selection": self.entries.selection() });
        let body = order.to_string();
        let lines = client.post_stream(
            &format!("{PATH}/dry-run"),
            "application/json",
            body.as_bytes(),
        )?;
        let mut summary = Value::Null;
        let mut items: Vec<Value> = Vec::new();
        for line in BufReader::new(lines).lines() {
            let line =
                line.map_err(|error| Failure::io("the gateway's answer breaks off", error))?;
            let item: Value = serde_json::from_str(&line).map_err(std::io::Error::from)?;
            if item["summary"].is_object() {
                summary = item["summary"].clone();
            } else if self.output == Format::Ndjson {
                writeln!(terminal.out, "{line}")?;
            } else {
                items.push(item);
            }
        }
        match self.output {
            Format::Ndjson => {}
            Format::Json => writeln!(
                terminal.out,
                "{}",
                json!({ "items": items, "summary": summary })
            )?,
            Format::Table | Format::Csv => {
                crate::cli::listing::print(&items, TRIED_COLUMNS, self.output, terminal)?;
            }
        }
        let count = |name| text(&summary, name);
        writeln!(
            terminal.talk,
            "of {} messages {} would be stored, {} in part, {} refused again, {} cannot be tried \
             (dry run: nothing was changed)",
            count("entries"),
            count("stored"),
            count("partly"),
            count("refused"),
            count("skipped")
        )?;
        for (code, messages) in summary["byCode"].as_object().into_iter().flatten() {
            writeln!(terminal.talk, "  code {code}: {messages}")?;
        }
        Ok(Exit::Ok)
    }
}

const TRIED_COLUMNS: Columns = &[
    ("id", |item| text(item, "id")),
    ("channel", |item| text(item, "channel")),
    ("before", |item| text(item, "codeBefore")),
    ("now", |item| text(item, "code")),
    ("items", |item| text(item, "items")),
    ("stored", |item| text(item, "stored")),
    ("reason", |item| match &item["skipped"] {
        Value::String(reason) => reason.clone(),
        _ => text(&item["rejected"][0], "message"),
    }),
];

/// Tells how far a job is until it ends.
fn watch(client: &Client, mut job: Value, terminal: &mut Terminal) -> Result<Value, Failure> {
    let path = format!("{PATH}/redrives/{}", text(&job, "id"));
    let mut told = Instant::now();
    while job["state"] == "running" {
        thread::park_timeout(LOOK_EVERY);
        job = client.get(&path, &[])?;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            writeln!(terminal.talk, "{}", words(&job))?;
        }
    }
    Ok(job)
}

fn words(job: &Value) -> String {
    let held_up = match &job["error"] {
        Value::String(error) => format!("; held up: {error}"),
        _ => String::new(),
    };
    format!(
        "of {} messages {} stored, {} in part, {} refused again, {} not tried{held_up}",
        text(job, "entries"),
        text(job, "stored"),
        text(job, "partly"),
        text(job, "refused"),
        text(job, "skipped"),
    )
}

fn print_job(job: &Value, format: Format, terminal: &mut Terminal) -> Result<(), Failure> {
    match format {
        Format::Json | Format::Ndjson => writeln!(terminal.out, "{job}")?,
        Format::Table | Format::Csv => {
            let (id, state) = (text(job, "id"), text(job, "state"));
            writeln!(terminal.out, "re-drive {id} {state}: {}", words(job))?;
        }
    }
    Ok(())
}

const JOB_COLUMNS: Columns = &[
    ("job", |item| text(item, "id")),
    ("began", |item| time(item, "began")),
    ("state", |item| text(item, "state")),
    ("entries", |item| text(item, "entries")),
    ("stored", |item| text(item, "stored")),
    ("partly", |item| text(item, "partly")),
    ("refused", |item| text(item, "refused")),
    ("skipped", |item| text(item, "skipped")),
    ("selection", |item| text(item, "selection")),
];

pub(super) fn jobs(
    client: &Client,
    format: Format,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let path = format!("{PATH}/redrives");
    let listing = Listing {
        path: &path,
        query: Vec::new(),
        columns: JOB_COLUMNS,
    };
    listing.print(client, format, terminal)?;
    Ok(())
}

impl Cancel {
    pub(super) fn run(self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        let job = post(client, &format!("redrives/{}/cancel", self.job), &json!({}))?;
        print_job(&job, Format::Table, terminal)
    }
}

impl Discard {
    pub(super) fn run(self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        if !self.yes {
            return Err(Failure::Usage(
                "what is discarded is gone for good: `backtide quarantine export` keeps it elsewhere; \
                 give --yes to discard it"
                    .to_owned(),
            ));
        }
        let order = json!({ "selection": self.entries.selection(), "confirm": true });
        let discarded = post(client, "discard", &order)?;
        writeln!(
            terminal.talk,
            "{} messages were discarded",
            text(&discarded, "discarded")
        )?;
        Ok(())
    }
}

fn post(client: &Client, verb: &str, order: &Value) -> Result<Value, Failure> {
    let body = order.to_string();
    client.post(
        &format!("{PATH}/{verb}"),
        &[],
        "application/json",
        body.as_bytes(),
    )
}
