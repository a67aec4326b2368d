//! The boot story, told once: load, bind, fork the app, drop privileges, serve, reload, drain.

mod boot;
mod listeners;
mod reload;
mod serve;

pub use boot::{Boot, Origin};

use std::process::ExitCode;

/// Exit code for a configuration that cannot be used (EX_CONFIG of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// Runs the proxy until it is told to stop.
///
/// Must be called while the process has one thread: the app's supervisor is forked and privileges are dropped.
pub fn run(boot: Boot) -> ExitCode {
    match boot.start() {
        Ok(ready) => serve::serve(ready),
        Err(failed) => {
            eprint!("{}", failed.message);
            ExitCode::from(failed.code)
        }
    }
}
