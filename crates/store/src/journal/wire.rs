//! The bytes of a record: little-endian numbers, variable-length integers, counted strings.
//!
//! A reader never panics and never reserves memory for more things than the bytes left can hold.

use backtide_model::NameError;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the bytes end inside {what}")]
    Short { what: &'static str },
    #[error("{count} of {what} are announced, more than the {left} bytes left can hold")]
    Count {
        what: &'static str,
        count: u64,
        left: usize,
    },
    #[error("{what} has a number that is out of range")]
    Number { what: &'static str },
    #[error("{what} is not UTF-8")]
    Utf8 { what: &'static str },
    #[error("{what} has the tag {tag}, which a newer version of backtide may know")]
    Tag { what: &'static str, tag: u8 },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{left} bytes are left over behind {what}")]
    Left { what: &'static str, left: usize },
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(low_byte(number) | 0x80);
        number >>= 7;
    }
    out.push(low_byte(number));
}

fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

/// Small numbers of either sign stay short: 0, -1, 1, -2, … become 0, 1, 2, 3, …
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    put_varint(
        out,
        u64::try_from(count).expect("a length in memory fits 64 bits"),
    );
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(super) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Reads what the `put_` functions wrote, front to back.
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, left) = self
            .left
            .split_at_checked(len)
            .ok_or(DecodeError::Short { what })?;
        self.left = left;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let (taken, left) = self
            .left
            .split_first_chunk()
            .ok_or(DecodeError::Short { what })?;
        self.left = left;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let [byte] = self.array(what)?;
        Ok(byte)
    }

    pub(super) fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Number { what });
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Number { what })
    }

    pub(super) fn signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let number = self.varint(what)?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(super) fn number<N: TryFrom<u64>>(&mut self, what: &'static str) -> Result<N, DecodeError> {
        N::try_from(self.varint(what)?).map_err(|_| DecodeError::Number { what })
    }

    /// A count of things that take at least `bytes_min` (1 or more) bytes each.
    pub(super) fn count(
        &mut self,
        bytes_min: usize,
        what: &'static str,
    ) -> Result<usize, DecodeError> {
        let count = self.varint(what)?;
        let left = self.left();
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= left / bytes_min)
            .ok_or(DecodeError::Count { what, count, left })
    }

    pub(super) fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1, what)?;
        self.take(len, what)
    }

    pub(super) fn str(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| DecodeError::Utf8 { what })
    }

    pub(super) fn end(&self, what: &'static str) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::Left { what, left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back(unsigned: u64, signed: i64, text: String) {
            let mut out = Vec::new();
            put_varint(&mut out, unsigned);
            put_signed(&mut out, signed);
            put_str(&mut out, &text);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("u").unwrap(), unsigned);
            prop_assert_eq!(reader.signed("s").unwrap(), signed);
            prop_assert_eq!(reader.str("t").unwrap(), text);
            prop_assert!(reader.end("all").is_ok());
        }
    }

    #[test]
    fn a_number_over_64_bits_is_refused() {
        let mut bytes = vec![0xff; 9];
        bytes.push(0x02);
        assert_eq!(
            Reader::new(&bytes).varint("n"),
            Err(DecodeError::Number { what: "n" })
        );
    }

    #[test]
    fn a_count_beyond_the_bytes_left_is_refused_before_anything_is_reserved() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert!(matches!(
            Reader::new(&bytes).count(1, "rows"),
            Err(DecodeError::Count { what: "rows", .. })
        ));
    }
}
