//! `lowport run`

use std::process::ExitCode;

use super::ConfigArg;
use crate::app::{self, Boot};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    Ok(app::run(Boot {
        source: args.config.load()?,
        dev: false,
        app_ca: None,
        on_ready: Box::new(|| {}),
    }))
}
