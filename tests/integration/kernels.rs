//! Kernels that have less than this one: strace answers in their place, and lowport tells what it is left with, or does
//! not serve.

use crate::refusals::refused;
use crate::support::client::curl;
use crate::support::lowport::{Setup, USER};
use crate::support::mode::scene;
use crate::support::{Lowport, process, skipped, strace};

const ROUTES: &str =
    "[[route]]\nrespond = \"x\"\n[[route]]\npath = \"/app\"\nto = \"http://127.0.0.1:3999\"\n";

/// lowport on a kernel that answers as `inject` has strace make it, with these layers to do without.
fn start(inject: &str, allow_degraded: &str) -> Lowport {
    let strace = strace::injecting(inject);
    let strace: Vec<&str> = strace.split(' ').collect();
    Lowport::within(
        &strace,
        &Setup {
            server: "redirect_to_https = false",
            rest: &format!("{}{ROUTES}", allowing(allow_degraded)),
            args: &["-v"],
        },
    )
}

/// The table that lets lowport do without this layer.
fn allowing(layer: &str) -> String {
    match layer {
        "" => String::new(),
        layer => format!("[sandbox]\nallow_degraded = [\"{layer}\"]\n"),
    }
}

/// That no connection is accepted on such a kernel. Returns the line that says what is `missing`.
fn refused_on(inject: &str, allow_degraded: &str, missing: &str) -> String {
    let server = format!("[server]\nuser = \"{USER}\"\n");
    let folder = scene(&format!("{server}{}{ROUTES}", allowing(allow_degraded)));
    refused(folder.path(), &strace::injecting(inject), 1, &[missing])
}

/// What follows `before` in each line that has it, in order.
fn all_after(lowport: &Lowport, before: &str) -> Vec<String> {
    let lines = lowport.output();
    let rest = lines.iter().filter_map(|line| line.split_once(before));
    rest.map(|(_, rest)| rest.trim().to_owned()).collect()
}

/// The version of Landlock that this kernel has, 0 for none.
fn abi() -> u32 {
    let lowport = Lowport::with(&Setup {
        server: "",
        rest: &format!("{}{ROUTES}", allowing("landlock")),
        args: &["-v"],
    });
    let told = all_after(&lowport, "ABI ");
    let digits = told.first().and_then(|told| told.split(':').next());
    digits.map_or(0, |digits| digits.parse().expect("a number"))
}

#[test]
fn every_version_of_landlock_is_served_with_and_told_as_it_is() {
    if !strace::is_there("every_version_of_landlock_is_served_with_and_told_as_it_is") {
        return;
    }
    let (truncate, ioctl) = (
        "files that may be written can be truncated (Linux 6.2)",
        "ioctl on devices (Linux 6.10)",
    );
    let ports = "network: none: ports are not kept (Linux 6.7)";
    let scopes = "scopes: none: signals and abstract sockets (Linux 6.12)";
    let connect = "connect to port 1 on loopback";
    let files = |open: &[&str]| format!("landlock, files: partial: {}", open.join("; "));
    let old = vec![
        files(&[truncate, ioctl]),
        format!("landlock, {ports}"),
        format!("landlock, {scopes}"),
    ];
    let mut third = old.clone();
    third[0] = files(&[ioctl]);
    let versions = [
        (1, old.clone(), "files PARTIAL, network NONE, scopes NONE"),
        (2, old, "files PARTIAL, network NONE, scopes NONE"),
        (3, third, "files PARTIAL, network NONE, scopes NONE"),
        (
            4,
            vec![files(&[ioctl]), format!("landlock, {scopes}")],
            "files PARTIAL, network full, scopes NONE",
        ),
        (
            5,
            vec![format!("landlock, {scopes}")],
            "files full, network full, scopes NONE",
        ),
        (6, vec![], "files full, network full, scopes full"),
    ];
    let newest = abi();
    for (abi, open, kept) in versions {
        if abi > newest {
            skipped(
                &format!("Landlock of version {abi}"),
                &format!("this kernel has version {newest}"),
            );
            continue;
        }
        let lowport = start(&format!("landlock_create_ruleset:retval={abi}:when=1"), "");
        let told = all_after(&lowport, "not closed: ");
        // The worker's, and the broker's.
        let twice =
            ["", "the broker: "].map(|whose| open.iter().map(move |open| format!("{whose}{open}")));
        let twice: Vec<String> = twice.into_iter().flatten().collect();
        assert_eq!(told, twice, "version {abi}");
        let landlock = lowport.wait_for("  landlock ");
        assert!(
            landlock.ends_with(&format!("ABI {abi}: {kept}")),
            "{landlock}"
        );
        // Not only told: a process tried it.
        let connected = all_after(&lowport, &format!("  {connect}"));
        // What is not promised is not tried.
        let expected = (abi >= 4).then_some("denied (EACCES)");
        assert_eq!(connected.first().map(String::as_str), expected);
        let others = lowport.output().join("\n").matches("denied (").count();
        assert!(others >= 10, "{others}");
        assert_eq!(curl(&lowport, "/", &[]), "x");
    }
}

/// That lowport refuses to serve without `layer` and says why and what to do; and serves where that is allowed, and says
/// so.
fn refused_and_allowed(layer: &str, inject: &str, reason: &str) {
    let missing = format!(": {layer} cannot be had here (");
    let remedy = format!("; to serve without it: [sandbox] allow_degraded = [\"{layer}\"]");
    let other = match layer {
        "landlock" => "seccomp",
        _ => "landlock",
    };
    for allowed in ["", other] {
        let line = refused_on(inject, allowed, &missing);
        assert!(
            line.starts_with("lowport: cannot start the broker: "),
            "{line}"
        );
        assert!(line.contains(reason) && line.ends_with(&remedy), "{line}");
    }

    let allowed = start(inject, layer);
    let warning = allowed.wait_for(&format!("no {layer} why="));
    assert!(
        warning.contains(" WARN ") && warning.contains(reason),
        "{warning}"
    );
    let open = all_after(&allowed, "not closed: ");
    for whose in ["", "the broker: "] {
        let off = format!("{whose}{layer} is off: ");
        let told = open.iter().find(|open| open.starts_with(&off));
        assert!(told.is_some_and(|told| told.contains(reason)), "{open:?}");
    }
    let output = allowed.output().join("\n");
    assert!(!output.contains("everything is enforced"), "{output}");
    assert_eq!(curl(&allowed, "/", &[]), "x");
    // The other layer is there all the same.
    let mode = process::status(allowed.pid(), "Seccomp").expect("it runs");
    assert_eq!(mode, if layer == "landlock" { "2" } else { "0" });
    assert_eq!(
        output.contains(": files full, network full, scopes full"),
        layer == "seccomp" && abi() >= 6
    );
}

#[test]
fn without_landlock_nothing_is_served_unless_that_is_allowed() {
    let test = "without_landlock_nothing_is_served_unless_that_is_allowed";
    if !strace::is_there(test) {
        return;
    }
    if abi() == 0 {
        return skipped(test, "this kernel has no Landlock to take away");
    }
    for (inject, reason) in [
        (
            "landlock_create_ruleset:error=ENOSYS",
            "the kernel has none: it takes Linux 5.13",
        ),
        (
            "landlock_create_ruleset:error=EOPNOTSUPP",
            "the kernel has it switched off",
        ),
        (
            "landlock_create_ruleset:error=EPERM",
            "something refuses it",
        ),
        (
            "landlock_create_ruleset:error=EPERM:when=1",
            "was refused, and now answers",
        ),
        (
            "landlock_create_ruleset:error=EPERM:when=2",
            "Operation not permitted",
        ),
        (
            "landlock_restrict_self:error=EPERM",
            "Operation not permitted",
        ),
    ] {
        refused_and_allowed("landlock", inject, reason);
    }
}

#[test]
fn without_seccomp_nothing_is_served_unless_that_is_allowed() {
    if !strace::is_there("without_seccomp_nothing_is_served_unless_that_is_allowed") {
        return;
    }
    for (inject, reason) in [
        ("seccomp:error=ENOSYS", "Function not implemented"),
        ("seccomp:error=EINVAL", "Invalid argument"),
        ("seccomp:error=EPERM", "Operation not permitted"),
        ("seccomp:retval=0", "does not follow them"),
    ] {
        refused_and_allowed("seccomp", inject, reason);
    }
}

#[test]
fn what_cannot_be_dropped_is_not_served_with() {
    if !strace::is_there("what_cannot_be_dropped_is_not_served_with") {
        return;
    }
    // It sets no_new_privs and more; no configuration allows to do without.
    for allowed in ["", "landlock", "seccomp"] {
        refused_on(
            "prctl:error=EINVAL",
            allowed,
            "lowport: cannot start the broker: ",
        );
    }
}
