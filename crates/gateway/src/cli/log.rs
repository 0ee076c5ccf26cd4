//! `backtide channel log NAME`: what happened on a channel.

use std::io::{self, BufRead, BufReader, Write};

use serde_json::Value;

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    listing::{Columns, Listing, given, text, time},
    output::Format,
};

#[derive(Debug, clap::Args)]
pub struct Log {
    /// The channel's name
    name: String,
    /// Print what comes, too, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Show recorded messages instead, with payload, stages, verdict, reply and timings
    #[arg(long, conflicts_with_all = ["follow", "kind", "text", "from", "to"])]
    trace: bool,
    /// Only these kinds, separated by commas: connection, transmission, error, audit
    #[arg(long, default_value = "", hide_default_value = true)]
    kind: String,
    /// Only entries with this return code
    #[arg(long)]
    code: Option<u16>,
    /// Only entries that contain this
    #[arg(long)]
    text: Option<String>,
    /// Begin: ISO time or milliseconds since 1970, inclusive
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End, exclusive
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only the last entries, so many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    last: Option<u16>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

const COLUMNS: Columns = &[
    ("time", |item| time(item, "time")),
    ("kind", |item| text(item, "kind")),
    ("code", |item| text(item, "code")),
    ("what", what),
];

impl Log {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        if self.trace {
            super::trace::list(
                &client,
                &self.name,
                self.code,
                self.last,
                self.output,
                terminal,
            )?;
            return Ok(Exit::Ok);
        }
        let path = format!("/api/v1/channels/{}/log", segment(&self.name));
        let code = self.code.map(|code| code.to_string());
        let last = self.last.map(|last| last.to_string());
        let mut query = given(&[
            ("code", &code),
            ("text", &self.text),
            ("from", &self.from),
            ("to", &self.to),
        ]);
        query.push(("kind", &self.kind));
        query.push(("limit", last.as_deref().unwrap_or("10000")));
        if last.is_some() {
            query.push(("tail", "true"));
        }
        if self.follow {
            query.push(("follow", "true"));
            let lines = client.get_stream(&path, &query, "application/x-ndjson")?;
            return follow(BufReader::new(lines), self.output, &mut *terminal.out);
        }
        let listing = Listing {
            path: &path,
            query,
            columns: COLUMNS,
        };
        listing.print(&client, self.output, terminal)?;
        Ok(Exit::Ok)
    }
}

fn follow(lines: impl BufRead, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    for line in lines.lines() {
        let line = line.map_err(|error| Failure::io("the gateway's answer breaks off", error))?;
        // An empty line is the gateway's sign of life.
        if line.is_empty() {
            continue;
        }
        match format {
            Format::Ndjson | Format::Json => writeln!(out, "{line}")?,
            Format::Table | Format::Csv => {
                let item: Value = serde_json::from_str(&line).map_err(io::Error::from)?;
                let (time, kind) = (time(&item, "time"), text(&item, "kind"));
                writeln!(
                    out,
                    "{time}  {kind:<12}  {:>4}  {}",
                    text(&item, "code"),
                    what(&item)
                )?;
            }
        }
        out.flush()?;
    }
    Ok(Exit::Ok)
}

/// An entry in a few words.
fn what(item: &Value) -> String {
    match item["kind"].as_str().unwrap_or_default() {
        "connect" => {
            let (remote, protocol) = (text(item, "remote"), text(item, "protocol"));
            format!("{} from {remote}, MQTT {protocol}", text(item, "clientId"))
        }
        "disconnect" => format!("{}: {}", text(item, "clientId"), text(item, "reason")),
        "transmission" => format!(
            "{} items, {} bytes, {:.1} ms {}",
            text(item, "items"),
            text(item, "bytes"),
            item["ms"].as_f64().unwrap_or(0.0),
            text(item, "receipt"),
        ),
        _ => text(item, "message"),
    }
}
