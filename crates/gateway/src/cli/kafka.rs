//! `backtide kafka check`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{
    Connection, Exit, Failure, Terminal,
    output::{self, Format},
};
use crate::{
    config::{Overrides, Raw},
    kafka::{Cluster, check::Finding},
};

/// Which store it is matters to cursors alone: none is looked at here.
const NO_STORE: u32 = 0;

#[derive(Debug, Subcommand)]
pub enum Kafka {
    /// Say what is wrong with the Kafka cluster that is configured: address, certificate, credential,
    /// topics. Asks Kafka itself; no gateway need run
    Check(Check),
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Configuration file (TOML)
    #[arg(long, env = "BACKTIDE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A topic to look at, beside those that rules and the change feed publish to by default; may be repeated
    #[arg(long = "topic", value_name = "NAME")]
    topics: Vec<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Kafka {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let Self::Check(check) = self;
        let overrides = Overrides {
            data_dir: connection.data_dir.clone(),
            ..Overrides::default()
        };
        let config = Raw::read(check.config.as_deref(), overrides)
            .and_then(Raw::check)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let Some(kafka) = config.kafka else {
            let message = "no Kafka is configured: set kafka.bootstrap_servers";
            return Err(Failure::Usage(message.into()));
        };
        let cluster = Cluster::new(kafka, config.organization, NO_STORE);
        let mut topics = cluster.default_topics();
        topics.extend(check.topics);
        let report = cluster.check(&topics);
        output::write(
            &mut *terminal.out,
            check.output,
            &[
                ("verdict", &|finding: &Finding| {
                    finding.verdict.word().to_owned()
                }),
                ("subject", &|finding: &Finding| finding.subject.clone()),
                ("message", &|finding: &Finding| finding.message.clone()),
            ],
            &report.findings,
        )?;
        Ok(if report.ok { Exit::Ok } else { Exit::Failed })
    }
}
