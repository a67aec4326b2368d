//! The units that `lowport init systemd` writes.

use std::process::Command;

use super::{EDGE, Project, SIDECAR};
use crate::support::terminal::{CONFIG, done, failed};
use crate::support::{skipped, tool};

#[test]
fn units_bind_what_the_table_listens_on_and_wait_as_long_as_it_drains() {
    let project = Project::new(&format!(
        "[server]\nhttp = [\":8080\"]\nhttps = [\"10.1.2.3:8443\"]\n[timeouts]\ndrain = \"2m\"\n{EDGE}"
    ));
    let told = done(&project.init(&["systemd"]));
    let http = project.read("systemd/lowport.socket");
    assert!(http.contains("\nListenStream=[::]:8080\n"), "{http}");
    let https = project.read("systemd/lowport-https.socket");
    assert!(https.contains("\nListenStream=10.1.2.3:8443\n"), "{https}");
    let service = project.read("systemd/lowport.service");
    assert!(service.contains("\nTimeoutStopSec=135s\n"), "{service}");
    assert!(
        told.contains(
            "install -D --mode 640 --group lowport ./certs/site.key /etc/lowport/certs/site.key\n"
        ),
        "{told}"
    );
    assert!(
        told.contains("systemctl enable --now lowport.socket lowport-https.socket\n"),
        "{told}"
    );
}

#[test]
fn an_app_of_this_machine_has_a_unit_of_its_own_and_is_not_root() {
    let project = Project::new(SIDECAR);
    done(&project.init(&["systemd"]));
    let unit = project.read("systemd/shop.service");
    for line in [
        "ExecStart=/usr/bin/env node server.js",
        "DynamicUser=yes",
        "Environment=NODE_ENV=production HOST=127.0.0.1 PORT=3000",
    ] {
        assert!(unit.contains(&format!("\n{line}\n")), "{line} in {unit}");
    }
    verified(
        &project,
        &["lowport.service", "lowport.socket", "shop.service"],
    );
}

#[test]
fn an_app_that_lowport_starts_takes_a_start_as_root() {
    let project = Project::new("[app]\ncommand = [\"node\", \"server.js\"]\nuser = \"node\"\n");
    let told = done(&project.init(&["systemd"]));
    assert!(
        told.contains("systemctl enable --now lowport-root.service\n"),
        "{told}"
    );
    assert!(
        project
            .read("systemd/lowport-root.service.d/app.conf")
            .contains("[Service]")
    );
    assert!(!project.path("systemd/lowport.socket").exists());
    verified(&project, &["lowport-root.service"]);
}

#[test]
fn without_a_port_to_connect_to_there_is_no_network() {
    let project = Project::new("[[route]]\nto = \"unix:/run/app/app.sock\"\n");
    done(&project.init(&["systemd"]));
    let drop_in = project.read("systemd/lowport.service.d/private-network.conf");
    assert!(drop_in.contains("PrivateNetwork=yes"), "{drop_in}");
}

#[test]
fn a_file_that_systemd_hides_is_refused() {
    let table = EDGE.replace("certs/site.key", "/home/me/site.key");
    let project = Project::new(&table);
    let error = failed(&project.init(&["systemd"]), CONFIG);
    assert!(
        error.contains("lowport.toml:3:7") && error.contains("/home"),
        "{error}"
    );
}

/// What systemd itself says of them, where it is.
fn verified(project: &Project, units: &[&str]) {
    let Some(analyze) = tool("systemd-analyze") else {
        return skipped(
            "what systemd says of units",
            "systemd-analyze is not installed",
        );
    };
    for unit in units {
        // It need not be installed here.
        let name = format!("systemd/{unit}");
        let text = project.read(&name).replace("/usr/bin/lowport", "/bin/true");
        project.write(&name, &text);
    }
    let output = Command::new(analyze)
        .args(["verify", "--man=no"])
        .args(units)
        .current_dir(project.path("systemd"))
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&told), "");
}
