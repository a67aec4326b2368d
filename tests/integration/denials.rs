//! That nothing is denied to lowport but what is meant to be: the whole suite, with strace looking at every lowport in it.
//!
//! ```sh
//! cargo test --test integration -- --ignored denials
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::lowport::BINARY;
use crate::support::{copy_program, folder, is_root, say, skipped};

#[test]
#[ignore = "runs all the others under strace, which takes minutes"]
fn nothing_is_denied_in_the_whole_suite_but_what_is_meant_to_be() {
    let test = "nothing_is_denied_in_the_whole_suite_but_what_is_meant_to_be";
    let Some(strace) = in_path("strace") else {
        return skipped(test, "there is no strace (apt-get install strace)");
    };
    if !is_root() {
        return skipped(test, "needs root to see what the drop denies");
    }
    let mut try_it = Command::new(&strace);
    if !try_it
        .args(["-D", "-o", "/dev/null", "/bin/true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        return skipped(test, "strace may not look at processes here");
    }
    let folder = folder();
    let binary = traced_binary(folder.path(), &strace);
    let suite = Command::new(env!("CARGO"))
        .args(["test", "--test", "integration", "--"])
        // They stop lowport itself, or count on when it hears: strace is in the way of both.
        .args(["--skip", "wire::places"])
        .args(["--skip", "at_the_moment_that_it_asks"])
        // Of these one has a strace of its own, and the others make a package of the binary, which must be one.
        .args(["--skip", "pack::calls", "--skip", "pack::debian"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LOWPORT_TEST_BINARY", binary)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&suite.stdout);
    assert!(suite.status.success(), "{output}");

    let (mut traces, mut unexpected) = (0, BTreeMap::new());
    for entry in fs::read_dir(folder.path()).unwrap().flatten() {
        let path = entry.path();
        let main = path.extension().and_then(|pid| pid.to_str()?.parse().ok());
        let is_trace = entry.file_name().to_string_lossy().starts_with("trace-");
        let (true, Some(main)) = (is_trace, main) else {
            continue;
        };
        traces += 1;
        let trace = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        for line in Trace::new(main).unexpected(&trace) {
            *unexpected.entry(line).or_insert(0) += 1;
        }
    }
    say(&format!("{traces} lowports were looked at"));
    assert!(traces >= 200, "{traces}");
    let list: Vec<String> = unexpected
        .iter()
        .map(|(line, count)| format!("{count} x {line}"))
        .collect();
    assert!(list.is_empty(), "\n{}", list.join("\n"));
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    places.find(|place| place.is_file())
}

/// A program that is lowport with strace beside it, which writes what failed to `trace-UNIQUE.PID` in `folder`. It can be
/// copied.
fn traced_binary(folder: &Path, strace: &Path) -> PathBuf {
    // Whoever lowport is started as writes there.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777)).expect("permissions");
    let real = folder.join("real");
    fs::create_dir(&real).expect("made");
    copy_program(BINARY, real.join("lowport"));
    let (strace, real, traced) = (
        strace.display(),
        real.join("lowport").display().to_string(),
        folder.join("lowport"),
    );
    // Not where strace cannot be: in a user namespace without the user that it runs as. The libraries' path is cargo's,
    // and not everybody may look there. The process id alone is not unique: in PID namespaces of their own all are 1.
    let script = format!(
        "#!/bin/sh\nunset LD_LIBRARY_PATH\n\
         if ! {strace} -D -o /dev/null /bin/true 2>/dev/null; then exec {real} \"$@\"; fi\n\
         exec {strace} -D -f -b execve -Y -qq -s 200 -e status=failed -e signal=none \
         -o {}/trace-$(cat /proc/sys/kernel/random/uuid).$$ {real} \"$@\"\n",
        folder.display()
    );
    fs::write(&traced, script).expect("written");
    fs::set_permissions(&traced, fs::Permissions::from_mode(0o755)).expect("permissions");
    traced
}

/// What strace wrote of one lowport and the processes that it forked.
struct Trace {
    main: u32,
    /// Whether the main thread is under its filters
    sandboxed: bool,
}

impl Trace {
    fn new(main: u32) -> Self {
        Self {
            main,
            sandboxed: false,
        }
    }

    /// What was denied and should not have been, without what differs from run to run.
    fn unexpected(&mut self, trace: &str) -> Vec<String> {
        let lines = trace.lines().filter_map(|line| {
            let (process, call) = line.split_once("> ")?;
            let (pid, name) = process.split_once('<')?;
            Some((pid.trim().parse().ok()?, name, call))
        });
        // musl's way of opening files on x86-64.
        let lines = lines.map(|(pid, name, call)| match call.strip_prefix("open(") {
            Some(rest) => (pid, name, format!("openat(AT_FDCWD, {rest}")),
            None => (pid, name, call.to_owned()),
        });
        let unexpected = lines.filter(|(pid, name, call)| !self.is_meant(*pid, name, call));
        unexpected
            .map(|(_, name, call)| format!("{name}: {}", plain(&call)))
            .collect()
    }

    fn is_meant(&mut self, pid: u32, name: &str, call: &str) -> bool {
        let killed = call.contains("killed by SIGSYS");
        let not_permitted = call.contains("= -1 EPERM ");
        if !killed && !not_permitted && !call.contains("= -1 EACCES ") {
            return true;
        }
        // Asked once the filters are on, to see whether they work.
        if call.starts_with("getppid()") {
            self.sandboxed |= pid == self.main;
            return true;
        }
        // Debug builds of the standard library ask of what they close whether it is open.
        if call.contains(", F_GETFD) ") {
            return !killed;
        }
        match name {
            // It has just been forked, and tries out what must not work.
            "lowport" if pid != self.main => killed || is_tried(call),
            "lowport" if self.sandboxed => false,
            _ if killed => false,
            // Files and ports that tests close to a user, and other users' processes.
            "lowport" | "lowport-broker" | "lowport-app" if !not_permitted => true,
            // The look back after the drop; a /proc that hides processes.
            "lowport" => call.starts_with("setresuid(0, 0, 0)") || is_hidden(call),
            // A log that only a reload brings.
            "lowport-broker" => {
                call.starts_with("openat(AT_FDCWD, \"/tmp/.tmp")
                    && call.contains("/access.log\", O_WRONLY|")
            }
            // The look back after the drop, and at its own filter.
            "lowport-app" => {
                call.starts_with("setresuid(0, 0, 0)") || call.starts_with("unshare(0)")
            }
            _ => is_asked_in_vain(call),
        }
    }
}

/// Whether a call is one of `privilege::trial`, or the look back after the drop.
fn is_tried(call: &str) -> bool {
    const TRIED: [&str; 12] = [
        "setresuid(0, 0, 0)",
        "clone(child_stack=NULL, ",
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE|PROT_EXEC, ",
        "openat(AT_FDCWD, \"/\", ",
        "openat(AT_FDCWD, \"/etc/passwd\", ",
        "openat(AT_FDCWD, \"/etc/shadow\", ",
        "openat(AT_FDCWD, \"/proc/self/mem\", ",
        // One of these: what is undumpable only root's strace can read paths of.
        "openat(AT_FDCWD, 0x",
        "bind(",
        "connect(",
        "socket(AF_NETLINK, ",
        // Where nothing is to be connected to, not even a socket can be made.
        "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP)",
    ];
    TRIED.iter().any(|tried| call.starts_with(tried))
}

/// Whether a call looks at another process, which hidepid=1 does not allow.
fn is_hidden(call: &str) -> bool {
    let status =
        call.starts_with("openat(AT_FDCWD, \"/proc/") && call.contains("/status\", O_RDONLY");
    status || (call.starts_with("kill(") && call.contains(", 0) "))
}

/// What threads that serve ask for though the sandbox denies it, with no harm.
fn is_asked_in_vain(call: &str) -> bool {
    // By mimalloc when the first thread begins: denied, it takes the machine for one without NUMA.
    let numa = ["access(\"/sys/devices/system/node/", "access(0x"];
    let numa = numa.iter().any(|asked| call.starts_with(asked));
    // Of a peer on a Unix socket, for its capabilities: only `--no-sandbox` can tell.
    let peer =
        call.starts_with("openat(AT_FDCWD, \"/proc/") && call.contains("/status\", O_RDONLY");
    // By the C library while it looks up a peer's name: a name service (nscd, avahi) that may have been installed.
    let names = call.starts_with("socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0)");
    numa || peer || names
}

/// Numbers and random names are left out.
fn plain(call: &str) -> String {
    let mut plain = String::new();
    let mut digits = 0;
    for character in call.chars() {
        digits = if character.is_ascii_digit() {
            digits + 1
        } else {
            0
        };
        match digits {
            0 => plain.push(character),
            1 => plain.push('N'),
            _ => {}
        }
    }
    match plain.split_once("/.tmp") {
        Some((before, rest)) if rest.len() > 6 && rest.is_char_boundary(6) => {
            format!("{before}/TEMPORARY{}", &rest[6..])
        }
        _ => plain,
    }
}

#[test]
fn a_denial_is_told_from_what_is_meant() {
    let meant = "7<lowport> setresuid(0, 0, 0) = -1 EPERM (Operation not permitted)\n\
        8<lowport> openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY|O_CLOEXEC) = -1 EPERM (Operation not permitted)\n\
        8<lowport> clone(child_stack=NULL, flags=SIGCHLD) = -1 EPERM (Operation not permitted)\n\
        8<lowport> +++ killed by SIGSYS +++\n\
        6<lowport-broker> fcntl(3, F_GETFD) = -1 EPERM (Operation not permitted)\n\
        5<lowport-app> unshare(0) = -1 EPERM (Operation not permitted)\n\
        7<lowport> openat(AT_FDCWD, \"/secret\", O_RDONLY) = -1 EACCES (Permission denied)\n\
        7<lowport> openat(AT_FDCWD, \"/nothing\", O_RDONLY) = -1 ENOENT (No such file or directory)\n\
        7<lowport> getppid() = -1 EPERM (Operation not permitted)\n\
        7<lowport> accept4(9, NULL, NULL, SOCK_CLOEXEC) = -1 EAGAIN (Resource temporarily unavailable)\n\
        9<worker-0> access(\"/sys/devices/system/node/node1\", R_OK) = -1 EPERM (Operation not permitted)\n";
    assert!(Trace::new(7).unexpected(meant).is_empty());
    let not = "7<lowport> openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY) = -1 EPERM (Operation not permitted)\n\
        9<worker-12> openat(AT_FDCWD, \"/tmp/.tmpAbCdEf/x\", O_RDONLY) = -1 EACCES (Permission denied)\n\
        9<worker-12> +++ killed by SIGSYS +++\n\
        9<worker-12> fcntl(3, F_SETFL) = -1 EPERM (Operation not permitted)\n\
        5<lowport-app> unshare(CLONE_NEWNS) = -1 EPERM (Operation not permitted)\n\
        6<lowport-broker> bind(3, {}, 16) = -1 EPERM (Operation not permitted)\n";
    assert_eq!(
        Trace::new(7).unexpected(&format!("{meant}{not}")),
        [
            "lowport: openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY) = -N EPERM (Operation not permitted)",
            "worker-12: openat(AT_FDCWD, \"/tmp/TEMPORARY/x\", O_RDONLY) = -N EACCES (Permission denied)",
            "worker-12: +++ killed by SIGSYS +++",
            "worker-12: fcntl(N, F_SETFL) = -N EPERM (Operation not permitted)",
            "lowport-app: unshare(CLONE_NEWNS) = -N EPERM (Operation not permitted)",
            "lowport-broker: bind(N, {}, N) = -N EPERM (Operation not permitted)",
        ]
    );
}
