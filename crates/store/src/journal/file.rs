//! One journal file: its name, its header, and what stands at an offset of it.
//!
//! ```text
//!  0  4  magic "BTJL"                 16  8  salt, random
//!  4  4  version, 1                   24  8  first sequence
//!  8  4  store id                     32  8  sequences left out before the first, by a salvage
//! 12  4  zero                         40  4  zero
//!                                     44  4  crc32c of bytes 0 to 43
//! 48  …  frames, back to back; then zeros to the end
//! ```

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    path::{Path, PathBuf},
};

use super::{
    frame::{self, Header, Mark},
    wire::{DecodeError, Reader},
};
use crate::{Sequence, disk::File};

pub(crate) const FILE_HEADER_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"BTJL";
const VERSION: u32 = 1;

/// Frames begin here.
pub(crate) const FRAMES_AT: u64 = FILE_HEADER_BYTES as u64;

/// What stands before the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) mark: Mark,
    pub(crate) first: Sequence,
    /// Sequences just before `first` that a salvage gave up; else 0.
    pub(crate) skipped: u64,
}

impl FileHeader {
    pub(crate) fn new(store_id: u32, first: Sequence, skipped: u64) -> Self {
        Self {
            mark: Mark {
                store_id,
                salt: random(),
            },
            first,
            skipped,
        }
    }

    /// Whether this file may come where `next` is due: only a salvage leaves sequences out.
    pub(crate) fn continues(&self, next: Sequence) -> bool {
        next <= self.first && self.first.0 - next.0 <= self.skipped
    }

    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut out = [0; FILE_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&self.mark.store_id.to_le_bytes());
        out[16..24].copy_from_slice(&self.mark.salt.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.skipped.to_le_bytes());
        let crc = crc32c::crc32c(&out[..44]);
        out[44..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "the header of a journal file";
        let bytes = bytes
            .first_chunk::<FILE_HEADER_BYTES>()
            .ok_or(DecodeError::Short { what })?;
        if !bytes.starts_with(&MAGIC) {
            return Err(DecodeError::Invalid("the file does not begin with BTJL"));
        }
        let mut reader = Reader::new(&bytes[MAGIC.len()..]);
        match u32::from_le_bytes(reader.array(what)?) {
            VERSION => {}
            _ => return Err(DecodeError::Invalid("the file has a version other than 1")),
        }
        if crc32c::crc32c(&bytes[..44]).to_le_bytes() != bytes[44..] {
            return Err(DecodeError::Invalid(
                "the file's header does not fit its checksum",
            ));
        }
        let store_id = u32::from_le_bytes(reader.array(what)?);
        reader.take(4, what)?;
        let salt = u64::from_le_bytes(reader.array(what)?);
        let first = Sequence(u64::from_le_bytes(reader.array(what)?));
        let skipped = u64::from_le_bytes(reader.array(what)?);
        Ok(Self {
            mark: Mark { store_id, salt },
            first,
            skipped,
        })
    }
}

/// 64 random bits: the operating system seeds every hasher's keys.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// `<first sequence, 20 digits>.btj`
pub(crate) fn path_of(dir: &Path, first: Sequence) -> PathBuf {
    dir.join(format!("{:020}.btj", first.0))
}

/// The first sequence that a path names; `None` if it is not a journal file's.
pub(crate) fn sequence_of(path: &Path) -> Option<Sequence> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_suffix(".btj")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok().map(Sequence))?
}

/// What stands at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame whose header is intact and whose body lies within the file.
    Frame(Header),
    /// Not an intact header: free space, or damage.
    Nothing { reason: &'static str },
}

/// Reads a file through one buffer that moves forward.
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    /// The file ends here, for this reader.
    end: u64,
    start: u64,
    buffer: Vec<u8>,
    step: usize,
}

/// A window over a long stretch; a short one reads less.
const STEP_BYTES: usize = 256 << 10;

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn File, end: u64) -> Self {
        Self {
            file,
            end,
            start: 0,
            buffer: Vec::new(),
            step: STEP_BYTES,
        }
    }

    /// For a look at one place.
    pub(crate) fn short(file: &'a dyn File, end: u64) -> Self {
        Self {
            file,
            end,
            start: 0,
            buffer: Vec::new(),
            step: 0,
        }
    }

    /// Up to `len` bytes at `offset`; fewer at the end.
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(clamp(self.end.saturating_sub(offset)));
        let held = self.start <= offset
            && offset.saturating_add(len as u64) <= self.start + self.buffer.len() as u64;
        if !held {
            self.fill(offset, len)?;
        }
        let at = clamp(offset.saturating_sub(self.start)).min(self.buffer.len());
        let to = (at + len).min(self.buffer.len());
        Ok(&self.buffer[at..to])
    }

    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let want = len.max(self.step).min(clamp(self.end - offset));
        self.buffer.resize(want, 0);
        self.start = offset;
        let mut read = 0;
        while read < want {
            match self
                .file
                .read_at(&mut self.buffer[read..], offset + read as u64)
            {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(read);
        Ok(())
    }

    pub(crate) fn file_header(&mut self) -> io::Result<Result<FileHeader, DecodeError>> {
        Ok(FileHeader::decode(self.bytes(0, FILE_HEADER_BYTES)?))
    }

    /// What stands at `offset`, judged by its header alone.
    pub(crate) fn find(&mut self, offset: u64, mark: Mark) -> io::Result<Found> {
        let end = self.end;
        let bytes = self.bytes(offset, frame::HEADER_BYTES)?;
        let Some(header) = Header::decode(bytes) else {
            return Ok(Found::Nothing {
                reason: "there is no intact frame header",
            });
        };
        if header.mark != mark {
            return Ok(Found::Nothing {
                reason: "the frame belongs to another file",
            });
        }
        if offset.saturating_add(header.frame_bytes()) > end {
            return Ok(Found::Nothing {
                reason: "the frame goes beyond the end of the file",
            });
        }
        Ok(Found::Frame(header))
    }

    /// The body of a frame that was found at `offset`; `None` if it does not fit its checksum.
    pub(crate) fn body(&mut self, offset: u64, header: &Header) -> io::Result<Option<&[u8]>> {
        let at = offset + frame::HEADER_BYTES as u64;
        let body = self.bytes(at, header.body_bytes as usize)?;
        Ok(header.covers(body).then_some(body))
    }

    /// The first intact frame header at `offset` or behind it whose mark passes `accept`.
    pub(crate) fn search(
        &mut self,
        mut offset: u64,
        accept: impl Fn(&Header) -> bool,
    ) -> io::Result<Option<(u64, Header)>> {
        loop {
            let bytes = self.bytes(offset, STEP_BYTES)?;
            if bytes.len() < frame::HEADER_BYTES {
                return Ok(None);
            }
            // The last bytes may hold the beginning of a header: they are looked at in the next
            // round.
            let starts = bytes.len() - frame::HEADER_BYTES + 1;
            for at in 0..starts {
                if bytes[at] != frame::MAGIC[0] {
                    continue;
                }
                if let Some(header) = Header::decode(&bytes[at..])
                    && accept(&header)
                {
                    return Ok(Some((offset + at as u64, header)));
                }
            }
            offset += starts as u64;
        }
    }

    /// Whether only zeros follow: how preallocated space reads.
    pub(crate) fn is_zero_from(&mut self, mut offset: u64) -> io::Result<bool> {
        while offset < self.end {
            let bytes = self.bytes(offset, STEP_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += bytes.len() as u64;
        }
        Ok(true)
    }
}

fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_file_header_reads_back(store_id: u32, first: u64, skipped: u64) {
            let header = FileHeader::new(store_id, Sequence(first), skipped);
            prop_assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn a_flipped_bit_in_a_file_header_is_found(at in 0..FILE_HEADER_BYTES, bit in 0..8_u8) {
            let mut bytes = FileHeader::new(7, Sequence(3), 0).encode();
            bytes[at] ^= 1 << bit;
            prop_assert!(FileHeader::decode(&bytes).is_err());
        }
    }

    #[test]
    fn a_name_carries_the_first_sequence() {
        let path = path_of(Path::new("j"), Sequence(42));
        assert_eq!(path, Path::new("j/00000000000000000042.btj"));
        assert_eq!(sequence_of(&path), Some(Sequence(42)));
        assert_eq!(sequence_of(Path::new("j/42.btj")), None);
        assert_eq!(sequence_of(Path::new("j/00000000000000000042.new")), None);
    }
}
