//! Functions of the script: the one that it is called by, and those that it calls.

use oxc_ast::ast::{
    ArrowFunctionBody, ArrowFunctionExpression, BindingPattern, Expression as Written,
    FormalParameter, FormalParameters, Function, Statement as Line,
};
use oxc_span::{GetSpan, Span};

use super::{
    super::tree::{Body, Constant, Expression, Statement},
    Compiler, Made,
    names::{Name, Record},
};

/// A function that stands in the script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Callable<'a> {
    written: Form<'a>,
    /// How many blocks were open where it stands: their names are those that it knows.
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    Function(&'a Function<'a>),
    Arrow(&'a ArrowFunctionExpression<'a>),
}

impl<'a> Callable<'a> {
    /// `None` where an expression is no function.
    pub(super) fn of(written: &'a Written<'a>, depth: usize) -> Made<Option<Self>> {
        match written.without_parentheses() {
            // Its own name is known within it alone.
            Written::FunctionExpression(function) if function.id.is_some() => Err(function.span),
            Written::FunctionExpression(function) => Self::declared(function, depth).map(Some),
            Written::ArrowFunctionExpression(arrow) if arrow.r#async => Err(arrow.span),
            Written::ArrowFunctionExpression(arrow) => Ok(Some(Self {
                written: Form::Arrow(arrow),
                depth,
            })),
            _ => Ok(None),
        }
    }

    pub(super) fn declared(function: &'a Function<'a>, depth: usize) -> Made<Self> {
        match function.r#async || function.generator {
            true => Err(function.span),
            false => Ok(Self {
                written: Form::Function(function),
                depth,
            }),
        }
    }

    fn parameters(&self) -> &'a FormalParameters<'a> {
        match self.written {
            Form::Function(function) => &function.params,
            Form::Arrow(arrow) => &arrow.params,
        }
    }

    /// Its lines, or the expression that it is.
    fn body(&self) -> Made<Result<&'a [Line<'a>], &'a Written<'a>>> {
        match self.written {
            Form::Function(function) => match &function.body {
                Some(body) => Ok(Ok(&body.statements)),
                None => Err(function.span),
            },
            Form::Arrow(arrow) => match &arrow.body {
                ArrowFunctionBody::FunctionBody(body) => Ok(Ok(&body.statements)),
                other => other.as_expression().map(Err).ok_or(arrow.span),
            },
        }
    }

    pub(super) fn span(&self) -> Span {
        match self.written {
            Form::Function(function) => function.span,
            Form::Arrow(arrow) => arrow.span,
        }
    }
}

impl<'a> Compiler<'a> {
    /// The function that a script is called by: what it returns is what is said of the row.
    pub(super) fn transform(&mut self, transform: Callable<'a>) -> Made<Box<[Statement]>> {
        let parameters = transform.parameters();
        if parameters.rest.is_some() || parameters.items.len() > 1 {
            return Err(parameters.span);
        }
        self.names.enter();
        let mut body = Vec::new();
        if let Some(parameter) = parameters.items.first() {
            let reads = self.rows.reads.iter().map(|name| name.to_string());
            let row = Record {
                members: reads.zip(0..).collect(),
            };
            match pattern_of(parameter)? {
                BindingPattern::BindingIdentifier(name) => {
                    self.declare(&name.name, name.span, Name::Record(row))?;
                }
                pattern => {
                    self.declare_later(pattern)?;
                    self.take_apart(pattern, &row, false, &mut body)?;
                }
            }
        }
        match transform.body()? {
            Ok(lines) => body.extend(self.block(lines)?),
            Err(value) => body.push(Statement::Say(self.said(value)?)),
        }
        self.names.leave();
        Ok(body.into())
    }

    /// A call, with what it is given.
    pub(super) fn call(
        &mut self,
        callable: Callable<'a>,
        given: Vec<Expression>,
    ) -> Made<Expression> {
        let body = self.put_in_place(callable, |parameters, compiler, statements| {
            // All is computed before any of it is taken apart, and what nobody takes too.
            let given: Vec<usize> = given
                .into_iter()
                .map(|value| compiler.kept(value, statements))
                .collect();
            let mut given = given.into_iter().map(Expression::Variable);
            for parameter in parameters {
                let value = given.next().unwrap_or(UNDEFINED);
                compiler.bind(&parameter.pattern, value, false, statements)?;
            }
            Ok(())
        })?;
        Ok(Expression::Call(Box::new(body)))
    }

    /// A function that is asked about the items of a list: it, and the variables of an item and its place.
    pub(super) fn asked(&mut self, callable: Callable<'a>) -> Made<(Body, usize, usize)> {
        let (item, place) = (self.new_variable(), self.new_variable());
        let span = callable.span();
        let body = self.put_in_place(callable, |parameters, compiler, statements| {
            if parameters.len() > 2 {
                return Err(span);
            }
            for (parameter, variable) in parameters.iter().zip([item, place]) {
                let value = Expression::Variable(variable);
                compiler.bind(&parameter.pattern, value, false, statements)?;
            }
            Ok(())
        })?;
        Ok((body, item, place))
    }

    /// A function where it is called, with the names that it knows where it stands.
    fn put_in_place(
        &mut self,
        callable: Callable<'a>,
        take: impl FnOnce(&'a [FormalParameter<'a>], &mut Self, &mut Vec<Statement>) -> Made<()>,
    ) -> Made<Body> {
        let parameters = callable.parameters();
        if parameters.rest.is_some() {
            return Err(parameters.span);
        }
        self.deeper(callable.span(), |compiler| {
            let hidden = compiler.names.only(callable.depth);
            compiler.names.enter();
            compiler.calls += 1;
            let mut statements = Vec::new();
            for parameter in &parameters.items {
                compiler.declare_later(pattern_of(parameter)?)?;
            }
            take(&parameters.items, compiler, &mut statements)?;
            let value = match callable.body()? {
                Ok(lines) => {
                    statements.extend(compiler.block(lines)?);
                    None
                }
                Err(value) => Some(compiler.expression(value)?),
            };
            compiler.calls -= 1;
            compiler.names.leave();
            compiler.names.again(hidden);
            Ok(Body {
                statements: statements.into(),
                value,
            })
        })
    }
}

pub(super) const UNDEFINED: Expression = Expression::Constant(Constant::Undefined);

fn pattern_of<'a>(parameter: &'a FormalParameter<'a>) -> Made<&'a BindingPattern<'a>> {
    match parameter.initializer {
        Some(_) => Err(parameter.span()),
        None => Ok(&parameter.pattern),
    }
}
