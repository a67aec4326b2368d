//! `deploy/` holds what `lowport init` writes for two route tables: a sidecar, and an edge with TLS.
//!
//! After a change of the templates: `LOWPORT_WRITE_DEPLOY=1 cargo test --test integration deploy::samples`

use std::fs;
use std::path::{Path, PathBuf};

use super::{EDGE, Project, SIDECAR};
use crate::support::terminal::done;

/// Target, route table, where its files are in `deploy`, and what of their paths they have not there.
const SAMPLES: [(&str, &str, &str, &str); 7] = [
    ("dockerfile", SIDECAR, "node", ""),
    ("compose", SIDECAR, "compose/sidecar", ""),
    ("compose", EDGE, "compose/edge", ""),
    ("swarm", EDGE, "swarm", ""),
    ("kubernetes", SIDECAR, "kubernetes/sidecar", "kubernetes"),
    ("kubernetes", EDGE, "kubernetes/edge", "kubernetes"),
    ("nftables", REDIRECTED, "nftables", ""),
];

/// What is beside them and written by hand.
const BY_HAND: &str = "Dockerfile.with-lowport";

const REDIRECTED: &str =
    "[server]\nhttp = [\":8080\"]\n\n[[route]]\nto = \"http://127.0.0.1:3000\"\n";

#[test]
fn they_are_what_init_writes() {
    let write = std::env::var_os("LOWPORT_WRITE_DEPLOY").is_some();
    for (target, table, folder, below) in SAMPLES {
        let project = Project::new(table);
        done(&project.init(&[target]));
        let sample = deploy().join(folder);
        let mut files = project.written();
        if below.is_empty() && target != "dockerfile" {
            // A copy has it already, and an image for the app alone has none.
            files.push(project.path("lowport.toml"));
        }
        let mut named = Vec::new();
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(project.path(below)).unwrap();
            let kept = sample.join(name);
            if write {
                fs::create_dir_all(kept.parent().unwrap()).unwrap();
                fs::write(&kept, &text).unwrap();
            }
            let there = fs::read_to_string(&kept).unwrap_or_default();
            assert!(
                there == text,
                "{} is out of date: see above",
                kept.display()
            );
            named.push(kept);
        }
        let mut there = Vec::new();
        super::collect(&sample, &mut there);
        there.retain(|file| !named.contains(file) && !file.ends_with(BY_HAND));
        assert_eq!(there, Vec::<PathBuf>::new(), "nobody writes these");
    }
}

/// The folder in the project.
pub(super) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}
