//! What every container is given: its table, its keys, its ports. And what none can have.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use super::Site;
use super::site::{Mount, Port};
use super::template::{lines, quoted};
use crate::config::{AccessLog, Mistake, PeerAddr};

/// The number that lowport's image runs as.
const LOWPORT: u32 = 65532;

/// Reports what the table has and no container of lowport's image.
pub(super) fn check(site: &Site) {
    if let Some(app) = &site.config.app {
        let mistake = Mistake::new(app.span.clone(), "lowport's image has no Node to start an app with")
            .help(
                "`lowport init dockerfile` writes an image that has both; or take [app] out, and name where an app of its own \
                 container listens: to = \"http://127.0.0.1:3000\"",
            );
        site.mistakes.push(mistake);
    }
    log_is_written(site);
    for (listener, _) in site.config.listeners() {
        if listener.addr.ip().to_canonical().is_loopback() {
            site.mistakes.push(
                Mistake::new(
                    listener.span.clone(),
                    "nobody reaches this address of a container",
                )
                .label("its loopback is its own")
                .help(format!(
                    "write \":{}\", which is every address",
                    listener.addr.port()
                )),
            );
        }
    }
    for (addr, span) in site.peers() {
        if let PeerAddr::Unix(path) = addr {
            let message = format!(
                "{} is in a container of its own, out of lowport's reach",
                path.display()
            );
            site.mistakes.push(
                Mistake::new(span.clone(), message)
                    .help("as a sidecar lowport reaches the app's port on 127.0.0.1; `lowport init systemd` can do with sockets"),
            );
        }
    }
}

/// Reports an access log that is a file.
pub(super) fn log_is_written(site: &Site) {
    if let AccessLog::File(path) = &site.config.log.access {
        let message = format!(
            "the access log {} cannot be written in a container, whose files are read-only",
            path.display()
        );
        site.mistakes.push(
            Mistake::new(None, message)
                .help("access = \"stdout\" in [log], which the container's own log takes"),
        );
    }
}

/// Reports files that cannot be read here, where they are to be taken from. With `as_lowport` also those that lowport
/// could not read in its container, where they keep their owners and permissions.
pub(super) fn readable(site: &Site, as_lowport: bool) {
    for Mount { from, span, .. } in site.mounts() {
        let name = from.display();
        let file = match File::open(&from) {
            Ok(file) => file,
            Err(error) => {
                site.mistakes.push(
                    Mistake::new(span, format!("{name} cannot be read: {error}")).help(
                        "it has to be there, and yours to read, when the containers are made",
                    ),
                );
                continue;
            }
        };
        let Ok(about) = file.metadata() else { continue };
        let bit = match (about.uid(), about.gid()) {
            (LOWPORT, _) => 0o400,
            (_, LOWPORT) => 0o040,
            _ => 0o004,
        };
        if as_lowport && about.mode() & bit == 0 {
            site.mistakes.push(
                Mistake::new(
                    span,
                    format!("{name} is not for uid {LOWPORT} to read, as which lowport runs in its container"),
                )
                .label("it keeps its owner and its permissions there")
                .help(format!("sudo chown {LOWPORT} {name}")),
            );
        }
    }
}

/// The sysctl that makes low ports anybody's, within the container's own network namespace.
pub(super) fn sysctls(site: &Site) -> String {
    match site.low_port() {
        Some(port) => format!(
            "# Of its own network namespace: ports from {port} on take no privilege there.\n\
             sysctls:\n  net.ipv4.ip_unprivileged_port_start: \"{port}\""
        ),
        None => String::new(),
    }
}

/// Each port of the table as the same one of the machine.
pub(super) fn published(site: &Site) -> String {
    lines(
        site.ports()
            .into_iter()
            .map(|Port { number, .. }| format!("- \"{number}:{number}\"")),
    )
}

/// What a file is called among the others: the name that it has, and what no two share.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) mount: Mount,
}

/// The files that the table names, each with a name.
pub(super) fn named(site: &Site) -> Vec<Named> {
    let mut named: Vec<Named> = Vec::new();
    for mount in site.mounts() {
        let file = mount.from.file_name().unwrap_or_default();
        let plain = super::label(&file.to_string_lossy()).unwrap_or_else(|| "file".to_owned());
        // `lowport` is the table's own.
        let taken = |name: &str| name == "lowport" || named.iter().any(|it| it.name == name);
        let mut name = plain.clone();
        let mut number = 2;
        while taken(&name) {
            name = format!("{plain}-{number}");
            number += 1;
        }
        named.push(Named { name, mount });
    }
    named
}

/// Which configs or secrets a service has.
pub(super) fn given(files: &[Named], secret: bool, owned: bool) -> String {
    let mut entries = Vec::new();
    if !secret {
        entries.push("- source: lowport\n  target: /etc/lowport/lowport.toml".to_owned());
    }
    for Named { name, mount } in files.iter().filter(|file| file.mount.secret == secret) {
        let target = quoted(&mount.to);
        let owner = match secret && owned {
            true => format!("\n  uid: \"{LOWPORT}\"\n  gid: \"{LOWPORT}\"\n  mode: 0400"),
            false => String::new(),
        };
        entries.push(format!("- source: {name}\n  target: {target}{owner}"));
    }
    lines(entries)
}
