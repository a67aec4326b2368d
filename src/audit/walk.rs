//! Looks through folders for deployment files. Whoever wrote them is not trusted: nothing is followed out of the folder,
//! nothing but a file is opened, and size, depth and number are bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::finding::{Finding, Place, Severity};
use super::report::Report;
use super::yaml::Yaml;
use super::{compose, dockerfile, kubernetes, package, unit};

/// No deployment file comes near.
const MAX_SIZE: u64 = 1 << 20;
const MAX_DEPTH: usize = 16;
const MAX_ENTRIES: usize = 100_000;
/// What is downloaded, built or versioned, and not written here.
const SKIPPED: &[&str] = &["node_modules", ".git", "target"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dockerfile,
    Yaml,
    Package,
    Unit,
}

/// Checks every deployment file below a folder, or one file, whatever is named.
///
/// # Errors
/// When `path` is not there or may not be read.
pub(super) fn check(path: &Path, report: &mut Report) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        std::fs::read_dir(path)?;
        check_folder(path, report);
        return Ok(());
    }
    let text = read_link(path)?;
    match kind(path) {
        Some(kind) => check_file(kind, path, text, report),
        None => report.file(path).note(
            "files-unknown",
            None,
            "not read: its name tells no kind of deployment file",
        ),
    }
    Ok(())
}

/// A file's text, no symbolic link.
///
/// # Errors
/// As reading does; for what is no file, and for one past 1 MiB.
pub(super) fn read(path: &Path) -> io::Result<String> {
    read_with(path, O_NOFOLLOW)
}

/// The same, where a link may lead to it.
///
/// # Errors
/// As [`read`].
pub(super) fn read_link(path: &Path) -> io::Result<String> {
    read_with(path, 0)
}

fn read_with(path: &Path, flags: i32) -> io::Result<String> {
    // A FIFO put there in the meantime must not hold an audit up.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags | O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("is no file"));
    }
    bounded(file)
}

fn bounded(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::other("is larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn check_folder(folder: &Path, report: &mut Report) {
    let mut folders = vec![(folder.to_owned(), 0)];
    let mut count = 0;
    while let Some((folder, depth)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                report
                    .file(&folder)
                    .note("files-unreadable", None, format!("not read: {error}"));
                continue;
            }
        };
        let mut entries: Vec<(PathBuf, std::fs::FileType)> = entries
            .flatten()
            .take(MAX_ENTRIES - count)
            .filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)))
            .collect();
        count += entries.len();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (path, kind_of_entry) in &entries {
            if kind_of_entry.is_file()
                && let Some(kind) = kind(path)
            {
                match read(path) {
                    Ok(text) => check_file(kind, &plain(path), text, report),
                    Err(error) => report.file(&plain(path)).note(
                        "files-unreadable",
                        None,
                        format!("not read: {error}"),
                    ),
                }
            }
        }
        let below = entries.into_iter().rev().filter(|(path, kind)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            kind.is_dir() && !SKIPPED.contains(&name.as_ref())
        });
        for (path, _) in below {
            if depth == MAX_DEPTH {
                let what = format!("not read: more than {MAX_DEPTH} folders down");
                report.file(&path).note("files-bound", None, what);
            } else {
                folders.push((path, depth + 1));
            }
        }
        if count >= MAX_ENTRIES {
            report.add(Finding {
                rule: "files-bound",
                severity: Severity::Note,
                place: Place::File {
                    path: folder,
                    line: None,
                },
                what: format!("stopped here, after {MAX_ENTRIES} files"),
                fix: Some("name the folders that matter".into()),
            });
            return;
        }
    }
}

/// Without the `./` of the current folder.
fn plain(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let docker = |name: &str| matches!(name, "dockerfile" | "containerfile");
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let starts = name.split_once('.').is_some_and(|(first, _)| docker(first));
    if ends(&[".dockerignore"]) || name == "pnpm-lock.yaml" {
        None
    } else if docker(&name) || starts || ends(&[".dockerfile", ".containerfile"]) {
        Some(Kind::Dockerfile)
    } else if ends(&[".yml", ".yaml"]) {
        Some(Kind::Yaml)
    } else if name == "package.json" {
        Some(Kind::Package)
    } else if ends(&[".service"]) {
        Some(Kind::Unit)
    } else {
        None
    }
}

fn check_file(kind: Kind, path: &Path, text: String, report: &mut Report) {
    match kind {
        Kind::Dockerfile => dockerfile::check(&text, &mut report.file(path)),
        Kind::Yaml => check_yaml(path, &text, report),
        Kind::Package => package::check(&text, &mut report.file(path)),
        Kind::Unit => unit::check_file(path, text, report),
    }
}

fn check_yaml(path: &Path, text: &str, report: &mut Report) {
    let mut out = report.file(path);
    match Yaml::parse(text) {
        Ok(yaml) => {
            compose::check(&yaml, &mut out);
            kubernetes::check(&yaml, &mut out);
            if yaml.is_exhausted() {
                out.note(
                    "yaml-bound",
                    None,
                    "not read to its end: its aliases multiply",
                );
            }
        }
        Err(error) if text.contains("{{") => out.note(
            "yaml-template",
            error.line,
            "is a template: not read; audit what `helm template` makes of it",
        ),
        // Other YAML is nobody's business here.
        Err(error) if text.contains("kind:") || text.contains("services:") => {
            let what = format!("not read: {}", error.why);
            out.note("yaml-unreadable", error.line, what);
        }
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(report: &Report) -> Vec<String> {
        report
            .entries()
            .iter()
            .map(|entry| match &entry.place {
                Place::File { path, .. } => format!(
                    "{} {}",
                    path.file_name().unwrap_or_default().to_string_lossy(),
                    entry.rule
                ),
                _ => entry.rule.to_owned(),
            })
            .collect()
    }

    #[test]
    fn files_are_known_by_their_names() {
        for (name, expected) in [
            ("Dockerfile", Some(Kind::Dockerfile)),
            ("Dockerfile.prod", Some(Kind::Dockerfile)),
            ("web.Dockerfile", Some(Kind::Dockerfile)),
            ("Containerfile", Some(Kind::Dockerfile)),
            ("Dockerfile.dockerignore", None),
            ("compose.yaml", Some(Kind::Yaml)),
            ("deploy.yml", Some(Kind::Yaml)),
            ("pnpm-lock.yaml", None),
            ("package.json", Some(Kind::Package)),
            ("package-lock.json", None),
            ("app@.service", Some(Kind::Unit)),
            ("main.rs", None),
        ] {
            assert_eq!(kind(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_ours_is_neither_followed_nor_opened() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let bad = "FROM node\n";
        for skipped in ["node_modules", ".git", "target"] {
            std::fs::create_dir(folder.path().join(skipped)).unwrap();
            std::fs::write(folder.path().join(skipped).join("Dockerfile"), bad).unwrap();
        }
        std::fs::write(outside.path().join("Dockerfile"), bad).unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        let link = folder.path().join("Dockerfile");
        std::os::unix::fs::symlink(outside.path().join("Dockerfile"), &link).unwrap();
        let fifo = folder.path().join("package.json");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut report = Report::default();
        check(folder.path(), &mut report).unwrap();
        assert_eq!(rules(&report), [] as [&str; 0]);
        assert!(read(&link).is_err() && read_link(&link).is_ok());
        assert!(read(&fifo).is_err());
    }

    #[test]
    fn size_and_depth_are_bounded_and_what_is_left_out_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let large = "#".repeat(MAX_SIZE as usize + 1);
        std::fs::write(folder.path().join("Dockerfile"), large).unwrap();
        let deep: PathBuf = (0..20).map(|_| "d").collect();
        std::fs::create_dir_all(folder.path().join(&deep)).unwrap();
        std::fs::write(folder.path().join(deep).join("Dockerfile"), "FROM node\n").unwrap();
        let mut report = Report::default();
        check(folder.path(), &mut report).unwrap();
        assert_eq!(
            rules(&report),
            ["Dockerfile files-unreadable", "d files-bound"]
        );
    }

    #[test]
    fn templates_and_broken_files_are_notes() {
        let mut report = Report::default();
        for (name, text) in [
            ("t.yaml", "kind: Pod\nspec:\n{{- if .x }}\n  a: 1\n"),
            ("k.yaml", "kind: [\n"),
            ("other.yaml", "a: [\n"),
            ("aliases.yaml", "x: &x [1,\n"),
        ] {
            check_yaml(Path::new(name), text, &mut report);
        }
        assert_eq!(
            rules(&report),
            ["t.yaml yaml-template", "k.yaml yaml-unreadable"]
        );
        assert!(!report.has_findings());
    }

    #[test]
    fn a_bomb_of_containers_is_read_as_far_as_it_is_worth() {
        let pod = "kind: Pod, apiVersion: v1";
        let containers = "{name: a}, ".repeat(20_000);
        let items = "*p, ".repeat(100_000);
        let text = format!(
            "apiVersion: v1\nkind: List\nx: &p {{{pod}, spec: {{containers: [{containers}]}}}}\nitems: [{items}]\n"
        );
        let mut report = Report::default();
        check_yaml(Path::new("bomb.yaml"), &text, &mut report);
        assert!(rules(&report).contains(&"bomb.yaml yaml-bound".to_owned()));
        let long = "x".repeat(300_000);
        for (key, item) in [("ports", "*x"), ("command", "*x"), ("cap_add", "*x")] {
            let items = format!("{item}, ").repeat(100_000);
            let text = format!(
                "x: &x \"{long}\"\nservices:\n  web: {{image: node, user: node, {key}: [{items}]}}\n"
            );
            let mut report = Report::default();
            check_yaml(Path::new("bomb.yaml"), &text, &mut report);
            let bound = "bomb.yaml yaml-bound".to_owned();
            assert!(rules(&report).contains(&bound), "{key}");
        }
        let services: String = (0..600)
            .map(|at| format!("  s{at}: {{image: node}}\n"))
            .collect();
        let mut report = Report::default();
        check_yaml(
            Path::new("c.yaml"),
            &format!("services:\n{services}"),
            &mut report,
        );
        assert_eq!(rules(&report).last().unwrap(), "c.yaml compose-bound");
    }
}
