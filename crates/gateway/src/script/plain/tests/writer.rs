//! Writes scripts from choices. Where those have run out it takes what is shortest, so that what is found
//! shrinks.

/// A whole script.
pub(super) fn script(choices: &[u8]) -> String {
    let mut writer = Writer {
        choices,
        locals: vec![],
        is_row_there: false,
    };
    let helper = writer.expression(3);
    writer.is_row_there = true;
    let mut body = String::new();
    for _ in 0..writer.choose(5) {
        body += &writer.statement(2);
    }
    let said = writer.said(2);
    format!(
        "const K = 2.5, T = [[0, 0.4], [1, 0.62], [20, -0.71]], S = {{ run: 1, stop: null, 7: 'x' }};\n\
         function helper(p, q) {{ if (p > q) return p; return {}; }}\n\
         function transform(row) {{\n  const out = {{}};\n{body}  return {said};\n}}",
        helper.replace("row.", "K + ")
    )
}

struct Writer<'c> {
    choices: &'c [u8],
    locals: Vec<String>,
    is_row_there: bool,
}

const NUMBERS: [&str; 12] = [
    "1",
    "0",
    "-1",
    "0.5",
    "2",
    "1e21",
    "1e-7",
    "3.7",
    "2147483648",
    "9007199254740993",
    "NaN",
    "31",
];
const BINARY: [&str; 22] = [
    "+", "-", "*", "/", "%", "**", "<", "<=", ">", ">=", "===", "!==", "==", "!=", "&", "|", "^",
    "<<", ">>", ">>>", "&&", "||",
];
const MATH: [&str; 26] = [
    "abs", "floor", "ceil", "trunc", "round", "sign", "sqrt", "cbrt", "exp", "expm1", "log",
    "log1p", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "pow", "min",
    "max", "hypot", "fround",
];

impl Writer<'_> {
    /// A number below `count`.
    fn choose(&mut self, count: usize) -> usize {
        match self.choices.split_first() {
            Some((first, rest)) => {
                self.choices = rest;
                usize::from(*first) % count
            }
            None => 0,
        }
    }

    fn of<'o>(&mut self, options: &[&'o str]) -> &'o str {
        options[self.choose(options.len())]
    }

    fn leaf(&mut self) -> String {
        let choice = self.choose(9);
        match choice {
            0..=2 if self.is_row_there => self.of(&["row.a", "row.b", "row.t", "row.f"]).to_owned(),
            3 | 4 if !self.locals.is_empty() => {
                let place = self.choose(self.locals.len());
                self.locals[place].clone()
            }
            5 => self
                .of(&["null", "undefined", "true", "'run'", "'é'", "''"])
                .to_owned(),
            6 => self
                .of(&["K", "T[1][0]", "T.length", "S.run", "S.none", "out.x"])
                .to_owned(),
            _ => self.of(&NUMBERS).to_owned(),
        }
    }

    fn expression(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.leaf();
        }
        let choice = self.choose(16);
        let mut part = || self.expression(depth - 1);
        match choice {
            1..=4 => {
                let (left, right) = (part(), part());
                // A power takes no sign before its base.
                format!("(({left}) {} ({right}))", self.of(&BINARY))
            }
            5 => {
                let inner = part();
                format!("({} ({inner}))", self.of(&["-", "+", "!", "~", "typeof"]))
            }
            6 => format!("({} ? {} : {})", part(), part(), part()),
            7 => {
                let given = format!("{}, {}", part(), part());
                let count = self.choose(3);
                let name = self.of(&MATH);
                match count {
                    0 => format!(
                        "Math.{name}({})",
                        given
                            .split(", ")
                            .next()
                            .unwrap_or_default()
                            .matches('(')
                            .count()
                    ),
                    _ => format!("Math.{name}({given})"),
                }
            }
            8 => format!("helper({}, {})", part(), part()),
            9 => format!("T[{}]", part()),
            10 => format!("S[{}]", part()),
            11 => {
                let inner = part().replace("row.a", "(row.a - p)");
                let kind = self.of(&[
                    "find",
                    "findLast",
                    "findIndex",
                    "findLastIndex",
                    "some",
                    "every",
                ]);
                format!("(T.{kind}(([p, q], i) => {inner}) ?? 3)")
            }
            12 => format!("({} ?? {})", part(), part()),
            13 if !self.locals.is_empty() => {
                let place = self.choose(self.locals.len());
                let name = self.locals[place].clone();
                match self.choose(4) {
                    0 => format!("{name}++"),
                    1 => format!("--{name}"),
                    _ => {
                        let operator =
                            self.of(&["=", "+=", "*=", "??=", "&&=", "||=", "|=", "**=", ">>>="]);
                        format!("({name} {operator} {})", self.expression(depth - 1))
                    }
                }
            }
            14 => {
                let inner = self.expression(depth - 1);
                let name = self.of(&[
                    "Number",
                    "isNaN",
                    "isFinite",
                    "Number.isInteger",
                    "Boolean",
                    "Number.isNaN",
                ]);
                format!("{name}({inner})")
            }
            15 => format!("[1, 2, null, NaN].includes({})", self.expression(depth - 1)),
            _ => self.leaf(),
        }
    }

    fn statement(&mut self, depth: usize) -> String {
        let known = self.locals.len();
        let choice = self.choose(if depth == 0 { 4 } else { 9 });
        match choice {
            0 => {
                let value = self.expression(2);
                let name = format!("v{known}");
                self.locals.push(name.clone());
                format!("  let {name} = {value};\n")
            }
            1 => format!("  out.{} = {};\n", self.of(&["x", "y"]), self.expression(2)),
            2 => format!("  row.{} = {};\n", self.of(&["a", "b"]), self.expression(2)),
            3 => format!("  {};\n", self.expression(3)),
            4 => {
                let test = self.expression(2);
                let text = format!(
                    "  if ({test}) {{\n{}  }} else {{\n{}  }}\n",
                    self.inner(depth, known),
                    self.inner(depth, known)
                );
                text
            }
            5 => {
                let body = self.inner(depth, known);
                format!(
                    "  for (let i = 0; i < {}; i++) {{\n{body}  if (i > 2) break;\n  }}\n",
                    self.expression(1)
                )
            }
            6 => {
                self.locals.push("p".to_owned());
                let body = self.inner(depth, known + 1);
                self.locals.truncate(known);
                let leaves = self.of(&["", "continue;", "if (p) break;"]);
                format!("  for (let [p, q] of T) {{\n{body}  {leaves}\n  }}\n")
            }
            7 => {
                let (value, first, second) =
                    (self.expression(1), self.expression(1), self.expression(1));
                let (one, two) = (self.inner(0, known), self.inner(0, known));
                let leaves = self.of(&["break;", ""]);
                format!(
                    "  switch ({value}) {{ case {first}: {{\n{one}  }} {leaves} default: {{\n{two}  }} case {second}: out.x = 3; }}\n"
                )
            }
            _ => {
                let test = self.expression(2);
                format!("  if ({test}) return {};\n", self.said(1))
            }
        }
    }

    /// Lines of a block, whose names end with it.
    fn inner(&mut self, depth: usize, known: usize) -> String {
        let mut lines = String::new();
        for _ in 0..=self.choose(2) {
            lines += &self.statement(depth.saturating_sub(1));
        }
        self.locals.truncate(known);
        lines
    }

    fn said(&mut self, depth: usize) -> String {
        match self.choose(6) {
            0 => "out".to_owned(),
            1 => "null".to_owned(),
            2 if depth > 0 => {
                let test = self.expression(1);
                format!(
                    "{test} ? {} : {}",
                    self.said(depth - 1),
                    self.said(depth - 1)
                )
            }
            3 => format!("{{ x: {}, y: {} }}", self.expression(2), self.expression(2)),
            _ => format!("{{ y: {} }}", self.expression(3)),
        }
    }
}
