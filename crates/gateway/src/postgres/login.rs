//! Who connects: a token as password, or a user's own. In plain text, so not over a network where TLS
//! is at hand.

use std::{
    fmt::Debug,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use datafusion_postgres::pgwire::{
    api::{
        ClientInfo, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator,
        RandomPidSecretKeyGenerator,
        auth::{
            DefaultServerParameterProvider, StartupHandler, finish_authentication,
            protocol_negotiation, save_startup_parameters_to_metadata,
        },
    },
    error::{PgWireError, PgWireResult},
    messages::{
        PgWireBackendMessage, PgWireFrontendMessage,
        startup::{Authentication, SecretKey},
    },
};
use futures::{Sink, SinkExt as _};

use super::{
    cancel::{Cancels, Current, Listed},
    fault,
    settings::at_startup,
};
use crate::{
    access::{self, Access, AccessError, Caller},
    pool::Pool,
};

/// Gives each connection a number.
static PIDS: OnceLock<RandomPidSecretKeyGenerator> = OnceLock::new();

/// The login of one connection.
pub(super) struct Login {
    access: Arc<Access>,
    pool: Pool,
    peer: IpAddr,
    /// The door has a certificate.
    has_tls: bool,
    cancels: Arc<Cancels>,
    /// What runs on the connection.
    pub(super) current: Arc<Current>,
    shown: OnceLock<(access::Login, Listed)>,
}

impl Login {
    pub(super) fn new(
        access: Arc<Access>,
        pool: Pool,
        peer: IpAddr,
        has_tls: bool,
        cancels: Arc<Cancels>,
    ) -> Self {
        Self {
            access,
            pool,
            peer,
            has_tls,
            cancels,
            current: Arc::default(),
            shown: OnceLock::new(),
        }
    }

    pub(super) fn cancels(&self) -> Arc<Cancels> {
        Arc::clone(&self.cancels)
    }

    /// Who is there, if the login still holds.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn caller(&self) -> PgWireResult<Caller> {
        let caller = self
            .shown
            .get()
            .and_then(|(login, _)| self.access.caller(login));
        caller.ok_or_else(|| fault::of_login(&AccessError::Wrong))
    }

    fn refuse_plain(&self, is_secure: bool) -> PgWireResult<()> {
        match self.has_tls && !is_secure && !self.peer.is_loopback() {
            true => Err(fault::of(
                "FATAL",
                "28000",
                "a password would cross the network in plain text",
                "connect with TLS: sslmode=require",
            )),
            false => Ok(()),
        }
    }

    async fn check(&self, name: String, password: String) -> PgWireResult<access::Login> {
        let (access, peer) = (Arc::clone(&self.access), self.peer);
        let checked = self
            .pool
            .run(move || access.log_in(&name, &password, Some(peer)))
            .await;
        let checked = checked.map_err(|error| {
            fault::of(
                "FATAL",
                "53300",
                &error.to_string(),
                "try again in a moment",
            )
        })?;
        checked.map_err(|error| fault::of_login(&error))
    }
}

#[async_trait]
impl StartupHandler for Login {
    async fn on_startup<C>(
        &self,
        client: &mut C,
        message: PgWireFrontendMessage,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(ref startup) => {
                protocol_negotiation(client, startup).await?;
                save_startup_parameters_to_metadata(client, startup);
                at_startup(client)?;
                self.refuse_plain(client.is_secure())?;
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                let ask = PgWireBackendMessage::Authentication(Authentication::CleartextPassword);
                client.send(ask).await?;
            }
            PgWireFrontendMessage::PasswordMessageFamily(shown) => {
                let password = shown.into_password()?.password;
                let name = client.metadata().get(METADATA_USER).cloned();
                let login = self.check(name.unwrap_or_default(), password).await?;
                let (pid, secret) = pid_of(client);
                client.set_pid_and_secret_key(pid, secret.clone());
                let listed = self.cancels.list((pid, secret), Arc::clone(&self.current));
                // A second login on one connection is not offered.
                drop(self.shown.set((login, listed)));
                finish_authentication(client, &parameters()).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn pid_of(client: &dyn ClientInfo) -> (i32, SecretKey) {
    PIDS.get_or_init(RandomPidSecretKeyGenerator::default)
        .generate(client)
}

/// What clients are told of the server.
fn parameters() -> DefaultServerParameterProvider {
    let mut parameters = DefaultServerParameterProvider::default();
    parameters.server_version =
        concat!("16.6 (Backtide ", env!("CARGO_PKG_VERSION"), ")").to_owned();
    parameters.is_superuser = false;
    parameters.default_transaction_read_only = true;
    parameters
}
