//! The server's side of WebSocket frames (RFC 6455 §5) as a stream of bytes: what binary frames
//! carry, and nothing else.
//!
//! A frame is never buffered: its payload is unmasked where it is read to. So a frame may be of any
//! size, may hold a part of a packet or several, and the limits of MQTT are the only ones that count.
//! What a client must not send ends the stream with an error, after a Close that says why.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

/// Headers are read from a buffer of this size; payloads larger than it pass it by.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// The most that goes into one frame to the client.
const FRAME_BYTES_MAX: usize = 64 * 1024;
const CONTROL_BYTES_MAX: usize = 125;

const CONTINUATION: u8 = 0x0;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;

/// Reasons of a Close (§7.4.1).
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED: u16 = 1003;

/// A WebSocket connection, as the bytes that its binary frames carry.
pub struct WebSocket<S> {
    io: BufReader<S>,
    reading: Reading,
    /// A message of several frames is not finished.
    is_fragmented: bool,
    /// Frames on their way to the client.
    out: BytesMut,
    /// The latest ping's payload, to be sent back.
    pong: Option<Vec<u8>>,
    has_closed: bool,
}

/// What is read next.
enum Reading {
    Header {
        bytes: [u8; 14],
        have: usize,
    },
    Data {
        left: u64,
        mask: Mask,
    },
    Control {
        code: u8,
        payload: Vec<u8>,
        have: usize,
        mask: Mask,
    },
    End,
}

const HEADER: Reading = Reading::Header {
    bytes: [0; 14],
    have: 0,
};

/// The masking key, and how far it has been used.
struct Mask {
    key: [u8; 4],
    at: usize,
}

impl Mask {
    fn lift(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.key[self.at % 4];
            self.at = self.at.wrapping_add(1);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    pub fn new(io: S) -> Self {
        Self {
            io: BufReader::with_capacity(READ_BUFFER_BYTES, io),
            reading: HEADER,
            is_fragmented: false,
            out: BytesMut::new(),
            pong: None,
            has_closed: false,
        }
    }

    /// Writes what waits for the client.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.out.is_empty() {
                match self.pong.take() {
                    Some(payload) => put_frame(&mut self.out, PONG, &payload),
                    None => return Poll::Ready(Ok(())),
                }
            }
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
    }

    /// Says why, and reads no further.
    fn close(&mut self, reason: u16) {
        self.reading = Reading::End;
        if !self.has_closed {
            self.has_closed = true;
            put_frame(&mut self.out, CLOSE, &reason.to_be_bytes());
        }
    }

    fn refuse(&mut self, reason: u16, why: &'static str) -> io::Error {
        self.close(reason);
        io::Error::new(io::ErrorKind::InvalidData, why)
    }

    /// Acts on a whole header.
    fn begin(&mut self, header: &[u8]) -> io::Result<()> {
        let (first, second) = (header[0], header[1]);
        let (code, is_final) = (first & 0x0F, first & FIN != 0);
        if first & 0x70 != 0 {
            return Err(self.refuse(
                PROTOCOL_ERROR,
                "a WebSocket extension that was not agreed on",
            ));
        }
        if second & 0x80 == 0 {
            return Err(self.refuse(PROTOCOL_ERROR, "a WebSocket frame without a mask"));
        }
        let (size, key) = header[2..].split_at(header.len() - 6);
        let left = size
            .iter()
            .fold(0, |left, byte| left << 8 | u64::from(*byte));
        let left = if size.is_empty() {
            u64::from(second & 0x7F)
        } else {
            left
        };
        let mask = Mask {
            key: key
                .try_into()
                .expect("a header ends with four bytes of mask"),
            at: 0,
        };
        match code {
            BINARY if !self.is_fragmented => {}
            CONTINUATION if self.is_fragmented => {}
            CLOSE | PING | PONG if is_final && size.is_empty() => {
                let payload = vec![0; usize::from(second & 0x7F)];
                self.reading = Reading::Control {
                    code,
                    payload,
                    have: 0,
                    mask,
                };
                return Ok(());
            }
            0x1 => return Err(self.refuse(UNSUPPORTED, "a WebSocket text frame: MQTT is binary")),
            _ => return Err(self.refuse(PROTOCOL_ERROR, "a WebSocket frame out of place")),
        }
        if left >> 63 != 0 {
            return Err(self.refuse(PROTOCOL_ERROR, "a WebSocket frame of impossible size"));
        }
        self.is_fragmented = !is_final;
        self.reading = Reading::Data { left, mask };
        Ok(())
    }

    /// Acts on a whole control frame.
    fn obey(&mut self, code: u8, payload: Vec<u8>) {
        match code {
            PING => {
                self.pong = Some(payload);
                self.reading = HEADER;
            }
            CLOSE => {
                let reason = payload
                    .first_chunk()
                    .map_or(NORMAL, |code| u16::from_be_bytes(*code));
                self.close(reason);
            }
            _ => self.reading = HEADER,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.pong.is_some() || !this.out.is_empty() {
                // Not waited for: the client may never read, and then it is not heard either.
                if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
                    return Poll::Ready(Err(error));
                }
            }
            match &mut this.reading {
                Reading::End => return Poll::Ready(Ok(())),
                Reading::Header { bytes, have } => {
                    let wanted = header_bytes(&bytes[..*have]);
                    if *have < wanted {
                        let read = ready!(read_some(&mut this.io, cx, &mut bytes[*have..wanted]))?;
                        if read == 0 {
                            this.reading = Reading::End;
                        } else {
                            *have += read;
                        }
                        continue;
                    }
                    let (bytes, have) = (*bytes, *have);
                    this.begin(&bytes[..have])?;
                }
                Reading::Data { left: 0, .. } => this.reading = HEADER,
                Reading::Data { left, mask } => {
                    let room = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(buf.remaining());
                    let into = buf.initialize_unfilled_to(room);
                    let read = ready!(read_some(&mut this.io, cx, into))?;
                    mask.lift(&mut into[..read]);
                    buf.advance(read);
                    *left -= u64::try_from(read).expect("no more was read than was left");
                    if read == 0 && room > 0 {
                        this.reading = Reading::End;
                    }
                    return Poll::Ready(Ok(()));
                }
                Reading::Control {
                    code,
                    payload,
                    have,
                    mask,
                } => {
                    if *have < payload.len() {
                        let read = ready!(read_some(&mut this.io, cx, &mut payload[*have..]))?;
                        if read == 0 {
                            this.reading = Reading::End;
                        } else {
                            *have += read;
                        }
                        continue;
                    }
                    mask.lift(payload);
                    let (code, payload) = (*code, std::mem::take(payload));
                    this.obey(code, payload);
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.has_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = data.len().min(FRAME_BYTES_MAX);
        put_frame(&mut this.out, BINARY, &data[..taken]);
        // Taken it is, also where the socket takes none of it now: a flush waits for that.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_closed {
            this.has_closed = true;
            put_frame(&mut this.out, CLOSE, &NORMAL.to_be_bytes());
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// How long a header is, as far as its beginning tells.
fn header_bytes(begun: &[u8]) -> usize {
    match begun.get(1).map(|second| second & 0x7F) {
        None => 2,
        Some(127) => 14,
        Some(126) => 8,
        Some(_) => 6,
    }
}

fn read_some<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    into: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(into);
    ready!(Pin::new(io).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(buf.filled().len()))
}

/// A whole frame, unmasked as a server's are.
fn put_frame(out: &mut BytesMut, code: u8, payload: &[u8]) {
    out.put_u8(FIN | code);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len), _) if usize::from(len) <= CONTROL_BYTES_MAX => out.put_u8(len),
        (_, Ok(len)) => {
            out.put_u8(126);
            out.put_u16(len);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload.len() as u64);
        }
    }
    out.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_frame(&mut out, 0, payload);
        out[0] = first;
        out[1] |= 0x80;
        let header = out.len() - payload.len();
        let key = [0x12, 0x34, 0x56, 0x78];
        let mut sent = out[..header].to_vec();
        sent.extend(key);
        sent.extend(
            payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        sent
    }

    /// What the stream gives for these bytes, and what it answers.
    async fn hear(sent: &[u8]) -> (io::Result<Vec<u8>>, Vec<u8>) {
        let (mut client, server) = duplex(1 << 20);
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut socket = WebSocket::new(server);
        let mut heard = Vec::new();
        let result = socket.read_to_end(&mut heard).await;
        socket.shutdown().await.unwrap();
        drop(socket);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        (result.map(|_| heard), answer)
    }

    #[tokio::test]
    async fn what_a_client_must_not_send_ends_with_a_reason() {
        let mut bare = frame(0x82, b"x");
        bare[1] &= 0x7F;
        let huge = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        for (wrong, sent, reason) in [
            ("text", frame(0x81, b"hello"), UNSUPPORTED),
            ("no mask", bare, PROTOCOL_ERROR),
            ("reserved bit", frame(0xC2, b"x"), PROTOCOL_ERROR),
            ("reserved code", frame(0x83, b"x"), PROTOCOL_ERROR),
            ("continuation of nothing", frame(0x80, b"x"), PROTOCOL_ERROR),
            ("fragmented ping", frame(0x09, b"x"), PROTOCOL_ERROR),
            ("long ping", frame(0x89, &[0; 126]), PROTOCOL_ERROR),
            (
                "begun twice",
                [frame(0x02, b"x"), frame(0x82, b"y")].concat(),
                PROTOCOL_ERROR,
            ),
            ("impossible size", huge.to_vec(), PROTOCOL_ERROR),
        ] {
            let (heard, answer) = hear(&sent).await;
            assert!(heard.is_err(), "{wrong}");
            let [high, low] = reason.to_be_bytes();
            assert_eq!(answer, [0x88, 2, high, low], "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_ping_is_answered_and_a_close_is_returned() {
        let sent = [
            frame(0x02, b"one "),
            frame(0x89, b"are you there"),
            frame(0x80, b"packet"),
            frame(0x8A, b""),
            frame(0x88, &1001_u16.to_be_bytes()),
            frame(0x82, b"not heard"),
        ];
        let (heard, answer) = hear(&sent.concat()).await;
        assert_eq!(heard.unwrap(), b"one packet");
        let mut expected = BytesMut::new();
        put_frame(&mut expected, PONG, b"are you there");
        put_frame(&mut expected, CLOSE, &1001_u16.to_be_bytes());
        assert_eq!(answer, expected);
    }

    #[tokio::test]
    async fn what_is_written_is_binary_frames() {
        let (mut client, server) = duplex(1 << 20);
        let mut socket = WebSocket::new(server);
        for len in [1, 125, 126, 65_535, 65_536] {
            socket.write_all(&vec![7; len]).await.unwrap();
            socket.flush().await.unwrap();
            let mut expected = BytesMut::new();
            put_frame(&mut expected, BINARY, &vec![7; len]);
            let mut got = vec![0; expected.len()];
            client.read_exact(&mut got).await.unwrap();
            assert!(got == expected, "{len}");
        }
    }

    proptest! {
        /// However the bytes are cut into frames, and the frames into reads, the same bytes come out.
        #[test]
        fn frames_carry_bytes(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            pipe in 1_usize..400, whole in any::<bool>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let last = parts.len().saturating_sub(1);
            let sent: Vec<u8> = parts.iter().enumerate().flat_map(|(at, part)| {
                let first = match (whole, at == 0, at == last) {
                    (true, ..) => FIN | BINARY,
                    (false, true, is_last) => BINARY | if is_last { FIN } else { 0 },
                    (false, false, is_last) => CONTINUATION | if is_last { FIN } else { 0 },
                };
                frame(first, part)
            }).collect();
            let heard = runtime.block_on(async {
                let (mut client, server) = duplex(pipe);
                let mut socket = WebSocket::new(server);
                let mut heard = Vec::new();
                let say = async { client.write_all(&sent).await.unwrap(); drop(client); };
                let (_, result) = tokio::join!(say, socket.read_to_end(&mut heard));
                result.unwrap();
                heard
            });
            prop_assert_eq!(heard, parts.concat());
        }

        /// Whatever comes, it ends.
        #[test]
        fn any_bytes_end(sent in prop::collection::vec(any::<u8>(), 0..500)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            drop(runtime.block_on(hear(&sent)));
        }
    }
}
