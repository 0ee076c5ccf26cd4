//! What is known in memory: users, sessions, tokens.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Role, SESSION_AGE_MS, SESSION_IDLE_MS, SESSIONS_PER_USER_MAX};

/// Somebody who signs in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    pub role: Role,
    /// Argon2id, in PHC form.
    pub(super) password: String,
    /// Milliseconds since 1970 UTC, as are all times here.
    pub created: i64,
}

/// A browser in which somebody has signed in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// Names it; opens nothing.
    pub id: String,
    pub user: String,
    /// What a change has to show besides the cookie, so that no other site can make one.
    pub csrf: String,
    pub created: i64,
    /// When it was used last.
    pub seen: i64,
    #[serde(skip)]
    pub(super) seen_saved: i64,
    pub address: Option<String>,
    /// What the browser calls itself.
    pub agent: String,
}

impl Session {
    /// When it ends if it is not used again.
    pub fn ends(&self) -> i64 {
        (self.created + SESSION_AGE_MS).min(self.seen + SESSION_IDLE_MS)
    }

    pub(super) fn is_over(&self, now_ms: i64) -> bool {
        now_ms >= self.ends()
    }
}

/// A token for programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiToken {
    pub name: String,
    pub role: Role,
    pub created: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    pub made_by: String,
}

/// Everything but the audit trail. Sessions and tokens are found by the digest of their secret.
#[derive(Default)]
pub(super) struct Roster {
    pub(super) users: BTreeMap<String, User>,
    pub(super) sessions: HashMap<String, Session>,
    pub(super) tokens: HashMap<String, ApiToken>,
}

impl Roster {
    /// Ends all sessions of a user; their keys.
    pub(super) fn end_sessions_of(&mut self, user: &str) -> Vec<String> {
        let of_user = self.sessions.extract_if(|_, session| session.user == user);
        of_user.map(|(key, _)| key).collect()
    }

    /// Ends sessions that are over, and those of this user that were not used for longest, until
    /// one more has room; their keys.
    pub(super) fn make_room(&mut self, user: &str, now_ms: i64) -> Vec<String> {
        let over = self
            .sessions
            .extract_if(|_, session| session.is_over(now_ms));
        let mut ended: Vec<String> = over.map(|(key, _)| key).collect();
        let mut own: Vec<(i64, String)> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.user == user)
            .map(|(key, session)| (session.seen, key.clone()))
            .collect();
        own.sort();
        let too_many = (own.len() + 1).saturating_sub(SESSIONS_PER_USER_MAX);
        for (_, key) in own.into_iter().take(too_many) {
            self.sessions.remove(&key);
            ended.push(key);
        }
        ended
    }
}
