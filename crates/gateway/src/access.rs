//! Who may use the gateway, and the trail of what they did: users, sessions, API tokens, audit.
//!
//! A request shows a bearer token or a session's cookie; [`Access`] turns it into a [`Caller`] with
//! a role, from memory. What changes is written to `access.db` before it is answered. Secrets are
//! kept as digests only: a password's by Argon2id, that of a cookie or a token (256 random bits) by
//! SHA-256.

mod audit;
mod book;
mod login;
mod password;
mod roster;
mod throttle;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use audit::{Deed, Trail, TrailFilter};
pub use login::Login;
pub use roster::{ApiToken, Session, User};

use crate::{
    author::{Author, Via},
    clock::Clock,
    secrets::{self, AdminToken},
};
use book::Book;
use roster::Roster;
use throttle::Attempts;

/// Users, and tokens, each.
pub const NAMES_MAX: usize = 1_000;
/// Sessions of one user; beyond, the one not used for longest ends.
pub const SESSIONS_PER_USER_MAX: usize = 20;
/// A session that nobody uses ends after so long …
const SESSION_IDLE_MS: i64 = 12 * 3_600 * 1_000;
/// … and any after so long.
const SESSION_AGE_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// How late the last use of a session reaches the disk.
const SEEN_SAVED_EVERY_MS: i64 = 5 * 60 * 1_000;
/// How an API token begins, so that people and scanners know one when they see it.
const TOKEN_PREFIX: &str = "bt_";

/// What somebody may do; each role may do what those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything but secrets, and tries things out where nothing changes.
    Viewer,
    /// Declares, pauses, records, publishes, mends the quarantine.
    Operator,
    /// Sees and rotates secrets; users, tokens, sessions, the audit trail.
    Admin,
}

impl Role {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Who makes a request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub name: String,
    pub role: Role,
    pub via: Via,
    /// Of a session: its id, and what every change has to show.
    pub session: Option<(String, String)>,
}

impl Caller {
    pub fn author(&self, address: Option<IpAddr>) -> Author {
        Author::new(&self.name, self.via, address)
    }
}

/// Why access cannot be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("access.db cannot be used: {0}")]
    Book(#[from] rusqlite::Error),
    #[error("access.db: {object} is damaged: {reason}")]
    Damaged { object: String, reason: String },
    #[error("there is no {0}")]
    Absent(String),
    #[error("there is a token {0} already; delete it first, or choose another name")]
    Taken(String),
    #[error("{0}")]
    Invalid(String),
    /// One answer for an unknown user and a wrong password: it tells nobody who has an account.
    #[error("the user name or the password is wrong")]
    Wrong,
    #[error("too many attempts to sign in; wait {wait_s} s")]
    Throttled { wait_s: u64 },
}

/// A session that was just opened. The cookie's text is nowhere else.
pub struct Opened {
    pub cookie: String,
    pub session: Session,
    pub role: Role,
}

/// Users, sessions, tokens and the audit trail.
pub struct Access {
    book: Mutex<Book>,
    roster: RwLock<Roster>,
    attempts: Mutex<Attempts>,
    admin: AdminToken,
    clock: Clock,
}

impl Access {
    /// Opens `access.db`, or makes it.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn open(path: &Path, admin: AdminToken, clock: Clock) -> Result<Self, AccessError> {
        let book = Book::open(path).map_err(|source| AccessError::File {
            path: path.to_owned(),
            source,
        })?;
        let roster = book.roster()?;
        Ok(Self {
            book: Mutex::new(book),
            roster: RwLock::new(roster),
            attempts: Mutex::default(),
            admin,
            clock,
        })
    }

    /// Whose bearer token that is.
    pub fn bearer(&self, token: &str) -> Option<Caller> {
        if self.admin.verify(token) {
            return Some(Caller {
                name: "admin.token".to_owned(),
                role: Role::Admin,
                via: Via::AdminToken,
                session: None,
            });
        }
        let roster = self.roster.read();
        let token = roster.tokens.get(&digest(token))?;
        let is_over = token
            .expires
            .is_some_and(|expires| expires <= self.clock.now_ms());
        (!is_over).then(|| Caller {
            name: token.name.clone(),
            role: token.role,
            via: Via::Token,
            session: None,
        })
    }

    /// Whose session that cookie is of. Notes that it is used; `true` when that is worth
    /// [`Access::save_seen`].
    pub fn session(&self, cookie: &str) -> Option<(Caller, bool)> {
        let now_ms = self.clock.now_ms();
        let mut roster = self.roster.write();
        let Roster {
            users, sessions, ..
        } = &mut *roster;
        let session = sessions.get_mut(&digest(cookie))?;
        if session.is_over(now_ms) {
            return None;
        }
        let user = users.get(&session.user)?;
        session.seen = now_ms;
        let is_worth = now_ms - session.seen_saved >= SEEN_SAVED_EVERY_MS;
        if is_worth {
            session.seen_saved = now_ms;
        }
        let caller = Caller {
            name: user.name.clone(),
            role: user.role,
            via: Via::Session,
            session: Some((session.id.clone(), session.csrf.clone())),
        };
        Some((caller, is_worth))
    }

    /// Writes when a session was used last. Blocks.
    pub fn save_seen(&self, cookie: &str) {
        let key = digest(cookie);
        let session = self.roster.read().sessions.get(&key).cloned();
        if let Some(session) = session
            && let Err(error) = self.book.lock().put_session(&key, &session)
        {
            tracing::warn!(%error, "the last use of a session cannot be written");
        }
    }

    /// Whether anybody can sign in with a name.
    pub fn has_users(&self) -> bool {
        !self.roster.read().users.is_empty()
    }

    /// Opens a session. Blocks: a password takes tens of milliseconds to check, whoever asks.
    ///
    /// # Errors
    /// [`AccessError::Wrong`], [`AccessError::Throttled`], or the file.
    pub fn sign_in(
        &self,
        name: &str,
        password: &str,
        address: Option<IpAddr>,
        agent: &str,
    ) -> Result<Opened, AccessError> {
        let user = self.verified(name, password, address)?;
        let now_ms = self.clock.now_ms();
        let cookie = hex::encode(secrets::random::<32>());
        let key = digest(&cookie);
        let session = Session {
            id: hex::encode(secrets::random::<8>()),
            user: user.name.clone(),
            csrf: hex::encode(secrets::random::<16>()),
            created: now_ms,
            seen: now_ms,
            seen_saved: now_ms,
            address: address.map(|address| address.to_string()),
            agent: agent.chars().take(200).collect(),
        };
        let ended = {
            let mut roster = self.roster.write();
            let ended = roster.make_room(&user.name, now_ms);
            roster.sessions.insert(key.clone(), session.clone());
            ended
        };
        let mut book = self.book.lock();
        book.remove_sessions(&ended)?;
        book.put_session(&key, &session)?;
        drop(book);
        let author = Author::new(&user.name, Via::Session, address);
        self.note(&author, "sign-in", &user.name, None, None);
        Ok(Opened {
            cookie,
            session,
            role: user.role,
        })
    }

    /// The user of this name and password, however they come. Blocks.
    fn verified(
        &self,
        name: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<User, AccessError> {
        let now_ms = self.clock.now_ms();
        let attempt = Attempts::of(name, address);
        self.attempts.lock().admit(&attempt, now_ms)?;
        let user = self.roster.read().users.get(name).cloned();
        let hash = user.as_ref().map(|user| user.password.as_str());
        if !password::verify(password, hash) {
            self.attempts.lock().failed(&attempt, now_ms);
            let author = Author::new(name, Via::Session, address);
            self.note(&author, "sign-in refused", name, None, None);
            return Err(AccessError::Wrong);
        }
        self.attempts.lock().succeeded(&attempt);
        user.ok_or(AccessError::Wrong)
    }

    /// Users by name.
    pub fn users(&self) -> Vec<User> {
        self.roster.read().users.values().cloned().collect()
    }

    /// Makes a user, or changes one: what is not given stays. A new password ends the user's
    /// sessions. Blocks.
    ///
    /// # Errors
    /// The name or the password is not fit, a new user lacks one of them, or the file.
    pub fn put_user(
        &self,
        name: &str,
        role: Option<Role>,
        password: Option<&str>,
    ) -> Result<User, AccessError> {
        check_name(name)?;
        let hash = password.map(password::hash).transpose()?;
        let now_ms = self.clock.now_ms();
        let before = self.roster.read().users.get(name).cloned();
        let missing =
            |what: &str| AccessError::Invalid(format!("{name} is a new user and needs a {what}"));
        let user = match &before {
            Some(user) => User {
                role: role.unwrap_or(user.role),
                password: hash.clone().unwrap_or_else(|| user.password.clone()),
                ..user.clone()
            },
            None => {
                self.check_room(self.roster.read().users.len())?;
                User {
                    name: name.to_owned(),
                    role: role.ok_or_else(|| missing("role"))?,
                    password: hash.clone().ok_or_else(|| missing("password"))?,
                    created: now_ms,
                }
            }
        };
        self.book.lock().put_user(&user)?;
        let ended = {
            let mut roster = self.roster.write();
            roster.users.insert(user.name.clone(), user.clone());
            match (&before, &hash) {
                (Some(_), Some(_)) => roster.end_sessions_of(name),
                _ => Vec::new(),
            }
        };
        self.book.lock().remove_sessions(&ended)?;
        let told = |user: &User| serde_json::json!({ "name": user.name, "role": user.role });
        let was = before.as_ref().map(|before| told(before).to_string());
        let mut now = told(&user);
        now["newPassword"] = hash.is_some().into();
        let action = if before.is_some() {
            "user changed"
        } else {
            "user created"
        };
        self.note_current(action, name, was, Some(now.to_string()));
        Ok(user)
    }

    /// Changes a user's own password, if they know the one before. Blocks.
    ///
    /// # Errors
    /// [`AccessError::Wrong`], the new one is not fit, or the file.
    pub fn change_password(
        &self,
        name: &str,
        current: &str,
        new: &str,
        address: Option<IpAddr>,
    ) -> Result<(), AccessError> {
        let now_ms = self.clock.now_ms();
        let attempt = Attempts::of(name, address);
        self.attempts.lock().admit(&attempt, now_ms)?;
        let user = self.roster.read().users.get(name).cloned();
        if !password::verify(current, user.as_ref().map(|user| user.password.as_str())) {
            self.attempts.lock().failed(&attempt, now_ms);
            return Err(AccessError::Wrong);
        }
        self.put_user(name, None, Some(new)).map(drop)
    }

    /// Deletes a user, whose sessions end. Blocks.
    ///
    /// # Errors
    /// There is none, or the file.
    pub fn remove_user(&self, name: &str) -> Result<(), AccessError> {
        let user = self.roster.read().users.get(name).cloned();
        let user = user.ok_or_else(|| AccessError::Absent(format!("user {name}")))?;
        let ended = {
            let mut roster = self.roster.write();
            roster.users.remove(name);
            roster.end_sessions_of(name)
        };
        let mut book = self.book.lock();
        book.remove_user(name)?;
        book.remove_sessions(&ended)?;
        drop(book);
        let was = serde_json::json!({ "name": user.name, "role": user.role }).to_string();
        self.note_current("user deleted", name, Some(was), None);
        Ok(())
    }

    /// API tokens by name.
    pub fn tokens(&self) -> Vec<ApiToken> {
        let mut tokens: Vec<_> = self.roster.read().tokens.values().cloned().collect();
        tokens.sort_by(|a, b| a.name.cmp(&b.name));
        tokens
    }

    /// Makes an API token; its text is told once. Blocks.
    ///
    /// # Errors
    /// The name is not fit or taken, or the file.
    pub fn make_token(
        &self,
        name: &str,
        role: Role,
        expires: Option<i64>,
    ) -> Result<(ApiToken, String), AccessError> {
        check_name(name)?;
        let tokens = self.tokens();
        if tokens.iter().any(|token| token.name == name) {
            return Err(AccessError::Taken(name.to_owned()));
        }
        self.check_room(tokens.len())?;
        let text = format!("{TOKEN_PREFIX}{}", hex::encode(secrets::random::<32>()));
        let token = ApiToken {
            name: name.to_owned(),
            role,
            created: self.clock.now_ms(),
            expires,
            made_by: Author::current().name.to_string(),
        };
        let key = digest(&text);
        self.book.lock().put_token(&key, &token)?;
        self.roster.write().tokens.insert(key, token.clone());
        let now = serde_json::to_string(&token).expect("a token's record is JSON");
        self.note_current("token created", name, None, Some(now));
        Ok((token, text))
    }

    /// Deletes an API token; it opens nothing from here on. Blocks.
    ///
    /// # Errors
    /// There is none, or the file.
    pub fn remove_token(&self, name: &str) -> Result<(), AccessError> {
        let found = {
            let roster = self.roster.read();
            let mut tokens = roster.tokens.iter();
            tokens
                .find(|(_, token)| token.name == name)
                .map(|(key, token)| (key.clone(), token.clone()))
        };
        let (key, token) = found.ok_or_else(|| AccessError::Absent(format!("token {name}")))?;
        self.roster.write().tokens.remove(&key);
        self.book.lock().remove_token(&key)?;
        let was = serde_json::to_string(&token).expect("a token's record is JSON");
        self.note_current("token deleted", name, Some(was), None);
        Ok(())
    }

    /// Sessions that are open, the last used first.
    pub fn sessions(&self) -> Vec<Session> {
        let now_ms = self.clock.now_ms();
        let roster = self.roster.read();
        let mut sessions: Vec<_> = roster
            .sessions
            .values()
            .filter(|session| !session.is_over(now_ms))
            .cloned()
            .collect();
        sessions.sort_by_key(|session| std::cmp::Reverse(session.seen));
        sessions
    }

    /// Ends a session. Blocks.
    ///
    /// # Errors
    /// There is none, or the file.
    pub fn end_session(&self, id: &str) -> Result<(), AccessError> {
        let key = {
            let roster = self.roster.read();
            let mut sessions = roster.sessions.iter();
            sessions
                .find(|(_, session)| session.id == id)
                .map(|(key, _)| key.clone())
        };
        let key = key.ok_or_else(|| AccessError::Absent(format!("session {id}")))?;
        let session = self.roster.write().sessions.remove(&key);
        self.book.lock().remove_sessions(&[key])?;
        let user = session.map(|session| session.user).unwrap_or_default();
        self.note_current("session ended", &user, None, None);
        Ok(())
    }

    /// Writes down what somebody did. Texts are JSON or words; secrets in them are struck out. A
    /// trail that cannot be written is an error in the log: what was done stands. Blocks.
    pub fn note(
        &self,
        author: &Author,
        action: &str,
        object: &str,
        before: Option<String>,
        after: Option<String>,
    ) {
        author.set_noted();
        let deed = Deed {
            id: 0,
            time: self.clock.now_ms(),
            author: author.name.to_string(),
            via: author.via.word().to_owned(),
            address: author.address.map(|address| address.to_string()),
            action: action.to_owned(),
            object: object.to_owned(),
            before: before.map(audit::redacted),
            after: after.map(audit::redacted),
        };
        tracing::info!(target: "audit", author = %deed.author, via = %deed.via, action, object);
        if let Err(error) = self.book.lock().note(&[deed]) {
            tracing::error!(%error, "the audit trail cannot be written");
        }
    }

    /// The same for whoever asks for what runs here.
    pub fn note_current(
        &self,
        action: &str,
        object: &str,
        before: Option<String>,
        after: Option<String>,
    ) {
        self.note(&Author::current(), action, object, before, after);
    }

    /// Deeds, the last first. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn trail(&self, filter: &TrailFilter) -> Result<Trail, AccessError> {
        Ok(self.book.lock().trail(filter)?)
    }

    fn check_room(&self, len: usize) -> Result<(), AccessError> {
        if len < NAMES_MAX {
            return Ok(());
        }
        let text = format!("there are {len} already, the most that are kept; delete some first");
        Err(AccessError::Invalid(text))
    }
}

fn check_name(name: &str) -> Result<(), AccessError> {
    backtide_model::ObjectName::new(name)
        .map(drop)
        .map_err(|error| AccessError::Invalid(error.to_string()))
}

/// What is kept of a cookie or a token.
fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Shares what the audit trail needs with rooms that must not know this one.
pub fn witness(access: &Arc<Access>) -> crate::registry::Witness {
    let access = Arc::clone(access);
    Box::new(move |altered, more| access.note_altered(altered, more))
}

#[cfg(test)]
mod tests;
