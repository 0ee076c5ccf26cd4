//! `/api/v1/access`: signing in and out, users, API tokens, sessions, the audit trail.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequest as _, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals, guard,
    problem::{Body, Params, limit},
    websocket::PeerAddress,
};
use crate::{
    access::{AccessError, Caller, Deed, Role, TrailFilter},
    query,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(state))
        .routes(routes!(sign_in))
        .routes(routes!(sign_out))
        .routes(routes!(me))
        .routes(routes!(password))
        .routes(routes!(users))
        .routes(routes!(put_user, delete_user))
        .routes(routes!(tokens, make_token))
        .routes(routes!(delete_token))
        .routes(routes!(sessions))
        .routes(routes!(end_session))
        .routes(routes!(audit))
}

/// What somebody who is not signed in may know.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AccessState)]
struct Standing {
    /// Somebody can sign in with a name. Else the admin token makes the first user.
    has_users: bool,
    version: &'static str,
}

/// Whether anybody can sign in yet
#[utoipa::path(get, path = "/api/v1/access/state", tag = "access", operation_id = "access_state", security(()),
    responses((status = 200, description = "Whether there are users", body = Standing), Refusals))]
async fn state(State(api): State<Arc<Api>>) -> Json<Standing> {
    Json(Standing {
        has_users: api.access.has_users(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignIn {
    name: String,
    password: String,
}

/// Who somebody is here.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    name: String,
    role: Role,
    /// session, token or admin-token.
    via: &'static str,
    /// Of a session: what every change has to show as `X-CSRF-Token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf: Option<String>,
}

/// Sign in with name and password: opens a session, told by a cookie
#[utoipa::path(post, path = "/api/v1/access/sign-in", tag = "access", operation_id = "sign_in", security(()),
    request_body = SignIn,
    responses((status = 200, description = "Signed in; the cookie is HttpOnly and SameSite=Strict", body = Me),
        (status = 429, description = "Too many failures; Retry-After says how long to wait", body = ref("#/components/schemas/Problem"), content_type = "application/problem+json"), Refusals))]
async fn sign_in(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let address = guard::address(&request);
    let is_secure = is_secure(request.headers());
    let agent = request.headers().get(header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("");
    let agent = agent.to_owned();
    let Body(SignIn { name, password }) = Body::from_request(request, &()).await?;
    let access = Arc::clone(&api.access);
    let opened = api
        .pool
        .run(move || access.sign_in(&name, &password, address, &agent))
        .await??;
    let me = Me {
        name: opened.session.user,
        role: opened.role,
        via: "session",
        csrf: Some(opened.session.csrf),
    };
    let cookie = set_cookie(&opened.cookie, is_secure, None);
    Ok(([(header::SET_COOKIE, cookie)], uncached(Json(me))).into_response())
}

/// End one's own session
#[utoipa::path(post, path = "/api/v1/access/sign-out", tag = "access", operation_id = "sign_out",
    responses((status = 204, description = "The session is over"), Refusals))]
async fn sign_out(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some((id, _)) = caller.session {
        let access = Arc::clone(&api.access);
        api.pool.run(move || access.end_session(&id)).await??;
    }
    let cookie = set_cookie("", is_secure(&headers), Some(0));
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Show who one is
#[utoipa::path(get, path = "/api/v1/access/me", tag = "access", operation_id = "me",
    responses((status = 200, description = "Name and role", body = Me), Refusals))]
async fn me(Extension(caller): Extension<Caller>) -> Response {
    uncached(Json(Me {
        name: caller.name,
        role: caller.role,
        via: caller.via.word(),
        csrf: caller.session.map(|(_, csrf)| csrf),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    current: String,
    new: String,
}

/// Change one's own password; one's sessions end
#[utoipa::path(put, path = "/api/v1/access/password", tag = "access", operation_id = "change_password",
    request_body = PasswordChange,
    responses((status = 204, description = "Changed; sign in again"), Refusals))]
async fn password(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(PeerAddress(peer)): Extension<PeerAddress>,
    Body(change): Body<PasswordChange>,
) -> Result<StatusCode, Problem> {
    if caller.session.is_none() {
        let detail = format!("{} is a token and has no password", caller.name);
        return Err(Problem::new(StatusCode::CONFLICT, "conflict", detail)
            .fix("sign in as a user, or set a user's password with PUT /api/v1/access/users"));
    }
    let access = Arc::clone(&api.access);
    let change =
        move || access.change_password(&caller.name, &change.current, &change.new, Some(peer.ip()));
    api.pool.run(change).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Somebody who signs in.
#[derive(Debug, Serialize, ToSchema)]
struct User {
    name: String,
    role: Role,
    /// Milliseconds since 1970.
    created: i64,
    /// Open sessions.
    sessions: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct Users {
    items: Vec<User>,
}

/// List users
#[utoipa::path(get, path = "/api/v1/access/users", tag = "access", operation_id = "list_users",
    responses((status = 200, description = "Users by name", body = Users), Refusals))]
async fn users(State(api): State<Arc<Api>>) -> Json<Users> {
    let sessions = api.access.sessions();
    let open = |name: &str| {
        let own = sessions.iter().filter(|session| session.user == name);
        own.count()
    };
    let users = api.access.users().into_iter();
    let items = users.map(|user| User {
        sessions: open(&user.name),
        name: user.name,
        role: user.role,
        created: user.created,
    });
    Json(Users {
        items: items.collect(),
    })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserOrder {
    /// Needed for a new user.
    role: Option<Role>,
    /// Needed for a new user: at least 10 characters. A new one ends the user's sessions.
    password: Option<String>,
}

/// Make a user, or change their role or password
#[utoipa::path(put, path = "/api/v1/access/users/{name}", tag = "access", operation_id = "put_user",
    params(("name" = String, Path, description = "The user's name")),
    request_body = UserOrder,
    responses((status = 200, description = "The user", body = User), Refusals))]
async fn put_user(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Body(order): Body<UserOrder>,
) -> Result<Json<User>, Problem> {
    let access = Arc::clone(&api.access);
    let put = move || access.put_user(&name, order.role, order.password.as_deref());
    let user = api.pool.run(put).await??;
    Ok(Json(User {
        sessions: 0,
        name: user.name,
        role: user.role,
        created: user.created,
    }))
}

/// Delete a user; their sessions end
#[utoipa::path(delete, path = "/api/v1/access/users/{name}", tag = "access", operation_id = "delete_user",
    params(("name" = String, Path, description = "The user's name")),
    responses((status = 204, description = "Deleted"), Refusals))]
async fn delete_user(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let access = Arc::clone(&api.access);
    api.pool.run(move || access.remove_user(&name)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// An API token, without its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Token {
    name: String,
    role: Role,
    created: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    made_by: String,
    /// The token itself: only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Token {
    fn of(token: crate::access::ApiToken, text: Option<String>) -> Self {
        Self {
            name: token.name,
            role: token.role,
            created: token.created,
            expires: token.expires,
            made_by: token.made_by,
            token: text,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Tokens {
    items: Vec<Token>,
}

/// List API tokens
#[utoipa::path(get, path = "/api/v1/access/tokens", tag = "access", operation_id = "list_tokens",
    responses((status = 200, description = "Tokens by name, without their texts", body = Tokens), Refusals))]
async fn tokens(State(api): State<Arc<Api>>) -> Json<Tokens> {
    let tokens = api.access.tokens().into_iter();
    Json(Tokens {
        items: tokens.map(|token| Token::of(token, None)).collect(),
    })
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenOrder {
    name: String,
    role: Role,
    /// For so many days; without it until it is deleted.
    #[schema(minimum = 1, maximum = 3650)]
    days: Option<u16>,
}

/// Make an API token; its text is told once
#[utoipa::path(post, path = "/api/v1/access/tokens", tag = "access", operation_id = "make_token",
    request_body = TokenOrder,
    responses((status = 201, description = "The token with its text", body = Token), Refusals))]
async fn make_token(
    State(api): State<Arc<Api>>,
    Body(order): Body<TokenOrder>,
) -> Result<Response, Problem> {
    if order.days.is_some_and(|days| days == 0 || days > 3_650) {
        return Err(Problem::bad_request(
            "days",
            "give 1 to 3650, or leave it out",
        ));
    }
    let now_ms = api.clock.now_ms();
    let expires = order.days.map(|days| now_ms + i64::from(days) * DAY_MS);
    let access = Arc::clone(&api.access);
    let make = move || access.make_token(&order.name, order.role, expires);
    let (token, text) = api.pool.run(make).await??;
    let told = uncached(Json(Token::of(token, Some(text))));
    Ok((StatusCode::CREATED, told).into_response())
}

/// Delete an API token; it opens nothing any more
#[utoipa::path(delete, path = "/api/v1/access/tokens/{name}", tag = "access", operation_id = "delete_token",
    params(("name" = String, Path, description = "The token's name")),
    responses((status = 204, description = "Deleted"), Refusals))]
async fn delete_token(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let access = Arc::clone(&api.access);
    api.pool.run(move || access.remove_token(&name)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// A browser in which somebody is signed in.
#[derive(Debug, Serialize, ToSchema)]
struct Session {
    id: String,
    user: String,
    /// Milliseconds since 1970, as are all times here.
    created: i64,
    seen: i64,
    /// When it ends if it is not used again.
    ends: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// What the browser calls itself.
    agent: String,
    /// The one that asks.
    own: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct Sessions {
    items: Vec<Session>,
}

/// List open sessions
#[utoipa::path(get, path = "/api/v1/access/sessions", tag = "access", operation_id = "list_sessions",
    responses((status = 200, description = "The last used first", body = Sessions), Refusals))]
async fn sessions(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Json<Sessions> {
    let own = caller.session.map(|(id, _)| id);
    let sessions = api.access.sessions().into_iter();
    let items = sessions.map(|session| Session {
        own: own.as_ref() == Some(&session.id),
        ends: session.ends(),
        id: session.id,
        user: session.user,
        created: session.created,
        seen: session.seen,
        address: session.address,
        agent: session.agent,
    });
    Json(Sessions {
        items: items.collect(),
    })
}

/// End a session
#[utoipa::path(delete, path = "/api/v1/access/sessions/{id}", tag = "access", operation_id = "end_session",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 204, description = "It is over"), Refusals))]
async fn end_session(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let access = Arc::clone(&api.access);
    api.pool.run(move || access.end_session(&id)).await??;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditParams {
    /// Only what this user or token did.
    author: Option<String>,
    /// Only this action, such as `device created`.
    action: Option<String>,
    /// Only deeds whose author, action or object contains this, in any case.
    text: Option<String>,
    /// ISO time or milliseconds since 1970, inclusive.
    from: Option<String>,
    /// Exclusive.
    to: Option<String>,
    /// Deeds in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<i64>,
}

/// A page of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditPage)]
struct Page {
    items: Vec<Deed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List who changed what, the last first, with what it was before and after
#[utoipa::path(get, path = "/api/v1/access/audit", tag = "access", operation_id = "audit",
    params(AuditParams),
    responses((status = 200, description = "A page of deeds", body = Page), Refusals))]
async fn audit(
    State(api): State<Arc<Api>>,
    Params(params): Params<AuditParams>,
) -> Result<Json<Page>, Problem> {
    let moment = |place: &str, text: &Option<String>| {
        let read = text.as_deref().map(query::moment).transpose();
        read.map_err(|error| Problem::bad_request(place, error.to_string()))
    };
    let filter = TrailFilter {
        from_ms: moment("from", &params.from)?,
        to_ms: moment("to", &params.to)?,
        author: params.author,
        action: params.action,
        text: params.text,
        before: params.cursor,
        limit: limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX)?,
    };
    let access = Arc::clone(&api.access);
    let trail = api.pool.run(move || access.trail(&filter)).await??;
    Ok(Json(Page {
        items: trail.deeds,
        next: trail.next.map(|next| next.to_string()),
    }))
}

/// Nobody keeps a copy.
fn uncached(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

/// The browser came by TLS: to a proxy before us, this door has none.
fn is_secure(headers: &HeaderMap) -> bool {
    let proto = headers.get("x-forwarded-proto");
    proto.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// A cookie that scripts cannot read and other sites cannot send.
fn set_cookie(value: &str, is_secure: bool, age_s: Option<u32>) -> HeaderValue {
    let secure = if is_secure { "; Secure" } else { "" };
    let age = age_s.map(|s| format!("; Max-Age={s}")).unwrap_or_default();
    let text = format!(
        "{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{age}",
        guard::COOKIE
    );
    HeaderValue::from_str(&text).expect("hex digits and words are visible ASCII")
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        let detail = error.to_string();
        match error {
            AccessError::Absent(_) => Self::not_found(detail),
            AccessError::Taken(_) => Self::new(StatusCode::CONFLICT, "conflict", detail),
            AccessError::Invalid(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
            }
            AccessError::Wrong => Self::new(StatusCode::UNAUTHORIZED, "wrong-credentials", detail)
                .fix("ask an admin for a new password; the admin token can set one too"),
            AccessError::Throttled { wait_s } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "throttled", detail).retry_after(wait_s)
            }
            AccessError::File { .. } | AccessError::Book(_) | AccessError::Damaged { .. } => {
                tracing::error!(%error, "access.db cannot be used");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "access",
                    "users and sessions cannot be read or written",
                )
                .fix("look at the gateway's log and at the disk it writes to")
            }
        }
    }
}
