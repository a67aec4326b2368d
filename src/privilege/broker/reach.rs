//! What the broker is left to do: a sandbox cannot be widened later, so it is made for what a reload may bring.

use std::fs;
use std::path::{Path, PathBuf};

use super::named;
use crate::config::{AccessLog, Config, ExpectUser, Mistake, Mistakes, Source};
use crate::privilege::needs::{Needs, Ports, Work};
use crate::privilege::user::PASSWD;

/// What a reload may always bring listeners on: they are what lowport is there for.
const PORTS: [u16; 2] = [80, 443];
/// The states of processes. Of others' no more than everybody may see: Landlock denies what takes the right to trace them.
const PROC: &str = "/proc";
/// Folders with the secrets of too many others to be read whole for the sake of one file in them.
const TOO_WIDE: [&str; 10] = [
    "/", "/boot", "/dev", "/etc", "/home", "/root", "/run", "/sys", "/tmp", "/var",
];
/// Symbolic links that are followed; the kernel follows no more, either.
const LINKS: usize = 40;

/// What reading `source` and all that `config` names again takes, also after files and links have been replaced, and
/// binding the listeners that `config` has or lets come.
pub(super) fn needs(source: &Source, config: &Config, mistakes: &Mistakes) -> Needs {
    let mut read: Vec<PathBuf> = source.path.iter().flat_map(|path| places(path)).collect();
    read.extend(named(config).iter().flat_map(|path| places(path)));
    for (folder, span) in &config.sandbox.read {
        match fs::canonicalize(folder) {
            Ok(folder) => read.push(folder),
            Err(error) => mistakes.push(Mistake::new(
                span.clone(),
                format!("sandbox.read: {}: {error}", folder.display()),
            )),
        }
    }
    let write = match &config.log.access {
        AccessLog::File(path) => places(path),
        _ => Vec::new(),
    };
    // As far as it is there, and as long as it is the same file.
    read.extend(fs::canonicalize(PASSWD).ok());
    read.push(PROC.into());
    let ports = config.listeners().map(|(listener, _)| listener.addr.port());
    let ports = ports
        .chain(PORTS)
        .chain(config.sandbox.bind.iter().copied());
    Needs {
        work: Work::Answering,
        read: outermost(read),
        write: outermost(write),
        bind: ports.collect::<Ports>(),
        descriptors: true,
        ..Needs::default()
    }
}

/// Adds a mistake for each listener of `next` that a broker with `needs` cannot bind, unless it is among `bound` already.
pub(super) fn check_ports(
    needs: &Needs,
    next: &Config,
    bound: impl Fn(std::net::SocketAddr) -> bool,
    mistakes: &Mistakes,
) {
    for (listener, _) in next.listeners() {
        if !bound(listener.addr) && !needs.bind.contains(listener.addr.port()) {
            mistakes.push(
                Mistake::new(
                    listener.span.clone(),
                    format!("the sandbox does not let {} be bound", listener.addr),
                )
                .label("it was made for the listeners that were there at start")
                .help("restart lowport; ports that are to come later can be named in sandbox.bind"),
            );
        }
    }
}

/// What to do about a file that a broker with `needs` was denied.
pub(super) fn remedy(needs: &Needs) -> String {
    let places = needs.read.iter().chain(&needs.write);
    let places: Vec<_> = places.map(|place| place.display().to_string()).collect();
    format!(
        "the broker's sandbox reaches what was there at start, and not what has taken its place: {}. Restart lowport; folders \
         that files are to come from later can be named in sandbox.read",
        places.join(", ")
    )
}

/// Where the file at `path` may be when it has been replaced: the folder that it is named in, and those that symbolic
/// links lead to from there, as certbot and Kubernetes have them. Instead of a folder with too much in it, the file itself.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        let folder = match at.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => break,
        };
        let (Ok(folder), Some(name)) = (fs::canonicalize(folder), at.file_name()) else {
            break;
        };
        let file = folder.join(name);
        let narrow = TOO_WIDE.iter().all(|wide| folder != Path::new(wide));
        if narrow && !folder.starts_with(PROC) {
            places.push(folder.clone());
        }
        match fs::read_link(file) {
            Ok(target) => at = folder.join(target),
            Err(_) => break,
        }
    }
    // The file itself, where none of that is it: what is called /dev/stdout, say.
    let within = |real: &PathBuf| places.iter().any(|place| real.starts_with(place));
    let real = fs::canonicalize(path).ok();
    places.extend(real.filter(|real| !real.is_dir() && !within(real)));
    places
}

/// Without those that lie in others of them.
fn outermost(mut places: Vec<PathBuf>) -> Vec<PathBuf> {
    places.sort();
    places.dedup();
    let all = places.clone();
    places.retain(|place| {
        let within = |other: &&PathBuf| *other != place && place.starts_with(other);
        !all.iter().any(|other| within(&other))
    });
    places
}

/// The users whose numbers a configuration takes, each once.
pub(super) fn users(config: &Config) -> Vec<&str> {
    let names = config
        .upstreams
        .iter()
        .filter_map(|upstream| match &upstream.expect_user {
            ExpectUser::Name(name) => Some(name.as_str()),
            _ => None,
        });
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_file_is_followed_through_its_links_to_every_folder() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        // As certbot has it.
        let (live, archive) = (root.join("live/site"), root.join("archive/site"));
        fs::create_dir_all(&live).unwrap();
        fs::create_dir_all(&archive).unwrap();
        fs::write(archive.join("key1.pem"), "").unwrap();
        symlink("../../archive/site/key1.pem", live.join("key.pem")).unwrap();
        assert_eq!(places(&live.join("key.pem")), [live.clone(), archive]);
        // As Kubernetes has it: the folder that the link leads to is another one next time.
        let secret = root.join("secret");
        fs::create_dir_all(secret.join("..1")).unwrap();
        fs::write(secret.join("..1/tls.key"), "").unwrap();
        symlink("..1", secret.join("..data")).unwrap();
        symlink("..data/tls.key", secret.join("tls.key")).unwrap();
        let found = places(&secret.join("tls.key"));
        assert_eq!(found, [secret.clone(), secret.join("..1")]);
        assert_eq!(outermost(found), [secret]);
        // A circle has an end.
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert_eq!(outermost(places(&root.join("a"))), [root]);
    }

    #[test]
    fn a_folder_with_too_much_in_it_is_not_opened_for_one_file() {
        assert_eq!(places(Path::new("/etc/passwd")), [Path::new("/etc/passwd")]);
        assert!(places(Path::new("/no-such-file")).is_empty());
        assert!(places(Path::new("/")).is_empty());
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/etc/hosts", &link).unwrap();
        let folder = folder.path().canonicalize().unwrap();
        assert_eq!(places(&link), [folder, "/etc/hosts".into()]);
    }

    #[test]
    fn what_a_reload_may_bring_is_named_by_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().canonicalize().unwrap();
        for name in ["certs", "later", "logs"] {
            fs::create_dir(at.join(name)).unwrap();
        }
        fs::write(at.join("certs/a.pem"), "").unwrap();
        let text = "[server]\nhttp = \"127.0.0.1:8080\"\n[log]\naccess = \"./logs/access.log\"\n\
            [sandbox]\nbind = \"8443\"\nread = [\"later\", \"missing\"]\n\
            [[certificate]]\ncert = \"certs/a.pem\"\nkey = \"certs/a.key\"\n\
            [upstream.x]\npeers = \"127.0.0.1:1\"\nexpect_user = \"node\"\n[[route]]\nupstream = \"x\"\n";
        let source = Arc::new(Source {
            path: Some(at.join("lowport.toml")),
            ..Arc::try_unwrap(Source::of_text("t", text)).unwrap()
        });
        let mistakes = Mistakes::new(Arc::clone(&source));
        let config = crate::config::parse(&source, &mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
        assert_eq!(users(&config), ["node"]);
        let needs = needs(&source, &config, &mistakes);
        assert!(
            mistakes.to_string().contains("sandbox.read: "),
            "{mistakes}"
        );
        assert_eq!(mistakes.len(), 1);
        // The folder of the file itself holds all others.
        assert!(needs.read.contains(&at) && needs.read.contains(&"/proc".into()));
        assert!(!needs.read.iter().any(|place| place == Path::new("/etc")));
        assert_eq!(needs.write, [at.join("logs")]);
        assert_eq!(needs.bind, Ports::from_iter([80, 443, 8080, 8443]));
        assert!(needs.connect.is_none() && !needs.resolve);

        let mistakes = Mistakes::new(Arc::clone(&source));
        let other = Needs {
            bind: Ports::from_iter([80]),
            ..needs
        };
        check_ports(&other, &config, |_| true, &mistakes);
        assert!(mistakes.is_empty());
        check_ports(&other, &config, |_| false, &mistakes);
        let told = mistakes.to_string();
        assert!(
            told.contains("127.0.0.1:8080") && told.contains("sandbox.bind"),
            "{told}"
        );
    }
}
