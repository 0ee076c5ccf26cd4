//! `backtide completions SHELL`.

use clap::CommandFactory;

use super::{Arguments, Exit, Failure, Terminal};

#[derive(Debug, clap::Args)]
pub struct Completions {
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(self, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut Arguments::command(),
            "backtide",
            &mut script,
        );
        terminal.out.write_all(&script)?;
        Ok(Exit::Ok)
    }
}
