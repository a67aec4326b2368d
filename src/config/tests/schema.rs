//! The JSON Schema in `config/`: it knows the same keys and defaults as the code, and is never stricter.

use std::fmt::Write as _;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use super::super::keys::{self, Known};
use super::{REFERENCE, parsed, read, uncommented};

const SCHEMA: &str = include_str!("../../../config/lowport.schema.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// The schema of a table's keys, by its header.
fn properties<'a>(schema: &'a Value, header: &str) -> &'a Map<String, Value> {
    let top = &schema["properties"];
    let table = match header {
        "" => schema,
        "[[certificate]]" => &top["certificate"]["items"],
        "[[route]]" => &top["route"]["items"],
        "[upstream.NAME]" => &schema["definitions"]["upstream"],
        "[route.limits]" => &top["route"]["items"]["properties"]["limits"],
        "[route.timeouts]" => &top["route"]["items"]["properties"]["timeouts"],
        header => &top[header.trim_matches(['[', ']'])],
    };
    assert_eq!(table["additionalProperties"], false, "{header}");
    table["properties"].as_object().unwrap()
}

#[test]
fn the_schema_has_the_keys_that_there_are_and_tells_what_each_is_for() {
    let schema = schema();
    for Known { header, keys } in keys::ALL {
        let properties = properties(&schema, header);
        let mut known: Vec<&str> = keys.to_vec();
        let mut described: Vec<&str> = properties.keys().map(String::as_str).collect();
        known.sort_unstable();
        described.sort_unstable();
        assert_eq!(described, known, "{header}");
        for (key, property) in properties {
            let text = property["description"].as_str().unwrap_or_default();
            assert!(text.ends_with('.'), "{key} of {header}: {text:?}");
        }
    }
}

#[test]
fn the_schemas_defaults_are_those_of_the_code() {
    let schema = schema();
    let mut text = String::new();
    let mut count = 0;
    for header in ["[server]", "[log]", "[sandbox]", "[limits]", "[timeouts]"] {
        writeln!(text, "{header}").unwrap();
        for (key, property) in properties(&schema, header) {
            // What is written in JSON here is TOML, too.
            if let Some(default) = property.get("default") {
                writeln!(text, "{key} = {default}").unwrap();
                count += 1;
            }
        }
    }
    assert!(count > 30, "{text}");
    const ROUTE: &str = "[[route]]\nrespond = \"\"\n";
    let (written, bare) = (parsed(&format!("{text}{ROUTE}")), parsed(ROUTE));
    assert_eq!(written.limits, bare.limits);
    assert_eq!(written.timeouts, bare.timeouts);
    assert_eq!(written.log, bare.log);
    assert_eq!(written.sandbox, bare.sandbox);
    let server = |server: &super::Config| {
        let server = &server.server;
        let addresses: Vec<_> = server.http.iter().map(|listener| listener.addr).collect();
        let flags = [
            server.redirect_to_https,
            server.proxy_protocol,
            server.splice,
        ];
        (
            addresses,
            flags,
            server.user.name.clone(),
            server.trusted_proxies.clone(),
        )
    };
    assert_eq!(server(&written), server(&bare));
    for (header, before, key) in [
        ("[app]", "[app]\ncommand = \"node\"\n", "port"),
        ("[app]", "[app]\ncommand = \"node\"\n", "sandbox"),
        (
            "[upstream.NAME]",
            "[upstream.a]\npeers = \"a:1\"\n",
            "expect_user",
        ),
        (
            "[upstream.NAME]",
            "[upstream.a]\npeers = \"a:1\"\n",
            "on_mismatch",
        ),
        (
            "[[route]]",
            "[[route]]\nrespond = \"\"\npath = \"/a\"\n",
            "content_type",
        ),
    ] {
        let default = &properties(&schema, header)[key]["default"];
        let shown = |more: &str| {
            let config = parsed(&format!("{before}{more}\n{ROUTE}"));
            let app = config.app.map(|app| (app.listens, app.sandbox));
            let upstream = config.upstreams.first();
            let upstream = upstream.map(|one| (one.expect_user.clone(), one.on_mismatch));
            format!("{app:?} {upstream:?} {:?}", config.routes[0].action)
        };
        assert_eq!(shown(&format!("{key} = {default}")), shown(""), "{key}");
    }
}

/// Reads a list of texts from standard input, and tells of each what is wrong with it by the schema.
const VALIDATE: &str = r#"
import json, sys, tomllib
from jsonschema import Draft7Validator
schema, texts = json.load(sys.stdin)
Draft7Validator.check_schema(schema)
validator = Draft7Validator(schema)
print(json.dumps([[e.message for e in validator.iter_errors(tomllib.loads(text))] for text in texts]))
"#;

/// What the schema says about each of `texts`; `None`, and it is said, where there is nothing to ask.
fn by_the_schema(test: &str, texts: &[String]) -> Option<Vec<Vec<String>>> {
    let python = |script: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    };
    let probe = python("import tomllib, jsonschema")
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        let line = format!(
            "\n*** NOT RUN: {test}: there is no python3 from 3.11 on with jsonschema (pip install jsonschema) ***\n"
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
        return None;
    }
    let mut child = python(VALIDATE).spawn().unwrap();
    let asked = json!([schema(), texts]).to_string();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(asked.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// What must be right by both.
const RIGHT: &[&str] = &[
    "server.http = []\nserver.https = ':443'\ncertificate = [{cert = 'a', key = 'b'}]\nroute = [{to = 'a:1'}]",
    "[server]\nhttp = ['[::1]:80', '127.0.0.1:8080', ':81']\nuser = 1000\nworkers = 1024\ntrusted_proxies = ['::1', '10.0.0.0/8']\nproxy_protocol = true\n[[route]]\nrespond = ''",
    "[server]\nuser = '65532:65532'\nsplice = false\n[log]\naccess = './a.log'\nformat = 'json'\n[[route]]\nrespond = ''\nstatus = 599",
    "[limits]\nrequest_head = 8192\nrequest_target = '60 kib'\nrequest_body = '1GB'\nrequest_body_rate = '500/s'\nrequest_rate = '1000000 / h'\nrequest_burst = 1\nmemory = '100%'\n[[route]]\nto = 'a:1'",
    "[limits]\nrequest_body = 0\nrequest_body_rate = '0'\nrequest_rate = 0\nrequest_burst = 5\nmemory = 4194304\nconnections = 0\n[[route]]\nto = 'a:1'",
    "[timeouts]\nhibernate = 0\ndrain = '24h'\nupstream_idle = '001 ms'\n[[route]]\nto = 'HTTP://App_1.Example:80'",
    "[sandbox]\nconnect = 3001\nbind = [1, '65535']\nread = '/a'\nallow_degraded = 'landlock'\n[[route]]\nto = 'https://[::1]'",
    "[upstream.app]\nexpect_user = 0\n[app]\ncommand = 'node'\nuser = 'www-data'\nport = 1",
    "[upstream.'a.b_c-1']\npeers = ['unix:/run/a.sock', 'h2c://grpc:50051', 'https://api.example']\nexpect_user = 'any'\non_mismatch = 'warn'\nca = 'a'\n[[route]]\nupstream = 'a.b_c-1'",
    "[[route]]\nhost = '*.Example.com.'\npath = '/%20;a=b'\nmethods = 'M-SEARCH'\nstrip_prefix = '/%20;a=b'\nto = '[::1]:3000'",
    "[[route]]\nhost = '[::1]'\npath_exact = '/*'\nredirect = '/new'\nstatus = 301\n[[route]]\npath_regex = '(?i)/a+'\nredirect = 'https://{host}{path}'",
    "[[route]]\npath = '/'\nrespond = '{}'\ncontent_type = 'application/json'\n[route.limits]\nrequest_burst = 5\n[limits]\nrequest_rate = '1/s'",
    "app = {command = ['node', '']}\nroute = [{upstream = 'app', limits = {}, timeouts = {tunnel_idle = '1m'}}]",
];

/// What must be wrong by both.
const WRONG: &[&str] = &[
    "workers = 2\n[[route]]\nto = 'a:1'",
    "[routes]\nto = 'a:1'",
    "[route]\nto = 'a:1'",
    "[[upstream]]\npeers = 'a:1'",
    "[server]\nhttps = ':443'\n[[route]]\nto = 'a:1'",
    "[server]\nproxy_protocol = true\n[[route]]\nto = 'a:1'",
    "[server]\nproxy_protocol = true\ntrusted_proxies = []\n[[route]]\nto = 'a:1'",
    "[limits]\nrequest_burst = 5\n[[route]]\nto = 'a:1'",
    "[[certificate]]\ncert = 'a'\n[[route]]\nto = 'a:1'",
    "[upstream.a]\n[[route]]\nupstream = 'a'",
    "[upstream.A]\npeers = 'a:1'\n[[route]]\nto = 'a:1'",
    "[[route]]\npath = '/a'",
    "[[route]]\nto = 'a:1'\nrespond = ''",
    "[[route]]\nto = 'a:1'\nupstream = 'app'\n[app]\ncommand = 'node'",
    "[[route]]\nto = 'a:1'\npath = '/a'\npath_exact = '/a'",
    "[[route]]\nto = 'a:1'\npath_regex = '/a'\npath_exact = '/a'",
    "[[route]]\nto = 'a:1'\npath_regex = '/a'\npath = '/a'",
    "[[route]]\nto = 'a:1'\nstatus = 200",
    "[[route]]\nredirect = '/a'\nstatus = 200",
    "[[route]]\nredirect = '/a'\ncontent_type = 'text/html'",
    "[[route]]\nredirect = '/a'\npath = '/b'\nstrip_prefix = '/b'",
    "[[route]]\nto = 'a:1'\nstrip_prefix = '/b'",
    "[[route]]\nto = 'a:1'\n[route.limits]\nconnections = 5",
    "[[route]]\nto = 'a:1'\n[route.timeouts]\ndrain = '1s'",
    "[app]\ncommand = []",
    "[app]\ncommand = 'node server.js'",
];

#[test]
fn what_is_right_and_what_is_wrong_is_so_by_the_schema_too() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|name| name == "toml"));
    let mut right: Vec<String> = files
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    assert!(right.iter().any(|text| text == REFERENCE));
    right.push(uncommented());
    right.extend(RIGHT.iter().map(|text| (*text).to_owned()));
    let mut wrong: Vec<String> = WRONG.iter().map(|text| (*text).to_owned()).collect();
    wrong.push(super::BAD.to_owned());
    for text in &right {
        parsed(text);
    }
    for text in &wrong {
        assert!(!read(text).1.is_empty(), "{text}");
    }
    let all = [right.as_slice(), &wrong].concat();
    let Some(told) = by_the_schema("what the schema takes", &all) else {
        return;
    };
    for (at, (text, errors)) in all.iter().zip(told).enumerate() {
        assert_eq!(errors.is_empty(), at < right.len(), "{text}\n{errors:?}");
    }
}

/// Values of every kind, some of which are right for some key.
const VALUES: &str = r#"0|1|7|80|100|301|1024|8192|65535|65536|4194304|10000001|-1|1.5|0x50|true|false|1979-05-27|[]|{}|[0]|[true]
'0'|'1'|'80'|'65536'|'16KiB'|'16 kib'|'16k'|'16KB/s'|'0B/s'|'1/s'|'0/s'|'10 / m'|'1/d'|'10s'|'0s'|'10 ms'|'25h'|'1d'|'50%'|'0%'|'101%'
''|'/'|'//'|'/a'|'/a/'|'/a*'|'/a?b'|'/a b'|'/é'|'a'|'a b'|'A'|'a.b'|'*'|'*.a'|'a.*'|'*.a.'|'-a'|'.'|'é'|'a/b'|'a/'|'/a\nb'
'a:1'|'a:0'|'a:'|':80'|':0'|'*:80'|'[::]:80'|'[::1]'|'::1'|'127.0.0.1:80'|'127.0.0.1'|'10.0.0.0/8'|'10.0.0.0/33'|'localhost:80'
'http://a'|'http://a:1'|'http://a:1/'|'https://a'|'HTTPS://A'|'h2c://a:1'|'ftp://a:1'|'unix:/a'|'unix://a'|'unix:a'|'https://'|'https://a/{path}'
'root'|'0:0'|'1000'|'1000:1000'|'a:b'|'not-root'|'any'|'refuse'|'warn'|'off'|'stdout'|'./a'|'json'|'combined'|'landlock'|'seccomp'
'GET'|'get'|'TRACE'|'CONNECT'|['GET', 'POST']|['get']|'text/html'|'text/'|'text'|['a:1', 'https://b']|['']|['node', 'a b']|['80', 81]|[':80', '[::1]:81']"#;

/// An editor that underlines what lowport takes is worse than one that knows nothing.
#[test]
fn the_schema_refuses_nothing_that_lowport_takes() {
    let mut texts = Vec::new();
    for known in keys::ALL.iter().filter(|known| !known.is_top()) {
        for key in known.keys {
            for value in VALUES.split(['|', '\n']) {
                // TOML's own escapes are taken in double quotes.
                let value = value.replace('\'', "\"");
                texts.push(with(known, key, &value));
            }
        }
    }
    let Some(told) = by_the_schema("whether the schema is too strict", &texts) else {
        return;
    };
    let (mut taken, mut both) = (0, 0);
    for (text, errors) in texts.iter().zip(told) {
        if read(text).1.is_empty() {
            taken += 1;
            assert!(errors.is_empty(), "{text}\n{errors:?}");
        } else if !errors.is_empty() {
            both += 1;
        }
    }
    // Ranges of sizes and times, and what is only wrong beside something else, a schema cannot tell.
    let refused = texts.len() - taken;
    assert!(
        taken > 300 && both * 10 > refused * 9,
        "{taken} taken, {both} of {refused} refused"
    );
}

/// A file in which everything but `key` of `known` is right.
fn with(known: &Known, key: &str, value: &str) -> String {
    let header = known.header.replace("NAME", "x");
    let line = format!("{key} = {value}\n");
    let route = "[[route]]\nto = \"a:1\"\n";
    match (known.header, key) {
        ("[[route]]", "to" | "redirect" | "respond" | "upstream") => {
            format!("[upstream.a]\npeers = \"a:1\"\n{header}\n{line}")
        }
        ("[[route]]", "status" | "content_type") => format!("{header}\nrespond = \"\"\n{line}"),
        ("[[route]]", "strip_prefix") => format!("{route}path_regex = \"/a\"\n{line}"),
        ("[[route]]", _) => format!("{route}{line}"),
        ("[route.limits]" | "[route.timeouts]", _) => {
            format!("[limits]\nrequest_rate = \"1/s\"\n{route}{header}\n{line}")
        }
        ("[[certificate]]", _) => {
            let other = if key == "cert" { "key" } else { "cert" };
            format!("{route}{header}\n{other} = \"a\"\n{line}")
        }
        ("[upstream.NAME]", "peers") => format!("{route}{header}\n{line}"),
        ("[upstream.NAME]", _) => format!("{route}{header}\npeers = \"https://a\"\n{line}"),
        ("[app]", "command") => format!("{route}{header}\n{line}"),
        ("[app]", _) => format!("{route}{header}\ncommand = \"node\"\n{line}"),
        ("[limits]", "request_burst") => {
            format!("{route}{header}\nrequest_rate = \"1/s\"\n{line}")
        }
        ("[server]", "proxy_protocol") => {
            format!("{route}{header}\ntrusted_proxies = \"::1\"\n{line}")
        }
        ("[server]", "https") => {
            format!("{route}[[certificate]]\ncert = \"a\"\nkey = \"a\"\n{header}\n{line}")
        }
        _ => format!("{route}{header}\n{line}"),
    }
}
