//! Where Node is root on a machine, or would be: processes, programs, units, containers, and a running lowport.
//!
//! Each finding says what is wrong, where, and what to do. What cannot be seen or told is a note, never silence.
//!
//! In reading order: [`Report`] and its findings; `walk`, which looks through folders for Dockerfiles (`dockerfile`),
//! Compose files (`compose`) and manifests (`kubernetes`), both over `yaml`, packages (`package`) and units (`unit`);
//! `host`, which looks at processes (`process`), their sockets (`socket`) and programs (`capability`); `instance`, which
//! looks at one lowport. `command` and `image` know Node by a command line and by an image's name.

mod capability;
mod command;
mod compose;
mod dockerfile;
mod finding;
mod host;
mod image;
mod instance;
mod kubernetes;
mod package;
mod process;
mod socket;
mod unit;
mod variables;
mod walk;
mod yaml;

use std::io;
use std::path::Path;

pub use finding::{Finding, Place, Report, Severity};

/// Looks at this machine: its processes, its node binaries, its systemd units.
pub fn host(report: &mut Report) {
    host::check(report);
    unit::check_host(report);
}

/// Looks at the deployment files in a folder, or at one file.
///
/// # Errors
/// When `path` is not there or may not be read.
pub fn files(path: &Path, report: &mut Report) -> io::Result<()> {
    walk::check(path, report)
}

/// Looks at a running lowport, all its tasks, and everything below it.
///
/// # Errors
/// When there is no process `pid`.
pub fn instance(pid: u32, report: &mut Report) -> io::Result<()> {
    instance::check(pid, report)
}
