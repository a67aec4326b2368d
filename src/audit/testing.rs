//! For tests: processes that are not there, and findings in a line each.

use super::finding::Place;
use super::process::Process;
use super::report::Report;
use crate::privilege::status::{Capabilities, SeccompMode, TaskState};

/// A state with nothing in it, of a user without a name.
pub(super) fn nobody() -> TaskState {
    TaskState {
        tid: 7,
        uids: [61998; 4],
        gids: [61998; 4],
        groups: Vec::new(),
        capabilities: Capabilities::default(),
        no_new_privs: true,
        seccomp: SeccompMode::Filter,
        seccomp_filters: Some(3),
    }
}

/// A process in that state.
pub(super) fn process(pid: u32, parent: u32, name: &str) -> Process {
    Process {
        pid,
        parent,
        name: name.to_owned(),
        state: nobody(),
        exe: None,
        program: String::new(),
    }
}

/// `severity line rule` of every finding in a file, `severity rule` of the others.
pub(super) fn told(report: &Report) -> Vec<String> {
    let entries = report.entries().iter();
    entries
        .map(|entry| {
            let severity = entry.severity.name();
            match &entry.place {
                Place::File { line, .. } => {
                    format!("{severity} {} {}", line.unwrap_or(0), entry.rule)
                }
                _ => format!("{severity} {}", entry.rule),
            }
        })
        .collect()
}
