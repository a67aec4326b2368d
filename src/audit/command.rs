//! What a command line runs: Node, something else, and as whom.

/// Programs that are Node, or start it.
const NODE: &[&str] = &[
    "node",
    "nodejs",
    "npm",
    "npx",
    "yarn",
    "yarnpkg",
    "pnpm",
    "pnpx",
    "corepack",
    "pm2",
    "pm2-runtime",
    "pm2-docker",
    "pm2-dev",
    "forever",
    "nodemon",
    "next",
    "nest",
    "nuxt",
    "nuxi",
    "remix-serve",
    "react-router-serve",
    "fastify",
    "strapi",
    "vite",
    "astro",
    "tsx",
    "ts-node",
    "ts-node-dev",
];
/// Programs that run the rest of their line and change nothing that matters here.
const WRAPPERS: &[&str] = &[
    "env",
    "exec",
    "nohup",
    "nice",
    "ionice",
    "tini",
    "dumb-init",
    "catatonit",
    "time",
    "stdbuf",
    "command",
    "setsid",
    "unbuffer",
    "docker-entrypoint.sh",
    "dotenv",
    "dotenvx",
    "doppler",
    "cross-env",
];
const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "zsh"];
/// Lines within lines, such as `sh -c 'sh -c ...'`, followed this far.
const MAX_NESTING: usize = 4;

/// What a command line runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Runs {
    /// Node, or a program that starts it
    Node {
        /// Whom the line becomes first, by `gosu node` and the like
        becomes: Option<String>,
    },
    /// lowport, which then sees to it itself
    Lowport,
    /// Something else, or what cannot be told
    Other,
}

impl Runs {
    pub(super) fn is_node(&self) -> bool {
        matches!(self, Self::Node { .. })
    }
}

/// What a line for a shell runs, of all its parts.
pub(super) fn shell(script: &str) -> Runs {
    script_at(script, None, 0)
}

/// What a program with its arguments runs.
pub(super) fn exec(words: &[String]) -> Runs {
    exec_at(words, None, 0)
}

/// The parts of a line for a shell, between `&&`, `;`, `|` and the like, each as words without their quotes.
pub(super) fn parts(script: &str) -> Vec<Vec<String>> {
    let mut parts = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = script.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None | Some('"'), '\\') => {
                if let Some(next) = characters.next().filter(|next| *next != '\n') {
                    word.get_or_insert_default().push(next);
                }
            }
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(character);
            }
            (None, '&' | ';' | '|' | '\n' | '(' | ')') => {
                last(&mut parts).extend(word.take());
                parts.push(Vec::new());
            }
            (None, _) if character.is_whitespace() => last(&mut parts).extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    last(&mut parts).extend(word);
    parts.retain(|part| !part.is_empty());
    parts
}

fn last(parts: &mut Vec<Vec<String>>) -> &mut Vec<String> {
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let end = parts.len() - 1;
    &mut parts[end]
}

/// The file's name, which is what a program is known by.
pub(super) fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Whether a process or a program of this name is Node itself.
pub(super) fn is_node_binary(program: &str) -> bool {
    matches!(base_name(program), "node" | "nodejs")
}

fn script_at(script: &str, becomes: Option<&str>, depth: usize) -> Runs {
    let mut runs = Runs::Other;
    for part in parts(script) {
        match exec_at(&part, becomes, depth) {
            Runs::Other => {}
            Runs::Lowport => return Runs::Lowport,
            node @ Runs::Node { .. } => runs = node,
        }
    }
    runs
}

fn exec_at(words: &[String], becomes: Option<&str>, depth: usize) -> Runs {
    if depth > MAX_NESTING {
        return Runs::Other;
    }
    let mut words = words;
    let mut becomes = becomes.map(str::to_owned);
    while let Some((program, rest)) = words.split_first() {
        let name = base_name(program);
        if is_assignment(program) {
            words = rest;
        } else if name == "lowport" {
            return Runs::Lowport;
        } else if is_node_program(program) {
            return Runs::Node { becomes };
        } else if SHELLS.contains(&name) {
            let script = rest
                .iter()
                .skip_while(|word| !is_shell_c(word))
                .nth(1)
                .map(String::as_str);
            return script.map_or(Runs::Other, |script| {
                script_at(script, becomes.as_deref(), depth + 1)
            });
        } else if WRAPPERS.contains(&name) {
            words = skip_options(rest, &["-n", "-u", "-s", "-i"]);
        } else if let Some((user, rest)) = switch(name, rest) {
            becomes = user.or(becomes);
            match rest {
                Switched::Words(rest) => words = rest,
                Switched::Script(script) => {
                    return script_at(script, becomes.as_deref(), depth + 1);
                }
            }
        } else {
            return Runs::Other;
        }
    }
    Runs::Other
}

fn is_node_program(program: &str) -> bool {
    let script = [".js", ".mjs", ".cjs"]
        .iter()
        .any(|ending| program.ends_with(ending));
    NODE.contains(&base_name(program)) || script || program.contains("node_modules/.bin/")
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// `-c`, also among others, as in `-ec`.
fn is_shell_c(word: &str) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word.ends_with('c')
}

/// The words after the options; those of `valued` take the next word along.
fn skip_options<'a>(words: &'a [String], valued: &[&str]) -> &'a [String] {
    let mut words = words;
    while let Some((word, rest)) = words.split_first() {
        if word == "--" {
            return rest;
        }
        if !word.starts_with('-') {
            break;
        }
        let takes = valued.contains(&word.as_str()) && !rest.is_empty();
        words = if takes { &rest[1..] } else { rest };
    }
    words
}

enum Switched<'a> {
    Words(&'a [String]),
    Script(&'a str),
}

/// Programs that become another user: whom, and what they run then.
fn switch<'a>(name: &str, rest: &'a [String]) -> Option<(Option<String>, Switched<'a>)> {
    match name {
        "gosu" | "su-exec" | "s6-setuidgid" | "setuidgid" | "chpst" => {
            let rest = skip_options(rest, &[]);
            let (user, rest) = rest.split_first()?;
            Some((Some(user.clone()), Switched::Words(rest)))
        }
        "sudo" | "runuser" | "setpriv" | "doas" => {
            let valued = &["-u", "-g", "--user", "--group", "--reuid", "--regid", "-C"];
            let program = skip_options(rest, valued);
            // What follows the program is the program's.
            let options = &rest[..rest.len() - program.len()];
            let user = option(options, &["-u", "--user", "--reuid"]).unwrap_or("root");
            Some((Some(user.to_owned()), Switched::Words(program)))
        }
        "su" => {
            let script = option(rest, &["-c", "--command"])?;
            let user = rest
                .iter()
                .find(|word| !word.starts_with('-') && *word != script);
            Some((user.cloned(), Switched::Script(script)))
        }
        "authbind" => Some((None, Switched::Words(skip_options(rest, &[])))),
        _ => None,
    }
}

/// The value of an option, as its next word or after `=`.
fn option<'a>(words: &'a [String], names: &[&str]) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(at, word)| {
        if names.contains(&word.as_str()) {
            return words.get(at + 1).map(String::as_str);
        }
        let (name, value) = word.split_once('=')?;
        names.contains(&name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(becomes: Option<&str>) -> Runs {
        Runs::Node {
            becomes: becomes.map(str::to_owned),
        }
    }

    #[test]
    fn node_is_found_however_it_is_started() {
        for line in [
            "node server.js",
            "/usr/local/bin/node --enable-source-maps dist/main.js",
            "/usr/bin/env node server.js",
            "env -i PORT=80 node x",
            "PORT=80 NODE_ENV=production npm start",
            "npm run build && npm start",
            "cd /app; exec node .",
            "sh -c 'npm ci && next start'",
            "bash -ec \"node x\"",
            "tini -- node x",
            "dumb-init node x",
            "/app/node_modules/.bin/nest start",
            "./server.js",
            "pm2-runtime start ecosystem.config.js",
            "authbind --deep node x",
        ] {
            assert_eq!(shell(line), node(None), "{line}");
        }
    }

    #[test]
    fn whom_it_becomes_is_found() {
        for (line, user) in [
            ("gosu node node x", "node"),
            ("su-exec app:app npm start", "app:app"),
            ("sudo node x", "root"),
            ("sudo -E -u app node x", "app"),
            ("sudo node x -u app", "root"),
            ("runuser -u app -- node x", "app"),
            ("setpriv --reuid=1000 --clear-groups node x", "1000"),
            ("su app -s /bin/sh -c 'node x'", "app"),
            ("sh -c 'chown -R node . && gosu node node x'", "node"),
        ] {
            assert_eq!(shell(line), node(Some(user)), "{line}");
        }
    }

    #[test]
    fn other_programs_are_not_node() {
        for line in [
            "",
            "nginx -g 'daemon off;'",
            "echo node",
            "/usr/bin/prometheus-node-exporter",
            "sh",
            "sh -c",
            "sudo",
            "gosu",
            "su",
            "'unclosed node",
            "&& ||",
            "python3 node.py",
        ] {
            assert_eq!(shell(line), Runs::Other, "{line}");
        }
        assert_eq!(shell("/usr/bin/lowport run -- node x"), Runs::Lowport);
        let nested = (0..99).fold(String::new(), |line, _| format!("sh -c sudo {line}"));
        assert_eq!(shell(&nested), Runs::Other);
    }

    /// A line of a megabyte takes no time that grows with its square.
    #[test]
    fn long_lines_come_to_an_end() {
        let started = std::time::Instant::now();
        for unit in [
            "sudo ",
            "env ",
            "A=b ",
            "su -c ",
            "gosu a ",
            "sh -c '",
            "a; ",
            "setpriv --reuid=1 ",
        ] {
            let _ = shell(&unit.repeat((1 << 20) / unit.len()));
        }
        let took = started.elapsed();
        assert!(took < std::time::Duration::from_secs(20), "{took:?}");
    }

    #[test]
    fn quotes_and_operators_part_a_line() {
        assert_eq!(
            parts("a 'b c' \"d\\\"e\" f\\ g && h;i||''"),
            [
                vec!["a", "b c", "d\"e", "f g"],
                vec!["h"],
                vec!["i"],
                vec![""]
            ]
        );
    }
}
