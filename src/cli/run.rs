//! `lowport run`

use std::process::ExitCode;

use tracing::warn;

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
    let loaded = args.config.load()?;
    if let Some(note) = loaded.note {
        warn!("{note}");
    }
    Ok(app::run(Boot {
        source: loaded.source,
        dev: false,
        sandbox: !args.no_sandbox,
        app_ca: None,
        on_ready: Box::new(|| {}),
    }))
}
