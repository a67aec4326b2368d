//! `lowport explain`

use std::process::ExitCode;

use http::{Method, Uri};

use super::ConfigArg;
use crate::app::{EXIT_CONFIG, stderr_colors};
use crate::config::{self, Config, Mistakes};
use crate::http::{host, target};
use crate::route::RouteTable;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What a client asks for, such as https://example.com/api/x
    #[arg(value_name = "URL", value_parser = url)]
    url: Uri,
    /// With which method
    #[arg(short = 'X', long, default_value = "GET")]
    method: Method,
    #[command(flatten)]
    config: ConfigArg,
}

/// `example.com/x` stands for `https://example.com/x`.
fn url(text: &str) -> Result<Uri, String> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let uri: Uri = whole.parse().map_err(|error| format!("{error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err("only http:// and https:// are served".to_owned()),
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    let source = args.config.load()?;
    let mistakes = Mistakes::new(source.clone());
    let config = config::parse(&source, &mistakes);
    let table = RouteTable::build(&config.routes, &mistakes);
    if !mistakes.is_empty() {
        eprint!("{}", mistakes.render(stderr_colors()));
        return Err(ExitCode::from(EXIT_CONFIG));
    }
    match explain(&config, &table, &args.url, &args.method) {
        Ok(text) => {
            print!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => Err(super::failed(format_args!("{}: {why}", args.url))),
    }
}

fn explain(
    config: &Config,
    table: &RouteTable,
    url: &Uri,
    method: &Method,
) -> Result<String, &'static str> {
    use std::fmt::Write;
    let request = http::Request::builder()
        .uri(url)
        .body(())
        .map_err(|_| "is no URL")?;
    let host = host::of(&request)?;
    let path = url.path();
    let mut text = String::new();
    let redirected = url.scheme_str() == Some("http") && config.server.redirect_to_https;
    if redirected && !config.server.https.is_empty() {
        let _ = writeln!(
            text,
            "Over plaintext it is redirected to https:// (server.redirect_to_https). Over TLS:\n"
        );
    }
    let _ = writeln!(
        text,
        "{}",
        table
            .explain(&config.routes, &host.name, path, method)
            .to_string()
            .trim_end()
    );
    let normal = target::normalise(path);
    if table.find(&host.name, path, method) != table.find(&host.name, &normal, method) {
        let _ = writeln!(
            text,
            "\nIt is refused all the same: read as {normal} it takes another route, and the app may read it so."
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_left_out_and_only_http_is_known() {
        assert_eq!(
            url("example.com/x").unwrap().to_string(),
            "https://example.com/x"
        );
        assert!(url("ftp://example.com/").is_err());
        assert!(url("").is_err());
    }
}
