//! The broker: what is left to it, what it still reads and binds for a reload, and what it is refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::client::curl;
use crate::support::lowport::{BINARY, Setup, USER};
use crate::support::process::{self, child, status};
use crate::support::{Lowport, certs, is_root, port, raw, until};

const RESPOND: &str = "[[route]]\nrespond = \"x\"\n";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

fn broker(lowport: &Lowport) -> u32 {
    child(lowport.pid(), "lowport-broker")
}

#[test]
fn it_has_two_capabilities_and_a_sandbox_of_its_own() {
    let lowport = Lowport::start(RESPOND);
    let pid = broker(&lowport);
    let mut expected = vec![
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Threads", "1"),
    ];
    if is_root() {
        // CAP_DAC_READ_SEARCH is bit 2, CAP_NET_BIND_SERVICE bit 10.
        expected.extend([
            ("Uid", "0\t0\t0\t0"),
            ("CapEff", "0000000000000404"),
            ("CapPrm", "0000000000000404"),
            ("CapBnd", "0000000000000000"),
            ("Groups", ""),
        ]);
    } else {
        expected.extend([
            ("CapEff", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
        ]);
    }
    for (name, value) in expected {
        assert_eq!(status(pid, name).as_deref(), Some(value), "{name}");
    }
    // Those that the tests themselves may be under come on top.
    let filters = |pid: &str| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find(|line| line.starts_with("Seccomp_filters:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    if let Some(own) = filters("self") {
        assert_eq!(filters(&pid.to_string()), Some(own + 3));
    }
}

#[test]
fn what_it_may_do_is_told_at_start_and_little() {
    let lowport = Lowport::with(&Setup {
        server: "",
        rest: RESPOND,
        args: &["-v"],
    });
    let line = lowport.wait_for("broker sandboxed ");
    let number = |key: &str| -> usize {
        let rest = line.split(&format!(" {key}=")).nth(1).expect(key);
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next();
        digits
            .and_then(|digits| digits.parse().ok())
            .expect("a number")
    };
    assert!(number("calls") <= 28, "{line}");
    assert!(number("tried") >= 10, "{line}");
    let mut ports = [80, 443, lowport.http, lowport.https];
    ports.sort_unstable();
    let ports = ports.map(|port| port.to_string()).join(", ");
    assert!(line.contains(&ports), "{line}");
    lowport.wait_for("    tried       12, all denied");
    let reads = lowport
        .output()
        .into_iter()
        .find(|line| line.starts_with("    may read "))
        .expect("what it reads");
    let folder = lowport.folder().canonicalize().unwrap();
    assert!(reads.contains(&folder.display().to_string()), "{reads}");
    assert!(
        !reads.contains(" /,") && !reads.contains("/etc,"),
        "{reads}"
    );
}

/// The serial number of the certificate that is served.
fn serial(lowport: &Lowport) -> String {
    let output = curl(lowport, "/", &["-o/dev/null", "-w", "%{certs}"]);
    let serial = output
        .lines()
        .find_map(|line| line.strip_prefix("Serial Number:"));
    serial.expect("a serial number").to_owned()
}

fn renewed(lowport: &Lowport, before: &str) -> String {
    until("the renewed certificate", || {
        Some(serial(lowport)).filter(|now| now != before)
    })
}

/// A folder that nobody but who runs the tests may enter.
fn private(folder: &Path) {
    fs::create_dir_all(folder).expect("made");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("permissions");
}

/// Puts `link` in the place of the one that may be there, in one step.
fn relink(target: &str, link: &Path) {
    let next = link.with_file_name("next");
    symlink(target, &next).expect("linked");
    fs::rename(next, link).expect("renamed");
}

/// A lowport whose certificate is what `furnish` has put at `site.pem` and `site.key` of `live` in a private folder.
fn with_certificate(furnish: impl Fn(&Path)) -> (Lowport, tempfile::TempDir) {
    let folder = crate::support::folder();
    let root = folder.path().join("private");
    private(&root);
    furnish(&root);
    let at = |name: &str| root.join("live").join(name).display().to_string();
    let rest = format!(
        "[[certificate]]\ncert = \"{}\"\nkey = \"{}\"\n{RESPOND}",
        at("site.pem"),
        at("site.key")
    );
    let lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false",
        rest: &rest,
        args: &[],
    });
    // The private one instead of the harness's.
    let text = fs::read_to_string(lowport.config()).expect("a configuration");
    let own = "[[certificate]]\ncert = \"site.pem\"\nkey = \"site.key\"\n";
    assert!(text.contains(own), "{text}");
    let seen = lowport.output().len();
    lowport.rewrite_raw(&text.replace(own, ""));
    lowport.wait_for_after(seen, " reloaded");
    (lowport, folder)
}

#[test]
fn a_certificate_in_a_folder_of_roots_is_renewed_by_replacing_its_files() {
    let (lowport, folder) = with_certificate(|root| {
        private(&root.join("live"));
        certs::write(&root.join("live"), "site", &["localhost"]);
    });
    let live = folder.path().join("private/live");
    let before = serial(&lowport);
    let next = folder.path().join("private/next");
    private(&next);
    certs::write(&next, "site", &["localhost"]);
    for file in ["site.key", "site.pem"] {
        let path = next.join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&path, live.join(file)).unwrap();
    }
    renewed(&lowport, &before);
}

/// `live/site.pem` is a link to `archive/site1.pem`, and later to `archive/site2.pem`.
#[test]
fn a_certificate_of_certbots_is_renewed_by_replacing_its_links() {
    let issue = |root: &Path, number: u32| {
        certs::write(
            &root.join("archive"),
            &format!("site{number}"),
            &["localhost"],
        );
        for kind in ["key", "pem"] {
            let target = format!("../archive/site{number}.{kind}");
            relink(&target, &root.join(format!("live/site.{kind}")));
        }
    };
    let (lowport, folder) = with_certificate(|root| {
        private(&root.join("live"));
        private(&root.join("archive"));
        issue(root, 1);
    });
    let before = serial(&lowport);
    issue(&folder.path().join("private"), 2);
    renewed(&lowport, &before);
}

/// `live/site.pem` is a link to `..data/site.pem`, and `..data` one to a folder that is another one each time.
#[test]
fn a_certificate_of_kubernetes_is_renewed_by_replacing_the_folder_behind_it() {
    let issue = |live: &Path, number: u32| {
        let folder = live.join(format!("..{number}"));
        private(&folder);
        certs::write(&folder, "site", &["localhost"]);
        relink(&format!("..{number}"), &live.join("..data"));
    };
    let (lowport, folder) = with_certificate(|root| {
        let live = root.join("live");
        private(&live);
        issue(&live, 1);
        for file in ["site.pem", "site.key"] {
            symlink(format!("..data/{file}"), live.join(file)).unwrap();
        }
    });
    let live = folder.path().join("private/live");
    let mut before = serial(&lowport);
    for number in [2, 3] {
        issue(&live, number);
        before = renewed(&lowport, &before);
        fs::remove_dir_all(live.join(format!("..{}", number - 1))).unwrap();
    }
}

#[test]
fn a_folder_that_was_not_named_at_start_is_refused_with_the_remedy() {
    let (later, named) = (crate::support::folder(), crate::support::folder());
    for folder in [&later, &named] {
        certs::write(folder.path(), "site", &["localhost"]);
    }
    let rest = format!(
        "[sandbox]\nread = \"{}\"\n{RESPOND}",
        named.path().display()
    );
    let lowport = Lowport::start(&rest);
    let text = fs::read_to_string(lowport.config()).unwrap();
    let before = serial(&lowport);
    let with = |folder: &Path| {
        let seen = lowport.output().len();
        let folder = folder.display();
        let text = text.replace("\"site.", &format!("\"{folder}/site."));
        lowport.rewrite_raw(&text);
        seen
    };
    let seen = with(later.path());
    lowport.wait_for_after(seen, "reload refused");
    lowport.wait_for_after(seen, "site.pem cannot be read: Permission denied");
    let help = lowport.wait_for_after(seen, "the broker's sandbox reaches");
    assert!(help.contains("sandbox.read"), "{help}");
    assert_eq!(serial(&lowport), before);
    // It was not named, so that it says so there and not in the system's words alone.
    let seen = with(named.path());
    lowport.wait_for_after(seen, " reloaded");
    assert_ne!(serial(&lowport), before);
}

#[test]
fn a_port_and_a_log_that_were_not_named_at_start_are_refused_with_the_remedy() {
    let (elsewhere, new) = (crate::support::folder(), port());
    let lowport = Lowport::start(RESPOND);
    let text = fs::read_to_string(lowport.config()).unwrap();
    let seen = lowport.output().len();
    lowport.rewrite_raw(&text.replace(&format!(":{}\"", lowport.http), &format!(":{new}\"")));
    lowport.wait_for_after(seen, "reload refused");
    let why = format!("the sandbox does not let 127.0.0.1:{new} be bound");
    lowport.wait_for_after(seen, &why);
    lowport.wait_for_after(seen, "sandbox.bind");
    assert!(raw::exchange(lowport.http, GET).ends_with('x'));

    let seen = lowport.output().len();
    let log = elsewhere.path().join("access.log");
    lowport.rewrite_raw(&format!("{text}\n[log]\naccess = \"{}\"\n", log.display()));
    lowport.wait_for_after(seen, "reload refused");
    lowport.wait_for_after(seen, "log.access: ");
    lowport.wait_for_after(seen, "the broker's sandbox reaches");
    assert!(!log.exists());
    assert!(raw::exchange(lowport.http, GET).ends_with('x'));
}

#[test]
fn the_access_log_is_opened_anew_in_its_folder() {
    let folder = crate::support::folder();
    let log = folder.path().join("access.log");
    let lowport = Lowport::start(&format!("[log]\naccess = \"{}\"\n{RESPOND}", log.display()));
    let written = |path: &Path| {
        until("a record", || {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.contains("GET / ").then_some(())
        });
    };
    raw::exchange(lowport.http, GET);
    written(&log);
    fs::rename(&log, folder.path().join("access.log.1")).unwrap();
    lowport.signal(Signal::SIGUSR1);
    until("the log to be made anew", || log.exists().then_some(()));
    raw::exchange(lowport.http, GET);
    written(&log);
}

/// The file itself is let be written, and what takes its place is not.
#[test]
fn an_access_log_among_others_files_is_written_as_long_as_it_is_the_same_file() {
    let log = tempfile::Builder::new()
        .prefix("lowport-test-")
        .tempfile_in("/tmp")
        .unwrap();
    let path = log.path().to_owned();
    // Lowport makes it.
    log.close().unwrap();
    let lowport = Lowport::start(&format!(
        "[log]\naccess = \"{}\"\n{RESPOND}",
        path.display()
    ));
    let seen = lowport.output().len();
    lowport.signal(Signal::SIGHUP);
    lowport.wait_for_after(seen, " reloaded");
    raw::exchange(lowport.http, GET);
    until("a record", || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.contains("GET / ").then_some(())
    });
    assert!(!lowport.output().iter().any(|line| line.contains("ERROR")));
    fs::remove_file(&path).unwrap();
    let seen = lowport.output().len();
    lowport.signal(Signal::SIGUSR1);
    let line = lowport.wait_for_after(seen, "cannot reopen the access log");
    assert!(line.contains("the broker's sandbox reaches"), "{line}");
}

/// What is next to the file is nobody's business, so that only the file is opened, and one that takes its place is another.
#[test]
fn a_configuration_among_others_files_is_read_as_long_as_it_is_the_same_file() {
    let port = port();
    let text = |body: &str| {
        format!(
            "[server]\nhttp = \"127.0.0.1:{port}\"\nuser = \"{USER}\"\n[[route]]\nrespond = \"{body}\"\n"
        )
    };
    let file = tempfile::Builder::new()
        .prefix("lowport-test-")
        .suffix(".toml")
        .tempfile_in("/tmp")
        .unwrap();
    fs::write(file.path(), text("one")).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "-c"]).arg(file.path());
    let lowport = Lowport::spawn(&mut command);
    lowport.wait_for(" ready ");
    fs::write(file.path(), text("two")).unwrap();
    until("the new table", || {
        raw::exchange(port, GET).ends_with("two").then_some(())
    });
    let next = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    fs::write(next.path(), text("three")).unwrap();
    let seen = lowport.output().len();
    fs::rename(next.path(), file.path()).unwrap();
    lowport.wait_for_after(seen, "reload refused");
    lowport.wait_for_after(seen, "cannot be read: Permission denied");
    lowport.wait_for_after(seen, "the broker's sandbox reaches");
    assert!(raw::exchange(port, GET).ends_with("two"));
}

#[test]
fn a_folder_to_come_has_to_be_there() {
    let folder = crate::support::folder();
    let file = folder.path().join("lowport.toml");
    let text = format!(
        "[server]\nhttp = \"127.0.0.1:{}\"\nuser = \"{USER}\"\n[sandbox]\nread = \"nowhere\"\n{RESPOND}",
        port()
    );
    fs::write(&file, text).unwrap();
    for command in ["check", "run"] {
        let output = crate::support::lowport::run(&[command, "-c", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            told.contains("sandbox.read: ") && told.contains("No such file"),
            "{told}"
        );
    }
}

#[test]
fn without_the_sandbox_it_has_none_and_binds_what_a_reload_brings() {
    let setup = Setup {
        server: "redirect_to_https = false",
        rest: RESPOND,
        args: &["--no-sandbox"],
    };
    let lowport = Lowport::with(&setup);
    let own = process::status(std::process::id(), "Seccomp");
    assert_eq!(status(broker(&lowport), "Seccomp"), own);
    let (text, new) = (fs::read_to_string(lowport.config()).unwrap(), port());
    lowport.rewrite_raw(&text.replace(&format!(":{}\"", lowport.http), &format!(":{new}\"")));
    lowport.wait_for(" reloaded");
    assert!(raw::exchange(new, GET).ends_with('x'));
}

#[test]
fn a_dead_broker_ends_lowport_with_a_failure() {
    let mut lowport = Lowport::start(RESPOND);
    kill(Pid::from_raw(broker(&lowport) as i32), Signal::SIGKILL).unwrap();
    assert_eq!(lowport.ended().code(), Some(1));
    lowport.wait_for("the broker has died");
}

#[test]
fn a_dead_worker_leaves_nobody_behind() {
    let mut lowport = Lowport::start(RESPOND);
    let broker = broker(&lowport);
    lowport.signal(Signal::SIGKILL);
    assert!(!lowport.ended().success());
    until("the broker to end", || {
        (!Path::new(&format!("/proc/{broker}/status")).exists()).then_some(())
    });
}
