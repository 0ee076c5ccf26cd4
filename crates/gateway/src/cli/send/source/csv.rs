//! Wide CSV: a header, then a row for each device and time. Comma, semicolon or tab.

use std::io::{BufRead, BufReader, Chain, Cursor, Read};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::{Item, Row, Rows, SourceError, spoiled};
use crate::cli::send::{
    mapping::{DeviceAt, Layout, Mapping, Points},
    moment::{Clockwork, Notes},
    value,
};

type Text = Chain<Cursor<Vec<u8>>, BufReader<Box<dyn Read + Send>>>;

pub(super) struct Csv {
    reader: Reader<Text>,
    record: ByteRecord,
    mapping: Mapping,
    layout: Layout,
    clock: Clockwork,
}

impl Csv {
    pub(super) fn open(
        text: Box<dyn Read + Send>,
        mapping: &Mapping,
        points: &Points,
        clock: Clockwork,
    ) -> Result<Self, SourceError> {
        let mut text = BufReader::with_capacity(256 << 10, text);
        let mut first_line = Vec::new();
        text.read_until(b'\n', &mut first_line)?;
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter(&first_line))
            .from_reader(Cursor::new(first_line).chain(text));
        let header: Vec<String> = reader
            .byte_headers()
            .map_err(unusable)?
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        let layout = Layout::new(mapping, &header, points).map_err(SourceError::Usage)?;
        Ok(Self {
            reader,
            record: ByteRecord::new(),
            mapping: mapping.clone(),
            layout,
            clock,
        })
    }
}

impl Rows for Csv {
    fn next(&mut self, item: &mut Item) -> Result<Option<Row>, SourceError> {
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                return match error.kind() {
                    ErrorKind::UnequalLengths {
                        expected_len, len, ..
                    } => Ok(Some(Row::Unreadable(format!(
                        "{len} cells, the header has {expected_len}"
                    )))),
                    _ => Err(unusable(error)),
                };
            }
        }
        let cell = |column: usize| std::str::from_utf8(&self.record[column]).ok();
        let device = match &self.layout.device {
            DeviceAt::Fixed(key) => key,
            DeviceAt::Column(column) => match cell(*column).map(str::trim) {
                Some(key) if !key.is_empty() => key,
                Some(_) => return Ok(Some(Row::Unreadable("the device key is empty".to_owned()))),
                None => return Ok(Some(not_utf8("device key"))),
            },
        };
        let Some(time) = cell(self.layout.time) else {
            return Ok(Some(not_utf8("time")));
        };
        let time_ms = match self.clock.read(time) {
            Ok(time_ms) => time_ms,
            Err(error) => return spoiled(&error),
        };
        item.begin(device, time_ms);
        for point in &self.layout.points {
            let Some(text) = cell(point.column) else {
                return Ok(Some(not_utf8("a cell")));
            };
            if self.mapping.is_absent(text) {
                continue;
            }
            let quality = point
                .quality
                .and_then(cell)
                .filter(|text| !self.mapping.is_absent(text));
            item.value(&point.key, |out| match quality {
                None => value::write(out, point.form, text),
                Some(quality) => {
                    out.extend_from_slice(b"{\"value\":");
                    value::write(out, point.form, text);
                    out.extend_from_slice(b",\"quality\":");
                    value::write(out, value::Form::Number, quality);
                    out.push(b'}');
                }
            });
        }
        Ok(Some(item.end()))
    }

    fn notes(&self) -> Notes {
        self.clock.notes
    }
}

/// The separator that occurs most in the header; a comma where none does.
fn delimiter(header: &[u8]) -> u8 {
    let count = |separator: u8| header.iter().filter(|byte| **byte == separator).count();
    [b'\t', b';', b',']
        .into_iter()
        .max_by_key(|separator| count(*separator))
        .unwrap_or(b',')
}

fn not_utf8(what: &str) -> Row {
    Row::Unreadable(format!("{what} is not UTF-8"))
}

fn unusable(error: csv::Error) -> SourceError {
    match error.into_kind() {
        ErrorKind::Io(error) => SourceError::Io(error),
        kind => SourceError::Usage(format!("the CSV cannot be read: {kind:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::cli::send::moment::zone;

    fn read(text: &'static str, mapping: &Mapping) -> Result<Vec<String>, SourceError> {
        let zone = mapping.timezone.as_deref().map(|name| zone(name).unwrap());
        let mut csv = Csv::open(
            Box::new(text.as_bytes()),
            mapping,
            &points(),
            Clockwork::new(zone),
        )?;
        read_all(&mut csv)
    }

    #[test]
    fn empty_cells_are_absent_and_rows_without_a_value_are_empty() {
        let rows = read(
            "deviceKey,time,P_avg,Ws_avg\nR1,0,1.0,\nR1,1,,\nR2,2,,7.119999900000001\n",
            &Mapping::default(),
        );
        assert_eq!(
            rows.unwrap(),
            [
                r#"{"deviceKey":"R1","time":0,"measurepoints":{"P_avg":1.0}}"#,
                "-",
                r#"{"deviceKey":"R2","time":2,"measurepoints":{"Ws_avg":7.119999900000001}}"#,
            ]
        );
    }

    #[test]
    fn semicolons_quotes_texts_and_a_byte_order_mark_are_understood() {
        let rows = read(
            "\u{feff}deviceKey;time;label\r\n\"R1\";0;\"a;\"\"b\"\"\"\r\n",
            &Mapping::default(),
        );
        assert_eq!(
            rows.unwrap(),
            [r#"{"deviceKey":"R1","time":0,"measurepoints":{"label":"a;\"b\""}}"#]
        );
    }

    #[test]
    fn qualities_travel_with_their_values() {
        let rows = read(
            "deviceKey,time,P_avg,P_avg.quality\nR1,0,1,9\nR1,1,2,\n",
            &Mapping::default(),
        );
        assert_eq!(
            rows.unwrap(),
            [
                r#"{"deviceKey":"R1","time":0,"measurepoints":{"P_avg":{"value":1,"quality":9}}}"#,
                r#"{"deviceKey":"R1","time":1,"measurepoints":{"P_avg":2}}"#,
            ]
        );
    }

    #[test]
    fn a_row_that_cannot_be_read_does_not_hide_the_next() {
        let rows = read(
            "deviceKey,time,P_avg\nR1,noon,1\nR1,0\n,0,1\nR1,5,1\n",
            &Mapping::default(),
        )
        .unwrap();
        assert!(rows[0].starts_with("!\"noon\" is no time"), "{}", rows[0]);
        assert_eq!(rows[1], "!2 cells, the header has 3");
        assert_eq!(rows[2], "!the device key is empty");
        assert_eq!(
            rows[3],
            r#"{"deviceKey":"R1","time":5,"measurepoints":{"P_avg":1}}"#
        );
    }

    #[test]
    fn a_local_time_without_a_zone_ends_the_reading() {
        let text = "deviceKey,time,P_avg\nR1,2014-07-01 12:00:00,1\n";
        let error = read(text, &Mapping::default()).unwrap_err();
        assert!(error.to_string().contains("--timezone"), "{error}");
        let paris = Mapping {
            timezone: Some("Europe/Paris".into()),
            ..Mapping::default()
        };
        assert!(read(text, &paris).unwrap()[0].contains("1404208800000"));
    }
}
