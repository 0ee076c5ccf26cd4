//! `backtide sql`: one statement that only reads, and its rows.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use clap::ValueEnum;

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    query::{copy, table},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Tables: points, events, attributes, devices, products, channels, channel_log, \
quarantine, and one for each product. Names with capitals stand in double quotes:

  backtide sql 'SELECT device, avg(\"P_avg\") FROM windfarm GROUP BY device'"
)]
pub struct Sql {
    /// The statement; - reads it from stdin
    #[arg(required_unless_present = "file", value_name = "SQL")]
    sql: Option<String>,
    /// Read the statement from a file
    #[arg(short, long, conflicts_with = "sql", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Rows at most
    #[arg(long)]
    limit: Option<usize>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// The forms of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    #[default]
    Table,
    Json,
    Ndjson,
    Csv,
    Parquet,
    /// Arrow's IPC stream
    Arrow,
}

impl Form {
    /// What the gateway is asked for.
    fn asked(self) -> &'static str {
        match self {
            Self::Table | Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }
}

impl Sql {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        let mut body = serde_json::json!({ "sql": self.text()?, "format": self.output.asked() });
        if let Some(limit) = self.limit {
            body["limit"] = limit.into();
        }
        let body = body.to_string();
        let answer = client.post_stream("/api/v1/sql", "application/json", body.as_bytes())?;
        match self.output {
            // Texts and numbers are told apart by nobody here: all to the left.
            Form::Table => table(answer, usize::MAX, &mut *terminal.out)?,
            Form::Json | Form::Ndjson | Form::Csv | Form::Parquet | Form::Arrow => {
                copy(answer, &mut *terminal.out)?;
            }
        }
        if self.output == Form::Json {
            writeln!(terminal.out)?;
        }
        Ok(Exit::Ok)
    }

    fn text(&self) -> Result<String, Failure> {
        if let Some(file) = &self.file {
            return fs::read_to_string(file)
                .map_err(|error| Failure::io(format!("cannot read {}", file.display()), error));
        }
        match self.sql.as_deref() {
            Some("-") | None => {
                let mut text = String::new();
                io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| Failure::io("cannot read stdin", error))?;
                Ok(text)
            }
            Some(text) => Ok(text.to_owned()),
        }
    }
}
