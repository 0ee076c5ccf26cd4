//! How a command prints rows: `-o table|json|ndjson|csv`.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// The forms of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Ndjson,
    Csv,
}

/// One column of a table or a CSV file: its title, and its cell of an item.
pub type Column<'a, T> = (&'a str, &'a dyn Fn(&T) -> String);

/// Prints all items. JSON forms print the items themselves, tables and CSV the columns.
///
/// # Errors
/// The writer's.
pub fn write<T: Serialize>(
    out: &mut dyn Write,
    format: Format,
    columns: &[Column<'_, T>],
    items: &[T],
) -> io::Result<()> {
    match format {
        Format::Table => table(out, columns, items),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, items)?;
            writeln!(out)
        }
        Format::Ndjson => items.iter().try_for_each(|item| {
            serde_json::to_writer(&mut *out, item)?;
            writeln!(out)
        }),
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(out);
            csv.write_record(columns.iter().map(|(title, _)| title))?;
            for item in items {
                csv.write_record(columns.iter().map(|(_, cell)| cell(item)))?;
            }
            csv.flush()
        }
    }
}

/// Columns as wide as their widest cell, two blanks between; no trailing blanks.
fn table<T>(out: &mut dyn Write, columns: &[Column<'_, T>], items: &[T]) -> io::Result<()> {
    let titles: Vec<String> = columns
        .iter()
        .map(|(title, _)| title.to_uppercase())
        .collect();
    let mut rows = vec![titles];
    rows.extend(
        items
            .iter()
            .map(|item| columns.iter().map(|(_, cell)| cell(item)).collect()),
    );
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| {
            rows.iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format) -> String {
        let mut out = Vec::new();
        let columns: [Column<'_, (String, u8)>; 2] = [
            ("name", &|item| item.0.clone()),
            ("age", &|item| item.1.to_string()),
        ];
        write(
            &mut out,
            format,
            &columns,
            &[("风机".to_owned(), 3), ("b,c".to_owned(), 12)],
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_format_prints_every_item() {
        assert_eq!(printed(Format::Table), "NAME  AGE\n风机    3\nb,c   12\n");
        assert_eq!(printed(Format::Csv), "name,age\n风机,3\n\"b,c\",12\n");
        assert_eq!(printed(Format::Ndjson), "[\"风机\",3]\n[\"b,c\",12]\n");
        assert!(printed(Format::Json).starts_with("[\n"));
    }
}
