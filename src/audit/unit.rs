//! systemd units: as whom, and with what, do they start Node?

use std::path::{Path, PathBuf};

use super::command;
use super::dockerfile::is_root;
use super::finding::Severity;
use super::report::Report;
use super::walk;

/// Where the system's units are; what comes first counts.
const SYSTEM: &[&str] = &[
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Who starts a unit that names no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    /// The system's: root
    Root,
    /// A user's own, who is not root
    User,
}

/// A unit's file and its drop-ins, in the order that systemd reads them.
pub(super) type Files = Vec<(PathBuf, String)>;

/// Checks the units of this machine: the system's, and the invoking user's own.
pub(super) fn check_host(report: &mut Report) {
    let mut seen = Vec::new();
    let system: Vec<&Path> = SYSTEM.iter().rev().map(Path::new).collect();
    for folder in SYSTEM.iter().map(Path::new) {
        check_folder(folder, &system, Manager::Root, &mut seen, report);
    }
    let is_root = nix::unistd::geteuid().is_root();
    let manager = if is_root {
        Manager::Root
    } else {
        Manager::User
    };
    if let Some(home) = std::env::var_os("HOME") {
        let folder = Path::new(&home).join(".config/systemd/user");
        check_folder(&folder, &[&folder], manager, &mut Vec::new(), report);
    }
}

/// Checks the units of one folder that none of those before had, with their drop-ins from `folders`.
fn check_folder(
    folder: &Path,
    folders: &[&Path],
    manager: Manager,
    seen: &mut Vec<String>,
    report: &mut Report,
) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".service"))
        .collect();
    names.sort();
    for name in names {
        // A unit of the same name further down is not read at all.
        if seen.contains(&name) {
            continue;
        }
        // Linked units are links; a masked one leads to /dev/null, which is no file.
        if let Ok(text) = walk::read_link(&folder.join(&name)) {
            let drop_ins = drop_ins(&name, folders);
            check(with(folder.join(&name), text, drop_ins), manager, report);
        }
        seen.push(name);
    }
}

/// Checks one file, with the drop-ins beside it.
pub(super) fn check_file(path: &Path, text: String, report: &mut Report) {
    let of_user = path.to_string_lossy().contains("systemd/user/");
    let manager = if of_user {
        Manager::User
    } else {
        Manager::Root
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new("."));
    check(
        with(path.to_owned(), text, drop_ins(&name, &[folder])),
        manager,
        report,
    );
}

fn with(path: PathBuf, text: String, mut drop_ins: Files) -> Files {
    drop_ins.insert(0, (path, text));
    drop_ins
}

/// `NAME.d/*.conf`, by their names; a folder further on has the last word on a name.
fn drop_ins(unit: &str, folders: &[&Path]) -> Files {
    let mut files: std::collections::BTreeMap<std::ffi::OsString, PathBuf> = Default::default();
    for folder in folders {
        let entries = std::fs::read_dir(folder.join(format!("{unit}.d")));
        for entry in entries.into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "conf") {
                files.insert(entry.file_name(), entry.path());
            }
        }
    }
    files
        .into_values()
        .filter_map(|path| walk::read_link(&path).ok().map(|text| (path, text)))
        .collect()
}

/// What the `[Service]` sections come to.
#[derive(Debug, Default)]
struct Service {
    starts: Vec<Setting>,
    user: Option<Setting>,
    dynamic: bool,
    ambient: Vec<Setting>,
}

#[derive(Debug, Clone)]
struct Setting {
    file: usize,
    line: usize,
    value: String,
}

fn check(files: Files, manager: Manager, report: &mut Report) {
    let service = Service::read(&files);
    for start in &service.starts {
        let prefix_end = start
            .value
            .find(|character| !"@-:+!|".contains(character))
            .unwrap_or(0);
        let (prefix, line) = start.value.split_at(prefix_end);
        if !command::shell(line).is_node() {
            continue;
        }
        let mut out = report.file(&files[start.file].0);
        if prefix.contains('+') {
            out.found(
                "unit-user",
                Severity::High,
                start.line,
                "runs node as root: the `+` before its ExecStart leaves User= and every restriction out",
                format!("take the `+` on line {} out", start.line),
            );
        } else if manager == Manager::Root {
            match &service.user {
                Some(user) if is_root(&user.value) => report.file(&files[user.file].0).found(
                    "unit-user",
                    Severity::High,
                    user.line,
                    format!("runs node as root: User={}", user.value),
                    "name a user of its own, or write `DynamicUser=yes`, and let lowport hold 80 and 443",
                ),
                None if !service.dynamic => out.found(
                    "unit-user",
                    Severity::High,
                    start.line,
                    "runs node as root: it has no User=",
                    format!(
                        "add `User=` with a user of its own, or `DynamicUser=yes`, after line {}, and let lowport hold 80 and 443",
                        start.line
                    ),
                ),
                _ => {}
            }
        }
    }
    let runs_node = service.starts.iter().any(|start| {
        command::shell(
            start
                .value
                .trim_start_matches(['@', '-', ':', '+', '!', '|']),
        )
        .is_node()
    });
    for ambient in service.ambient.iter().filter(|_| runs_node) {
        report.file(&files[ambient.file].0).found(
            "unit-capabilities",
            Severity::Medium,
            ambient.line,
            format!(
                "gives node {}: everything that node runs then holds it",
                ambient.value.to_uppercase()
            ),
            format!(
                "take line {} out, listen on a port from 1024 up, and let lowport hold 80 and 443",
                ambient.line
            ),
        );
    }
}

impl Service {
    fn read(files: &Files) -> Self {
        let mut service = Self::default();
        for (file, (_, text)) in files.iter().enumerate() {
            let mut section = String::new();
            for (line, text) in logical_lines(text) {
                if let Some(name) = text.strip_prefix('[') {
                    section = name.trim_end_matches(']').to_owned();
                } else if section == "Service"
                    && let Some((key, value)) = text.split_once('=')
                {
                    let value = value.trim().to_owned();
                    service.set(key.trim(), Setting { file, line, value });
                }
            }
        }
        service
    }

    /// An empty value takes back what was set before.
    fn set(&mut self, key: &str, setting: Setting) {
        let is_empty = setting.value.is_empty();
        match key {
            "ExecStart" if is_empty => self.starts.clear(),
            "ExecStart" => self.starts.push(setting),
            "User" => self.user = Some(setting).filter(|_| !is_empty),
            "DynamicUser" => {
                let value = setting.value.to_ascii_lowercase();
                self.dynamic = matches!(value.as_str(), "yes" | "true" | "on" | "1" | "y" | "t");
            }
            "AmbientCapabilities" if is_empty => self.ambient.clear(),
            // `~` takes away instead of giving.
            "AmbientCapabilities" if !setting.value.starts_with('~') => self.ambient.push(setting),
            _ => {}
        }
    }
}

/// Lines without comments, put together where they end in `\`, each with the number of its first.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with(['#', ';']) || (line.is_empty() && !continues) {
            continue;
        }
        let (text, more) = match line.strip_suffix('\\') {
            Some(text) => (text, true),
            None => (line, false),
        };
        match lines.last_mut() {
            Some((_, last)) if continues => {
                last.push(' ');
                last.push_str(text);
            }
            _ => lines.push((at + 1, text.to_owned())),
        }
        continues = more;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::finding::Place;
    use super::*;

    fn told(files: &[&str], manager: Manager) -> Vec<String> {
        let files: Files = files
            .iter()
            .enumerate()
            .map(|(at, text)| (PathBuf::from(format!("{at}")), (*text).to_owned()))
            .collect();
        let mut report = Report::default();
        check(files, manager, &mut report);
        report
            .entries()
            .iter()
            .map(|entry| match &entry.place {
                Place::File { path, line } => {
                    let (line, severity) = (line.unwrap_or(0), entry.severity.name());
                    format!("{severity} {}:{line} {}", path.display(), entry.rule)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn units_that_start_node_as_root_are_found() {
        for (files, expected) in [
            (
                &["[Service]\nExecStart=/usr/bin/node /srv/x.js\n"][..],
                &["high 0:2 unit-user"][..],
            ),
            (
                &["[Service]\nUser=root\nExecStart=npm start\n"],
                &["high 0:2 unit-user"],
            ),
            (
                &["[Service]\nExecStart=-/usr/bin/env \\\n  # why\n  node x\nUser=0\n"],
                &["high 0:5 unit-user"],
            ),
            (
                &["[Service]\nUser=app\nExecStart=+/usr/bin/node x\n"],
                &["high 0:3 unit-user"],
            ),
            (
                &["[Service]\nExecStart=/bin/sh -c 'cd /srv && yarn start'\n"],
                &["high 0:2 unit-user"],
            ),
            // The section counts, and an empty value takes back.
            (
                &["[Unit]\nUser=app\n[Service]\nExecStart=pm2-runtime x\n"],
                &["high 0:4 unit-user"],
            ),
            (
                &["[Service]\nUser=app\nUser=\nExecStart=next start\n"],
                &["high 0:4 unit-user"],
            ),
            (
                &[
                    "[Service]\nUser=app\nExecStart=node x\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n",
                ],
                &["medium 0:4 unit-capabilities"],
            ),
            (
                &[
                    "[Service]\nUser=app\nExecStart=node x\n",
                    "[Service]\nUser=root\n",
                ],
                &["high 1:2 unit-user"],
            ),
        ] {
            assert_eq!(told(files, Manager::Root), expected, "{files:?}");
        }
    }

    #[test]
    fn others_are_left_alone() {
        for files in [
            &["[Service]\nUser=app\nExecStart=/usr/bin/node x\n"][..],
            &["[Service]\nDynamicUser=yes\nExecStart=node x\n"],
            &["[Service]\nExecStart=node x\n", "[Service]\nUser=app\n"],
            &["[Service]\nExecStart=/usr/sbin/nginx\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"],
            &["[Service]\nExecStart=/usr/bin/lowport run\n"],
            &[
                "[Service]\nUser=app\nExecStart=node x\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nAmbientCapabilities=\n",
            ],
            &["[Service]\nExecStart=node x\nExecStart=\nExecStart=/bin/true\n"],
            &["\\", "[", "=", "[Service]\nExecStart=\\"],
        ] {
            assert_eq!(told(files, Manager::Root), [] as [&str; 0], "{files:?}");
        }
        assert_eq!(
            told(&["[Service]\nExecStart=node x\n"], Manager::User),
            [] as [&str; 0]
        );
    }

    #[test]
    fn folders_are_read_as_systemd_reads_them() {
        use std::os::unix::fs::symlink;
        let [etc, lib] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (etc, lib) = (etc.path(), lib.path());
        let root = "[Service]\nExecStart=node x\n";
        for name in [
            "a.service",
            "masked.service",
            "over.service",
            "b.timer",
            "linked",
        ] {
            std::fs::write(lib.join(name), root).unwrap();
        }
        symlink("/dev/null", etc.join("masked.service")).unwrap();
        symlink(lib.join("linked"), etc.join("linked.service")).unwrap();
        std::fs::write(
            etc.join("over.service"),
            "[Service]\nUser=a\nExecStart=node x\n",
        )
        .unwrap();
        std::fs::create_dir(etc.join("d.service.d")).unwrap();
        std::fs::write(lib.join("d.service"), root).unwrap();
        std::fs::write(
            etc.join("d.service.d/x.conf"),
            "[Service]\nDynamicUser=yes\n",
        )
        .unwrap();
        let (mut report, mut seen) = (Report::default(), Vec::new());
        for folder in [etc, lib] {
            check_folder(folder, &[lib, etc], Manager::Root, &mut seen, &mut report);
        }
        let places: Vec<&Place> = report.entries().iter().map(|entry| &entry.place).collect();
        let expected = [etc.join("linked.service"), lib.join("a.service")];
        let line = Some(2);
        assert_eq!(
            places,
            expected
                .map(|path| Place::File { path, line })
                .iter()
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn drop_ins_beside_a_unit_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join("app.service");
        std::fs::create_dir(folder.path().join("app.service.d")).unwrap();
        let drop_in = folder.path().join("app.service.d/user.conf");
        let findings = |text: &str| {
            std::fs::write(&drop_in, text).unwrap();
            let mut report = Report::default();
            check_file(&unit, "[Service]\nExecStart=node x\n".into(), &mut report);
            report.entries().len()
        };
        assert_eq!((findings("[Service]\nUser=app\n"), findings("")), (0, 1));
    }
}
