//! Every refusal of the PostgreSQL door: PostgreSQL's code, what happened, and as hint how to fix it.

use std::mem;

use datafusion_postgres::pgwire::{
    api::{ClientInfo, ErrorHandler},
    error::{ErrorInfo, PgWireError},
};

use datafusion::{common::DataFusionError, sql::sqlparser::parser::ParserError};

use crate::{access::AccessError, sql::SqlError};

pub(super) fn of_sql(error: &SqlError) -> PgWireError {
    of("ERROR", error.sqlstate(), &error.to_string(), error.fix())
}

/// Ends the connection.
pub(super) fn of_login(error: &AccessError) -> PgWireError {
    let (state, fix) = match error {
        AccessError::Wrong => (
            "28P01",
            "as password give the text of an API token, or as user and password those of a user",
        ),
        AccessError::Throttled { .. } => ("28000", "wait, and look who else tries"),
        _ => ("58000", "look at the gateway's log"),
    };
    of("FATAL", state, &error.to_string(), fix)
}

pub(super) fn of(severity: &str, state: &str, message: &str, hint: &str) -> PgWireError {
    let mut info = ErrorInfo::new(severity.to_owned(), state.to_owned(), message.to_owned());
    info.hint = Some(hint.to_owned());
    PgWireError::UserError(Box::new(info))
}

/// Turns what the libraries say into ours.
pub(super) struct Faults;

impl ErrorHandler for Faults {
    fn on_error<C: ClientInfo>(&self, client: &C, error: &mut PgWireError) {
        if let PgWireError::ApiError(cause) = error {
            let cause = mem::replace(cause, Box::from("taken"));
            *error = match told(cause) {
                Ok(error) => of_sql(&error),
                Err(cause) => PgWireError::ApiError(cause),
            };
        }
        tracing::debug!(peer = %client.socket_addr(), %error, "a PostgreSQL client is refused");
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn told(cause: Cause) -> Result<SqlError, Cause> {
    let cause = match cause.downcast::<DataFusionError>() {
        Ok(error) => return Ok(SqlError::from(*error)),
        Err(cause) => cause,
    };
    let error = cause.downcast::<ParserError>()?;
    Ok(SqlError::Syntax(error.to_string()))
}
