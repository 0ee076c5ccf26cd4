//! `backtide get KIND [NAME]`: declared objects, as `apply` takes them.

use std::io::Write;

use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    output,
};
use crate::registry::Kind;

#[derive(Debug, clap::Args)]
pub struct Get {
    /// What kind of objects
    kind: Kind,
    /// One object's name; all of them unless given
    name: Option<String>,
    /// Only objects of this product; tells devices of the same name apart
    #[arg(long)]
    product: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// The forms objects are printed in. YAML, JSON and NDJSON are what `apply` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    #[default]
    Yaml,
    Json,
    Ndjson,
    Table,
    Csv,
}

impl Get {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        let out = &mut *terminal.out;
        match self.output {
            Form::Yaml => self.each::<Box<RawValue>>(&client, |object| {
                out.write_all(b"---\n")?;
                yaml(out, &object)
            })?,
            Form::Ndjson => {
                self.each::<Box<RawValue>>(&client, |object| Ok(writeln!(out, "{object}")?))?
            }
            Form::Json if self.name.is_some() => {
                self.each::<Box<RawValue>>(&client, |object| Ok(writeln!(out, "{object}")?))?;
            }
            Form::Json => {
                let mut separator = "[\n";
                self.each::<Box<RawValue>>(&client, |object| {
                    write!(out, "{separator}  {object}")?;
                    separator = ",\n";
                    Ok(())
                })?;
                writeln!(out, "{}", if separator == "[\n" { "[]" } else { "\n]" })?;
            }
            Form::Table => self.table(&client, out, output::Format::Table)?,
            Form::Csv => self.table(&client, out, output::Format::Csv)?,
        }
        Ok(Exit::Ok)
    }

    /// Calls `each` with the named object, or with all.
    fn each<T: DeserializeOwned>(
        &self,
        client: &Client,
        mut each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut query: Vec<_> = self
            .product
            .iter()
            .map(|p| ("product", p.as_str()))
            .collect();
        match &self.name {
            Some(name) => each(client.get(&path_of(self.kind, name), &query)?),
            None => {
                query.push(("limit", "1000"));
                client.each(&format!("/api/v1/{}", self.kind.plural()), &query, each)
            }
        }
    }

    fn table(
        &self,
        client: &Client,
        out: &mut dyn Write,
        format: output::Format,
    ) -> Result<(), Failure> {
        let mut objects: Vec<serde_json::Value> = Vec::new();
        self.each(client, |object| {
            objects.push(object);
            Ok(())
        })?;
        let cells: Vec<_> = self
            .kind
            .columns()
            .iter()
            .map(|title| (*title, cell(title)))
            .collect();
        let columns: Vec<output::Column<'_, serde_json::Value>> = cells
            .iter()
            .map(|(title, cell)| (*title, cell as &dyn Fn(&_) -> String))
            .collect();
        Ok(output::write(out, format, &columns, &objects)?)
    }
}

/// Where one object is found.
pub(super) fn path_of(kind: Kind, name: &str) -> String {
    format!("/api/v1/{}/{}", kind.plural(), segment(name))
}

/// The same members in the same order, as a YAML document.
fn yaml(out: &mut dyn Write, object: &RawValue) -> Result<(), Failure> {
    let mut json = serde_json::Deserializer::from_str(object.get());
    let document = serde_transcode::Transcoder::new(&mut json);
    let text = serde_saphyr::to_string(&document)
        .map_err(|error| Failure::Failed(format!("cannot write {object} as YAML: {error}")))?;
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn cell(title: &'static str) -> impl Fn(&serde_json::Value) -> String {
    move |object| match &object[title] {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
