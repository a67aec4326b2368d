//! The files that put lowport before an app: for containers, a cluster, a machine. `lowport init` writes them.
//!
//! They follow from the route table: its ports, its certificates, whether its upstreams are on the same machine, how long
//! a drain may take. What a target cannot express is a mistake in the table, at its place.

mod compose;
mod containers;
mod dockerfile;
mod kubernetes;
mod nftables;
mod package;
mod site;
mod swarm;
mod systemd;
mod template;

use std::path::PathBuf;

pub use package::Package;
pub use site::{Images, Site, label};

/// What lowport is to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// An image for the app: as the user `node`, or with lowport in it where the route table has `[app]`
    Dockerfile,
    /// Docker Compose: a sidecar for an app on 127.0.0.1, else an edge
    Compose,
    /// Docker Swarm: an edge
    Swarm,
    /// Kubernetes: a native sidecar for an app on 127.0.0.1, else an edge
    Kubernetes,
    /// systemd: units that bind the ports for lowport, or with `[app]` one that begins as root; and one for the app
    Systemd,
    /// The redirect of low ports, for a machine without systemd and containers
    Nftables,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where, within the folder that is written to
    pub path: PathBuf,
    /// All of it
    pub text: String,
}

impl Written {
    fn new(path: &str, text: String) -> Self {
        Self {
            path: path.into(),
            text,
        }
    }
}

/// The files, and what to do next, for a person.
#[derive(Debug)]
pub struct Made {
    /// In the order to be read in
    pub files: Vec<Written>,
    /// What is left to do, a line each
    pub next: Vec<String>,
}

impl Target {
    /// The files for a site. They may only be written if there are no mistakes in [`Site::mistakes`] then.
    pub fn files(self, site: &Site) -> Made {
        let mut made = match self {
            Self::Dockerfile => dockerfile::files(site),
            Self::Compose => compose::files(site),
            Self::Swarm => swarm::files(site),
            Self::Kubernetes => kubernetes::files(site),
            Self::Systemd => systemd::files(site),
            Self::Nftables => nftables::files(site),
        };
        if let Some(text) = site.new_table(self) {
            made.files.insert(0, Written::new(site::TABLE, text));
        }
        made
    }

    /// The route table for somebody who has none yet.
    pub fn table(self) -> &'static str {
        match self {
            Self::Swarm => {
                "# The whole of it: `lowport check`, and the commented reference in config/lowport.toml, tell more.\n\
                 [[route]]\nto = \"http://app:3000\"\n"
            }
            Self::Nftables => {
                "[server]\n# Where the redirect leads to.\nhttp = [\":8080\"]\n\n\
                 [[route]]\nto = \"http://127.0.0.1:3000\"\n"
            }
            _ => "[[route]]\nto = \"http://127.0.0.1:3000\"\n",
        }
    }
}
