//! `lowport explain`

use std::fmt::Write;
use std::process::ExitCode;

use http::{Method, Uri};

use super::check::outcome;
use super::{ConfigArg, tell};
use crate::app::{EXIT_CONFIG, stderr_colors};
use crate::config::{self, Config, Mistakes, Source};
use crate::console;
use crate::http::{host, target};
use crate::route::RouteTable;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What a client asks for, such as `https://example.com/api/x`
    #[arg(value_name = "URL", value_parser = url)]
    url: Url,
    /// With which method
    #[arg(short = 'X', long, default_value = "GET", value_parser = method)]
    method: Method,
    #[command(flatten)]
    config: ConfigArg,
}

/// What is asked for.
#[derive(Debug, Clone)]
struct Url {
    plaintext: bool,
    /// As routes see it
    host: String,
    path: String,
}

/// `example.com/x` stands for `https://example.com/x`.
fn url(text: &str) -> Result<Url, String> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let uri: Uri = whole.parse().map_err(|error| format!("{error}"))?;
    let plaintext = match uri.scheme_str() {
        Some("http") => true,
        Some("https") => false,
        _ => return Err("only http:// and https:// are served".to_owned()),
    };
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let host = host::parse(authority.unwrap_or_default()).map_err(|_| "the host is not valid")?;
    Ok(Url {
        plaintext,
        host: host.name.into_owned(),
        path: uri.path().to_owned(),
    })
}

fn method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(format!("methods are upper case: {upper}"));
    }
    text.parse().map_err(|_| "this is no method".to_owned())
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    let source = args.config.load()?.source;
    let mistakes = Mistakes::new(source.clone());
    let config = config::parse(&source, &mistakes);
    let table = RouteTable::build(&config.routes, &mistakes);
    if !mistakes.is_empty() {
        console::err(mistakes.render(stderr_colors()));
        return Err(ExitCode::from(EXIT_CONFIG));
    }
    let text = explain(&source, &config, &table, &args.url, &args.method);
    tell(text)?;
    Ok(ExitCode::SUCCESS)
}

/// What comes of the request first, then why.
fn explain(
    source: &Source,
    config: &Config,
    table: &RouteTable,
    url: &Url,
    method: &Method,
) -> String {
    let mut text = String::new();
    if url.plaintext && config.server.redirect_to_https && !config.server.https.is_empty() {
        text.push_str(
            "Over plaintext it is redirected to https:// (server.redirect_to_https). Over TLS:\n\n",
        );
    }
    let found = table.find(&url.host, &url.path, method);
    let normal = target::normalise(&url.path);
    let two_ways = table.find(&url.host, &normal, method) != found;
    // Writing to a String cannot fail.
    let _ = if two_ways {
        writeln!(
            text,
            "-> 400: the path can also be read as {normal}, which takes another route; the app may read it so"
        )
    } else if let Some(index) = found {
        let route = &config.routes[index];
        let place = route.span.as_ref().map(|span| {
            let line = source.text[..span.start].matches('\n').count() + 1;
            format!("  ({}:{line})", source.name)
        });
        let place = place.unwrap_or_default();
        writeln!(text, "{}{place}", outcome(config, route))
    } else {
        writeln!(text, "-> 404")
    };
    let _ = writeln!(
        text,
        "\n{}{}",
        if two_ways { "As written, " } else { "" },
        table.explain(&config.routes, &url.host, &url.path, method)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_left_out_and_only_http_is_known() {
        let asked = url("Example.com:8443/x?y#z").unwrap();
        assert_eq!(
            (asked.host.as_str(), asked.path.as_str(), asked.plaintext),
            ("example.com", "/x", false)
        );
        assert!(url("http://example.com").unwrap().plaintext);
        for wrong in ["ftp://example.com/", "", "https://me@example.com/", "a b"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn methods_are_upper_case() {
        assert_eq!(method("PURGE").unwrap().as_str(), "PURGE");
        assert_eq!(method("get").unwrap_err(), "methods are upper case: GET");
        assert!(method("A B").is_err());
    }
}
