//! A plain script at work on a row.

use super::{
    Output, Plain, Value, number,
    tree::{
        BinaryOperator, Body, Case, Constant, Each, Expression, Function, LogicalOperator, Loop,
        Said, Search, SearchKind, Statement, Table, UnaryOperator,
    },
};
use crate::limits::SCRIPT_PLAIN_STEPS_MAX;

/// Members that every object has: what they are is the engine's business.
pub(super) const OBJECT_MEMBERS: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// Only an engine can say it.
pub(super) struct Beyond;

type Known<T> = Result<T, Beyond>;

/// Where a statement leaves its script.
enum Flow<'v> {
    On,
    Break,
    Continue,
    Return(Value<'v>),
    Said(Vec<Output>),
}

/// [`Plain::say`].
pub(super) fn run<'v>(
    plain: &'v Plain,
    row: impl IntoIterator<Item = Value<'v>>,
) -> Option<Vec<Output>> {
    let mut variables = Vec::with_capacity(plain.variables);
    variables.extend(row);
    variables.resize(plain.variables, Value::Undefined);
    let mut run = Run {
        shared: &plain.shared,
        points: plain.points,
        variables,
        steps: SCRIPT_PLAIN_STEPS_MAX,
    };
    match run.statements(&plain.body) {
        Ok(Flow::Said(outputs)) => Some(outputs),
        // It says nothing, which is an error, and errors are the engine's.
        Ok(Flow::On | Flow::Break | Flow::Continue | Flow::Return(_)) | Err(Beyond) => None,
    }
}

/// The value of an expression over what stands in the script.
pub(super) fn constant(expression: &Expression, shared: &[Constant]) -> Option<Constant> {
    let mut run = Run {
        shared,
        points: 0,
        variables: Vec::new(),
        steps: SCRIPT_PLAIN_STEPS_MAX,
    };
    run.value(expression).ok()?.constant()
}

struct Run<'v> {
    shared: &'v [Constant],
    points: usize,
    variables: Vec<Value<'v>>,
    /// How many more it may take in loops.
    steps: u32,
}

impl<'v> Run<'v> {
    fn statements(&mut self, statements: &'v [Statement]) -> Known<Flow<'v>> {
        for statement in statements {
            match self.statement(statement)? {
                Flow::On => {}
                left => return Ok(left),
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &'v Statement) -> Known<Flow<'v>> {
        match statement {
            Statement::Do(expression) => self.value(expression).map(|_| Flow::On),
            Statement::If(test, then, otherwise) => match self.holds(test)? {
                true => self.statements(then),
                false => self.statements(otherwise),
            },
            Statement::Return(expression) => self.value(expression).map(Flow::Return),
            Statement::Say(said) => self.said(said).map(Flow::Said),
            Statement::Loop(of) => self.rounds(of),
            Statement::Each(each) => self.each(each),
            Statement::Switch(value, cases) => self.switch(value, cases),
            Statement::Break => Ok(Flow::Break),
            Statement::Continue => Ok(Flow::Continue),
            Statement::Ask => Err(Beyond),
        }
    }

    fn pay(&mut self, cost: u32) -> Known<()> {
        self.steps = self.steps.checked_sub(cost).ok_or(Beyond)?;
        Ok(())
    }

    fn rounds(&mut self, of: &'v Loop) -> Known<Flow<'v>> {
        self.statements(&of.begin)?;
        loop {
            self.pay(of.cost)?;
            if let Some(test) = &of.test
                && !self.holds(test)?
            {
                return Ok(Flow::On);
            }
            match self.statements(&of.body)? {
                Flow::On | Flow::Continue => {}
                Flow::Break => return Ok(Flow::On),
                left @ (Flow::Return(_) | Flow::Said(_)) => return Ok(left),
            }
            if let Some(update) = &of.update {
                self.value(update)?;
            }
        }
    }

    fn each(&mut self, each: &'v Each) -> Known<Flow<'v>> {
        for item in list(self.value(&each.list)?)? {
            self.pay(each.cost)?;
            self.assign(each.item, item.value())?;
            match self.statements(&each.body)? {
                Flow::On | Flow::Continue => {}
                Flow::Break => break,
                left @ (Flow::Return(_) | Flow::Said(_)) => return Ok(left),
            }
        }
        Ok(Flow::On)
    }

    fn switch(&mut self, value: &'v Expression, cases: &'v [Case]) -> Known<Flow<'v>> {
        let value = self.value(value)?;
        let mut first = None;
        for (place, case) in cases.iter().enumerate() {
            if let Some(test) = &case.test
                && is_same(value, self.value(test)?)?
            {
                first = Some(place);
                break;
            }
        }
        let default = || cases.iter().position(|case| case.test.is_none());
        let Some(first) = first.or_else(default) else {
            return Ok(Flow::On);
        };
        for case in &cases[first..] {
            match self.statements(&case.body)? {
                Flow::On => {}
                Flow::Break => break,
                left => return Ok(left),
            }
        }
        Ok(Flow::On)
    }

    fn said(&mut self, said: &'v Said) -> Known<Vec<Output>> {
        match said {
            Said::Bare(expression) => match self.value(expression)? {
                Value::Null => Ok(vec![Output::Dropped; self.points]),
                Value::Undefined => Err(Beyond),
                value if self.points == 1 => Ok(vec![output(value)?]),
                _ => Err(Beyond),
            },
            Said::Object(values) => {
                let mut outputs = vec![Output::Kept; self.points];
                for (point, expression) in values {
                    outputs[*point] = output(self.value(expression)?)?;
                }
                Ok(outputs)
            }
            Said::Choice(choice) => match self.holds(&choice.0)? {
                true => self.said(&choice.1),
                false => self.said(&choice.2),
            },
        }
    }

    fn holds(&mut self, test: &'v Expression) -> Known<bool> {
        holds(self.value(test)?)
    }

    fn value(&mut self, expression: &'v Expression) -> Known<Value<'v>> {
        match expression {
            Expression::Constant(constant) => Ok(constant.value()),
            Expression::Shared(number) => Ok(self.shared[*number].value()),
            Expression::Variable(number) => self.variable(*number),
            Expression::Unary(operator, of) => unary(*operator, self.value(of)?),
            Expression::Binary(operator, both) => {
                let left = self.value(&both.0)?;
                binary(*operator, left, self.value(&both.1)?)
            }
            Expression::Logical(operator, both) => self.logical(*operator, &both.0, &both.1),
            Expression::Default(both) => match self.value(&both.0)? {
                Value::Undefined => self.value(&both.1),
                Value::Opaque => Err(Beyond),
                value => Ok(value),
            },
            Expression::Choice(choice) => match self.holds(&choice.0)? {
                true => self.value(&choice.1),
                false => self.value(&choice.2),
            },
            Expression::Assign(variable, value) => {
                let value = self.value(value)?;
                self.assign(*variable, value)
            }
            Expression::Count {
                variable,
                by,
                is_prefix,
            } => {
                let before = number_of(self.variable(*variable)?)?;
                self.assign(*variable, Value::Number(before + by))?;
                let value = if *is_prefix { before + by } else { before };
                Ok(Value::Number(value))
            }
            Expression::Member(of, name) => member(self.value(of)?, name),
            Expression::Element(both) => {
                let of = self.value(&both.0)?;
                element(of, self.value(&both.1)?)
            }
            Expression::Item(of, place) => {
                let items = list(self.value(of)?)?;
                Ok(items.get(*place).map_or(Value::Undefined, Constant::value))
            }
            Expression::Function(function, given) => self.function(*function, given),
            Expression::Call(body) => self.body(body),
            Expression::Search(search) => self.search(search),
            Expression::Includes(both) => {
                let items = list(self.value(&both.0)?)?;
                let sought = self.value(&both.1)?;
                self.pay(u32::try_from(items.len()).unwrap_or(u32::MAX))?;
                for item in items {
                    let is_nan = matches!((sought, item), (Value::Number(a), Constant::Number(b)) if a.is_nan() && b.is_nan());
                    if is_nan || is_same(sought, item.value())? {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
        }
    }

    /// None is there while a constant is computed.
    fn variable(&self, number: usize) -> Known<Value<'v>> {
        self.variables.get(number).copied().ok_or(Beyond)
    }

    fn assign(&mut self, number: usize, value: Value<'v>) -> Known<Value<'v>> {
        *self.variables.get_mut(number).ok_or(Beyond)? = value;
        Ok(value)
    }

    fn logical(
        &mut self,
        operator: LogicalOperator,
        left: &'v Expression,
        right: &'v Expression,
    ) -> Known<Value<'v>> {
        let left = self.value(left)?;
        let goes_on = match operator {
            LogicalOperator::And => holds(left)?,
            LogicalOperator::Or => !holds(left)?,
            LogicalOperator::Coalesce => match left {
                Value::Undefined | Value::Null => true,
                Value::Opaque => return Err(Beyond),
                _ => false,
            },
        };
        match goes_on {
            true => self.value(right),
            false => Ok(left),
        }
    }

    fn body(&mut self, body: &'v Body) -> Known<Value<'v>> {
        match self.statements(&body.statements)? {
            Flow::On => match &body.value {
                Some(value) => self.value(value),
                None => Ok(Value::Undefined),
            },
            Flow::Return(value) => Ok(value),
            Flow::Break | Flow::Continue | Flow::Said(_) => Err(Beyond),
        }
    }

    fn search(&mut self, search: &'v Search) -> Known<Value<'v>> {
        use SearchKind::{Every, Find, FindIndex, FindLast, FindLastIndex, Some as Any};
        let items = list(self.value(&search.list)?)?;
        let is_from_behind = matches!(search.kind, FindLast | FindLastIndex);
        for step in 0..items.len() {
            let place = match is_from_behind {
                true => items.len() - 1 - step,
                false => step,
            };
            self.pay(search.cost)?;
            let item = items[place].value();
            let at = place_of(place);
            self.assign(search.item, item)?;
            self.assign(search.place, at)?;
            if holds(self.body(&search.test)?)? == (search.kind == Every) {
                continue;
            }
            return Ok(match search.kind {
                Find | FindLast => item,
                FindIndex | FindLastIndex => at,
                Any => Value::Bool(true),
                Every => Value::Bool(false),
            });
        }
        Ok(match search.kind {
            Find | FindLast => Value::Undefined,
            FindIndex | FindLastIndex => Value::Number(-1.0),
            Any => Value::Bool(false),
            Every => Value::Bool(true),
        })
    }

    fn function(&mut self, function: Function, given: &'v [Expression]) -> Known<Value<'v>> {
        // Each is computed, also where there are more than it takes.
        let mut first = [Value::Undefined; 2];
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        for (place, expression) in given.iter().enumerate() {
            let value = self.value(expression)?;
            if let Some(kept) = first.get_mut(place) {
                *kept = value;
            }
            if matches!(function, Function::Min | Function::Max) {
                let value = number_of(value)?;
                least = number::min(least, value);
                greatest = number::max(greatest, value);
            }
        }
        let is_number = |holds: fn(f64) -> bool| match first[0] {
            Value::Opaque => Err(Beyond),
            Value::Number(value) => Ok(Value::Bool(holds(value))),
            _ => Ok(Value::Bool(false)),
        };
        let number = || number_of(first[0]);
        Ok(match function {
            Function::Math(compute) => Value::Number(compute(number()?)),
            Function::Math2(compute) => Value::Number(compute(number()?, number_of(first[1])?)),
            Function::Min => Value::Number(least),
            Function::Max => Value::Number(greatest),
            Function::Number => Value::Number(number()?),
            Function::Boolean => Value::Bool(holds(first[0])?),
            Function::IsNaN => Value::Bool(number()?.is_nan()),
            Function::IsFinite => Value::Bool(number()?.is_finite()),
            Function::NumberIsNaN => is_number(f64::is_nan)?,
            Function::NumberIsFinite => is_number(f64::is_finite)?,
            Function::NumberIsInteger => {
                is_number(|value| value.is_finite() && value.fract() == 0.0)?
            }
        })
    }
}

fn list(value: Value<'_>) -> Known<&[Constant]> {
    match value {
        Value::List(items) => Ok(items),
        _ => Err(Beyond),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a list that stands in a script has fewer than 2^53 items"
)]
fn place_of(place: usize) -> Value<'static> {
    Value::Number(place as f64)
}

/// `ToBoolean`.
fn holds(value: Value<'_>) -> Known<bool> {
    Ok(match value {
        Value::Undefined | Value::Null => false,
        Value::Bool(value) => value,
        Value::Number(value) => value != 0.0 && !value.is_nan(),
        Value::Text(value) => !value.is_empty(),
        Value::List(_) | Value::Table(_) => true,
        Value::Opaque => return Err(Beyond),
    })
}

/// `ToNumber`, of what is no text.
fn number_of(value: Value<'_>) -> Known<f64> {
    Ok(match value {
        Value::Undefined => f64::NAN,
        Value::Null => 0.0,
        Value::Bool(value) => f64::from(u8::from(value)),
        Value::Number(value) => value,
        Value::Text(_) | Value::List(_) | Value::Table(_) | Value::Opaque => return Err(Beyond),
    })
}

fn unary(operator: UnaryOperator, value: Value<'_>) -> Known<Value<'_>> {
    Ok(match operator {
        UnaryOperator::UnaryPlus => Value::Number(number_of(value)?),
        UnaryOperator::UnaryNegation => Value::Number(-number_of(value)?),
        UnaryOperator::BitwiseNot => Value::Number(f64::from(!number::int32(number_of(value)?))),
        UnaryOperator::LogicalNot => Value::Bool(!holds(value)?),
        UnaryOperator::Typeof => Value::Text(match value {
            Value::Undefined => "undefined",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::Text(_) => "string",
            Value::Null | Value::List(_) | Value::Table(_) => "object",
            Value::Opaque => return Err(Beyond),
        }),
        UnaryOperator::Void | UnaryOperator::Delete => return Err(Beyond),
    })
}

fn binary<'v>(operator: BinaryOperator, left: Value<'v>, right: Value<'v>) -> Known<Value<'v>> {
    match operator {
        BinaryOperator::StrictEquality => return is_same(left, right).map(Value::Bool),
        BinaryOperator::StrictInequality => return is_same(left, right).map(|is| Value::Bool(!is)),
        BinaryOperator::Equality => return is_alike(left, right).map(Value::Bool),
        BinaryOperator::Inequality => return is_alike(left, right).map(|is| Value::Bool(!is)),
        _ => {}
    }
    if let (Value::Text(left), Value::Text(right)) = (left, right) {
        // Texts are compared by units of UTF-16, which bytes of ASCII are.
        let is_known = left.is_ascii() && right.is_ascii();
        let is_so = number::is_so(operator, Some(left.cmp(right)));
        return is_so.filter(|_| is_known).map(Value::Bool).ok_or(Beyond);
    }
    let (left, right) = (number_of(left)?, number_of(right)?);
    if let Some(is_so) = number::is_so(operator, left.partial_cmp(&right)) {
        return Ok(Value::Bool(is_so));
    }
    let computed = number::arithmetic(operator, left, right);
    computed.map(Value::Number).ok_or(Beyond)
}

/// `===`.
fn is_same(left: Value<'_>, right: Value<'_>) -> Known<bool> {
    Ok(match (left, right) {
        (Value::Opaque, _) | (_, Value::Opaque) => return Err(Beyond),
        // The same or one like it: not known.
        (Value::List(_), Value::List(_)) | (Value::Table(_), Value::Table(_)) => {
            return Err(Beyond);
        }
        (Value::Undefined, Value::Undefined) | (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Number(left), Value::Number(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        _ => false,
    })
}

/// `==`.
fn is_alike(left: Value<'_>, right: Value<'_>) -> Known<bool> {
    match (left, right) {
        (Value::Undefined, Value::Null) | (Value::Null, Value::Undefined) => Ok(true),
        (Value::Number(_), Value::Bool(_)) | (Value::Bool(_), Value::Number(_)) => {
            Ok(number_of(left)? == number_of(right)?)
        }
        (Value::Undefined | Value::Null, _) | (_, Value::Undefined | Value::Null) => {
            is_same(left, right)
        }
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Text(_), Value::Text(_)) => is_same(left, right),
        _ => Err(Beyond),
    }
}

fn member<'v>(of: Value<'v>, name: &str) -> Known<Value<'v>> {
    match of {
        Value::List(items) if name == "length" => Ok(place_of(items.len())),
        Value::Text(text) if name == "length" => Ok(place_of(text.encode_utf16().count())),
        Value::Table(table) => own(table, name),
        _ => Err(Beyond),
    }
}

fn own<'v>(table: &'v Table, name: &str) -> Known<Value<'v>> {
    match table.get(name) {
        Some(constant) => Ok(constant.value()),
        None if OBJECT_MEMBERS.contains(&name) => Err(Beyond),
        None => Ok(Value::Undefined),
    }
}

fn element<'v>(of: Value<'v>, key: Value<'v>) -> Known<Value<'v>> {
    match (of, key) {
        (Value::List(items), Value::Number(place)) => {
            let item = whole(place).and_then(|place| items.get(usize::try_from(place).ok()?));
            Ok(item.map_or(Value::Undefined, Constant::value))
        }
        (Value::Table(table), Value::Text(name)) => own(table, name),
        (Value::Table(table), Value::Number(number)) => {
            let number = whole(number).ok_or(Beyond)?;
            own(table, itoa::Buffer::new().format(number))
        }
        _ => Err(Beyond),
    }
}

/// A whole number that is exact.
pub(super) fn whole(number: f64) -> Option<i64> {
    /// 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is whole and below 2^53"
    )]
    (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
}

fn output(value: Value<'_>) -> Known<Output> {
    Ok(match value {
        Value::Undefined => Output::Kept,
        Value::Null => Output::Dropped,
        Value::Bool(value) => Output::Value(if value { "true" } else { "false" }.into()),
        Value::Number(value) if value.is_finite() => Output::Number(value),
        Value::Text(value) => Output::Value(serde_json::Value::from(value).to_string().into()),
        Value::Number(_) | Value::List(_) | Value::Table(_) | Value::Opaque => return Err(Beyond),
    })
}
