//! `backtide conflicts`: values that were overwritten by different ones.

use std::io::Write;

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    compare::Whose,
    listing::{Columns, Listing, given, text, time},
    output::Format,
};

#[derive(Debug, clap::Args)]
pub struct Conflicts {
    /// Only those of this product
    #[arg(long)]
    product: Option<String>,
    /// Only those of this device key
    #[arg(long)]
    device: Option<String>,
    /// Only those of this point
    #[arg(long, visible_alias = "point")]
    points: Option<String>,
    /// Begin: ISO time or milliseconds since 1970, inclusive
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// End, exclusive
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    #[command(flatten)]
    later: Later,
    /// One line for each row with conflicts, counted
    #[arg(long)]
    by_row: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Whose messages brought the later values.
#[derive(Debug, clap::Args)]
struct Later {
    /// Only those that this import brought
    #[arg(long, value_name = "ID", conflicts_with_all = ["channel", "client", "messages", "after", "through"])]
    import: Option<String>,
    #[command(flatten)]
    whose: Whose,
}

const VALUE_COLUMNS: Columns = &[
    ("device", |item| text(item, "deviceKey")),
    ("time", |item| time(item, "time")),
    ("point", |item| text(item, "point")),
    ("overwritten", |item| text(item, "overwritten")),
    ("kept", |item| text(item, "kept")),
    ("overwritten receipt", |item| {
        text(item, "overwrittenReceipt")
    }),
    ("kept receipt", |item| text(item, "keptReceipt")),
];

const ROW_COLUMNS: Columns = &[
    ("device", |item| text(item, "deviceKey")),
    ("time", |item| time(item, "time")),
    ("conflicts", |item| text(item, "conflicts")),
    ("points", |item| text(item, "points")),
];

impl Conflicts {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let mut query = given(&[
            ("product", &self.product),
            ("device", &self.device),
            ("points", &self.points),
            ("from", &self.from),
            ("to", &self.to),
        ]);
        query.extend(given(&[("import", &self.later.import)]));
        query.extend(self.later.whose.asked());
        query.push(("limit", "10000"));
        query.push(("by", if self.by_row { "row" } else { "value" }));
        let columns = if self.by_row {
            ROW_COLUMNS
        } else {
            VALUE_COLUMNS
        };
        let listing = Listing {
            path: "/api/v1/conflicts",
            query,
            columns,
        };
        let whole = listing.print(&Client::new(connection)?, self.output, terminal)?;
        if self.output == Format::Table {
            terminal.out.flush()?;
            writeln!(terminal.talk, "{} in all", whole.total.unwrap_or(0))?;
        }
        if whole.complete == Some(false) {
            writeln!(
                terminal.talk,
                "not everything is looked through yet; it is within a minute of quiet"
            )?;
        }
        Ok(Exit::Ok)
    }
}
