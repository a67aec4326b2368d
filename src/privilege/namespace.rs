//! Folders that a user could not reach, shown to it in a mount namespace of this process's own.
//!
//! A clone below `/root`, or Node installed in root's home: the app's user may not enter `/root`, and opening it up
//! would be worse. Nothing is written to disk, and what was mounted goes with the last process of the namespace.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setegid, seteuid, setgroups};

use super::user::{Identity, is_root};

/// What [`expose`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exposed {
    /// The folders that `to` could not enter, now covered by empty ones that hold only the way; empty when nothing was
    /// needed. Symbolic links below them are gone from sight: use real paths from here on.
    pub covered: Vec<PathBuf>,
}

/// Makes `paths` (folders and files, existing and absolute) reachable for `to`, at the same place.
///
/// Only the way is made: what lies at its end has to be readable for `to`, and that is checked. Call it as root, with
/// one thread, before [`super::become_user`]. Does nothing when nothing is in the way, or when this process is not root.
///
/// # Errors
/// When a path does not exist, the kernel refuses the namespace, or `to` may not read what is at a path's end. The text
/// names the path, the user and the remedy.
pub fn expose(paths: &[PathBuf], to: &Identity) -> io::Result<Exposed> {
    if !is_root() {
        return Ok(Exposed::default());
    }
    let paths = paths
        .iter()
        .map(|path| {
            fs::canonicalize(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        })
        .collect::<io::Result<Vec<PathBuf>>>()?;
    let mut barred: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for (path, barrier) in seen_by(to, || {
        paths.iter().map(|path| barrier(path)).collect::<Vec<_>>()
    })?
    .into_iter()
    .enumerate()
    .filter_map(|(index, barrier)| Some((&paths[index], barrier?)))
    {
        barred.entry(barrier).or_default().push(path.clone());
    }
    if !barred.is_empty() {
        own_namespace().map_err(|error| no_namespace(&barred, to, &error))?;
        for (barrier, paths) in &barred {
            cover(barrier, outermost(paths)).map_err(|error| no_namespace(&barred, to, &error))?;
        }
    }
    let unreadable = seen_by(to, || {
        paths
            .iter()
            .find_map(|path| Some((path, read(path).err()?)))
    })?;
    match unreadable {
        Some((path, error)) => Err(not_readable(path, &paths, to, &error)),
        None => Ok(Exposed {
            covered: barred.into_keys().collect(),
        }),
    }
}

/// The topmost folder above `path` that cannot be entered.
fn barrier(path: &Path) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    above
        .into_iter()
        .find(|folder| denied(fs::metadata(folder.join("."))))
        .map(Path::to_owned)
}

fn denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether a folder can be entered and listed, or a file read.
fn read(path: &Path) -> io::Result<()> {
    File::open(path)?;
    if path.is_dir() {
        fs::metadata(path.join("."))?;
    }
    Ok(())
}

/// What `look` sees with the permissions of `user`: mode bits, access lists and all, as the kernel judges them.
fn seen_by<T>(user: &Identity, look: impl FnOnce() -> T) -> io::Result<T> {
    let (uid, gid, groups) = (geteuid(), getegid(), getgroups()?);
    let step = || {
        setgroups(&[])?;
        setegid(Gid::from_raw(user.gid))?;
        seteuid(Uid::from_raw(user.uid))
    };
    let looked = step().map(|()| look());
    seteuid(uid)?;
    setegid(gid)?;
    setgroups(&groups)?;
    looked.map_err(|errno| {
        io::Error::new(
            io::Error::from(errno).kind(),
            format!("cannot act as {user}: {errno}; it takes CAP_SETUID and CAP_SETGID"),
        )
    })
}

/// Leaves the namespace of everybody else, so that no mount shows outside.
fn own_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    Ok(())
}

/// Those that are not below another one.
fn outermost(paths: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    paths
        .iter()
        .enumerate()
        .filter(move |(index, path)| {
            !paths.iter().enumerate().any(|(other, above)| {
                path.starts_with(above) && (path.as_path() != above.as_path() || other < *index)
            })
        })
        .map(|(_, path)| path)
}

/// Puts an empty folder over `barrier`, and in it `paths`, each at its place.
fn cover<'a>(barrier: &Path, paths: impl Iterator<Item = &'a PathBuf>) -> io::Result<()> {
    // Opened before the barrier is covered; after that no name leads to them.
    let opened = paths
        .map(|path| {
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open(path)?;
            Ok((path, file, path.is_dir()))
        })
        .collect::<io::Result<Vec<_>>>()?;
    mount(
        Some("tmpfs"),
        barrier,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755,size=1m"),
    )?;
    for (path, file, is_dir) in opened {
        make_way(barrier, path, is_dir)?;
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        mount(
            Some(source.as_str()),
            path,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )?;
    }
    Ok(())
}

/// The folders from `barrier` down to `path`, and an empty folder or file at the end to mount on.
fn make_way(barrier: &Path, path: &Path, is_dir: bool) -> io::Result<()> {
    let mut way: Vec<&Path> = path
        .ancestors()
        .take_while(|folder| *folder != barrier)
        .collect();
    if !is_dir {
        way.remove(0);
    }
    for folder in way.into_iter().rev() {
        match fs::create_dir(folder) {
            // Whatever the umask took away.
            Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    if !is_dir {
        File::create(path)?;
    }
    Ok(())
}

fn no_namespace(
    barred: &BTreeMap<PathBuf, Vec<PathBuf>>,
    to: &Identity,
    error: &io::Error,
) -> io::Error {
    let ways: Vec<String> = barred
        .iter()
        .flat_map(|(barrier, paths)| paths.iter().map(move |path| (barrier, path)))
        .map(|(barrier, path)| {
            format!(
                "{} lies below {}, which {to} may not enter",
                path.display(),
                barrier.display()
            )
        })
        .collect();
    io::Error::new(
        error.kind(),
        format!(
            "{}; and a mount namespace to show it there is refused here ({error}; it takes CAP_SYS_ADMIN): \
             move it to a folder that {to} can reach, such as /srv/app, or run the app as its owner",
            ways.join("; ")
        ),
    )
}

/// The remedy is for the outermost of `paths` around it: after a clone with a umask of 077 all of it is unreadable.
fn not_readable(path: &Path, paths: &[PathBuf], to: &Identity, error: &io::Error) -> io::Error {
    let top = paths
        .iter()
        .filter(|above| path.starts_with(above))
        .min_by_key(|above| above.as_os_str().len())
        .map_or(path, PathBuf::as_path)
        .display();
    let what = if path.is_dir() {
        "enter and list"
    } else {
        "read"
    };
    io::Error::new(
        error.kind(),
        format!(
            "{to} may not {what} {} ({error}): give it to that user with `chown -R {}:{} {top}`, let everybody \
             read it with `chmod -R a+rX {top}`, or run the app as its owner",
            path.display(),
            to.uid,
            to.gid
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::super::become_user;
    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A folder for root alone, with `app/deep/index.js` and `other/secret` in it.
    fn closed() -> Option<tempfile::TempDir> {
        if !is_root() {
            eprintln!("SKIPPED: only root can mount and become somebody else");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [("app/deep/index.js", "hello"), ("other/secret", "secret")] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            chmod(&path, 0o644);
            chmod(path.parent().unwrap(), 0o755);
        }
        chmod(&folder.path().join("app"), 0o755);
        chmod(folder.path(), 0o700);
        Some(folder)
    }

    /// What `script` prints as nobody after `paths` were exposed, in a process of its own.
    fn shown(paths: Vec<PathBuf>, script: &str) -> String {
        shown_with(|| {}, paths, script)
    }

    #[expect(unsafe_code, reason = "a test of what happens between fork and exec")]
    fn shown_with(
        prepare: impl Fn() + Send + Sync + 'static,
        paths: Vec<PathBuf>,
        script: &str,
    ) -> String {
        let nobody = Identity::lookup("nobody").unwrap();
        let (mut told, tell) = std::io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir("/");
        let mut telling = tell.try_clone().unwrap();
        // SAFETY: allocates after the fork, which glibc allows.
        unsafe {
            command.pre_exec(move || {
                prepare();
                nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
                expose(&paths, &nobody)
                    .and_then(|_| become_user(&nobody))
                    .inspect_err(|error| {
                        let _ = io::Write::write_all(&mut telling, error.to_string().as_bytes());
                    })
            })
        };
        let output = command.output();
        drop((command, tell));
        match output {
            Ok(output) => {
                String::from_utf8_lossy(&output.stdout).into_owned()
                    + &String::from_utf8_lossy(&output.stderr)
            }
            Err(_) => io::read_to_string(&mut told).unwrap(),
        }
    }

    #[test]
    fn a_folder_behind_a_barrier_is_reachable_and_its_neighbours_are_not() {
        let Some(folder) = closed() else { return };
        let app = folder.path().join("app");
        let script = format!(
            "id -un; cd {app} && cat deep/index.js; ls {root}; cat {root}/other/secret; touch {root}/x",
            app = app.display(),
            root = folder.path().display()
        );
        let seen = shown(vec![app.join("deep"), app.clone(), app.clone()], &script);
        assert!(seen.starts_with("nobody\nhelloapp\n"), "{seen}");
        assert!(
            seen.contains("No such file") && seen.contains("ermission denied"),
            "{seen}"
        );
        // Nothing of it shows outside.
        assert!(folder.path().join("other/secret").exists());
        assert_eq!(
            fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn single_files_are_shown_too() {
        let Some(folder) = closed() else { return };
        let (file, other) = (
            folder.path().join("app/deep/index.js"),
            folder.path().join("other/secret"),
        );
        let script = format!("cat {} {}", file.display(), other.display());
        assert_eq!(shown(vec![file, other], &script), "hellosecret");
    }

    #[test]
    fn nothing_is_mounted_when_nothing_is_in_the_way() {
        let Some(folder) = closed() else { return };
        chmod(folder.path(), 0o755);
        let script = format!("cat {}/other/secret", folder.path().display());
        assert_eq!(shown(vec![folder.path().join("app")], &script), "secret");
    }

    #[test]
    fn what_stays_unreadable_is_named_with_the_remedy() {
        let Some(folder) = closed() else { return };
        let file = folder.path().join("app/deep/index.js");
        chmod(&file, 0o600);
        let told = shown(vec![folder.path().join("app"), file.clone()], "true");
        assert!(
            told.contains(&format!(
                "nobody (uid 65534) may not read {}",
                file.display()
            )),
            "{told}"
        );
        let remedy = format!("`chmod -R a+rX {}`", folder.path().join("app").display());
        assert!(told.contains(&remedy), "{told}");
        let missing = folder.path().join("missing");
        assert!(shown(vec![missing.clone()], "true").contains(missing.to_str().unwrap()));
    }

    #[test]
    fn a_refused_namespace_is_told_with_the_remedy() {
        let Some(folder) = closed() else { return };
        let app = folder.path().join("app");
        let told = shown_with(without_sys_admin, vec![app.clone()], "true");
        let expected = format!(
            "{} lies below {}, which nobody (uid 65534) may not enter; and a mount namespace",
            app.display(),
            folder.path().display()
        );
        assert!(told.starts_with(&expected), "{told}");
    }

    /// As in a container: every capability but the one that mounts.
    #[expect(unsafe_code, reason = "nix has no call for capability sets")]
    fn without_sys_admin() {
        let header = [0x2008_0522_u32, 0];
        let mut sets = [0_u32; 6];
        // SAFETY: version 3 takes a header of two words and two sets of three; all live until the calls return.
        unsafe {
            assert_eq!(
                libc::syscall(libc::SYS_capget, &header, sets.as_mut_ptr()),
                0
            );
            sets[0] &= !(1 << 21);
            sets[1] &= !(1 << 21);
            assert_eq!(libc::syscall(libc::SYS_capset, &header, sets.as_ptr()), 0);
        }
    }
}
