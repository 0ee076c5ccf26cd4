//! The pieces of a body, as they come, for a reader on a thread of its own.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::limits::{IMPORT_PIECES_WAITING_MAX, IMPORT_READ_PAST_BYTES_MAX};

/// What is read of a body. An end that is none is an error: a cut file must not look whole.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    left: u64,
    bytes_max: u64,
}

/// Hands pieces on as fast as they are read; ends when the body does, nobody reads, or at `stop`.
pub(super) fn pieces(
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    bytes_max: u64,
    stop: CancellationToken,
) -> Pieces {
    let (give, pieces) = mpsc::channel(IMPORT_PIECES_WAITING_MAX);
    tokio::spawn(async move {
        let mut body = Box::pin(body);
        loop {
            let piece = tokio::select! {
                biased;
                () = stop.cancelled() => Some(Err(io::Error::other("it was told to stop"))),
                piece = body.next() => piece,
            };
            let Some(piece) = piece else { return };
            let is_last = piece.is_err();
            if give.send(piece).await.is_err() {
                return read_past(&mut body, &stop).await;
            }
            if is_last {
                return;
            }
        }
    });
    Pieces {
        pieces,
        piece: Bytes::new(),
        left: bytes_max,
        bytes_max,
    }
}

/// Reads past what nobody wants any more: most clients read an answer only once they have sent it all.
async fn read_past(
    body: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin),
    stop: &CancellationToken,
) {
    let mut left = IMPORT_READ_PAST_BYTES_MAX;
    while left > 0 {
        let piece = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            piece = body.next() => piece,
        };
        let Some(Ok(piece)) = piece else { return };
        left = left.saturating_sub(piece.len());
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buf.len());
        let counted = u64::try_from(count).unwrap_or(u64::MAX);
        if counted > self.left {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "the file has more than {} bytes, the most that is taken; split it",
                    self.bytes_max
                ),
            ));
        }
        self.left -= counted;
        buf[..count].copy_from_slice(&self.piece[..count]);
        self.piece.advance(count);
        Ok(count)
    }
}
