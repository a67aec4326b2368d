//! An app on the command line: `-- node server.js`, with or without a configuration.

use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use super::{EXIT_USAGE, Owner, failed};
use crate::config::AppArgs;
use crate::console;
use crate::privilege::{Mode, has_ipv6, remedy};

/// Where plaintext is listened for without a configuration, and where this user may not.
pub(super) const PORT: u16 = 80;
pub(super) const OTHER: u16 = 8080;

/// What the command line says of the app; `None` where it says nothing.
///
/// # Errors
/// What follows the dashes cannot be started.
pub(super) fn args(command: &[String]) -> Result<Option<AppArgs>, ExitCode> {
    check(command, std::env::args_os())?;
    if command.is_empty() {
        return Ok(None);
    }
    let dir = std::env::current_dir()
        .map_err(|error| failed(format_args!("the current folder is gone: {error}")))?;
    let owner = Owner::invoking().map_err(failed)?;
    Ok(Some(AppArgs {
        command: command.to_vec(),
        dir,
        user: owner.app_user_if_any(),
    }))
}

/// Reports what can be told of a command before anything else is looked at. `all` are all arguments of this process.
///
/// # Errors
/// There is none after the dashes, or it is none.
pub(super) fn check(
    command: &[String],
    all: impl Iterator<Item = impl AsRef<OsStr>>,
) -> Result<(), ExitCode> {
    let why = match command {
        [] if ends_with_dashes(all) => "there is no command after `--`",
        [program, ..] if program.is_empty() => "the command after `--` begins with nothing",
        // A path may have a space in it.
        [program] if program.contains(' ') && !program.contains('/') => {
            "the command after `--` is one word with spaces in it, and no shell reads it: leave its quotes out"
        }
        _ => return Ok(()),
    };
    console::err(format_args!(
        "error: {why}\nhelp: write -- node server.js\n"
    ));
    Err(ExitCode::from(EXIT_USAGE))
}

/// Whether the dashes that a command follows are the last word. Later ones are the command's own.
fn ends_with_dashes(all: impl Iterator<Item = impl AsRef<OsStr>>) -> bool {
    let mut after = all.skip_while(|word| word.as_ref() != "--");
    after.next().is_some() && after.next().is_none()
}

/// The configuration for an app without one: plaintext on port 80 for everybody, and as root a user who is not. Also why
/// it is another port, if it is.
pub(super) fn without_a_file() -> (String, Option<String>) {
    let mut text = String::from(
        "# What `lowport run -- COMMAND` takes for granted. The app is on the command line.\n[server]\n",
    );
    let note = (!may_listen()).then(|| {
        let v6 = if has_ipv6() {
            format!(", \"[::]:{OTHER}\"")
        } else {
            String::new()
        };
        text.push_str(&format!("http = [\"0.0.0.0:{OTHER}\"{v6}]\n"));
        format!(
            "port {PORT} is not open to this user, so it is {OTHER}. To have {PORT}: {}",
            remedy(PORT)
        )
    });
    if let Ok(Some(user)) = Owner::invoking().map(|owner| owner.proxy_user()) {
        text.push_str(&format!("user = \"{user}\"\n"));
    }
    (text, note)
}

/// Whether port 80 is for this user to bind. That somebody has it is another matter, and told later.
fn may_listen() -> bool {
    let passed = std::env::var_os("LISTEN_FDS").is_some();
    // A capability that is only permitted is raised by the look at the mode.
    if passed || Mode::of(passed) != Mode::Unprivileged {
        return true;
    }
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    !TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).is_err_and(|error| denied(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_dashes_can_lack_a_command() {
        let ends = |words: &[&str]| ends_with_dashes(words.iter());
        assert!(ends(&["lowport", "run", "--"]));
        assert!(!ends(&["lowport", "run"]));
        assert!(!ends(&["lowport", "run", "--", "node"]));
        assert!(!ends(&["lowport", "run", "--", "node", "--"]));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let fine = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            check(&words, ["lowport"].iter()).is_ok()
        };
        assert!(fine(&[]) && fine(&["node"]) && fine(&["node", "a b"]));
        assert!(fine(&["/opt/my app/run"]));
        assert!(!fine(&[""]) && !fine(&["", "x"]) && !fine(&["node server.js"]));
    }

    #[test]
    fn without_a_file_the_text_is_a_configuration_but_for_the_app() {
        let (text, note) = without_a_file();
        assert_eq!(text.contains("8080"), note.is_some());
        let source = crate::config::Source::of_text("t", text);
        let mistakes = crate::config::Mistakes::new(source.clone());
        crate::config::parse(&source, &mistakes);
        let told = mistakes.to_string();
        assert!(told.contains("there is nothing to serve"), "{told}");
        assert!(told.ends_with("1 mistake\n"), "{told}");
    }
}
