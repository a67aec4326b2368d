//! This test binary once more, as somebody else.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Runs the test of this name alone in a process of its own, as `uid` where root chooses one, and returns the lines that
/// it prints. `env` tells it what to do; without that it should do nothing, since it is started with all the others too.
///
/// # Panics
/// When it fails.
pub(crate) fn run(test: &str, uid: Option<u32>, env: &[(&str, &str)]) -> Vec<String> {
    // Opened now, since the other user may not go where the binary lies.
    let binary = File::open(std::env::current_exe().expect("it runs")).expect("it is there");
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command
        .args(["--exact", test, "--nocapture", "--quiet"])
        .envs(env.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}
