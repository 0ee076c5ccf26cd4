//! What may be asked: statements that change nothing. Checked twice, on the text's statement and on
//! the plan that came of it; nothing else in DataFusion then stands between a caller and a file.

use datafusion::{
    execution::context::SQLOptions,
    logical_expr::LogicalPlan,
    sql::sqlparser::ast::{Set, Statement},
};

use super::SqlError;

/// # Errors
/// [`SqlError::Writes`], with the first words of what it is.
pub fn check_statement(statement: &Statement) -> Result<(), SqlError> {
    match statement {
        Statement::Query(_)
        | Statement::Explain { .. }
        | Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowFunctions { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowVariables { .. }
        | Statement::ShowCatalogs { .. }
        | Statement::ShowDatabases { .. }
        | Statement::ShowSchemas { .. }
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. } => Ok(()),
        // A session's own settings, as PostgreSQL's clients make them; never the engine's limits.
        Statement::Set(set) if !is_of_engine(set) => Ok(()),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            Err(SqlError::Writes(words.join(" ")))
        }
    }
}

fn is_of_engine(set: &Set) -> bool {
    set.to_string().to_lowercase().contains("datafusion.")
}

/// # Errors
/// [`SqlError::Writes`].
pub fn check_plan(plan: &LogicalPlan) -> Result<(), SqlError> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|_| SqlError::Writes("a statement that changes something".to_owned()))
}
