//! A worker process, from its own side: confined, it reads requests on stdin and answers there.
//!
//! stdin is a socket to the gateway, stdout counts the calls begun, stderr is the gateway's. It
//! holds one sandbox a script and ends when the gateway does.

use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    Cause, Detail, Done, Failure,
    sandbox::{Sandbox, confine},
    wire::{Answer, Batch, Incoming, Load, Request},
};
use crate::limits::Scripts as Limits;

/// Finished answers wait so long at most for those behind them.
const ANSWER_EVERY: Duration = Duration::from_millis(5);

/// Serves the gateway at the other end of stdin until it is gone.
///
/// False where something went wrong; stderr says what.
pub fn work() -> bool {
    match serve() {
        Ok(()) => true,
        Err(error) => {
            use io::Write;
            // Where nobody reads it, nobody asks.
            drop(writeln!(io::stderr(), "script worker: {error}"));
            false
        }
    }
}

fn serve() -> io::Result<()> {
    // A gateway that is killed takes its workers with it, busy ones too.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut incoming = Incoming::default();
    let mut worker: Option<Worker> = None;
    loop {
        while let Some((kind, body)) = incoming.next().map_err(io::Error::other)? {
            match (
                Request::decode(kind, body).map_err(io::Error::other)?,
                &mut worker,
            ) {
                (Request::Hello(limits), None) => {
                    confine(&limits)?;
                    worker = Some(Worker {
                        limits,
                        sandboxes: HashMap::new(),
                    });
                }
                (Request::Hello(_), Some(_)) | (_, None) => {
                    return Err(io::Error::other("a greeting comes first, and once"));
                }
                (Request::Load(load), Some(worker)) => worker.load(*load)?,
                (Request::Drop(id), Some(worker)) => {
                    worker.sandboxes.remove(&id);
                }
                (Request::Batch(batch), Some(worker)) => worker.run(&batch)?,
            }
        }
        if incoming.read(Stdin)? == 0 {
            return Ok(());
        }
    }
}

/// stdin without a buffer of its own.
struct Stdin;

impl io::Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::io::read(rustix::stdio::stdin(), &mut *buffer)
        })?)
    }
}

fn answer(answer: &Answer) -> io::Result<()> {
    let mut bytes = Vec::new();
    answer.encode(&mut bytes);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written =
            rustix::io::retry_on_intr(|| rustix::io::write(rustix::stdio::stdin(), rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Tells that another call, or a load, begins: should it hang, the gateway knows which one it is.
fn begin() -> io::Result<()> {
    rustix::io::write(rustix::stdio::stdout(), &1u64.to_ne_bytes())?;
    Ok(())
}

struct Worker {
    limits: Limits,
    sandboxes: HashMap<u64, Sandbox>,
}

impl Worker {
    fn load(&mut self, load: Load) -> io::Result<()> {
        begin()?;
        let id = load.id;
        let outcome = Sandbox::load(load, &self.limits);
        let loaded = outcome.map(|sandbox| {
            let functions = sandbox.functions();
            self.sandboxes.insert(id, sandbox);
            functions
        });
        answer(&Answer::Loaded(loaded))
    }

    /// Runs a batch. Answers leave once it is certain that no call left a trace for the next.
    fn run(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(sandbox) = self.sandboxes.get_mut(&batch.id) else {
            let failure = Failure::new(Cause::Crashed, "the script is not loaded");
            return answer(&Answer::Done(vec![
                Done::failed(failure);
                batch.calls.len()
            ]));
        };
        let is_test = batch.detail == Detail::Everything;
        let mut finished: Vec<Done> = Vec::with_capacity(batch.calls.len());
        let mut first = 0;
        let mut since = Instant::now();
        for (place, call) in batch.calls.iter().enumerate() {
            begin()?;
            finished.push(sandbox.call(call, is_test));
            let is_last = place + 1 == batch.calls.len();
            if is_last || since.elapsed() >= ANSWER_EVERY {
                if !sandbox.is_untouched() {
                    // One of them changed what the others stand on: each again, on fresh ground.
                    finished.clear();
                    for call in &batch.calls[first..=place] {
                        begin()?;
                        finished.push(sandbox.call(call, is_test));
                    }
                }
                answer(&Answer::Done(std::mem::take(&mut finished)))?;
                first = place + 1;
                since = Instant::now();
            }
        }
        Ok(())
    }
}
