//! What the gateway and a worker process say to each other: frames with a length and a kind.
//!
//! Little-endian. Rare things are JSON inside of a frame; calls and answers are not: there may be a
//! hundred thousand a second. The gateway trusts no count that a worker sends.

use std::io::{self, Read};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Call, Cause, Detail, Dialect, Done, Failure, Mapping, Operation, Rows};
use crate::limits::{PAYLOAD_BYTES_MAX, SCRIPT_SLICE_BYTES, SCRIPT_SLICE_CALLS, Scripts as Limits};

/// A frame's body at most: a slice whose last call is as large as one may be, with its JSON.
pub(super) const FRAME_BYTES_MAX: usize =
    SCRIPT_SLICE_BYTES + 2 * PAYLOAD_BYTES_MAX + SCRIPT_SLICE_CALLS * 64 + (1 << 20);
const HEADER_BYTES: usize = 5;

/// A frame that breaks the rules; its sender is not to be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame that is none of ours")]
pub(super) struct Garbled;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Request {
    /// First of all.
    Hello(Limits),
    Load(Box<Load>),
    Drop(u64),
    Batch(Batch),
}

/// A program to make ready.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) id: u64,
    pub(super) source: String,
    pub(super) dialect: Dialect,
    pub(super) mapping: Option<Mapping>,
    pub(super) rows: Option<Rows>,
    pub(super) keep_state: bool,
}

/// Calls of a loaded program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) id: u64,
    pub(super) detail: Detail,
    pub(super) calls: Vec<Call>,
}

/// What a loaded script has, or why it is none.
pub(super) type Loaded = Result<Functions, Failure>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Functions {
    pub decodes: bool,
    pub encodes: bool,
}

/// What a worker says.
#[derive(Debug)]
pub(super) enum Answer {
    Loaded(Loaded),
    /// Of the next calls of the batch, in order.
    Done(Vec<Done>),
}

const HELLO: u8 = 1;
const LOAD: u8 = 2;
const DROP: u8 = 3;
const BATCH: u8 = 4;
const LOADED: u8 = 5;
const DONE: u8 = 6;

/// Makes one frame.
fn framed(kind: u8, body: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    body(out);
    let length = u32::try_from(out.len() - start - HEADER_BYTES).expect("frames are bounded");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_json<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("plain values are JSON and memory takes all");
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("inputs and outputs are bounded");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

impl Request {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(limits) => framed(HELLO, |out| put_json(limits, out), out),
            Self::Load(load) => framed(LOAD, |out| put_json(load, out), out),
            Self::Drop(id) => framed(DROP, |out| out.extend_from_slice(&id.to_le_bytes()), out),
            Self::Batch(batch) => framed(BATCH, |out| batch.encode(out), out),
        }
    }

    pub(super) fn decode(kind: u8, body: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader(body);
        Ok(match kind {
            HELLO => Self::Hello(serde_json::from_slice(body).map_err(|_| Garbled)?),
            LOAD => Self::Load(serde_json::from_slice(body).map_err(|_| Garbled)?),
            DROP => Self::Drop(reader.u64()?),
            BATCH => Self::Batch(Batch::decode(&mut reader)?),
            _ => return Err(Garbled),
        })
    }
}

impl Batch {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.push(u8::from(self.detail == Detail::Everything));
        let count = u32::try_from(self.calls.len()).expect("slices are bounded");
        out.extend_from_slice(&count.to_le_bytes());
        for call in &self.calls {
            out.push(u8::from(call.operation == Operation::Encode));
            out.extend_from_slice(&call.time_ms.to_le_bytes());
            put_bytes(&call.input, out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Garbled> {
        let id = reader.u64()?;
        let detail = match reader.u8()? {
            0 => Detail::Outcome,
            _ => Detail::Everything,
        };
        let count = reader.u32()?;
        let mut calls = Vec::new();
        for _ in 0..count {
            calls.push(Call {
                operation: match reader.u8()? {
                    0 => Operation::Decode,
                    _ => Operation::Encode,
                },
                time_ms: i64::from_le_bytes(reader.array()?),
                input: Bytes::copy_from_slice(reader.bytes()?),
            });
        }
        Ok(Self { id, detail, calls })
    }
}

const CAUSES: [Cause; 10] = [
    Cause::Syntax,
    Cause::Missing,
    Cause::Threw,
    Cause::Result,
    Cause::Time,
    Cause::Killed,
    Cause::Memory,
    Cause::Crashed,
    Cause::Paused,
    Cause::Unavailable,
];

impl Answer {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Loaded(loaded) => framed(LOADED, |out| put_json(loaded, out), out),
            Self::Done(done) => framed(DONE, |out| put_done(done, out), out),
        }
    }

    pub(super) fn decode(kind: u8, body: &[u8]) -> Result<Self, Garbled> {
        match kind {
            LOADED => serde_json::from_slice(body)
                .map(Self::Loaded)
                .map_err(|_| Garbled),
            DONE => take_done(&mut Reader(body)).map(Self::Done),
            _ => Err(Garbled),
        }
    }
}

fn put_done(all: &[Done], out: &mut Vec<u8>) {
    for done in all {
        out.extend_from_slice(&done.cpu_us.to_le_bytes());
        out.extend_from_slice(&done.heap_bytes.to_le_bytes());
        put_bytes(done.console.as_bytes(), out);
        match &done.outcome {
            Ok(output) => {
                out.push(0);
                put_bytes(output, out);
            }
            Err(failure) => {
                let cause = CAUSES.iter().position(|cause| *cause == failure.cause);
                out.push(cause.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(1));
                for place in [failure.line, failure.column] {
                    out.extend_from_slice(&place.unwrap_or(0).to_le_bytes());
                }
                put_bytes(failure.message.as_bytes(), out);
            }
        }
    }
}

fn take_done(reader: &mut Reader<'_>) -> Result<Vec<Done>, Garbled> {
    let mut all = Vec::new();
    while !reader.0.is_empty() {
        let cpu_us = reader.u32()?;
        let heap_bytes = reader.u64()?;
        let console = reader.text()?.into();
        let outcome = match reader.u8()? {
            0 => Ok(Bytes::copy_from_slice(reader.bytes()?)),
            tag => {
                let place = |number: u32| (number > 0).then_some(number);
                Err(Failure {
                    cause: *CAUSES.get(usize::from(tag) - 1).ok_or(Garbled)?,
                    line: place(reader.u32()?),
                    column: place(reader.u32()?),
                    message: reader.text()?.to_owned(),
                })
            }
        };
        all.push(Done {
            outcome,
            cpu_us,
            console,
            heap_bytes,
        });
    }
    Ok(all)
}

/// Takes numbers and bytes off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        self.take(N)?.try_into().map_err(|_| Garbled)
    }

    fn u8(&mut self) -> Result<u8, Garbled> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Garbled> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let length = usize::try_from(self.u32()?).map_err(|_| Garbled)?;
        self.take(length)
    }

    fn text(&mut self) -> Result<&'a str, Garbled> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Garbled)
    }
}

/// Bytes as they arrive, until they are whole frames.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    /// Of them, those of frames taken out already.
    taken: usize,
}

impl Incoming {
    /// Reads once; 0 is the end.
    pub(super) fn read(&mut self, mut source: impl Read) -> io::Result<usize> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let filled = self.bytes.len();
        let wanted = self.frame_bytes().unwrap_or(HEADER_BYTES).max(64 << 10);
        self.bytes.resize(filled + wanted, 0);
        let outcome = source.read(&mut self.bytes[filled..]);
        self.bytes
            .truncate(filled + outcome.as_ref().copied().unwrap_or(0));
        outcome
    }

    /// The next whole frame: its kind and its body.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &[u8])>, Garbled> {
        let Some(total) = self.frame_bytes() else {
            return Ok(None);
        };
        if total > FRAME_BYTES_MAX + HEADER_BYTES {
            return Err(Garbled);
        }
        let start = self.taken;
        if self.bytes.len() - start < total {
            return Ok(None);
        }
        self.taken += total;
        let frame = &self.bytes[start..start + total];
        Ok(Some((frame[4], &frame[HEADER_BYTES..])))
    }

    fn frame_bytes(&self) -> Option<usize> {
        let header = self.bytes.get(self.taken..)?.first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*header)).ok()?;
        (self.bytes.len() - self.taken >= HEADER_BYTES)
            .then_some(length.saturating_add(HEADER_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_done() -> impl Strategy<Value = Done> {
        let failure = (0..CAUSES.len(), ".{0,20}", 1..9u32, 1..9u32).prop_map(
            |(cause, message, line, column)| Failure {
                cause: CAUSES[cause],
                message,
                line: Some(line),
                column: Some(column),
            },
        );
        let output = prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
        let outcome = prop_oneof![output.prop_map(Ok), failure.prop_map(Err)];
        (outcome, any::<u32>(), ".{0,9}", any::<u64>()).prop_map(
            |(outcome, cpu_us, console, heap_bytes)| Done {
                outcome,
                cpu_us,
                console: console.into(),
                heap_bytes,
            },
        )
    }

    proptest! {
        #[test]
        fn answers_read_back_however_they_are_cut(
            done in prop::collection::vec(any_done(), 0..5),
            cut in 1..40usize,
        ) {
            let mut bytes = Vec::new();
            Answer::Done(done.clone()).encode(&mut bytes);
            Answer::Done(done.clone()).encode(&mut bytes);
            let mut incoming = Incoming::default();
            let mut found = Vec::new();
            for chunk in bytes.chunks(cut) {
                incoming.read(chunk).unwrap();
                while let Some((kind, body)) = incoming.next().unwrap() {
                    match Answer::decode(kind, body).unwrap() {
                        Answer::Done(done) => found.push(done),
                        Answer::Loaded(_) => prop_assert!(false),
                    }
                }
            }
            prop_assert_eq!(found, vec![done.clone(), done]);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(
            kind in 0..9u8, bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            drop(Request::decode(kind, &bytes));
            drop(Answer::decode(kind, &bytes));
            let mut incoming = Incoming::default();
            incoming.read(bytes.as_slice()).unwrap();
            prop_assert!(incoming.next().is_ok() || bytes.len() >= 5);
        }
    }

    #[test]
    fn a_batch_reads_back() {
        let batch = Batch {
            id: 7,
            detail: Detail::Everything,
            calls: vec![Call {
                operation: Operation::Encode,
                input: Bytes::from_static(b"{}"),
                time_ms: -1,
            }],
        };
        let mut body = Vec::new();
        batch.encode(&mut body);
        assert_eq!(Batch::decode(&mut Reader(&body)).unwrap(), batch);
    }
}
