//! package.json: scripts that ask for root or for a low port.

use serde_json::Value;

use super::command::{self, Runs};
use super::dockerfile::is_root;
use super::finding::Severity;
use super::report::InFile;

/// More are not looked at: each costs a search for its line.
const MAX_SCRIPTS: usize = 1000;

/// Tells what is wrong with the scripts of a package.json.
pub(super) fn check(text: &str, out: &mut InFile<'_>) {
    let package: Value = match serde_json::from_str(text) {
        Ok(package) => package,
        Err(error) => {
            out.note(
                "package-unreadable",
                error.line(),
                format!("is no JSON: {error}"),
            );
            return;
        }
    };
    let Some(scripts) = package.get("scripts").and_then(Value::as_object) else {
        return;
    };
    if scripts.len() > MAX_SCRIPTS {
        let what = format!("has more than {MAX_SCRIPTS} scripts: the rest is not read");
        out.note("package-bound", None, what);
    }
    for (name, script) in scripts.iter().take(MAX_SCRIPTS) {
        if let Some(script) = script.as_str() {
            check_script(name, script, line(text, name), out);
        }
    }
}

fn check_script(name: &str, script: &str, line: Option<usize>, out: &mut InFile<'_>) {
    let parts = command::parts(script);
    let by_root = |part: &Vec<String>| matches!(command::exec(part), Runs::Node { becomes: Some(user) } if is_root(&user));
    if parts.iter().any(by_root) {
        out.found(
            "package-sudo",
            Severity::High,
            line,
            format!("script {name} runs node as root, through sudo"),
            "take sudo out, listen on a port from 1024 up, and let `lowport dev` or `lowport run` hold the low ports",
        );
    }
    let words = || parts.iter().flatten();
    let tool = words().find_map(|word| match command::base_name(word) {
        tool @ ("authbind" | "setcap") => Some(tool),
        _ => None,
    });
    if let Some(tool) = tool {
        out.found(
            "package-bind",
            Severity::Medium,
            line,
            format!("script {name} uses {tool}, so that node can take a low port itself"),
            "take it out, listen on a port from 1024 up, and let lowport hold 80 and 443",
        );
    }
    let node = |part: &&Vec<String>| command::exec(part).is_node();
    // `set PORT=80&& node x` is the same on Windows, `export PORT=80; node x` in a shell.
    let assigned = words().find_map(|word| word.strip_prefix("PORT=").and_then(low));
    let asked = || parts.iter().filter(node).find_map(|part| port_option(part));
    if let Some(port) = assigned.or_else(asked) {
        out.found(
            "package-port",
            Severity::Medium,
            line,
            format!("script {name} has node listen on port {port}, which takes privilege"),
            "listen on a port from 1024 up, and let lowport hold 80 and 443",
        );
    }
}

/// `--port 80`, `--port=80`, `-p 80`.
fn port_option(words: &[String]) -> Option<&str> {
    words.iter().enumerate().find_map(|(at, word)| {
        let value = match word.as_str() {
            "--port" | "-p" => words.get(at + 1)?.as_str(),
            other => other.strip_prefix("--port=")?,
        };
        low(value)
    })
}

/// A port that takes privilege, as it is written.
fn low(text: &str) -> Option<&str> {
    let text = text.trim();
    text.parse()
        .is_ok_and(|port: u16| (1..1024).contains(&port))
        .then_some(text)
}

/// The line of a script, by its name after the word `scripts`.
fn line(text: &str, name: &str) -> Option<usize> {
    let scripts = text.find("\"scripts\"")?;
    let key = serde_json::to_string(name).ok()?;
    let mut from = scripts;
    while let Some(at) = text[from..].find(&key) {
        let end = from + at + key.len();
        if text[end..].trim_start().starts_with(':') {
            return Some(text[..end].lines().count());
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let mut report = Report::default();
        check(text, &mut report.file("package.json".as_ref()));
        super::super::testing::told(&report)
    }

    #[test]
    fn scripts_that_ask_for_more_are_found() {
        for (script, expected) in [
            ("sudo node server.js", &["high 4 package-sudo"][..]),
            (
                "npm run build && sudo -E npm start",
                &["high 4 package-sudo"],
            ),
            (
                "sudo PORT=80 node x",
                &["high 4 package-sudo", "medium 4 package-port"],
            ),
            ("PORT=80 node x", &["medium 4 package-port"]),
            ("cross-env PORT=443 next start", &["medium 4 package-port"]),
            ("set PORT=80&& node x", &["medium 4 package-port"]),
            ("next start -p 80", &["medium 4 package-port"]),
            ("vite --port=443", &["medium 4 package-port"]),
            ("authbind --deep node x", &["medium 4 package-bind"]),
            (
                "sudo setcap cap_net_bind_service=+ep $(which node)",
                &["medium 4 package-bind"],
            ),
            ("PORT=3000 node x", &[]),
            ("next start -p 8080", &[]),
            ("ssh -p 80 host", &[]),
            ("sudo systemctl restart app", &[]),
            ("sudo -u app node x", &[]),
        ] {
            let script = serde_json::to_string(script).unwrap();
            let text = format!(
                "{{\n  \"name\": \"start\",\n  \"scripts\": {{\n    \"start\": {script}\n  }}\n}}\n"
            );
            assert_eq!(told(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_package_is_no_error() {
        for text in [
            "[]",
            "{}",
            "{\"scripts\": []}",
            "{\"scripts\": {\"a\": 1}}",
            "1",
        ] {
            assert_eq!(told(text), [] as [&str; 0], "{text}");
        }
        assert_eq!(told("{\n"), ["note 2 package-unreadable"]);
        assert!(told(&"[".repeat(1 << 20))[0].starts_with("note"));
    }
}
