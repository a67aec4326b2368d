//! Docker Swarm.

use std::time::Duration;

use super::compose::{before, is_service, write};
use super::containers::{check, given, named, published, readable, sysctls};
use super::site::is_local;
use super::template::{lines, quoted, section};
use super::{Made, Site, Written};
use crate::config::Mistake;

const FILE: &str = "stack.yaml";

pub(super) fn files(site: &Site) -> Made {
    check(site);
    // Swarm stores their contents, and gives them out with an owner of their own.
    readable(site, false);
    edge_only(site);
    let apps = site.named_peers();
    let apps = lines(
        apps.iter()
            .filter(|(name, _)| is_service(name))
            .map(|(name, port)| app(site, name, *port, apps.len() == 1)),
    );
    let files = named(site);
    let sources = |secret: bool| {
        let files = files.iter().filter(|file| file.mount.secret == secret);
        lines(files.map(|file| source(site, &file.name, &site.path(&file.mount.from))))
    };
    let table = source(site, "lowport", &site.table_path());
    let configs = [table, sources(false)];
    let values = [
        ("name", site.name().to_owned()),
        ("source", site.source.name.clone()),
        ("image", quoted(site.image())),
        ("sysctls", sysctls(site)),
        ("ports", published(site)),
        ("configs", given(&files, false, true)),
        ("secrets", section("secrets", &given(&files, true, true))),
        ("apps", apps),
        (
            "config_files",
            lines(configs.into_iter().filter(|it| !it.is_empty())),
        ),
        ("secret_files", before(section("secrets", &sources(true)))),
        ("grace", site.grace(Duration::ZERO).to_string()),
    ];
    let text = write(include_str!("templates/swarm.yaml"), &values);
    Made {
        files: vec![Written::new(FILE, text)],
        next: vec![
            "push the images to a registry that every node reaches, and name them in stack.yaml"
                .to_owned(),
            format!("docker stack deploy --compose-file {FILE} {}", site.name()),
        ],
    }
}

/// Services share no network namespace.
fn edge_only(site: &Site) {
    for (_, span) in site.peers().filter(|(addr, _)| is_local(addr)) {
        site.mistakes.push(
                Mistake::new(span.clone(), "in a swarm the app is on another machine than lowport, or at least in another network namespace")
                    .label("nobody is there but lowport itself")
                    .help(format!(
                        "name the app's service, as in \"http://app:{}\"; or `lowport init dockerfile` with [app], an image in which lowport starts the app",
                        site.app_port()
                    )),
            );
    }
}

fn app(site: &Site, name: &str, port: u16, only: bool) -> String {
    let image = match only {
        true => site.app_image(),
        false => format!("{name}:1.0.0"),
    };
    let values = [
        ("service", name.to_owned()),
        ("app_image", quoted(&image)),
        ("app_port", port.to_string()),
    ];
    write(include_str!("templates/swarm-app.yaml"), &values)
}

/// A config or a secret: with a name that tells its version, since it cannot be changed.
fn source(site: &Site, name: &str, path: &str) -> String {
    let full = format!("{}-{name}-${{LOWPORT_VERSION:-1}}", site.name());
    format!("{name}:\n  name: {full}\n  file: {}", quoted(path))
}
