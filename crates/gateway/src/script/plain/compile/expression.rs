//! Expressions, and what is said of a row.

use oxc_ast::ast::{
    AssignmentExpression, AssignmentOperator, AssignmentTarget, CallExpression,
    Expression as Written, IdentifierReference, ObjectExpression, ObjectPropertyKind, PropertyKind,
    SimpleAssignmentTarget, StaticMemberExpression, UnaryOperator, UpdateExpression,
    UpdateOperator,
};
use oxc_span::{GetSpan, Span};

use super::{
    super::{
        number,
        run::OBJECT_MEMBERS,
        tree::{Constant, Expression, Function, Said, Search, SearchKind},
    },
    Compiler, Made,
    names::{Name, Record},
};

impl<'a> Compiler<'a> {
    pub(super) fn expression(&mut self, written: &'a Written<'a>) -> Made<Expression> {
        self.deeper(written.span(), |compiler| compiler.expression_of(written))
    }

    fn boxed(&mut self, written: &'a Written<'a>) -> Made<Box<Expression>> {
        self.expression(written).map(Box::new)
    }

    fn both(
        &mut self,
        left: &'a Written<'a>,
        right: &'a Written<'a>,
    ) -> Made<Box<(Expression, Expression)>> {
        Ok(Box::new((self.expression(left)?, self.expression(right)?)))
    }

    fn expression_of(&mut self, written: &'a Written<'a>) -> Made<Expression> {
        Ok(match written {
            Written::ParenthesizedExpression(inner) => self.expression(&inner.expression)?,
            Written::NullLiteral(_) => Self::scalar(Constant::Null),
            Written::BooleanLiteral(literal) => Self::scalar(Constant::Bool(literal.value)),
            Written::NumericLiteral(literal) => Self::scalar(Constant::Number(literal.value)),
            Written::StringLiteral(literal) if !literal.lone_surrogates => {
                Self::scalar(Constant::Text(literal.value.as_str().into()))
            }
            Written::Identifier(id) => self.name(id)?,
            Written::UnaryExpression(unary) => match unary.operator {
                UnaryOperator::Void | UnaryOperator::Delete => return Err(unary.span),
                operator => Expression::Unary(operator, self.boxed(&unary.argument)?),
            },
            Written::BinaryExpression(binary) => {
                if binary.operator.is_in() || binary.operator.is_instance_of() {
                    return Err(binary.span);
                }
                Expression::Binary(binary.operator, self.both(&binary.left, &binary.right)?)
            }
            Written::LogicalExpression(logical) => {
                Expression::Logical(logical.operator, self.both(&logical.left, &logical.right)?)
            }
            Written::ConditionalExpression(choice) => Expression::Choice(Box::new((
                self.expression(&choice.test)?,
                self.expression(&choice.consequent)?,
                self.expression(&choice.alternate)?,
            ))),
            Written::AssignmentExpression(assignment) => self.assignment(assignment)?,
            Written::UpdateExpression(update) => self.update(update)?,
            Written::StaticMemberExpression(member) if !member.optional => self.member(member)?,
            Written::ComputedMemberExpression(element) if !element.optional => {
                Expression::Element(self.both(&element.object, &element.expression)?)
            }
            Written::CallExpression(call) if !call.optional => self.called(call)?,
            other => return Err(other.span()),
        })
    }

    fn name(&self, id: &'a IdentifierReference<'a>) -> Made<Expression> {
        match self.names.find(&id.name) {
            Some(Name::Variable { number, .. }) => Ok(Expression::Variable(*number)),
            Some(Name::Shared(number)) => Ok(Expression::Shared(*number)),
            // An object or a function goes nowhere else.
            Some(Name::Later | Name::Function(_) | Name::Record(_)) => Err(id.span),
            None => {
                let constant = match id.name.as_str() {
                    "undefined" => Constant::Undefined,
                    "NaN" => Constant::Number(f64::NAN),
                    "Infinity" => Constant::Number(f64::INFINITY),
                    _ => return Err(id.span),
                };
                Ok(Self::scalar(constant))
            }
        }
    }

    /// A variable that may be given another value.
    fn changeable(&self, name: &str, span: Span) -> Made<usize> {
        match self.names.find(name) {
            Some(Name::Variable {
                number,
                is_fixed: false,
            }) => Ok(*number),
            _ => Err(span),
        }
    }

    fn assignment(&mut self, written: &'a AssignmentExpression<'a>) -> Made<Expression> {
        let is_plain = written.operator == AssignmentOperator::Assign;
        let variable = match &written.left {
            AssignmentTarget::AssignmentTargetIdentifier(id) => {
                self.changeable(&id.name, id.span)?
            }
            AssignmentTarget::StaticMemberExpression(member) if !member.optional => {
                match self.own_member(member) {
                    Some(variable) => variable,
                    None if is_plain => {
                        let value = self.boxed(&written.right)?;
                        return Ok(Expression::Assign(self.new_member(member)?, value));
                    }
                    None => return Err(member.span),
                }
            }
            other => return Err(other.span()),
        };
        let value = self.expression(&written.right)?;
        let before = Expression::Variable(variable);
        if let Some(operator) = written.operator.to_logical_operator() {
            let assigned = Expression::Assign(variable, Box::new(value));
            return Ok(Expression::Logical(operator, Box::new((before, assigned))));
        }
        let value = match written.operator.to_binary_operator() {
            Some(operator) => Expression::Binary(operator, Box::new((before, value))),
            None => value,
        };
        Ok(Expression::Assign(variable, Box::new(value)))
    }

    fn update(&mut self, written: &'a UpdateExpression<'a>) -> Made<Expression> {
        let variable = match &written.argument {
            SimpleAssignmentTarget::AssignmentTargetIdentifier(id) => {
                self.changeable(&id.name, id.span)?
            }
            SimpleAssignmentTarget::StaticMemberExpression(member) if !member.optional => {
                self.own_member(member).ok_or(member.span)?
            }
            other => return Err(other.span()),
        };
        let by = match written.operator {
            UpdateOperator::Increment => 1.0,
            UpdateOperator::Decrement => -1.0,
        };
        Ok(Expression::Count {
            variable,
            by,
            is_prefix: written.prefix,
        })
    }

    /// The variable of a record's member that is there.
    fn own_member(&mut self, written: &'a StaticMemberExpression<'a>) -> Option<usize> {
        let Written::Identifier(id) = &written.object else {
            return None;
        };
        let record = self.names.find_record(&id.name)?;
        record.members.get(written.property.name.as_str()).copied()
    }

    /// A member that a record has from here on. In a loop it may have had it before.
    fn new_member(&mut self, written: &'a StaticMemberExpression<'a>) -> Made<usize> {
        let name = written.property.name.as_str();
        let Written::Identifier(id) = &written.object else {
            return Err(written.span);
        };
        let variable = self.new_variable();
        match self.names.find_record(&id.name) {
            Some(record) if !OBJECT_MEMBERS.contains(&name) => {
                record.members.insert(name.to_owned(), variable);
                Ok(variable)
            }
            _ => Err(written.span),
        }
    }

    fn member(&mut self, written: &'a StaticMemberExpression<'a>) -> Made<Expression> {
        let name = written.property.name.as_str();
        if let Written::Identifier(id) = &written.object {
            if let Some(variable) = self.own_member(written) {
                return Ok(Expression::Variable(variable));
            }
            match self.names.find(&id.name) {
                // In a loop it may be there by then.
                Some(Name::Record(_)) if self.loops > 0 || OBJECT_MEMBERS.contains(&name) => {
                    return Err(written.span);
                }
                Some(Name::Record(_)) => return Ok(Self::scalar(Constant::Undefined)),
                None if id.name == "Math" => {
                    let number = math_constant(name).ok_or(written.span)?;
                    return Ok(Self::scalar(Constant::Number(number)));
                }
                _ => {}
            }
        }
        let of = self.boxed(&written.object)?;
        Ok(Expression::Member(of, name.into()))
    }

    fn called(&mut self, call: &'a CallExpression<'a>) -> Made<Expression> {
        match call.callee.without_parentheses() {
            Written::Identifier(id) => match self.names.find(&id.name) {
                Some(Name::Function(function)) => {
                    let function = *function;
                    let given = self.given(call)?;
                    self.call(function, given)
                }
                Some(_) => Err(id.span),
                None => {
                    let function = global_function(&id.name).ok_or(id.span)?;
                    self.of_the_language(function, call)
                }
            },
            Written::StaticMemberExpression(member) if !member.optional => {
                let name = member.property.name.as_str();
                if let Written::Identifier(id) = &member.object
                    && self.names.find(&id.name).is_none()
                {
                    let function = match id.name.as_str() {
                        "Math" => math_function(name),
                        "Number" => number_function(name),
                        _ => None,
                    };
                    return self.of_the_language(function.ok_or(member.span)?, call);
                }
                self.asked_of_list(member, call)
            }
            other => Err(other.span()),
        }
    }

    fn given(&mut self, call: &'a CallExpression<'a>) -> Made<Vec<Expression>> {
        let given = call.arguments.iter().map(|argument| {
            let written = argument.as_expression().ok_or_else(|| argument.span())?;
            self.expression(written)
        });
        given.collect()
    }

    fn of_the_language(
        &mut self,
        function: Function,
        call: &'a CallExpression<'a>,
    ) -> Made<Expression> {
        let given = self.given(call)?;
        let is_whole = match function {
            // `Number()` is zero and `Number(undefined)` is not; `hypot` takes any count.
            Function::Number => !given.is_empty(),
            Function::Math2(_) => given.len() == 2,
            _ => true,
        };
        if !is_whole {
            return Err(call.span);
        }
        Ok(Expression::Function(function, given.into()))
    }

    fn asked_of_list(
        &mut self,
        member: &'a StaticMemberExpression<'a>,
        call: &'a CallExpression<'a>,
    ) -> Made<Expression> {
        let kind = match member.property.name.as_str() {
            "find" => SearchKind::Find,
            "findLast" => SearchKind::FindLast,
            "findIndex" => SearchKind::FindIndex,
            "findLastIndex" => SearchKind::FindLastIndex,
            "some" => SearchKind::Some,
            "every" => SearchKind::Every,
            "includes" => {
                let list = self.expression(&member.object)?;
                let given = <[Expression; 1]>::try_from(self.given(call)?);
                let [sought] = given.map_err(|_| call.span)?;
                return Ok(Expression::Includes(Box::new((list, sought))));
            }
            _ => return Err(call.span),
        };
        let list = self.expression(&member.object)?;
        let [argument] = call.arguments.as_slice() else {
            return Err(call.span);
        };
        let written = argument.as_expression().ok_or_else(|| argument.span())?;
        let named = match written {
            Written::Identifier(id) => match self.names.find(&id.name) {
                Some(Name::Function(function)) => Some(*function),
                _ => None,
            },
            _ => None,
        };
        let function = match named {
            Some(function) => function,
            None => self.callable(written)?.ok_or_else(|| written.span())?,
        };
        let ((test, item, place), cost) = self.repeated(|compiler| compiler.asked(function))?;
        Ok(Expression::Search(Box::new(Search {
            list,
            kind,
            item,
            place,
            test,
            cost,
        })))
    }

    /// What is said of the row by a value of the script's own function.
    pub(super) fn said(&mut self, written: &'a Written<'a>) -> Made<Said> {
        match written.without_parentheses() {
            Written::ObjectExpression(object) => {
                let members = self.members(object)?;
                self.object(members, object.span)
            }
            Written::Identifier(id) if self.record_of(written).is_some() => {
                let record = self.whole_record(written, id.span)?;
                self.object(members_of(&record), id.span)
            }
            Written::ConditionalExpression(choice) => self.deeper(choice.span, |compiler| {
                Ok(Said::Choice(Box::new((
                    compiler.expression(&choice.test)?,
                    compiler.said(&choice.consequent)?,
                    compiler.said(&choice.alternate)?,
                ))))
            }),
            other => self.expression(other).map(Said::Bare),
        }
    }

    fn object(&self, members: Vec<(String, Expression)>, span: Span) -> Made<Said> {
        let members = members.into_iter().map(|(name, value)| {
            let mut points = self.rows.points.iter();
            let point = points.position(|point| **point == *name);
            point.map(|point| (point, value)).ok_or(span)
        });
        members.collect::<Made<_>>().map(Said::Object)
    }

    /// The record that an expression is the name of.
    pub(super) fn record_of(&self, written: &'a Written<'a>) -> Option<Record> {
        let Written::Identifier(id) = written.without_parentheses() else {
            return None;
        };
        match self.names.find(&id.name)? {
            Name::Record(record) => Some(record.clone()),
            Name::Later | Name::Variable { .. } | Name::Shared(_) | Name::Function(_) => None,
        }
    }

    /// The record that an expression is the name of, with all of its members: in a loop it may have more of
    /// them by then.
    fn whole_record(&self, written: &'a Written<'a>, span: Span) -> Made<Record> {
        let record = self.record_of(written).filter(|_| self.loops == 0);
        record.ok_or(span)
    }

    /// The members of an object as it is written, each once.
    pub(super) fn members(
        &mut self,
        object: &'a ObjectExpression<'a>,
    ) -> Made<Vec<(String, Expression)>> {
        let mut members: Vec<(String, Expression)> = Vec::new();
        for property in &object.properties {
            let new = match property {
                ObjectPropertyKind::SpreadProperty(spread) => {
                    let record = self.whole_record(&spread.argument, spread.span)?;
                    members_of(&record)
                }
                ObjectPropertyKind::ObjectProperty(_) => {
                    let (name, value) = self.property(property)?;
                    vec![(name, self.expression(value)?)]
                }
            };
            for (name, value) in new {
                // What is overwritten is computed all the same, unless it is a variable.
                match members.iter().position(|(known, _)| *known == name) {
                    Some(place) if matches!(members[place].1, Expression::Variable(_)) => {
                        members.remove(place);
                    }
                    Some(_) => return Err(property.span()),
                    None => {}
                }
                members.push((name, value));
            }
        }
        Ok(members)
    }

    /// A member as it is written, and its value.
    pub(super) fn property(
        &self,
        property: &'a ObjectPropertyKind<'a>,
    ) -> Made<(String, &'a Written<'a>)> {
        match property {
            ObjectPropertyKind::ObjectProperty(member)
                if member.kind == PropertyKind::Init && !member.computed && !member.method =>
            {
                let name = member.key.static_name().ok_or(member.span)?;
                match OBJECT_MEMBERS.contains(&&*name) {
                    true => Err(member.span),
                    false => Ok((name.into_owned(), &member.value)),
                }
            }
            other => Err(other.span()),
        }
    }
}

fn members_of(record: &Record) -> Vec<(String, Expression)> {
    let members = record.members.iter();
    let members = members.map(|(name, number)| (name.clone(), Expression::Variable(*number)));
    members.collect()
}

fn global_function(name: &str) -> Option<Function> {
    Some(match name {
        "Number" => Function::Number,
        "Boolean" => Function::Boolean,
        "isNaN" => Function::IsNaN,
        "isFinite" => Function::IsFinite,
        _ => return None,
    })
}

fn number_function(name: &str) -> Option<Function> {
    Some(match name {
        "isNaN" => Function::NumberIsNaN,
        "isFinite" => Function::NumberIsFinite,
        "isInteger" => Function::NumberIsInteger,
        _ => return None,
    })
}

/// Those that the engine and this program take from the same library of C, and those that are exact.
fn math_function(name: &str) -> Option<Function> {
    Some(match name {
        "abs" => Function::Math(f64::abs),
        "floor" => Function::Math(f64::floor),
        "ceil" => Function::Math(f64::ceil),
        "trunc" => Function::Math(f64::trunc),
        "round" => Function::Math(number::round),
        "sign" => Function::Math(number::sign),
        "sqrt" => Function::Math(f64::sqrt),
        "cbrt" => Function::Math(f64::cbrt),
        "exp" => Function::Math(f64::exp),
        "expm1" => Function::Math(f64::exp_m1),
        "log" => Function::Math(f64::ln),
        "log1p" => Function::Math(f64::ln_1p),
        "log2" => Function::Math(f64::log2),
        "log10" => Function::Math(f64::log10),
        "sin" => Function::Math(f64::sin),
        "cos" => Function::Math(f64::cos),
        "tan" => Function::Math(f64::tan),
        "asin" => Function::Math(f64::asin),
        "acos" => Function::Math(f64::acos),
        "atan" => Function::Math(f64::atan),
        "atan2" => Function::Math2(f64::atan2),
        "pow" => Function::Math2(number::power),
        "hypot" => Function::Math2(f64::hypot),
        "min" => Function::Min,
        "max" => Function::Max,
        _ => return None,
    })
}

fn math_constant(name: &str) -> Option<f64> {
    use std::f64::consts;
    Some(match name {
        "PI" => consts::PI,
        "E" => consts::E,
        "LN2" => consts::LN_2,
        "LN10" => consts::LN_10,
        "LOG2E" => consts::LOG2_E,
        "LOG10E" => consts::LOG10_E,
        "SQRT2" => consts::SQRT_2,
        "SQRT1_2" => consts::FRAC_1_SQRT_2,
        _ => return None,
    })
}
