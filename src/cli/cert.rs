//! `lowport cert`

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::{Owner, failed, tell};
use crate::console;
use crate::tls::{DevCa, trust_help};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Cert,
}

#[derive(Debug, clap::Subcommand)]
enum Cert {
    /// Explain how browsers, curl and Node come to trust the authority, or with --install make this machine trust it
    Trust {
        /// Put it into the system's store and, where certutil is there, into the browsers'
        #[arg(long)]
        install: bool,
    },
    /// Print where the authority's certificate is
    Path,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    let owner = Owner::invoking().map_err(failed)?;
    let folder = owner.data_folder().map_err(failed)?;
    owner
        .act(|| {
            DevCa::open(&folder)
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .map_err(failed)?;
    let ca = DevCa::path_in(&folder);
    match args.command {
        Cert::Path => tell(format_args!("{}\n", ca.display()))?,
        Cert::Trust { install: false } => tell(trust_help(&ca))?,
        Cert::Trust { install: true } => install(&ca, &owner)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where distributions keep authorities that the machine's owner added, and what makes them count.
const SYSTEM_STORES: [(&str, &str, &[&str]); 2] = [
    (
        "/usr/local/share/ca-certificates",
        "update-ca-certificates",
        &[],
    ),
    (
        "/etc/pki/ca-trust/source/anchors",
        "update-ca-trust",
        &["extract"],
    ),
];
const NAME: &str = "lowport-development-ca";

fn install(ca: &Path, owner: &Owner) -> Result<(), ExitCode> {
    let store = SYSTEM_STORES
        .iter()
        .find(|(folder, ..)| Path::new(folder).is_dir());
    let Some((folder, command, arguments)) = store else {
        return Err(failed(format_args!(
            "no system store is known here; by hand:\n\n{}",
            trust_help(ca)
        )));
    };
    let copy = Path::new(folder).join(NAME).with_extension("crt");
    std::fs::copy(ca, &copy).map_err(|error| {
        failed(format_args!(
            "cannot write {}: {error}\nRun `sudo lowport cert trust --install`.",
            copy.display()
        ))
    })?;
    let status = Command::new(command).args(*arguments).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(failed(format_args!(
            "{command} failed; {} is in place",
            copy.display()
        )));
    }
    tell(format_args!(
        "The system's store has it: {}\n",
        copy.display()
    ))?;
    browsers(ca, owner)?;
    tell(format_args!(
        "Node does not read the system's store: NODE_EXTRA_CA_CERTS={}\n",
        ca.display()
    ))
}

/// Chromium's store and Firefox's, which are the user's own. Done as the user, whose files they are.
fn browsers(ca: &Path, owner: &Owner) -> Result<(), ExitCode> {
    let stores: Vec<PathBuf> = owner.nss_stores();
    for store in &stores {
        let added = owner.act(|| {
            let status = Command::new("certutil")
                .args(["-A", "-t", "C,,", "-n", NAME, "-i"])
                .arg(ca)
                .arg("-d")
                .arg(format!("sql:{}", store.display()))
                .status();
            match status {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("certutil: {status}")),
                Err(error) => Err(format!("certutil (Debian: libnss3-tools): {error}")),
            }
        });
        match added {
            Ok(()) => tell(format_args!(
                "The browser store has it: {}\n",
                store.display()
            ))?,
            Err(error) => console::err(format_args!("lowport: {}: {error}\n", store.display())),
        }
    }
    if stores.is_empty() {
        tell("No browser store was found in the home folder.\n")?;
    }
    Ok(())
}
