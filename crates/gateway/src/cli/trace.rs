//! `backtide channel trace|run` and `channel log --trace`: the flight recorder of a channel.

use std::io::Write;

use serde_json::{Value, json};

use super::{
    Exit, Failure, Terminal,
    client::{Client, segment},
    listing::{Columns, Listing, text, time},
    output::Format,
};

#[derive(Debug, clap::Args)]
pub struct Trace {
    /// The channel's name
    name: String,
    /// For how long, such as `10m` or `2h`
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "10m",
        conflicts_with = "always"
    )]
    duration: jiff::SignedDuration,
    /// Until it is stopped
    #[arg(long)]
    always: bool,
    /// The share of messages to record: above 0, at most 1
    #[arg(long, default_value_t = 1.0)]
    sample: f64,
    /// Stop recording; what is recorded stays
    #[arg(long, conflicts_with_all = ["duration", "always", "sample"])]
    stop: bool,
}

#[derive(Debug, clap::Args)]
pub struct Run {
    /// The channel's name
    name: String,
    /// The recording, as `log --trace` numbers it
    recording: i64,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn path(name: &str) -> String {
    format!("/api/v1/channels/{}/trace", segment(name))
}

impl Trace {
    pub(super) fn run(self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        let path = path(&self.name);
        if self.stop {
            client.delete(&path, &[])?;
            writeln!(
                terminal.talk,
                "channel {} is not recorded any more",
                self.name
            )?;
            return Ok(());
        }
        let mut order = json!({ "sample": self.sample });
        if !self.always {
            order["seconds"] = self.duration.as_secs().into();
        }
        let state: Value = client.put(&path, "application/json", order.to_string().as_bytes())?;
        let until = match time(&state, "until") {
            until if until.is_empty() => "until it is stopped".to_owned(),
            until => format!("until {until}"),
        };
        let share = match state["sample"].as_f64() {
            Some(share) if share < 1.0 => format!("{} % of the messages", share * 100.0),
            _ => "all messages".to_owned(),
        };
        writeln!(
            terminal.talk,
            "{share} of channel {} are recorded {until}; `backtide channel log {} --trace` shows them",
            self.name, self.name
        )?;
        Ok(())
    }
}

const COLUMNS: Columns = &[
    ("id", |item| text(item, "id")),
    ("time", |item| time(item, "time")),
    ("code", |item| text(item, "code")),
    ("bytes", |item| text(item, "bytes")),
    ("ms", |item| {
        format!("{:.1}", item["totalMs"].as_f64().unwrap_or(0.0))
    }),
    ("last stage", |item| {
        let failed = item["steps"].as_array().into_iter().flatten();
        let mut failed = failed.filter(|step| step["ok"] == false);
        failed.next().map_or_else(String::new, |step| {
            format!("{}: {}", text(step, "stage"), text(step, "detail"))
        })
    }),
    ("payload", |item| match &item["payload"] {
        Value::String(payload) => payload.chars().take(80).collect(),
        _ => text(item, "payloadHex").chars().take(80).collect(),
    }),
];

/// Recorded messages.
pub(super) fn list(
    client: &Client,
    name: &str,
    code: Option<u16>,
    last: Option<u16>,
    format: Format,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let path = format!("{}/messages", path(name));
    let code = code.map(|code| code.to_string());
    let last = last.map(|last| last.min(1_000).to_string());
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(code.as_deref().map(|code| ("code", code)));
    query.push(("limit", last.as_deref().unwrap_or("100")));
    if last.is_some() {
        query.push(("tail", "true"));
    }
    let listing = Listing {
        path: &path,
        query,
        columns: COLUMNS,
    };
    let printed = listing.print(client, format, terminal)?.printed;
    if printed == 0 {
        writeln!(
            terminal.talk,
            "nothing is recorded; `backtide channel trace {name}` begins"
        )?;
    }
    Ok(())
}

impl Run {
    pub(super) fn run(self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let path = format!("{}/messages/{}/run", path(&self.name), self.recording);
        let verdict = client.post(&path, &[], "application/json", b"")?;
        print_verdict(&verdict, self.output, terminal)
    }
}

/// What would become of a message, stage by stage.
pub(super) fn print_verdict(
    verdict: &Value,
    format: Format,
    terminal: &mut Terminal,
) -> Result<Exit, Failure> {
    let out = &mut terminal.out;
    match format {
        Format::Json | Format::Ndjson => writeln!(out, "{verdict}")?,
        Format::Table | Format::Csv => {
            if let Value::String(reason) = &verdict["skipped"] {
                writeln!(out, "it cannot be tried: {reason}")?;
            }
            for step in verdict["steps"].as_array().into_iter().flatten() {
                let mark = if step["ok"] == true {
                    "ok     "
                } else {
                    "refused"
                };
                writeln!(
                    out,
                    "{:<10} {mark} {}",
                    text(step, "stage"),
                    text(step, "detail")
                )?;
                if let Value::String(made) = &step["made"] {
                    writeln!(out, "{made}")?;
                }
            }
            for item in verdict["rejected"].as_array().into_iter().flatten() {
                writeln!(
                    out,
                    "           {} {}",
                    text(item, "code"),
                    text(item, "message")
                )?;
            }
        }
    }
    let is_ok = verdict["code"] == 200;
    Ok(if is_ok { Exit::Ok } else { Exit::Partial })
}
