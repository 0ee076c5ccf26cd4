//! `backtide compare`: how much of some messages was there already, and how much was other.

use std::{io::Write, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    listing::given,
    output::{self, Column, Format},
};

/// How often the gateway is asked whether it has compared everything.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Compare {
    #[command(flatten)]
    whose: Whose,
    /// Wait until everything is compared: within a minute of quiet
    #[arg(long)]
    wait: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Whose messages.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Whose {
    /// Only messages that came by this channel
    #[arg(long)]
    pub channel: Option<String>,
    /// Only those of this client id, such as import:1
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Only those whose id begins with this, as `send` says its own
    #[arg(long, value_name = "BEGINNING")]
    pub messages: Option<String>,
    /// Only what was committed behind this sequence
    #[arg(long, value_name = "SEQUENCE")]
    pub after: Option<String>,
    /// Only what was committed up to this sequence
    #[arg(long, value_name = "SEQUENCE")]
    pub through: Option<String>,
}

impl Whose {
    /// The parameters that say so.
    pub(super) fn asked(&self) -> Vec<(&str, &str)> {
        given(&[
            ("channel", &self.channel),
            ("client", &self.client),
            ("messages", &self.messages),
            ("after", &self.after),
            ("through", &self.through),
        ])
    }
}

/// What the gateway found of messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compared {
    /// Messages that were committed; one that was sent twice is two.
    pub messages: u64,
    /// Those whose values policies processed.
    pub processed: u64,
    /// Values that were there already.
    pub repeated: u64,
    /// Values that were other than what stood there.
    pub conflicts: u64,
    /// There will not be more.
    pub complete: bool,
    /// The last commit that was looked at.
    pub through: u64,
}

impl Compared {
    /// Asks the gateway; with `wait` until it has compared everything.
    pub(super) fn ask(client: &Client, whose: &Whose, wait: bool) -> Result<Self, Failure> {
        let mut whose = whose.clone();
        loop {
            let found: Self = client.get("/api/v1/comparison", &whose.asked())?;
            if found.complete || !wait {
                return Ok(found);
            }
            // What comes meanwhile is not waited for.
            whose.through = Some(found.through.to_string());
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

impl Compare {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let found = Compared::ask(&Client::new(connection)?, &self.whose, self.wait)?;
        let columns: [Column<'_, Compared>; 5] = [
            ("messages", &|of| of.messages.to_string()),
            ("processed", &|of| of.processed.to_string()),
            ("repeated", &|of| of.repeated.to_string()),
            ("conflicts", &|of| of.conflicts.to_string()),
            ("compared", &|of| of.complete.to_string()),
        ];
        output::write(
            &mut *terminal.out,
            self.output,
            &columns,
            std::slice::from_ref(&found),
        )?;
        terminal.out.flush()?;
        if !found.complete {
            writeln!(
                terminal.talk,
                "not everything is compared with what was there yet; it is within a minute of quiet, and --wait waits"
            )?;
        }
        Ok(Exit::Ok)
    }
}
