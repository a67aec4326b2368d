//! What a person sees at a terminal, and what a script gets to see: outputs and exit codes.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::lowport::{BINARY, USER, run};
use crate::support::terminal::{CONFIG, USAGE, config, done, failed, server, text};
use crate::support::{certs, copy_program, folder, is_root, node, port};

#[test]
fn help_and_version_are_results_and_misuse_is_2() {
    assert_eq!(
        done(&run(&["--version"])),
        format!("lowport {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = done(&run(&["--help"]));
    for word in ["run", "dev", "check", "explain", "cert", "--version"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    assert!(done(&run(&["check", "--help"])).contains("--no-ports"));
    for (args, said) in [
        (&[][..], "Usage: lowport"),
        (&["serve"], "unrecognized subcommand 'serve'"),
        (&["chekc"], "'check'"),
        (&["run", "--port", "80"], "unexpected argument '--port'"),
        (&["run", "-c"], "a value is required for '--config <FILE>'"),
        (&["explain"], "<URL>"),
        (&["explain", "ftp://a.test/"], "only http:// and https://"),
        (&["explain", "a b"], "invalid uri character"),
        (&["explain", "http://me@a.test/"], "the host is not valid"),
        (
            &["explain", "-X", "get", "a.test"],
            "methods are upper case: GET",
        ),
        (&["cert"], "Usage: lowport cert"),
    ] {
        let error = failed(&run(args), USAGE);
        assert!(error.contains(said), "{said} in {error}");
    }
}

/// `lowport explain ... | head -1`, and a full disk.
#[test]
fn a_reader_that_goes_is_no_failure_and_what_cannot_be_written_is_one() {
    let folder = folder();
    let file = folder.path().join("lowport.toml");
    std::fs::write(
        &file,
        "[server]\nuser = \"65534:65534\"\n[[route]]\nrespond = \"hello\"\n",
    )
    .expect("written");
    let file = file.to_str().expect("text");
    for args in [
        &["explain", "-c", file, "http://a.test/"][..],
        &["check", "-c", file, "--no-ports"],
        &["audit", "--no-host", "--json", "/proc/self/fdinfo"],
    ] {
        let to = |output: Stdio| {
            let mut command = Command::new(BINARY);
            command.args(args).stdout(output).output().expect("it runs")
        };
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let gone = to(writer.into());
        assert!(gone.status.success(), "{args:?} {gone:?}");
        assert!(gone.stderr.is_empty(), "{args:?} {gone:?}");
        let full = std::fs::File::create("/dev/full").expect("opened");
        let full = to(full.into());
        assert_eq!(full.status.code(), Some(1), "{args:?} {full:?}");
        let told = text(&full.stderr);
        assert!(
            told.starts_with("lowport: cannot write to standard output: "),
            "{told}"
        );
    }
}

#[test]
fn without_a_configuration_nothing_runs() {
    let empty = folder();
    let in_folder = |args: &[&str]| {
        let output = Command::new(BINARY)
            .args(args)
            .current_dir(empty.path())
            .output();
        output.expect("it runs")
    };
    if !Path::new("/etc/lowport/lowport.toml").exists() {
        for command in [&["run"][..], &["check"], &["explain", "a.test"]] {
            let error = failed(&in_folder(command), CONFIG);
            for said in [
                "lowport.toml\n",
                "/etc/lowport/lowport.toml\n",
                "lowport dev",
                "-c FILE",
                "[[route]]\n  to = ",
            ] {
                assert!(error.contains(said), "{said} in {error}");
            }
        }
    }
    for (file, said) in [
        ("nowhere.toml", "nowhere.toml cannot be read: No such file"),
        (".", ". cannot be read: Is a directory"),
    ] {
        for command in [&["run"][..], &["check"], &["explain", "a.test"]] {
            let error = failed(&in_folder(&[command, &["-c", file]].concat()), CONFIG);
            assert!(error.starts_with(&format!("error: {said}")), "{error}");
        }
    }
    // The one in the folder is taken when none is named.
    let toml = format!("[server]\nuser = \"{USER}\"\n[[route]]\nrespond = \"x\"\n");
    std::fs::write(empty.path().join("lowport.toml"), toml).unwrap();
    let told = done(&in_folder(&["check", "--no-ports"]));
    assert!(told.starts_with("lowport.toml: no mistakes\n"), "{told}");
    let told = done(&in_folder(&["explain", "a.test"]));
    assert!(told.contains("(lowport.toml:3)"), "{told}");
}

#[test]
fn a_dash_reads_standard_input() {
    let piped = |args: &[&str], toml: &str| {
        let mut child = Command::new(BINARY)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(toml.as_bytes()).expect("written");
        drop(stdin);
        child.wait_with_output().expect("it ends")
    };
    let good = format!(
        "{}[[route]]\nrespond = \"x\"\n",
        server(port(), port()).replace("https", "#")
    );
    assert!(done(&piped(&["check", "-c", "-"], &good)).starts_with("<stdin>: no mistakes\n"));
    for command in ["check", "run"] {
        let error = failed(&piped(&[command, "-c", "-"], "[sever]\n"), CONFIG);
        assert!(error.contains("<stdin>:1:2"), "{error}");
        assert!(error.contains("did you mean"), "{error}");
    }
}

#[test]
fn every_mistake_is_told_with_its_place_and_remedy_and_nothing_is_bound() {
    let held = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = held.local_addr().unwrap().port();
    let (folder, file) = config(&format!(
        r#"[server]
http = "127.0.0.1:{taken}"
https = "127.0.0.1:{taken}"
usr = "lowport"
[limits]
request_head = "1KiB"
request_body = "64M"
[timeouts]
drain = "30"
keepalive_idle = "0s"
upstream_idle = "48h"
[[certificate]]
cert = "site.pem"
key = "other.key"
[[certificate]]
cert = "old.pem"
key = "old.key"
[[certificate]]
cert = "none.pem"
key = "site.pem"
[upstream.app]
peers = ["127.0.0.1:3000"]
expect_user = "not root"
[[route]]
path = "/a"
to = "http://127.0.0.1:3000/api"
[[route]]
path = "/b"
to = "http://me:secret@127.0.0.1:3000"
[[route]]
path = "/c"
upstream = "ap"
[[route]]
path_regex = "/(d"
to = "unix:app.sock"
[[route]]
host = "one.test"
respond = "1"
[[route]]
host = "ONE.test"
respond = "2"
"#
    ));
    for name in ["site", "other"] {
        certs::write(folder.path(), name, &["a.test"]);
    }
    certs::write_expired(folder.path(), "old", &["old.test"]);
    let mut told = Vec::new();
    for command in [&["check"][..], &["run"], &["check", "--no-ports"]] {
        told.push(failed(&run(&[command, &["-c", &file]].concat()), CONFIG));
    }
    let error = &told[0];
    let blocks: Vec<&str> = error.split("\n\n").collect();
    for (at, message, remedy) in [
        (
            "4:1",
            "unknown key `usr` in [server]",
            "did you mean `user`?",
        ),
        ("6:16", "`request_head`", "must be 8KiB to 1MiB"),
        ("7:16", "`request_body`", "write \"64MiB\""),
        ("9:9", "`drain`", "write \"30s\" for seconds"),
        ("10:18", "`keepalive_idle`", "must be 1ms to 24h"),
        ("11:17", "`upstream_idle`", "must be 1ms to 24h"),
        (
            "14:7",
            "other.key is not the key of",
            "that this certificate was requested with",
        ),
        ("16:8", "old.pem expired at 2021-02-03", "renew it"),
        ("19:8", "none.pem does not exist", "counts from the folder"),
        (
            "20:7",
            "site.pem holds a certificate, not a private key",
            "swapped?",
        ),
        ("23:15", "`expect_user`", "\"not-root\""),
        (
            "26:6",
            "`to`",
            "write \"http://127.0.0.1:3000\": requests keep their own path",
        ),
        ("29:6", "`to`", "write \"http://127.0.0.1:3000\""),
        ("32:12", "\"ap\"", "did you mean \"app\"?"),
        ("34:14", "`path_regex`", "https://docs.rs/regex/#syntax"),
        ("35:6", "`to`", "write \"unix:/run/app.sock\""),
        (
            "39:1",
            "two routes tie for host one.test, any path",
            "give one of them another host",
        ),
    ] {
        let place = format!("{file}:{at}\n");
        let block = blocks.iter().find(|block| block.contains(&place));
        let block = block.unwrap_or_else(|| panic!("{place} in {error}"));
        assert!(block.contains(message), "{message} in {block}");
        assert!(block.contains(remedy), "{remedy} in {block}");
    }
    assert!(
        blocks
            .iter()
            .any(|block| block.contains("36 | [[route]]") && block.contains("39 | [[route]]"))
    );
    // The same address twice, and whatever else there may be, but nothing of the ports: nobody has tried them.
    assert!(!error.contains("in use"), "{error}");
    assert!(
        error.ends_with(&format!("{file}: {} mistakes\n", blocks.len() - 1)),
        "{error}"
    );
    assert!(blocks.len() >= 18, "{error}");
    assert!(told.iter().all(|other| other == error), "{told:#?}");
}

/// The binary where every user can run it, and a command that runs it as somebody who is nobody in particular.
fn as_a_user(folder: &Path, args: &[&str]) -> Command {
    let copy = folder.join("lowport");
    if !copy.exists() {
        copy_program(BINARY, &copy);
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("permissions");
    }
    let mut command = Command::new(copy);
    command
        .args(args)
        .env_remove("HOME")
        .env_remove("XDG_DATA_HOME");
    if is_root() {
        command.uid(node::APP_UID).gid(node::APP_UID);
    }
    command
}

#[test]
fn the_authority_is_the_users_own_and_its_key_for_nobody_else() {
    let folder = folder();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o777)).unwrap();
    let cert = |word: &str| {
        let mut command = as_a_user(folder.path(), &["cert", word]);
        command
            .env("XDG_DATA_HOME", &data)
            .output()
            .expect("it runs")
    };
    let path = done(&cert("path"));
    let ca = data.join("lowport/ca.pem");
    assert_eq!(path, format!("{}\n", ca.display()));
    let made = std::fs::read_to_string(&ca).unwrap();
    assert!(made.starts_with("-----BEGIN CERTIFICATE-----"));
    let key = std::fs::metadata(data.join("lowport/ca-key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let help = done(&cert("trust"));
    for said in [
        "update-ca-certificates",
        "NODE_EXTRA_CA_CERTS=",
        "Firefox",
        "--cacert",
    ] {
        assert!(help.contains(said), "{said} in {help}");
    }
    assert!(help.contains(path.trim_end()));
    assert_eq!(
        std::fs::read_to_string(&ca).unwrap(),
        made,
        "it is made once"
    );
    // Below the home folder otherwise, and nowhere without one.
    let mut command = as_a_user(folder.path(), &["cert", "path"]);
    let at_home = done(&command.env("HOME", &data).output().unwrap());
    assert_eq!(
        at_home,
        format!("{}/.local/share/lowport/ca.pem\n", data.display())
    );
    let homeless = as_a_user(folder.path(), &["cert", "path"])
        .output()
        .unwrap();
    let error = failed(&homeless, 1);
    assert!(
        error.starts_with("lowport: ") && error.contains("set XDG_DATA_HOME"),
        "{error}"
    );
}

#[test]
fn what_an_ordinary_user_may_not_do_is_told_with_the_remedy() {
    let (folder, file) = config(&format!(
        "{}[[certificate]]\ncert = \"a.pem\"\nkey = \"a.key\"\n[[route]]\nrespond = \"x\"\n",
        server(port(), port())
    ));
    let (_, key) = certs::write(folder.path(), "a", &["a.test"]);
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o000)).unwrap();
    for command in ["run", "check"] {
        let output = as_a_user(folder.path(), &[command, "-c", &file])
            .output()
            .unwrap();
        let error = failed(&output, CONFIG);
        assert!(error.contains("a.key may not be read by "), "{error}");
        assert!(error.contains("namei -l"), "{error}");
        assert!(error.contains(&format!("{file}:7:7")), "{error}");
    }
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o000)).unwrap();
    let output = as_a_user(folder.path(), &["check", "-c", &file])
        .output()
        .unwrap();
    assert!(failed(&output, CONFIG).contains("cannot be read: Permission denied"));
}

#[test]
fn colours_are_for_terminals_only_and_no_color_has_the_last_word() {
    let (_folder, file) = config("[[route]]\n");
    // script(1) gives it a terminal.
    let on_terminal = |no_color: &str| {
        let command = format!("{BINARY} check -c {file}");
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("NO_COLOR", no_color)
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output();
        output.ok().map(|output| text(&output.stdout))
    };
    let piped = Command::new(BINARY)
        .args(["check", "-c", &file])
        .env_remove("NO_COLOR")
        .output();
    assert!(failed(&piped.unwrap(), CONFIG).contains("this route does nothing"));
    let (Some(coloured), Some(plain)) = (on_terminal(""), on_terminal("1")) else {
        return crate::support::skipped("colours", "there is no script(1)");
    };
    assert!(
        coloured.contains('\u{1b}') && coloured.contains("does nothing"),
        "{coloured:?}"
    );
    assert!(
        !plain.contains('\u{1b}') && plain.contains("does nothing"),
        "{plain:?}"
    );
}
