//! Compose files, and Swarm stacks, which are the same: as whom do their services run Node?

use std::path::Path;

use super::command::{self, Runs};
use super::dockerfile::{self, UserIs};
use super::finding::Severity;
use super::image::{self, Starts};
use super::report::InFile;
use super::variables::{Variables, expand};
use super::walk;
use super::yaml::{Value, Yaml};

/// More of one document are not looked at: each may have a Dockerfile read.
const MAX_SERVICES: usize = 500;

/// Whether a document is a Compose file: a mapping of services, each with an image or something to build it from.
pub(super) fn is_compose(document: Value<'_>) -> bool {
    document.get("apiVersion").is_none()
        && document
            .get("services")
            .is_some_and(|services| services.entries().any(|(_, service)| service.is_mapping()))
}

/// Tells what is wrong with the services of a Compose file.
pub(super) fn check(yaml: &Yaml, out: &mut InFile<'_>) {
    for document in yaml.documents().filter(|document| is_compose(*document)) {
        let services = document
            .get("services")
            .into_iter()
            .flat_map(Value::entries);
        for (count, (name, service)) in services.enumerate() {
            if count == MAX_SERVICES {
                let what = format!("has more than {MAX_SERVICES} services: the rest is not read");
                out.note("compose-bound", name.line(), what);
                break;
            }
            Service {
                name: name.str().unwrap_or_default(),
                line: name.line(),
                is: service,
            }
            .check(out);
        }
    }
}

struct Service<'a> {
    name: &'a str,
    line: usize,
    is: Value<'a>,
}

/// What a service is made from, as far as it can be told.
struct Origin {
    runs: Runs,
    user: UserIs,
    image: Option<String>,
}

impl Service<'_> {
    fn check(&self, out: &mut InFile<'_>) {
        let origin = self.origin(out.path());
        if !self.runs(&origin).is_node() {
            return;
        }
        self.user(&origin, out);
        self.privileges(out);
        for port in self.is.get("ports").into_iter().flat_map(Value::items) {
            if let Some(published) = published(port) {
                out.found(
                    "compose-ports",
                    Severity::Medium,
                    port.line(),
                    format!("service {} publishes port {published} of the host straight to node", self.name),
                    "publish 80 and 443 to lowport, and let it reach node over the network of the two",
                );
            }
        }
    }

    fn user(&self, origin: &Origin, out: &mut InFile<'_>) {
        let name = self.name;
        let (line, is) = match self.is.get("user") {
            Some(user) => {
                let written = user.str().unwrap_or_default();
                let is = match interpolate(written) {
                    Some(value) if dockerfile::is_root(&value) => {
                        UserIs::Root(format!("user is {value}"))
                    }
                    Some(value) if !value.trim().is_empty() => UserIs::Other,
                    _ => {
                        UserIs::Unknown(format!("user {written} is only known when it is started"))
                    }
                };
                (user.line(), is)
            }
            None => (self.line, origin.user.clone()),
        };
        let user = origin
            .image
            .as_deref()
            .map_or("10001:10001", image::user_for);
        match is {
            UserIs::Root(why) => out.found(
                "compose-user",
                Severity::High,
                line,
                format!("service {name} runs node as root: {why}"),
                match self.is.get("user") {
                    Some(_) => format!("write `user: \"{user}\"` on line {line}"),
                    None => format!(
                        "add `user: \"{user}\"` to the service, or `USER {user}` to its Dockerfile"
                    ),
                },
            ),
            UserIs::Unknown(why) => {
                out.note("compose-user", line, format!("service {name}: {why}"))
            }
            UserIs::Other => {}
        }
    }

    fn privileges(&self, out: &mut InFile<'_>) {
        let name = self.name;
        if let Some(privileged) = self.is.get("privileged")
            && privileged.bool() == Some(true)
        {
            out.found(
                "compose-privileged",
                Severity::High,
                privileged.line(),
                format!("service {name} runs node privileged: that is root of the host"),
                format!("take line {} out", privileged.line()),
            );
        }
        for capability in self.is.get("cap_add").into_iter().flat_map(Value::items) {
            let (severity, capability_name) = capability_added(capability);
            out.found(
                "compose-capabilities",
                severity,
                capability.line(),
                format!("service {name} gives node {capability_name}"),
                "take it out, add `cap_drop: [ALL]`, and let lowport hold 80 and 443",
            );
        }
    }

    fn runs(&self, origin: &Origin) -> Runs {
        let entrypoint = self.is.get("entrypoint").map(runs);
        let own = self.is.get("command").map(runs);
        match (entrypoint, own) {
            (Some(Runs::Lowport), _) | (_, Some(Runs::Lowport)) => Runs::Lowport,
            (Some(node @ Runs::Node { .. }), _) | (_, Some(node @ Runs::Node { .. })) => node,
            // Arguments to an image's own entry point, or a script: the image decides.
            _ => origin.runs.clone(),
        }
    }

    fn origin(&self, compose: &Path) -> Origin {
        if let Some(build) = self.is.get("build") {
            return built(build, compose);
        }
        let written = self.is.get("image").and_then(Value::str);
        let Some(image) = written.and_then(interpolate) else {
            return Origin {
                runs: Runs::Other,
                user: UserIs::Unknown("its image is only known when it is started".into()),
                image: None,
            };
        };
        let user = match image::starts(&image) {
            Starts::Root => UserIs::Root(format!(
                "the image {image} starts so, and the service sets no user"
            )),
            Starts::NonRoot => UserIs::Other,
            Starts::Unknown => UserIs::Unknown(format!("the user of the image {image} is unknown")),
        };
        Origin {
            runs: by_image(&image),
            user,
            image: Some(image),
        }
    }
}

fn by_image(image: &str) -> Runs {
    if image::is_lowport(image) {
        Runs::Lowport
    } else if image::is_node(image) {
        Runs::Node { becomes: None }
    } else {
        Runs::Other
    }
}

/// Looks into the Dockerfile that `build` names, where it is at hand.
fn built(build: Value<'_>, compose: &Path) -> Origin {
    let text = |key| build.get(key).and_then(Value::str);
    let context = build.str().or_else(|| text("context")).unwrap_or(".");
    let file = text("dockerfile").unwrap_or("Dockerfile");
    let path = compose
        .parent()
        .unwrap_or(Path::new("."))
        .join(context)
        .join(file);
    let inline = text("dockerfile_inline").map(str::to_owned);
    let content = inline.or_else(|| walk::read(&path).ok());
    let verdict = content.and_then(|content| dockerfile::verdict(&content, text("target")));
    match verdict {
        Some(verdict) => {
            let user = match verdict.user {
                UserIs::Root(why) => UserIs::Root(format!("{}: {why}", path.display())),
                user => user,
            };
            Origin {
                runs: verdict.runs,
                user,
                image: None,
            }
        }
        None => Origin {
            runs: Runs::Node { becomes: None },
            user: UserIs::Unknown(format!(
                "it sets no user, and {} cannot be read for one",
                path.display()
            )),
            image: None,
        },
    }
}

fn runs(value: Value<'_>) -> Runs {
    match (value.words(), value.str()) {
        (Some(words), _) => command::exec(&words),
        (None, Some(line)) => command::shell(line),
        (None, None) => Runs::Other,
    }
}

/// A capability's severity and its name.
pub(super) fn capability_added(capability: Value<'_>) -> (Severity, String) {
    let name = capability.str().unwrap_or_default().to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    match name {
        "ALL" => (Severity::High, "every capability".to_owned()),
        "SYS_ADMIN" | "SYS_PTRACE" | "SYS_MODULE" | "SETUID" | "DAC_OVERRIDE" => {
            (Severity::High, format!("CAP_{name}"))
        }
        _ => (Severity::Medium, format!("CAP_{name}")),
    }
}

/// The low port of the host that an entry of `ports` publishes to others over TCP.
fn published(port: Value<'_>) -> Option<&'static str> {
    let (address, published, protocol) = if port.is_mapping() {
        let text = |key| port.get(key).and_then(Value::str).and_then(interpolate);
        (text("host_ip"), text("published")?, text("protocol"))
    } else {
        let text = interpolate(port.str()?)?;
        let (text, protocol) = match text.split_once('/') {
            Some((text, protocol)) => (text.to_owned(), Some(protocol.to_owned())),
            None => (text, None),
        };
        let (host, _) = text.rsplit_once(':')?;
        let (address, published) = match host.rsplit_once(':') {
            Some((address, published)) => (Some(address.to_owned()), published.to_owned()),
            None => (None, host.to_owned()),
        };
        (address, published, protocol)
    };
    let local = address.is_some_and(|address| {
        let address = address.trim_matches(['[', ']']);
        address.starts_with("127.") || address == "::1"
    });
    if local || protocol.is_some_and(|protocol| protocol != "tcp") {
        return None;
    }
    let (first, last) = published
        .split_once('-')
        .unwrap_or((&published, &published));
    let range = first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?;
    [(80, "80"), (443, "443")]
        .into_iter()
        .find(|(port, _)| range.contains(port))
        .map(|(_, name)| name)
}

/// With no environment: what has a default takes it, the rest is unknown.
fn interpolate(text: &str) -> Option<String> {
    expand(text, &Variables::new())
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::*;

    fn told(text: &str) -> Vec<String> {
        told_at(Path::new("/nowhere/compose.yaml"), text)
    }

    fn told_at(path: &Path, text: &str) -> Vec<String> {
        let yaml = Yaml::parse(text).unwrap();
        assert!(yaml.documents().any(is_compose), "{text}");
        let mut report = Report::default();
        check(&yaml, &mut report.file(path));
        super::super::testing::told(&report)
    }

    #[test]
    fn node_with_more_than_it_needs_is_found() {
        for (text, expected) in [
            (
                "services:\n  web:\n    image: node:20\n",
                &["high 2 compose-user"][..],
            ),
            (
                "services:\n  web:\n    image: node:20\n    user: root\n",
                &["high 4 compose-user"],
            ),
            (
                "services:\n  web: {image: node:20, user: 0}\n",
                &["high 2 compose-user"],
            ),
            (
                "services:\n  web:\n    image: ${I:-node:20}\n    user: \"${U:-0}:0\"\n",
                &["high 4 compose-user"],
            ),
            (
                "services:\n  web:\n    image: debian\n    command: node x\n",
                &["high 2 compose-user"],
            ),
            (
                "services:\n  web:\n    image: debian\n    entrypoint: [npm, start]\n",
                &["high 2 compose-user"],
            ),
            (
                "x: &x\n  image: node:20\n  privileged: true\nservices:\n  web:\n    <<: *x\n    user: node\n",
                &["high 3 compose-privileged"],
            ),
            (
                "services:\n  web:\n    image: node\n    user: node\n    cap_add: [NET_BIND_SERVICE, ALL]\n",
                &[
                    "medium 5 compose-capabilities",
                    "high 5 compose-capabilities",
                ],
            ),
            (
                "services:\n  web:\n    image: node\n    user: node\n    ports:\n      - 80:3000\n      - \"0.0.0.0:443:3000/tcp\"\n      - target: 3000\n        published: 80\n      - 79-81:79-81\n",
                &[
                    "medium 6 compose-ports",
                    "medium 7 compose-ports",
                    "medium 8 compose-ports",
                    "medium 10 compose-ports",
                ],
            ),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn the_rest_is_left_alone() {
        for text in [
            "services:\n  web: {image: node, user: node}\n",
            "services:\n  web: {image: node, user: \"1000:1000\", ports: [\"8080:80\", 3000, \"127.0.0.1:80:3000\", \"[::1]:443:3000\", \"443:443/udp\"]}\n",
            "services:\n  db: {image: postgres, privileged: true, ports: [\"80:80\"]}\n",
            "services:\n  front: {image: lowport:1, ports: [\"80:80\", \"443:443\"]}\n",
            "services:\n  front: {image: node, command: [lowport, run], ports: [\"80:80\"]}\n",
            "services:\n  web: {image: \"cgr.dev/chainguard/node\"}\n",
            "services:\n  web: {ports: [\"80:80\"]}\n",
        ] {
            assert_eq!(told(text), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_a_note() {
        for text in [
            "services:\n  web: {image: registry.example.com/node}\n",
            "services:\n  web: {image: node, user: \"$U\"}\n",
            "services:\n  web: {build: ./missing}\n",
            "services:\n  web: {build: \"https://example.com/repository.git\"}\n",
        ] {
            assert_eq!(told(text), ["note 2 compose-user"], "{text}");
        }
    }

    #[test]
    fn a_build_is_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        let compose = folder.path().join("compose.yaml");
        std::fs::create_dir(folder.path().join("app")).unwrap();
        std::fs::write(
            folder.path().join("app/Web.Dockerfile"),
            "FROM node:20 AS dev\nFROM node:20 AS prod\nUSER node\n",
        )
        .unwrap();
        let service = |more: &str| {
            let text = format!(
                "services:\n  web:\n    build:\n      context: app\n      dockerfile: Web.Dockerfile\n{more}"
            );
            told_at(&compose, &text)
        };
        assert_eq!(service(""), [] as [&str; 0]);
        assert_eq!(service("      target: dev\n"), ["high 2 compose-user"]);
        assert_eq!(
            service("      target: dev\n    user: node\n"),
            [] as [&str; 0]
        );
        let inline = "services:\n  web:\n    build:\n      dockerfile_inline: |\n        FROM node\n        CMD node x\n";
        assert_eq!(told_at(&compose, inline), ["high 2 compose-user"]);
    }
}
