//! One import, from the first piece to the last count.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use backtide_model::{Code, Compression};
use bytes::Bytes;
use futures::Stream;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Asked, Import, ImportError, Imports, State, Target,
    pieces::pieces,
    reading::{self, Made, Spool, Step},
};
use crate::{
    files::source::{Form, SourceError},
    ingest::{Gate, NotTaken, Outcome, Sender, Uplink},
    limits::{IMPORT_BURST_MESSAGES_MAX, IMPORT_BYTES_MAX, IMPORT_PARQUET_BYTES_MAX},
};

/// How late counts reach the disk.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long an import waits for a channel that is held, or a quarantine that is full.
const HOLD: Duration = Duration::from_secs(60);
const HOLD_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Imports to the end of the body. What it comes to is on the shelf when this returns.
pub(super) async fn run(
    imports: &Imports,
    mut import: Import,
    asked: Asked,
    target: Target,
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    stop: CancellationToken,
) -> Result<Import, ImportError> {
    let bytes_max = match asked.kind.form {
        Form::Parquet => IMPORT_PARQUET_BYTES_MAX,
        Form::Csv | Form::Ndjson => IMPORT_BYTES_MAX,
    };
    let pieces = pieces(body, bytes_max, stop.clone());
    let (give, steps) = mpsc::channel(IMPORT_BURST_MESSAGES_MAX);
    let (dir, store) = (imports.spool.clone(), imports.ingest.store.clone());
    let (points, name) = (target.points.clone(), format!("import-{}", import.id));
    import.rows.answered = asked.skip_rows;
    let (done, read) = oneshot::channel();
    thread::Builder::new().name(name.clone()).spawn(move || {
        let spool = Spool {
            dir: &dir,
            free_bytes: &|| store.disk_free_bytes(),
        };
        // The last step is gone before this: whoever takes them takes all of them.
        let read = reading::read(&asked, &points, pieces, &spool, &name, &give);
        drop(give);
        drop(done.send(read));
    })?;
    let committed = commit_all(imports, &mut import, &target, steps, &stop).await;
    (import.state, import.error) = match committed {
        // The reader is not waited for: it may wait for a client that has nothing to say any more.
        Err(not_taken) => {
            let state = match imports.closing.is_cancelled() {
                true => State::Interrupted,
                false => State::Failed,
            };
            (state, Some(not_taken.to_string()))
        }
        Ok(Steps::Left) if !imports.closing.is_cancelled() => {
            (State::Interrupted, Some("it was cancelled".to_owned()))
        }
        Ok(Steps::Left) => {
            let reason = "the gateway stops".to_owned();
            (State::Interrupted, Some(reason))
        }
        Ok(Steps::Done) => ending(read.await.ok()),
    };
    let state = import.state;
    import.ended = Some(imports.ingest.clock.now_ms());
    end(imports, &import).await?;
    metrics::counter!("backtide_imports_total", "channel" => import.channel.clone(), "state" => state.word())
        .increment(1);
    tracing::info!(
        target: "audit", import = import.id, channel = import.channel, by = import.by,
        state = state.word(), stored = import.rows.stored, rejected = import.rows.rejected,
        error = import.error, "an import has ended"
    );
    match &import.error {
        None => Ok(import),
        Some(reason) => Err(ImportError::Ended {
            reason: reason.clone(),
            import: Box::new(import),
        }),
    }
}

/// How the reading ended; `None` where it said nothing.
fn ending(read: Option<Result<(), SourceError>>) -> (State, Option<String>) {
    match read {
        Some(Ok(())) => (State::Complete, None),
        Some(Err(SourceError::Usage(reason))) => (State::Failed, Some(reason)),
        Some(Err(SourceError::Io(error))) => {
            let state = match error.kind() {
                io::ErrorKind::FileTooLarge | io::ErrorKind::StorageFull => State::Failed,
                _ => State::Interrupted,
            };
            (state, Some(format!("the file cannot be read on: {error}")))
        }
        None => {
            let bug = "the reading ended in a bug; the log of the gateway has its place";
            (State::Failed, Some(bug.to_owned()))
        }
    }
}

/// What of a file was committed.
enum Steps {
    /// All that could be read.
    Done,
    /// It was told to stop before.
    Left,
}

/// Commits what is made, burst by burst, and counts it once it is durable.
async fn commit_all(
    imports: &Imports,
    import: &mut Import,
    target: &Target,
    mut steps: mpsc::Receiver<Step>,
    stop: &CancellationToken,
) -> Result<Steps, NotTaken> {
    let sender = Sender {
        client: import.client_id.as_str().into(),
        compression: Compression::None,
    };
    let gate = Gate::default();
    let mut saved = Instant::now();
    let mut waiting = Vec::with_capacity(IMPORT_BURST_MESSAGES_MAX);
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Steps::Left),
            received = steps.recv_many(&mut waiting, IMPORT_BURST_MESSAGES_MAX) => received,
        };
        if received == 0 {
            return Ok(Steps::Done);
        }
        let mut burst = Vec::with_capacity(waiting.len());
        for step in waiting.drain(..) {
            match step {
                Step::Made(made) => burst.push(made),
                Step::Empty => import.rows.empty += 1,
            }
        }
        if burst.is_empty() {
            continue;
        }
        let outcomes = take(imports, target, &sender, &gate, &burst).await?;
        for (made, outcome) in burst.iter().zip(&outcomes) {
            count(import, made, outcome);
        }
        if saved.elapsed() >= SAVE_EVERY {
            saved = Instant::now();
            if let Err(error) = save(imports, import).await {
                tracing::warn!(import = import.id, %error, "the counts of an import are not written");
            }
        }
    }
}

/// Commits a burst. A channel that is held and a full quarantine are waited for: the client meanwhile
/// sends nothing.
async fn take(
    imports: &Imports,
    target: &Target,
    sender: &Sender,
    gate: &Gate,
    burst: &[Made],
) -> Result<Vec<Outcome>, NotTaken> {
    let until = Instant::now() + HOLD;
    loop {
        let uplinks = burst.iter().map(|made| Uplink {
            topic: target.topic.clone(),
            payload: made.payload.clone(),
            packet_id: None,
            // Its client waits: nothing of it is over its quota, it only takes longer.
            is_kept_by_client: true,
            rows: Some(Arc::clone(&made.rows)),
        });
        let taken = imports
            .ingest
            .take(&target.channel, sender, gate, uplinks.collect())
            .await;
        match taken {
            Err(NotTaken::Held { .. } | NotTaken::QuarantineFull)
                if Instant::now() < until && !imports.closing.is_cancelled() =>
            {
                sleep(HOLD_LOOK_EVERY).await;
            }
            taken => return taken,
        }
    }
}

/// What a reply says of its items.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    data: ReplyData,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ReplyData {
    stored: u64,
}

fn count(import: &mut Import, made: &Made, outcome: &Outcome) {
    let rows = u64::try_from(made.rows.len()).unwrap_or(u64::MAX);
    let stored = match outcome.code {
        Code::Ok => rows,
        _ => {
            let reply: Reply = serde_json::from_slice(&outcome.reply).unwrap_or_default();
            reply.data.stored.min(rows)
        }
    };
    let counts = &mut import.rows;
    counts.stored += stored;
    counts.rejected += rows - stored;
    counts.values += made.values;
    counts.messages += 1;
    if let Some(last) = made.rows.last() {
        counts.answered = counts.answered.max(*last);
    }
    let note = |outcome: &'static str, rows: u64| {
        metrics::counter!("backtide_import_rows_total",
            "channel" => import.channel.clone(), "outcome" => outcome)
        .increment(rows);
    };
    note("stored", stored);
    note("rejected", rows - stored);
}

/// Writes down how an import ended, and behind which commit.
async fn end(imports: &Imports, import: &Import) -> Result<(), ImportError> {
    let through = imports.ingest.store.durable().0;
    let (shelf, id) = (Arc::clone(&imports.shelf), import.id);
    imports
        .pool
        .run(move || shelf.lock().end(id, through))
        .await??;
    save(imports, import).await
}

async fn save(imports: &Imports, import: &Import) -> Result<(), ImportError> {
    let (shelf, import) = (Arc::clone(&imports.shelf), import.clone());
    imports.pool.run(move || shelf.lock().save(&import)).await?
}
