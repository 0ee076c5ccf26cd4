//! From text to tree. Whatever is not known whole ends it, with the place.
//!
//! Names are resolved as the engine would: a block knows all that it declares from its beginning, and
//! what is not yet there must not be read. Functions of the script are compiled anew at each call, with
//! variables of their own, into the place of the call. So there is nothing to call at run time, and a
//! function that calls itself is found by the bounds on depth and size.

mod expression;
mod function;
mod names;
mod statement;

use std::thread;

use oxc_allocator::Allocator;
use oxc_ast::ast::{BindingPattern, Expression as Written, Program, Statement as Line};
use oxc_parser::Parser;
use oxc_span::{GetSpan, SourceType, Span};

use self::{
    function::Callable,
    names::{Name, Names},
};
use super::{
    NotPlain, Plain, Rows,
    run::{self, OBJECT_MEMBERS},
    tree::{Constant, Expression, Table},
};
use crate::limits::{
    SCRIPT_PLAIN_DEPTH_MAX, SCRIPT_PLAIN_NODES_MAX, SCRIPT_PLAIN_SOURCE_BYTES_MAX,
};

/// The parser recurses as deep as a source nests, which may be once a byte.
const STACK_BYTES_A_BYTE: usize = 8 << 10;

/// The function that a script over rows has.
const TRANSFORM: &str = "transform";

/// A place that is not plain.
type Made<T> = Result<T, Span>;

/// [`Plain::compile`].
pub(super) fn compile(source: &str, rows: &Rows) -> Result<Plain, NotPlain> {
    if source.len() > SCRIPT_PLAIN_SOURCE_BYTES_MAX {
        return Err(whole());
    }
    let stack = STACK_BYTES_A_BYTE * SCRIPT_PLAIN_SOURCE_BYTES_MAX;
    thread::scope(|scope| {
        let compiler = thread::Builder::new()
            .name("plain-script".to_owned())
            .stack_size(stack)
            .spawn_scoped(scope, || parsed(source, rows));
        let compiled = compiler.ok().and_then(|thread| thread.join().ok());
        compiled.unwrap_or_else(|| Err(whole()))
    })
}

fn parsed(source: &str, rows: &Rows) -> Result<Plain, NotPlain> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, source, SourceType::script()).parse();
    if parsed.panicked || !parsed.diagnostics.is_empty() {
        return Err(whole());
    }
    let compiler = Compiler::new(rows).ok_or_else(whole)?;
    let compiled = compiler.script(&parsed.program);
    compiled.map_err(|span| at(source, span))
}

/// Of a script whose every part is to blame, or none that can be named.
fn whole() -> NotPlain {
    NotPlain {
        line: 1,
        what: "".into(),
    }
}

fn at(source: &str, span: Span) -> NotPlain {
    const SHOWN_CHARS: usize = 40;
    let (before, from) = source
        .split_at_checked(span.start as usize)
        .unwrap_or((source, ""));
    let text = from.get(..span.size() as usize).unwrap_or(from);
    let line = text.lines().next().unwrap_or_default();
    let mut what: String = line.chars().take(SHOWN_CHARS).collect();
    if what.len() < text.len() {
        what.push('…');
    }
    NotPlain {
        line: u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX),
        what: what.into(),
    }
}

struct Compiler<'a> {
    rows: &'a Rows,
    names: Names<'a>,
    shared: Vec<Constant>,
    variables: usize,
    nodes: u32,
    depth: u32,
    /// Loops around what is compiled: a variable may have been used further down.
    loops: u32,
    /// Functions around it, the script's own not counted.
    calls: u32,
}

impl<'a> Compiler<'a> {
    /// `None` where the row has members of a kind of their own.
    fn new(rows: &'a Rows) -> Option<Self> {
        let is_plain = |name: &str| !OBJECT_MEMBERS.contains(&name);
        let mut all = rows.reads.iter().chain(&rows.points);
        all.all(|name| is_plain(name)).then(|| Self {
            rows,
            names: Names::default(),
            shared: Vec::new(),
            variables: rows.reads.len(),
            nodes: 0,
            depth: 0,
            loops: 0,
            calls: 0,
        })
    }

    fn script(mut self, program: &'a Program<'a>) -> Made<Plain> {
        self.names.enter();
        self.declare_all(&program.body)?;
        for line in &program.body {
            match line {
                // Known from the beginning.
                Line::FunctionDeclaration(_) | Line::EmptyStatement(_) => {}
                Line::VariableDeclaration(declaration) if declaration.kind.is_const() => {
                    for declarator in &declaration.declarations {
                        self.global(&declarator.id, declarator.init.as_ref())?;
                    }
                }
                other => return Err(other.span()),
            }
        }
        let Some(Name::Function(transform)) = self.names.find(TRANSFORM) else {
            return Err(program.span);
        };
        let transform = *transform;
        let body = self.transform(transform)?;
        Ok(Plain {
            body,
            shared: self.shared.into(),
            variables: self.variables,
            points: self.rows.points.len(),
        })
    }

    /// What the source declares around its function: functions and values that nothing changes.
    fn global(
        &mut self,
        pattern: &'a BindingPattern<'a>,
        init: Option<&'a Written<'a>>,
    ) -> Made<()> {
        let (BindingPattern::BindingIdentifier(name), Some(init)) = (pattern, init) else {
            return Err(pattern.span());
        };
        let name = name.name.as_str();
        let known = match self.callable(init)? {
            Some(function) => Name::Function(function),
            None => {
                let constant = self.constant(init)?;
                Name::Shared(self.share(constant))
            }
        };
        self.names.set(name, known);
        Ok(())
    }

    fn share(&mut self, constant: Constant) -> usize {
        self.shared.push(constant);
        self.shared.len() - 1
    }

    /// A value that can be computed once for all.
    fn constant(&mut self, written: &'a Written<'a>) -> Made<Constant> {
        match written.without_parentheses() {
            Written::ArrayExpression(list) => self.deeper(list.span, |compiler| {
                let mut items = Vec::with_capacity(list.elements.len());
                for element in &list.elements {
                    let item = element.as_expression().ok_or_else(|| element.span())?;
                    items.push(compiler.constant(item)?);
                }
                Ok(Constant::List(items.into()))
            }),
            Written::ObjectExpression(object) => self.deeper(object.span, |compiler| {
                let mut table = Table::new();
                for property in &object.properties {
                    let (name, value) = compiler.property(property)?;
                    let value = compiler.constant(value)?;
                    if table.insert(name.into(), value).is_some() {
                        return Err(property.span());
                    }
                }
                Ok(Constant::Table(table))
            }),
            other => {
                let variables = self.variables;
                let expression = self.expression(other)?;
                let constant = run::constant(&expression, &self.shared);
                // It may know a row's values by no name, nor have variables of its own.
                let is_alone = self.variables == variables;
                constant.filter(|_| is_alone).ok_or_else(|| other.span())
            }
        }
    }

    fn new_variable(&mut self) -> usize {
        self.variables += 1;
        self.variables - 1
    }

    /// Compiles what stands one level further in.
    fn deeper<T>(&mut self, span: Span, compile: impl FnOnce(&mut Self) -> Made<T>) -> Made<T> {
        self.nodes += 1;
        self.depth += 1;
        if self.nodes > SCRIPT_PLAIN_NODES_MAX || self.depth > SCRIPT_PLAIN_DEPTH_MAX {
            return Err(span);
        }
        let made = compile(self)?;
        self.depth -= 1;
        Ok(made)
    }

    /// Compiles what a loop repeats; what one round of it costs.
    fn repeated<T>(&mut self, compile: impl FnOnce(&mut Self) -> Made<T>) -> Made<(T, u32)> {
        let nodes = self.nodes;
        self.loops += 1;
        let made = compile(self)?;
        self.loops -= 1;
        Ok((made, self.nodes - nodes + 1))
    }

    fn callable(&self, written: &'a Written<'a>) -> Made<Option<Callable<'a>>> {
        Callable::of(written, self.names.depth())
    }

    fn scalar(constant: Constant) -> Expression {
        Expression::Constant(constant)
    }
}
