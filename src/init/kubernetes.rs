//! Kubernetes: plain manifests and the kustomization that brings the route table with them.

use std::path::Path;
use std::time::Duration;

use super::compose::write;
use super::containers::{Named, check, named, readable};
use super::site::{Port, TABLE};
use super::template::{lines, quoted};
use super::{Made, Site, Written};

const FOLDER: &str = "kubernetes";
/// What Kubernetes waits before it tells a container to end, as the manifests say.
const PRE_STOP: Duration = Duration::from_secs(5);
/// What an app may take to end once it is told to.
const APP: Duration = Duration::from_secs(10);
/// Where the table is in the container, and what is relative to it.
const MOUNTED: &str = "/etc/lowport";

pub(super) fn files(site: &Site) -> Made {
    check(site);
    readable(site, false);
    let sidecar = !site.local_peers().is_empty();
    let keys = named(site);
    let volumes = Volumes::of(site, &keys);
    let container = write(
        include_str!("templates/kubernetes-container.yaml"),
        &[
            ("ports", container_ports(site)),
            ("mounts", volumes.mounts.clone()),
        ],
    );
    let before = if sidecar { PRE_STOP + APP } else { PRE_STOP };
    let port = site.app_port();
    let values = [
        ("name", site.name().to_owned()),
        ("source", site.source.name.clone()),
        ("address", format!("127.0.0.1:{port}")),
        ("app_image", quoted(&site.app_image())),
        ("app_port", port.to_string()),
        ("image", quoted(site.image())),
        ("container", container),
        ("volumes", volumes.volumes),
        ("sysctls", sysctls(site)),
        ("grace", site.grace(before).to_string()),
        ("secret_help", secret_help(site, &keys)),
    ];
    let filled = |template: &str| write(template, &values);
    let with_ports = |template: &str, ports: String| {
        let more = [
            ("ports", ports),
            ("upstream_ports", policy_ports(site.peer_ports())),
        ];
        write(template, &[values.as_slice(), &more].concat())
    };
    let ports = policy_ports(site.ports().iter().map(|port| port.number));
    let (deployment, policy) = match sidecar {
        true => (
            include_str!("templates/kubernetes-sidecar.yaml"),
            include_str!("templates/kubernetes-policy-sidecar.yaml"),
        ),
        false => (
            include_str!("templates/kubernetes-edge.yaml"),
            include_str!("templates/kubernetes-policy-edge.yaml"),
        ),
    };
    let texts = [
        (
            "kustomization.yaml",
            filled(include_str!("templates/kubernetes-kustomization.yaml")),
        ),
        (TABLE, site.source.text.clone()),
        ("deployment.yaml", filled(deployment)),
        (
            "service.yaml",
            with_ports(
                include_str!("templates/kubernetes-service.yaml"),
                service_ports(site),
            ),
        ),
        ("network-policy.yaml", with_ports(policy, ports)),
        (
            "disruption-budget.yaml",
            filled(include_str!("templates/kubernetes-budget.yaml")),
        ),
    ];
    Made {
        files: texts
            .map(|(name, text)| Written::new(&format!("{FOLDER}/{name}"), text))
            .into(),
        next: next(site, &keys),
    }
}

/// What a container's files come from.
struct Volumes {
    volumes: String,
    mounts: String,
}

impl Volumes {
    /// What is relative to the table is in one volume with it, so that both change at once; each other folder has its own.
    fn of(site: &Site, keys: &[Named]) -> Self {
        let secret = secret(site);
        let mut items = String::new();
        let mut folders: Vec<(&str, Vec<String>)> = Vec::new();
        for Named { name, mount } in keys {
            if let Some(below) = mount.to.strip_prefix(&format!("{MOUNTED}/")) {
                items.push_str(&format!(
                    "\n        - key: {name}\n          path: {}",
                    quoted(below)
                ));
                continue;
            }
            let path = Path::new(&mount.to);
            let folder = path.parent().and_then(Path::to_str).unwrap_or("/");
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let item = format!("- key: {name}\n  path: {}", quoted(&file));
            match folders.iter_mut().find(|(known, _)| *known == folder) {
                Some((_, items)) => items.push(item),
                None => folders.push((folder, vec![item])),
            }
        }
        let mut volumes = format!(
            "- name: lowport\n  projected:\n    defaultMode: 0440\n    sources:\n      - configMap:\n          name: {}-lowport",
            site.name()
        );
        let mut mounts = format!("- name: lowport\n  mountPath: {MOUNTED}\n  readOnly: true");
        if !items.is_empty() {
            let items = items.replace("\n        ", "\n            ");
            volumes.push_str(&format!(
                "\n      - secret:\n          name: {secret}\n          items:{items}"
            ));
        }
        for (number, (folder, items)) in folders.iter().enumerate() {
            let name = format!("keys-{}", number + 1);
            let items = lines(items.iter().cloned()).replace('\n', "\n      ");
            volumes.push_str(&format!(
                "\n- name: {name}\n  secret:\n    secretName: {secret}\n    defaultMode: 0440\n    items:\n      {items}"
            ));
            let folder = quoted(folder);
            mounts.push_str(&format!(
                "\n- name: {name}\n  mountPath: {folder}\n  readOnly: true"
            ));
        }
        Self { volumes, mounts }
    }
}

fn secret(site: &Site) -> String {
    format!("{}-keys", site.name())
}

/// How the secret is made: its contents are in none of these files.
fn create_secret(site: &Site, keys: &[Named]) -> Option<String> {
    if keys.is_empty() {
        return None;
    }
    let files = keys
        .iter()
        .map(|file| format!("--from-file={}={}", file.name, site.path(&file.mount.from)));
    let files: Vec<String> = files.collect();
    let name = secret(site);
    Some(format!(
        "kubectl create secret generic {name} {}",
        files.join(" ")
    ))
}

fn secret_help(site: &Site, keys: &[Named]) -> String {
    create_secret(site, keys).map_or_else(String::new, |command| {
        format!(
            "# The certificates are in a Secret, which is not in these files. It is made once, and replaced when they are renewed with\n\
             # `--dry-run=client -o yaml | kubectl apply -f -` behind it:\n#   {command}\n#"
        )
    })
}

fn next(site: &Site, keys: &[Named]) -> Vec<String> {
    let mut next = vec![format!(
        "push the images to a registry that the cluster reaches, and name them in {FOLDER}/deployment.yaml"
    )];
    next.extend(create_secret(site, keys));
    next.push(format!("kubectl apply -k {FOLDER}"));
    next.push(format!(
        "{FOLDER}/{TABLE} is a copy of {}: it is what is deployed from now on",
        site.source.name
    ));
    next
}

fn port_name(port: Port) -> String {
    match (port.tls, port.number) {
        (false, 80) => "http".to_owned(),
        (true, 443) => "https".to_owned(),
        (tls, number) => format!("http{}-{number}", if tls { "s" } else { "" }),
    }
}

fn container_ports(site: &Site) -> String {
    lines(site.ports().into_iter().map(|port| {
        let name = port_name(port);
        format!("- name: {name}\n  containerPort: {}", port.number)
    }))
}

fn service_ports(site: &Site) -> String {
    lines(site.ports().into_iter().map(|port| {
        let name = port_name(port);
        format!(
            "- name: {name}\n  port: {}\n  targetPort: {name}",
            port.number
        )
    }))
}

fn policy_ports(ports: impl IntoIterator<Item = u16>) -> String {
    lines(ports.into_iter().map(|port| format!("- port: {port}")))
}

/// One that the restricted standard takes for safe.
fn sysctls(site: &Site) -> String {
    match site.low_port() {
        Some(port) => format!(
            "# Of the pod's own network namespace: ports from {port} on take no privilege there.\n\
             sysctls:\n  - name: net.ipv4.ip_unprivileged_port_start\n    value: \"{port}\""
        ),
        None => String::new(),
    }
}
