//! The app's filter: what no Node app does, and what would let one reach further into the kernel than it has to.

use std::collections::BTreeMap;
use std::io;

use nix::errno::Errno;
use nix::libc::{self, EPERM, c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::calls::{CLONE3, NAMESPACES, app_never};
use super::fork::OneThread;
use super::walls::allowed;
use crate::config::{Layer, Sandbox};

/// Keeps this process, and all that it will ever start, from system calls that a container's default profile keeps from
/// apps as well: those that make namespaces, mount, load code into the kernel, or talk to its least used parts.
///
/// They are answered EPERM, and clone3(2), whose flags no filter can read, ENOSYS: the C library falls back to clone(2).
/// Nothing else changes, but programs of another architecture, such as 32-bit ones, end with SIGSYS. Sets no_new_privs.
/// Returns how many filters are on, or why there are none.
///
/// # Errors
/// There is more than one thread; or the kernel has no seccomp filters, and `sandbox` does not allow that.
pub fn confine_app(sandbox: &Sandbox) -> io::Result<Result<usize, String>> {
    let _alone = OneThread::check()?;
    let put_on = || -> io::Result<usize> {
        let filters = filters().map_err(io::Error::other)?;
        for filter in &filters {
            apply_filter(filter).map_err(io::Error::other)?;
        }
        // Of no consequence. An emulated kernel may take a filter and not follow it.
        match unshare_nothing() {
            Err(Errno::EPERM) => Ok(filters.len()),
            _ => Err(io::Error::other(
                "the kernel took the filter for the app's system calls and does not follow it",
            )),
        }
    };
    allowed(put_on(), Layer::Seccomp, sandbox)
}

#[expect(unsafe_code, reason = "nix has no flag that means nothing")]
fn unshare_nothing() -> Result<c_int, Errno> {
    // SAFETY: without a flag nothing is unshared, and no pointer is passed.
    Errno::result(unsafe { libc::unshare(0) })
}

fn filters() -> Result<[BpfProgram; 2], BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let compile = |rules: BTreeMap<c_long, Vec<SeccompRule>>, errno: c_int| {
        let answer = SeccompAction::Errno(errno.unsigned_abs());
        SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?.try_into()
    };
    let mut never = BTreeMap::new();
    for (_, number) in app_never() {
        never.extend(doors(number).map(|number| (number, Vec::new())));
    }
    let namespaces = namespaces()?;
    never.extend(doors(libc::SYS_clone).map(|number| (number, namespaces.clone())));
    let clone3 = doors(CLONE3).map(|number| (number, Vec::new())).collect();
    Ok([compile(clone3, libc::ENOSYS)?, compile(never, EPERM)?])
}

/// The numbers that a call has: on x86-64, some kernels take it with this bit, too (the x32 ABI).
fn doors(number: c_long) -> impl Iterator<Item = c_long> {
    const X32: c_long = 0x4000_0000;
    let x32 = cfg!(target_arch = "x86_64").then_some(number | X32);
    [number].into_iter().chain(x32)
}

/// Each of the namespaces that clone(2) makes.
fn namespaces() -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |flag: c_int| {
        let flag = u64::from(flag.cast_unsigned());
        let set = SeccompCmpOp::MaskedEq(flag);
        let set = SeccompCondition::new(0, SeccompCmpArgLen::Dword, set, flag)?;
        SeccompRule::new(vec![set])
    };
    NAMESPACES.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::super::testing::in_child;
    use super::*;

    /// A system call with zeros but for the first argument.
    #[expect(unsafe_code, reason = "calls that no crate offers")]
    fn call(number: c_long, first: c_long) -> Result<c_long, Errno> {
        // SAFETY: refused before it looks at its arguments.
        Errno::result(unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) })
    }

    #[test]
    fn what_no_app_does_is_refused_and_the_rest_goes_on() {
        let told = in_child(|| {
            assert_eq!(confine_app(&Sandbox::default())?, Ok(2));
            for (name, number) in app_never() {
                assert_eq!(call(number, 0), Err(Errno::EPERM), "{name}");
            }
            let user = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
            assert_eq!(call(libc::SYS_clone, user), Err(Errno::EPERM));
            assert_eq!(call(libc::SYS_clone3, 0), Err(Errno::ENOSYS));
            assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
            let thread = std::thread::spawn(|| "a thread").join().unwrap();
            let program = std::process::Command::new("sh")
                .args([
                    "-c",
                    "echo; unshare -U true 2>&1; grep Seccomp: /proc/self/status",
                ])
                .output()?;
            let program = String::from_utf8(program.stdout).unwrap();
            Ok(format!("{thread}{program}"))
        });
        assert!(told.starts_with("a thread\n"), "{told}");
        assert!(told.ends_with("Seccomp:\t2\n"), "{told}");
        let refused = told.contains("Operation not permitted") || told.contains("not found");
        assert!(refused, "{told}");
    }
}
