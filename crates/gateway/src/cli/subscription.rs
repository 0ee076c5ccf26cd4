//! `backtide subscription ls|show|start|stop|replay`.

use std::io::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    listing::text,
    output::{self, Column, Format},
    running::{Ls, Named, Running, Show},
};

#[derive(Debug, Subcommand)]
pub enum Subscription {
    /// List subscriptions with their rate, groups and lag
    Ls(Ls),
    /// Show a subscription's groups: offsets, lag and rate of each partition
    Show(Show),
    /// Let a stopped subscription follow the log again, from where it was
    Start(Named),
    /// Let nobody in, and hold the log no longer
    Stop(Named),
    /// Let consumer groups read again what came since a moment
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
pub struct Replay {
    name: String,
    /// When messages came: ISO-8601 with an offset, or epoch milliseconds
    #[arg(long)]
    from: String,
    /// Only this consumer group
    #[arg(long)]
    group: Option<String>,
}

impl Subscription {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        let subscriptions = Running {
            client: &client,
            word: "subscription",
        };
        match self {
            Self::Ls(ls) => {
                list(terminal, ls.output, &subscriptions.statuses()?)?;
            }
            Self::Show(show) => {
                print(terminal, show.output, &subscriptions.status(&show.name)?)?;
            }
            Self::Start(Named { name }) => {
                subscriptions.tell(&name, "start")?;
                writeln!(terminal.talk, "subscription {name} runs")?;
            }
            Self::Stop(Named { name }) => {
                subscriptions.tell(&name, "stop")?;
                writeln!(terminal.talk, "subscription {name} is stopped")?;
            }
            Self::Replay(Replay { name, from, group }) => {
                let mut query = vec![("from", from.as_str())];
                query.extend(group.as_deref().map(|group| ("group", group)));
                let replayed: Value = subscriptions.post(&name, "replay", &query, &json!({}))?;
                let offsets = replayed["offsets"].as_array().cloned().unwrap_or_default();
                for at in &offsets {
                    let (group, partition) = (text(at, "group"), text(at, "partition"));
                    let offset = text(at, "offset");
                    writeln!(
                        terminal.out,
                        "{group} reads partition {partition} from {offset}"
                    )?;
                }
            }
        }
        Ok(Exit::Ok)
    }
}

fn list(terminal: &mut Terminal, format: Format, items: &[Value]) -> Result<(), Failure> {
    let columns: [Column<'_, Value>; 7] = [
        ("name", &|item| text(item, "name")),
        ("type", &|item| text(item, "type")),
        ("accessKey", &|item| text(item, "accessKey")),
        ("state", &|item| text(item, "state")),
        ("rate", &|item| rate(item)),
        ("groups", &|item| groups(item).len().to_string()),
        ("lag", &|item| {
            let lags = groups(item)
                .iter()
                .filter_map(|group| group["lag"].as_u64());
            lags.max().map_or(String::new(), |lag| lag.to_string())
        }),
    ];
    Ok(output::write(&mut *terminal.out, format, &columns, items)?)
}

/// JSON forms print the status itself; tables and CSV a line for each group and partition.
fn print(terminal: &mut Terminal, format: Format, status: &Value) -> Result<(), Failure> {
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut terminal.out, status)
                .map_err(std::io::Error::from)?;
            return Ok(writeln!(terminal.out)?);
        }
        Format::Ndjson => return Ok(writeln!(terminal.out, "{status}")?),
        Format::Table => writeln!(
            terminal.talk,
            "{} {}: {} messages/s, {} commits behind, {} bytes",
            text(status, "name"),
            text(status, "state"),
            rate(status),
            text(status, "behind"),
            text(status, "bytes"),
        )?,
        Format::Csv => {}
    }
    let mut lines: Vec<(String, Value, Value)> = Vec::new();
    for group in groups(status) {
        for offset in group["offsets"].as_array().into_iter().flatten() {
            lines.push((text(group, "group"), group.clone(), offset.clone()));
        }
    }
    let columns: [Column<'_, (String, Value, Value)>; 7] = [
        ("group", &|line| line.0.clone()),
        ("members", &|line| text(&line.1, "members")),
        ("rate", &|line| rate(&line.1)),
        ("partition", &|line| text(&line.2, "partition")),
        ("committed", &|line| text(&line.2, "committed")),
        ("position", &|line| text(&line.2, "position")),
        ("lag", &|line| text(&line.2, "lag")),
    ];
    Ok(output::write(&mut *terminal.out, format, &columns, &lines)?)
}

fn groups(status: &Value) -> &[Value] {
    status["groups"].as_array().map_or(&[], Vec::as_slice)
}

fn rate(of: &Value) -> String {
    of["rate"]
        .as_f64()
        .map_or(String::new(), |rate| format!("{rate:.1}"))
}
