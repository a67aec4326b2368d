//! What an audit found, and how it is told.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

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
            Self::Note => "note",
            Self::Holds => "holds",
        }
    }

    /// Whether something is to be done.
    pub fn is_finding(self) -> bool {
        matches!(self, Self::High | Self::Medium | Self::Low)
    }

    /// The ANSI code of its colour.
    fn colour(self) -> &'static str {
        match self {
            Self::High => "31",
            Self::Medium => "33",
            Self::Low => "36",
            Self::Note => "2",
            Self::Holds => "32",
        }
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
    fn group(&self) -> String {
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

/// Everything that an audit has to say, in the order it was found.
#[derive(Debug, Default)]
pub struct Report {
    entries: Vec<Finding>,
    /// What an alias or an include shows twice is told once.
    told: HashSet<Finding>,
}

impl Report {
    /// What was found, noted and seen to hold.
    pub fn entries(&self) -> &[Finding] {
        &self.entries
    }

    /// Whether something is to be done.
    pub fn has_findings(&self) -> bool {
        self.entries.iter().any(|entry| entry.severity.is_finding())
    }

    /// An array of `{severity, place, what, fix, rule}`; notes and what holds are in it, with those severities.
    pub fn json(&self) -> Value {
        let entry = |entry: &Finding| {
            json!({
                "severity": entry.severity.name(),
                "place": entry.place.json(),
                "what": entry.what,
                "fix": entry.fix,
                "rule": entry.rule,
            })
        };
        self.entries.iter().map(entry).collect()
    }

    /// For a person: grouped by place, with a summary at the end.
    pub fn text(&self, colours: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colours {
                format!("\x1b[{code}m{text}\x1b[0m")
            } else {
                text.to_owned()
            }
        };
        let mut groups: Vec<(String, Vec<&Finding>)> = Vec::new();
        let mut index = HashMap::new();
        for entry in &self.entries {
            let group = entry.place.group();
            let at = *index.entry(group.clone()).or_insert_with(|| {
                groups.push((group, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(entry);
        }
        let mut text = String::new();
        for (group, mut entries) in groups {
            entries.sort_by_key(|entry| match &entry.place {
                Place::File { line, .. } => line.unwrap_or(0),
                _ => 0,
            });
            let _ = writeln!(text, "{}", paint("1", &printable(&group)));
            for entry in entries {
                let label = format!("{:6}", label(entry));
                let line = match &entry.place {
                    Place::File {
                        line: Some(line), ..
                    } => format!("line {line}: "),
                    _ => String::new(),
                };
                let _ = writeln!(
                    text,
                    "  {}  {line}{} {}",
                    paint(entry.severity.colour(), &label),
                    printable(&entry.what),
                    paint("2", &format!("[{}]", entry.rule))
                );
                if let Some(fix) = &entry.fix {
                    let _ = writeln!(text, "          fix: {}", printable(fix));
                }
            }
            text.push('\n');
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let count = |severity| {
            self.entries
                .iter()
                .filter(|entry| entry.severity == severity)
                .count()
        };
        let [high, medium, low] = [Severity::High, Severity::Medium, Severity::Low].map(count);
        let found = match high + medium + low {
            0 => "nothing found".to_owned(),
            1 => format!("1 finding: {high} high, {medium} medium, {low} low"),
            total => format!("{total} findings: {high} high, {medium} medium, {low} low"),
        };
        match count(Severity::Note) {
            0 => found,
            1 => format!("{found}; 1 note"),
            notes => format!("{found}; {notes} notes"),
        }
    }

    /// Adds an entry, unless it is there already.
    pub(super) fn add(&mut self, entry: Finding) {
        if self.told.insert(entry.clone()) {
            self.entries.push(entry);
        }
    }

    /// The same for one file.
    pub(super) fn file<'a>(&'a mut self, path: &'a Path) -> InFile<'a> {
        InFile { report: self, path }
    }
}

/// Where one file's findings go.
#[derive(Debug)]
pub(super) struct InFile<'a> {
    report: &'a mut Report,
    path: &'a Path,
}

impl InFile<'_> {
    pub(super) fn path(&self) -> &Path {
        self.path
    }

    pub(super) fn found(
        &mut self,
        rule: &'static str,
        severity: Severity,
        line: impl Into<Option<usize>>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(rule, severity, line.into(), what.into(), Some(fix.into()));
    }

    pub(super) fn note(
        &mut self,
        rule: &'static str,
        line: impl Into<Option<usize>>,
        what: impl Into<String>,
    ) {
        self.add(rule, Severity::Note, line.into(), what.into(), None);
    }

    fn add(
        &mut self,
        rule: &'static str,
        severity: Severity,
        line: Option<usize>,
        what: String,
        fix: Option<String>,
    ) {
        let path = self.path.to_owned();
        let place = Place::File { path, line };
        self.report.add(Finding {
            rule,
            severity,
            place,
            what,
            fix,
        });
    }
}

/// What `--pid` answers is a list of checks, passed or failed.
fn label(entry: &Finding) -> &'static str {
    match (entry.rule.starts_with("instance-"), entry.severity) {
        (true, Severity::Holds) => "PASS",
        (true, severity) if severity.is_finding() => "FAIL",
        (_, severity) => severity.name(),
    }
}

/// Names and contents come from whoever wrote the files; no escape sequence of theirs may reach a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        let mut file = report.file(Path::new("a/Dockerfile"));
        file.found(
            "r-one",
            Severity::High,
            7,
            "is \x1b[2Jroot",
            "add `USER node`",
        );
        file.found(
            "r-one",
            Severity::High,
            7,
            "is \x1b[2Jroot",
            "add `USER node`",
        );
        file.note("r-two", None, "unknown");
        report.add(Finding {
            rule: "instance-uid",
            severity: Severity::Holds,
            place: Place::Process {
                pid: 12,
                name: "lowport".into(),
            },
            what: "uid 998".into(),
            fix: None,
        });
        report
    }

    #[test]
    fn a_person_reads_it_by_place_and_no_control_character_gets_through() {
        let text = report().text(false);
        assert_eq!(
            text,
            "a/Dockerfile\n  note    unknown [r-two]\n  high    line 7: is \\u{1b}[2Jroot [r-one]\n          \
             fix: add `USER node`\n\nprocess 12 (lowport)\n  PASS    uid 998 [instance-uid]\n\n\
             1 finding: 1 high, 0 medium, 0 low; 1 note\n"
        );
        assert!(report().text(true).contains("\x1b[31mhigh"));
        assert_eq!(Report::default().text(true), "nothing found\n");
    }

    #[test]
    fn a_program_reads_every_field() {
        let json = report().json();
        assert_eq!(json.as_array().unwrap().len(), 3);
        assert_eq!(
            json[0],
            json!({"severity": "high", "place": {"file": "a/Dockerfile", "line": 7},
                   "what": "is \x1b[2Jroot", "fix": "add `USER node`", "rule": "r-one"})
        );
        assert_eq!(json[2]["place"], json!({"pid": 12, "name": "lowport"}));
        assert_eq!(json[1]["fix"], Value::Null);
    }
}
