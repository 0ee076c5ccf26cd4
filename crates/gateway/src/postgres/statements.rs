//! Texts as clients send them, as statements. The libraries parse everything but `MOVE` and the short
//! forms of `FETCH` (`FETCH rows`, `FETCH FORWARD FROM rows`), which are read here.
//!
//! `MOVE` has no statement of its own there: it is a `FETCH` whose rows go `INTO` nothing, and that the
//! libraries never make.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::sql::sqlparser::{
    ast::{FetchDirection, FetchPosition, Ident, ObjectName, Statement, Value, ValueWithSpan},
    dialect::PostgreSqlDialect,
    parser::ParserError,
    tokenizer::{Span, Token, Tokenizer, Word},
};
use datafusion_postgres::{
    Parser,
    datafusion_pg_catalog::sql::PostgresCompatibilityParser,
    pgwire::{
        api::{ClientInfo, Type, portal::Format, results::FieldInfo, stmt::QueryParser},
        error::PgWireResult,
    },
};

use super::{fault, hooks::nothing, session::Parsed};
use crate::sql::SqlError;

/// The statements of a text.
pub(super) fn statements(
    texts: &PostgresCompatibilityParser,
    text: &str,
) -> Result<Vec<Statement>, ParserError> {
    if !mentions_rows(text) {
        return texts.parse(text);
    }
    let mut statements = Vec::new();
    for part in parts(text)? {
        match taken(&part)? {
            Some(statement) => statements.push(statement),
            None => {
                let text: String = part.iter().map(ToString::to_string).collect();
                statements.extend(texts.parse(&text)?);
            }
        }
    }
    Ok(statements)
}

/// Whether one of the statements may be read here; the others are not looked at closely.
fn mentions_rows(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("fetch") || text.contains("move")
}

/// The tokens of each statement that is not blank.
fn parts(text: &str) -> Result<Vec<Vec<Token>>, ParserError> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize()?;
    let parts = tokens.split(|token| *token == Token::SemiColon);
    let is_said = |part: &&[Token]| part.iter().any(|token| !is_blank(token));
    Ok(parts.filter(is_said).map(<[Token]>::to_vec).collect())
}

fn is_blank(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_) | Token::EOF)
}

/// A `FETCH` or `MOVE`; `None`: it is something else.
fn taken(part: &[Token]) -> Result<Option<Statement>, ParserError> {
    let mut words = Words(part.iter().filter(|token| !is_blank(token)).collect());
    let is_move = words.take("MOVE");
    if !is_move && !words.take("FETCH") {
        return Ok(None);
    }
    let direction = words.direction()?;
    let position = match words.take("IN") {
        true => FetchPosition::In,
        false => {
            words.take("FROM");
            FetchPosition::From
        }
    };
    let name = words.name()?;
    Ok(Some(Statement::Fetch {
        name,
        direction,
        position,
        into: is_move.then(|| ObjectName(Vec::new())),
    }))
}

/// What is left of a statement.
struct Words<'t>(Vec<&'t Token>);

impl Words<'_> {
    /// Takes a word if it is next, and not the name that is last.
    fn take(&mut self, word: &str) -> bool {
        let is_next = self.0.len() > 1
            && matches!(self.0.first(), Some(Token::Word(Word { value, quote_style: None, .. })) if value.eq_ignore_ascii_case(word));
        if is_next {
            self.0.remove(0);
        }
        is_next
    }

    /// A number, with its sign.
    fn number(&mut self) -> Option<ValueWithSpan> {
        let is_negative = matches!(self.0.first(), Some(Token::Minus));
        let at = usize::from(is_negative);
        let Some(Token::Number(number, is_long)) = self.0.get(at) else {
            return None;
        };
        let number = match is_negative {
            true => format!("-{number}"),
            false => number.clone(),
        };
        let value = Value::Number(number.parse().ok()?, *is_long);
        self.0.drain(..=at);
        Some(value.with_empty_span())
    }

    fn wanted_number(&mut self) -> Result<ValueWithSpan, ParserError> {
        let number = self.number();
        number.ok_or_else(|| self.expected("a number"))
    }

    fn direction(&mut self) -> Result<FetchDirection, ParserError> {
        Ok(if self.take("NEXT") {
            FetchDirection::Next
        } else if self.take("PRIOR") {
            FetchDirection::Prior
        } else if self.take("FIRST") {
            FetchDirection::First
        } else if self.take("LAST") {
            FetchDirection::Last
        } else if self.take("ABSOLUTE") {
            FetchDirection::Absolute {
                limit: self.wanted_number()?,
            }
        } else if self.take("RELATIVE") {
            FetchDirection::Relative {
                limit: self.wanted_number()?,
            }
        } else if self.take("ALL") {
            FetchDirection::All
        } else if self.take("FORWARD") {
            match self.take("ALL") {
                true => FetchDirection::ForwardAll,
                false => FetchDirection::Forward {
                    limit: self.number(),
                },
            }
        } else if self.take("BACKWARD") {
            match self.take("ALL") {
                true => FetchDirection::BackwardAll,
                false => FetchDirection::Backward {
                    limit: self.number(),
                },
            }
        } else {
            match self.number() {
                Some(limit) => FetchDirection::Count { limit },
                None => FetchDirection::Next,
            }
        })
    }

    fn name(&mut self) -> Result<Ident, ParserError> {
        match self.0.as_slice() {
            [Token::Word(word)] => Ok(Ident {
                value: word.value.clone(),
                quote_style: word.quote_style,
                span: Span::empty(),
            }),
            _ => Err(self.expected("the name of a cursor, and nothing behind it")),
        }
    }

    fn expected(&self, what: &str) -> ParserError {
        let found = self
            .0
            .first()
            .map_or_else(|| "the end".to_owned(), ToString::to_string);
        ParserError::ParserError(format!("Expected: {what}, found: {found}"))
    }
}

/// The library's parser of prepared statements, for what is not read here.
pub(super) struct Statements {
    texts: Arc<PostgresCompatibilityParser>,
    library: Arc<Parser>,
}

impl Statements {
    pub(super) fn new(texts: Arc<PostgresCompatibilityParser>, library: Arc<Parser>) -> Self {
        Self { texts, library }
    }
}

#[async_trait]
impl QueryParser for Statements {
    type Statement = Parsed;

    async fn parse_sql<C>(
        &self,
        client: &C,
        sql: &str,
        types: &[Option<Type>],
    ) -> PgWireResult<Option<Parsed>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let syntax = |error: ParserError| fault::of_sql(&SqlError::Syntax(error.to_string()));
        // The library takes the first and forgets the rest.
        if sql.trim_end().trim_end_matches(';').contains(';') {
            let count = parts(sql).map_err(&syntax)?.len();
            if count > 1 {
                return Err(fault::of_sql(&SqlError::Statements(count)));
            }
        }
        if mentions_rows(sql) {
            let mut said = statements(&self.texts, sql).map_err(syntax)?;
            if let Some(statement @ Statement::Fetch { .. }) = said.pop() {
                return Ok(Some((sql.to_owned(), Some((statement, nothing())))));
            }
        }
        self.library.parse_sql(client, sql, types).await
    }

    fn get_parameter_types(&self, statement: &Parsed) -> PgWireResult<Vec<Type>> {
        self.library.get_parameter_types(statement)
    }

    fn get_result_schema(
        &self,
        statement: &Parsed,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        self.library.get_result_schema(statement, format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Statement> {
        statements(&PostgresCompatibilityParser::new(), text).unwrap()
    }

    #[test]
    fn every_form_of_fetch_says_which_way_and_from_what() {
        for (text, wanted) in [
            ("FETCH rows", "FETCH NEXT FROM rows"),
            ("fetch from rows", "FETCH NEXT FROM rows"),
            ("FETCH 5 rows", "FETCH 5 FROM rows"),
            ("FETCH FORWARD FROM rows", "FETCH FORWARD FROM rows"),
            ("FETCH FORWARD 10 IN rows;", "FETCH FORWARD 10 IN rows"),
            ("FETCH ALL FROM \"Rows\"", "FETCH ALL FROM \"Rows\""),
            ("FETCH BACKWARD rows", "FETCH BACKWARD FROM rows"),
            ("FETCH -3 FROM rows", "FETCH -3 FROM rows"),
            ("FETCH next", "FETCH NEXT FROM next"),
        ] {
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&read(text)[0].to_string()), wanted);
        }
    }

    #[test]
    fn move_is_a_fetch_into_nothing() {
        let said = read("BEGIN; MOVE FORWARD 7 FROM rows; SELECT 'MOVE ; 1' AS a");
        assert_eq!(said.len(), 3);
        assert!(matches!(&said[1], Statement::Fetch { into: Some(into), .. } if into.0.is_empty()));
        assert!(matches!(&said[2], Statement::Query(_)));
    }

    #[test]
    fn what_is_no_fetch_is_told() {
        let parser = PostgresCompatibilityParser::new();
        for text in [
            "FETCH",
            "MOVE 3",
            "FETCH 3 FROM a b",
            "FETCH ABSOLUTE FROM a",
        ] {
            assert!(statements(&parser, text).is_err(), "{text}");
        }
    }
}
