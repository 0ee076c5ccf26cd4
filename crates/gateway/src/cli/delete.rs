//! `backtide delete KIND NAME`.

use std::io::Write;

use super::{Connection, Exit, Failure, Terminal, client::Client, get};
use crate::registry::Kind;

#[derive(Debug, clap::Args)]
pub struct Delete {
    /// What kind of object
    kind: Kind,
    /// Its name
    name: String,
    /// The product of the device, where several products have a device of that name
    #[arg(long)]
    product: Option<String>,
}

impl Delete {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        let product: Vec<_> = self
            .product
            .iter()
            .map(|p| ("product", p.as_str()))
            .collect();
        client.delete(&get::path_of(self.kind, &self.name), &product)?;
        writeln!(terminal.talk, "deleted {} {}", self.kind, self.name)?;
        Ok(Exit::Ok)
    }
}
