//! `backtide salvage`: makes a damaged store open again, keeping what is intact.

use std::{io::Write, path::PathBuf, sync::Arc};

use backtide_store::{Salvaged, disk::Disk, disk::RealDisk};

use super::{Exit, Failure, Terminal};
use crate::config::{Overrides, Raw};

/// What `salvage` is told.
#[derive(Debug, clap::Args)]
pub struct Salvage {
    /// Configuration file (TOML) of the gateway, which must be stopped
    #[arg(long, env = "BACKTIDE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Salvage {
    pub(super) fn run(
        self,
        data_dir: Option<PathBuf>,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let overrides = Overrides {
            data_dir,
            ..Overrides::default()
        };
        let config = Raw::read(self.config.as_deref(), overrides)
            .and_then(Raw::check)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let dir = config.data_dir.join("store");
        let salvaged = backtide_store::salvage(&dir, &disk, &config.store)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        report(&salvaged, terminal)
    }
}

fn report(salvaged: &Salvaged, terminal: &mut Terminal) -> Result<Exit, Failure> {
    writeln!(terminal.out, "{} commits are intact", salvaged.commits)?;
    for file in &salvaged.aside {
        writeln!(terminal.out, "damaged bytes: {}", file.display())?;
    }
    for (from, to) in &salvaged.left_out {
        writeln!(terminal.out, "left out: commits {} to {}", from.0, to.0)?;
    }
    Ok(if salvaged.left_out.is_empty() {
        Exit::Ok
    } else {
        Exit::Partial
    })
}
