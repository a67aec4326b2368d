//! A route table as a deployment sees it.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Package, Target};
use crate::config::{Config, Mistakes, PeerAddr, Source, Span};

/// What a route table is called in the files that refer to it.
pub(super) const TABLE: &str = "lowport.toml";
/// Where it is in a container.
const IN_CONTAINER: &str = "/etc/lowport";
/// Where the app is expected if the table does not tell.
const APP_PORT: u16 = 3000;

/// Which images are meant.
#[derive(Debug, Clone)]
pub struct Images {
    /// lowport's
    pub lowport: String,
    /// The app's; where it is not said, the package's name and version
    pub app: Option<String>,
}

/// A route table, and the app behind it.
#[derive(Debug)]
pub struct Site {
    pub(super) source: Arc<Source>,
    pub(super) config: Config,
    pub(super) package: Package,
    images: Images,
    /// The folder that is written to
    out: PathBuf,
    /// What the table has that a target has not
    pub mistakes: Mistakes,
}

/// A port, and what is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) tls: bool,
}

/// A file that the table names, and where a container has it.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    /// On this machine
    pub(super) from: PathBuf,
    /// In the container
    pub(super) to: String,
    /// Whether nobody else may read it
    pub(super) secret: bool,
    /// Where it was written
    pub(super) span: Span,
}

impl Site {
    /// `config` is what `source` means; `out` is the folder that is written to, as the app's own folder sees it.
    pub fn new(
        source: Arc<Source>,
        config: Config,
        package: Package,
        images: Images,
        out: PathBuf,
    ) -> Self {
        Self {
            mistakes: Mistakes::new(Arc::clone(&source)),
            source,
            config,
            package,
            images,
            out,
        }
    }

    /// The app's name: a DNS label.
    pub(super) fn name(&self) -> &str {
        &self.package.name
    }

    pub(super) fn image(&self) -> &str {
        &self.images.lowport
    }

    pub(super) fn app_image(&self) -> String {
        let named = self.images.app.clone();
        named.unwrap_or_else(|| format!("{}:{}", self.package.name, self.package.version))
    }

    /// The table, if it is in no file yet: it is written with the rest. Not by targets that have a copy of their own, nor
    /// where nothing refers to it.
    pub(super) fn new_table(&self, target: Target) -> Option<String> {
        let needed = match target {
            Target::Kubernetes => false,
            Target::Dockerfile => self.config.app.is_some(),
            _ => true,
        };
        (self.source.path.is_none() && needed).then(|| self.source.text.clone())
    }

    /// Where the table is, for a file in the folder that is written to.
    pub(super) fn table_path(&self) -> String {
        match &self.source.path {
            Some(path) => self.path(path),
            None => format!("./{TABLE}"),
        }
    }

    /// A path for a file in the folder that is written to: relative to it, unless they have nothing but `/` in common.
    pub(super) fn path(&self, path: &Path) -> String {
        let (full, out) = (absolute(path), absolute(&self.out));
        let common = full.components().zip(out.components());
        let common = common.take_while(|(path, out)| path == out).count();
        if common < 2 {
            return full.display().to_string();
        }
        let up = out.components().skip(common).map(|_| Component::ParentDir);
        let relative: PathBuf = up.chain(full.components().skip(common)).collect();
        match relative {
            path if path.as_os_str().is_empty() => ".".to_owned(),
            path if path.starts_with("..") => path.display().to_string(),
            path => format!("./{}", path.display()),
        }
    }

    /// The app's folder, in the same way.
    pub(super) fn app_folder(&self) -> String {
        self.path(Path::new("."))
    }

    /// Each port once, plaintext first.
    pub(super) fn ports(&self) -> Vec<Port> {
        let mut ports: Vec<Port> = Vec::new();
        for (listener, tls) in self.config.listeners() {
            let number = listener.addr.port();
            if !ports.iter().any(|port| port.number == number) {
                ports.push(Port { number, tls });
            }
        }
        ports
    }

    /// The lowest port that takes a right to bind it.
    pub(super) fn low_port(&self) -> Option<u16> {
        let low = self.ports().into_iter().map(|port| port.number);
        low.filter(|port| *port < 1024).min()
    }

    /// Where peers on this machine are, in the order of the table.
    pub(super) fn local_peers(&self) -> Vec<u16> {
        let mut ports = Vec::new();
        for (addr, _) in self.peers() {
            let port = match addr {
                PeerAddr::Ip(ip) if is_local(addr) => ip.port(),
                PeerAddr::Name(_, port) if is_local(addr) => *port,
                _ => continue,
            };
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    /// Peers by name, each once.
    pub(super) fn named_peers(&self) -> Vec<(String, u16)> {
        let mut peers = Vec::new();
        for (addr, _) in self.peers() {
            if let PeerAddr::Name(name, port) = addr
                && !is_local(addr)
                && !peers.contains(&(name.clone(), *port))
            {
                peers.push((name.clone(), *port));
            }
        }
        peers
    }

    /// Every port that lowport connects to, each once, in order.
    pub(super) fn peer_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self
            .peers()
            .filter_map(|(addr, _)| match addr {
                PeerAddr::Ip(addr) => Some(addr.port()),
                PeerAddr::Name(_, port) => Some(*port),
                PeerAddr::Unix(_) => None,
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// All peers, and where they were written.
    pub(super) fn peers(&self) -> impl Iterator<Item = (&PeerAddr, &Span)> {
        let peers = self.config.upstreams.iter().flat_map(|it| &it.peers);
        peers.map(|peer| (&peer.addr, &peer.span))
    }

    /// Where the app listens.
    pub(super) fn app_port(&self) -> u16 {
        let local = self.local_peers().into_iter().next();
        local.unwrap_or(APP_PORT)
    }

    /// Seconds that a stop may take when `before` it other things do: the drain, and a little more.
    pub(super) fn grace(&self, before: Duration) -> u64 {
        let drain = self.config.timeouts.drain + before;
        drain.as_secs() + u64::from(drain.subsec_nanos() > 0) + 5
    }

    /// What the table names and a container has to be given, each once.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        let certificates = self.config.certificates.iter().flat_map(|files| {
            [
                (&files.cert, false, &files.cert_span),
                (&files.key, true, &files.key_span),
            ]
        });
        let authorities = self.config.upstreams.iter().filter_map(|upstream| {
            let (path, span) = upstream.ca.as_ref()?;
            Some((path, false, span))
        });
        let mut mounts: Vec<Mount> = Vec::new();
        for (path, secret, span) in certificates.chain(authorities) {
            let from = absolute(path);
            if let Some(known) = mounts.iter_mut().find(|mount| mount.from == from) {
                // A file with both is as secret as its key.
                known.secret |= secret;
                continue;
            }
            mounts.push(Mount {
                to: self.in_container(&from),
                from,
                secret,
                span: span.clone(),
            });
        }
        mounts
    }

    /// Where a container has a file: what is relative to the table stays so, and all else where it is.
    fn in_container(&self, file: &Path) -> String {
        let table = self.source.path.as_deref().unwrap_or(Path::new(TABLE));
        let folder = absolute(table).parent().map(Path::to_owned);
        let below = folder.and_then(|folder| file.strip_prefix(folder).ok().map(Path::to_owned));
        match below {
            Some(below) => format!("{IN_CONTAINER}/{}", below.display()),
            None => file.display().to_string(),
        }
    }
}

/// Whether a peer has a port of the machine, or network namespace, that lowport is in.
pub(super) fn is_local(peer: &PeerAddr) -> bool {
    match peer {
        PeerAddr::Ip(addr) => {
            let ip = addr.ip().to_canonical();
            ip.is_loopback() || ip.is_unspecified()
        }
        PeerAddr::Name(name, _) => name == "localhost",
        PeerAddr::Unix(_) => false,
    }
}

/// Without `.` and `..`, by the words alone: the file need not be there.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// A DNS label (RFC 1123 section 2.1) that is as much like `text` as may be; `None` where nothing of it can be in one.
pub fn label(text: &str) -> Option<String> {
    let label: String = text
        .chars()
        .map(|character| match character.to_ascii_lowercase() {
            character @ ('a'..='z' | '0'..='9') => character,
            _ => '-',
        })
        .take(63)
        .collect();
    let label = label.trim_matches('-');
    (!label.is_empty()).then(|| label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_dns_takes() {
        assert_eq!(label("My_Shop").as_deref(), Some("my-shop"));
        assert_eq!(label("--ä--"), None);
        assert_eq!(label(&"x".repeat(99)).unwrap().len(), 63);
    }

    #[test]
    fn dots_in_a_path_are_followed_by_the_words() {
        assert_eq!(absolute(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
