//! `backtide export FILE`: points, events or attributes into a file, whose ending says how.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    query::{Computed, Records, Selection, copy},
};

#[derive(Debug, clap::Args)]
pub struct Export {
    /// File to write: .csv or .ndjson, also with .gz or .zst, .parquet, or .arrows (an Arrow stream)
    file: PathBuf,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    computed: Computed,
    #[command(flatten)]
    records: Records,
    /// Write the quality of values that have one
    #[arg(long)]
    quality: bool,
}

enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Export {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let (format, packing) = form_of(&self.file).map_err(Failure::Usage)?;
        let client = Client::new(connection)?;
        let quality = self.quality.then(|| "true".to_owned());
        self.computed.check(false)?;
        let (points, computed) = self.computed.asked();
        let path = self.records.path().unwrap_or(points);
        let records = self.records.asked();
        let mut more = vec![("quality", &quality)];
        let further = computed.iter().chain(&records);
        more.extend(further.map(|(name, value)| (*name, value)));
        let answer = self.selection.ask(&client, path, format, &more)?;
        // Under another name until it is whole: a file of the right name is never half of one.
        let mut part = self.file.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = |error| Failure::io(format!("cannot write {}", self.file.display()), error);
        let file = File::create(&part).map_err(failed)?;
        let written = match packing {
            Packing::None => write(answer, file, Ok),
            Packing::Gzip => {
                let level = flate2::Compression::default();
                write(answer, flate2::write::GzEncoder::new(file, level), |gz| {
                    gz.finish()
                })
            }
            Packing::Zstd => {
                let encoder = zstd::Encoder::new(file, 0).map_err(failed)?;
                write(answer, encoder, zstd::Encoder::finish)
            }
        };
        if let Err(failure) = written {
            // The failure is what is told; a part that stays behind is named like one.
            drop(fs::remove_file(&part));
            return Err(failure);
        }
        fs::rename(&part, &self.file).map_err(failed)?;
        let bytes = fs::metadata(&self.file).map_err(failed)?.len();
        writeln!(terminal.talk, "{}: {bytes} bytes", self.file.display())?;
        Ok(Exit::Ok)
    }
}

fn write<W: Write>(
    answer: impl io::Read,
    mut out: W,
    finish: impl FnOnce(W) -> io::Result<File>,
) -> Result<(), Failure> {
    copy(answer, &mut out)?;
    finish(out)?.sync_all()?;
    Ok(())
}

fn form_of(path: &Path) -> Result<(&'static str, Packing), String> {
    let ending = |path: &Path| {
        path.extension()
            .and_then(OsStr::to_str)
            .map(str::to_lowercase)
    };
    let (packing, inner) = match ending(path).as_deref() {
        Some("gz") => (Packing::Gzip, path.with_extension("")),
        Some("zst") => (Packing::Zstd, path.with_extension("")),
        _ => (Packing::None, path.to_owned()),
    };
    match (ending(&inner).as_deref(), packing) {
        (Some("csv"), packing) => Ok(("csv", packing)),
        (Some("ndjson" | "jsonl"), packing) => Ok(("ndjson", packing)),
        (Some("parquet"), Packing::None) => Ok(("parquet", Packing::None)),
        (Some("arrows"), Packing::None) => Ok(("arrow", Packing::None)),
        _ => Err(format!(
            "{}: the ending does not say what to write; use .csv or .ndjson, also with .gz or \
             .zst, .parquet, or .arrows",
            path.display()
        )),
    }
}
