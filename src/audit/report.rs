//! All that an audit has to say, for people and for programs.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::finding::{Finding, Place, Severity};
use super::instance::Instance;
use super::text::{Paint, printable, wrapped};

/// Everything that an audit has to say, in the order it was found.
#[derive(Debug, Default)]
pub struct Report {
    entries: Vec<Finding>,
    instances: Vec<Instance>,
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

    /// `instances`: each running lowport, each of its processes with every fact; and `findings`, an array of
    /// `{severity, place, what, fix, rule}`. Notes and what holds are in that, with those severities.
    pub fn json(&self) -> Value {
        json!({
            "instances": self.instances.iter().map(Instance::to_json).collect::<Value>(),
            "findings": self.entries.iter().map(Finding::json).collect::<Value>(),
        })
    }

    /// For a person, 80 columns wide: each lowport, then what else was found, grouped by place, with a summary at the end.
    pub fn text(&self, colours: bool) -> String {
        let paint = Paint(colours);
        let mut text: String = self
            .instances
            .iter()
            .map(|instance| instance.text(paint))
            .collect();
        let mut groups: Vec<(String, Vec<&Finding>)> = Vec::new();
        let mut index = HashMap::new();
        // Those of an instance are told with it.
        let others = self.entries.iter().filter(|entry| !is_told(entry));
        for entry in others {
            let group = entry.place.group();
            let at = *index.entry(group.clone()).or_insert_with(|| {
                groups.push((group, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(entry);
        }
        for (group, mut entries) in groups {
            entries.sort_by_key(|entry| match &entry.place {
                Place::File { line, .. } => line.unwrap_or(0),
                _ => 0,
            });
            let _ = writeln!(text, "{}", paint.bold(&printable(&group)));
            for entry in entries {
                text.push_str(&lines(entry, paint));
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
        let unknown = count(Severity::Unknown);
        let mut told = match high + medium + low + unknown {
            0 => "nothing found".to_owned(),
            1 => format!("1 finding: {high} high, {medium} medium, {low} low"),
            total => format!("{total} findings: {high} high, {medium} medium, {low} low"),
        };
        if unknown > 0 {
            told.push_str(&format!(", {unknown} unknown"));
        }
        match count(Severity::Note) {
            0 => told,
            1 => told + "; 1 note",
            notes => format!("{told}; {notes} notes"),
        }
    }

    /// Adds an entry, unless it is there already.
    pub(super) fn add(&mut self, entry: Finding) {
        if self.told.insert(entry.clone()) {
            self.entries.push(entry);
        }
    }

    /// Adds a running lowport, and what is to be said about it.
    pub(super) fn add_instance(&mut self, instance: Instance) {
        for finding in instance.findings() {
            self.add(finding);
        }
        self.instances.push(instance);
    }

    /// Where entries about one file are added.
    pub(super) fn file<'a>(&'a mut self, path: &'a Path) -> InFile<'a> {
        InFile { report: self, path }
    }
}

/// Whether it is told with an instance.
fn is_told(entry: &Finding) -> bool {
    entry.rule.starts_with("instance-")
}

/// How wide what comes before a finding is.
const INDENT: usize = 11;

fn lines(entry: &Finding, paint: Paint) -> String {
    let label = paint.severity(entry.severity, &format!("{:7}", entry.severity.name()));
    let line = match &entry.place {
        Place::File {
            line: Some(line), ..
        } => format!("line {line}: "),
        _ => String::new(),
    };
    let told = format!("{line}{} [{}]", printable(&entry.what), entry.rule);
    let told = paint.rule(&wrapped(&told, INDENT), entry.rule);
    let mut lines = format!("  {label}  {told}\n");
    if let Some(fix) = &entry.fix {
        let fix = wrapped(&format!("fix: {}", printable(fix)), INDENT);
        lines.push_str(&format!("{:INDENT$}{fix}\n", ""));
    }
    lines
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
            rule: "port-activation",
            severity: Severity::Note,
            place: super::super::testing::process(12, 1, "systemd").place(),
            what: "holds [::]:80".into(),
            fix: None,
        });
        report
    }

    #[test]
    fn a_person_reads_it_by_place_and_no_control_character_gets_through() {
        assert_eq!(
            report().text(false),
            "a/Dockerfile
  note     unknown [r-two]
  high     line 7: is \\u{1b}[2Jroot [r-one]
           fix: add `USER node`

process 12 (systemd)
  note     holds [::]:80 [port-activation]

1 finding: 1 high, 0 medium, 0 low; 2 notes
"
        );
        let painted = report().text(true);
        assert!(
            painted.contains("\x1b[31mhigh   \x1b[0m")
                && painted.contains("\x1b[2m[r-one]\x1b[0m\n")
        );
        assert_eq!(Report::default().text(true), "nothing found\n");
    }

    #[test]
    fn a_program_reads_every_field() {
        let json = report().json();
        let findings = json["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 3);
        assert_eq!(
            findings[0],
            json!({"severity": "high", "place": {"file": "a/Dockerfile", "line": 7},
                   "what": "is \x1b[2Jroot", "fix": "add `USER node`", "rule": "r-one"})
        );
        assert_eq!(findings[2]["place"], json!({"pid": 12, "name": "systemd"}));
        assert_eq!(findings[1]["fix"], Value::Null);
        assert_eq!(json["instances"], json!([]));
    }

    #[test]
    fn what_could_not_be_seen_is_a_finding() {
        let mut report = Report::default();
        report.add(Finding {
            rule: "x",
            severity: Severity::Unknown,
            place: Place::Host,
            what: "x".into(),
            fix: None,
        });
        assert!(report.has_findings());
        assert!(
            report
                .text(false)
                .ends_with("1 finding: 0 high, 0 medium, 0 low, 1 unknown\n")
        );
    }
}
