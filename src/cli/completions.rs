//! `lowport completions`

use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};
use clap_complete::generate;
use clap_complete::shells;

use super::tell;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For which shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    /// Put it into /usr/share/bash-completion/completions/lowport
    Bash,
    /// Put it into a folder of $fpath, as _lowport
    Zsh,
    /// Put it into ~/.config/fish/completions/lowport.fish
    Fish,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    let mut command = super::Args::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    match args.shell {
        Shell::Bash => generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, name, &mut script),
    }
    tell(String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
