//! The boot story, told once: load, bind, fork the app's supervisor, drop privileges, serve, reload, drain.

mod boot;
mod listeners;
mod reload;
mod sandbox;
mod serve;

pub use boot::{Boot, check_surroundings};

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::console;

/// Exit code for a configuration that cannot be used (EX_CONFIG of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// Runs the proxy until it is told to stop.
///
/// Must be called while the process has one thread: the app's supervisor is forked and privileges are dropped.
pub fn run(boot: Boot) -> ExitCode {
    match boot.start() {
        Ok(ready) => serve::serve(ready),
        Err(failed) => {
            console::err(&failed.message);
            failed.code
        }
    }
}

/// Whether messages on standard error may be coloured: on a terminal, unless `NO_COLOR` is set.
pub fn stderr_colors() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
