//! `lowport run`

use std::process::ExitCode;

use super::ConfigArg;
use crate::app::{self, Boot};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Leave Landlock and seccomp off, to find out whether they are in the way
    #[arg(long)]
    no_sandbox: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    Ok(app::run(Boot {
        source: args.config.load()?,
        dev: false,
        sandbox: !args.no_sandbox,
        app_ca: None,
        on_ready: Box::new(|| {}),
    }))
}
