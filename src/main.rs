//! The `latchkey` program: the command line in, an exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    latchkey::cli::run()
}
