//! Statements and what they declare.

use oxc_ast::ast::{
    BindingPattern, Expression as Written, ForStatementInit, ForStatementLeft, ObjectPattern,
    Statement as Line, SwitchStatement, VariableDeclaration, VariableDeclarationKind as Kind,
};
use oxc_span::{GetSpan, Span};

use super::{
    super::{
        run::OBJECT_MEMBERS,
        tree::{Case, Constant, Each, Expression, Loop, Statement},
    },
    Compiler, Made,
    function::{Callable, UNDEFINED},
    names::{Name, Record},
};

impl<'a> Compiler<'a> {
    pub(super) fn block(&mut self, lines: &'a [Line<'a>]) -> Made<Box<[Statement]>> {
        self.names.enter();
        self.declare_all(lines)?;
        let mut statements = Vec::new();
        for line in lines {
            self.line(line, &mut statements)?;
        }
        self.names.leave();
        Ok(statements.into())
    }

    /// A block knows its names from its beginning; its functions are there from the beginning too.
    pub(super) fn declare_all(&mut self, lines: &'a [Line<'a>]) -> Made<()> {
        for line in lines {
            match line {
                Line::VariableDeclaration(declaration) if declaration.kind != Kind::Var => {
                    for declarator in &declaration.declarations {
                        self.declare_later(&declarator.id)?;
                    }
                }
                Line::FunctionDeclaration(function) => {
                    let callable = Callable::declared(function, self.names.depth())?;
                    let id = function.id.as_ref().ok_or(function.span)?;
                    self.declare(&id.name, id.span, Name::Function(callable))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn declare_later(&mut self, pattern: &'a BindingPattern<'a>) -> Made<()> {
        match pattern {
            BindingPattern::BindingIdentifier(id) => self.declare(&id.name, id.span, Name::Later),
            BindingPattern::ObjectPattern(object) => {
                let mut members = object.properties.iter();
                members.try_for_each(|member| self.declare_later(&member.value))
            }
            BindingPattern::ArrayPattern(list) => {
                let mut items = list.elements.iter().flatten();
                items.try_for_each(|item| self.declare_later(item))
            }
            BindingPattern::AssignmentPattern(of) => self.declare_later(&of.left),
        }
    }

    pub(super) fn declare(&mut self, name: &'a str, span: Span, stands_for: Name<'a>) -> Made<()> {
        match self.names.declare(name, stands_for) {
            true => Ok(()),
            false => Err(span),
        }
    }

    fn line(&mut self, line: &'a Line<'a>, out: &mut Vec<Statement>) -> Made<()> {
        self.deeper(line.span(), |compiler| compiler.line_of(line, out))
    }

    fn line_of(&mut self, line: &'a Line<'a>, out: &mut Vec<Statement>) -> Made<()> {
        let statement = match line {
            Line::EmptyStatement(_) | Line::FunctionDeclaration(_) => return Ok(()),
            Line::VariableDeclaration(declaration) => return self.declaration(declaration, out),
            Line::BlockStatement(block) => {
                out.extend(self.block(&block.body)?);
                return Ok(());
            }
            Line::ExpressionStatement(line) => Statement::Do(self.expression(&line.expression)?),
            Line::IfStatement(line) => {
                let test = self.expression(&line.test)?;
                let then = self.branch(&line.consequent)?;
                let otherwise = line.alternate.as_ref().map(|line| self.branch(line));
                Statement::If(test, then, otherwise.transpose()?.unwrap_or_default())
            }
            Line::ReturnStatement(line) => self.returned(line.argument.as_ref())?,
            Line::ThrowStatement(_) => Statement::Ask,
            Line::SwitchStatement(line) => self.switch(line)?,
            Line::ForStatement(_) | Line::WhileStatement(_) | Line::ForOfStatement(_) => {
                self.names.enter();
                let statement = self.looped(line)?;
                self.names.leave();
                statement
            }
            Line::BreakStatement(line) if line.label.is_none() => Statement::Break,
            Line::ContinueStatement(line) if line.label.is_none() => Statement::Continue,
            other => return Err(other.span()),
        };
        out.push(statement);
        Ok(())
    }

    /// A line that is a block of its own, with braces or without.
    fn branch(&mut self, line: &'a Line<'a>) -> Made<Box<[Statement]>> {
        match line {
            Line::BlockStatement(block) => self.block(&block.body),
            // Only a block may declare.
            line if is_declaration(line) => Err(line.span()),
            other => {
                let mut out = Vec::new();
                self.line(other, &mut out)?;
                Ok(out.into())
            }
        }
    }

    fn returned(&mut self, value: Option<&'a Written<'a>>) -> Made<Statement> {
        match (value, self.calls) {
            // An error, in words of the engine's.
            (None, 0) => Ok(Statement::Ask),
            (None, _) => Ok(Statement::Return(UNDEFINED)),
            (Some(value), 0) => self.said(value).map(Statement::Say),
            (Some(value), _) => self.expression(value).map(Statement::Return),
        }
    }

    fn switch(&mut self, line: &'a SwitchStatement<'a>) -> Made<Statement> {
        let value = self.expression(&line.discriminant)?;
        // Tests come before any body, also those of the cases behind it.
        let tests = line.cases.iter().map(|case| {
            let test = case.test.as_ref();
            test.map(|test| self.expression(test)).transpose()
        });
        let tests = tests.collect::<Made<Vec<_>>>()?;
        let mut cases = Vec::with_capacity(tests.len());
        for (case, test) in line.cases.iter().zip(tests) {
            let mut body = Vec::new();
            for line in &case.consequent {
                // Cases share one block, and a name may be read in one that another declares.
                if is_declaration(line) {
                    return Err(line.span());
                }
                self.line(line, &mut body)?;
            }
            cases.push(Case {
                test,
                body: body.into(),
            });
        }
        Ok(Statement::Switch(value, cases.into()))
    }

    fn looped(&mut self, line: &'a Line<'a>) -> Made<Statement> {
        match line {
            Line::ForStatement(line) => {
                let mut begin = Vec::new();
                match &line.init {
                    None => {}
                    Some(ForStatementInit::VariableDeclaration(declaration)) => {
                        if declaration.kind != Kind::Var {
                            for declarator in &declaration.declarations {
                                self.declare_later(&declarator.id)?;
                            }
                        }
                        self.declaration(declaration, &mut begin)?;
                    }
                    Some(init) => {
                        let init = init.as_expression().ok_or_else(|| init.span())?;
                        begin.push(Statement::Do(self.expression(init)?));
                    }
                }
                let (test, update) = (line.test.as_ref(), line.update.as_ref());
                self.rounds(begin, test, update, &line.body)
            }
            Line::WhileStatement(line) => {
                self.rounds(Vec::new(), Some(&line.test), None, &line.body)
            }
            Line::ForOfStatement(line) if !line.r#await => {
                let ForStatementLeft::VariableDeclaration(declaration) = &line.left else {
                    return Err(line.left.span());
                };
                let [declarator] = declaration.declarations.as_slice() else {
                    return Err(declaration.span);
                };
                if declaration.kind != Kind::Var {
                    self.declare_later(&declarator.id)?;
                }
                let list = self.expression(&line.right)?;
                let item = self.new_variable();
                let (body, cost) = self.repeated(|compiler| {
                    let mut body = Vec::new();
                    let is_fixed = compiler.begin(declaration)?;
                    let value = Expression::Variable(item);
                    compiler.bind(&declarator.id, value, is_fixed, &mut body)?;
                    body.extend(compiler.branch(&line.body)?);
                    Ok(body.into())
                })?;
                Ok(Statement::Each(Box::new(Each {
                    list,
                    item,
                    body,
                    cost,
                })))
            }
            other => Err(other.span()),
        }
    }

    fn rounds(
        &mut self,
        begin: Vec<Statement>,
        test: Option<&'a Written<'a>>,
        update: Option<&'a Written<'a>>,
        body: &'a Line<'a>,
    ) -> Made<Statement> {
        let (parts, cost) = self.repeated(|compiler| {
            let test = test.map(|test| compiler.expression(test)).transpose()?;
            let body = compiler.branch(body)?;
            let update = update.map(|update| compiler.expression(update));
            Ok((test, update.transpose()?, body))
        })?;
        let (test, update, body) = parts;
        Ok(Statement::Loop(Box::new(Loop {
            begin: begin.into(),
            test,
            update,
            body,
            cost,
        })))
    }

    fn declaration(
        &mut self,
        declaration: &'a VariableDeclaration<'a>,
        out: &mut Vec<Statement>,
    ) -> Made<()> {
        let is_fixed = self.begin(declaration)?;
        for declarator in &declaration.declarations {
            match (&declarator.id, &declarator.init) {
                (BindingPattern::BindingIdentifier(id), Some(init)) => {
                    self.named(&id.name, init, is_fixed, out)?;
                }
                // Without a value it keeps that of the round before, where it is a `var`.
                (_, None) if declaration.kind == Kind::Var => return Err(declarator.span),
                (pattern, None) => self.bind(pattern, UNDEFINED, is_fixed, out)?,
                (pattern, Some(init)) => match self.record_of(init) {
                    Some(record) => self.take_apart(pattern, &record, is_fixed, out)?,
                    None => {
                        let value = self.expression(init)?;
                        self.bind(pattern, value, is_fixed, out)?;
                    }
                },
            }
        }
        Ok(())
    }

    /// Whether what is declared is fixed. A `var` reaches further than its block: it is plain only where
    /// its name means nothing else.
    fn begin(&mut self, declaration: &'a VariableDeclaration<'a>) -> Made<bool> {
        match declaration.kind {
            Kind::Const => Ok(true),
            Kind::Let => Ok(false),
            Kind::Using | Kind::AwaitUsing => Err(declaration.span),
            Kind::Var => {
                for declarator in &declaration.declarations {
                    let BindingPattern::BindingIdentifier(id) = &declarator.id else {
                        return Err(declarator.span);
                    };
                    if self.names.find(&id.name).is_some() {
                        return Err(id.span);
                    }
                    self.declare(&id.name, id.span, Name::Later)?;
                }
                Ok(false)
            }
        }
    }

    /// `const name = …`: a function, an object of its own, or a value.
    fn named(
        &mut self,
        name: &'a str,
        init: &'a Written<'a>,
        is_fixed: bool,
        out: &mut Vec<Statement>,
    ) -> Made<()> {
        if let Some(function) = self.callable(init)? {
            self.names.set(name, Name::Function(function));
            return Ok(());
        }
        match init.without_parentheses() {
            Written::ObjectExpression(object) => {
                // Each round would make another one.
                if self.loops > 0 {
                    return Err(object.span);
                }
                let mut record = Record::default();
                for (member, value) in self.members(object)? {
                    let number = self.new_variable();
                    out.push(Statement::Do(Expression::Assign(number, Box::new(value))));
                    record.members.insert(member, number);
                }
                self.names.set(name, Name::Record(record));
            }
            Written::ArrayExpression(_) => {
                let constant = self.constant(init)?;
                let shared = Expression::Shared(self.share(constant));
                self.assign_new(name, shared, is_fixed, out);
            }
            other => {
                let value = self.expression(other)?;
                self.assign_new(name, value, is_fixed, out);
            }
        }
        Ok(())
    }

    fn assign_new(
        &mut self,
        name: &'a str,
        value: Expression,
        is_fixed: bool,
        out: &mut Vec<Statement>,
    ) {
        let number = self.new_variable();
        out.push(Statement::Do(Expression::Assign(number, Box::new(value))));
        self.names.set(name, Name::Variable { number, is_fixed });
    }

    /// Gives the names of a pattern their parts of a value.
    pub(super) fn bind(
        &mut self,
        pattern: &'a BindingPattern<'a>,
        value: Expression,
        is_fixed: bool,
        out: &mut Vec<Statement>,
    ) -> Made<()> {
        match pattern {
            BindingPattern::BindingIdentifier(id) => {
                self.assign_new(&id.name, value, is_fixed, out);
                Ok(())
            }
            BindingPattern::AssignmentPattern(of) => {
                let otherwise = self.expression(&of.right)?;
                let value = Expression::Default(Box::new((value, otherwise)));
                self.bind(&of.left, value, is_fixed, out)
            }
            BindingPattern::ArrayPattern(list) => {
                // An empty pattern asks for a list all the same.
                if list.rest.is_some() || list.elements.iter().all(Option::is_none) {
                    return Err(list.span);
                }
                let whole = self.kept(value, out);
                for (place, item) in list.elements.iter().enumerate() {
                    let Some(item) = item else { continue };
                    let of = Box::new(Expression::Variable(whole));
                    self.bind(item, Expression::Item(of, place), is_fixed, out)?;
                }
                Ok(())
            }
            BindingPattern::ObjectPattern(object) => {
                let whole = self.kept(value, out);
                for (name, part) in parts(object)? {
                    let of = Box::new(Expression::Variable(whole));
                    self.bind(part, Expression::Member(of, name.into()), is_fixed, out)?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn kept(&mut self, value: Expression, out: &mut Vec<Statement>) -> usize {
        let number = self.new_variable();
        out.push(Statement::Do(Expression::Assign(number, Box::new(value))));
        number
    }

    /// Gives the names of a pattern the members of a record.
    pub(super) fn take_apart(
        &mut self,
        pattern: &'a BindingPattern<'a>,
        record: &Record,
        is_fixed: bool,
        out: &mut Vec<Statement>,
    ) -> Made<()> {
        let BindingPattern::ObjectPattern(object) = pattern else {
            return Err(pattern.span());
        };
        for (name, part) in parts(object)? {
            let value = match record.members.get(&name) {
                Some(number) => Expression::Variable(*number),
                None if self.loops > 0 || OBJECT_MEMBERS.contains(&name.as_str()) => {
                    return Err(object.span);
                }
                None => Expression::Constant(Constant::Undefined),
            };
            self.bind(part, value, is_fixed, out)?;
        }
        Ok(())
    }
}

fn is_declaration(line: &Line<'_>) -> bool {
    matches!(
        line,
        Line::VariableDeclaration(_) | Line::FunctionDeclaration(_) | Line::ClassDeclaration(_)
    )
}

/// Members of a pattern, with what they are bound to.
fn parts<'a>(object: &'a ObjectPattern<'a>) -> Made<Vec<(String, &'a BindingPattern<'a>)>> {
    if object.rest.is_some() || object.properties.is_empty() {
        return Err(object.span);
    }
    let parts = object.properties.iter().map(|part| {
        let name = part.key.static_name().filter(|_| !part.computed);
        Ok((name.ok_or(part.span)?.into_owned(), &part.value))
    });
    parts.collect()
}
