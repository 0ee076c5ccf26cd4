//! `backtide quarantine …`: what was refused, why, and the ways out.

mod redrive;

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::Value;

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    listing::{Columns, Listing, text, time},
    output::Format,
    query::copy,
};

const PATH: &str = "/api/v1/quarantine";

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List refused messages, oldest first
    Ls(List),
    /// Count them by channel, code and subject, the most frequent first
    Causes(List),
    /// Say what a re-drive would cure now, and what the other causes need
    Cures(List),
    /// Say how full the quarantine is
    Status(Output),
    /// Show one with its bytes
    Show(Show),
    /// Print them with their bytes, one a line
    Export(Export),
    /// Drive them through the pipeline again; what is stored leaves the quarantine
    Redrive(redrive::Redrive),
    /// Run one again, dry, and show every stage
    Run(Show),
    /// List re-drives, the newest first
    Jobs(Output),
    /// End a re-drive; what is stored stays stored
    Cancel(redrive::Cancel),
    /// Remove them for good
    Discard(redrive::Discard),
}

#[derive(Debug, clap::Args)]
pub struct Output {
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Which entries are meant.
#[derive(Debug, Default, clap::Args)]
struct Selection {
    /// Only what was refused for this cause, as `causes` numbers them
    #[arg(long)]
    cause: Option<i64>,
    /// Only what came by this channel
    #[arg(long)]
    channel: Option<String>,
    /// Only what this client sent, such as import:7
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Only what was refused with this code
    #[arg(long)]
    code: Option<u16>,
    /// Only what is about this device key
    #[arg(long)]
    device: Option<String>,
    /// Only what is about this point
    #[arg(long)]
    point: Option<String>,
    /// Arrived at this time or later: ISO time or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Arrived before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    selection: Selection,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its id, as `ls` prints it
    id: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Export {
    #[command(flatten)]
    selection: Selection,
    #[arg(short, long, value_enum, default_value = "ndjson")]
    output: ExportFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ExportFormat {
    Ndjson,
}

impl Quarantine {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        match self {
            Self::Ls(list) => list.print(&client, PATH, ENTRY_COLUMNS, terminal)?,
            Self::Causes(list) => {
                list.print(&client, &format!("{PATH}/causes"), CAUSE_COLUMNS, terminal)?;
            }
            Self::Show(show) => show.print(&client, terminal)?,
            Self::Cures(list) => {
                list.print(&client, &format!("{PATH}/cures"), CURE_COLUMNS, terminal)?;
            }
            Self::Status(output) => status(&client, output.output, terminal)?,
            Self::Export(Export {
                selection,
                output: ExportFormat::Ndjson,
            }) => {
                let query = selection.pairs();
                let query = borrowed(&query);
                let lines =
                    client.get_stream(&format!("{PATH}/export"), &query, "application/x-ndjson")?;
                copy(lines, &mut *terminal.out)?;
            }
            Self::Run(run) => {
                let path = format!("{PATH}/{}/run", segment(&run.id));
                let verdict = client.post(&path, &[], "application/json", b"")?;
                return super::trace::print_verdict(&verdict, run.output, terminal);
            }
            Self::Redrive(redrive) => return redrive.run(&client, terminal),
            Self::Jobs(output) => redrive::jobs(&client, output.output, terminal)?,
            Self::Cancel(cancel) => cancel.run(&client, terminal)?,
            Self::Discard(discard) => discard.run(&client, terminal)?,
        }
        Ok(Exit::Ok)
    }
}

const ENTRY_COLUMNS: Columns = &[
    ("id", |item| text(item, "id")),
    ("time", |item| time(item, "time")),
    ("channel", |item| text(item, "channel")),
    ("code", |item| text(item, "code")),
    ("bytes", |item| text(item, "bytes")),
    ("reason", reason),
];

const CAUSE_COLUMNS: Columns = &[
    ("cause", |item| text(item, "id")),
    ("entries", |item| text(item, "entries")),
    ("channel", |item| text(item, "channel")),
    ("code", |item| text(item, "code")),
    ("device", |item| text(item, "deviceKey")),
    ("point", |item| text(item, "point")),
    ("last", |item| time(item, "last")),
    ("example", |item| text(item, "example")),
    ("reason", |item| text(item, "reason")),
];

const CURE_COLUMNS: Columns = &[
    ("cause", |item| text(item, "id")),
    ("entries", |item| text(item, "entries")),
    ("would cure", |item| text(item, "wouldCure")),
    ("channel", |item| text(item, "channel")),
    ("code", |item| text(item, "code")),
    ("reason", |item| text(item, "reason")),
    ("advice", |item| text(item, "advice")),
];

/// The first reason, and how many more there are.
fn reason(item: &Value) -> String {
    let shown = item["rejected"].as_array().map_or(0, Vec::len);
    let more =
        u64::try_from(shown.saturating_sub(1)).unwrap_or(0) + item["more"].as_u64().unwrap_or(0);
    let first = text(item, "reason");
    if more == 0 {
        first
    } else {
        format!("{first} (and {more} more)")
    }
}

impl Selection {
    /// The conditions that were given, by their names.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let numbers = [
            ("cause", self.cause.map(|cause| cause.to_string())),
            ("code", self.code.map(|code| code.to_string())),
        ];
        let texts = [
            ("channel", &self.channel),
            ("clientId", &self.client),
            ("device", &self.device),
            ("point", &self.point),
            ("from", &self.from),
            ("to", &self.to),
        ];
        let texts = texts.map(|(name, text)| (name, text.clone()));
        let all = numbers.into_iter().chain(texts);
        all.filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

fn borrowed<'a>(pairs: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    pairs
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

/// How full it is, as lines.
fn status(client: &Client, format: Format, terminal: &mut Terminal) -> Result<(), Failure> {
    let status: Value = client.get(&format!("{PATH}/status"), &[])?;
    let out = &mut terminal.out;
    match format {
        Format::Json | Format::Ndjson => writeln!(out, "{status}")?,
        Format::Table | Format::Csv => {
            writeln!(out, "entries    {}", text(&status, "entries"))?;
            writeln!(
                out,
                "bytes      {} of {} ({} %)",
                text(&status, "bytes"),
                text(&status, "bytesMax"),
                text(&status, "percent")
            )?;
            writeln!(out, "when full  {}", text(&status, "whenFull"))?;
            writeln!(out, "oldest     {}", time(&status, "oldest"))?;
            writeln!(out, "kept for   {} days", text(&status, "ageDaysMax"))?;
            for way in ["stored", "discarded", "aged", "dropped"] {
                writeln!(out, "{way:<10} {}", text(&status, way))?;
            }
        }
    }
    if status["full"] == true {
        writeln!(
            terminal.talk,
            "the quarantine is full: messages that would have to go there are held"
        )?;
    }
    Ok(())
}

impl List {
    fn print(
        &self,
        client: &Client,
        path: &str,
        columns: Columns,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        let pairs = self.selection.pairs();
        let mut query = borrowed(&pairs);
        query.push(("limit", "1000"));
        let whole = Listing {
            path,
            query,
            columns,
        }
        .print(client, self.output, terminal)?;
        if whole.behind > 0 {
            writeln!(
                terminal.talk,
                "{} answered messages are not looked through yet; ask again",
                whole.behind
            )?;
        }
        Ok(())
    }
}

impl Show {
    fn print(&self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        let entry: Value = client.get(&format!("{PATH}/{}", segment(&self.id)), &[])?;
        let out = &mut terminal.out;
        match self.output {
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &entry).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            Format::Ndjson => writeln!(out, "{entry}")?,
            Format::Table | Format::Csv => {
                writeln!(out, "id       {}", text(&entry, "id"))?;
                writeln!(out, "time     {}", time(&entry, "time"))?;
                writeln!(out, "channel  {}", text(&entry, "channel"))?;
                writeln!(out, "client   {}", text(&entry, "clientId"))?;
                writeln!(out, "topic    {}", text(&entry, "topic"))?;
                writeln!(out, "code     {}", text(&entry, "code"))?;
                writeln!(out, "bytes    {}", text(&entry, "bytes"))?;
                writeln!(out, "sha256   {}", text(&entry, "sha256"))?;
                writeln!(out, "cause    {}", text(&entry, "cause"))?;
                if entry["attempts"].as_u64() > Some(0) {
                    let (attempts, last) = (text(&entry, "attempts"), time(&entry, "lastAttempt"));
                    writeln!(out, "re-drive refused {attempts} times, last at {last}")?;
                }
                for item in entry["rejected"].as_array().into_iter().flatten() {
                    let at = item["index"].as_u64().map(|index| format!(" item {index}"));
                    let (code, message) = (text(item, "code"), text(item, "message"));
                    writeln!(out, "refused {} {code} {message}", at.unwrap_or_default())?;
                }
                let more = entry["more"].as_u64().unwrap_or(0);
                if more > 0 {
                    writeln!(out, "         and {more} more")?;
                }
                let payload = match &entry["payload"] {
                    Value::String(payload) => payload.clone(),
                    _ => format!("base64: {}", text(&entry, "payloadBase64")),
                };
                writeln!(out, "\n{payload}")?;
            }
        }
        Ok(())
    }
}
