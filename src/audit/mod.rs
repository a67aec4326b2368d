//! Where Node is root on a machine, or would be: processes, programs, units, containers, and a running lowport.
//!
//! Each finding says what is wrong, where, and what to do. What cannot be seen or told is a note, or where it was asked for
//! a finding, never silence.
//!
//! In reading order: [`Report`] and its findings (`text` is how lines look); `walk`, which looks through folders for
//! Dockerfiles (`dockerfile`), Compose files (`compose`) and manifests (`kubernetes`), both over `yaml`, packages (`package`)
//! and units (`unit`); `host`, which looks at processes (`process`), their sockets (`socket`) and programs (`capability`);
//! `instance`, a running lowport, of `member`s that `check` judges. `command` and `image` know Node by a command line and
//! by an image's name.

mod capability;
mod check;
mod command;
mod compose;
mod dockerfile;
mod finding;
mod host;
mod image;
mod instance;
mod kubernetes;
mod member;
mod package;
mod process;
mod report;
mod socket;
#[cfg(test)]
mod testing;
mod text;
mod unit;
mod variables;
mod walk;
mod yaml;

use std::io;
use std::path::Path;

pub use finding::{Finding, Place, Severity};
pub use report::Report;

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

/// Looks at a running lowport, all its threads, and everything below it. What this user is not shown of it is a finding.
///
/// # Errors
/// When there is no process `pid`.
pub fn instance(pid: u32, report: &mut Report) -> io::Result<()> {
    report.add_instance(instance::Instance::look(pid)?);
    Ok(())
}
