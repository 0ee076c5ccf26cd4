//! Arguments to a command, a command to an exit code.

use std::process::ExitCode;

use backtide::cli::{self, Exit, Terminal};
use mimalloc::MiMalloc;

/// Messages are many small allocations, made by one thread and released by another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(exit) => return exit_code(exit),
    };
    exit_code(cli::run(arguments, &mut Terminal::standard()))
}

fn exit_code(exit: Exit) -> ExitCode {
    ExitCode::from(exit.code())
}
