//! An image for the app, with or without lowport in it.

use super::compose::write;
use super::containers::log_is_written;
use super::package::Install;
use super::site::{Port, TABLE};
use super::template::quoted;
use super::{Made, Site, Written};
use crate::config::{AppAddr, Mistake};

pub(super) fn files(site: &Site) -> Made {
    let text = match site.config.app {
        Some(_) => with_lowport(site),
        None => node_alone(site),
    };
    Made {
        files: vec![
            Written::new("Dockerfile", text),
            Written::new(
                ".dockerignore",
                include_str!("templates/dockerignore").to_owned(),
            ),
        ],
        next: vec![format!("docker build --tag {} .", site.app_image())],
    }
}

fn node_alone(site: &Site) -> String {
    let command = site.package.command.as_deref().unwrap_or_else(|| {
        site.mistakes.push(
            Mistake::new(None, "nothing tells how the app is started in production")
                .help("add a script \"start\" to package.json, such as \"node server.js\""),
        );
        &[]
    });
    let mut values = common(site);
    values.push(("app_port", site.app_port().to_string()));
    values.push(("command", exec(command)));
    write(include_str!("templates/Dockerfile"), &values)
}

fn with_lowport(site: &Site) -> String {
    log_is_written(site);
    if let Some(app) = &site.config.app
        && let AppAddr::Socket(path) = &app.listens
        && !path.starts_with("/tmp")
    {
        let message = format!(
            "the app cannot make its socket {} in a container, whose files are read-only",
            path.display()
        );
        site.mistakes.push(
            Mistake::new(app.span.clone(), message)
                .help("a `port`, or a socket below /tmp, which is a tmpfs"),
        );
    }
    for mount in site.mounts().iter().filter(|mount| mount.secret) {
        site.mistakes.push(
            Mistake::new(mount.span.clone(), "a key does not belong into an image")
                .label("whoever has the image has it")
                .help(
                    "`lowport init compose` or `kubernetes` give it as a secret, to lowport as a container of its own",
                ),
        );
    }
    let ports = site.ports();
    let numbers = || ports.iter().map(|Port { number, .. }| number.to_string());
    let publish = numbers().map(|port| format!("--publish {port}:{port}"));
    let mut values = common(site);
    values.push(("expose", numbers().collect::<Vec<_>>().join(" ")));
    values.push(("publish", publish.collect::<Vec<_>>().join(" ")));
    values.push(("toml", quoted(site.table_path().trim_start_matches("./"))));
    values.push(("image", site.image().to_owned()));
    write(include_str!("templates/Dockerfile-app"), &values)
}

fn common(site: &Site) -> Vec<(&'static str, String)> {
    let (dependencies, modules) = match &site.package.install {
        Install::Nothing => (String::new(), String::new()),
        Install::Run { files, command } => (
            write(
                include_str!("templates/Dockerfile-dependencies"),
                &[
                    ("files", files.join(" ")),
                    ("command", (*command).to_owned()),
                ],
            ),
            "COPY --from=dependencies --chown=root:root /home/node/app/node_modules ./node_modules"
                .to_owned(),
        ),
    };
    vec![
        ("name", site.name().to_owned()),
        ("source", source(site)),
        ("app_image", site.app_image()),
        ("dependencies", dependencies),
        ("modules", modules),
    ]
}

fn source(site: &Site) -> String {
    match site.source.path {
        Some(_) => site.source.name.clone(),
        None => TABLE.to_owned(),
    }
}

/// As Dockerfiles write a command that no shell reads.
fn exec(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(", "))
}
