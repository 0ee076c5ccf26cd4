//! `backtide rollup ls|changes`.

use clap::Subcommand;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    listing::{given, text, time},
    output::{self, Column, Format},
};

#[derive(Debug, Subcommand)]
pub enum Rollup {
    /// List rollups and reductions, and whether everything answered is in them
    Ls(Ls),
    /// Print in which ranges of time they became others, in the order in which they did
    Changes(Changes),
}

#[derive(Debug, clap::Args)]
pub struct Ls {
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Changes {
    /// Changes behind this sequence
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Of this rollup or reduction only
    #[arg(long)]
    rollup: Option<String>,
    /// Of this product only
    #[arg(long)]
    product: Option<String>,
    /// Of this device only
    #[arg(long)]
    device: Option<String>,
    /// Changes at most
    #[arg(long)]
    limit: Option<usize>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Deserialize)]
struct Items {
    items: Vec<Value>,
}

impl Rollup {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        match self {
            Self::Ls(ls) => {
                let all: Items = client.get("/api/v1/rollups", &[])?;
                list(terminal, ls.output, &all.items)?;
            }
            Self::Changes(changes) => {
                let (after, limit) = (
                    Some(changes.after.to_string()),
                    changes.limit.map(|limit| limit.to_string()),
                );
                let query = given(&[
                    ("after", &after),
                    ("rollup", &changes.rollup),
                    ("product", &changes.product),
                    ("device", &changes.device),
                    ("limit", &limit),
                ]);
                let all: Items = client.get("/api/v1/changes", &query)?;
                print(terminal, changes.output, &all.items)?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn list(terminal: &mut Terminal, format: Format, items: &[Value]) -> Result<(), Failure> {
    let columns: [Column<'_, Value>; 7] = [
        ("name", &|item| text(item, "name")),
        ("kind", &|item| text(item, "kind")),
        ("product", &|item| text(item, "product")),
        ("interval", &|item| text(item, "interval")),
        ("state", &|item| text(item, "state")),
        ("dirtyDevices", &|item| text(item, "dirtyDevices")),
        ("computed", &|item| time(item, "computed")),
    ];
    Ok(output::write(&mut *terminal.out, format, &columns, items)?)
}

fn print(terminal: &mut Terminal, format: Format, items: &[Value]) -> Result<(), Failure> {
    let columns: [Column<'_, Value>; 6] = [
        ("sequence", &|item| text(item, "sequence")),
        ("rollup", &|item| text(item, "rollup")),
        ("productKey", &|item| text(item, "productKey")),
        ("deviceKey", &|item| text(item, "deviceKey")),
        ("from", &|item| time(item, "from")),
        ("to", &|item| time(item, "to")),
    ];
    Ok(output::write(&mut *terminal.out, format, &columns, items)?)
}
