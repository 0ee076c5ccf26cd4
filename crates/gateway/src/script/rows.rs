//! Scripts over the points of rows: many rows in one call, each as if it were the only one.
//!
//! A call costs ten times what a row does, so rows go together. What a script says of a row depends on
//! that row alone: its source is run anew for each, on built-ins that are frozen, without clock and
//! chance. So a call that fails for any reason is run again row by row, and who is to blame is known.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Call, Cause, Detail, Done, Failure, Operation, Program, Scripts};
use crate::limits::{SCRIPT_ROWS, SCRIPT_ROWS_BYTES};

/// What a script over rows is given of each row, and what it may say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rows {
    /// Points, in the order in which their values are given.
    pub reads: Vec<Box<str>>,
    /// Points that it gives values to, in the order of [`Output`]s.
    pub points: Vec<Box<str>>,
}

/// What a script says of one of its points.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Nothing: it stays as it is.
    Kept,
    /// `null`.
    Dropped,
    /// A finite number.
    Number(f64),
    /// JSON text.
    Value(Box<str>),
}

/// What a script says of a row: an output for each of its points.
pub type SaidOfRow = Result<Box<[Output]>, Failure>;

impl Scripts {
    /// What a script over rows says of each of `rows`, JSON arrays of the values that it reads.
    pub async fn rows(&self, program: &Arc<Program>, rows: &[&str]) -> Vec<SaidOfRow> {
        let chunks = chunked(rows);
        let calls = chunks.iter().map(|chunk| call(chunk)).collect();
        let done = self.run(program, calls, Detail::Outcome).await;
        let mut said = Vec::with_capacity(rows.len());
        for (chunk, done) in chunks.iter().zip(done) {
            match said_of(program, chunk.len(), done) {
                Ok(those) => said.extend(those.into_iter().map(Ok)),
                Err(failure) if chunk.len() == 1 || is_of_all(&failure) => {
                    said.extend(std::iter::repeat_n(Err(failure), chunk.len()));
                }
                Err(_) => said.extend(self.one_by_one(program, chunk).await),
            }
        }
        said
    }

    async fn one_by_one(&self, program: &Arc<Program>, rows: &[&str]) -> Vec<SaidOfRow> {
        let calls = rows.iter().map(|row| call(&[row])).collect();
        let done = self.run(program, calls, Detail::Outcome).await;
        let said = done.into_iter().map(|done| {
            let mut of_call = said_of(program, 1, done)?;
            of_call.pop().ok_or_else(garbled)
        });
        said.collect()
    }
}

/// No row is to blame.
fn is_of_all(failure: &Failure) -> bool {
    matches!(
        failure.cause,
        Cause::Syntax | Cause::Missing | Cause::Paused | Cause::Unavailable
    )
}

/// Rows that go together.
fn chunked<'r, 't>(rows: &'r [&'t str]) -> Vec<&'r [&'t str]> {
    let mut chunks = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (place, row) in rows.iter().enumerate() {
        if place > first && (place - first == SCRIPT_ROWS || bytes + row.len() > SCRIPT_ROWS_BYTES)
        {
            chunks.push(&rows[first..place]);
            (first, bytes) = (place, 0);
        }
        bytes += row.len();
    }
    if first < rows.len() {
        chunks.push(&rows[first..]);
    }
    chunks
}

fn call(rows: &[&str]) -> Call {
    let bytes: usize = rows.iter().map(|row| row.len() + 1).sum();
    let mut input = Vec::with_capacity(bytes + 1);
    for row in rows {
        input.push(if input.is_empty() { b'[' } else { b',' });
        input.extend_from_slice(row.as_bytes());
    }
    input.push(b']');
    Call {
        operation: Operation::Decode,
        input: Bytes::from(input),
        // Its clock says nothing.
        time_ms: 0,
    }
}

/// For each row, for each point: `0` where nothing is said, `null`, or the value in an array.
fn said_of(program: &Program, rows: usize, done: Done) -> Result<Vec<Box<[Output]>>, Failure> {
    let text = done.outcome?;
    let points = program.rows.as_ref().map_or(0, |rows| rows.points.len());
    let all: Vec<Vec<&RawValue>> = serde_json::from_slice(&text).map_err(|_| garbled())?;
    // No count of a worker is trusted.
    if all.len() != rows || all.iter().any(|of_row| of_row.len() != points) {
        return Err(garbled());
    }
    let outputs = all.into_iter().map(|of_row| {
        let outputs = of_row.into_iter().map(|raw| output(raw.get()));
        outputs.collect()
    });
    Ok(outputs.collect())
}

fn output(json: &str) -> Output {
    let inside = json
        .strip_prefix('[')
        .and_then(|json| json.strip_suffix(']'));
    match (inside, json) {
        (Some(value), _) => Output::Value(value.into()),
        (None, "null") => Output::Dropped,
        (None, _) => Output::Kept,
    }
}

fn garbled() -> Failure {
    Failure::new(Cause::Crashed, "the worker's answer is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_together_up_to_a_count_and_a_size() {
        let many = vec!["[1]"; SCRIPT_ROWS + 1];
        let sizes: Vec<usize> = chunked(&many).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(sizes, [SCRIPT_ROWS, 1]);
        let large = "x".repeat(SCRIPT_ROWS_BYTES);
        let sizes: Vec<usize> = chunked(&["[1]", &large, "[1]"])
            .iter()
            .map(|chunk| chunk.len())
            .collect();
        assert_eq!(sizes, [1, 1, 1]);
        assert!(chunked(&[]).is_empty());
        assert_eq!(call(&["[1]", "[2,3]"]).input, "[[1],[2,3]]");
    }

    #[test]
    fn an_answer_is_taken_only_if_it_is_of_as_many_rows_and_points_as_were_asked() {
        let rows = Rows {
            reads: vec!["a".into()],
            points: vec!["a".into(), "b".into()],
        };
        let program = Program::over_rows("p", 1, "x".into(), rows).unwrap();
        let said = |rows, text: &'static str| {
            let done = Done {
                outcome: Ok(Bytes::from_static(text.as_bytes())),
                ..Done::failed(garbled())
            };
            said_of(&program, rows, done)
        };
        let of_one = said(1, "[[[1.5],null]]").unwrap();
        assert_eq!(*of_one[0], [Output::Value("1.5".into()), Output::Dropped]);
        let of_array = said(1, "[[0,[[1,2]]]]").unwrap();
        assert_eq!(*of_array[0], [Output::Kept, Output::Value("[1,2]".into())]);
        for garbled in ["[]", "[[0,0],[0,0]]", "[[0]]", "{}", "[[0,0]"] {
            assert!(said(1, garbled).is_err(), "{garbled}");
        }
    }
}
