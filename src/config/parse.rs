//! From text to meaning.

use std::sync::Arc;

use super::app::AppTable;
use super::keys;
use super::limits::{limits, timeouts};
use super::reader::Reader;
use super::route::route;
use super::server::{certificates, log, sandbox, server};
use super::table::Table;
use super::upstream::Upstreams;
use super::{
    Action, Config, HostMatch, Limits, Mistake, Mistakes, PathMatch, Route, Source, Timeouts,
};

/// The shortest useful file.
pub(super) const SHORTEST: &str = "[[route]]\nto = \"http://127.0.0.1:3000\"\n";

/// Reads the whole of `source` and adds every mistake to `mistakes`.
///
/// What is returned may only be used when there are none: a value with a mistake is replaced by its default, a route
/// with one is left out.
pub fn parse(source: &Arc<Source>, mistakes: &Mistakes) -> Config {
    let (reader, root) = Reader::new(source, mistakes);
    let top = Table::top(&reader, &root);
    let (certificates, any_certificate) = certificates(&top);
    let server = server(&top, any_certificate);
    let (limits, timeouts) = (limits(&top), timeouts(&top));
    let app = AppTable::read(&top, source.app.as_ref());
    let mut upstreams = Upstreams::read(&top, app.as_ref());
    let routes = routes(&top, &mut upstreams, &limits, &timeouts);
    upstreams.loops(&reader, &server);
    let config = Config {
        server,
        log: log(&top),
        sandbox: sandbox(&top),
        limits,
        timeouts,
        certificates,
        app: app.and_then(|app| app.app(upstreams.apps())),
        upstreams: upstreams.list,
        routes,
    };
    match reader.is_broken() {
        // Later stages would only find echoes.
        true => Config {
            certificates: Vec::new(),
            routes: Vec::new(),
            ..config
        },
        false => config,
    }
}

fn routes(
    top: &Table<'_>,
    upstreams: &mut Upstreams,
    limits: &Limits,
    timeouts: &Timeouts,
) -> Vec<Route> {
    if top.has("route") {
        let tables = top.tables("route", &keys::ROUTE);
        return tables
            .iter()
            .filter_map(|table| route(table, upstreams, limits, timeouts))
            .collect();
    }
    match upstreams.app {
        Some(index) => vec![Route {
            host: HostMatch::Any,
            path: PathMatch::Any,
            methods: Vec::new(),
            action: Action::Proxy(index),
            strip_prefix: None,
            limits: limits.clone(),
            timeouts: timeouts.clone(),
            span: upstreams.list[index].span.clone(),
        }],
        None => {
            let example = match upstreams.list.first() {
                Some(first) => format!("[[route]]\nupstream = \"{}\"", first.name),
                None => SHORTEST.trim_end().to_owned(),
            };
            let mistake = Mistake::new(None, "there is nothing to serve");
            let help = format!("add\n{example}");
            top.missing_one(&["route", "app"], mistake.help(help));
            Vec::new()
        }
    }
}
