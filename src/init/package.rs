//! The app's own folder: what it is called, and how it is installed and started in production.

use std::path::Path;

use serde_json::Value;

use super::label;
use crate::child::{FindError, find_production_app, package};

/// What the package.json tells, if there is one.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name, or the folder's, as a DNS label
    pub name: String,
    /// Its version, or 1.0.0
    pub version: String,
    /// How it is started; `None` where nothing tells
    pub command: Option<Vec<String>>,
    /// What it takes besides its own files
    pub(super) install: Install,
}

/// How dependencies come into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Install {
    /// There are none
    Nothing,
    /// By these files and this command
    Run {
        files: Vec<&'static str>,
        command: &'static str,
    },
}

/// Lock files, and how what they lock is installed.
const LOCKS: [(&str, &str); 4] = [
    (
        "package-lock.json",
        "npm ci --omit=dev --no-audit --no-fund",
    ),
    (
        "npm-shrinkwrap.json",
        "npm ci --omit=dev --no-audit --no-fund",
    ),
    (
        "pnpm-lock.yaml",
        "corepack pnpm install --prod --frozen-lockfile",
    ),
    ("yarn.lock", "corepack yarn install --immutable"),
];

impl Package {
    /// Looks into `dir`.
    ///
    /// # Errors
    /// There is a package.json that cannot be read or understood.
    pub fn of(dir: &Path) -> Result<Self, FindError> {
        let json = package(dir)?;
        let text = |key: &str| json.as_ref()?.get(key)?.as_str();
        let own = |name: &str| {
            // A scope is not a name.
            label(name.rsplit('/').next().unwrap_or(name))
        };
        let folder = std::path::absolute(dir).ok();
        let folder = folder.as_deref().and_then(Path::file_name);
        let folder = folder.and_then(|name| own(&name.to_string_lossy()));
        Ok(Self {
            name: text("name")
                .and_then(own)
                .or(folder)
                .unwrap_or_else(|| "app".to_owned()),
            version: text("version").and_then(tag).unwrap_or("1.0.0").to_owned(),
            command: command(dir, json.as_ref()),
            install: install(dir, json.as_ref()),
        })
    }
}

/// A version that can be an image's tag.
fn tag(version: &str) -> Option<&str> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (!version.is_empty() && version.len() <= 128 && version.bytes().all(fine)).then_some(version)
}

/// The script "start" as the words that it consists of, so that the app is told to end itself and not a shell.
fn command(dir: &Path, json: Option<&Value>) -> Option<Vec<String>> {
    let start = json.and_then(|json| json.get("scripts")?.get("start")?.as_str());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@, ".contains(&byte);
    if let Some(script) = start.map(str::trim).filter(|script| !script.is_empty())
        && script.bytes().all(plain)
    {
        let mut words: Vec<String> = script.split_whitespace().map(str::to_owned).collect();
        let program = words.first_mut()?;
        // What npm would find: its own folder of programs comes first.
        if !program.contains('/') && !program.contains('=') && program != "node" {
            *program = format!("node_modules/.bin/{program}");
        }
        if !words[0].contains('=') {
            return Some(words);
        }
    }
    Some(find_production_app(dir).ok()?.command)
}

fn install(dir: &Path, json: Option<&Value>) -> Install {
    let Some(json) = json else {
        return Install::Nothing;
    };
    let locked = LOCKS.into_iter().find(|(lock, _)| dir.join(lock).is_file());
    if let Some((lock, command)) = locked {
        return Install::Run {
            files: vec!["package.json", lock],
            command,
        };
    }
    let some = json.get("dependencies").and_then(Value::as_object);
    match some.is_some_and(|some| !some.is_empty()) {
        true => Install::Run {
            files: vec!["package.json"],
            command: "npm install --omit=dev --no-audit --no-fund",
        },
        false => Install::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Package {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Package::of(dir.path()).unwrap()
    }

    #[test]
    fn a_scope_is_left_out_and_a_version_is_a_tag() {
        let package = of(&[(
            "package.json",
            r#"{"name":"@acme/My.Shop","version":"2.1.0-rc.1"}"#,
        )]);
        assert_eq!(
            (package.name.as_str(), package.version.as_str()),
            ("my-shop", "2.1.0-rc.1")
        );
        assert_eq!(
            of(&[("package.json", r#"{"version":"1+x"}"#)]).version,
            "1.0.0"
        );
    }

    #[test]
    fn a_start_script_is_run_without_a_shell_where_it_has_no_need_of_one() {
        let command = |script: &str| {
            let json = serde_json::json!({ "scripts": { "start": script, "dev": "no" } });
            of(&[("package.json", &json.to_string())])
                .command
                .unwrap()
                .join(" ")
        };
        assert_eq!(
            command("node server.js --port=1"),
            "node server.js --port=1"
        );
        assert_eq!(command("next start"), "node_modules/.bin/next start");
        assert_eq!(command("a && b"), "sh -c a && b");
        assert_eq!(command("X=1 node a.js"), "sh -c X=1 node a.js");
        assert_eq!(
            of(&[("server.js", "")]).command.unwrap(),
            ["node", "server.js"]
        );
        assert_eq!(of(&[]).command, None);
        let dev = of(&[("package.json", r#"{"scripts":{"dev":"vite"}}"#)]);
        assert_eq!(dev.command, None, "what starts it for development");
    }

    #[test]
    fn dependencies_are_installed_as_they_are_locked() {
        assert_eq!(of(&[("server.js", "")]).install, Install::Nothing);
        assert_eq!(of(&[("package.json", "{}")]).install, Install::Nothing);
        let locked = of(&[("package.json", "{}"), ("pnpm-lock.yaml", "")]).install;
        assert!(matches!(locked, Install::Run { files, .. } if files[1] == "pnpm-lock.yaml"));
        let loose = of(&[("package.json", r#"{"dependencies":{"x":"1"}}"#)]).install;
        assert!(matches!(loose, Install::Run { files, .. } if files == ["package.json"]));
    }
}
