//! `lowport schema`. What the schema says is compared with what the code takes where that is: in `src/config`.

use super::repository;
use crate::support::lowport::run;
use crate::support::terminal::{CONFIG, config, done, failed};

#[test]
fn the_schema_is_printed_and_the_samples_name_it() {
    let file = repository("config/lowport.schema.json");
    assert_eq!(
        done(&run(&["schema"])),
        std::fs::read_to_string(file).unwrap()
    );
    for sample in ["lowport", "minimal", "hosts"] {
        let file = repository(&format!("config/{sample}.toml"));
        let text = std::fs::read_to_string(file).unwrap();
        assert!(
            text.starts_with("#:schema ./lowport.schema.json\n"),
            "{sample}"
        );
    }
}

/// Of each kind one; all others are tried in `src/config`.
#[test]
fn what_the_schema_refuses_is_refused_by_check_too() {
    let check = |text: &str| {
        let (_folder, file) = config(text);
        run(&["check", "--no-ports", "-c", &file])
    };
    const USER: &str = "[server]\nuser = 65532\n";
    const ROUTE: &str = "[[route]]\nto = \"http://127.0.0.1:3000\"\n";
    for right in [
        "",
        "[limits]\nrequest_body = 0\nrequest_rate = \"100 / s\"\n",
        "[upstream.a]\npeers = [\"unix:/run/a.sock\", \"h2c://a:1\"]\nexpect_user = 1000\n",
    ] {
        done(&check(&format!("{USER}{right}{ROUTE}")));
    }
    for wrong in [
        "[limits]\nrequest_bodies = 0\n",
        "[limits]\nrequest_body = \"64m\"\n",
        "[limits]\nrequest_headers = \"100\"\n",
        "[timeouts]\ndrain = 30\n",
        "[[route]]\npath = \"/a\"\n",
        "[[route]]\npath = \"/a\"\nto = \"a:1\"\nrespond = \"\"\n",
    ] {
        failed(&check(&format!("{USER}{wrong}{ROUTE}")), CONFIG);
    }
}
