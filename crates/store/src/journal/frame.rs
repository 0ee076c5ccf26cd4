//! A frame: the records of one group commit, written with one write and made durable by one sync.
//!
//! ```text
//!  0  4  magic "BTFR"                 28  8  newest arrival time, ms
//!  4  4  store id                     36  4  body bytes
//!  8  8  salt of the file             40  4  bytes of the records, decompressed
//! 16  8  first sequence               44  4  crc32c of the body
//! 24  4  count of records             48  1  codec: 0 plain, 1 lz4
//!                                     49  3  zero
//!                                     52  4  crc32c of bytes 0 to 51
//! 56  …  body: the records, each behind its length in 4 bytes
//! ```

use lz4_flex::block::CompressTable;

use super::{
    record,
    wire::{DecodeError, Reader},
};
use crate::{Commit, Sequence};

pub(crate) const HEADER_BYTES: usize = 56;
pub(super) const MAGIC: [u8; 4] = *b"BTFR";

/// The records of a frame may take this much. A group is kept far below it.
pub(super) const RECORDS_BYTES_MAX: usize = 128 << 20;

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// Tells the frames of one journal file from every other byte: the salt is random, so that no
/// payload can hold a frame that a search would take for one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) store_id: u32,
    pub(crate) salt: u64,
}

/// What stands before the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) mark: Mark,
    pub(crate) first: Sequence,
    pub(crate) count: u32,
    pub(crate) newest_ms: i64,
    pub(crate) body_bytes: u32,
    records_bytes: u32,
    body_crc: u32,
    codec: u8,
}

impl Header {
    pub(crate) fn last(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.count) - 1)
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// `None`: these bytes are not a header, or a damaged one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        let (head, crc) = bytes.split_last_chunk::<4>()?;
        if !head.starts_with(&MAGIC) || crc32c::crc32c(head) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut reader = Reader::new(head);
        let header = Self::fields(&mut reader).ok()?;
        let end = header.first.0.checked_add(u64::from(header.count));
        (header.count > 0 && end.is_some()).then_some(header)
    }

    fn fields(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.take(MAGIC.len(), "magic")?;
        Ok(Self {
            mark: Mark {
                store_id: u32::from_le_bytes(reader.array("store id")?),
                salt: u64::from_le_bytes(reader.array("salt")?),
            },
            first: Sequence(u64::from_le_bytes(reader.array("first sequence")?)),
            count: u32::from_le_bytes(reader.array("count")?),
            newest_ms: i64::from_le_bytes(reader.array("newest arrival")?),
            body_bytes: u32::from_le_bytes(reader.array("body bytes")?),
            records_bytes: u32::from_le_bytes(reader.array("records bytes")?),
            body_crc: u32::from_le_bytes(reader.array("body crc")?),
            codec: reader.byte("codec")?,
        })
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.mark.store_id.to_le_bytes());
        out[8..16].copy_from_slice(&self.mark.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        out[24..28].copy_from_slice(&self.count.to_le_bytes());
        out[28..36].copy_from_slice(&self.newest_ms.to_le_bytes());
        out[36..40].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[40..44].copy_from_slice(&self.records_bytes.to_le_bytes());
        out[44..48].copy_from_slice(&self.body_crc.to_le_bytes());
        out[48] = self.codec;
        let crc = crc32c::crc32c(&out[..52]);
        out[52..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Whether `body` is the body that was written behind this header.
    pub(crate) fn covers(&self, body: &[u8]) -> bool {
        body.len() as u64 == u64::from(self.body_bytes) && crc32c::crc32c(body) == self.body_crc
    }

    /// The records of the frame. `body` is covered by this header.
    pub(crate) fn open(&self, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let len = self.records_bytes as usize;
        match self.codec {
            PLAIN if body.len() == len => Ok(body.to_vec()),
            PLAIN => Err(DecodeError::Invalid("a plain frame has two lengths")),
            // lz4 makes at most 255 bytes of one.
            LZ4 if len > RECORDS_BYTES_MAX || len / 255 > body.len() => Err(DecodeError::Invalid(
                "a frame announces more than its body can hold",
            )),
            LZ4 => {
                let mut records = vec![0; len];
                match lz4_flex::block::decompress_into(body, &mut records) {
                    Ok(found) if found == len => Ok(records),
                    _ => Err(DecodeError::Invalid("the lz4 body of a frame is damaged")),
                }
            }
            tag => Err(DecodeError::Tag {
                what: "a frame's codec",
                tag,
            }),
        }
    }
}

/// The records of a frame one by one, each with its sequence.
pub(crate) struct Records<'a> {
    reader: Reader<'a>,
    next: Sequence,
    left: u32,
}

impl<'a> Records<'a> {
    pub(crate) fn new(header: &Header, records: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(records),
            next: header.first,
            left: header.count,
        }
    }

    fn step(&mut self) -> Result<(Sequence, &'a [u8]), DecodeError> {
        let len = u32::from_le_bytes(self.reader.array("a record's length")?);
        let record = self.reader.take(len as usize, "a record")?;
        let sequence = self.next;
        self.next = Sequence(sequence.0 + 1);
        self.left -= 1;
        if self.left == 0 {
            self.reader.end("the records of a frame")?;
        }
        Ok((sequence, record))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(Sequence, &'a [u8]), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}

/// Collects the records of one group, then makes the frame. Reused, so that its memory is too.
#[derive(Default)]
pub(crate) struct FrameBuilder {
    records: Vec<u8>,
    count: u32,
    newest_ms: i64,
    codec: u8,
    /// The frame, and room that is left of longer ones: what is written anew need not be zeroed.
    frame: Vec<u8>,
    frame_bytes: usize,
    table: CompressTable,
}

impl FrameBuilder {
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.count = 0;
        self.newest_ms = i64::MIN;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Adds one record.
    pub(crate) fn push(&mut self, commit: &Commit) {
        let at = self.records.len();
        self.records.extend_from_slice(&[0; 4]);
        record::encode(commit, &mut self.records);
        let len = u32::try_from(self.records.len() - at - 4).expect("a submission is bounded");
        self.records[at..at + 4].copy_from_slice(&len.to_le_bytes());
        self.count += 1;
        self.newest_ms = self.newest_ms.max(commit.origin.arrived_ms);
    }

    /// Compresses what was pushed, at least one record; returns the bytes of the whole frame.
    pub(crate) fn pack(&mut self) -> u64 {
        assert!(
            self.records.len() <= RECORDS_BYTES_MAX,
            "groups and submissions are bounded"
        );
        let room = lz4_flex::block::get_maximum_output_size(self.records.len());
        if self.frame.len() < HEADER_BYTES + room {
            self.frame.resize(HEADER_BYTES + room, 0);
        }
        let body = &mut self.frame[HEADER_BYTES..];
        let packed =
            lz4_flex::block::compress_into_with_table(&self.records, body, &mut self.table)
                .expect("the output has the maximal size");
        let body_bytes = if packed < self.records.len() {
            self.codec = LZ4;
            packed
        } else {
            self.codec = PLAIN;
            body[..self.records.len()].copy_from_slice(&self.records);
            self.records.len()
        };
        self.frame_bytes = HEADER_BYTES + body_bytes;
        self.frame_bytes as u64
    }

    /// Puts the header before what was packed.
    pub(crate) fn seal(&mut self, mark: Mark, first: Sequence) -> (&[u8], Header) {
        let length = |len| u32::try_from(len).expect("records are at most RECORDS_BYTES_MAX");
        let body = &self.frame[HEADER_BYTES..self.frame_bytes];
        let header = Header {
            mark,
            first,
            count: self.count,
            newest_ms: self.newest_ms,
            body_bytes: length(body.len()),
            records_bytes: length(self.records.len()),
            body_crc: crc32c::crc32c(body),
            codec: self.codec,
        };
        self.frame[..HEADER_BYTES].copy_from_slice(&header.encode());
        (&self.frame[..self.frame_bytes], header)
    }
}

/// Reads one frame, as a start or a follower would. For fuzzing: must return, whatever the bytes.
///
/// # Errors
/// What is wrong with the frame.
pub fn decode_frame(bytes: &[u8]) -> Result<Vec<(Sequence, Commit)>, DecodeError> {
    let header = Header::decode(bytes).ok_or(DecodeError::Invalid("not a frame header"))?;
    let body = &bytes[HEADER_BYTES..];
    if !header.covers(body) {
        return Err(DecodeError::Invalid("the body does not fit its checksum"));
    }
    let records = header.open(body)?;
    Records::new(&header, &records)
        .map(|record| record.and_then(|(sequence, bytes)| Ok((sequence, record::decode(bytes)?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{super::record::tests::any_commit, *};

    const MARK: Mark = Mark {
        store_id: 7,
        salt: 0x0123_4567_89ab_cdef,
    };

    fn frame(commits: &[Commit], first: u64) -> Vec<u8> {
        let mut builder = FrameBuilder::default();
        builder.clear();
        commits.iter().for_each(|commit| builder.push(commit));
        builder.pack();
        builder.seal(MARK, Sequence(first)).0.to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_group_reads_back_in_order(commits in vec(any_commit(), 1..5), first in 1..1000_u64) {
            let found = decode_frame(&frame(&commits, first)).unwrap();
            let expected: Vec<_> =
                (first..).map(Sequence).zip(commits).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_flipped_bit_anywhere_is_found(
            commits in vec(any_commit(), 1..3), at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let mut bytes = frame(&commits, 1);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode_frame(&bytes).is_err());
        }

        #[test]
        fn records_that_pass_the_checksum_but_make_no_sense_are_errors(
            commits in vec(any_commit(), 1..3), at: prop::sample::Index, to: u8,
        ) {
            let mut builder = FrameBuilder::default();
            builder.clear();
            commits.iter().for_each(|commit| builder.push(commit));
            let at = at.index(builder.records.len());
            builder.records[at] = to;
            builder.pack();
            let bytes = builder.seal(MARK, Sequence(1)).0.to_vec();
            // Another valid group or an error: what counts is that it returns.
            drop(decode_frame(&bytes));
        }
    }

    #[test]
    fn a_frame_that_announces_more_than_its_body_holds_reserves_nothing() {
        let mut header = Header::decode(&frame(
            &[Commit {
                origin: crate::Origin {
                    channel: backtide_model::ChannelName::new("c").unwrap(),
                    client: "".into(),
                    topic: "".into(),
                    message_id: "".into(),
                    packet_id: None,
                    policies: None,
                    arrived_ms: 0,
                },
                product: backtide_model::ProductKey::new("p").unwrap(),
                parts: Vec::new(),
                redrive: None,
            }],
            1,
        ))
        .unwrap();
        header.codec = LZ4;
        header.records_bytes = u32::MAX;
        assert!(header.open(&[0; 40]).is_err());
    }
}
