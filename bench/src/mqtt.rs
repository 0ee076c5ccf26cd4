//! As much of an MQTT 3.1.1 client as a load needs: build a few packets, split a stream into frames,
//! log in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;

/// How a channel's clients log in (`mqtt-channel.md` §1.3). Peers take any login.
#[derive(Debug, Clone)]
pub struct Login {
    pub product_key: String,
    pub secret: String,
}

impl Login {
    /// CONNECT of client number `client`: the number stands where a timestamp would, so that every
    /// client id is another one.
    fn connect(&self, client: u64, clean: bool) -> Vec<u8> {
        let Self {
            product_key,
            secret,
        } = self;
        let content = format!(
            "clientId{product_key}deviceKey%channel%productKey{product_key}timestamp{client}{secret}"
        );
        let password: String = Sha256::digest(content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();

        let mut body = Vec::new();
        string(&mut body, "MQTT");
        let flags = 0xC0 | if clean { 0x02 } else { 0 };
        body.extend_from_slice(&[4, flags, 0x0E, 0x10]); // level 3.1.1; keep-alive one hour
        string(
            &mut body,
            &format!("{product_key}|securemode=4,signmethod=sha256,timestamp={client}|"),
        );
        string(&mut body, &format!("%channel%&{product_key}"));
        string(&mut body, &password);
        packet(0x10, &body)
    }
}

/// Connects, logs in and subscribes to `filter` with QoS 1; returns a blocking stream.
pub fn open(
    address: SocketAddr,
    login: &Login,
    client: u64,
    clean: bool,
    filter: &str,
) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))
        .with_context(|| format!("no connection to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;

    stream.write_all(&login.connect(client, clean))?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).context("no CONNACK")?;
    ensure!(connack[0] == 0x20, "expected CONNACK, got {connack:02x?}");
    ensure!(
        connack[3] == 0,
        "client {client} is refused with CONNACK {}",
        connack[3]
    );

    let mut body = vec![0, 1];
    string(&mut body, filter);
    body.push(1);
    stream.write_all(&packet(0x82, &body))?;
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).context("no SUBACK")?;
    ensure!(
        suback == [0x90, 3, 0, 1, 1],
        "subscription to {filter} is not granted: {suback:02x?}"
    );
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Appends a PUBLISH: QoS 1 with a packet id, else QoS 0.
pub fn publish(out: &mut Vec<u8>, topic: &str, packet: Option<u16>, payload: &[u8]) {
    out.push(if packet.is_some() { 0x32 } else { 0x30 });
    remaining_length(
        out,
        2 + topic.len() + packet.map_or(0, |_| 2) + payload.len(),
    );
    string(out, topic);
    if let Some(packet) = packet {
        out.extend_from_slice(&packet.to_be_bytes());
    }
    out.extend_from_slice(payload);
}

/// Appends a PUBACK.
pub fn puback(out: &mut Vec<u8>, packet: u16) {
    let [high, low] = packet.to_be_bytes();
    out.extend_from_slice(&[PUBACK << 4, 2, high, low]);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    remaining_length(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn remaining_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 128 {
        out.push((length % 128) as u8 | 0x80);
        length /= 128;
    }
    out.push(length as u8);
}

/// One packet of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    first: u8,
    body: &'a [u8],
}

/// What a PUBLISH carries.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    pub topic: &'a str,
    pub packet: Option<u16>,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first packet of `buffer` and its bytes in all; `None` while it is not whole.
    pub fn first(buffer: &'a [u8]) -> Result<Option<(Self, usize)>> {
        let mut length = 0;
        for at in 1..5 {
            let Some(&byte) = buffer.get(at) else {
                return Ok(None);
            };
            length |= usize::from(byte & 0x7F) << (7 * (at - 1));
            if byte & 0x80 == 0 {
                let end = at + 1 + length;
                return Ok(buffer.get(at + 1..end).map(|body| {
                    (
                        Self {
                            first: buffer[0],
                            body,
                        },
                        end,
                    )
                }));
            }
        }
        bail!("malformed remaining length");
    }

    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    pub fn publish(&self) -> Result<Publish<'a>> {
        let qos = (self.first >> 1) & 3;
        let (topic, rest) = short(self.body).context("a PUBLISH without a topic")?;
        let topic = std::str::from_utf8(topic).context("a topic that is not UTF-8")?;
        if qos == 0 {
            return Ok(Publish {
                topic,
                packet: None,
                payload: rest,
            });
        }
        let (packet, payload) = rest
            .split_first_chunk()
            .context("a PUBLISH without a packet id")?;
        Ok(Publish {
            topic,
            packet: Some(u16::from_be_bytes(*packet)),
            payload,
        })
    }

    /// The packet id of a PUBACK.
    pub fn packet_id(&self) -> Result<u16> {
        self.body
            .first_chunk()
            .map(|id| u16::from_be_bytes(*id))
            .context("a PUBACK without a packet id")
    }
}

fn short(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_digest_is_that_of_the_specification() {
        let login = Login {
            product_key: "PKdemo".into(),
            secret: "S3cret".into(),
        };
        let connect = login.connect(1_700_000_000_000, true);
        let text = String::from_utf8_lossy(&connect);
        assert!(text.contains("PKdemo|securemode=4,signmethod=sha256,timestamp=1700000000000|"));
        assert!(text.contains("%channel%&PKdemo"));
        assert!(text.ends_with("5e8e2fae2b25e8d8df27942c988138aef39ae2b3e2ccd064719b4aea75bd96c5"));
    }

    #[test]
    fn frames_are_found_when_they_are_whole() {
        let mut stream = Vec::new();
        puback(&mut stream, 7);
        publish(&mut stream, "a/b", None, &[0; 300]);
        let (frame, used) = Frame::first(&stream).expect("well-formed").expect("whole");
        assert_eq!(
            (frame.kind(), frame.packet_id().expect("an id"), used),
            (PUBACK, 7, 4)
        );
        for end in used..stream.len() {
            assert!(
                Frame::first(&stream[used..end])
                    .expect("well-formed")
                    .is_none()
            );
        }
        let (frame, _) = Frame::first(&stream[used..])
            .expect("well-formed")
            .expect("whole");
        assert_eq!(frame.publish().expect("a PUBLISH").payload.len(), 300);
    }
}
