//! CSV: a header, then a row for each device and time, or for each point of them. Comma, semicolon or tab.

use std::{
    io::{self, BufRead, BufReader, Chain, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::{Item, Row, Rows, SourceError};
use crate::{
    files::{
        mapping::{Mapping, Points},
        moment::{Clockwork, MomentError, Notes},
        render::{Cells, Renderer},
    },
    limits::FILE_ROW_BYTES_MAX,
};

type Text = Chain<Cursor<Vec<u8>>, Bounded>;

pub(super) struct Csv {
    reader: Reader<Text>,
    record: ByteRecord,
    renderer: Renderer,
    /// Bytes that were read since the last row began.
    since_row: Arc<AtomicU64>,
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
        text.by_ref()
            .take(FILE_ROW_BYTES_MAX)
            .read_until(b'\n', &mut first_line)?;
        let since_row = Arc::new(AtomicU64::new(0));
        let rest = Bounded {
            inner: text,
            since_row: Arc::clone(&since_row),
        };
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter(&first_line))
            .from_reader(Cursor::new(first_line).chain(rest));
        let header: Vec<String> = reader
            .byte_headers()
            .map_err(unusable)?
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        Ok(Self {
            reader,
            record: ByteRecord::new(),
            renderer: Renderer::new(mapping, &header, points, clock)?,
            since_row,
        })
    }
}

impl Rows for Csv {
    fn next(&mut self, item: &mut Item) -> Result<Option<Row>, SourceError> {
        self.since_row.store(0, Ordering::Relaxed);
        let row = match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => self.renderer.row(&self.record, item)?,
            Ok(false) => return Ok(None),
            Err(error) => match error.kind() {
                ErrorKind::UnequalLengths {
                    expected_len, len, ..
                } => Row::Unreadable(format!("{len} cells, the header has {expected_len}")),
                _ => return Err(unusable(error)),
            },
        };
        if matches!(row, Row::Unreadable(_)) {
            item.raw = line(&self.record);
        }
        Ok(Some(row))
    }

    fn notes(&self) -> Notes {
        self.renderer.clock.notes
    }
}

impl Cells for ByteRecord {
    const TELLS_EMPTY: bool = false;

    fn cell<'c>(
        &'c self,
        column: usize,
        _: &'c mut String,
    ) -> Result<Option<&'c str>, &'static str> {
        let text = std::str::from_utf8(&self[column]).map_err(|_| "is not UTF-8")?;
        Ok(Some(text))
    }

    fn time_ms(&self, column: usize, clock: &mut Clockwork) -> Result<i64, MomentError> {
        clock.read(&String::from_utf8_lossy(&self[column]))
    }
}

/// A row as it stands in a file with commas.
pub(super) fn line(record: &ByteRecord) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new()
        .flexible(true)
        .from_writer(Vec::new());
    writer
        .write_byte_record(record)
        .expect("a vector takes every write");
    let mut line = writer.into_inner().expect("a vector takes every write");
    line.truncate(line.trim_ascii_end().len());
    line
}

/// Ends the reading in a row that is far too long: a quote that is never closed would take the rest of
/// the file into memory.
struct Bounded {
    inner: BufReader<Box<dyn Read + Send>>,
    since_row: Arc<AtomicU64>,
}

impl Read for Bounded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.since_row.load(Ordering::Relaxed) > FILE_ROW_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a row has more than {FILE_ROW_BYTES_MAX} bytes; is a quote not closed?"),
            ));
        }
        let count = self.inner.read(buf)?;
        let added = u64::try_from(count).unwrap_or(u64::MAX);
        self.since_row.fetch_add(added, Ordering::Relaxed);
        Ok(count)
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

fn unusable(error: csv::Error) -> SourceError {
    match error.into_kind() {
        ErrorKind::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            SourceError::Usage(error.to_string())
        }
        ErrorKind::Io(error) => SourceError::Io(error),
        kind => SourceError::Usage(format!("the CSV cannot be read: {kind:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::files::moment::zone;

    fn read(text: &'static str, mapping: &Mapping) -> Result<Vec<String>, SourceError> {
        let zone = mapping.timezone.as_deref().map(|name| zone(name).unwrap());
        let mut csv = Csv::open(
            Box::new(text.as_bytes()),
            mapping,
            &Points::of(mapping.items(), points()),
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
    fn a_long_file_has_a_point_a_row() {
        let long = Mapping {
            long: true,
            map: vec![("power".into(), "P_avg".into())],
            drop: vec!["noise".into()],
            ..Mapping::default()
        };
        let rows = read(
            "deviceKey,time,point,value,quality\nR1,0,power,1.50,\nR1,0,label,7,3\nR1,0,noise,1,\nR1,0,,1,\nR1,1,Px,2,\n",
            &long,
        );
        assert_eq!(
            rows.unwrap(),
            [
                r#"{"deviceKey":"R1","time":0,"measurepoints":{"P_avg":1.50}}"#,
                r#"{"deviceKey":"R1","time":0,"measurepoints":{"label":{"value":"7","quality":3}}}"#,
                "-",
                "!the point's name is empty",
                r#"{"deviceKey":"R1","time":1,"measurepoints":{"Px":2}}"#,
            ]
        );
    }

    #[test]
    fn events_and_attributes_have_a_row_each_and_how_they_came_is_left_out() {
        let events = Mapping {
            events: true,
            ..Mapping::default()
        };
        let rows = read(
            "deviceKey,time,event,output,channel,arrived,receipt\nR1,7,leak,\"{\"\"n\"\":1}\",c,8,r-1\nR1,7,leak,no,c,8,r-1\n",
            &events,
        );
        assert_eq!(
            rows.unwrap(),
            [
                r#"{"deviceKey":"R1","time":7,"events":{"leak":{"n":1}}}"#,
                r#"{"deviceKey":"R1","time":7,"events":{"leak":"no"}}"#,
            ]
        );
        let attributes = Mapping {
            attributes: true,
            ..Mapping::default()
        };
        let text = "deviceKey,attribute,value,confirmed\nR1,label,7,8\nR1,P_avg,7,8\nR1,label, ,8\nR1,label,,8\n";
        assert_eq!(
            read(text, &attributes).unwrap(),
            [
                r#"{"deviceKey":"R1","attributes":{"label":"7"}}"#,
                r#"{"deviceKey":"R1","attributes":{"P_avg":7}}"#,
                r#"{"deviceKey":"R1","attributes":{"label":" "}}"#,
                "-",
            ]
        );
        let archive = "deviceKey,time,attribute,value,current\nR1,7,label,\"\"\"7\"\"\",true\n";
        assert_eq!(
            read(archive, &attributes).unwrap(),
            [r#"{"deviceKey":"R1","attributes":{"label":"7"}}"#]
        );
        let error = read("deviceKey,time,event,output,why\n", &events).unwrap_err();
        assert!(error.to_string().contains("\"why\""), "{error}");
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_take_the_file_into_memory() {
        let head = "deviceKey,time,label\nR1,0,\"".to_owned();
        let text = head + &"x,\n".repeat(3 << 20);
        let mut csv = Csv::open(
            Box::new(Cursor::new(text.into_bytes())),
            &Mapping::default(),
            &points(),
            Clockwork::new(None),
        )
        .unwrap();
        let error = read_all(&mut csv).unwrap_err();
        assert!(error.to_string().contains("quote"), "{error}");
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
