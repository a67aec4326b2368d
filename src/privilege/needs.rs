//! What a process has to do from now on, so that everything else can be taken from it.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// What a process still has to do once it serves; whoever reads the configuration fills it in.
///
/// [`Walls`](super::Walls) take away what is not named here, for good and for every thread that is started later.
/// The default is a process that talks over descriptors that it already has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// How it does all this
    pub work: Work,
    /// Files and folders to read, existing and with everything below them. Name the folder where a file is replaced by
    /// renaming (certbot, Kubernetes secrets): the rule is for the file that is there now.
    pub read: Vec<PathBuf>,
    /// Existing folders in which files are created and appended to, and existing files to append to. Nothing is ever
    /// truncated, renamed or removed there.
    pub write: Vec<PathBuf>,
    /// TCP ports to bind and listen on; what is bound already needs none
    pub bind: Ports,
    /// TCP ports to connect to, at any address
    pub connect: Ports,
    /// Unix sockets to connect to. From Landlock ABI 9 (Linux 7.1) on only those in these sockets' folders can be
    /// reached; below, any that the user may connect to.
    pub connect_unix: Vec<PathBuf>,
    /// Look up names with the system's resolver: reads its files, and talks UDP to any address, and TCP to port 53.
    /// Modules of nsswitch.conf that are not loaded yet are passed over, since no new code is let in.
    pub resolve: bool,
    /// Receive and send descriptors over a Unix socket that is there already (SCM_RIGHTS), as with a broker
    pub descriptors: bool,
    /// Wait for child processes that exist already
    pub wait: bool,
    /// Move bytes between sockets through pipes
    pub splice: bool,
}

/// How a process works, which decides the system calls that every one of its kind makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Work {
    /// With threads, a runtime and connections
    #[default]
    Serving,
    /// On one thread that blocks, for one other process
    Answering,
}

/// TCP ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// These; none when empty
    Only(BTreeSet<u16>),
    /// Any, where the ports are not known beforehand
    Any,
}

impl Ports {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every port is one of them.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::Only(ports) => ports.contains(&port),
            Self::Any => true,
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl FromIterator<u16> for Ports {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        Self::Only(ports.into_iter().collect())
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Only(ports) if ports.is_empty() => f.write_str("none"),
            Self::Only(ports) => {
                for (index, port) in ports.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{port}")?;
                }
                Ok(())
            }
        }
    }
}

/// What getaddrinfo(3) reads, as far as it is there.
pub(super) const RESOLVER_FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
];

/// Over TCP, for answers that do not fit into a datagram.
pub(super) const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_in_order() {
        let told = |ports: &[u16]| ports.iter().copied().collect::<Ports>().to_string();
        assert_eq!(told(&[]), "none");
        assert_eq!(told(&[3001, 80, 3000, 80]), "80, 3000, 3001");
        assert_eq!(Ports::Any.to_string(), "any");
    }

    #[test]
    fn no_port_is_the_default() {
        assert!(Ports::default().is_none());
        assert!(!Ports::Any.is_none());
        assert!(Ports::Any.contains(80));
        assert!(!Ports::default().contains(80));
        assert!(Ports::from_iter([80]).contains(80));
    }
}
