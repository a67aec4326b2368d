//! Container images by their names: whether one is Node, and whether it starts as root.

/// As whom a container of an image starts when nothing says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starts {
    /// As root
    Root,
    /// As somebody else
    NonRoot,
    /// Its name does not tell
    Unknown,
}

/// Official images, and others known well, that set no user.
const ROOT: &[&str] = &[
    "almalinux",
    "alpine",
    "amazonlinux",
    "archlinux",
    "bitnami/minideb",
    "bitnami/node",
    "bitnamilegacy/node",
    "buildpack-deps",
    "busybox",
    "centos",
    "debian",
    "fedora",
    "golang",
    "keymetrics/pm2",
    "nikolaik/python-nodejs",
    "node",
    "oraclelinux",
    "python",
    "rockylinux",
    "ruby",
    "rust",
    "scratch",
    "ubuntu",
];
/// Names under which Docker's own library is to be had.
const LIBRARY: &[&str] = &[
    "docker.io/library/",
    "index.docker.io/library/",
    "registry-1.docker.io/library/",
    "docker.io/",
    "index.docker.io/",
    "public.ecr.aws/docker/library/",
    "mirror.gcr.io/library/",
    "library/",
];

/// As whom a container of `image` starts.
pub(super) fn starts(image: &str) -> Starts {
    let (name, tag) = split(image);
    if ROOT.contains(&name) {
        return Starts::Root;
    }
    if let Some(distroless) = name.strip_prefix("gcr.io/distroless/") {
        return if tag.contains("nonroot") || distroless.ends_with("-nonroot") {
            Starts::NonRoot
        } else {
            Starts::Root
        };
    }
    let ubi = name.starts_with("registry.access.redhat.com/ubi")
        || name.starts_with("registry.redhat.io/ubi");
    let non_root = matches!(
        name,
        "cgr.dev/chainguard/node" | "chainguard/node" | "cimg/node"
    ) || (ubi && last(name).starts_with("nodejs"));
    if non_root {
        Starts::NonRoot
    } else {
        Starts::Unknown
    }
}

/// Whether `image` is made to run Node.
pub(super) fn is_node(image: &str) -> bool {
    let (name, _) = split(image);
    let last = last(name);
    last == "node"
        || last.starts_with("nodejs")
        || last == "python-nodejs"
        || name == "keymetrics/pm2"
}

/// Whether `image` is lowport's.
pub(super) fn is_lowport(image: &str) -> bool {
    last(split(image).0) == "lowport"
}

/// The user that a Dockerfile on top of `image` can name without making one.
pub(super) fn user_for(image: &str) -> &'static str {
    match split(image).0 {
        "node" => "node",
        name if name.starts_with("gcr.io/distroless/") => "nonroot",
        // A number needs no entry, and Kubernetes can tell that it is not root.
        _ => "10001:10001",
    }
}

/// The name, without the names of Docker's own library, and the tag.
fn split(image: &str) -> (&str, &str) {
    let image = image.split('@').next().unwrap_or(image);
    let name_at = image.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match image[name_at..].find(':') {
        Some(colon) => (&image[..name_at + colon], &image[name_at + colon + 1..]),
        None => (image, ""),
    };
    let name = LIBRARY
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    (name, tag)
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_starts_as_root() {
        for (image, expected) in [
            ("node", Starts::Root),
            ("node:20-alpine", Starts::Root),
            ("docker.io/library/node:20@sha256:00", Starts::Root),
            ("node@sha256:00", Starts::Root),
            ("public.ecr.aws/docker/library/node:20", Starts::Root),
            ("debian:12", Starts::Root),
            ("scratch", Starts::Root),
            ("bitnami/node:22", Starts::Root),
            ("gcr.io/distroless/nodejs20-debian12", Starts::Root),
            (
                "gcr.io/distroless/nodejs20-debian12:nonroot",
                Starts::NonRoot,
            ),
            (
                "gcr.io/distroless/nodejs20-debian12:debug-nonroot",
                Starts::NonRoot,
            ),
            ("cgr.dev/chainguard/node:latest", Starts::NonRoot),
            ("registry.access.redhat.com/ubi9/nodejs-20", Starts::NonRoot),
            ("cimg/node:20.1", Starts::NonRoot),
            ("registry.example.com:5000/node:20", Starts::Unknown),
            ("localhost:5000/base", Starts::Unknown),
            ("myorg/app", Starts::Unknown),
            ("", Starts::Unknown),
            ("/:@", Starts::Unknown),
        ] {
            assert_eq!(starts(image), expected, "{image}");
        }
    }

    #[test]
    fn which_are_node() {
        for image in [
            "node:20",
            "registry.example.com:5000/node:20",
            "gcr.io/distroless/nodejs20-debian12",
            "nikolaik/python-nodejs:3",
        ] {
            assert!(is_node(image), "{image}");
        }
        for image in [
            "prom/node-exporter",
            "debian",
            "nodered/node-red",
            "a/b:node",
        ] {
            assert!(!is_node(image), "{image}");
        }
        assert!(is_lowport("ghcr.io/x/lowport:1"));
        assert_eq!(
            (user_for("node:20"), user_for("alpine")),
            ("node", "10001:10001")
        );
    }
}
