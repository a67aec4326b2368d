//! What `lowport init` writes, and `deploy/`, which is what it writes for two route tables.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod init;
mod restricted;
mod samples;
mod systemd;
mod valid;
mod yaml;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::lowport::BINARY;
use crate::support::{certs, folder, is_root};

/// The uid of lowport's image.
const LOWPORT: u32 = 65532;

/// What a sidecar is for.
const SIDECAR: &str = "[[route]]\nto = \"http://127.0.0.1:3000\"\n";
/// What an edge is for.
const EDGE: &str = "[[certificate]]\ncert = \"certs/site.pem\"\nkey = \"certs/site.key\"\n\n\
    [[route]]\nto = \"http://app:3000\"\n";

/// An app's folder, with a route table and certificates.
struct Project(tempfile::TempDir);

impl Project {
    fn new(table: &str) -> Self {
        let project = Self::without_table();
        project.write("lowport.toml", table);
        project
    }

    fn without_table() -> Self {
        let project = Self(folder());
        project.write(
            "package.json",
            r#"{"name":"shop","version":"1.0.0","scripts":{"start":"node server.js"}}"#,
        );
        project.write("package-lock.json", "{}");
        let certificates = project.path("certs");
        fs::create_dir(&certificates).unwrap();
        let (_, key) = certs::write(&certificates, "site", &["example.com"]);
        if is_root() {
            std::os::unix::fs::chown(&key, Some(LOWPORT), None).unwrap();
        } else {
            crate::support::open_to_all(&key);
        }
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// `lowport init ...` in the folder.
    fn init(&self, args: &[&str]) -> Output {
        Command::new(BINARY)
            .arg("init")
            .args(args)
            .current_dir(self.0.path())
            .env_remove("SUDO_UID")
            .output()
            .unwrap()
    }

    /// The files that are there now, and were not before anything was written.
    fn written(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(self.0.path(), &mut files);
        let own = ["package.json", "package-lock.json", "lowport.toml"].map(|name| self.path(name));
        files.retain(|file| !own.contains(file) && !file.starts_with(self.path("certs")));
        files.sort();
        files
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => collect(&path, files),
            path => files.push(path),
        }
    }
}
