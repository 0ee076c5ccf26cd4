//! Prints a list resource, page after page: what `conflicts`, `quarantine ls` and `channel log`
//! have in common.

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Failure, Terminal,
    client::Client,
    output::{self, Format},
};

/// Titles, and the cell of an item.
pub(super) type Columns = &'static [Column];

/// A column: its title, and its cell of an item.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// A list and how its items are shown in columns.
pub(super) struct Listing<'a> {
    pub(super) path: &'a str,
    pub(super) query: Vec<(&'a str, &'a str)>,
    pub(super) columns: Columns,
}

/// What a page says of the whole list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Whole {
    /// Items on all pages.
    pub(super) total: Option<u64>,
    /// Everything that was answered is in the list.
    pub(super) complete: Option<bool>,
    /// Commits that were answered and are not looked through.
    pub(super) behind: u64,
    /// Items that were printed.
    #[serde(skip)]
    pub(super) printed: u64,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next: Option<Box<RawValue>>,
    #[serde(flatten)]
    whole: Whole,
}

impl Listing<'_> {
    /// Prints every item; the JSON forms as they come, tables and CSV at the end.
    pub(super) fn print(
        &self,
        client: &Client,
        format: Format,
        terminal: &mut Terminal,
    ) -> Result<Whole, Failure> {
        let out = &mut *terminal.out;
        let mut items: Vec<Value> = Vec::new();
        let mut separator = "[\n";
        let mut take = |item: &RawValue| -> Result<(), Failure> {
            match format {
                Format::Ndjson => writeln!(out, "{item}")?,
                Format::Json => {
                    write!(out, "{separator}  {item}")?;
                    separator = ",\n";
                }
                Format::Table | Format::Csv => {
                    items.push(serde_json::from_str(item.get()).map_err(io::Error::from)?);
                }
            }
            Ok(())
        };
        let whole = self.each(client, &mut take)?;
        match format {
            Format::Ndjson => {}
            Format::Json if separator == "[\n" => writeln!(terminal.out, "[]")?,
            Format::Json => writeln!(terminal.out, "\n]")?,
            Format::Table | Format::Csv => print(&items, self.columns, format, terminal)?,
        }
        Ok(whole)
    }

    fn each(
        &self,
        client: &Client,
        take: &mut dyn FnMut(&RawValue) -> Result<(), Failure>,
    ) -> Result<Whole, Failure> {
        let mut cursor: Option<String> = None;
        let mut printed = 0;
        loop {
            let mut query = self.query.clone();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page: Page = client.get(self.path, &query)?;
            for item in &page.items {
                take(item)?;
                printed += 1;
            }
            match page
                .next
                .as_deref()
                .map(RawValue::get)
                .filter(|next| *next != "null")
            {
                None => {
                    return Ok(Whole {
                        printed,
                        ..page.whole
                    });
                }
                Some(next) => cursor = Some(next.trim_matches('"').to_owned()),
            }
        }
    }
}

/// Prints items in columns.
pub(super) fn print(
    items: &[Value],
    columns: &[Column],
    format: Format,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let columns: Vec<output::Column<'_, Value>> = columns
        .iter()
        .map(|(title, cell)| (*title, cell as &dyn Fn(&Value) -> String))
        .collect();
    Ok(output::write(&mut *terminal.out, format, &columns, items)?)
}

/// The text of a member: a string without quotes, nothing where it is absent.
pub(super) fn text(item: &Value, member: &str) -> String {
    match &item[member] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A member that is a time, as ISO text.
pub(super) fn time(item: &Value, member: &str) -> String {
    item[member]
        .as_i64()
        .map(crate::clock::iso)
        .unwrap_or_default()
}

/// The parameters of a query that were given.
pub(super) fn given<'a>(parameters: &[(&'a str, &'a Option<String>)]) -> Vec<(&'a str, &'a str)> {
    let given = parameters
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    given.collect()
}
