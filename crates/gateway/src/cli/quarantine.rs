//! `backtide quarantine ls|show|causes|export`: what was refused, and why.

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::Value;

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    listing::{Columns, Listing, given, text, time},
    output::Format,
    query::copy,
};

const PATH: &str = "/api/v1/quarantine";

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List refused messages, oldest first
    Ls(List),
    /// Count them by code and subject, the most frequent first
    Causes(List),
    /// Show one with its bytes
    Show(Show),
    /// Print them with their bytes, one a line
    Export(Export),
}

#[derive(Debug, clap::Args)]
struct Selection {
    /// Only what came by this channel
    #[arg(long)]
    channel: Option<String>,
    /// Only what was refused with this code
    #[arg(long)]
    code: Option<u16>,
    /// Only what is about this device key
    #[arg(long)]
    device: Option<String>,
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
            Self::Export(Export {
                selection,
                output: ExportFormat::Ndjson,
            }) => {
                let code = selection.code.map(|code| code.to_string());
                let query = selection.query(&code);
                let lines =
                    client.get_stream(&format!("{PATH}/export"), &query, "application/x-ndjson")?;
                copy(lines, &mut *terminal.out)?;
            }
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
    ("entries", |item| text(item, "entries")),
    ("channel", |item| text(item, "channel")),
    ("code", |item| text(item, "code")),
    ("device", |item| text(item, "deviceKey")),
    ("point", |item| text(item, "point")),
    ("last", |item| time(item, "last")),
    ("example", |item| text(item, "example")),
    ("reason", |item| text(item, "reason")),
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
    fn query<'a>(&'a self, code: &'a Option<String>) -> Vec<(&'a str, &'a str)> {
        given(&[
            ("channel", &self.channel),
            ("code", code),
            ("device", &self.device),
        ])
    }
}

impl List {
    fn print(
        &self,
        client: &Client,
        path: &str,
        columns: Columns,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        let code = self.selection.code.map(|code| code.to_string());
        let mut query = self.selection.query(&code);
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
