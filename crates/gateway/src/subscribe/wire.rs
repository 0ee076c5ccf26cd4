//! The two framings of a package, told apart by the first bytes: a WebSocket, where one binary
//! message is one package; or plain, where each package has its length before it as a varint.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config,
    tungstenite::{Error as WebSocketError, Message, protocol::WebSocketConfig},
};

/// What a read takes from a socket at most, and what an idle one keeps.
const CHUNK_BYTES: usize = 512;
/// A varint of a length that fits 32 bits.
const VARINT_BYTES_MAX: usize = 5;

/// What a client speaks, by its first two bytes. A package begins with its field 1: after a length
/// of `G` or of a TLS handshake's 22 bytes comes 0x08, never what stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    Tls,
    WebSocket,
    Plain,
}

impl Speech {
    fn of(first: [u8; 2]) -> Self {
        match first {
            [0x16, 0x03] => Self::Tls,
            [b'G', b'E'] => Self::WebSocket,
            _ => Self::Plain,
        }
    }
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    WebSocket(#[from] WebSocketError),
    #[error("a package of {bytes} bytes is over the limit of {bytes_max}")]
    TooLong { bytes: u64, bytes_max: usize },
    #[error("the length of a package is no varint")]
    NoLength,
    #[error("text came where packages are binary")]
    Text,
    #[error("the connection ended inside a package")]
    Cut,
}

/// Reads what a client begins with. The stream then begins with it again.
pub(super) async fn sniff<S>(mut stream: S) -> io::Result<(Speech, Rewound<S>)>
where
    S: AsyncRead + Unpin,
{
    let mut first = [0; 2];
    stream.read_exact(&mut first).await?;
    let stream = Rewound {
        first: Bytes::copy_from_slice(&first),
        stream,
    };
    Ok((Speech::of(first), stream))
}

/// A stream some bytes of which were read before.
pub(super) struct Rewound<S> {
    first: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A connection as packages.
pub(super) enum Wire<S> {
    WebSocket(Box<WebSocketStream<S>>),
    Plain { stream: S, lengths: Lengths },
}

/// What comes from a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Package(Bytes),
    /// A sign of life without a meaning.
    Ping,
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Answers the upgrade of a WebSocket.
    pub(super) async fn web_socket(stream: S, package_bytes_max: usize) -> Result<Self, WireError> {
        let config = WebSocketConfig::default()
            .read_buffer_size(CHUNK_BYTES)
            // Each answer is flushed by itself.
            .write_buffer_size(0)
            .max_message_size(Some(package_bytes_max))
            .max_frame_size(Some(package_bytes_max));
        let stream = accept_async_with_config(stream, Some(config)).await?;
        Ok(Self::WebSocket(Box::new(stream)))
    }

    pub(super) fn plain(stream: S, package_bytes_max: usize) -> Self {
        Self::Plain {
            stream,
            lengths: Lengths::new(package_bytes_max),
        }
    }

    /// Waits for what comes next. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Heard, WireError> {
        match self {
            Self::WebSocket(stream) => match stream.next().await {
                Some(Ok(Message::Binary(package))) => Ok(Heard::Package(package)),
                Some(Ok(Message::Text(_))) => Err(WireError::Text),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                    Ok(Heard::Ping)
                }
                Some(Ok(Message::Close(_))) | None => Ok(Heard::End),
                Some(Err(WebSocketError::ConnectionClosed)) => Ok(Heard::End),
                Some(Err(error)) => Err(error.into()),
            },
            Self::Plain { stream, lengths } => loop {
                if let Some(package) = lengths.next()? {
                    return Ok(Heard::Package(package));
                }
                if stream.read_buf(lengths.room()).await? == 0 {
                    return if lengths.is_empty() {
                        Ok(Heard::End)
                    } else {
                        Err(WireError::Cut)
                    };
                }
            },
        }
    }

    pub(super) async fn send(&mut self, package: Bytes) -> Result<(), WireError> {
        match self {
            Self::WebSocket(stream) => Ok(stream.send(Message::Binary(package)).await?),
            Self::Plain { stream, .. } => {
                let mut framed = BytesMut::with_capacity(VARINT_BYTES_MAX + package.len());
                prost::encode_length_delimiter(package.len(), &mut framed)
                    .expect("a buffer of this capacity holds a varint");
                framed.put(package);
                stream.write_all(&framed).await?;
                Ok(stream.flush().await?)
            }
        }
    }

    /// Says goodbye where the framing has a word for it. Best effort: the client may be gone.
    pub(super) async fn close(mut self) {
        let closed = match &mut self {
            Self::WebSocket(stream) => stream.as_mut().close(None).await.map_err(WireError::from),
            Self::Plain { stream, .. } => stream.shutdown().await.map_err(WireError::from),
        };
        if let Err(error) = closed {
            tracing::trace!(%error, "the client was gone before its connection was closed");
        }
    }
}

/// Cuts a stream of bytes into packages by the lengths before them.
pub(super) struct Lengths {
    buffer: BytesMut,
    package_bytes_max: usize,
}

impl Lengths {
    pub(super) fn new(package_bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            package_bytes_max,
        }
    }

    /// Where bytes that have come go. A length that is over the limit is noticed before there is
    /// room for what it announces.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(CHUNK_BYTES);
        &mut self.buffer
    }

    fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next package, if it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some((length, prefix)) = varint(&self.buffer)? else {
            return Ok(None);
        };
        let too_long = WireError::TooLong {
            bytes: length,
            bytes_max: self.package_bytes_max,
        };
        let Some(length) = usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.package_bytes_max)
        else {
            return Err(too_long);
        };
        if self.buffer.len() < prefix + length {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        let package = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // An idle client keeps none of what a busy one needed.
            self.buffer = BytesMut::new();
        }
        Ok(Some(package))
    }
}

/// The number that `bytes` begin with and how many they are, if they hold it whole.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, WireError> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((number, at + 1)));
        }
    }
    if bytes.len() < VARINT_BYTES_MAX {
        return Ok(None);
    }
    Err(WireError::NoLength)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn framed(package: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        prost::encode_length_delimiter(package.len(), &mut framed).unwrap();
        framed.extend_from_slice(package);
        framed
    }

    #[test]
    fn the_first_bytes_tell_what_a_client_speaks() {
        assert_eq!(Speech::of(*b"GE"), Speech::WebSocket);
        assert_eq!(Speech::of([0x16, 0x03]), Speech::Tls);
        // Packages of 71 and of 22 bytes.
        assert_eq!(Speech::of([b'G', 0x08]), Speech::Plain);
        assert_eq!(Speech::of([0x16, 0x08]), Speech::Plain);
        assert_eq!(Speech::of([0x96, 0x01]), Speech::Plain);
    }

    #[tokio::test]
    async fn what_was_sniffed_is_read_again() {
        let (speech, mut stream) = sniff(&b"GET / HTTP/1.1"[..]).await.unwrap();
        assert_eq!(speech, Speech::WebSocket);
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "GET / HTTP/1.1");
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut lengths = Lengths::new(1_000);
        lengths.room().extend_from_slice(&[0xe9, 0x07]);
        assert!(matches!(
            lengths.next(),
            Err(WireError::TooLong { bytes: 1_001, .. })
        ));
        for bytes in [&[0xff; 5][..], &[0xff; 50]] {
            let mut lengths = Lengths::new(1_000);
            lengths.room().extend_from_slice(bytes);
            assert!(matches!(lengths.next(), Err(WireError::NoLength)));
        }
    }

    proptest! {
        #[test]
        fn packages_come_out_whole_however_the_bytes_are_split(
            packages in vec(vec(any::<u8>(), 0..300), 1..8),
            cuts in vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let stream: Vec<u8> = packages.iter().flat_map(|package| framed(package)).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut lengths = Lengths::new(300);
            let mut read = Vec::new();
            for piece in cuts.windows(2) {
                lengths.room().extend_from_slice(&stream[piece[0]..piece[1]]);
                while let Some(package) = lengths.next().unwrap() {
                    read.push(package.to_vec());
                }
            }
            prop_assert_eq!(read, packages);
            prop_assert!(lengths.is_empty());
        }
    }
}
