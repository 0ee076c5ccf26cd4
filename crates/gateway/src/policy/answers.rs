//! How scripts take part in a chain that knows no processes and waits for nobody.
//!
//! What a script says of a row depends on what it reads of it and on nothing else, so its answers are a
//! table. A pass of rows over a chain looks into the table. What is not there is noted as a question
//! and its row waits; whoever drives the pass has the questions answered and passes the messages that
//! wait again, from the beginning. Each pass gets past one more script of the chain at least, so it
//! ends after as many passes as the chain has scripts, and one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use backtide_model::{ElementName, Measurepoint, Objection, PointValue, Process, Processed};
use parking_lot::Mutex;

use super::Chain;
use crate::script::{Program, SaidOfRow};

/// What scripts said, by what they were given.
#[derive(Debug, Default)]
pub struct Answers(HashMap<u64, HashMap<Box<str>, SaidOfRow>>);

impl Answers {
    /// Takes what a program said of the rows that it was asked about.
    pub fn put(&mut self, question: &Question, said: Vec<SaidOfRow>) {
        let of_program = self.0.entry(question.program.id()).or_default();
        of_program.extend(question.rows.iter().cloned().zip(said));
    }

    fn find(&self, program: &Program, input: &str) -> Option<&SaidOfRow> {
        self.0.get(&program.id())?.get(input)
    }
}

/// Rows that a program is asked about.
#[derive(Debug)]
pub struct Question {
    pub program: Arc<Program>,
    /// JSON arrays of the values that it reads, each once.
    pub rows: Vec<Box<str>>,
}

/// Rows of messages on their way over a chain, with the answers that there are so far.
pub struct Pass<'p> {
    chain: &'p Chain,
    answers: &'p Answers,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Rows that wait.
    waiting: usize,
    asked: HashMap<u64, Asked>,
}

struct Asked {
    program: Arc<Program>,
    rows: HashSet<Box<str>>,
}

impl<'p> Pass<'p> {
    pub fn new(chain: &'p Chain, answers: &'p Answers) -> Self {
        Self {
            chain,
            answers,
            open: Mutex::default(),
        }
    }

    pub fn chain(&self) -> &'p Chain {
        self.chain
    }

    /// How many rows wait: whoever sees it grow while a message passes has seen nothing final.
    pub fn waiting(&self) -> usize {
        self.open.lock().waiting
    }

    /// What is to be answered before the next pass.
    pub fn questions(self) -> Vec<Question> {
        let asked = self.open.into_inner().asked.into_values();
        let questions = asked.map(|Asked { program, rows }| Question {
            program,
            rows: rows.into_iter().collect(),
        });
        questions.collect()
    }
}

impl Process for Pass<'_> {
    fn alias(&self, name: &str) -> Option<(&ElementName, &Measurepoint)> {
        self.chain.alias(name)
    }

    fn row(&self, values: &mut Vec<PointValue>) -> Result<Processed, Vec<Objection>> {
        let ask = Ask {
            answers: self.answers,
            open: &self.open,
        };
        self.chain.act(values, ask)
    }
}

/// Where a script step asks.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    answers: &'a Answers,
    open: &'a Mutex<Open>,
}

/// What a script step hears.
pub(super) enum Answer<'a> {
    Said(&'a SaidOfRow),
    /// Not yet.
    Open,
}

impl<'a> Ask<'a> {
    pub(super) fn ask(self, program: &Arc<Program>, input: &str) -> Answer<'a> {
        if let Some(said) = self.answers.find(program, input) {
            return Answer::Said(said);
        }
        let mut open = self.open.lock();
        open.waiting += 1;
        let asked = open.asked.entry(program.id()).or_insert_with(|| Asked {
            program: Arc::clone(program),
            rows: HashSet::new(),
        });
        if !asked.rows.contains(input) {
            asked.rows.insert(input.into());
        }
        Answer::Open
    }
}
