//! `backtide import upload|ls|show|cancel`: files that go in over HTTP.

use std::{fs::File, io::Write, path::PathBuf};

use clap::Subcommand;
use serde_json::Value;

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    listing::{self, Columns, Listing, text, time},
    output::Format,
};
use crate::files::mapping::Mapping;

const PATH: &str = "/api/v1/imports";

#[derive(Debug, Subcommand)]
pub enum Import {
    /// Import a file over HTTP: its rows go the way of the channel's messages
    Upload(Box<Upload>),
    /// List imports, the newest first
    Ls(Ls),
    /// Show an import: how far it came, and what became of its rows
    Show(Show),
    /// End an import that runs: what is stored stays stored
    Cancel(Show),
}

#[derive(Debug, clap::Args)]
pub struct Upload {
    /// CSV or NDJSON, also with .gz or .zst, or Parquet
    file: PathBuf,
    /// Channel that the rows come in by
    #[arg(long)]
    channel: String,
    #[command(flatten)]
    mapping: Mapping,
    /// Leave out rows at the beginning that an interrupted import has answered
    #[arg(long, value_name = "ROWS", default_value_t = 0)]
    skip_rows: u64,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Ls {
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    id: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Import {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        match self {
            Self::Upload(upload) => return upload.run(&client, terminal),
            Self::Ls(ls) => {
                let listing = Listing {
                    path: PATH,
                    query: vec![("limit", "1000")],
                    columns: COLUMNS,
                };
                listing.print(&client, ls.output, terminal)?;
            }
            Self::Show(show) => {
                let import: Value = client.get(&format!("{PATH}/{}", segment(&show.id)), &[])?;
                match show.output {
                    Format::Table | Format::Csv => {
                        let columns: Vec<_> = COLUMNS.iter().chain(COMPARED).copied().collect();
                        let import = std::slice::from_ref(&import);
                        listing::print(import, &columns, show.output, terminal)?;
                        tell(&import[0], terminal)?;
                    }
                    Format::Json | Format::Ndjson => print(&import, show.output, terminal)?,
                }
            }
            Self::Cancel(cancel) => {
                let path = format!("{PATH}/{}/cancel", segment(&cancel.id));
                let import: Value = client.post(&path, &[], "application/json", b"{}")?;
                print(&import, cancel.output, terminal)?;
            }
        }
        Ok(Exit::Ok)
    }
}

const COLUMNS: Columns = &[
    ("id", |import| text(import, "id")),
    ("channel", |import| text(import, "channel")),
    ("file", |import| text(import, "file")),
    ("state", |import| text(import, "state")),
    ("began", |import| time(import, "began")),
    ("stored", |import| text(&import["rows"], "stored")),
    ("rejected", |import| text(&import["rows"], "rejected")),
    ("empty", |import| text(&import["rows"], "empty")),
    ("error", |import| text(import, "error")),
];

/// Values that were there already, or were other than what stood there, and whether that is all of them.
const COMPARED: Columns = &[
    ("values", |import| text(&import["rows"], "values")),
    ("repeated", |import| text(&import["repeated"], "values")),
    ("conflicts", |import| text(&import["conflicts"], "values")),
    ("compared", |import| text(&import["repeated"], "complete")),
];

/// Where the conflicts are, and whether there may be more.
fn tell(import: &Value, terminal: &mut Terminal) -> Result<(), Failure> {
    terminal.out.flush()?;
    let conflicts = import["conflicts"]["values"].as_u64().unwrap_or(0);
    if conflicts > 0 {
        let id = text(import, "id");
        writeln!(
            terminal.talk,
            "see the conflicts with: backtide conflicts --import {id}"
        )?;
    }
    if import["repeated"]["complete"] == false {
        writeln!(
            terminal.talk,
            "not everything is compared with what was there yet; it is within a minute of quiet"
        )?;
    }
    Ok(())
}

fn print(import: &Value, format: Format, terminal: &mut Terminal) -> Result<(), Failure> {
    match format {
        Format::Ndjson => Ok(writeln!(terminal.out, "{import}")?),
        Format::Json | Format::Table | Format::Csv => {
            listing::print(std::slice::from_ref(import), COLUMNS, format, terminal)
        }
    }
}

impl Upload {
    fn run(self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let mapping = self.mapping.complete().map_err(Failure::Usage)?;
        let failed = |error| Failure::io(format!("cannot read {}", self.file.display()), error);
        let file = File::open(&self.file).map_err(failed)?;
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let mut query = vec![
            ("channel", self.channel),
            ("file", name.into_owned()),
            ("skipRows", self.skip_rows.to_string()),
        ];
        query.extend(parameters(mapping));
        let query: Vec<_> = query
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let import: Value = client.post_file(PATH, &query, "application/octet-stream", file)?;
        print(&import, self.output, terminal)?;
        if import["rows"]["rejected"].as_u64().unwrap_or(0) == 0 {
            return Ok(Exit::Ok);
        }
        let client_id = text(&import, "clientId");
        writeln!(
            terminal.talk,
            "what was rejected is in quarantine, with row and reason: backtide quarantine ls --client {client_id}"
        )?;
        Ok(Exit::Partial)
    }
}

/// The mapping as parameters of the upload; lists with commas.
fn parameters(mapping: Mapping) -> impl Iterator<Item = (&'static str, String)> {
    let Mapping {
        device_column,
        device,
        time_column,
        timezone,
        long,
        events,
        attributes,
        point_column,
        value_column,
        quality_column,
        map,
        drop,
        absent,
        mapping: _,
    } = mapping;
    let of = match (events, attributes) {
        (true, _) => Some("events"),
        (false, true) => Some("attributes"),
        (false, false) => None,
    };
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
    let map = map
        .into_iter()
        .map(|(column, point)| format!("{column}={point}"));
    [
        ("deviceColumn", device_column),
        ("device", device),
        ("timeColumn", time_column),
        ("timezone", timezone),
        ("of", of.map(str::to_owned)),
        ("long", long.then(|| "true".to_owned())),
        ("pointColumn", point_column),
        ("valueColumn", value_column),
        ("qualityColumn", quality_column),
        ("map", list(map.collect())),
        ("drop", list(drop)),
        ("absent", list(absent)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}
