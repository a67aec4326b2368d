//! The command line: one file a subcommand.

mod audit;
mod cert;
mod check;
mod command;
mod completions;
mod dev;
mod explain;
mod health;
mod init;
mod manpage;
mod owner;
mod probe;
mod reach;
mod run;
mod schema;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgAction, Parser, Subcommand};

use crate::app::EXIT_CONFIG;
use crate::config::{self, LoadError, Source};
use crate::console;
use crate::observe::trace;
use crate::privilege;
use owner::Owner;

/// Exit code for arguments that make no sense, as clap has it.
const EXIT_USAGE: u8 = 2;

/// Holds ports 80 and 443 so that a Node app never has to be root.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, propagate_version = true)]
struct Args {
    /// Say more: -v for debug, -vv for trace. RUST_LOG has the last word
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve what a TOML file says, or just the app whose command follows `--`
    Run(run::Args),
    /// Serve the Node app in a folder on https://localhost, with no configuration at all
    Dev(dev::Args),
    /// Check everything that `run` would need, and print the table as it will be matched
    Check(check::Args),
    /// Tell which route a URL takes, and why not another
    Explain(explain::Args),
    /// Ask the lowport that runs whether it answers, as the health check of a container does
    Health(health::Args),
    /// Tell where Node is root on this machine, or would be, and what to do about it
    Audit(audit::Args),
    /// Write the files that put lowport before an app: an image, Compose, Swarm, Kubernetes, systemd, nftables
    Init(init::Args),
    /// The certificate authority of `dev`
    Cert(cert::Args),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print what a shell completes lowport's arguments by
    Completions(completions::Args),
    /// Print the manual page lowport(1)
    Manpage,
}

/// Which configuration a subcommand reads.
#[derive(Debug, clap::Args)]
struct ConfigArg {
    /// The configuration; `-` reads standard input [default: lowport.toml, then /etc/lowport/lowport.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to start the app, such as `-- node server.js`: instead of `command` in `[app]`, whose other keys stay. It is told
    /// in PORT where to listen. Without a configuration it gets all that arrives at port 80
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A configuration, and what to say about it.
struct Loaded {
    source: Arc<Source>,
    /// That it is not quite what one would expect
    note: Option<String>,
}

impl ConfigArg {
    /// Reads it, or says why not. With a command and without a file it makes one up.
    fn load(&self) -> Result<Loaded, ExitCode> {
        let app = command::args(&self.command)?;
        match (config::load(self.config.as_deref(), app.clone()), app) {
            (Ok(source), _) => Ok(Loaded { source, note: None }),
            (Err(LoadError::NotFound(_)), Some(app)) => {
                let (text, note) = command::without_a_file();
                let source = Source::of_app("<command line>", text, app);
                Ok(Loaded { source, note })
            }
            (Err(error), _) => {
                console::err(error);
                Err(ExitCode::from(EXIT_CONFIG))
            }
        }
    }
}

/// Parses the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    console::report_panics();
    if let Err(error) = privilege::heed_signals() {
        return failed(format_args!("cannot be stopped by signals: {error}"));
    }
    let args = Args::parse();
    trace::init(args.verbose);
    let done = match args.command {
        Command::Run(args) => run::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Cert(args) => cert::run(&args),
        Command::Schema => schema::run(),
        Command::Completions(args) => completions::run(&args),
        Command::Manpage => manpage::run(),
    };
    done.unwrap_or_else(|code| code)
}

/// Says what went wrong; the exit code for it.
fn failed(message: impl std::fmt::Display) -> ExitCode {
    console::err(format_args!("lowport: {message}\n"));
    ExitCode::FAILURE
}

/// Says what was asked for.
fn tell(text: impl std::fmt::Display) -> Result<(), ExitCode> {
    console::out(text)
        .map_err(|error| failed(format_args!("cannot write to standard output: {error}")))
}
