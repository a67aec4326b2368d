//! Becoming an ordinary user for good.

use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use super::capability::Capability;
use super::fork::OneThread;
use super::user::{Identity, is_root};

/// Turns this process into `user` and gives up every way back: groups, capabilities, set-uid programs, core dumps and
/// being traced by others with the same uid.
///
/// The process must have one thread, since several of these settings are the calling thread's alone. A process that is not
/// root stays who it is, and gives up the rest. The umask is the caller's business.
///
/// # Errors
/// When there is a second thread, `user` is uid 0, somebody else than a process that is not root, or any step fails, or its result is not what
/// was asked for: the process must end then, for it is neither here nor there.
pub fn become_user(user: &Identity) -> io::Result<()> {
    let _alone = OneThread::check()?;
    user.refuse_root().map_err(io::Error::other)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if is_root() {
        // Both need CAP_SETPCAP, which goes with the uid.
        drop_bounding_set()?;
        lock_securebits()?;
        let may = |errno: Errno| {
            io::Error::new(
                io::Error::from(errno).kind(),
                format!("cannot become {user}: {errno}; it takes CAP_SETUID and CAP_SETGID"),
            )
        };
        setgroups(&[]).map_err(may)?;
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        setresgid(gid, gid, gid).map_err(may)?;
        setresuid(uid, uid, uid).map_err(may)?;
        verify_groups()?;
    }
    clear_capabilities()?;
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    verify(user)
}

/// Gives up all but `kept`, for a process that stays root for their sake; one that is not root keeps nothing.
///
/// Without capabilities uid 0 is the owner of root's files and no more than that. The process must have one thread.
///
/// # Errors
/// When there is a second thread, a step fails, or its result is not what was asked for: the process must end then.
pub fn keep_only(kept: &[Capability]) -> io::Result<()> {
    let _alone = OneThread::check()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let kept = if is_root() {
        drop_bounding_set()?;
        lock_securebits()?;
        // Fails without CAP_SETGID, where there are no groups to lose either way.
        let _ = setgroups(&[]);
        held()?.permitted & Capability::set(kept)
    } else {
        0
    };
    match kept {
        0 => clear_capabilities()?,
        kept => set_capabilities(kept)?,
    }
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    let left = held()?;
    if (left.effective, left.permitted, left.inheritable) != (kept, kept, 0) {
        return Err(io::Error::other(
            "more capabilities are left than asked for",
        ));
    }
    Ok(())
}

/// How a process gives up what it does not need.
#[derive(Debug, Clone, Copy)]
pub enum Lesser<'a> {
    /// It becomes somebody: [`become_user`]
    User(&'a Identity),
    /// It stays who it is, with these: [`keep_only`]
    Keeping(&'a [Capability]),
}

impl Lesser<'_> {
    /// Does it, for good.
    pub(super) fn now(self) -> io::Result<()> {
        match self {
            Self::User(user) => become_user(user),
            Self::Keeping(kept) => keep_only(kept),
        }
    }
}

/// Whether this process may bind ports below 1024; raises the right where it is only permitted.
pub(super) fn holds_net_bind() -> bool {
    let bit = Capability::NetBindService.bit();
    match held() {
        Ok(held) if held.effective & bit != 0 => true,
        Ok(held) if held.permitted & bit != 0 => set_capabilities(bit).is_ok(),
        _ => false,
    }
}

fn verify_groups() -> io::Result<()> {
    match getgroups()?.as_slice() {
        [] => Ok(()),
        left => Err(io::Error::other(format!(
            "still in the groups {left:?} after the drop"
        ))),
    }
}

/// Reads back what the kernel made of it.
fn verify(user: &Identity) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let (uids, gids) = (getresuid()?, getresgid()?);
    if [uids.real, uids.effective, uids.saved] != [uid; 3] {
        return Err(io::Error::other(format!("not {user} but {uids:?}")));
    }
    if [gids.real, gids.effective, gids.saved] != [gid; 3] {
        return Err(io::Error::other(format!(
            "not in group {gid} but in {gids:?}"
        )));
    }
    let root = Uid::from_raw(0);
    if setresuid(root, root, root).is_ok() {
        return Err(io::Error::other("the way back to root is open"));
    }
    if !no_capabilities()? || !prctl::get_no_new_privs()? {
        return Err(io::Error::other("privileges are left after the drop"));
    }
    Ok(())
}

#[expect(unsafe_code, reason = "nix has no call for the bounding set")]
fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes a number and no pointer.
        let result =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) };
        match Errno::result(result) {
            Ok(_) => {}
            // Past the last capability that this kernel has.
            Err(Errno::EINVAL) => break,
            // A container that took CAP_SETPCAP away; no_new_privs keeps what is left in the set from being gained.
            Err(Errno::EPERM) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// NOROOT, no fix-up of capabilities by uid, no kept capabilities and no raising of ambient ones, all locked.
const SECUREBITS: libc::c_ulong = 0b1110_1011;

#[expect(unsafe_code, reason = "nix has no call for the securebits")]
fn lock_securebits() -> io::Result<()> {
    // SAFETY: PR_SET_SECUREBITS takes a number and no pointer.
    match Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) }) {
        // Without CAP_SETPCAP, as above.
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn clear_capabilities() -> io::Result<()> {
    // A filter such as systemd's `~@privileged` refuses capset(2), and with nothing to clear it is not needed.
    if no_capabilities()? {
        return Ok(());
    }
    set_capabilities(0)
}

/// Empties the ambient and the inheritable set, and makes `bits` the other two. All of them are below 32.
#[expect(unsafe_code, reason = "nix has no calls for capability sets")]
fn set_capabilities(bits: u32) -> io::Result<()> {
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes no pointer.
    let cleared = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
            0,
            0,
            0,
        )
    };
    Errno::result(cleared)?;
    capset(bits)
}

/// As [`set_capabilities`], the ambient set aside, which the kernel lowers by itself.
#[expect(unsafe_code, reason = "nix has no calls for capability sets")]
pub(super) fn capset(bits: u32) -> io::Result<()> {
    let low = Sets {
        effective: bits,
        permitted: bits,
        inheritable: 0,
    };
    let sets = [low, Sets::default()];
    // SAFETY: version 3 takes a header and two sets, which both live until the call returns; it only reads the sets.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &HEADER, sets.as_ptr()) })?;
    Ok(())
}

/// Whether the effective, permitted and inheritable sets are empty; the ambient set never exceeds those.
fn no_capabilities() -> io::Result<bool> {
    Ok(read_capabilities()? == [Sets::default(); 2])
}

/// The first 32 capabilities.
fn held() -> io::Result<Sets> {
    Ok(read_capabilities()?[0])
}

#[expect(unsafe_code, reason = "nix has no calls for capability sets")]
fn read_capabilities() -> io::Result<[Sets; 2]> {
    let mut sets = [Sets::default(); 2];
    // SAFETY: version 3 takes a header and writes two sets; both live until the call returns.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &HEADER, sets.as_mut_ptr()) })?;
    Ok(sets)
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `_LINUX_CAPABILITY_VERSION_3`, and the calling thread.
const HEADER: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

/// `struct __user_cap_data_struct`: 32 capabilities.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::super::testing::in_child;
    use super::*;

    /// What `script` prints in a process that has become `user` between fork and exec.
    #[expect(unsafe_code, reason = "a test of what happens between fork and exec")]
    fn as_user(user: Identity, script: &str) -> io::Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        // SAFETY: allocates after the fork, which glibc allows.
        unsafe { command.pre_exec(move || become_user(&user)) };
        let output = command.output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout).unwrap())
    }

    const STATUS: &str =
        "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs):' /proc/self/status; ulimit -c; ulimit -Hc";

    #[test]
    fn nothing_is_left_of_root() {
        if !is_root() {
            eprintln!("SKIPPED: only root can become somebody else");
            return;
        }
        let status = as_user(Identity::lookup("12345:54321").unwrap(), STATUS).unwrap();
        let lines: Vec<String> = status
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let none = "0000000000000000";
        let expected = [
            "Uid: 12345 12345 12345 12345".to_owned(),
            "Gid: 54321 54321 54321 54321".to_owned(),
            "Groups:".to_owned(),
            format!("CapInh: {none}"),
            format!("CapPrm: {none}"),
            format!("CapEff: {none}"),
            format!("CapBnd: {none}"),
            format!("CapAmb: {none}"),
            "NoNewPrivs: 1".to_owned(),
            "0".to_owned(),
            "0".to_owned(),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_second_thread_keeps_all_of_it_from_happening() {
        let told = in_child(|| {
            let me = Identity::lookup("12345:54321").map_err(io::Error::other)?;
            let before = status();
            let (stay, go) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || go.recv());
            let refused = [become_user(&me), keep_only(&[])].map(Result::unwrap_err);
            assert_eq!(status(), before, "half of it happened");
            drop(stay);
            let _ = thread.join();
            let texts = refused.map(|error| error.to_string());
            assert_eq!(texts[0], texts[1]);
            Ok(texts[0].clone())
        });
        assert!(told.contains("there are 2 threads"), "{told}");
        assert!(told.contains("LD_PRELOAD"), "{told}");
    }

    #[test]
    fn what_has_no_capabilities_can_be_forbidden_to_change_them() {
        use seccompiler::{SeccompAction, SeccompFilter, TargetArch};

        let told = in_child(|| {
            let me = match is_root() {
                true => Identity::lookup("12345:54321").map_err(io::Error::other)?,
                false => Identity::current(),
            };
            become_user(&me)?;
            // As systemd's `SystemCallFilter=~@privileged` has it.
            let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
            let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
            let rules = [(libc::SYS_capset, Vec::new())].into_iter().collect();
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch);
            let filter = filter.and_then(seccompiler::BpfProgram::try_from);
            let filter = filter.map_err(io::Error::other)?;
            seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
            assert!(capset(0).is_err(), "it can change them");
            become_user(&me)?;
            keep_only(&[])?;
            Ok("less".to_owned())
        });
        assert_eq!(told, "less");
    }

    fn status() -> Vec<String> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let kept = |line: &&str| {
            ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        status.lines().filter(kept).map(str::to_owned).collect()
    }

    #[test]
    fn root_cannot_be_become() {
        let error = as_user(Identity::lookup("0").unwrap(), "id").unwrap_err();
        assert!(!error.to_string().is_empty());
    }

    #[test]
    #[expect(unsafe_code, reason = "a test of what happens between fork and exec")]
    fn an_ordinary_user_stays_and_gives_up_the_rest() {
        let me = if is_root() {
            Identity::lookup("12345:54321").unwrap()
        } else {
            Identity::current()
        };
        let other = Identity {
            uid: 12346,
            ..me.clone()
        };
        let mut command = Command::new("sh");
        command.args(["-c", "id -u; grep NoNewPrivs /proc/self/status"]);
        let uid = me.uid;
        // SAFETY: allocates after the fork, which glibc allows.
        unsafe {
            command.pre_exec(move || {
                if is_root() {
                    setresgid(
                        Gid::from_raw(54321),
                        Gid::from_raw(54321),
                        Gid::from_raw(54321),
                    )?;
                    setresuid(
                        Uid::from_raw(12345),
                        Uid::from_raw(12345),
                        Uid::from_raw(12345),
                    )?;
                }
                assert!(become_user(&other).is_err());
                become_user(&me)
            })
        };
        let output = command.output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("{uid}\nNoNewPrivs:\t1\n")
        );
    }
}
