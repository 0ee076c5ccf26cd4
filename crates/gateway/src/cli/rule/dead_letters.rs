//! `backtide rule dead-letters ls|show|redrive|discard`.

use std::io::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::{
    Exit, Failure, Terminal,
    listing::{Listing, text, time},
    output::Format,
    running::Running,
};

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List a rule's dead letters, the oldest first
    Ls(Ls),
    /// Show a dead letter with its message and what the rule made of it
    Show(Show),
    /// Drive dead letters again, through the rule as it is now
    Redrive(Selected),
    /// Discard dead letters, for good
    Discard(Selected),
}

#[derive(Debug, clap::Args)]
pub struct Ls {
    name: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    name: String,
    /// Its number, as `ls` prints it
    id: i64,
}

#[derive(Debug, clap::Args)]
pub struct Selected {
    name: String,
    /// Their numbers, as `ls` prints them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<i64>,
    /// Every one there is
    #[arg(long)]
    all: bool,
}

impl DeadLetters {
    pub(super) fn run(self, rules: Running<'_>, terminal: &mut Terminal) -> Result<Exit, Failure> {
        match self {
            Self::Ls(ls) => {
                let listing = Listing {
                    path: &rules.path(&ls.name, "dead-letters"),
                    query: Vec::new(),
                    columns: &[
                        ("id", |letter| text(letter, "id")),
                        ("time", |letter| time(letter, "time")),
                        ("cause", |letter| text(letter, "cause")),
                        ("asset", |letter| text(letter, "assetId")),
                        ("receipt", |letter| text(letter, "receipt")),
                        ("attempts", |letter| text(letter, "attempts")),
                        ("reason", |letter| text(letter, "reason")),
                    ],
                };
                listing.print(rules.client, ls.output, terminal)?;
            }
            Self::Show(Show { name, id }) => {
                let path = rules.path(&name, &format!("dead-letters/{id}"));
                let letter: Value = rules.client.get(&path, &[])?;
                serde_json::to_writer_pretty(&mut terminal.out, &letter)
                    .map_err(std::io::Error::from)?;
                writeln!(terminal.out)?;
            }
            Self::Redrive(selected) => {
                let letters = selected.ask(rules, "dead-letters/redrive")?;
                writeln!(
                    terminal.talk,
                    "{letters} dead letters are driven again; those that stay are in `ls` with their \
                     new reason"
                )?;
            }
            Self::Discard(selected) => {
                let letters = selected.ask(rules, "dead-letters/discard")?;
                writeln!(terminal.talk, "{letters} dead letters are gone")?;
            }
        }
        Ok(Exit::Ok)
    }
}

impl Selected {
    fn ask(&self, rules: Running<'_>, verb: &str) -> Result<String, Failure> {
        let selection = match self.all {
            true => json!({ "all": true }),
            false => json!({ "ids": self.ids }),
        };
        let count: Value = rules.post(&self.name, verb, &[], &selection)?;
        Ok(text(&count, "letters"))
    }
}
