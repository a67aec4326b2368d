//! `[[route]]`

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::limits;
use super::table::{Placed, Table};
use super::upstream::Upstreams;
use super::values::{self, Wrong};
use super::{Action, HostMatch, Limits, Mistake, PathMatch, Route, Timeouts};

/// What a route may do; it does one of these.
const ACTIONS: [&str; 4] = ["upstream", "to", "redirect", "respond"];

/// Which paths a route may match; it matches by one of these at most.
const PATHS: [&str; 3] = ["path", "path_exact", "path_regex"];

/// Reads one route. `None` when it has a mistake: what it would match then is not what was meant.
pub(super) fn route(
    table: &Table<'_>,
    upstreams: &mut Upstreams,
    limits: &Limits,
    timeouts: &Timeouts,
) -> Option<Route> {
    let before = table.reader.count();
    let host = table.parsed("host", values::host);
    let path = path(table);
    let strip_prefix = strip_prefix(table, path.as_ref());
    let methods = methods(table);
    let limits = limits::route_limits(table, limits);
    let timeouts = limits::route_timeouts(table, timeouts);
    let route = Route {
        host: host.map_or(HostMatch::Any, |host| host.value),
        path: path.unwrap_or(PathMatch::Any),
        methods,
        action: action(table, upstreams)?,
        strip_prefix,
        limits,
        timeouts,
        span: table.span.clone(),
    };
    (table.reader.count() == before).then_some(route)
}

/// `None` when there is a mistake in it.
fn path(table: &Table<'_>) -> Option<PathMatch> {
    at_most_one(table, &PATHS, "a route matches paths in one way");
    let prefix = table.parsed("path", values::prefix);
    let exact = table.parsed("path_exact", values::exact);
    let regex = table.parsed("path_regex", values::regex);
    match (prefix, exact, regex) {
        (Some(path), _, _) if path.value.is_empty() => Some(PathMatch::Any),
        (Some(path), _, _) => Some(PathMatch::Prefix(path.value)),
        (_, Some(path), _) => Some(PathMatch::Exact(path.value)),
        (_, _, Some(regex)) => Some(regex.value),
        _ => (!PATHS.iter().any(|key| table.has(key))).then_some(PathMatch::Any),
    }
}

fn methods(table: &Table<'_>) -> Vec<http::Method> {
    let Some(list) = table.list("methods", values::method) else {
        return Vec::new();
    };
    if table.is_empty_list("methods") {
        let mistake = Mistake::new(table.value("methods"), "this route would match no method");
        table
            .reader
            .push(mistake.help("leave `methods` out: then all methods match"));
    }
    list.into_iter().map(|method| method.value).collect()
}

fn strip_prefix(table: &Table<'_>, path: Option<&PathMatch>) -> Option<String> {
    let Placed { value, span } = table.parsed("strip_prefix", values::prefix)?;
    let below = |path: &str| {
        path.strip_prefix(value.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let fits = match path {
        Some(PathMatch::Any) => false,
        Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) => below(path),
        // Which paths an expression matches is not known; those not below the prefix are forwarded as they are.
        Some(PathMatch::Regex(_)) | None => true,
    };
    if value.is_empty() {
        let wrong = Wrong::new("every path begins with this", "take it out");
        table.wrong("strip_prefix", span, wrong);
    } else if !fits && !PATHS.iter().any(|key| table.has(key)) {
        let help = format!("write path = \"{value}\" too");
        let wrong = Wrong::new("this route matches other paths as well", help);
        table.wrong("strip_prefix", span, wrong);
    } else if !fits {
        let shown = PATHS.iter().find_map(|key| table.value(key));
        let message = "`strip_prefix` is not a prefix of this route's path";
        table.reader.push(
            Mistake::new(Some(span), message)
                .other(shown, "the path")
                .help(
                    "it takes whole segments off the front: \"/api\" leaves \"/x\" of \"/api/x\"",
                ),
        );
    }
    Some(value)
}

fn action(table: &Table<'_>, upstreams: &mut Upstreams) -> Option<Action> {
    at_most_one(table, &ACTIONS, "a route does one thing");
    let action = match ACTIONS.into_iter().find(|key| table.has(key)) {
        Some("upstream") => {
            let name = table.text("upstream")?;
            Action::Proxy(upstreams.named(table.reader, &name)?)
        }
        Some("to") => {
            let to = table.parsed("to", |text| match values::peer(text) {
                Ok(peer) => Ok((text, peer)),
                Err(_) if upstreams.list.iter().any(|upstream| upstream.name == text) => {
                    let help = format!("write upstream = \"{text}\"");
                    Err(Wrong::new("this is the name of an upstream", help))
                }
                Err(wrong) => Err(wrong),
            })?;
            Action::Proxy(upstreams.to(to))
        }
        Some("redirect") => {
            let status = status(table, &[301, 302, 303, 307, 308], 308);
            let location = table.parsed("redirect", location)?.value;
            Action::Redirect { location, status }
        }
        Some(_) => {
            let (status, content_type) = (status(table, &[], 200), content_type(table));
            let body = table.text("respond")?.value;
            Action::Respond {
                status,
                body: Bytes::copy_from_slice(body.as_bytes()),
                content_type,
            }
        }
        None => {
            let mistake = Mistake::new(table.span.clone(), "this route does nothing");
            let help = "add `to`, `upstream`, `redirect` or `respond` to it";
            table.missing_one(&ACTIONS, mistake.help(help));
            return None;
        }
    };
    let useless: &[&str] = match action {
        Action::Proxy(_) => &["status", "content_type"],
        Action::Redirect { .. } => &["content_type", "strip_prefix"],
        Action::Respond { .. } => &["strip_prefix"],
    };
    for key in useless.iter().filter(|key| table.has(key)) {
        let home = match *key {
            "strip_prefix" => "it goes with `to` and `upstream`",
            "content_type" => "it goes with `respond`",
            _ => "it goes with `redirect` and `respond`",
        };
        let message = format!("`{key}` has no use in this route");
        table
            .reader
            .push(Mistake::new(table.key(key), message).help(home));
    }
    Some(action)
}

/// Reports all but the first of keys that exclude each other.
fn at_most_one(table: &Table<'_>, keys: &[&str], message: &str) {
    let mut spans: Vec<_> = keys.iter().filter_map(|key| table.key(key)).collect();
    spans.sort_by_key(|span| span.start);
    let mut spans = spans.into_iter();
    let first = spans.next();
    for span in spans {
        table.reader.push(
            Mistake::new(Some(span), message)
                .label("one too many")
                .other(first.clone(), "there is this already")
                .help("keep one of them; write another [[route]] for the other"),
        );
    }
}

/// A `Location`: an absolute URL or an absolute path, with `{path}` and `{host}` in it.
fn location(text: &str) -> Result<String, Wrong> {
    const HELP: &str = "write \"https://www.example.com{path}\" or \"/new\"";
    let absolute = ["http://", "https://", "/"]
        .iter()
        .any(|start| text.starts_with(start));
    if !absolute || text.starts_with("//") {
        return Err(Wrong::new("this is neither a URL nor a path", HELP));
    }
    // A header value may hold more than ASCII; a URL may not.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Wrong::new(
            "a URL holds no spaces and no letters beyond ASCII",
            HELP,
        ));
    }
    if let Some(at) = text.find("/{path}") {
        let help = format!("write \"{}\"", text.replacen("/{path}", "{path}", 1));
        let why = format!(
            "`{{path}}` begins with `/`: {}// would come of it",
            &text[..at]
        );
        return Err(Wrong::new(why, help));
    }
    let rest = text.replace("{path}", "").replace("{host}", "");
    if rest.contains(['{', '}']) {
        return Err(Wrong::new("only `{path}` and `{host}` are filled in", HELP));
    }
    let authority = rest.split_once("://").map(|(_, rest)| rest);
    if authority.is_some_and(|rest| rest.is_empty()) && !text.contains("{host}") {
        return Err(Wrong::new("the host is missing", HELP));
    }
    Ok(text.to_owned())
}

/// The key `status`: one of `allowed`, or 200 to 599 when that is empty.
fn status(table: &Table<'_>, allowed: &[u64], default: u16) -> StatusCode {
    let range = if allowed.is_empty() {
        200..=599
    } else {
        0..=u64::MAX
    };
    let code = table
        .number("status", range)
        .and_then(|Placed { value, span }| {
            if !allowed.is_empty() && !allowed.contains(&value) {
                let list: Vec<String> = allowed.iter().map(u64::to_string).collect();
                let why = format!("a redirect is one of {}", list.join(", "));
                table.wrong("status", span, Wrong::new(why, ""));
                return None;
            }
            u16::try_from(value).ok()
        });
    StatusCode::from_u16(code.unwrap_or(default)).unwrap_or_default()
}

fn content_type(table: &Table<'_>) -> HeaderValue {
    let value = table.parsed("content_type", |text| {
        let media = text.split(';').next().unwrap_or(text);
        HeaderValue::from_str(text)
            .ok()
            .filter(|_| {
                media
                    .split_once('/')
                    .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
            })
            .ok_or_else(|| {
                Wrong::new(
                    "this is no media type",
                    "write \"text/html; charset=utf-8\"",
                )
            })
    });
    value.map_or(
        HeaderValue::from_static("text/plain; charset=utf-8"),
        |value| value.value,
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mistakes, parsed};
    use super::*;

    fn one(text: &str) -> Route {
        let mut config = parsed(&format!("[[route]]\n{text}\n"));
        config.routes.remove(0)
    }

    #[test]
    fn paths_match_in_one_way() {
        let to = "to = \"a:1\"";
        assert!(matches!(one(to).path, PathMatch::Any));
        assert!(matches!(
            one(&format!("path = \"/\"\n{to}")).path,
            PathMatch::Any
        ));
        let path = |text: &str| one(&format!("{text}\n{to}")).path;
        assert!(matches!(path("path = \"/a/\""), PathMatch::Prefix(path) if path == "/a"));
        assert!(matches!(path("path_exact = \"/a/\""), PathMatch::Exact(path) if path == "/a/"));
        assert!(matches!(path("path_regex = \"/a+\""), PathMatch::Regex(re) if re.is_match("/aa")));
    }

    #[test]
    fn actions() {
        let route = one("redirect = \"https://www.example.com{path}\"");
        let Action::Redirect { location, status } = route.action else {
            panic!("a redirect")
        };
        assert_eq!(
            (location.as_str(), status.as_u16()),
            ("https://www.example.com{path}", 308)
        );
        let route = one("redirect = \"https://{host}/x\"\nstatus = 302");
        assert!(matches!(route.action, Action::Redirect { status, .. } if status == 302));
        let route = one("respond = \"hello\"");
        let Action::Respond {
            status,
            body,
            content_type,
        } = route.action
        else {
            panic!("a response")
        };
        assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
        assert_eq!(content_type, "text/plain; charset=utf-8");
        let route = one("respond = \"\"\nstatus = 204\ncontent_type = \"text/html\"");
        assert!(matches!(route.action, Action::Respond { status, .. } if status == 204));
    }

    #[test]
    fn conditions() {
        let route = one(
            "host = \"*.Example.com\"\npath = \"/api/v1\"\nmethods = \"GET\"\nstrip_prefix = \"/api/\"\nto = \"a:1\"",
        );
        assert_eq!(route.host, HostMatch::Wildcard("example.com".into()));
        assert_eq!(route.methods, [http::Method::GET]);
        assert_eq!(route.strip_prefix.as_deref(), Some("/api"));
        assert!(route.span.is_some());
        one("path_regex = \"/[a-z]+/x\"\nstrip_prefix = \"/a\"\nto = \"a:1\"");
        one("path_exact = \"/a/b\"\nstrip_prefix = \"/a\"\nto = \"a:1\"");
    }

    #[test]
    fn mistakes_of_routes() {
        for (text, said) in [
            ("host = \"a.example\"", "this route does nothing"),
            ("to = \"a:1\"\nrespond = \"x\"", "a route does one thing"),
            (
                "to = \"a:1\"\npath = \"/a\"\npath_exact = \"/a\"",
                "matches paths in one way",
            ),
            ("to = \"a:1\"\nmethods = []", "no method"),
            (
                "to = \"a:1\"\nhost = [\"a.example\"]",
                "only one is taken here",
            ),
            (
                "to = \"a:1\"\nstatus = 200",
                "`status` has no use in this route",
            ),
            (
                "respond = \"x\"\npath = \"/a\"\nstrip_prefix = \"/a\"",
                "`strip_prefix` has no use",
            ),
            (
                "redirect = \"/x\"\ncontent_type = \"text/html\"",
                "it goes with `respond`",
            ),
            (
                "redirect = \"/x\"\nstatus = 200",
                "one of 301, 302, 303, 307, 308",
            ),
            ("redirect = \"www.example.com\"", "neither a URL nor a path"),
            (
                "redirect = \"//www.example.com\"",
                "neither a URL nor a path",
            ),
            ("redirect = \"{path}\"", "neither a URL nor a path"),
            (
                "redirect = \"https://a/{path}\"",
                "write \"https://a{path}\"",
            ),
            (
                "redirect = \"https://a/{query}\"",
                "only `{path}` and `{host}`",
            ),
            ("redirect = \"https://\"", "the host is missing"),
            ("redirect = \"/a b\"", "no spaces"),
            ("respond = \"x\"\nstatus = 199", "must be 200 to 599"),
            ("respond = \"x\"\ncontent_type = \"html\"", "no media type"),
            (
                "to = \"a:1\"\npath = \"a\"\nstrip_prefix = \"/a\"",
                "a path begins with `/`",
            ),
            (
                "to = \"a:1\"\nstrip_prefix = \"/a\"",
                "write path = \"/a\" too",
            ),
            (
                "to = \"a:1\"\npath = \"/a\"\nstrip_prefix = \"/\"",
                "every path begins",
            ),
            (
                "to = \"a:1\"\npath = \"/ab\"\nstrip_prefix = \"/a\"",
                "is not a prefix of",
            ),
            (
                "to = \"a:1\"\npath = \"/a\"\nstrip_prefix = \"/a/b\"",
                "is not a prefix of",
            ),
            ("upstream = \"ap\"", "did you mean \"app\"?"),
            ("upstream = \"other\"", "there are \"app\""),
            ("upstream = \"a:1\"", "write to = \"a:1\""),
            ("upstraem = \"app\"", "did you mean `upstream`?"),
            ("to = \"app\"", "write upstream = \"app\""),
        ] {
            let told = mistakes(&format!(
                "[upstream.app]\npeers = \"b:1\"\n[[route]]\n{text}\n"
            ));
            assert!(told.contains(said), "{text}: {told}");
            assert!(told.ends_with("1 mistake\n"), "{text}: {told}");
        }
        let told = mistakes("[route]\nto = \"a:1\"\n");
        assert!(told.contains("must be written as [[route]]"), "{told}");
        assert!(told.ends_with("1 mistake\n"), "{told}");
    }
}
