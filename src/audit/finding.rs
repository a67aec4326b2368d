//! What an audit found.

use std::path::PathBuf;

use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Node is root, or can become it
    High,
    /// Node, or what stands before it, has more than it needs
    Medium,
    /// A second line of defence is missing
    Low,
    /// It was asked for, and could not be seen: it may be anything
    Unknown,
    /// Not a finding: what could not be seen or told
    Note,
    /// Not a finding: what was looked at and is as it should be
    Holds,
}

impl Severity {
    /// Its name in either output.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
            Self::Unknown => "unknown",
            Self::Note => "note",
            Self::Holds => "holds",
        }
    }

    /// Whether something is to be done.
    pub fn is_finding(self) -> bool {
        !matches!(self, Self::Note | Self::Holds)
    }
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A file
    File {
        /// As the user would name it
        path: PathBuf,
        /// From 1; `None` for the file as a whole
        line: Option<usize>,
    },
    /// A running process
    Process {
        /// In this PID namespace
        pid: u32,
        /// As the kernel names it
        name: String,
    },
    /// This machine as a whole
    Host,
}

impl Place {
    /// What findings are grouped by: the place without its line.
    pub(super) fn group(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Process { pid, name } => format!("process {pid} ({name})"),
            Self::Host => "this machine".to_owned(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::File { path, line } => json!({"file": path.to_string_lossy(), "line": line}),
            Self::Process { pid, name } => json!({"pid": pid, "name": name}),
            Self::Host => json!({"host": true}),
        }
    }
}

/// One thing found, noted, or seen to hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finding {
    /// The rule's lasting name, such as `dockerfile-user`
    pub rule: &'static str,
    /// How bad it is
    pub severity: Severity,
    /// Where it is
    pub place: Place,
    /// What was found, in a line
    pub what: String,
    /// What to do about it, in a line
    pub fix: Option<String>,
}

impl Finding {
    pub(super) fn json(&self) -> Value {
        json!({
            "severity": self.severity.name(),
            "place": self.place.json(),
            "what": self.what,
            "fix": self.fix,
            "rule": self.rule,
        })
    }
}
