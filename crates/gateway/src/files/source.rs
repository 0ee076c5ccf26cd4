//! A file as rows, each rendered as an item of `params` (`mqtt-channel.md` §3.2).

mod csv;
mod ndjson;
mod parquet;

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use backtide_model::Items;

use super::{
    mapping::{Mapping, Points},
    moment::{self, Clockwork, MomentError, Notes},
    value,
};

/// A row, rendered. The buffers are used again for the next one.
#[derive(Debug, Default)]
pub struct Item {
    pub device: String,
    /// `{"deviceKey":…,"time":…,"measurepoints":{…}}`, or events; attributes have no time
    pub json: Vec<u8>,
    pub values: u32,
    /// Of a row that cannot be read: how it stands in the file, as far as is known.
    pub raw: Vec<u8>,
}

/// What a row of the file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// It is in the item.
    Full,
    /// It has no value.
    Empty,
    /// It cannot be sent, because …
    Unreadable(String),
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file or the mapping makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
}

/// Rows in the order of the file.
pub trait Rows: Send {
    /// Reads the next row into `item`; `None` at the end.
    fn next(&mut self, item: &mut Item) -> Result<Option<Row>, SourceError>;
    /// What was decided about its times so far.
    fn notes(&self) -> Notes;
}

/// How much of a file was read.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    done: Arc<AtomicU64>,
    pub total: u64,
}

impl Meter {
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed).min(self.total)
    }

    fn add(&self, amount: u64) {
        self.done.fetch_add(amount, Ordering::Relaxed);
    }
}

/// An open file.
pub struct Source {
    /// What its rows are.
    pub items: Items,
    pub rows: Box<dyn Rows>,
    pub meter: Meter,
}

impl Source {
    /// Opens a file; its ending says what it is.
    ///
    /// # Errors
    /// It cannot be read, or it and the mapping do not fit.
    pub fn open(path: &Path, mapping: &Mapping, points: &Points) -> Result<Self, SourceError> {
        let kind = Kind::of(path)?;
        let file = File::open(path)?;
        if kind.form == Form::Parquet {
            return Self::parquet(file, mapping, points);
        }
        let total = file.metadata()?.len();
        Self::text(Box::new(file), total, kind, mapping, points)
    }

    /// A Parquet file.
    ///
    /// # Errors
    /// It cannot be read, or it and the mapping do not fit.
    pub fn parquet(file: File, mapping: &Mapping, points: &Points) -> Result<Self, SourceError> {
        parquet::Parquet::open(file, mapping, points, clock(mapping)?)
    }

    /// Lines that come from anywhere, `total` bytes of them as they come.
    ///
    /// # Errors
    /// They cannot be read, or they and the mapping do not fit.
    pub fn text(
        bytes: Box<dyn Read + Send>,
        total: u64,
        kind: Kind,
        mapping: &Mapping,
        points: &Points,
    ) -> Result<Self, SourceError> {
        let clock = clock(mapping)?;
        let meter = Meter {
            total,
            ..Meter::default()
        };
        let counted = BufReader::with_capacity(
            256 << 10,
            Counted {
                inner: bytes,
                meter: meter.clone(),
            },
        );
        let text: Box<dyn Read + Send> = match kind.packing {
            Packing::None => Box::new(counted),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
            Packing::Zstd => Box::new(zstd::Decoder::with_buffer(counted)?),
        };
        let rows: Box<dyn Rows> = match kind.form {
            Form::Csv => Box::new(csv::Csv::open(text, mapping, points, clock)?),
            Form::Ndjson | Form::Parquet => Box::new(ndjson::Ndjson::new(
                text,
                mapping.clone(),
                points.clone(),
                clock,
            )),
        };
        Ok(Self {
            items: mapping.items(),
            rows,
            meter,
        })
    }

    /// A CSV text in memory.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn of_csv(
        text: &'static [u8],
        mapping: &Mapping,
        points: &Points,
    ) -> Result<Self, SourceError> {
        let total = u64::try_from(text.len()).expect("a usize fits 64 bits");
        let meter = Meter {
            total,
            ..Meter::default()
        };
        let counted = Counted {
            inner: text,
            meter: meter.clone(),
        };
        let rows = csv::Csv::open(Box::new(counted), mapping, points, clock(mapping)?)?;
        Ok(Self {
            items: mapping.items(),
            rows: Box::new(rows),
            meter,
        })
    }
}

fn clock(mapping: &Mapping) -> Result<Clockwork, SourceError> {
    let zone = mapping.timezone.as_deref().map(moment::zone).transpose();
    Ok(Clockwork::new(zone.map_err(SourceError::Usage)?))
}

/// What the rows of a file are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Csv,
    Ndjson,
    Parquet,
}

/// What a file is packed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub form: Form,
    pub packing: Packing,
}

impl Kind {
    /// By the ending of its name.
    ///
    /// # Errors
    /// The ending is none that is known.
    pub fn of(path: &Path) -> Result<Self, SourceError> {
        let ending = |path: &Path| {
            path.extension()
                .and_then(OsStr::to_str)
                .map(str::to_lowercase)
        };
        let packing = match ending(path).as_deref() {
            Some("gz") => Packing::Gzip,
            Some("zst") => Packing::Zstd,
            _ => Packing::None,
        };
        let inner = if packing == Packing::None {
            path.to_owned()
        } else {
            path.with_extension("")
        };
        let form = match ending(&inner).as_deref() {
            Some("csv" | "tsv" | "txt") => Form::Csv,
            Some("ndjson" | "jsonl" | "json") => Form::Ndjson,
            Some("parquet") if packing == Packing::None => Form::Parquet,
            _ => {
                return Err(SourceError::Usage(format!(
                    "{}: the ending does not say what it is; known are .csv and .ndjson, \
                     also with .gz or .zst, and .parquet",
                    path.display()
                )));
            }
        };
        Ok(Self { form, packing })
    }
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    meter: Meter,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.meter
            .add(u64::try_from(count).expect("a usize fits 64 bits"));
        Ok(count)
    }
}

impl Item {
    pub(super) fn begin(&mut self, items: Items, device: &str, time_ms: Option<i64>) {
        self.device.clear();
        self.device.push_str(device);
        self.values = 0;
        self.json.clear();
        self.json.extend_from_slice(b"{\"deviceKey\":");
        value::quote(&mut self.json, device);
        if let Some(time_ms) = time_ms {
            self.json.extend_from_slice(b",\"time\":");
            self.json
                .extend_from_slice(itoa::Buffer::new().format(time_ms).as_bytes());
        }
        self.json.extend_from_slice(b",\"");
        self.json.extend_from_slice(items.member().as_bytes());
        self.json.extend_from_slice(b"\":{");
    }

    /// Adds a value; `write` appends it as JSON.
    pub(super) fn value(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        if self.values > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(key);
        write(&mut self.json);
        self.values += 1;
    }

    pub(super) fn end(&mut self) -> Row {
        self.json.extend_from_slice(b"}}");
        if self.values == 0 {
            Row::Empty
        } else {
            Row::Full
        }
    }
}

/// A time that cannot be read spoils its row; a missing zone spoils the file.
pub(super) fn spoiled(error: &MomentError) -> Result<Row, SourceError> {
    match error {
        MomentError::Local(_) => Err(SourceError::Usage(error.to_string())),
        MomentError::Unreadable(_) => Ok(Row::Unreadable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::files::value::Form as ValueForm;

    pub(super) fn points() -> Points {
        let forms: HashMap<_, _> = [
            ("P_avg", ValueForm::Number),
            ("Ws_avg", ValueForm::Number),
            ("label", ValueForm::Text),
        ]
        .map(|(name, form)| (name.to_owned(), form))
        .into();
        Points::Declared {
            model: "turbine".into(),
            forms,
            passthrough: false,
        }
    }

    /// Every row as its JSON, `-` where it is empty, `!` and the reason where it is unreadable.
    pub(super) fn read_all(rows: &mut dyn Rows) -> Result<Vec<String>, SourceError> {
        let mut item = Item::default();
        let mut all = Vec::new();
        while let Some(row) = rows.next(&mut item)? {
            all.push(match row {
                Row::Full => String::from_utf8(item.json.clone()).unwrap(),
                Row::Empty => "-".to_owned(),
                Row::Unreadable(reason) => format!("!{reason}"),
            });
        }
        Ok(all)
    }

    #[test]
    fn the_ending_says_what_a_file_is() {
        let kind = |name: &str| Kind::of(Path::new(name)).map(|k| (k.form, k.packing)).ok();
        assert_eq!(kind("a.b/x.csv"), Some((Form::Csv, Packing::None)));
        assert_eq!(kind("x.CSV.zst"), Some((Form::Csv, Packing::Zstd)));
        assert_eq!(kind("x.ndjson.gz"), Some((Form::Ndjson, Packing::Gzip)));
        assert_eq!(kind("x.parquet"), Some((Form::Parquet, Packing::None)));
        assert_eq!(kind("x.zst"), None);
        assert_eq!(kind("x"), None);
    }

    #[test]
    fn packed_files_read_like_plain_ones_and_the_meter_reaches_the_end() {
        let text = b"deviceKey,time,P_avg\nR1,0,1.50\n".as_slice();
        let gz = {
            use std::io::Write as _;
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let zst = zstd::encode_all(text, 3).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("a.csv", text),
            ("a.csv.gz", &gz[..]),
            ("a.csv.zst", &zst[..]),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            let mut source = Source::open(&path, &Mapping::default(), &points()).unwrap();
            let rows = read_all(source.rows.as_mut()).unwrap();
            assert_eq!(
                rows,
                [r#"{"deviceKey":"R1","time":0,"measurepoints":{"P_avg":1.50}}"#]
            );
            assert_eq!(source.meter.done(), source.meter.total);
        }
    }
}
