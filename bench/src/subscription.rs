//! The subscription door, as much of it as the benchmark says: packages of protobuf, each with its
//! length before it, over plain TCP.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

const AUTH_REQ: u64 = 2;
const AUTH_RSP: u64 = 3;
const PULL_REQ: u64 = 4;
const PULL_RSP: u64 = 5;
const SUB_REQ: u64 = 6;
const SUB_RSP: u64 = 7;
const COMMIT_REQ: u64 = 8;
/// Points, from the offline channel.
const CATEGORY: u64 = 3;
const INBOX_BYTES: usize = 128 * 1024;

/// What a client logs in with.
pub struct Login {
    pub access_key: String,
    pub secret: String,
    pub subscription: String,
}

/// A member of a group.
pub struct Session {
    stream: TcpStream,
    subscription: String,
    inbox: Vec<u8>,
    /// Of the inbox: what is read and not used.
    used: usize,
    read: usize,
    pulls: u64,
    /// By partition: the offset that comes next.
    next: HashMap<u64, u64>,
}

/// What one answer brought.
#[derive(Default)]
pub struct Pulled {
    pub messages: u64,
    /// Of the messages' text.
    pub bytes: u64,
}

impl Session {
    pub fn open(address: SocketAddr, login: &Login, group: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connect")?;
        stream.set_nodelay(true)?;
        let mut session = Self {
            stream,
            subscription: login.subscription.clone(),
            inbox: Vec::new(),
            used: 0,
            read: 0,
            pulls: 0,
            next: HashMap::new(),
        };
        let mut auth = Vec::new();
        put_text(&mut auth, 1, &login.access_key);
        put_text(&mut auth, 2, &login.subscription);
        put_text(&mut auth, 3, &login.sign());
        put_number(&mut auth, 4, CATEGORY);
        session.send(AUTH_REQ, &auth)?;
        session.expect_ack(AUTH_RSP)?;
        let mut sub = Vec::new();
        put_number(&mut sub, 1, CATEGORY);
        put_text(&mut sub, 2, "bench");
        put_text(&mut sub, 3, &login.subscription);
        put_text(&mut sub, 4, &login.access_key);
        put_text(&mut sub, 5, group);
        session.send(SUB_REQ, &sub)?;
        session.expect_ack(SUB_RSP)?;
        Ok(session)
    }

    /// Asks for messages; [`Session::pulled`] waits for them.
    pub fn ask(&mut self) -> Result<()> {
        self.pulls += 1;
        let mut pull = Vec::new();
        put_number(&mut pull, 1, self.pulls);
        self.send(PULL_REQ, &pull)
    }

    pub fn pulled(&mut self) -> Result<Pulled> {
        let (package, length) = self.package()?;
        let pulled = self.take(package, length);
        self.used += length;
        if self.used == self.read {
            (self.used, self.read) = (0, 0);
            // A session that waits holds no room.
            if self.next.is_empty() {
                self.inbox = Vec::new();
            }
        }
        pulled
    }

    /// Says that everything was dealt with.
    pub fn commit(&mut self) -> Result<()> {
        let mut commits = Vec::new();
        for (partition, next) in &self.next {
            let mut commit = Vec::new();
            put_text(&mut commit, 1, &self.subscription);
            put_number(&mut commit, 2, *partition);
            put_number(&mut commit, 3, *next);
            put_bytes(&mut commits, 1, &commit);
        }
        self.send(COMMIT_REQ, &commits)
    }

    fn take(&mut self, at: usize, length: usize) -> Result<Pulled> {
        let package = &self.inbox[at..at + length];
        let (command, body) = opened(package)?;
        ensure!(command == PULL_RSP, "command {command} answers a pull");
        let mut pulled = Pulled::default();
        for field in Fields(body) {
            let (3, Value::Bytes(dto)) = field? else {
                continue;
            };
            for message in Fields(dto) {
                let (1, Value::Bytes(message)) = message? else {
                    bail!("no message");
                };
                let (mut partition, mut offset) = (0, 0);
                for field in Fields(message) {
                    match field? {
                        (2, Value::Number(number)) => partition = number,
                        (3, Value::Number(number)) => offset = number,
                        (6, Value::Bytes(value)) => pulled.bytes += value.len() as u64,
                        _ => {}
                    }
                }
                let next = self.next.entry(partition).or_insert(offset);
                ensure!(
                    offset == *next,
                    "offset {offset} of partition {partition} follows on {next}"
                );
                *next += 1;
                pulled.messages += 1;
            }
        }
        Ok(pulled)
    }

    fn expect_ack(&mut self, command: u64) -> Result<()> {
        let (at, length) = self.package()?;
        let (answered, body) = opened(&self.inbox[at..at + length])?;
        ensure!(answered == command, "command {answered} instead of {command}");
        let acks = Fields(body).any(|field| matches!(field, Ok((1, Value::Number(0)))));
        ensure!(acks, "refused: {}", String::from_utf8_lossy(body));
        self.used += length;
        (self.used, self.read) = (0, 0);
        self.inbox = Vec::new();
        Ok(())
    }

    fn send(&mut self, command: u64, body: &[u8]) -> Result<()> {
        let mut package = Vec::with_capacity(body.len() + 16);
        put_number(&mut package, 1, command);
        put_bytes(&mut package, 2, body);
        for field in 3..=5 {
            put_number(&mut package, field, 0);
        }
        let mut framed = Vec::with_capacity(package.len() + 5);
        put_varint(&mut framed, package.len() as u64);
        framed.extend_from_slice(&package);
        self.stream.write_all(&framed).context("send")
    }

    /// Where the next package begins in the inbox, and how long it is.
    fn package(&mut self) -> Result<(usize, usize)> {
        loop {
            let mut rest = &self.inbox[self.used..self.read];
            let before = rest.len();
            if let Some(length) = varint(&mut rest) {
                let length = length as usize;
                if rest.len() >= length {
                    self.used += before - rest.len();
                    return Ok((self.used, length));
                }
            }
            self.inbox.copy_within(self.used..self.read, 0);
            (self.used, self.read) = (0, self.read - self.used);
            if self.inbox.len() < self.read + INBOX_BYTES {
                self.inbox.resize(self.read + INBOX_BYTES, 0);
            }
            let bytes = self.stream.read(&mut self.inbox[self.read..])?;
            ensure!(bytes > 0, "the door closed the connection");
            self.read += bytes;
        }
    }
}

impl Login {
    fn sign(&self) -> String {
        let mut digest = Sha256::new();
        for (name, value) in [
            ("access_key", &self.access_key),
            ("access_secret", &self.secret),
            ("sub_id", &self.subscription),
        ] {
            digest.update(name);
            digest.update(value);
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Command and body of a package.
fn opened(package: &[u8]) -> Result<(u64, &[u8])> {
    let (mut command, mut body) = (0, &[][..]);
    for field in Fields(package) {
        match field? {
            (1, Value::Number(number)) => command = number,
            (2, Value::Bytes(bytes)) => body = bytes,
            _ => {}
        }
    }
    Ok((command, body))
}

enum Value<'p> {
    Number(u64),
    Bytes(&'p [u8]),
}

/// The fields of a protobuf message.
struct Fields<'p>(&'p [u8]);

impl<'p> Iterator for Fields<'p> {
    type Item = Result<(u64, Value<'p>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().context("a package is cut");
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'p> Fields<'p> {
    fn field(&mut self) -> Option<(u64, Value<'p>)> {
        let tag = varint(&mut self.0)?;
        let value = varint(&mut self.0)?;
        match tag & 7 {
            0 => Some((tag >> 3, Value::Number(value))),
            2 => {
                let (bytes, rest) = self.0.split_at_checked(value as usize)?;
                self.0 = rest;
                Some((tag >> 3, Value::Bytes(bytes)))
            }
            _ => None,
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(number);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 & 0x7f | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, field: u64, text: &str) {
    put_bytes(out, field, text.as_bytes());
}
