//! What goes beside the binary: the schema, completions, the manual, systemd's units, the Debian package.

mod calls;
mod debian;
mod release;
mod schema;
mod shell;
mod units;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A path of the repository.
fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Whether there is such a program, which answers these arguments. What is missing is said.
fn is_there(test: &str, program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let found = command.output().is_ok_and(|output| output.status.success());
    if !found {
        crate::support::skipped(test, &format!("there is no {program}"));
    }
    found
}

/// All that a command wrote, one output after the other.
fn both(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
