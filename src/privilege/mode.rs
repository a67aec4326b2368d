//! Where the right to bind low ports comes from, and what to do where there is none.

use std::fmt;
use std::path::Path;

use super::drop::holds_net_bind;
use super::user::is_root;

/// How this process came by its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They were bound before it began (`LISTEN_FDS`)
    Activated,
    /// It was started as root
    Root,
    /// It had CAP_NET_BIND_SERVICE
    Capability,
    /// They take no privilege
    Unprivileged,
}

impl Mode {
    /// The mode of this process, before it drops anything. `activated` is whether sockets were passed to it.
    pub fn of(activated: bool) -> Self {
        if is_root() {
            Self::Root
        } else if activated {
            Self::Activated
        } else if holds_net_bind() {
            Self::Capability
        } else {
            Self::Unprivileged
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Activated => "activated",
            Self::Root => "root",
            Self::Capability => "capability",
            Self::Unprivileged => "unprivileged",
        })
    }
}

/// How to come by `port`, in the environment that this seems to be.
pub fn remedy(port: u16) -> String {
    Surroundings::found().remedy(port)
}

/// What starts processes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Surroundings {
    Kubernetes,
    Container,
    Systemd,
    Host,
}

impl Surroundings {
    fn found() -> Self {
        let var = |name| std::env::var_os(name).is_some();
        if var("KUBERNETES_SERVICE_HOST") {
            Self::Kubernetes
        } else if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
            Self::Container
        } else if var("INVOCATION_ID") {
            Self::Systemd
        } else {
            Self::Host
        }
    }

    fn remedy(self, port: u16) -> String {
        match self {
            Self::Kubernetes => format!(
                "in the pod's securityContext, sysctls: [{{name: net.ipv4.ip_unprivileged_port_start, value: \"{port}\"}}] \
                 is allowed by the restricted standard; or listen on a port from 1024 up and map it in the Service"
            ),
            Self::Container => format!(
                "run it with --sysctl net.ipv4.ip_unprivileged_port_start={port}, or listen on a port from 1024 up and \
                 publish it with -p {port}:8{port:03}"
            ),
            Self::Systemd => format!(
                "let systemd bind it (a .socket unit with ListenStream={port}), or add \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE to the unit"
            ),
            Self::Host => format!(
                "start lowport as root (it gives root up), or allow the port to all: \
                 `sysctl net.ipv4.ip_unprivileged_port_start={port}`, or listen on a port from 1024 up"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_surroundings_has_a_remedy_with_the_port() {
        for surroundings in [
            Surroundings::Kubernetes,
            Surroundings::Container,
            Surroundings::Systemd,
            Surroundings::Host,
        ] {
            assert!(surroundings.remedy(80).contains("80"), "{surroundings:?}");
        }
    }
}
