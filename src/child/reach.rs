//! What the app needs to reach: its folder, its programs, and the path they are looked up in.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::supervisor::AppSpec;

/// Where programs are when `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The folder that a package's dependencies may be hoisted to: the nearest one above `dir` that declares workspaces
/// (npm, yarn, pnpm, bun), else `dir` itself.
pub(super) fn workspace(dir: &Path) -> &Path {
    let declares = |folder: &&Path| {
        folder.join("pnpm-workspace.yaml").is_file()
            || fs::read(folder.join("package.json"))
                .ok()
                .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
                .is_some_and(|package| package.get("workspaces").is_some())
    };
    dir.ancestors().find(declares).unwrap_or(dir)
}

/// `PATH` for an app in `dir`: the programs of its dependencies first, as npm does it, then `before`, then our own.
pub(super) fn search_path(dir: &Path, before: &[PathBuf]) -> OsString {
    let top = workspace(dir);
    let modules = dir
        .ancestors()
        .take_while(|folder| folder.starts_with(top))
        .map(|folder| folder.join("node_modules/.bin"))
        // The app's own even if it is made later, by an install script.
        .enumerate()
        .filter(|(index, bin)| *index == 0 || bin.is_dir())
        .map(|(_, bin)| bin);
    let own = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let all: Vec<PathBuf> = modules
        .chain(before.iter().cloned())
        .chain(env::split_paths(&own))
        .collect();
    // A folder with a colon in its name cannot be in a path.
    env::join_paths(all).unwrap_or(own)
}

/// Where `program` is: in `dir` when it has a slash, else in `path`.
pub(super) fn find_program(program: &str, dir: &Path, path: &OsStr) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(dir.join(program)).filter(runs);
    }
    env::split_paths(path)
        .map(|folder| dir.join(folder).join(program))
        .find(runs)
}

/// The folders of the app's program and of Node, without symbolic links.
pub(super) fn program_folders(spec: &AppSpec, path: &OsStr) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = programs(spec, path)
        .filter_map(|program| fs::canonicalize(program.parent()?).ok())
        .collect();
    folders.dedup();
    folders
}

/// What has to be reachable and readable for the app to run: folders and files that exist.
pub(super) fn needed(spec: &AppSpec, path: &OsStr) -> Vec<PathBuf> {
    let mut all = vec![workspace(&spec.dir).to_owned(), spec.dir.clone()];
    let inside = ["package.json", "node_modules"]
        .into_iter()
        .map(|name| spec.dir.join(name));
    all.extend(inside.filter(|path| path.exists()));
    let arguments = spec.command.iter().skip(1).map(|arg| spec.dir.join(arg));
    all.extend(arguments.filter(|path| path.is_file()));
    for program in programs(spec, path) {
        all.extend(installation(&program));
        all.push(program);
    }
    all.extend(spec.extra_ca.clone());
    all
}

/// The app's own program, and Node, which scripts look up by themselves.
fn programs(spec: &AppSpec, path: &OsStr) -> impl Iterator<Item = PathBuf> {
    let own = spec.command.first().map(String::as_str);
    own.into_iter()
        .chain(["node"])
        .filter_map(|name| find_program(name, &spec.dir, path))
}

/// The whole of a Node installation such as nvm's: npm lies beside the `bin` folder that a program is in.
fn installation(program: &Path) -> Option<PathBuf> {
    let bin = fs::canonicalize(program.parent()?).ok()?;
    let top = bin.parent().filter(|_| bin.ends_with("bin"))?;
    top.join("lib/node_modules")
        .is_dir()
        .then(|| top.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, command: &[&str]) -> AppSpec {
        AppSpec {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            dir: dir.to_owned(),
            user: None,
            listens: crate::config::AppAddr::Port(3000),
            extra_ca: None,
            longest_pause: std::time::Duration::from_secs(30),
        }
    }

    #[test]
    fn dependencies_of_the_workspace_are_in_the_path() {
        let root = tempfile::tempdir().unwrap();
        let app = root.path().join("packages/app");
        fs::create_dir_all(&app).unwrap();
        fs::create_dir_all(root.path().join("node_modules/.bin")).unwrap();
        let first = |count| -> Vec<PathBuf> {
            env::split_paths(&search_path(&app, &["/first".into()]))
                .take(count)
                .collect()
        };
        assert_eq!(workspace(&app), app);
        assert_eq!(
            first(2),
            [app.join("node_modules/.bin"), PathBuf::from("/first")]
        );
        fs::write(
            root.path().join("package.json"),
            r#"{"workspaces":["packages/*"]}"#,
        )
        .unwrap();
        assert_eq!(workspace(&app), root.path());
        assert_eq!(
            first(3),
            [
                app.join("node_modules/.bin"),
                root.path().join("node_modules/.bin"),
                PathBuf::from("/first")
            ]
        );
    }

    #[test]
    fn a_node_installation_is_needed_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let node = root.join("v20/bin/node");
        for folder in ["v20/bin", "v20/lib/node_modules/npm", "app"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(&node, "").unwrap();
        let app = root.join("app");
        fs::write(app.join("server.js"), "").unwrap();
        let spec = spec(&app, &["node", "server.js", "--flag"]);
        let path = OsString::from(root.join("v20/bin"));
        assert_eq!(
            find_program("node", &app, &path),
            None,
            "not an executable file"
        );
        fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
        let all = needed(&spec, &path);
        for expected in [app.clone(), app.join("server.js"), root.join("v20"), node] {
            assert!(all.contains(&expected), "{expected:?} in {all:?}");
        }
        assert_eq!(program_folders(&spec, &path), [root.join("v20/bin")]);
        assert_eq!(
            find_program("../v20/bin/node", &app, &path),
            Some(app.join("../v20/bin/node"))
        );
    }
}
