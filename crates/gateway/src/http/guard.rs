//! Who passes: everything under `/api/v1` needs a bearer token or a session with the role for it.
//!
//! A session's cookie goes along with whatever another site makes a browser send; so every change
//! made with one has to show the session's `X-CSRF-Token` too, which no other site can read. What
//! changed something and wrote no entry of its own into the audit trail gets one here.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Api, Problem, websocket::PeerAddress};
use crate::access::{Caller, Role};

/// The session's cookie.
pub(super) const COOKIE: &str = "backtide_session";
const CSRF: &str = "x-csrf-token";

/// Where a POST asks in SQL, which only reads.
const SQL: &str = "/api/v1/sql";
/// Endings of paths where a POST changes nothing.
const DRY: [&str; 8] = [
    "/run",
    "/dry-run",
    "/test",
    "/policy-preview",
    "/points/query",
    "/points/aggregates",
    "/points/coverage",
    "/rows",
];
/// Endings of paths that show, make or end a secret.
const SECRET: [&str; 5] = [
    "/connection",
    "/credential",
    "/rotate",
    "/revoke",
    "/secret",
];

/// Lets a request pass that needs nothing, or whose caller may make it.
pub(super) async fn guard(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    if is_open(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let caller = match admit(&api, &request) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let author = caller.author(address(&request));
    request.extensions_mut().insert(caller);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = author.clone().asks(next.run(request)).await;
    if response.status().is_success() && !author.is_noted() && is_change(&method, &path) {
        let access = Arc::clone(&api.access);
        let note = move || access.note_current(method.as_str(), &path, None, None);
        if let Err(error) = author.asks(api.pool.run(note)).await {
            tracing::error!(%error, "the audit trail cannot be written");
        }
    }
    response
}

/// What answers without anybody's name.
fn is_open(method: &Method, path: &str) -> bool {
    let is_api = path == "/api/v1" || path.starts_with("/api/v1/");
    match path {
        "/api/v1/access/state" => true,
        "/api/v1/access/sign-in" => method == Method::POST,
        _ => !is_api,
    }
}

fn admit(api: &Arc<Api>, request: &Request) -> Result<Caller, Problem> {
    let caller = match (bearer(request.headers()), cookie(request.headers())) {
        (Some(token), _) => api.access.bearer(token),
        (None, Some(cookie)) => match api.access.session(cookie) {
            Some((caller, is_worth_saving)) => {
                if is_worth_saving {
                    save_seen(api, cookie);
                }
                check_csrf(&caller, request)?;
                Some(caller)
            }
            None => None,
        },
        (None, None) => None,
    };
    let caller = caller.ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the bearer token or the session is missing or wrong",
        )
        .at("Authorization")
        .fix("sign in, or send Authorization: Bearer and the text of admin.token or an API token")
    })?;
    let needed = needed(request.method(), request.uri().path());
    if caller.role < needed {
        let (own, needed) = (caller.role.word(), needed.word());
        let detail = format!("{} is {own}, and this is for {needed}", caller.name);
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
            .fix("ask an admin for the role, or for doing it"));
    }
    Ok(caller)
}

fn save_seen(api: &Arc<Api>, cookie: &str) {
    let (access, pool, cookie) = (Arc::clone(&api.access), api.pool.clone(), cookie.to_owned());
    tokio::spawn(async move {
        // At worst the session ends some minutes early after a restart.
        if let Err(error) = pool.run(move || access.save_seen(&cookie)).await {
            tracing::debug!(%error, "the last use of a session is not written");
        }
    });
}

fn check_csrf(caller: &Caller, request: &Request) -> Result<(), Problem> {
    if request.method().is_safe() {
        return Ok(());
    }
    let shown = request.headers().get(CSRF).map(|value| value.as_bytes());
    let fits = caller.session.as_ref().is_some_and(|(_, csrf)| {
        shown.is_some_and(|shown| subtle::ConstantTimeEq::ct_eq(shown, csrf.as_bytes()).into())
    });
    if fits {
        return Ok(());
    }
    let detail = "a change made with a session shows its X-CSRF-Token, and this one does not";
    Err(Problem::new(StatusCode::FORBIDDEN, "csrf", detail)
        .at("X-CSRF-Token")
        .fix("send csrf of /api/v1/access/me; reload the console"))
}

/// The role that a request needs.
fn needed(method: &Method, path: &str) -> Role {
    let ends_with = |endings: &[&str]| endings.iter().any(|ending| path.ends_with(ending));
    match path {
        "/api/v1/access/me" | "/api/v1/access/sign-out" | "/api/v1/access/password" => Role::Viewer,
        path if path.starts_with("/api/v1/access/") => Role::Admin,
        _ if ends_with(&SECRET) => Role::Admin,
        SQL => Role::Viewer,
        _ if method.is_safe() => Role::Viewer,
        // An object may be called like one of the endings: it is deleted by whoever may delete.
        _ if method == Method::POST && ends_with(&DRY) && !path.ends_with("/test") => Role::Viewer,
        _ => Role::Operator,
    }
}

/// Whether it changes something. What a declaration changes, the registry tells itself.
fn is_change(method: &Method, path: &str) -> bool {
    let is_dry = || method == Method::POST && DRY.iter().any(|ending| path.ends_with(ending));
    !method.is_safe() && path != "/api/v1/apply" && path != SQL && !is_dry()
}

/// Who is at the other end, as far as the socket tells.
pub(super) fn address(request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<PeerAddress>();
    peer.map(|PeerAddress(peer)| peer.ip())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_users_are_for_admins_changes_for_operators_the_rest_for_viewers() {
        let of = |method: &str, path: &str| {
            needed(&Method::from_bytes(method.as_bytes()).unwrap(), path)
        };
        for (method, path, role) in [
            ("GET", "/api/v1/points", Role::Viewer),
            ("GET", "/api/v1/access/me", Role::Viewer),
            ("POST", "/api/v1/quarantine/dry-run", Role::Viewer),
            ("POST", "/api/v1/quarantine/7/run", Role::Viewer),
            ("POST", "/api/v1/policy-preview", Role::Viewer),
            ("POST", "/api/v1/points/query", Role::Viewer),
            ("POST", "/api/v1/points/aggregates", Role::Viewer),
            ("POST", "/api/v1/rollups/a/rows", Role::Viewer),
            ("POST", "/api/v1/products/aggregates", Role::Operator),
            ("POST", "/api/v1/scripts/a/test", Role::Operator),
            ("POST", "/api/v1/apply", Role::Operator),
            ("DELETE", "/api/v1/devices/a", Role::Operator),
            ("DELETE", "/api/v1/devices/run", Role::Operator),
            ("POST", "/api/v1/sql", Role::Viewer),
            ("POST", "/api/v1/channels/sql", Role::Operator),
            ("GET", "/api/v1/channels/a/connection", Role::Admin),
            ("POST", "/api/v1/channels/a/rotate", Role::Admin),
            ("POST", "/api/v1/rules/a/secret", Role::Admin),
            ("GET", "/api/v1/access/users", Role::Admin),
            ("GET", "/api/v1/access/audit", Role::Admin),
        ] {
            assert_eq!(of(method, path), role, "{method} {path}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "a=b; backtide_session=xyz".parse().unwrap());
        assert_eq!(cookie(&headers), Some("xyz"));
    }
}
