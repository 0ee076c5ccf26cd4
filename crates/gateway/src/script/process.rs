//! One worker process, from the gateway's side: start it, exchange with it, watch its CPU clock,
//! kill it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use super::{
    Call, Detail, Done, Program,
    wire::{Answer, Batch, Incoming, Load, Loaded, Request},
};
use crate::limits::{SCRIPT_STALLED_S, Scripts as Limits};

/// How often a call that takes long is looked at.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
/// A worker that takes no byte for so long is as good as dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a worker is started.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

impl WorkerCommand {
    /// This very program: `/proc/self/exe` is the same file even once an upgrade has replaced it.
    pub fn this_program() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            arguments: vec!["script-worker".into()],
        }
    }
}

/// Why a worker is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// It was killed: the call that ran had so much CPU time.
    OverLimit { cpu_ms: u64 },
    /// It ended, or what it said made no sense.
    Crash,
}

/// What came of an exchange: answers in order, and where they end, why.
pub(super) struct Exchange {
    pub(super) done: Vec<Done>,
    pub(super) broken: Option<Broken>,
}

/// The worker died during an exchange and is gone.
pub(super) struct Broken {
    pub(super) death: Death,
    /// The call that ran, by its place in the batch, where that is known.
    pub(super) running: Option<usize>,
}

/// The worker died before a program was loaded, and is gone.
pub(super) struct Unloaded {
    pub(super) death: Death,
    /// It had looked at the program already.
    pub(super) has_begun: bool,
}

/// A running worker.
pub(super) struct Process {
    child: Child,
    link: UnixStream,
    incoming: Incoming,
    /// Counts the calls that the worker has begun.
    begun: OwnedFd,
    /// Programs it holds, the latest used last.
    loaded: VecDeque<(u64, Loaded)>,
    limits: Limits,
    ticks_a_second: u64,
}

impl Process {
    /// # Errors
    /// The operating system's.
    pub(super) fn start(command: &WorkerCommand, limits: &Limits) -> io::Result<Self> {
        let (link, theirs) = UnixStream::pair()?;
        let begun = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let child = Command::new(&command.program)
            .arg0("backtide-script-worker")
            .args(&command.arguments)
            // Nothing of ours: no secret, no locale, no zone.
            .env_clear()
            .env("TZ", "UTC0")
            // The allocator's default, a gibibyte set aside, is more address space than a worker has.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .current_dir("/")
            // A Ctrl-C for the gateway must not end workers before it has drained.
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(begun.try_clone()?)
            .stderr(Stdio::inherit())
            .spawn()?;
        link.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let mut process = Self {
            child,
            link,
            incoming: Incoming::default(),
            begun,
            loaded: VecDeque::new(),
            limits: limits.clone(),
            ticks_a_second: rustix::param::clock_ticks_per_second(),
        };
        // Should it be gone already, whoever speaks to it next finds out.
        drop(process.send(&[Request::Hello(limits.clone())]));
        Ok(process)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn send(&mut self, requests: &[Request]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for request in requests {
            request.encode(&mut bytes);
        }
        self.link.write_all(&bytes)
    }

    /// Makes a program ready unless it is.
    ///
    /// # Errors
    /// The worker died, and is gone.
    pub(super) fn load(&mut self, program: &Program) -> Result<Loaded, Unloaded> {
        if let Some(at) = self.loaded.iter().position(|(id, _)| *id == program.id) {
            let entry = self.loaded.remove(at).expect("it was just found");
            let loaded = entry.1.clone();
            self.loaded.push_back(entry);
            return Ok(loaded);
        }
        let mut requests = Vec::with_capacity(2);
        if self.loaded.len() >= self.limits.loaded_max
            && let Some((oldest, _)) = self.loaded.pop_front()
        {
            requests.push(Request::Drop(oldest));
        }
        requests.push(Request::Load(Box::new(Load {
            id: program.id,
            source: program.source.to_string(),
            dialect: program.dialect,
            mapping: program.mapping.clone(),
            rows: program.rows.clone(),
            keep_state: program.keep_state,
        })));
        self.drain_begun();
        let mut watch = Watch::default();
        let death = match self.send(&requests) {
            Err(_) => Death::Crash,
            Ok(()) => match self.receive(&mut watch) {
                Ok(Answer::Loaded(loaded)) => {
                    self.loaded.push_back((program.id, loaded.clone()));
                    return Ok(loaded);
                }
                Ok(Answer::Done(_)) => Death::Crash,
                Err(death) => death,
            },
        };
        let has_begun = watch.begun + self.drain_begun() > 0;
        Err(Unloaded {
            death: self.bury(death),
            has_begun,
        })
    }

    /// Runs calls of a loaded program.
    pub(super) fn run(&mut self, program: &Program, calls: Vec<Call>, detail: Detail) -> Exchange {
        let count = calls.len();
        let mut done = Vec::with_capacity(count);
        let mut watch = Watch::default();
        self.drain_begun();
        let batch = Request::Batch(Batch {
            id: program.id,
            detail,
            calls,
        });
        let death = match self.send(&[batch]) {
            Err(_) => Death::Crash,
            Ok(()) => loop {
                match self.receive(&mut watch) {
                    Ok(Answer::Done(more)) => done.extend(more),
                    Ok(Answer::Loaded(_)) => break Death::Crash,
                    Err(death) => break death,
                }
                match done.len().cmp(&count) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Equal => return Exchange { done, broken: None },
                    std::cmp::Ordering::Greater => {
                        // Who answers more than was asked is out of its mind: nothing of it counts.
                        done.clear();
                        break Death::Crash;
                    }
                }
            },
        };
        watch.begun += self.drain_begun();
        let running = usize::try_from(watch.begun)
            .ok()
            .and_then(|begun| begun.checked_sub(1))
            .filter(|running| (done.len()..count).contains(running));
        let broken = Some(Broken {
            death: self.bury(death),
            running,
        });
        Exchange { done, broken }
    }

    /// Waits for the next answer, watching the clock meanwhile.
    fn receive(&mut self, watch: &mut Watch) -> Result<Answer, Death> {
        loop {
            if let Some((kind, body)) = self.incoming.next().map_err(|_| Death::Crash)? {
                return Answer::decode(kind, body).map_err(|_| Death::Crash);
            }
            let mut fds = [PollFd::new(&self.link, PollFlags::IN)];
            match poll(&mut fds, Some(&LOOK_EVERY)) {
                Ok(0) => self.look(watch)?,
                Ok(_) => match self.incoming.read(&self.link) {
                    Ok(0) | Err(_) => return Err(Death::Crash),
                    Ok(_) => {}
                },
                Err(Errno::INTR) => {}
                Err(_) => return Err(Death::Crash),
            }
        }
    }

    /// How much CPU time has the call that runs now had?
    fn look(&self, watch: &mut Watch) -> Result<(), Death> {
        let now = Instant::now();
        let cpu_ms = self.cpu_ms().ok_or(Death::Crash)?;
        let begun = self.drain_begun();
        watch.begun += begun;
        match &watch.call {
            Some(call) if begun == 0 => {
                let used_ms = cpu_ms.saturating_sub(call.cpu_ms);
                if used_ms >= self.limits.cpu_hard_ms {
                    return Err(Death::OverLimit { cpu_ms: used_ms });
                }
                if used_ms > call.used_ms {
                    watch.call = Some(Running {
                        used_ms,
                        moved: now,
                        ..*call
                    });
                } else if now.duration_since(call.moved) > Duration::from_secs(SCRIPT_STALLED_S) {
                    return Err(Death::Crash);
                }
            }
            Some(_) | None => {
                watch.call = Some(Running {
                    cpu_ms,
                    used_ms: 0,
                    moved: now,
                });
            }
        }
        Ok(())
    }

    /// User and system time so far.
    fn cpu_ms(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The second field is the name in parentheses and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut number = || fields.next()?.parse::<u64>().ok();
        Some((number()? + number()?) * 1_000 / self.ticks_a_second)
    }

    /// Calls begun since the last look.
    fn drain_begun(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.begun, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            Ok(_) | Err(_) => 0,
        }
    }

    /// Makes sure that it is gone, and leaves no zombie.
    fn bury(&mut self, death: Death) -> Death {
        // It may be dead already; then there is nothing to kill.
        drop(self.child.kill());
        match self.child.wait() {
            Ok(status) if death == Death::Crash => {
                tracing::warn!(pid = self.child.id(), %status, "a script worker ended");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a script worker cannot be waited for"),
        }
        death
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the looks have seen.
#[derive(Debug, Default)]
struct Watch {
    /// Calls begun so far.
    begun: u64,
    call: Option<Running>,
}

/// A call that was there at the last look.
#[derive(Debug, Clone, Copy)]
struct Running {
    /// The worker's clock at the first look at this call.
    cpu_ms: u64,
    used_ms: u64,
    /// When the clock was last seen to move.
    moved: Instant,
}
