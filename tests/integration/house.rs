//! The house's own rules: who may import whom, how long a file may be, where `unsafe` may stand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floors, lowest first. A module imports from lower floors only; those that share one are blind to each other.
const FLOORS: &[&[&str]] = &[
    &[
        "console",
        "exec",
        "linger",
        "patience",
        "proxy_header",
        "stream",
        "http",
    ],
    &["bypass", "http1", "http2"],
    &["error"],
    &["body"],
    &["config"],
    &["privilege"],
    &[
        "route", "policy", "upstream", "tls", "child", "observe", "audit",
    ],
    &["snapshot", "init"],
    &["ctx"],
    &["proxy"],
    &["server"],
    &["app"],
    &["cli"],
    &["lib", "main"],
];
const MAX_LINES: usize = 600;

#[test]
fn imports_go_downwards() {
    let floor: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(level, names)| names.iter().map(move |name| (*name, level)))
        .collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (file, text) in sources() {
        let module = module(&file);
        let level = *floor
            .get(module.as_str())
            .unwrap_or_else(|| panic!("{module} has no floor: give it one"));
        for imported in imports(&text) {
            seen += 1;
            let below = floor
                .get(imported)
                .unwrap_or_else(|| panic!("{}: crate::{imported} has no floor", file.display()));
            if imported != module && *below >= level {
                wrong.push(format!(
                    "{}: {module} imports crate::{imported}",
                    file.display()
                ));
            }
        }
    }
    assert!(seen > 50, "the imports were not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_past_its_end() {
    let long: Vec<String> = sources()
        .chain(files(Path::new("tests")))
        .chain(files(Path::new("benches")))
        .chain(files(Path::new("fuzz/src")))
        .chain(files(Path::new("fuzz/fuzz_targets")))
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(file, lines)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn unsafe_stands_in_one_folder_with_its_reason() {
    let mut blocks = 0;
    for (file, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains("unsafe {"))
        {
            blocks += 1;
            assert_eq!(
                module(&file),
                "privilege",
                "{}:{}: {line}",
                file.display(),
                at + 1
            );
            let reason = lines[at.saturating_sub(6)..at]
                .iter()
                .any(|line| line.contains("// SAFETY:"));
            assert!(
                reason,
                "{}:{}: no `// SAFETY:` above",
                file.display(),
                at + 1
            );
        }
    }
    assert!(blocks > 0, "no block was found");
}

fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    files(Path::new("src"))
}

fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("the folder is there")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).expect("a source is UTF-8");
        (path, text)
    })
}

/// The first folder or file below `src`.
fn module(file: &Path) -> String {
    let below = file
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .expect("below src");
    let first = below
        .components()
        .next()
        .expect("a name")
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Each `crate::NAME` that code names, tests and comments aside.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| {
            line.split("crate::").skip(1).filter_map(|rest| {
                let end = rest
                    .find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                (!name.is_empty()).then_some(name)
            })
        })
}
