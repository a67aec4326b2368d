//! The units in `deploy/systemd`, as systemd-analyze(1) judges them. That lowport runs under them is tried in `debian`.

use std::path::Path;
use std::process::Command;

use super::{both, is_there, repository};
use crate::support::folder;

/// How exposed a unit is by `systemd-analyze security`: 0 is not at all, 10 is wide open.
fn exposure(unit: &Path) -> f64 {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit)
        .output()
        .expect("it runs");
    let text = both(&output);
    let line = text.lines().find(|line| line.contains("exposure level"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    let (_, level) = line.rsplit_once(": ").expect("a level");
    let level = level.split(' ').next().expect("a number");
    level.parse().expect("a number")
}

#[test]
fn the_units_are_as_closed_as_they_are_said_to_be() {
    if !is_there(
        "how exposed the units are",
        "systemd-analyze",
        &["--version"],
    ) {
        return;
    }
    for (unit, most) in [
        ("lowport.service", 1.1),
        ("lowport-ambient.service", 1.5),
        ("lowport-root.service", 2.1),
    ] {
        let level = exposure(&repository("deploy/systemd").join(unit));
        assert!(level <= most, "{unit}: {level}");
    }
    // Where all upstreams are on Unix sockets.
    let folder = folder();
    let more = folder.path().join("lowport.service.d");
    std::fs::create_dir(&more).unwrap();
    for (file, folder) in [
        ("lowport.service", folder.path()),
        ("private-network.conf", more.as_path()),
    ] {
        let from = repository("deploy/systemd").join(file);
        std::fs::copy(from, folder.join(file)).unwrap();
    }
    let level = exposure(&folder.path().join("lowport.service"));
    assert!(level <= 0.2, "without a network: {level}");
}

#[test]
fn systemd_has_nothing_to_complain_of() {
    if !is_there("the units", "systemd-analyze", &["--version"]) {
        return;
    }
    let folder = folder();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for entry in std::fs::read_dir(repository("deploy/systemd")).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".conf") {
            continue;
        }
        // It need not be installed here.
        let text = std::fs::read_to_string(&from).unwrap();
        let to = folder.path().join(name);
        std::fs::write(&to, text.replace("/usr/bin/lowport", "/bin/true")).unwrap();
        command.arg(to);
    }
    let output = command.output().expect("it runs");
    assert_eq!(
        (both(&output).as_str(), output.status.success()),
        ("", true)
    );
}
