//! Transactions as drivers expect them. Nothing is changed in one, so that there is nothing to undo: a
//! statement that failed blocks what follows until the transaction, or a savepoint of it, is gone back
//! to.

use async_trait::async_trait;
use datafusion::{logical_expr::LogicalPlan, sql::sqlparser::ast::Statement};
use datafusion_postgres::{
    hooks::HookClient,
    pgwire::{
        api::results::{Response, Tag},
        error::{PgWireError, PgWireResult},
        messages::response::TransactionStatus,
    },
};

use super::{
    fault,
    hooks::{Answers, nothing},
};

/// Answers what begins and ends transactions, and blocks what comes after a failure.
pub(super) struct Transactions;

/// Whether a statement ends its transaction. Going back to a savepoint does not.
pub(super) fn ends(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Commit { .. }
            | Statement::Rollback {
                savepoint: None,
                ..
            }
    )
}

/// Whether a statement goes back to a savepoint, which makes a failed transaction good.
pub(super) fn mends(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Rollback {
            savepoint: Some(_),
            ..
        }
    )
}

fn is_about_transactions(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint { .. }
            | Statement::ReleaseSavepoint { .. }
    )
}

fn said(statement: &Statement, status: TransactionStatus) -> Option<PgWireResult<Response>> {
    use TransactionStatus::{Error, Idle, Transaction};
    let done = |tag: &str| Some(Ok(Response::Execution(Tag::new(tag))));
    match (statement, status) {
        (Statement::Commit { .. }, Error) => {
            Some(Ok(Response::TransactionEnd(Tag::new("ROLLBACK"))))
        }
        (Statement::Commit { .. }, _) => Some(Ok(Response::TransactionEnd(Tag::new("COMMIT")))),
        (statement, _) if ends(statement) => {
            Some(Ok(Response::TransactionEnd(Tag::new("ROLLBACK"))))
        }
        (
            Statement::Savepoint { .. }
            | Statement::ReleaseSavepoint { .. }
            | Statement::Rollback { .. },
            Idle,
        ) => Some(Err(outside())),
        (_, Error) => Some(Err(failed())),
        (Statement::StartTransaction { .. }, Idle) => {
            Some(Ok(Response::TransactionStart(Tag::new("BEGIN"))))
        }
        (Statement::StartTransaction { .. }, Transaction) => done("BEGIN"),
        (Statement::Savepoint { .. }, Transaction) => done("SAVEPOINT"),
        (Statement::ReleaseSavepoint { .. }, Transaction) => done("RELEASE"),
        (Statement::Rollback { .. }, Transaction) => done("ROLLBACK"),
        _ => None,
    }
}

fn failed() -> PgWireError {
    fault::of(
        "ERROR",
        "25P02",
        "a statement of this transaction failed, and what follows it is not answered",
        "ROLLBACK, or go back to a savepoint",
    )
}

fn outside() -> PgWireError {
    fault::of(
        "ERROR",
        "25P01",
        "a savepoint is a part of a transaction, and there is none",
        "BEGIN first",
    )
}

#[async_trait]
impl Answers for Transactions {
    async fn answer(
        &self,
        statement: &Statement,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        said(statement, client.transaction_status())
    }

    fn plan(&self, statement: &Statement) -> Option<PgWireResult<LogicalPlan>> {
        is_about_transactions(statement).then(|| Ok(nothing()))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    use super::*;

    fn state(sql: &str, status: TransactionStatus) -> String {
        let statement = Parser::parse_sql(&PostgreSqlDialect {}, sql)
            .unwrap()
            .remove(0);
        match said(&statement, status) {
            None => "goes on".to_owned(),
            Some(Ok(Response::TransactionStart(_))) => "begun".to_owned(),
            Some(Ok(Response::TransactionEnd(tag))) => format!("ended {tag:?}"),
            Some(Ok(_)) => "done".to_owned(),
            Some(Err(PgWireError::UserError(info))) => info.code,
            Some(Err(_)) => "another error".to_owned(),
        }
    }

    #[test]
    fn a_failed_transaction_answers_nothing_until_it_is_over() {
        use TransactionStatus::{Error, Idle, Transaction};
        for sql in [
            "SELECT 1",
            "SAVEPOINT a",
            "BEGIN",
            "FETCH 1 FROM c",
            "SET a = 1",
        ] {
            assert_eq!(state(sql, Error), "25P02", "{sql}");
        }
        assert!(state("COMMIT", Error).contains("ROLLBACK"));
        assert!(state("ROLLBACK", Error).contains("ROLLBACK"));
        assert_eq!(state("BEGIN READ ONLY", Idle), "begun");
        assert_eq!(state("BEGIN", Transaction), "done");
        assert_eq!(state("SAVEPOINT a", Idle), "25P01");
        assert_eq!(state("ROLLBACK TO SAVEPOINT a", Transaction), "done");
        assert_eq!(state("SELECT 1", Transaction), "goes on");
    }

    #[test]
    fn going_back_to_a_savepoint_ends_nothing() {
        let parsed = |sql| {
            Parser::parse_sql(&PostgreSqlDialect {}, sql)
                .unwrap()
                .remove(0)
        };
        assert!(!ends(&parsed("ROLLBACK TO SAVEPOINT a")));
        assert!(mends(&parsed("ROLLBACK TO a")));
        assert!(ends(&parsed("ROLLBACK")) && ends(&parsed("COMMIT")));
    }
}
