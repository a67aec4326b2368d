//! `lowport manpage`

use std::io;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{failed, tell};

/// What the options do not tell: sections of terms and what they mean.
const SECTIONS: [(&str, &[(&str, &str)]); 4] = [
    (
        "EXIT STATUS",
        &[
            ("0", "Done. Of \"audit\": nothing is to be done."),
            (
                "1",
                "Failed while running. Of \"audit\": something was found.",
            ),
            ("2", "The arguments make no sense."),
            (
                "78",
                "The configuration is missing or has mistakes; nothing was bound.",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "Reload the configuration and the certificates, as when one of these files changes. A bad file changes nothing \
                 and says so; no request and no tunnel is dropped.",
            ),
            (
                "SIGTERM, SIGQUIT",
                "Drain: what is in flight may finish within \"timeouts.drain\". A second one stops at once.",
            ),
            ("SIGINT", "Stop at once."),
            ("SIGUSR1", "Reopen the access log."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
                "Sockets that are passed by a service manager, matched with the configuration by their addresses, else by the \
                 names \"http\" and \"https\".",
            ),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC",
                "Where a service manager is told how it goes, see sd_notify(3).",
            ),
            ("RUST_LOG", "What is logged; goes before \"-v\"."),
            ("NO_COLOR", "If set, nothing is coloured."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "lowport.toml",
                "The configuration, in the current folder. \"lowport schema\" prints its JSON Schema.",
            ),
            (
                "/etc/lowport/lowport.toml",
                "The configuration where there is none in the current folder.",
            ),
        ],
    ),
];

pub(super) fn run() -> Result<ExitCode, ExitCode> {
    let page = page().map_err(failed)?;
    tell(String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}

/// lowport(1), with all subcommands in it.
fn page() -> io::Result<Vec<u8>> {
    let mut command = super::Args::command().disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).title("LOWPORT").manual("lowport");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    page.extend(roff.to_roff().into_bytes());
    for subcommand in command.get_subcommands() {
        commands(subcommand, &mut page)?;
    }
    let mut roff = Roff::new();
    for (title, entries) in SECTIONS {
        roff.control("SH", [title]);
        for (term, meaning) in entries {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*meaning)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        roman("systemd.socket(5), sd_notify(3), "),
        roman(env!("CARGO_PKG_REPOSITORY")),
    ]);
    page.extend(roff.to_roff().into_bytes());
    Ok(page)
}

/// A subcommand, and those below it.
fn commands(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let mut own = command
        .clone()
        // What all of them take is told once.
        .mut_args(|arg| match arg.get_id().as_str() {
            "help" | "version" | "verbose" => arg.hide(true),
            _ => arg,
        });
    let usage = own.render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SS", [usage.trim_start_matches("Usage: ")]);
    for line in own.get_about().iter().map(ToString::to_string) {
        roff.text([roman(line)]);
    }
    page.extend(roff.to_roff().into_bytes());
    let mut options = Vec::new();
    Man::new(own).render_options_section(&mut options)?;
    let options = String::from_utf8_lossy(&options);
    // As a part of the command's section and not as a section of its own.
    if let Some((_, options)) = options.split_once(".SH OPTIONS\n") {
        page.extend(options.as_bytes());
    }
    for subcommand in command.get_subcommands() {
        commands(subcommand, page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_every_option_of_its_own_is_told_once() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        let command = super::super::Args::command();
        for subcommand in command.get_subcommands() {
            let header = format!(".SS \"lowport {}", subcommand.get_name());
            assert!(page.contains(&header), "{header} in {page}");
            for arg in subcommand.get_arguments() {
                if let Some(long) = arg.get_long() {
                    let long = format!("\\-\\-{}", long.replace('-', "\\-"));
                    assert!(page.contains(&long), "{long} in {page}");
                }
            }
        }
        assert_eq!(page.matches("\\-\\-verbose").count(), 2, "{page}");
        for (title, _) in SECTIONS {
            assert!(page.contains(title), "{title} in {page}");
        }
    }
}
