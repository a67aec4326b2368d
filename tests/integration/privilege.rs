//! What is left of root once lowport serves.

use crate::support::Lowport;
use crate::support::lowport::Setup;
use crate::support::process::status;

const RESPOND: &str = "[[route]]\nrespond = \"x\"\n";

/// A number that a log line tells.
fn told(line: &str, key: &str) -> usize {
    let rest = line.split(&format!(" {key}=")).nth(1).expect(key);
    let word = rest.split(' ').next().expect("a word");
    word.parse().expect("a number")
}

#[test]
fn the_sandbox_is_on_by_default_tried_out_and_small() {
    let lowport = Lowport::start("[[route]]\nto = \"http://127.0.0.1:3999\"\n");
    let line = lowport.wait_for("sandboxed ");
    assert!(told(&line, "calls") <= 55, "{line}");
    assert!(told(&line, "tried") >= 10, "{line}");
    assert!(line.contains("connects_to=3999"), "{line}");
    // What could not be enforced is said; here only what no kernel before 7.1 can.
    let open: Vec<String> = lowport
        .output()
        .into_iter()
        .filter(|line| line.contains("not closed: "))
        .collect();
    assert!(
        open.iter().all(|line| line.contains("Unix socket")),
        "{open:?}"
    );
}

#[test]
fn without_the_sandbox_that_is_said() {
    let lowport = Lowport::with(&Setup {
        server: "",
        rest: RESPOND,
        args: &["--no-sandbox"],
    });
    lowport.wait_for("no sandbox why=--no-sandbox");
    assert_eq!(status(lowport.pid(), "Seccomp").as_deref(), Some("0"));
}

#[test]
fn a_reload_cannot_widen_the_sandbox_but_reaches_what_was_named() {
    let lowport = Lowport::start(
        "[sandbox]\nconnect = \"3998\"\n[[route]]\nto = \"http://127.0.0.1:3999\"\n",
    );
    let with = |port| Setup {
        server: "redirect_to_https = false",
        rest: port,
        args: &[],
    };
    let seen = lowport.output().len();
    lowport.rewrite(&with("[[route]]\nto = \"http://127.0.0.1:3997\"\n"));
    lowport.wait_for_after(seen, "reload refused");
    lowport.wait_for_after(seen, "the sandbox does not reach 127.0.0.1:3997");
    lowport.wait_for_after(seen, "sandbox.connect");
    lowport.rewrite(&with("[[route]]\nto = \"http://127.0.0.1:3998\"\n"));
    lowport.wait_for_after(seen, " reloaded");
}
