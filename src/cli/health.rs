//! `lowport health`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri};

use super::probe::{Probe, Target};
use super::reach::reach;
use super::{command, failed, tell};
use crate::app::{EXIT_CONFIG, stderr_colors};
use crate::config::{self, AppArgs, Config, LoadError, Mistakes, Server, Source};
use crate::console;

/// Asks lowport itself, at the first address of its configuration: it answers without its upstreams, whatever its routes
/// are. Any answer that is not 5xx is healthy. Sockets that were passed to lowport are those of the same addresses.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to ask for instead (GET), which may be the app's: an answer that is 2xx or 3xx is healthy
    #[arg(value_name = "URL", value_parser = url)]
    url: Option<Uri>,
    /// The configuration that tells where lowport listens; `-` reads standard input [default: as `run` has it]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also whether each upstream has a peer that takes connections: whether this lowport is of any use by now
    #[arg(long, conflicts_with = "url")]
    upstreams: bool,
    /// For how long to wait for an answer, and for the upstreams: such as 500ms
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = config::time)]
    timeout: Duration,
}

fn url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err("a URL begins with http:// or https://".to_owned()),
    }
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    match authority.contains('@') {
        true => Err("a URL with a user in it is not asked for".to_owned()),
        false => Ok(uri),
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    match &args.url {
        Some(url) => of_url(url, args),
        None => of_lowport(args),
    }
}

/// Whether something answers well.
fn of_url(url: &Uri, args: &Args) -> Result<ExitCode, ExitCode> {
    // Only whether lowport expects to be told whose the connection is: without a configuration it does not.
    let server = match (&args.config, Known::found(args.config.as_deref())) {
        (Some(_), Err(error)) => return Err(unread(error)),
        (_, known) => known.ok().map(|known| known.config.server),
    };
    let tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let introduces = |local: IpAddr| {
        server.is_some_and(|server| {
            let mut listeners = server.http.iter().chain(&server.https);
            listeners.any(|listener| listener.addr.port() == port) && server.introduces(local)
        })
    };
    let authority = url.authority().map_or("", http::uri::Authority::as_str);
    let name = url.host().unwrap_or_default();
    let probe = Probe {
        target: Target::Name(name.trim_matches(['[', ']']).to_owned(), port),
        tls,
        introduces,
        method: Method::GET,
        path,
        host: authority,
    };
    match probe.answer(args.timeout) {
        Ok(answer) if answer.status.is_success() || answer.status.is_redirection() => {
            tell(format_args!("healthy: {url} answered {}\n", answer.status))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(answer) => Err(unhealthy(format_args!("{url} {answer}"))),
        Err(why) => Err(unhealthy(why)),
    }
}

/// Whether lowport itself answers.
fn of_lowport(args: &Args) -> Result<ExitCode, ExitCode> {
    let Known { config, mistakes } = match Known::found(args.config.as_deref()) {
        Err(LoadError::NotFound(_)) if args.upstreams => {
            return Err(failed(
                "--upstreams takes a configuration: without one it is not known where they are",
            ));
        }
        Err(LoadError::NotFound(_)) => return of_command_line(args.timeout),
        known => known.map_err(unread)?,
    };
    // There is one, or it is a mistake that there is none.
    let (addr, tls) = asked(&config.server).ok_or_else(|| wrong(mistakes.as_ref()))?;
    let introduces = |local| config.server.introduces(local);
    match (ask(addr, tls, introduces, args.timeout), &mistakes) {
        (Ok(()), None) => {
            if args.upstreams {
                reach(&config.upstreams, args.timeout).map_err(unhealthy)?;
            }
            healthy(addr, "")
        }
        // It serves what it read before. Were it ended for that, it would not come back.
        (Ok(()), Some(_)) => healthy(
            addr,
            ", but could not be started with the configuration as it is now: `lowport check` tells why",
        ),
        (Err(why), None) => Err(unhealthy(why)),
        (Err(_), Some(_)) => Err(wrong(mistakes.as_ref())),
    }
}

/// Whether a lowport answers that was started with a command and no configuration. Which of its two ports it could have, is
/// not tried out: it may be about to take it.
fn of_command_line(timeout: Duration) -> Result<ExitCode, ExitCode> {
    let mut why = Vec::new();
    for port in [command::PORT, command::OTHER] {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match ask(addr, false, |_| false, timeout) {
            Ok(()) => return healthy(addr, ""),
            Err(error) => why.push(error),
        }
    }
    let why = why.join("; ");
    Err(unhealthy(format_args!("{why}; there is no configuration")))
}

/// Asks lowport itself, or says why it is not well.
fn ask(
    addr: SocketAddr,
    tls: bool,
    introduces: impl FnOnce(IpAddr) -> bool,
    timeout: Duration,
) -> Result<(), String> {
    let probe = Probe {
        target: Target::Addr(addr),
        tls,
        introduces,
        method: Method::OPTIONS,
        path: "*",
        host: "localhost",
    };
    let answer = probe.answer(timeout)?;
    match answer.status.is_server_error() {
        true => Err(format!("{addr} {answer}")),
        false => Ok(()),
    }
}

fn healthy(addr: SocketAddr, note: &str) -> Result<ExitCode, ExitCode> {
    tell(format_args!("healthy: lowport answers on {addr}{note}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn unhealthy(why: impl std::fmt::Display) -> ExitCode {
    failed(format_args!("unhealthy: {why}"))
}

/// Reports why there is no configuration.
fn unread(error: LoadError) -> ExitCode {
    console::err(error);
    ExitCode::from(EXIT_CONFIG)
}

/// Reports what is wrong with a configuration.
fn wrong(mistakes: Option<&Mistakes>) -> ExitCode {
    if let Some(mistakes) = mistakes {
        console::err(mistakes.render(stderr_colors()));
    }
    ExitCode::from(EXIT_CONFIG)
}

/// The address to ask at, and whether TLS is spoken there. What stands for every address is asked at this machine's own.
fn asked(server: &Server) -> Option<(SocketAddr, bool)> {
    let plaintext = server.http.first().map(|listener| (listener, false));
    let (listener, tls) =
        plaintext.or_else(|| server.https.first().map(|listener| (listener, true)))?;
    let mut addr = listener.addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some((addr, tls))
}

/// A configuration, as far as it could be read.
struct Known {
    config: Config,
    /// `None` where there are none
    mistakes: Option<Mistakes>,
}

impl Known {
    /// As `run` finds it.
    fn found(path: Option<&Path>) -> Result<Self, LoadError> {
        Ok(Self::of(&config::load(path, None)?))
    }

    fn of(source: &Arc<Source>) -> Self {
        let alone = Self::parse(source);
        if alone.mistakes.is_none() {
            return alone;
        }
        // The app may be on the command line of the one that runs, and not here.
        let app = AppArgs {
            command: vec!["app".to_owned()],
            dir: PathBuf::from("/"),
            user: None,
        };
        let with = Self::parse(&Source::of_app(
            source.name.clone(),
            source.text.clone(),
            app,
        ));
        if with.mistakes.is_none() { with } else { alone }
    }

    fn parse(source: &Arc<Source>) -> Self {
        let mistakes = Mistakes::new(Arc::clone(source));
        let config = config::parse(source, &mistakes);
        Self {
            config,
            mistakes: (!mistakes.is_empty()).then_some(mistakes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Known {
        Known::of(&Source::of_text("t", text))
    }

    #[test]
    fn the_first_plaintext_listener_is_asked_at_an_address_of_this_machine() {
        const TLS: &str = "[[certificate]]\ncert = \"no.pem\"\nkey = \"no.key\"\n";
        for (server, rest, expected) in [
            ("", "", "127.0.0.1:80 false"),
            ("", TLS, "127.0.0.1:80 false"),
            ("http = \":8080\"", "", "127.0.0.1:8080 false"),
            ("http = \"[::]:8080\"", "", "[::1]:8080 false"),
            ("http = [\"10.1.2.3:81\", \":80\"]", "", "10.1.2.3:81 false"),
            ("http = []", TLS, "127.0.0.1:443 true"),
            ("http = []\nhttps = \"[::]:8443\"", TLS, "[::1]:8443 true"),
        ] {
            let text = format!("[server]\n{server}\n{rest}[[route]]\nrespond = \"x\"\n");
            let known = known(&text);
            assert!(known.mistakes.is_none(), "{text}");
            let (addr, tls) = asked(&known.config.server).unwrap();
            assert_eq!(format!("{addr} {tls}"), expected);
        }
    }

    #[test]
    fn an_app_on_the_command_line_is_no_mistake_here() {
        assert!(known("[server]\nhttp = \":81\"\n").mistakes.is_none());
        assert!(known("[app]\nport = 4000\n").mistakes.is_none());
        let wrong = known("[app]\nprt = 4000\n");
        assert!(wrong.mistakes.unwrap().to_string().contains("prt"));
    }

    #[test]
    fn a_url_says_how_it_is_asked_for() {
        assert!(url("http://localhost:8080/health?x").is_ok());
        assert!(url("https://[::1]/").is_ok());
        for wrong in ["localhost", "/health", "ftp://a/", "http://me@a/", "a b"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
