//! Plain scripts: what a row of a policy needs no engine for.
//!
//! ```text
//! Plain::compile ─▶ a parser (oxc) ─▶ compile: names become numbers, calls are put in place ─▶ tree
//! Plain::say     ─▶ run: the tree over the values of a row
//! ```
//!
//! Most scripts of policies are arithmetic, branches and a table. Such a one is compiled, once, and said
//! of a row in its turn: no process is asked and no text is written. JavaScript is what the engine
//! says it is, so this part is never sure by half. What the compiler does not know whole makes a script
//! none of its ([`NotPlain`] says where); where a value comes that an operation is not known for, or
//! anything would be thrown, nothing is said of the row and the engine is asked, which also finds the
//! words. Nothing here allocates by a row's wishes, recurses or runs on: what is compiled is bounded, and
//! so are its loops (ADR 19).

mod compile;
mod number;
mod run;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;

use super::rows::{Output, Rows};
pub use tree::Value;

/// A script over rows, compiled.
#[derive(Debug)]
pub struct Plain {
    /// What becomes of a row.
    body: Box<[tree::Statement]>,
    /// Values that stand in the source, by number.
    shared: Box<[tree::Constant]>,
    /// How many variables it has; the first ones are what it reads.
    variables: usize,
    /// How many points it gives values to.
    points: usize,
}

/// Where a script is more than plain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotPlain {
    /// From 1.
    pub line: u32,
    /// What stands there, as far as it is shown; empty where the script as a whole is the reason.
    pub what: Box<str>,
}

impl fmt::Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.what {
            "" => f.write_str("the script as a whole"),
            what => write!(f, "line {}: {what}", self.line),
        }
    }
}

impl Plain {
    /// # Errors
    /// The first thing that only an engine can run. It says nothing about whether the script is right.
    pub fn compile(source: &str, rows: &Rows) -> Result<Self, NotPlain> {
        compile::compile(source, rows)
    }

    /// What the script says of a row, given the values that it reads in their order; for each of its points.
    /// `None` where only an engine can say it.
    pub fn say<'v>(&'v self, row: impl IntoIterator<Item = Value<'v>>) -> Option<Vec<Output>> {
        run::run(self, row)
    }
}
