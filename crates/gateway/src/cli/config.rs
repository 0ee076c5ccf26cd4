//! `backtide config check|show`.

use std::{io::Write, path::PathBuf};

use clap::Subcommand;

use super::{Connection, Exit, Failure, Terminal};
use crate::{
    clock::Clock,
    config::{Overrides, Raw},
};

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration can be used, and what is wrong with it
    Check(Source),
    /// Print the configuration that is in force, as a file
    Show(Source),
}

#[derive(Debug, clap::Args)]
pub struct Source {
    /// Configuration file (TOML)
    #[arg(long, env = "BACKTIDE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigCommand {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let (Self::Check(source) | Self::Show(source)) = &self;
        let overrides = Overrides {
            data_dir: connection.data_dir.clone(),
            ..Overrides::default()
        };
        let raw = Raw::read(source.config.as_deref(), overrides)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let text = raw.to_toml();
        let config = raw
            .check()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        match self {
            Self::Check(_) => {
                if let Some(mqtts) = config.mqtts {
                    let checked = mqtts.files.check(Clock::system().now_ms());
                    checked.map_err(|error| Failure::Usage(error.to_string()))?;
                }
                writeln!(terminal.talk, "the configuration is sound")?;
            }
            Self::Show(_) => terminal.out.write_all(text.as_bytes())?,
        }
        Ok(Exit::Ok)
    }
}
