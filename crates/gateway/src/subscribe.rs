//! The subscription door: applications pull what subscriptions keep, with the vendor's SDKs.
//!
//! ```text
//! socket ─▶ wire: TLS, WebSocket or plain, by the first bytes ─▶ frame: protobuf ─▶ session
//!                               login ─▶ member of a group (crate::subscription) ─▶ pull · commit
//! ```

mod door;
mod frame;
mod login;
mod session;
#[cfg(test)]
mod tests;
mod wire;

pub use door::{BindError, Door, bind};

/// Any bytes as what a client sends without a WebSocket: for the fuzzer.
pub fn decode_anything(bytes: &[u8]) {
    let mut lengths = wire::Lengths::new(crate::limits::Subscribe::default().request_bytes_max);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        lengths.room().extend_from_slice(piece);
        while let Ok(Some(package)) = lengths.next() {
            drop(frame::read(package));
        }
    }
    drop(frame::read(bytes::Bytes::copy_from_slice(bytes)));
}
