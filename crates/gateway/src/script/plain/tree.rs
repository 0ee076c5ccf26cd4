//! What a plain script becomes: statements and expressions over numbered variables.

use std::collections::HashMap;

pub(super) use oxc_ast::ast::{BinaryOperator, LogicalOperator, UnaryOperator};

/// A value, of a row or of a script at work.
#[derive(Debug, Clone, Copy)]
pub enum Value<'v> {
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(&'v str),
    /// One that stands in the script.
    List(&'v [Constant]),
    /// The same.
    Table(&'v Table),
    /// Something that only an engine takes apart.
    Opaque,
}

/// A value that stands in a script; nothing changes it.
#[derive(Debug, Clone)]
pub enum Constant {
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(Box<str>),
    List(Box<[Self]>),
    Table(Table),
}

/// An object that values are looked up in.
pub(super) type Table = HashMap<Box<str>, Constant>;

impl Constant {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Undefined => Value::Undefined,
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value) => Value::Number(*value),
            Self::Text(value) => Value::Text(value),
            Self::List(items) => Value::List(items),
            Self::Table(table) => Value::Table(table),
        }
    }
}

impl Value<'_> {
    /// `None` of what is opaque.
    pub(super) fn constant(self) -> Option<Constant> {
        Some(match self {
            Self::Undefined => Constant::Undefined,
            Self::Null => Constant::Null,
            Self::Bool(value) => Constant::Bool(value),
            Self::Number(value) => Constant::Number(value),
            Self::Text(value) => Constant::Text(value.into()),
            Self::List(items) => Constant::List(items.into()),
            Self::Table(table) => Constant::Table(table.clone()),
            Self::Opaque => return None,
        })
    }
}

#[derive(Debug)]
pub(super) enum Expression {
    Constant(Constant),
    /// A value that stands in the script, by number.
    Shared(usize),
    Variable(usize),
    Unary(UnaryOperator, Box<Self>),
    Binary(BinaryOperator, Box<(Self, Self)>),
    Logical(LogicalOperator, Box<(Self, Self)>),
    /// The first where it is not undefined.
    Default(Box<(Self, Self)>),
    /// A test, and what is the case where it holds and where not.
    Choice(Box<(Self, Self, Self)>),
    /// Its value is what was assigned.
    Assign(usize, Box<Self>),
    /// `++` and `--`.
    Count {
        variable: usize,
        by: f64,
        /// Its value is the one after.
        is_prefix: bool,
    },
    Member(Box<Self>, Box<str>),
    Element(Box<(Self, Self)>),
    /// Of a list only.
    Item(Box<Self>, usize),
    Function(Function, Box<[Self]>),
    /// A function of the script, put in its place.
    Call(Box<Body>),
    Search(Box<Search>),
    /// A list and what it may hold.
    Includes(Box<(Self, Self)>),
}

/// Functions that the language has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Function {
    /// Of one number.
    Math(fn(f64) -> f64),
    /// Of two.
    Math2(fn(f64, f64) -> f64),
    Min,
    Max,
    /// `Number(x)`.
    Number,
    /// `Boolean(x)`.
    Boolean,
    IsNaN,
    IsFinite,
    /// Those of `Number`: what is no number is none of them.
    NumberIsNaN,
    NumberIsFinite,
    NumberIsInteger,
}

/// What a function does.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) statements: Box<[Statement]>,
    /// Its value, where nothing was returned before.
    pub(super) value: Option<Expression>,
}

/// A function asked about the items of a list, one after the other.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) list: Expression,
    pub(super) kind: SearchKind,
    /// The variables of the function: an item and its place.
    pub(super) item: usize,
    pub(super) place: usize,
    pub(super) test: Body,
    /// Of one item.
    pub(super) cost: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SearchKind {
    Find,
    FindLast,
    FindIndex,
    FindLastIndex,
    Some,
    Every,
}

#[derive(Debug)]
pub(super) enum Statement {
    Do(Expression),
    If(Expression, Box<[Self]>, Box<[Self]>),
    /// Of a function that is called.
    Return(Expression),
    /// Of the script: what it says of the row.
    Say(Said),
    Loop(Box<Loop>),
    Each(Box<Each>),
    Switch(Expression, Box<[Case]>),
    Break,
    Continue,
    /// Only an engine knows what happens here.
    Ask,
}

/// `for` and `while`.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) begin: Box<[Statement]>,
    pub(super) test: Option<Expression>,
    pub(super) update: Option<Expression>,
    pub(super) body: Box<[Statement]>,
    /// Of one round.
    pub(super) cost: u32,
}

/// `for (… of …)`.
#[derive(Debug)]
pub(super) struct Each {
    pub(super) list: Expression,
    pub(super) item: usize,
    pub(super) body: Box<[Statement]>,
    /// Of one round.
    pub(super) cost: u32,
}

#[derive(Debug)]
pub(super) struct Case {
    /// Absent of `default`.
    pub(super) test: Option<Expression>,
    pub(super) body: Box<[Statement]>,
}

#[derive(Debug)]
pub(super) enum Said {
    /// The value of its only point, or `null` for all.
    Bare(Expression),
    /// Points by number, in the order in which their values are computed.
    Object(Box<[(usize, Expression)]>),
    Choice(Box<(Expression, Self, Self)>),
}
