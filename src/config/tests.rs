//! Whole files: those of the folder `config/`, a bad one, broken ones.

mod schema;

use std::path::Path;
use std::sync::Arc;

use super::keys::{self, Known};
use super::{AppArgs, Config, Mistakes, PathMatch, Source, load, parse};

fn read(text: &str) -> (Config, Mistakes) {
    read_with(text, None)
}

/// As if it were `/etc/x/lowport.toml`.
fn read_with(text: &str, app: Option<AppArgs>) -> (Config, Mistakes) {
    let source = Arc::new(Source {
        name: "lowport.toml".into(),
        path: Some("/etc/x/lowport.toml".into()),
        text: text.into(),
        files: super::Files::OnDisk,
        app,
    });
    let mistakes = Mistakes::new(Arc::clone(&source));
    (parse(&source, &mistakes), mistakes)
}

/// What a text without mistakes means.
pub(super) fn parsed(text: &str) -> Config {
    parsed_with(text, None)
}

/// As [`parsed`], with an app on the command line.
pub(super) fn parsed_with(text: &str, app: Option<AppArgs>) -> Config {
    let (config, mistakes) = read_with(text, app);
    assert!(mistakes.is_empty(), "{text}\n{mistakes}");
    config
}

/// What is said about a text.
pub(super) fn mistakes(text: &str) -> String {
    read(text).1.to_string()
}

/// `config/lowport.toml`, which names every key.
const REFERENCE: &str = include_str!("../../config/lowport.toml");

/// The reference with every example and default in force: lines such as `# key = value` and `# [table]`.
fn uncommented() -> String {
    let code = |line: &&str| {
        let key = line.split(" = ").next().unwrap_or_default();
        let key = line.contains(" = ")
            && key
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase());
        key || line.starts_with('[') && line.ends_with(']')
    };
    let lines = REFERENCE.lines();
    let each = |line| match str::strip_prefix(line, "# ") {
        Some(rest) if code(&rest) => rest,
        _ => line,
    };
    lines.map(each).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_file_of_the_folder_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let source = load(Some(&path), None).unwrap();
        let mistakes = Mistakes::new(Arc::clone(&source));
        let config = parse(&source, &mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
        assert!(!config.routes.is_empty());
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn the_reference_names_every_key_of_every_table_and_their_defaults() {
    let as_it_stands = parsed(REFERENCE).server.http;
    assert_eq!(as_it_stands[0].addr.to_string(), "127.0.0.1:8080");
    let whole = uncommented();
    let config = parsed(&whole);
    assert_eq!(config.routes.len(), 5);
    for known in keys::ALL.iter().filter(|known| !known.is_top()) {
        let header = known.header.replace("NAME", "api");
        let line = format!("\n{header}\n");
        let mut sections = whole.split(&line).skip(1).peekable();
        assert!(
            sections.peek().is_some(),
            "{header} is not in the reference"
        );
        let sections: String = sections
            .map(|section| section.split("\n[").next().unwrap_or_default())
            .collect();
        for key in known
            .keys
            .iter()
            .filter(|key| !["limits", "timeouts"].contains(key))
        {
            let there = sections
                .lines()
                .any(|line| line.starts_with(&format!("{key} = ")));
            assert!(there, "{key} of {header} is not in the reference");
        }
    }
    let bare = parsed("[[route]]\nto = \"http://127.0.0.1:3000\"\n");
    assert_eq!(config.limits, bare.limits);
    assert_eq!(config.timeouts, bare.timeouts);
    assert_eq!(config.log, bare.log);
    assert_eq!(config.server.user.name, bare.server.user.name);
    assert_eq!(
        config.server.redirect_to_https,
        bare.server.redirect_to_https
    );
    assert_eq!(config.server.https[0].addr.port(), 443);
    assert!(matches!(&config.routes[1].path, PathMatch::Prefix(path) if path == "/api"));
}

/// A file in which `key` of `known` has a value that no key takes.
fn with_nonsense(known: &Known, key: &str) -> String {
    let header = known.header.replace("NAME", "x");
    let before = match known.header {
        "[route.limits]" | "[route.timeouts]" => "[[route]]\nto = \"a:1\"\n",
        _ => "",
    };
    let with = match key {
        "status" | "content_type" => "respond = \"\"\n",
        _ => "",
    };
    format!("{before}{header}\n{with}{key} = 1979-05-27\n")
}

#[test]
fn every_known_key_is_read() {
    for known in keys::ALL {
        for key in known.keys {
            let told = mistakes(&with_nonsense(known, key));
            assert!(
                told.contains("this is a date"),
                "{key} of {}: {told}",
                known.header
            );
        }
    }
}

/// A file with a mistake of each kind.
const BAD: &str = include_str!("tests/bad.toml");

/// What is said about it. When a text is made better, `cargo test` prints the new one.
const TOLD: &str = include_str!("tests/bad.txt");

#[test]
fn a_bad_file_is_told_all_of_its_mistakes_with_places_and_remedies() {
    let told = mistakes(BAD);
    assert!(told == TOLD, "{told}");
}

#[test]
fn where_it_is_no_toml_only_that_and_what_is_certain_is_told() {
    const REST: &str = "[[route]]\nto = \"http://127.0.0.1:3000\"\n";
    for (text, count, said) in [
        (
            "[[route]]\nhost = example.com\nto = \"a:1\"",
            1,
            "put it in \"quotes\"",
        ),
        ("[[route]]\nto =", 1, "there is no value"),
        ("[[route]]\nto = 127.0.0.1:3000", 1, "put it in \"quotes\""),
        ("[[route]]\nto \"a:1\"", 1, "key = \"value\""),
        ("[[route]\nto = \"a:1\"", 1, "unclosed array table"),
        (
            "[[route]]\npath_regex = \"\\d\"\nto = \"a:1\"",
            1,
            "'single quotes'",
        ),
        (
            "[server]\nhttp = [\":80\"\nuser = \"x\"\n[[route]]\nto = \"a:1\"",
            1,
            "a `]` or a `,`",
        ),
        (
            "[server]\nuser = \"a\"\nuser = \"b\"\n[[route]]\nto = \"a:1\"",
            1,
            "keep one of the two",
        ),
        (
            "[upstream.a\npeers = \"a:1\"\n[[route]]\nupstream = \"a\"",
            1,
            "unclosed table",
        ),
        (
            "[[route]]\nto = \"a:1\n[limits]\nrequest_body = \"64m\"",
            2,
            "write \"64MiB\"",
        ),
        (
            "location / {\n  proxy_pass http://127.0.0.1;\n}",
            3,
            "key = \"value\"",
        ),
    ] {
        let (config, mistakes) = read(text);
        let told = mistakes.to_string();
        assert!(
            told.contains(said) && told.contains("not valid TOML"),
            "{text}\n{told}"
        );
        assert_eq!(mistakes.len(), count, "{text}\n{told}");
        assert!(config.routes.is_empty(), "later stages would find echoes");
    }
    parsed(&REST.replace('\n', "\r\n"));
    parsed(&format!("\u{feff}{REST}"));
    assert_eq!(read(&"?\n".repeat(1000)).1.len(), 20);
}

#[test]
fn nothing_to_serve_shows_what_to_write() {
    for (text, said) in [
        ("", "[[route]]\n         to = \"http://127.0.0.1:3000\""),
        (
            "[upstream.a]\npeers = \"a:1\"",
            "[[route]]\n         upstream = \"a\"",
        ),
        ("[[routes]]\nto = \"a:1\"", "did you mean [[route]]?"),
    ] {
        let told = mistakes(text);
        assert!(told.contains(said), "{told}");
        assert!(told.ends_with("1 mistake\n"), "{told}");
    }
}

#[test]
fn no_beginning_of_the_reference_and_no_change_of_it_panics() {
    let whole = uncommented();
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let (_, mistakes) = read(&whole[..end]);
        // Telling them takes longer than finding them.
        if end % 16 == 0 {
            let _ = mistakes.to_string();
        }
    }
    // A linear congruential generator: the same bytes in every run.
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    const BYTES: &[u8] = b"\"'[]{}=.,#\n\r\t\\ax0_-+: \0\x7f\xc3\xa9\xff";
    for _ in 0..500 {
        let mut bytes = whole.as_bytes().to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            let byte = BYTES[random(BYTES.len())];
            match random(3) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.drain(at..(at + random(40)).min(bytes.len()))),
            }
        }
        let _ = read(&String::from_utf8_lossy(&bytes)).1.to_string();
    }
    for deep in ["a.", "[", "{a=", "[[a.", "a=["] {
        let _ = read(&deep.repeat(20_000)).1.to_string();
    }
    for length in 0..300 {
        let bytes: Vec<u8> = (0..length).map(|_| BYTES[random(BYTES.len())]).collect();
        let _ = read(&String::from_utf8_lossy(&bytes)).1.to_string();
    }
}
