//! `backtide channel show|rotate|pause|resume|log|trace|run NAME`.

use std::io::Write;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    output::{self, Format},
};

#[derive(Debug, Subcommand)]
pub enum Channel {
    /// Show the four strings that log a client in, and the secret
    Show(Show),
    /// Make a new secret; the old one stays valid for the overlap
    Rotate(Rotate),
    /// Disconnect the channel's clients and refuse new ones
    Pause(Named),
    /// Let the channel's clients in again, and end a hold
    Resume(Named),
    /// Show what happened on the channel
    Log(super::log::Log),
    /// Record messages with all that is made of them; `log --trace` shows them
    Trace(super::trace::Trace),
    /// Run a recorded message again, dry, against the current model and script
    Run(super::trace::Run),
}

#[derive(Debug, clap::Args)]
pub struct Show {
    name: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Rotate {
    name: String,
    /// How long the old secret stays valid, such as `24h`, `30min` or `0s`
    #[arg(long, default_value = "24h")]
    overlap: jiff::SignedDuration,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Named {
    name: String,
}

/// What logs a client in. Holds the secret: it is printed, and nothing else.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Strings {
    name: String,
    product: String,
    mode: String,
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    broker_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_tls_url: Option<String>,
    client_id: String,
    username: String,
    password: String,
    product_key: String,
    secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_valid_until: Option<String>,
}

impl Channel {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        match self {
            Self::Log(log) => return log.run(connection, terminal),
            Self::Trace(trace) => trace.run(&client, terminal)?,
            Self::Run(run) => return run.run(&client, terminal),
            Self::Show(show) => {
                let strings = client.get(&path(&show.name, "connection"), &[])?;
                print(terminal, show.output, &strings)?;
            }
            Self::Rotate(rotate) => {
                let seconds = rotate.overlap.as_secs().to_string();
                let query = [("overlapSeconds", seconds.as_str())];
                let strings = post(&client, &rotate.name, "rotate", &query)?;
                print(terminal, rotate.output, &strings)?;
            }
            Self::Pause(named) => {
                let _: serde::de::IgnoredAny = post(&client, &named.name, "pause", &[])?;
                writeln!(terminal.talk, "channel {} is paused", named.name)?;
            }
            Self::Resume(named) => {
                let _: serde::de::IgnoredAny = post(&client, &named.name, "resume", &[])?;
                writeln!(terminal.talk, "channel {} is open", named.name)?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn path(name: &str, verb: &str) -> String {
    format!("/api/v1/channels/{}/{verb}", segment(name))
}

fn post<T: serde::de::DeserializeOwned>(
    client: &Client,
    name: &str,
    verb: &str,
    query: &[(&str, &str)],
) -> Result<T, Failure> {
    client.post(&path(name, verb), query, "application/json", b"")
}

fn print(terminal: &mut Terminal, format: Format, strings: &Strings) -> Result<(), Failure> {
    if format != Format::Table {
        let columns: [output::Column<'_, &Strings>; 7] = [
            ("brokerUrl", &|s| s.broker_url.clone()),
            ("brokerTlsUrl", &|s| {
                s.broker_tls_url.clone().unwrap_or_default()
            }),
            ("clientId", &|s| s.client_id.clone()),
            ("username", &|s| s.username.clone()),
            ("password", &|s| s.password.clone()),
            ("productKey", &|s| s.product_key.clone()),
            ("secret", &|s| s.secret.clone()),
        ];
        return match format {
            // One channel is one object, not a list of one.
            Format::Json => {
                serde_json::to_writer_pretty(&mut terminal.out, strings)
                    .map_err(std::io::Error::from)?;
                Ok(writeln!(terminal.out)?)
            }
            format => Ok(output::write(
                &mut *terminal.out,
                format,
                &columns,
                &[strings],
            )?),
        };
    }
    writeln!(terminal.out, "{:<12}  {}", "brokerUrl", strings.broker_url)?;
    if let Some(url) = &strings.broker_tls_url {
        writeln!(terminal.out, "{:<12}  {url}", "brokerTlsUrl")?;
    }
    let lines = [
        ("clientId", &strings.client_id),
        ("username", &strings.username),
        ("password", &strings.password),
        ("productKey", &strings.product_key),
        ("secret", &strings.secret),
    ];
    for (title, value) in lines {
        writeln!(terminal.out, "{title:<12}  {value}")?;
    }
    if let Some(reason) = &strings.held {
        writeln!(terminal.talk, "the channel is held, {reason}; resume it")?;
    }
    if let Some(until) = &strings.previous_secret_valid_until {
        writeln!(terminal.talk, "the old secret stays valid until {until}")?;
    }
    Ok(())
}
