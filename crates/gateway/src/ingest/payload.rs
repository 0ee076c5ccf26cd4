//! A payload as it arrived, and its plain bytes.

use std::io::Read;

use backtide_model::{Code, Compression};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// What a publish carried.
#[derive(Debug, Clone)]
pub enum Payload {
    Whole(Bytes),
    /// Over the limit: it was read past, not kept.
    Oversize(Oversize),
    /// What its door could make no message of.
    Unreadable(Unreadable),
}

/// Something that is kept, but cannot be judged.
#[derive(Debug, Clone)]
pub struct Unreadable {
    pub raw: Bytes,
    pub code: Code,
    pub reason: String,
}

/// What is known of a payload over the limit.
#[derive(Debug, Clone)]
pub struct Oversize {
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// Its beginning.
    pub head: Bytes,
}

/// Why a compressed payload has no plain bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InflateError {
    NotGzip(String),
    TooLarge,
}

/// The plain bytes of a payload of a connection that announced `compression`, at most `bytes_max`
/// of them: a bomb stops there.
pub(super) fn plain(
    payload: &Bytes,
    compression: Compression,
    bytes_max: usize,
) -> Result<Bytes, InflateError> {
    // An empty payload stays empty, whatever was announced.
    if compression == Compression::None || payload.is_empty() {
        return Ok(payload.clone());
    }
    let mut inflated = Vec::new();
    let limit = u64::try_from(bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    // Members that follow each other are one payload; what follows and is none is an error.
    MultiGzDecoder::new(payload.as_ref())
        .take(limit)
        .read_to_end(&mut inflated)
        .map_err(|error| InflateError::NotGzip(error.to_string()))?;
    if inflated.len() > bytes_max {
        return Err(InflateError::TooLarge);
    }
    Ok(inflated.into())
}

/// The bytes of a reply on a connection that announced `compression`.
pub(super) fn packed(reply: Vec<u8>, compression: Compression) -> Bytes {
    use std::io::Write;
    match compression {
        Compression::None => reply.into(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder
                .write_all(&reply)
                .expect("writing to memory does not fail");
            encoder
                .finish()
                .expect("writing to memory does not fail")
                .into()
        }
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gzip_session_reads_what_it_packed() {
        let packed = packed(b"{\"id\":\"1\"}".to_vec(), Compression::Gzip);
        assert_ne!(packed.as_ref(), b"{\"id\":\"1\"}");
        assert_eq!(
            plain(&packed, Compression::Gzip, 100).unwrap().as_ref(),
            b"{\"id\":\"1\"}"
        );
        assert_eq!(
            plain(&Bytes::new(), Compression::Gzip, 100).unwrap(),
            Bytes::new()
        );
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_a_lie_is_named() {
        let bomb = packed(vec![b' '; 100_000], Compression::Gzip);
        assert!(bomb.len() < 1_000);
        assert_eq!(
            plain(&bomb, Compression::Gzip, 1_000),
            Err(InflateError::TooLarge)
        );
        let whole = packed(b"{}".to_vec(), Compression::Gzip);
        let lie = Bytes::from_static(b"{}");
        let cut = whole.slice(..whole.len() - 1);
        let more = Bytes::from([&whole[..], b"more"].concat());
        for wrong in [lie, cut, more] {
            assert!(matches!(
                plain(&wrong, Compression::Gzip, 9),
                Err(InflateError::NotGzip(_))
            ));
        }
        let two = Bytes::from([&whole[..], &whole[..]].concat());
        assert_eq!(plain(&two, Compression::Gzip, 9).unwrap().as_ref(), b"{}{}");
    }
}
