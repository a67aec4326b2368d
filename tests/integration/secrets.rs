//! Private keys: who cannot come by them, and where they are.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rcgen::KeyPair;

use crate::support::client::curl;
use crate::support::lowport::Setup;
use crate::support::memory::{self, Memory};
use crate::support::mode::{Mode, SOMEBODY};
use crate::support::{
    Lowport, again, certs, folder, is_root, open_to_all, port, process, say, skipped, until,
};

const TARGET: &str = "LOWPORT_TEST_TARGET";
const ADDRESS: &str = "LOWPORT_TEST_ADDRESS";
const FILE: &str = "LOWPORT_TEST_FILE";

/// Not a test of its own: what a process of the same user tries. Each attempt is a line, and how it ended.
#[test]
fn a_neighbour() {
    let Ok(target) = std::env::var(TARGET) else {
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let pid = Pid::from_raw(target.parse().unwrap());
    let address = number(ADDRESS);
    let tell = |what: &str, result: Result<(), std::io::Error>| match result {
        Ok(()) => println!("tried {what}: done"),
        Err(error) => println!("tried {what}: {:?}", error.kind()),
    };
    let read = |path: &str, at: u64| {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut [0])
    };
    for (file, at) in [("mem", address), ("environ", 0), ("auxv", 0), ("maps", 0)] {
        tell(file, read(&format!("/proc/{target}/{file}"), at));
    }
    for folder in ["fd", "map_files", "cwd"] {
        let folder_of_target = format!("/proc/{target}/{folder}");
        tell(folder, fs::read_dir(folder_of_target).map(drop));
    }
    if let Ok(file) = std::env::var(FILE) {
        tell("the file", read(&file, 0));
        tell(
            "the file by its root",
            read(&format!("/proc/{target}/root{file}"), 0),
        );
    }
    tell("process_vm_readv", vm_readv(pid, address));
    tell("pidfd_getfd", steal_descriptor(pid));
    tell("ptrace attach", {
        let attached = ptrace::attach(pid);
        if attached.is_ok() {
            waitpid(pid, None).unwrap();
            ptrace::detach(pid, None).unwrap();
        }
        attached.map_err(Into::into)
    });
    tell("ptrace seize", {
        let seized = ptrace::seize(pid, ptrace::Options::empty());
        if seized.is_ok() {
            ptrace::interrupt(pid).unwrap();
            waitpid(pid, None).unwrap();
            ptrace::detach(pid, None).unwrap();
        }
        seized.map_err(Into::into)
    });
}

fn vm_readv(pid: Pid, address: u64) -> std::io::Result<()> {
    let mut byte = [0];
    let remote = RemoteIoVec {
        base: address as usize,
        len: 1,
    };
    process_vm_readv(pid, &mut [IoSliceMut::new(&mut byte)], &[remote])?;
    Ok(())
}

fn steal_descriptor(pid: Pid) -> std::io::Result<()> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).expect("not zero");
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_getfd(pidfd, 0, PidfdGetfdFlags::empty())?;
    Ok(())
}

/// What [`a_neighbour`] of this user tells of its attempts on `pid`.
fn tried(pid: u32, uid: u32, file: Option<&Path>) -> Vec<(String, String)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let readable = maps.lines().find_map(memory::range);
    let address = readable.map_or(4096, |(from, _)| from).to_string();
    let pid = pid.to_string();
    let mut env = vec![(TARGET, pid.as_str()), (ADDRESS, &address)];
    if let Some(file) = file {
        env.push((FILE, file.to_str().expect("UTF-8")));
    }
    let uid = is_root().then_some(uid);
    let told: Vec<_> = again::run("secrets::a_neighbour", uid, &env)
        .iter()
        .filter_map(|line| line.strip_prefix("tried "))
        .map(|line| line.split_once(": ").expect("two parts"))
        .map(|(what, how)| (what.to_owned(), how.to_owned()))
        .collect();
    assert!(told.len() >= 11, "{told:?}");
    told
}

/// Kills a process when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_neighbour_sees_through_an_ordinary_process() {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("sleep");
    command.arg("600").stdin(Stdio::null());
    if is_root() {
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    let sleeper = Ended(command.spawn().unwrap());
    let pid = sleeper.0.id();
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    until("the sleeper", || (name()? == "sleep\n").then_some(()));
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let relatives_only = !matches!(scope.trim(), "" | "0");
    for (what, how) in tried(pid, SOMEBODY, Some(Path::new("/proc/version"))) {
        let traces = ["mem", "process_vm_readv", "pidfd_getfd"].contains(&what.as_str())
            || what.starts_with("ptrace");
        if relatives_only && traces {
            say(&format!(
                "{what} proves little: kernel.yama.ptrace_scope is {scope}"
            ));
        } else if what != "map_files" {
            // That takes a capability on older kernels.
            assert_eq!(how, "done", "{what}");
        }
    }
}

#[test]
fn a_process_of_the_same_user_learns_nothing_from_lowport() {
    for mode in Mode::all() {
        let user = match mode {
            Mode::Root => format!("user = \"{SOMEBODY}:{SOMEBODY}\"\n"),
            _ => String::new(),
        };
        let rest = format!(
            "[[route]]\nrespond = \"x\"\n[app]\ncommand = [\"sleep\", \"600\"]\ndir = \"/\"\nport = {}\n{user}",
            port()
        );
        let lowport = Lowport::in_mode(
            *mode,
            &Setup {
                server: "redirect_to_https = false",
                rest: &rest,
                args: &[],
            },
        );
        let app = if is_root() { SOMEBODY } else { mode.uid() };
        for (pid, uid) in [
            (lowport.pid(), mode.uid()),
            (process::child(lowport.pid(), "lowport-broker"), mode.uid()),
            (process::child(lowport.pid(), "lowport-app"), app),
        ] {
            for (what, how) in tried(pid, uid, None) {
                assert_eq!(how, "PermissionDenied", "{mode:?}: {what} of {pid}");
            }
        }
        assert_eq!(curl(&lowport, "/", &[]), "x");
    }
}

#[test]
fn the_key_file_is_not_the_workers_to_read() {
    if !is_root() {
        return skipped("the_key_file_is_not_the_workers_to_read", "needs root");
    }
    let lowport = Lowport::start("[[route]]\nrespond = \"x\"\n");
    let private = lowport.folder().join("private");
    fs::create_dir(&private).unwrap();
    let (_, key) = certs::write(&private, "site", &["localhost"]);
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let text = fs::read_to_string(lowport.config()).unwrap();
    lowport.rewrite_raw(&text.replace("\"site.", "\"private/site."));
    lowport.wait_for(" reloaded");
    assert_eq!(curl(&lowport, "/", &[]), "x", "lowport has read it");
    for (what, how) in tried(lowport.pid(), Mode::Root.uid(), Some(&key)) {
        assert_eq!(how, "PermissionDenied", "{what}");
    }
}

#[test]
fn no_core_is_dumped() {
    let unlimited = ["sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"];
    for signal in [Signal::SIGABRT, Signal::SIGILL] {
        let mut lowport = Lowport::within(
            &unlimited,
            &Setup {
                server: "",
                rest: "[[route]]\nrespond = \"x\"\n",
                args: &[],
            },
        );
        let broker = process::child(lowport.pid(), "lowport-broker");
        for pid in [lowport.pid(), broker] {
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            let core = limits.lines().find(|line| line.contains("core file size"));
            let words: Vec<&str> = core.unwrap().split_whitespace().collect();
            assert_eq!(words[4..6], ["0", "0"], "{core:?}");
        }
        lowport.signal(signal);
        let ended = lowport.ended();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(ended.signal(), Some(signal as i32));
        assert!(!ended.core_dumped());
    }
}

/// Bytes that a private key is known by.
struct Known {
    /// Pieces of the file's text that stand for nothing public: PEM breaks lines, and of a buffer that was used again only
    /// a part may be left
    text: Vec<Vec<u8>>,
    /// What the text stands for (RFC 5208)
    der: Vec<u8>,
    /// The secret numbers as they are written
    numbers: Vec<Vec<u8>>,
}

impl Known {
    fn of(key: &KeyPair, numbers: Vec<Vec<u8>>) -> Self {
        const PIECE: usize = 16;
        let (der, pem) = (key.serialize_der(), key.serialize_pem());
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        // Lines are of 64 characters, so none of these is broken.
        let pieces = body.as_bytes().chunks_exact(PIECE).enumerate();
        let is_secret = |at: usize| {
            let bytes = &der[at..(at + PIECE / 4 * 3).min(der.len())];
            let within = |number: &Vec<u8>| number.windows(bytes.len()).any(|part| part == bytes);
            numbers.iter().any(within)
        };
        let text: Vec<_> = pieces
            .filter(|(index, _)| is_secret(index * PIECE / 4 * 3))
            .map(|(_, piece)| piece.to_vec())
            .collect();
        assert!(!text.is_empty());
        Self { text, der, numbers }
    }

    /// That of all this nothing is there but what the TLS library makes of it; how often that is, number by number.
    fn parsed(&self, memory: &Memory, where_: &str) -> Vec<usize> {
        let mut written: Vec<&[u8]> = self.text.iter().map(Vec::as_slice).collect();
        written.push(&self.der);
        written.extend(self.numbers.iter().map(Vec::as_slice));
        let counts = memory.counts(&written);
        assert_eq!(
            counts,
            vec![0; written.len()],
            "{where_}: as it was written"
        );
        // aws-lc keeps numbers with the least significant bytes first.
        let kept = self
            .numbers
            .iter()
            .map(|number| number.iter().rev().copied());
        let kept: Vec<Vec<u8>> = kept.map(Iterator::collect).collect();
        memory.counts(&kept.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
}

/// A key over P-256 and its scalar, which is in a fixed place (RFC 5915 within RFC 5208).
fn ecdsa() -> (KeyPair, Known) {
    let key = KeyPair::generate().expect("a key");
    let der = key.serialize_der();
    let at = der
        .windows(2)
        .position(|two| two == [4, 32])
        .expect("an OCTET STRING")
        + 2;
    let known = Known::of(&key, vec![der[at..at + 32].to_vec()]);
    (key, known)
}

/// An RSA key, its private exponent and its primes (RFC 8017 appendix A.1.2).
fn rsa() -> (KeyPair, Known) {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
        .expect("a key");
    let der = key.serialize_der();
    // INTEGERs with a length in two bytes, or in one after 0x81: modulus, private exponent; primes.
    let long: Vec<&[u8]> = integers(&der, &[2, 0x82, 1, 1], 257);
    let short: Vec<&[u8]> = integers(&der, &[2, 0x81, 129], 129);
    // The exponent begins with a zero only if its first bit is set.
    let mut numbers: Vec<Vec<u8>> = short[..2].iter().map(|prime| prime[1..].to_vec()).collect();
    numbers.extend(long.get(1).map(|exponent| exponent[1..].to_vec()));
    let known = Known::of(&key, numbers);
    (key, known)
}

fn integers<'a>(der: &'a [u8], head: &[u8], length: usize) -> Vec<&'a [u8]> {
    let starts = der.windows(head.len()).enumerate();
    starts
        .filter(|(_, window)| *window == head)
        .filter_map(|(at, _)| der.get(at + head.len()..at + head.len() + length))
        .collect()
}

#[test]
fn of_a_key_only_what_the_tls_library_keeps_is_in_memory_and_only_in_the_worker() {
    let folder = folder();
    let [before, after] = [(), ()].map(|()| [ecdsa(), rsa()]);
    let write = |keys: &[(KeyPair, Known); 2]| {
        for ((key, _), name) in keys.iter().zip(["ecdsa", "rsa"]) {
            certs::write_for(folder.path(), name, &[&format!("{name}.test")], key);
            open_to_all(&folder.path().join(format!("{name}.key")));
        }
    };
    write(&before);
    let mut rest = format!(
        "[app]\ncommand = [\"sleep\", \"600\"]\ndir = \"/\"\nport = {}\n",
        port()
    );
    if is_root() {
        rest.push_str(&format!("user = \"{SOMEBODY}:{SOMEBODY}\"\n"));
    }
    rest.push_str("[[route]]\nrespond = \"x\"\n");
    for name in ["ecdsa", "rsa"] {
        let path = folder.path().join(name);
        let path = path.display();
        rest.push_str(&format!(
            "[[certificate]]\ncert = \"{path}.pem\"\nkey = \"{path}.key\"\n"
        ));
    }
    let lowport = Lowport::start(&rest);
    let memory_of = |pid: u32| Memory::of(pid).unwrap();
    if !is_root() || Memory::of(lowport.pid()).is_err() {
        return skipped(
            "of_a_key_only_what_the_tls_library_keeps_is_in_memory",
            "needs root with CAP_SYS_PTRACE",
        );
    }
    let helpers = ["lowport-broker", "lowport-app"].map(|name| process::child(lowport.pid(), name));
    // A signature with each.
    let visit = || {
        for name in ["ecdsa", "rsa"] {
            let resolve = format!("{name}.test:{}:127.0.0.1", lowport.https);
            let url = format!("https://{name}.test:{}/", lowport.https);
            assert_eq!(curl(&lowport, &url, &["--resolve", &resolve]), "x");
        }
    };
    let check = |keys: &[(KeyPair, Known); 2], when: &str| {
        let worker = memory_of(lowport.pid());
        let helpers = helpers.map(memory_of);
        for (_, known) in keys {
            // None would prove nothing. aws-lc keeps RSA's a second time, made ready to sign with.
            let counts = known.parsed(&worker, when);
            assert!(
                counts.iter().all(|count| (1..=2).contains(count)),
                "{when}: {counts:?}"
            );
            for helper in &helpers {
                let counts = known.parsed(helper, when);
                assert!(counts.iter().all(|count| *count == 0), "{when}: {counts:?}");
            }
        }
    };

    check(&before, "before a signature");
    visit();
    check(&before, "after a signature");
    write(&after);
    lowport.wait_for(" reloaded");
    visit();
    check(&after, "after a reload");
    // What was there before goes with the last connection that began with it.
    until("the old keys to be forgotten", || {
        let worker = memory_of(lowport.pid());
        let mut known = before.iter().map(|(_, known)| known);
        let gone = |known: &Known| known.parsed(&worker, "the old keys").iter().sum::<usize>() == 0;
        known.all(gone).then_some(())
    });
}
