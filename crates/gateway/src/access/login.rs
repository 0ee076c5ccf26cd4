//! Logins at doors that know a name and a password, and neither headers nor cookies.

use std::net::IpAddr;

use secrecy::{ExposeSecret, SecretString};

use super::{Access, AccessError, Caller, User};
use crate::author::Via;

/// What somebody showed; asked again as long as they are there.
#[derive(Debug, Clone)]
pub enum Login {
    /// The text of an API token or of `admin.token`, as password; the name does not matter then.
    Bearer(SecretString),
    /// A user, and what is kept of the password.
    User { name: String, password: String },
}

impl Access {
    /// Lets somebody in. Blocks: a password takes tens of milliseconds to check, whoever asks.
    ///
    /// # Errors
    /// [`AccessError::Wrong`], or [`AccessError::Throttled`].
    pub fn log_in(
        &self,
        name: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<Login, AccessError> {
        if self.bearer(password).is_some() {
            return Ok(Login::Bearer(password.into()));
        }
        let User { name, password, .. } = self.verified(name, password, address)?;
        Ok(Login::User { name, password })
    }

    /// Who that is, as long as the token holds, and the user has this password.
    pub fn caller(&self, login: &Login) -> Option<Caller> {
        match login {
            Login::Bearer(token) => self.bearer(token.expose_secret()),
            Login::User { name, password } => {
                let roster = self.roster.read();
                let user = roster.users.get(name)?;
                (user.password == *password).then(|| Caller {
                    name: user.name.clone(),
                    role: user.role,
                    via: Via::Session,
                    session: None,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        access::{Access, Role},
        author::Author,
        clock::Clock,
        secrets::AdminToken,
    };

    #[test]
    fn a_token_or_a_user_is_let_in_until_the_token_ends_or_the_password_changes() {
        let dir = tempfile::tempdir().unwrap();
        let admin = AdminToken::open(dir.path()).unwrap();
        let access = Access::open(&dir.path().join("access.db"), admin, Clock::system()).unwrap();
        let gateway = Author::current();
        let (_, token) = gateway
            .asks_blocking(|| access.make_token("grafana", Role::Viewer, None))
            .unwrap();
        access
            .put_user("eve", Some(Role::Viewer), Some("correct horse"))
            .unwrap();

        let by_token = access.log_in("whoever", &token, None).unwrap();
        assert_eq!(access.caller(&by_token).unwrap().name, "grafana");
        let by_name = access.log_in("eve", "correct horse", None).unwrap();
        assert_eq!(access.caller(&by_name).unwrap().role, Role::Viewer);
        assert!(access.log_in("eve", "wrong horse", None).is_err());
        assert!(access.log_in("nobody", "correct horse", None).is_err());

        access.remove_token("grafana").unwrap();
        assert!(access.caller(&by_token).is_none());
        access.put_user("eve", None, Some("another horse")).unwrap();
        assert!(access.caller(&by_name).is_none());
    }
}
