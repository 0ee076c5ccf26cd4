//! What names stand for, block by block.

use std::collections::{BTreeMap, HashMap};

use super::function::Callable;

/// Names that the language has and that are known here: a script that declares one is not plain.
const OF_THE_LANGUAGE: [&str; 9] = [
    "Boolean",
    "Infinity",
    "Math",
    "NaN",
    "Number",
    "Object",
    "isFinite",
    "isNaN",
    "undefined",
];

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Name<'a> {
    /// It is declared further down.
    Later,
    Variable {
        number: usize,
        is_fixed: bool,
    },
    /// A value that stands in the script, by number.
    Shared(usize),
    Function(Callable<'a>),
    Record(Record),
}

/// An object that is made for a row and nobody else holds: each of its members is a variable.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) members: BTreeMap<String, usize>,
}

#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    blocks: Vec<HashMap<&'a str, Name<'a>>>,
}

impl<'a> Names<'a> {
    pub(super) fn enter(&mut self) {
        self.blocks.push(HashMap::new());
    }

    pub(super) fn leave(&mut self) {
        self.blocks.pop();
    }

    /// How many blocks are open.
    pub(super) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Closes all blocks but the first ones, as a function sees them from where it stands.
    pub(super) fn only(&mut self, depth: usize) -> Vec<HashMap<&'a str, Name<'a>>> {
        self.blocks.split_off(depth)
    }

    /// Opens them again.
    pub(super) fn again(&mut self, blocks: Vec<HashMap<&'a str, Name<'a>>>) {
        self.blocks.extend(blocks);
    }

    /// Declares a name in the innermost block; false where it must not be.
    #[must_use]
    pub(super) fn declare(&mut self, name: &'a str, stands_for: Name<'a>) -> bool {
        let is_free = !OF_THE_LANGUAGE.contains(&name);
        let block = self.blocks.last_mut();
        is_free && block.is_some_and(|block| block.insert(name, stands_for).is_none())
    }

    /// What a name that was declared in the innermost block stands for from here on.
    pub(super) fn set(&mut self, name: &'a str, stands_for: Name<'a>) {
        if let Some(block) = self.blocks.last_mut() {
            block.insert(name, stands_for);
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<&Name<'a>> {
        self.blocks.iter().rev().find_map(|block| block.get(name))
    }

    pub(super) fn find_record(&mut self, name: &str) -> Option<&mut Record> {
        let mut blocks = self.blocks.iter_mut().rev();
        match blocks.find_map(|block| block.get_mut(name))? {
            Name::Record(record) => Some(record),
            Name::Later | Name::Variable { .. } | Name::Shared(_) | Name::Function(_) => None,
        }
    }
}
