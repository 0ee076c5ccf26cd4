//! One connection of the load: a window of requests in flight, each open until it is acknowledged
//! and, where replies are asked for, answered.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;

use crate::message::{Encoder, Reply};
use crate::mqtt::{self, Frame};
use crate::order::{Order, Row};
use crate::truth::Answered;

/// What counts as an answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Answer {
    /// A reply with code 200 (and the PUBACK before it).
    Reply,
    /// The PUBACK alone.
    Ack,
}

/// What all connections of a run have been told.
pub struct Tally {
    pub sent_messages: u64,
    pub answered_messages: u64,
    pub answered_rows: u64,
    pub answered_payload_bytes: u64,
    /// Replies by a code other than 200.
    pub refused: BTreeMap<u32, u64>,
    pub first_refusal: Option<String>,
    /// Microseconds from the moment a message was due to its answer.
    pub latency_us: Histogram<u64>,
    pub answered: Answered,
    pub last_answer: Instant,
}

impl Tally {
    pub fn new(devices: u32) -> Self {
        Self {
            sent_messages: 0,
            answered_messages: 0,
            answered_rows: 0,
            answered_payload_bytes: 0,
            refused: BTreeMap::new(),
            first_refusal: None,
            latency_us: Histogram::new(3).expect("three digits are valid"),
            answered: Answered::new(devices),
            last_answer: Instant::now(),
        }
    }

    fn add(&mut self, request: &Request, code: u32, payload: &[u8]) {
        self.last_answer = Instant::now();
        if code != 200 {
            *self.refused.entry(code).or_default() += 1;
            self.first_refusal
                .get_or_insert_with(|| String::from_utf8_lossy(payload).into_owned());
            return;
        }
        self.answered_messages += 1;
        self.answered_rows += request.rows.len() as u64;
        self.answered_payload_bytes += request.payload_bytes as u64;
        for row in &request.rows {
            self.answered.add(row.device, row.index);
        }
        let latency_us = (self.last_answer - request.due).as_micros() as u64;
        self.latency_us
            .record(latency_us)
            .expect("the histogram grows");
    }
}

/// A request in flight; its place in the window is its packet id less one.
struct Request {
    sequence: u64,
    due: Instant,
    rows: Vec<Row>,
    payload_bytes: usize,
    acknowledged: bool,
    answered: bool,
}

/// A connection with its share of the devices.
pub struct Link {
    pub stream: TcpStream,
    answer: Answer,
    order: Order,
    rows_a_message: usize,
    encoder: Encoder,
    window: Vec<Request>,
    free: Vec<u16>,
    sequence: u64,
    outbox: Vec<u8>,
    written: usize,
    inbox: Vec<u8>,
    read: usize,
}

/// Enough to keep the socket busy; more would only wait here.
const OUTBOX_BYTES: usize = 256 * 1024;
const INBOX_BYTES: usize = 64 * 1024;

impl Link {
    pub fn new(
        stream: TcpStream,
        answer: Answer,
        order: Order,
        rows_a_message: usize,
        encoder: Encoder,
        window: u16,
    ) -> Result<Self> {
        stream.set_nonblocking(true)?;
        let request = || Request {
            sequence: 0,
            due: Instant::now(),
            rows: Vec::new(),
            payload_bytes: 0,
            acknowledged: true,
            answered: true,
        };
        Ok(Self {
            stream,
            answer,
            order,
            rows_a_message,
            encoder,
            window: (0..window).map(|_| request()).collect(),
            free: (0..window).rev().collect(),
            sequence: 0,
            outbox: Vec::with_capacity(OUTBOX_BYTES + 32 * 1024),
            written: 0,
            inbox: vec![0; INBOX_BYTES],
            read: 0,
        })
    }

    pub fn in_flight(&self) -> usize {
        self.window.len() - self.free.len()
    }

    pub fn wants_to_write(&self) -> bool {
        self.written < self.outbox.len()
    }

    pub fn has_room(&self) -> bool {
        !self.free.is_empty() && self.outbox.len() - self.written < OUTBOX_BYTES
    }

    /// Messages sent so far.
    pub fn sent(&self) -> u64 {
        self.sequence
    }

    /// Encodes the next message; there must be room.
    pub fn send(&mut self, due: Instant, tally: &mut Tally) {
        let slot = self.free.pop().expect("asked for with room only");
        let request = &mut self.window[usize::from(slot)];
        self.order
            .next_message(self.rows_a_message, &mut request.rows);
        self.sequence += 1;
        request.sequence = self.sequence;
        request.due = due;
        request.acknowledged = false;
        request.answered = self.answer == Answer::Ack;
        request.payload_bytes =
            self.encoder
                .publish(slot + 1, self.sequence, &request.rows, &mut self.outbox);
        tally.sent_messages += 1;
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> Result<()> {
        while self.wants_to_write() {
            match self.stream.write(&self.outbox[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the server closed the connection"),
            }
        }
        if !self.wants_to_write() {
            self.outbox.clear();
            self.written = 0;
        } else if self.written >= OUTBOX_BYTES {
            self.outbox.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Reads what is there and settles the requests that it answers.
    pub fn receive(&mut self, tally: &mut Tally) -> Result<()> {
        loop {
            match self.stream.read(&mut self.inbox[self.read..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(bytes) => self.read += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the server closed the connection"),
            }
            let full = self.read == self.inbox.len();
            self.settle(tally)?;
            if !full {
                return Ok(());
            }
        }
    }

    fn settle(&mut self, tally: &mut Tally) -> Result<()> {
        let inbox = std::mem::take(&mut self.inbox);
        let mut used = 0;
        while let Some((frame, bytes)) = Frame::first(&inbox[used..self.read])? {
            self.take(frame, tally)?;
            used += bytes;
        }
        self.inbox = inbox;
        self.inbox.copy_within(used..self.read, 0);
        self.read -= used;
        Ok(())
    }

    fn take(&mut self, frame: Frame<'_>, tally: &mut Tally) -> Result<()> {
        match frame.kind() {
            mqtt::PUBACK => {
                let packet = frame.packet_id()?;
                let request = self.request(packet)?;
                request.acknowledged = true;
                let answered = request.answered;
                if self.answer == Answer::Ack {
                    tally.add(&self.window[usize::from(packet - 1)], 200, b"");
                }
                if answered {
                    self.free.push(packet - 1);
                }
            }
            mqtt::PUBLISH => {
                let publish = frame.publish()?;
                if let Some(packet) = publish.packet {
                    mqtt::puback(&mut self.outbox, packet);
                }
                let reply = Reply::parse(publish.payload).with_context(|| {
                    format!("no reply: {}", String::from_utf8_lossy(publish.payload))
                })?;
                let (packet, sequence) = reply
                    .request()
                    .context("a reply to nothing that was asked")?;
                let request = self.request(packet)?;
                if request.sequence != sequence || request.answered {
                    return Ok(()); // a reply that came twice
                }
                request.answered = true;
                let acknowledged = request.acknowledged;
                tally.add(
                    &self.window[usize::from(packet - 1)],
                    reply.code,
                    publish.payload,
                );
                if acknowledged {
                    self.free.push(packet - 1);
                }
            }
            kind => bail!("unexpected packet of kind {kind}"),
        }
        Ok(())
    }

    fn request(&mut self, packet: u16) -> Result<&mut Request> {
        let place = usize::from(packet).wrapping_sub(1);
        self.window
            .get_mut(place)
            .with_context(|| format!("packet id {packet} was never used"))
    }
}
