//! The threads that own worker processes, and the way to them.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Call, Cause, Detail, Done, Failure, Program, WorkerCommand,
    breaker::Change,
    process::{Broken, Death, Exchange, Process, Unloaded},
    queue::{Queue, Slice},
};
use crate::limits::{
    SCRIPT_CALLS_WAITING_MAX, SCRIPT_PAUSE_S, SCRIPT_SLICE_BYTES, SCRIPT_SLICE_CALLS,
    Scripts as Limits,
};

/// How often a worker may die of one call before the call is given up.
const CRASHES_MAX: u32 = 2;
/// How often workers may die, one after the other, before they have looked at a script: whoever
/// kills them from outside is no script's fault.
const STARTS_MAX: u32 = 100;
/// The same while they look at one.
const LOADS_MAX: u32 = 20;
/// After a worker could not be started, calls are refused for so long before it is tried again.
const START_AGAIN: Duration = Duration::from_secs(1);

/// Runs scripts. Its threads end when it is dropped, their processes with them.
pub struct Scripts {
    limits: Limits,
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Scripts {
    /// Starts the threads; processes are started when they are first needed.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(command: &WorkerCommand, limits: &Limits) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let scripts = Self {
            limits: limits.clone(),
            queue: Arc::clone(&queue),
            threads: Mutex::default(),
        };
        for number in 0..limits.workers {
            let mut keeper = Keeper {
                queue: Arc::clone(&queue),
                command: command.clone(),
                limits: limits.clone(),
                process: None,
                start_again_at: None,
            };
            let thread = thread::Builder::new()
                .name(format!("script-{number}"))
                .spawn(move || keeper.serve())?;
            scripts.threads.lock().push(thread);
        }
        Ok(scripts)
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs calls of one program; the outcomes are in the order of the calls. Waits where the
    /// program has too many calls waiting.
    pub async fn run(&self, program: &Arc<Program>, calls: Vec<Call>, detail: Detail) -> Vec<Done> {
        let mut pending = Vec::new();
        let mut done = Vec::with_capacity(calls.len());
        for calls in sliced(calls) {
            let (count, answer) = (calls.len(), self.submit(program, calls, detail).await);
            pending.push((count, answer));
        }
        for (count, answer) in pending {
            match answer.await {
                Ok(outcomes) => done.extend(outcomes),
                // The queue was closed under it.
                Err(_) => done.extend(std::iter::repeat_n(unavailable("it is closing"), count)),
            }
        }
        done
    }

    async fn submit(
        &self,
        program: &Arc<Program>,
        calls: Vec<Call>,
        detail: Detail,
    ) -> oneshot::Receiver<Vec<Done>> {
        let (done, answer) = oneshot::channel();
        let count = u32::try_from(calls.len().min(SCRIPT_CALLS_WAITING_MAX));
        let room = Arc::clone(&program.room);
        // The program's room is never closed.
        if let Ok(permit) = room.acquire_many_owned(count.unwrap_or(1)).await {
            self.queue.push(Slice {
                program: Arc::clone(program),
                calls,
                detail,
                done,
                permit,
            });
        }
        answer
    }

    /// Ends all threads and processes.
    pub fn close(&self) {
        self.queue.close();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a script thread ended in a bug");
            }
        }
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        self.close();
    }
}

/// Cuts calls into slices of bounded count and size.
fn sliced(calls: Vec<Call>) -> impl Iterator<Item = Vec<Call>> {
    let mut calls = calls.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut slice = vec![calls.next()?];
        let mut bytes = slice[0].input.len();
        while slice.len() < SCRIPT_SLICE_CALLS {
            let Some(call) = calls.next_if(|call| bytes + call.input.len() <= SCRIPT_SLICE_BYTES)
            else {
                break;
            };
            bytes += call.input.len();
            slice.push(call);
        }
        Some(slice)
    })
}

fn unavailable(why: &str) -> Done {
    let message = format!("no script worker can be had: {why}");
    Done::failed(Failure::new(Cause::Unavailable, message))
}

/// One thread and its worker.
struct Keeper {
    queue: Arc<Queue>,
    command: WorkerCommand,
    limits: Limits,
    process: Option<Process>,
    start_again_at: Option<(Instant, String)>,
}

impl Keeper {
    fn serve(&mut self) {
        while let Some(slice) = self.queue.pop() {
            let Slice {
                program,
                calls,
                detail,
                done,
                permit,
            } = slice;
            let outcomes = self.run(&program, &calls, detail);
            drop(permit);
            // Who asked may be gone; the work is done all the same.
            drop(done.send(outcomes));
        }
    }

    /// The outcome of every call, whatever becomes of workers meanwhile.
    fn run(&mut self, program: &Program, calls: &[Call], detail: Detail) -> Vec<Done> {
        let mut work = Work::new(calls);
        while let Some(next) = work.next() {
            match self.exchange(program, work.calls_of(&next), detail) {
                Ok(exchange) => {
                    self.note(program, &exchange.done);
                    for (place, done) in next.iter().zip(exchange.done) {
                        work.outcomes[*place] = Some(done);
                    }
                    if let Some(broken) = exchange.broken {
                        self.process = None;
                        if let Some((place, done)) = work.blame(&next, &broken, program) {
                            self.note(program, std::slice::from_ref(&done));
                            work.outcomes[place] = Some(done);
                        }
                    }
                }
                Err(refusal) => work.refuse_rest(&refusal),
            }
        }
        work.outcomes.into_iter().flatten().collect()
    }

    /// One exchange with a worker that holds the program; what keeps it from taking place is the
    /// outcome of all its calls.
    fn exchange(
        &mut self,
        program: &Program,
        calls: Vec<Call>,
        detail: Detail,
    ) -> Result<Exchange, Done> {
        if let Some(refusal) = held(program) {
            return Err(refusal);
        }
        let (mut starts, mut loads) = (0, 0);
        loop {
            let process = self.process()?;
            let Unloaded { death, has_begun } = match process.load(program) {
                Ok(Ok(functions)) => {
                    program.functions.get_or_init(|| functions);
                    return Ok(process.run(program, calls, detail));
                }
                Ok(Err(failure)) => return Err(Done::failed(failure)),
                Err(unloaded) => unloaded,
            };
            self.process = None;
            starts += 1;
            loads += u32::from(has_begun);
            if starts == STARTS_MAX {
                return Err(unavailable("its workers end as soon as they are started"));
            }
            if loads == LOADS_MAX || matches!(death, Death::OverLimit { .. }) {
                let done = dead(death, "the script's body");
                self.note(program, std::slice::from_ref(&done));
                return Err(done);
            }
        }
    }

    /// The worker, started unless it runs.
    fn process(&mut self) -> Result<&mut Process, Done> {
        if self.process.is_none() {
            let now = Instant::now();
            if let Some((at, why)) = &self.start_again_at
                && now < *at
            {
                return Err(unavailable(why));
            }
            match Process::start(&self.command, &self.limits) {
                Ok(process) => {
                    metrics::counter!("backtide_script_workers_started_total").increment(1);
                    tracing::debug!(pid = process.id(), "a script worker is started");
                    self.process = Some(process);
                    self.start_again_at = None;
                }
                Err(error) => {
                    tracing::error!(%error, "a script worker cannot be started");
                    self.start_again_at = Some((now + START_AGAIN, error.to_string()));
                    return Err(unavailable(&error.to_string()));
                }
            }
        }
        Ok(self.process.as_mut().expect("it was just started"))
    }

    /// Tells the breaker and the counters.
    fn note(&self, program: &Program, all: &[Done]) {
        let now = Instant::now();
        let mut breaker = program.breaker.lock();
        let held = all
            .iter()
            .filter_map(|done| match breaker.note(done, self.limits.workers, now) {
                Change::Held(reason) => Some(reason),
                Change::Nothing => None,
            })
            .last();
        drop(breaker);
        let name = || program.name.to_string();
        if let Some(reason) = held {
            tracing::warn!(
                script = program.label(),
                reason,
                "the script is paused for {SCRIPT_PAUSE_S} s; its messages are refused into quarantine"
            );
            metrics::gauge!("backtide_script_paused", "script" => name()).set(1);
        }
        // Most go well: counters are told once of all those.
        let cpu_us = all.iter().map(|done| u64::from(done.cpu_us)).sum();
        metrics::counter!("backtide_script_cpu_us_total", "script" => name()).increment(cpu_us);
        let failures = all.iter().filter_map(|done| done.outcome.as_ref().err());
        let mut good = all.len() as u64;
        for failure in failures {
            good -= 1;
            let outcome = failure.cause.word();
            metrics::counter!("backtide_script_calls_total", "script" => name(), "outcome" => outcome)
                .increment(1);
        }
        metrics::counter!("backtide_script_calls_total", "script" => name(), "outcome" => "ok")
            .increment(good);
    }
}

/// The refusal of a program that its breaker holds; a pause that is over ends here.
fn held(program: &Program) -> Option<Done> {
    let mut breaker = program.breaker.lock();
    let now = Instant::now();
    if breaker.resume(now) {
        tracing::info!(script = program.label(), "the script is tried again");
        metrics::gauge!("backtide_script_paused", "script" => program.name.to_string()).set(0);
    }
    let pause = breaker.paused(now)?;
    let cure = match program.rows {
        Some(_) => "apply a policy",
        None => "publish a version",
    };
    let message = format!(
        "script {} is paused for {} s more: {}; {cure} that cures it, then re-drive",
        program.label(),
        pause.seconds,
        pause.reason
    );
    Some(Done::failed(Failure::new(Cause::Paused, message)))
}

/// The outcome of a call that a worker died of.
fn dead(death: Death, what: &str) -> Done {
    match death {
        Death::OverLimit { cpu_ms } => Done {
            cpu_us: u32::try_from(cpu_ms * 1_000).unwrap_or(u32::MAX),
            ..Done::failed(Failure::new(
                Cause::Killed,
                format!("{what} ran for {cpu_ms} ms of CPU and was killed"),
            ))
        },
        Death::Crash => Done::failed(Failure::new(
            Cause::Crashed,
            format!("{what} ended its worker again and again"),
        )),
    }
}

/// Calls with the outcomes that are there so far.
struct Work<'c> {
    calls: &'c [Call],
    outcomes: Vec<Option<Done>>,
    /// How often a worker died while it ran.
    crashes: Vec<u32>,
    /// It is not known which call a worker died of.
    one_by_one: bool,
}

impl<'c> Work<'c> {
    fn new(calls: &'c [Call]) -> Self {
        Self {
            calls,
            outcomes: vec![None; calls.len()],
            crashes: vec![0; calls.len()],
            one_by_one: false,
        }
    }

    /// The places of the calls to run next.
    fn next(&self) -> Option<Vec<usize>> {
        let left = (0..self.calls.len()).filter(|place| self.outcomes[*place].is_none());
        let next: Vec<usize> = match self.one_by_one {
            true => left.take(1).collect(),
            false => left.collect(),
        };
        (!next.is_empty()).then_some(next)
    }

    fn calls_of(&self, places: &[usize]) -> Vec<Call> {
        places
            .iter()
            .map(|place| self.calls[*place].clone())
            .collect()
    }

    /// Who is to blame for a worker's death, if that is settled: the others run again.
    fn blame(
        &mut self,
        places: &[usize],
        broken: &Broken,
        program: &Program,
    ) -> Option<(usize, Done)> {
        let running = match broken.running {
            None if places.len() == 1 => Some(0),
            running => running,
        };
        let Some(place) = running.and_then(|running| places.get(running)).copied() else {
            self.one_by_one = true;
            return None;
        };
        self.crashes[place] += 1;
        let is_settled = match broken.death {
            Death::OverLimit { .. } => true,
            Death::Crash => self.crashes[place] == CRASHES_MAX,
        };
        tracing::warn!(
            script = program.label(), death = ?broken.death,
            "a script worker is gone; what it had not finished runs again"
        );
        is_settled.then(|| (place, dead(broken.death, "the call")))
    }

    fn refuse_rest(&mut self, refusal: &Done) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(refusal.clone());
        }
    }
}
