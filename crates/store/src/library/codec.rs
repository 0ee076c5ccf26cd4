//! The bytes of the manifest's blobs: LEB128 integers, length-prefixed texts, tagged cells.
//!
//! A blob is lz4 with its size in front; [`Source`] never trusts a length it reads.

use backtide_model::Cell;

/// A blob that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blob is damaged at byte {at}")]
pub(super) struct Damaged {
    pub(super) at: usize,
}

/// What a blob is written to.
#[derive(Debug, Default)]
pub(super) struct Sink(Vec<u8>);

impl Sink {
    pub(super) fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low_byte(value));
    }

    pub(super) fn count(&mut self, value: usize) {
        self.unsigned(value as u64);
    }

    /// Zigzag, so that small negative numbers stay short.
    pub(super) fn signed(&mut self, value: i64) {
        self.unsigned((value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
    }

    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(super) fn cell(&mut self, cell: &Cell) {
        match cell {
            Cell::Bool(x) => {
                self.byte(0);
                self.byte(u8::from(*x));
            }
            Cell::Int(x) => {
                self.byte(1);
                self.signed(i64::from(*x));
            }
            Cell::Long(x) => {
                self.byte(2);
                self.signed(*x);
            }
            Cell::Float(x) => {
                self.byte(3);
                self.0.extend_from_slice(&x.to_bits().to_le_bytes());
            }
            Cell::Double(x) => {
                self.byte(4);
                self.0.extend_from_slice(&x.to_bits().to_le_bytes());
            }
            Cell::Text(x) => {
                self.byte(5);
                self.text(x);
            }
        }
    }

    pub(super) fn plain(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn pack(self) -> Vec<u8> {
        lz4_flex::compress_prepend_size(&self.0)
    }
}

fn low_byte(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit a byte")
}

/// Undoes [`Sink::pack`].
pub(super) fn unpack(blob: &[u8]) -> Result<Vec<u8>, Damaged> {
    lz4_flex::decompress_size_prepended(blob).map_err(|_| Damaged { at: 0 })
}

/// What a blob is read from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn damaged(&self) -> Damaged {
        Damaged { at: self.at }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let end = self.at.checked_add(len).ok_or(self.damaged())?;
        let taken = self.bytes.get(self.at..end).ok_or(self.damaged())?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damaged> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, Damaged> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }

    pub(super) fn count(&mut self) -> Result<usize, Damaged> {
        let value = self.unsigned()?;
        usize::try_from(value).map_err(|_| self.damaged())
    }

    pub(super) fn signed(&mut self) -> Result<i64, Damaged> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let len = self.count()?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Damaged> {
        let bytes = self.bytes()?;
        str::from_utf8(bytes).map_err(|_| self.damaged())
    }

    pub(super) fn cell(&mut self) -> Result<Cell, Damaged> {
        Ok(match self.byte()? {
            0 => Cell::Bool(self.byte()? != 0),
            1 => Cell::Int(i32::try_from(self.signed()?).map_err(|_| self.damaged())?),
            2 => Cell::Long(self.signed()?),
            3 => Cell::Float(f32::from_bits(u32::from_le_bytes(self.array()?))),
            4 => Cell::Double(f64::from_bits(u64::from_le_bytes(self.array()?))),
            5 => Cell::Text(self.text()?.into()),
            _ => return Err(self.damaged()),
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        Ok(self
            .take(N)?
            .try_into()
            .expect("take gives as many bytes as asked for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(u in any::<u64>(), s in any::<i64>(), t in ".*", d in any::<u64>()) {
            let cells = [Cell::Double(f64::from_bits(d)), Cell::Text(t.as_str().into()), Cell::Long(s)];
            let mut sink = Sink::default();
            sink.unsigned(u);
            sink.signed(s);
            sink.text(&t);
            cells.iter().for_each(|cell| sink.cell(cell));
            let bytes = unpack(&sink.pack()).unwrap();
            let mut source = Source::new(&bytes);
            prop_assert_eq!(source.unsigned(), Ok(u));
            prop_assert_eq!(source.signed(), Ok(s));
            prop_assert_eq!(source.text(), Ok(t.as_str()));
            for cell in &cells {
                let read = source.cell().unwrap();
                match (&read, cell) {
                    (Cell::Double(a), Cell::Double(b)) => prop_assert_eq!(a.to_bits(), b.to_bits()),
                    (a, b) => prop_assert_eq!(a, b),
                }
            }
            prop_assert!(source.is_at_end());
        }

        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut source = Source::new(&bytes);
            while !source.is_at_end() && source.cell().is_ok() {}
            drop(unpack(&bytes));
        }
    }
}
