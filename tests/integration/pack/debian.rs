//! The Debian package, and the units in it under a real systemd: on a throwaway layer above this machine's files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{both, is_there, repository};
use crate::support::lowport::BINARY;
use crate::support::{folder, is_root, skipped};

/// Builds the package, as fast as can be.
fn build(out: &Path) -> PathBuf {
    let output = Command::new(repository("deploy/debian/build"))
        .arg(BINARY)
        .arg(out)
        .env("COMPRESSION", "none")
        .env("SOURCE_DATE_EPOCH", "1750000000")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

fn can_be_built(test: &str) -> bool {
    is_there(test, "dpkg-deb", &["--version"]) && is_there(test, "dpkg-shlibdeps", &["--version"])
}

#[test]
fn the_package_is_the_same_each_time() {
    if !can_be_built("the Debian package") {
        return;
    }
    let (one, two) = (folder(), folder());
    let packages = [build(one.path()), build(two.path())];
    let compared = Command::new("cmp").args(&packages).output().unwrap();
    assert!(compared.status.success(), "{}", both(&compared));
    let ask = |what: &str| {
        let mut command = Command::new("dpkg-deb");
        both(&command.arg(what).arg(&packages[0]).output().unwrap())
    };
    let files = ask("--contents");
    for line in files.lines() {
        assert!(line.contains(" root/root "), "{line}");
        let is_program = line.ends_with(" ./usr/bin/lowport");
        assert!(
            line.starts_with(if is_program {
                "-rwxr-xr-x"
            } else {
                "-rw-r--r--"
            }) || line.starts_with("drwxr-xr-x"),
            "{line}"
        );
    }
    let control = ask("--info");
    assert!(control.contains("Depends: adduser"), "{control}");
}

/// Runs a script as root under a systemd of its own. `in_folder` is what it finds in /run/pack.
fn machine(in_folder: &Path) -> Output {
    Command::new("bash")
        .arg(repository("tests/integration/pack/machine.sh"))
        .arg(in_folder)
        .output()
        .expect("bash runs")
}

#[test]
fn it_is_installed_runs_in_every_way_and_leaves_nothing_behind() {
    const TEST: &str = "the package and its units under systemd";
    if !is_root() {
        return skipped(TEST, "needs root");
    }
    let tools = [
        ("/lib/systemd/systemd", "--version"),
        ("unshare", "--version"),
        ("ip", "-V"),
        ("adduser", "--version"),
        ("openssl", "version"),
        ("perl", "-v"),
    ];
    let there = |(program, arg): (&str, &str)| is_there(TEST, program, &[arg]);
    if !can_be_built(TEST) || !tools.into_iter().all(there) {
        return;
    }
    let folder = folder();
    let script = folder.path().join("drive.sh");
    std::fs::write(&script, "exit 0\n").unwrap();
    let probe = machine(folder.path());
    if !probe.status.success() {
        let said = both(&probe);
        let why = said.lines().last().unwrap_or("no systemd can be booted");
        return skipped(TEST, &format!("namespaces cannot be had: {why}"));
    }
    std::fs::copy(repository("tests/integration/pack/drive.sh"), script).unwrap();
    std::fs::rename(build(folder.path()), folder.path().join("lowport.deb")).unwrap();
    let output = machine(folder.path());
    let mut told = std::fs::read_to_string(folder.path().join("out")).unwrap();
    let right =
        output.status.success() && told.ends_with("all of it\n") && !told.contains("wrong: ");
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            told.push_str(&format!("--- {}\n{log}", path.display()));
        }
    }
    assert!(right, "{told}\n{}", both(&output));
}
