//! How to start the app in a folder that says nothing about lowport.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Scripts that start an app for development, the better one first.
const DEVELOPMENT: [&str; 2] = ["dev", "start"];
/// The one that starts it for good.
const PRODUCTION: [&str; 1] = ["start"];
/// Files that Node can run by itself, before and after `main` of package.json.
const SERVERS: [&str; 3] = ["server.js", "server.mjs", "server.cjs"];
const INDEXES: [&str; 3] = ["index.js", "index.mjs", "index.cjs"];
/// What a TypeScript app that names no script tends to begin with.
const TYPESCRIPT: [&str; 6] = [
    "server.ts",
    "index.ts",
    "main.ts",
    "src/server.ts",
    "src/index.ts",
    "src/main.ts",
];

/// How to start an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Program and arguments, to be run in the folder that was searched
    pub command: Vec<String>,
    /// What said so, for a person: `script "dev" of package.json`
    pub source: String,
}

/// Why no app was found.
#[derive(Debug)]
pub enum FindError {
    /// There is a package.json, but it is not JSON or not an object
    Broken {
        /// The file
        path: PathBuf,
        /// From 1
        line: usize,
        /// From 1, in bytes; 0 stands for the end of the line before
        column: usize,
        /// What is wrong
        why: String,
    },
    /// There is a package.json, but it cannot be read
    Unreadable(PathBuf, io::Error),
    /// There is nothing to start
    Nothing {
        /// Where it was looked
        dir: PathBuf,
        /// Whether there is a package.json
        package: bool,
        /// A file that may be the app but that Node does not run by itself
        typescript: Option<&'static str>,
    },
}

/// Finds out how to start the app in `dir` for development: the script `dev` or `start` of package.json, else
/// `server.js`, the `main` of package.json, or `index.js`.
///
/// # Errors
/// When there is none of these, or the package.json cannot be understood.
pub fn find_app(dir: &Path) -> Result<Found, FindError> {
    find(dir, &DEVELOPMENT)
}

/// As [`find_app`], for good: the script `start` alone.
///
/// # Errors
/// As there.
pub fn find_production_app(dir: &Path) -> Result<Found, FindError> {
    find(dir, &PRODUCTION)
}

fn find(dir: &Path, scripts: &[&str]) -> Result<Found, FindError> {
    let package = package(dir)?;
    let script = |package| script(dir, package, scripts);
    if let Some(found) = package.as_ref().and_then(script) {
        return Ok(found);
    }
    let main = package
        .as_ref()
        .and_then(|package| main(dir, package.get("main")?.as_str()?));
    let first = |names: [&str; 3]| {
        names
            .into_iter()
            .find(|name| dir.join(name).is_file())
            .map(|name| (name.to_owned(), name.to_owned()))
    };
    let named = main.map(|file| (format!("main of package.json, {file}"), file));
    if let Some((source, file)) = first(SERVERS).or(named).or_else(|| first(INDEXES)) {
        return Ok(Found {
            command: vec!["node".into(), file],
            source,
        });
    }
    Err(FindError::Nothing {
        dir: dir.to_owned(),
        package: package.is_some(),
        typescript: TYPESCRIPT.into_iter().find(|name| dir.join(name).is_file()),
    })
}

/// The package.json of `dir`, an object; `None` where there is none.
///
/// # Errors
/// It cannot be read, or it is no JSON or no object.
pub fn package(dir: &Path) -> Result<Option<Value>, FindError> {
    let path = dir.join("package.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FindError::Unreadable(path, error)),
    };
    // A byte order mark is no JSON, but npm puts up with it.
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
    match serde_json::from_slice(text) {
        Ok(package @ Value::Object(_)) => Ok(Some(package)),
        Ok(_) => Err(FindError::Broken {
            path,
            line: 1,
            column: 1,
            why: "it is no object".into(),
        }),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let why = error.to_string();
            // We say the place ourselves, in the form that editors understand.
            let place = format!(" at line {line} column {column}");
            Err(FindError::Broken {
                path,
                line,
                column,
                why: why.strip_suffix(&place).unwrap_or(&why).to_owned(),
            })
        }
    }
}

fn script(dir: &Path, package: &Value, names: &[&str]) -> Option<Found> {
    let scripts = package.get("scripts")?;
    let text = |name: &str| {
        let script = scripts.get(name)?.as_str()?.trim();
        Some(script).filter(|script| !script.is_empty())
    };
    let (name, script) = names.iter().find_map(|name| Some((*name, text(name)?)))?;
    let around = ["pre", "post"]
        .into_iter()
        .any(|when| text(&format!("{when}{name}")).is_some());
    // Scripts may use variables that only npm and its kind set, and yarn may keep all modules in archives.
    let managed = around || script.contains("npm_") || dir.join(".pnp.cjs").is_file();
    let command = if managed {
        vec![manager(dir, package).to_owned(), "run".into(), name.into()]
    } else {
        // Without a package manager in between there is one process less that may swallow signals.
        vec!["sh".into(), "-c".into(), script.into()]
    };
    Some(Found {
        command,
        source: format!("script \"{name}\" of package.json"),
    })
}

/// Who runs the package's scripts: as it says itself, else whose lock file there is.
fn manager(dir: &Path, package: &Value) -> &'static str {
    let named = package
        .get("packageManager")
        .and_then(Value::as_str)
        .and_then(|named| named.split('@').next());
    match named {
        Some("pnpm") => return "pnpm",
        Some("yarn") => return "yarn",
        Some("npm") => return "npm",
        Some("bun") => return "bun",
        _ => {}
    }
    [
        ("pnpm-lock.yaml", "pnpm"),
        ("yarn.lock", "yarn"),
        ("bun.lock", "bun"),
        ("bun.lockb", "bun"),
    ]
    .into_iter()
    .find(|(lock, _)| dir.join(lock).is_file())
    .map_or("npm", |(_, manager)| manager)
}

/// As Node resolves it: with or without its extension, or a folder with an index.
fn main(dir: &Path, main: &str) -> Option<String> {
    let main = main.trim_end_matches('/');
    ["", ".js", ".json", "/index.js"]
        .into_iter()
        .map(|end| format!("{main}{end}"))
        .find(|file| dir.join(file).is_file() && !file.ends_with(".json"))
        // Not to be taken for an option.
        .map(|file| {
            if file.starts_with('-') {
                format!("./{file}")
            } else {
                file
            }
        })
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken {
                path,
                line,
                column,
                why,
            } => write!(f, "{}:{line}:{column}: {why}", path.display()),
            Self::Unreadable(path, error) => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            Self::Nothing {
                dir,
                package,
                typescript,
            } => {
                write!(f, "there is no app in {}: ", dir.display())?;
                f.write_str(if *package {
                    "its package.json has no script \"dev\" or \"start\" and no \"main\" that exists, "
                } else {
                    "no package.json, "
                })?;
                f.write_str("and no server.js or index.js (nor .mjs, .cjs)")?;
                match typescript {
                    Some(file) => write!(
                        f,
                        "; for {file} add a script to package.json, such as \"dev\": \"tsx watch {file}\""
                    ),
                    None => f.write_str(
                        "; name the command after `--`, as in: lowport dev -- node app.js",
                    ),
                }
            }
        }
    }
}

impl std::error::Error for FindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a folder with these files; one that is empty is there all the same.
    fn found(files: &[(&str, &str)]) -> Result<Found, FindError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        find_app(dir.path())
    }

    fn command(files: &[(&str, &str)]) -> String {
        found(files).unwrap().command.join(" ")
    }

    #[test]
    fn a_dev_script_is_best_and_then_start_and_then_files() {
        let both = r#"{"scripts":{"start":"node s.js","dev":"vite && true"}}"#;
        let found = found(&[("package.json", both), ("server.js", "")]).unwrap();
        assert_eq!(found.command, ["sh", "-c", "vite && true"]);
        assert_eq!(found.source, "script \"dev\" of package.json");
        let start = r#"{"scripts":{"start":"node s.js","dev":" "}}"#;
        assert_eq!(command(&[("package.json", start)]), "sh -c node s.js");
        let main = ("package.json", r#"{"main":"lib/app"}"#);
        let lib = ("lib/app.js", "");
        assert_eq!(
            command(&[main, lib, ("server.mjs", ""), ("index.js", "")]),
            "node server.mjs"
        );
        assert_eq!(command(&[main, lib, ("index.js", "")]), "node lib/app.js");
        assert_eq!(
            command(&[main, ("lib/app/index.js", "")]),
            "node lib/app/index.js"
        );
        assert_eq!(command(&[main, ("index.cjs", "")]), "node index.cjs");
        let option = ("package.json", r#"{"main":"-x.js"}"#);
        assert_eq!(command(&[option, ("-x.js", "")]), "node ./-x.js");
    }

    #[test]
    fn a_package_manager_runs_what_needs_one() {
        let hooks = r#"{"scripts":{"predev":"x","dev":"y"}}"#;
        for (lock, expected) in [
            ("package-lock.json", "npm run dev"),
            ("pnpm-lock.yaml", "pnpm run dev"),
            ("yarn.lock", "yarn run dev"),
            ("bun.lock", "bun run dev"),
        ] {
            assert_eq!(command(&[("package.json", hooks), (lock, "")]), expected);
        }
        let named = r#"{"packageManager":"pnpm@9.1.0","scripts":{"dev":"echo $npm_package_name"}}"#;
        assert_eq!(
            command(&[("package.json", named), ("yarn.lock", "")]),
            "pnpm run dev"
        );
        let plain = r#"{"packageManager":"yarn@4.0.0","scripts":{"dev":"y"}}"#;
        assert_eq!(command(&[("package.json", plain)]), "sh -c y");
        assert_eq!(
            command(&[("package.json", plain), (".pnp.cjs", "")]),
            "yarn run dev"
        );
    }

    #[test]
    fn a_broken_package_is_told_with_its_place() {
        let error = found(&[("package.json", "{\n  \"a\": 1,\n}")]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("/package.json:3:1: trailing comma"),
            "{text}"
        );
        let text = found(&[("package.json", "[]")]).unwrap_err().to_string();
        assert!(
            text.ends_with("/package.json:1:1: it is no object"),
            "{text}"
        );
        assert!(found(&[("package.json", "\u{feff}{\"scripts\":{\"dev\":\"x\"}}")]).is_ok());
    }

    #[test]
    fn nothing_to_start_lists_what_was_looked_for() {
        let text = found(&[]).unwrap_err().to_string();
        for part in [
            "no package.json",
            "server.js",
            "index.js",
            "lowport dev -- ",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = found(&[("package.json", "{}"), ("src/index.ts", "")])
            .unwrap_err()
            .to_string();
        for part in ["\"dev\" or \"start\"", "tsx watch src/index.ts"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
