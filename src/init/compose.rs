//! Docker Compose.

use std::time::Duration;

use super::containers::{check, given, named, published, readable, sysctls};
use super::template::{fill, lines, quoted, section};
use super::{Made, Site, Written};

const FILE: &str = "compose.yaml";

pub(super) fn files(site: &Site) -> Made {
    check(site);
    // Compose mounts the files themselves.
    readable(site, true);
    let sidecar = !site.local_peers().is_empty();
    let text = if sidecar {
        as_sidecar(site)
    } else {
        at_edge(site)
    };
    let mut next = vec![format!(
        "{} is the image that deploy/Dockerfile of lowport makes",
        site.image()
    )];
    let others = site.named_peers();
    if sidecar && !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|(name, _)| name.as_str()).collect();
        next.push(format!(
            "{FILE} has no services for {}: add them, and a network that they share with lowport",
            names.join(", ")
        ));
    }
    next.push("docker compose up --build".to_owned());
    Made {
        files: vec![Written::new(FILE, text)],
        next,
    }
}

fn as_sidecar(site: &Site) -> String {
    let port = site.app_port().to_string();
    let mut values = common(site);
    values.push(("address", format!("127.0.0.1:{port}")));
    values.push(("app_image", quoted(&site.app_image())));
    values.push(("app_port", port));
    write(include_str!("templates/compose-sidecar.yaml"), &values)
}

fn at_edge(site: &Site) -> String {
    let apps = site
        .named_peers()
        .into_iter()
        .filter(|(name, _)| is_service(name));
    let apps: Vec<(String, u16)> = apps.collect();
    let services = lines(
        apps.iter()
            .map(|(name, port)| app(site, name, *port, apps.len() == 1)),
    );
    let waits = lines(apps.iter().map(|(name, _)| name.clone()));
    let waits = match waits.is_empty() {
        true => String::new(),
        false => format!("depends_on: [{}]", waits.replace('\n', ", ")),
    };
    let mut values = common(site);
    values.push(("apps", services));
    values.push(("depends_on", waits));
    write(include_str!("templates/compose-edge.yaml"), &values)
}

/// Whether a peer's name can be a service's: anything with a dot is somewhere else.
pub(super) fn is_service(name: &str) -> bool {
    super::label(name).as_deref() == Some(name)
}

/// The service of an app. Where there are several, each has a folder.
fn app(site: &Site, name: &str, port: u16, only: bool) -> String {
    let (build, image) = match only {
        true => (site.app_folder(), site.app_image()),
        false => (format!("./{name}"), format!("{name}:1.0.0")),
    };
    let values = [
        ("service", name.to_owned()),
        ("build", quoted(&build)),
        ("app_image", quoted(&image)),
        ("app_port", port.to_string()),
    ];
    write(include_str!("templates/compose-app.yaml"), &values)
}

/// What both have.
fn common(site: &Site) -> Vec<(&'static str, String)> {
    let files = named(site);
    let sources = |secret: bool| {
        let files = files.iter().filter(|file| file.mount.secret == secret);
        lines(files.map(|file| {
            let path = quoted(&site.path(&file.mount.from));
            format!("{}:\n  file: {path}", file.name)
        }))
    };
    let table = format!("lowport:\n  file: {}", quoted(&site.table_path()));
    let configs = lines(
        [table, sources(false)]
            .into_iter()
            .filter(|it| !it.is_empty()),
    );
    vec![
        ("name", site.name().to_owned()),
        ("source", site.source.name.clone()),
        ("image", quoted(site.image())),
        ("build", quoted(&site.app_folder())),
        ("sysctls", sysctls(site)),
        ("ports", published(site)),
        ("configs", given(&files, false, false)),
        ("secrets", section("secrets", &given(&files, true, false))),
        ("config_files", configs),
        ("secret_files", before(section("secrets", &sources(true)))),
        ("grace", site.grace(Duration::ZERO).to_string()),
    ]
}

/// A line's distance from what stands above.
pub(super) fn before(block: String) -> String {
    match block.is_empty() {
        true => block,
        false => format!("\n{block}"),
    }
}

/// Fills a template whose values own their texts.
pub(super) fn write(template: &str, values: &[(&str, String)]) -> String {
    let values: Vec<(&str, &str)> = values
        .iter()
        .map(|(key, text)| (*key, text.as_str()))
        .collect();
    fill(template, &values)
}
