//! `lowport audit`

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{EXIT_USAGE, tell};
use crate::audit::{self, Report};
use crate::console;

/// Something was found.
const EXIT_FOUND: u8 = 1;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folders and files to look through for Dockerfiles, Compose files, Kubernetes manifests, systemd units and
    /// package.json [default: the current folder]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Look at this running lowport, its helpers and its app, thread by thread, and at nothing else that is not named
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Leave out this machine's processes, programs and units, for files that another one will run
    #[arg(long)]
    no_host: bool,
    /// Print JSON: `instances`, each running lowport with the state of every thread; `findings`, an array of {severity,
    /// place, what, fix, rule}, in which "note" and "holds" are no findings
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    let mut report = Report::default();
    if let Some(pid) = args.pid {
        audit::instance(pid, &mut report)
            .map_err(|error| usage(format_args!("process {pid} cannot be looked at: {error}")))?;
    } else {
        if !args.no_host {
            audit::host(&mut report);
        }
        if args.paths.is_empty() {
            files(Path::new("."), &mut report)?;
        }
    }
    for path in &args.paths {
        files(path, &mut report)?;
    }
    let text = if args.json {
        format!("{:#}\n", report.json())
    } else {
        report.text(stdout_colors())
    };
    tell(text)?;
    if report.has_findings() {
        return Err(ExitCode::from(EXIT_FOUND));
    }
    Ok(ExitCode::SUCCESS)
}

fn files(path: &Path, report: &mut Report) -> Result<(), ExitCode> {
    audit::files(path, report).map_err(|error| usage(format_args!("{}: {error}", path.display())))
}

/// Says that what was asked for is not there.
fn usage(message: impl std::fmt::Display) -> ExitCode {
    console::err(format_args!("lowport: {message}\n"));
    ExitCode::from(EXIT_USAGE)
}

fn stdout_colors() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
