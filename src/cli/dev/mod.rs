//! `lowport dev`

mod plan;
mod ports;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Owner, command, failed, tell};
use crate::app::{self, Boot};
use crate::child::{Found, find_app};
use crate::config::Source;
use crate::init::label;
use crate::tls::DevCa;
use plan::Plan;
use ports::{Choice, Ports};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the app
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Print the TOML that this amounts to, and start nothing
    #[arg(long)]
    print_config: bool,
    /// Leave Landlock and seccomp off, to find out whether they are in the way
    #[arg(long)]
    no_sandbox: bool,
    /// How to start the app, where its folder does not tell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    command::check(&args.command, std::env::args_os())?;
    let dir = args
        .dir
        .canonicalize()
        .map_err(|error| failed(format_args!("{}: {error}", args.dir.display())))?;
    let found = match args.command.as_slice() {
        [] => find_app(&dir).map_err(failed)?,
        command => Found {
            command: command.to_vec(),
            source: command.join(" "),
        },
    };
    let owner = Owner::invoking().map_err(failed)?;
    let folder = owner.data_folder().map_err(failed)?;
    let host = host(&dir);
    owner
        .act(|| {
            let ca = DevCa::open(&folder).map_err(|error| error.to_string())?;
            ca.leaves(&host)
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .map_err(failed)?;
    let ports =
        Ports::choose().map_err(|error| failed(format_args!("no port is free: {error}")))?;
    let plan = Plan {
        dir,
        command: found.command,
        proxy_user: owner.proxy_user(),
        app_user: owner.app_user().map_err(failed)?,
        leaves: DevCa::leaves_in(&folder, &host),
        ports,
    };
    let toml = plan.toml();
    if args.print_config {
        tell(toml)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ca = DevCa::path_in(&folder);
    let greeting = greeting(&plan, &host, &found.source, &ca);
    Ok(app::run(Boot {
        source: Source::of_text("<dev>", toml),
        dev: true,
        sandbox: !args.no_sandbox,
        app_ca: Some(ca),
        // An output that nobody reads any more is no reason to end.
        on_ready: Box::new(move || drop(std::io::stdout().write_all(greeting.as_bytes()))),
    }))
}

/// The app's own name below localhost, which browsers resolve by themselves: `shop.localhost` for the folder `shop`.
fn host(dir: &std::path::Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let label = label(&name).unwrap_or_else(|| "app".to_owned());
    format!("{label}.localhost")
}

/// What a person sees when everything listens.
fn greeting(plan: &Plan, host: &str, source: &str, ca: &std::path::Path) -> String {
    let mut text = String::from("\n");
    let url = |scheme: &str, port: u16, usual: u16| match port {
        port if port == usual => format!("{scheme}://localhost"),
        port => format!("{scheme}://localhost:{port}"),
    };
    let Ports { https, http, app } = &plan.ports;
    let _ = writeln!(
        text,
        "  {}  (and https://{host}{})",
        url("https", https.port, 443),
        match https.port {
            443 => String::new(),
            port => format!(":{port}"),
        }
    );
    let _ = writeln!(
        text,
        "  {}  (redirects to https)",
        url("http", http.port, 80)
    );
    let who = plan
        .app_user
        .as_deref()
        .map(|user| format!(" as {user}"))
        .unwrap_or_default();
    let _ = writeln!(text, "\n  app: {source}, on port {app}{who}");
    let mut reasons: Vec<&String> = [https, http]
        .into_iter()
        .filter_map(|Choice { why, .. }| why.as_ref())
        .collect();
    reasons.dedup();
    for why in reasons {
        let _ = writeln!(text, "  {why}");
    }
    let _ = writeln!(
        text,
        "  Browsers warn until they trust {}: `lowport cert trust` tells how",
        ca.display()
    );
    text.push('\n');
    text
}
