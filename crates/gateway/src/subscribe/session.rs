//! One client's conversation: login, subscription, then pulls, commits and signs of life, until one
//! side ends it.
//!
//! A pull waits for messages while the client may go on talking: it commits and pings in between.
//! One pull is outstanding; a second one ends the first, which is answered empty.

use std::{future::pending, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    door::{Door, Guest},
    frame::{self, AuthReq, Commit, FrameError, Request, Response, SubReq},
    login::{self, Login, Refused},
    wire::{Heard, Wire, WireError},
};
use crate::{
    limits,
    subscription::{Member, Message, PullSize, SourceError},
};

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the client closed it")]
    Closed,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the login was refused: {0}")]
    Refused(#[from] Refused),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{0} came out of turn")]
    OutOfTurn(&'static str),
    #[error("the client was silent for too long")]
    Silent,
    #[error("the client took nothing for too long")]
    Stuck,
    #[error("no TLS connection: {0}")]
    Tls(String),
    #[error(
        "the client speaks TLS and no certificate is configured; see mqtts in the configuration"
    )]
    NoTls,
    #[error("it was not subscribed in time")]
    Late,
    #[error("its access key or its subscription changed")]
    Revoked,
    #[error("the gateway stops")]
    Closing,
}

/// A pull, as its answer names it.
#[derive(Clone, Copy)]
struct Asked {
    id: i64,
    seq_id: i32,
}

/// A pull that waits for messages.
struct Pull<'m> {
    asked: Asked,
    messages: BoxFuture<'m, Result<Vec<Message>, SourceError>>,
}

/// A client that is let in and is a member of its group.
struct Session {
    login: Login,
    member: Box<dyn Member>,
    guest: Guest,
}

/// Talks until one side ends it.
pub(super) async fn run<S>(
    door: &Arc<Door>,
    wire: &mut Wire<S>,
    peer: SocketAddr,
    subscribe_by: Instant,
    subscribed: impl FnOnce(),
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let session = tokio::select! {
        session = enter(door, wire, peer) => session,
        () = sleep_until(subscribe_by) => Err(End::Late),
        () = door.closing.cancelled() => Err(End::Closing),
    };
    let session = match session {
        Ok(session) => session,
        Err(end) => return end,
    };
    subscribed();
    match serve(door, wire, &session).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

/// Login and subscription. Who is refused is told why before the connection ends.
async fn enter<S>(door: &Arc<Door>, wire: &mut Wire<S>, peer: SocketAddr) -> Result<Session, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (request, seq_id) = next(wire).await?;
    let Request::Auth(request) = request else {
        return Err(End::OutOfTurn("a request before the login"));
    };
    let answer = |verdict| frame::write(Response::Auth { verdict }, seq_id);
    let login = match authenticate(door, &request, peer) {
        Ok(login) => login,
        Err(refused) => {
            send(door, wire, answer(Err(&refused.outward()))).await?;
            return Err(refused.into());
        }
    };
    let guest = door.register(login.clone());
    let name = format!("s{}", guest.number());
    send(door, wire, answer(Ok(&name))).await?;

    let (request, seq_id) = loop {
        match next(wire).await? {
            (Request::Sub(request), seq_id) => break (request, seq_id),
            (Request::Idle, seq_id) => answer_idle(door, wire, seq_id).await?,
            (Request::Close, _) => return Err(End::Closed),
            _ => return Err(End::OutOfTurn("a request before the subscription request")),
        }
    };
    let answer = |verdict| frame::write(Response::Sub { verdict }, seq_id);
    match join(door, &login, &request).await {
        Ok(member) => {
            send(door, wire, answer(Ok(&name))).await?;
            tracing::info!(%peer, subscription = &*login.subscription, group = request.group(),
                client = request.client_id, session = name, "subscribed");
            Ok(Session {
                login,
                member,
                guest,
            })
        }
        Err(end) => {
            send(door, wire, answer(Err(&end.to_string()))).await?;
            Err(end)
        }
    }
}

fn authenticate(door: &Door, request: &AuthReq, peer: SocketAddr) -> Result<Login, Refused> {
    let verdict = if door.is_throttled(peer.ip()) {
        Err(Refused::Throttled)
    } else {
        login::verify(request, &door.registry.current(), door.clock.now_ms())
    };
    let result = match &verdict {
        Ok(_) => "ok",
        Err(refused) => {
            if refused.is_guess() {
                door.guessed(peer.ip());
            }
            tracing::warn!(%peer, subscription = request.sub_id, reason = %refused,
                "a subscription login was refused");
            refused.word()
        }
    };
    metrics::counter!("backtide_subscribe_logins_total", "result" => result).increment(1);
    verdict
}

async fn join(door: &Door, login: &Login, request: &SubReq) -> Result<Box<dyn Member>, End> {
    let snapshot = door.registry.snapshot();
    let subscription = snapshot
        .subscription(&login.subscription)
        .ok_or(End::Revoked)?;
    login::verify_sub(login, request, subscription)?;
    let source = door.subscriptions.source(subscription).await;
    Ok(source.ok_or(SourceError::Ended)?.join(request.group())?)
}

/// What is said once the client is subscribed. Ends by an error alone.
async fn serve<S>(
    door: &Arc<Door>,
    wire: &mut Wire<S>,
    session: &Session,
) -> Result<std::convert::Infallible, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &door.limits;
    let size = PullSize {
        bytes_max: limits.pull_bytes_max,
        messages_max: limits.pull_messages_max,
    };
    let idle = Duration::from_secs(limits.idle_s);
    let mut pull: Option<Pull<'_>> = None;
    // One timer for both: how long the pull may wait, or how long the client may be silent.
    let mut timer = Box::pin(sleep_until(Instant::now() + idle));
    loop {
        tokio::select! {
            heard = wire.next() => {
                let Some((request, seq_id)) = understood(heard?)? else {
                    rewind(&mut timer, &pull, idle);
                    continue;
                };
                match request {
                    Request::Pull { id } => {
                        if let Some(earlier) = pull.take() {
                            answer(door, wire, session, earlier.asked, Vec::new()).await?;
                        }
                        let messages = session.member.pull(size);
                        let asked = Asked { id, seq_id };
                        pull = Some(Pull { asked, messages });
                        timer.as_mut().reset(pull_until(limits));
                    }
                    Request::Commit(commits) => {
                        commit(session, &commits);
                        rewind(&mut timer, &pull, idle);
                    }
                    Request::Idle => {
                        answer_idle(door, wire, seq_id).await?;
                        rewind(&mut timer, &pull, idle);
                    }
                    Request::Close => return Err(End::Closed),
                    Request::Auth(_) => return Err(End::OutOfTurn("a second login")),
                    Request::Sub(_) => return Err(End::OutOfTurn("a second subscription request")),
                }
            }
            messages = pulled(&mut pull) => {
                let messages = messages?;
                if let Some(pull) = pull.take() {
                    answer(door, wire, session, pull.asked, messages).await?;
                }
                timer.as_mut().reset(Instant::now() + idle);
            }
            () = &mut timer => match pull.take() {
                Some(pull) => {
                    answer(door, wire, session, pull.asked, Vec::new()).await?;
                    timer.as_mut().reset(Instant::now() + idle);
                }
                None => return Err(End::Silent),
            },
            () = session.guest.revoked() => return Err(End::Revoked),
            () = door.closing.cancelled() => return Err(End::Closing),
        }
    }
}

async fn pulled(pull: &mut Option<Pull<'_>>) -> Result<Vec<Message>, SourceError> {
    match pull {
        Some(pull) => pull.messages.as_mut().await,
        None => pending().await,
    }
}

/// The client said something: it is not silent, and a pull that waits goes on waiting.
fn rewind(timer: &mut Pin<Box<Sleep>>, pull: &Option<Pull<'_>>, idle: Duration) {
    if pull.is_none() {
        timer.as_mut().reset(Instant::now() + idle);
    }
}

fn pull_until(limits: &limits::Subscribe) -> Instant {
    Instant::now() + Duration::from_millis(limits.pull_wait_ms)
}

/// Takes note of what a client has dealt with. It is never answered. Some SDKs name the last message
/// they have, others the one behind it: the group begins again at what is named, so that the worst
/// is one message twice.
fn commit(session: &Session, commits: &[Commit]) {
    for commit in commits {
        let partition = u16::try_from(commit.partition);
        let offset = u64::try_from(commit.offset);
        match (partition, offset) {
            (Ok(partition), Ok(offset)) if *commit.topic == *session.login.subscription => {
                session.member.commit(partition, offset);
            }
            _ => tracing::debug!(
                subscription = &*session.login.subscription,
                ?commit,
                "a commit names nothing of this subscription"
            ),
        }
    }
}

async fn answer<S>(
    door: &Door,
    wire: &mut Wire<S>,
    session: &Session,
    asked: Asked,
    messages: Vec<Message>,
) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let response = Response::Pull {
        id: asked.id,
        topic: &session.login.subscription,
        messages,
    };
    send(door, wire, frame::write(response, asked.seq_id)).await
}

async fn answer_idle<S>(door: &Door, wire: &mut Wire<S>, seq_id: i32) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now_ms = door.clock.now_ms();
    send(door, wire, frame::write(Response::Idle { now_ms }, seq_id)).await
}

async fn send<S>(door: &Door, wire: &mut Wire<S>, package: bytes::Bytes) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limit = Duration::from_secs(door.limits.write_s);
    match timeout(limit, wire.send(package)).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(End::Stuck),
    }
}

/// The next request, whatever signs of life come before it.
async fn next<S>(wire: &mut Wire<S>) -> Result<(Request, i32), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        if let Some(request) = understood(wire.next().await?)? {
            return Ok(request);
        }
    }
}

fn understood(heard: Heard) -> Result<Option<(Request, i32)>, End> {
    match heard {
        Heard::Package(package) => Ok(Some(frame::read(package)?)),
        Heard::Ping => Ok(None),
        Heard::End => Err(End::Closed),
    }
}
