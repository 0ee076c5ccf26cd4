//! Events and attribute values as text, NDJSON, CSV, or the items of a JSON page, and as slabs for
//! files of the same columns.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use backtide_model::Storage;
use backtide_store::Sequence;

use super::{
    OutColumn,
    records::{longs, names, texts},
    rows::{RowForm, quote},
};

/// Something that stands on a line of its own.
pub trait Line: Sized {
    /// The columns of CSV.
    const COLUMNS: &'static str;

    /// The members of its object, without braces.
    fn json(&self, out: &mut Vec<u8>);
    /// Its cells.
    fn csv(&self, out: &mut Vec<u8>);
    /// The columns of files: those of CSV but for what [`came_columns`] has, as [`Line::arrays`] calls them.
    fn columns() -> Vec<OutColumn>;
    /// Their cells.
    fn arrays(lines: &[Self]) -> Vec<(&'static str, ArrayRef)>;
    /// The commit it came with.
    fn sequence(&self) -> Sequence;
    /// The channel it came by, and when it arrived, milliseconds since 1970.
    fn came(&self) -> (&str, i64);
    /// The place behind it, as text for `cursor`.
    fn cursor(&self) -> String;
}

/// Writes the lines of one answer.
pub struct LineWriter<R> {
    form: RowForm,
    /// Names the receipt of a commit.
    receipt: R,
    lines: usize,
    cursor: Option<String>,
}

impl<R: Fn(Sequence) -> String> LineWriter<R> {
    pub fn new(form: RowForm, receipt: R) -> Self {
        Self {
            form,
            receipt,
            lines: 0,
            cursor: None,
        }
    }

    /// How many lines were written.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// The place behind the line written last.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// What comes before the first line.
    pub fn begin<L: Line>(&self, out: &mut Vec<u8>) {
        if self.form == RowForm::Csv {
            out.extend_from_slice(L::COLUMNS.as_bytes());
            out.extend_from_slice(b",channel,arrived,receipt\n");
        }
    }

    pub fn write<L: Line>(&mut self, out: &mut Vec<u8>, lines: &[L]) {
        for line in lines {
            let (channel, arrived_ms) = line.came();
            let receipt = (self.receipt)(line.sequence());
            match self.form {
                RowForm::Csv => {
                    line.csv(out);
                    for cell in [channel, &crate::clock::iso(arrived_ms), &receipt] {
                        out.push(b',');
                        out.extend_from_slice(cell.as_bytes());
                    }
                    out.push(b'\n');
                }
                RowForm::Ndjson | RowForm::JsonItems => {
                    if self.form == RowForm::JsonItems && self.lines > 0 {
                        out.push(b',');
                    }
                    out.push(b'{');
                    line.json(out);
                    out.extend_from_slice(b",\"channel\":");
                    quote(out, channel);
                    let end = format!(",\"arrived\":{arrived_ms},\"receipt\":\"{receipt}\"}}");
                    out.extend_from_slice(end.as_bytes());
                    if self.form == RowForm::Ndjson {
                        out.push(b'\n');
                    }
                }
            }
            self.lines += 1;
        }
        if let Some(last) = lines.last() {
            self.cursor = Some(last.cursor());
        }
    }
}

/// What every line says at its end: how it came.
pub fn came_columns() -> [OutColumn; 3] {
    [
        OutColumn::of_records("channel", Storage::Text),
        OutColumn::of_moments("arrived"),
        OutColumn::of_records("receipt", Storage::Text),
    ]
}

/// Lines as a slab with all columns of their files. `receipt` names the receipt of a commit.
///
/// # Errors
/// Columns of different lengths, which would be a bug.
pub fn slab_of_lines<L: Line>(
    lines: &[L],
    receipt: impl Fn(Sequence) -> String,
) -> Result<RecordBatch, ArrowError> {
    let mut arrays = L::arrays(lines);
    arrays.extend([
        ("channel", names(lines, |line| line.came().0)),
        ("arrived", longs(lines, |line| line.came().1)),
        ("receipt", texts(lines, |line| receipt(line.sequence()))),
    ]);
    RecordBatch::try_from_iter(arrays)
}
