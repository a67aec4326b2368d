//! What the tests share: processes that clean up after themselves, ports, certificates, clients.

#![allow(
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

pub(crate) mod again;
pub(crate) mod browser;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod haproxy;
// It knows the registers of these.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) mod inject;
pub(crate) mod lowport;
pub(crate) mod memory;
pub(crate) mod mode;
pub(crate) mod node;
pub(crate) mod over;
pub(crate) mod peer;
pub(crate) mod podman;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod recorder;
pub(crate) mod room;
pub(crate) mod script;
pub(crate) mod strace;
pub(crate) mod terminal;

pub(crate) use lowport::Lowport;
pub(crate) use node::Node;

use std::io::Write;
use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take on a busy machine before it counts as failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A port of 127.0.0.1 that nobody has, and that no other test is given. Below the range that outgoing connections take
/// theirs from.
pub(crate) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    free(20_000..32_000, &NEXT)
}

/// The same, and it takes a right to bind it.
pub(crate) fn low_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    free(600..1000, &NEXT)
}

/// The next free one of these. Each process of tests begins in a place of its own.
fn free(range: Range<u16>, next: &AtomicU16) -> u16 {
    let count = range.len() as u16;
    let start = (std::process::id() % u32::from(count)) as u16;
    let steps = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
    let mut ports = steps.map(|step| range.start + (start + step % count) % count);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found = ports.by_ref().take(range.len()).find(is_free);
    found.expect("a port that nobody has")
}

/// Waits until `condition` gives something.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder that every user may enter: what lowport and the app become can read it.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    open_to_all(folder.path());
    folder
}

/// Copies a program that is to be run. Another process writes it: were the file open for writing here, a child that some
/// other test starts that moment would have it open as well, and it could not be run ("text file busy").
pub(crate) fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = std::process::Command::new("cp")
        .args([from.as_ref(), to.as_ref()])
        .status();
    assert!(copied.expect("cp runs").success(), "copied");
}

pub(crate) fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("permissions");
}

/// The port that follows `marker`.
pub(crate) fn port_after(text: &str, marker: &str) -> u16 {
    let (_, rest) = text.split_once(marker).expect("the marker is there");
    let end = rest
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().expect("a port")
}

/// A program of the tools that `.ci/run` installs beside what is built; or whatever is on the PATH.
pub(crate) fn tool(name: &str) -> Option<std::path::PathBuf> {
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("deploy-tools")
        .join("bin")
        .join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    std::iter::once(beside)
        .chain(on_path)
        .find(|file| file.is_file())
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says loudly that a test did not run, and why.
pub(crate) fn skipped(test: &str, why: &str) {
    say(&format!("*** NOT RUN: {test}: {why} ***"));
}

/// Shows a line even if the test passes: `eprintln!` is swallowed then.
pub(crate) fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("\n{line}\n").as_bytes());
}
