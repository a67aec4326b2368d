//! Which system calls are let through, which are answered with an error, and which end the process.

use nix::libc::{self, c_int, c_long};
use seccompiler::{
    BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule as Rule,
};

use super::needs::{Needs, Work};

/// A system call and what its arguments must be like.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) number: c_long,
    /// One of these has to hold; any arguments when empty
    pub(super) rules: Vec<Rule>,
}

type Result<T> = std::result::Result<T, BackendError>;

/// Makes a list of names and numbers out of libc's constants.
macro_rules! calls {
    ($($constant:ident)*) => {
        &[$((stringify!($constant).split_at("SYS_".len()).1, libc::$constant)),*]
    };
}

/// A system call's name and its number.
pub(super) type Named = (&'static str, c_long);

/// Answered ENOSYS, so that the C library falls back to clone(2), whose flags a filter can read.
pub(super) const CLONE3: c_long = libc::SYS_clone3;

/// What a proxy and its runtime do all day with what is open already.
const SERVING: &[Named] = calls![
    SYS_accept4 SYS_brk SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait
    SYS_eventfd2 SYS_exit SYS_exit_group SYS_futex SYS_getpeername SYS_getpid SYS_getrandom SYS_getsockname
    SYS_getsockopt SYS_gettid SYS_madvise SYS_mremap SYS_munmap SYS_pread64 SYS_read SYS_readv SYS_recvfrom
    SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sched_getaffinity SYS_sched_yield
    SYS_set_robust_list SYS_shutdown SYS_sigaltstack SYS_write SYS_writev
];
/// What a process does that waits for questions and answers them, one after the other.
const ANSWERING: &[Named] = calls![
    SYS_brk SYS_clock_gettime SYS_close SYS_exit_group SYS_getpid SYS_getrandom SYS_madvise SYS_memfd_create SYS_munmap SYS_read
    SYS_restart_syscall SYS_rt_sigaction SYS_rt_sigreturn SYS_write
];
const READING: &[Named] =
    calls![SYS_fstat SYS_getdents64 SYS_lseek SYS_newfstatat SYS_readlinkat SYS_statx];
/// The same for a process that knows what it looks at, without links.
const LOOKING: &[Named] = calls![SYS_getdents64 SYS_lseek SYS_newfstatat SYS_statx];
const RESOLVING: &[Named] = calls![SYS_ppoll SYS_uname];
const BINDING: &[Named] = calls![SYS_bind SYS_listen];

/// Older calls that x86-64 has besides, and that glibc or musl prefer there.
#[cfg(target_arch = "x86_64")]
mod older {
    use super::*;

    pub(super) const SERVING: &[Named] = calls![SYS_epoll_wait];
    pub(super) const ANSWERING: &[Named] = calls![SYS_poll];
    /// glibc asks for the descriptor with newfstatat, musl does not
    pub(super) const LOOKING: &[Named] = if cfg!(target_env = "musl") {
        calls![SYS_fstat SYS_stat]
    } else {
        &[]
    };
    pub(super) const READING: &[Named] = calls![SYS_lstat SYS_readlink SYS_stat];
    pub(super) const RESOLVING: &[Named] = calls![SYS_poll];
    /// Flags in the second argument
    pub(super) const OPENING: &[Named] = calls![SYS_open];
}

#[cfg(not(target_arch = "x86_64"))]
mod older {
    use super::*;

    pub(super) const SERVING: &[Named] = &[];
    pub(super) const ANSWERING: &[Named] = calls![SYS_ppoll];
    pub(super) const LOOKING: &[Named] = calls![SYS_fstat];
    pub(super) const READING: &[Named] = &[];
    pub(super) const RESOLVING: &[Named] = &[];
    pub(super) const OPENING: &[Named] = &[];
}

/// Never made by a proxy, whatever its configuration: whoever makes one has taken it over, and the process ends.
pub(super) fn never() -> impl Iterator<Item = Named> {
    NEVER.iter().chain(NEVER_HERE).copied().chain(app_never())
}

/// Of those, what no Node app and nothing that one starts makes either: what is refused by the default profiles of
/// containers, in which all of them run. Not tracing, nor becoming somebody, which the kernel itself refuses where it has to.
pub(super) fn app_never() -> impl Iterator<Item = Named> {
    APP_NEVER.iter().chain(APP_NEVER_HERE).copied()
}

/// Besides [`APP_NEVER`].
const NEVER: &[Named] = calls![
    // Other programs
    SYS_execve SYS_execveat
    // Other processes
    SYS_kcmp SYS_pidfd_getfd SYS_process_madvise SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace
    // Other users and capabilities
    SYS_capset SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid
    SYS_setuid
    // The machine
    SYS_adjtimex SYS_chroot SYS_mknodat SYS_personality
];

/// What else only x86-64 has of it.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[Named] = calls![SYS_fork SYS_mknod SYS_modify_ldt SYS_vfork];
/// What else only this architecture has of it.
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[Named] = &[];

const APP_NEVER: &[Named] = calls![
    // Namespaces and mounts
    SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_mount SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_pivot_root
    SYS_setns SYS_umount2 SYS_unshare
    // Ways around a filter or around permissions
    SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_open_by_handle_at
    // The kernel's larger doors
    SYS_add_key SYS_bpf SYS_fanotify_init SYS_keyctl SYS_perf_event_open SYS_request_key SYS_userfaultfd
    // The machine
    SYS_acct SYS_clock_adjtime SYS_clock_settime SYS_delete_module SYS_finit_module SYS_init_module SYS_kexec_load
    SYS_quotactl SYS_reboot SYS_setdomainname SYS_sethostname SYS_settimeofday SYS_swapoff SYS_swapon SYS_syslog
    SYS_vhangup
];

/// What else only x86-64 has of it.
#[cfg(target_arch = "x86_64")]
const APP_NEVER_HERE: &[Named] = calls![SYS_ioperm SYS_iopl SYS_kexec_file_load];
/// What else only this architecture has of it.
#[cfg(not(target_arch = "x86_64"))]
const APP_NEVER_HERE: &[Named] = &[];

/// The namespaces that clone(2) makes.
pub(super) const NAMESPACES: [c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Every call that `needs` takes, in no order, each once.
pub(super) fn allowed(needs: &Needs) -> Result<Vec<Call>> {
    let network = !needs.connect.is_none() || !needs.bind.is_none() || needs.resolve;
    let connecting = !needs.connect.is_none() || !needs.connect_unix.is_empty() || needs.resolve;
    let reading = !needs.read.is_empty() || needs.resolve;
    let opening = reading || !needs.write.is_empty();

    let mut calls = Vec::new();
    let mut add = |when: bool, list: &[Named]| {
        if when {
            calls.extend(list.iter().map(|&(name, number)| Call {
                name,
                number,
                rules: Vec::new(),
            }));
        }
    };
    let serving = needs.work == Work::Serving;
    add(serving, SERVING);
    add(serving, older::SERVING);
    add(!serving, ANSWERING);
    add(!serving, older::ANSWERING);
    add(connecting, calls![SYS_connect]);
    add(opening && serving, READING);
    add(opening && !serving, LOOKING);
    // Who is at the other end of a Unix socket is asked by its inode.
    let inodes = !needs.connect_unix.is_empty() && !opening;
    add(inodes, calls![SYS_fstat]);
    add(opening && serving, older::READING);
    add(opening && !serving, older::LOOKING);
    add(needs.resolve, RESOLVING);
    add(needs.resolve, older::RESOLVING);
    // musl's resolver binds its UDP socket to port 0.
    let resolver_binds = needs.resolve && cfg!(target_env = "musl");
    add(!needs.bind.is_none(), BINDING);
    add(needs.bind.is_none() && resolver_binds, calls![SYS_bind]);
    add(needs.descriptors || needs.resolve, calls![SYS_recvmsg]);
    add(needs.wait, calls![SYS_wait4]);
    add(needs.splice, calls![SYS_pipe2 SYS_splice]);

    let mut add = |list: &[Named], rules: &[Rule]| {
        calls.extend(list.iter().map(|&(name, number)| Call {
            name,
            number,
            rules: rules.to_vec(),
        }));
    };
    add(calls![SYS_mmap SYS_mprotect], &[no_code()?]);
    if serving {
        add(calls![SYS_clone], &threads()?);
        add(calls![SYS_prctl], &[all([is(0, libc::PR_SET_NAME)?])?]);
        add(calls![SYS_socketpair], &[all([is(0, libc::AF_UNIX)?])?]);
        add(calls![SYS_tgkill], &[all([is(0, this_process())?])?]);
        add(calls![SYS_fcntl], &one_of(1, FCNTL)?);
        add(
            calls![SYS_ioctl],
            &one_of(
                1,
                if needs.resolve {
                    IOCTL_RESOLVING
                } else {
                    IOCTL
                },
            )?,
        );
        add(calls![SYS_sendto], &[no_fast_open(3)?]);
    }
    if serving || network {
        add(calls![SYS_setsockopt], &options(needs)?);
    }
    if needs.descriptors {
        add(calls![SYS_sendmsg], &[no_fast_open(2)?]);
    }
    if needs.resolve {
        add(calls![SYS_sendmmsg], &[no_fast_open(3)?]);
    }
    if network || !needs.connect_unix.is_empty() {
        add(calls![SYS_socket], &sockets(needs, network)?);
    }
    if opening {
        let rules = |flags: u8| -> Result<Vec<Rule>> {
            if needs.write.is_empty() {
                Ok(vec![only_reading(flags)?])
            } else {
                Ok(Vec::new())
            }
        };
        add(calls![SYS_openat], &rules(2)?);
        // glibc has no use for it.
        if serving || cfg!(target_env = "musl") {
            add(older::OPENING, &rules(1)?);
        }
    }
    Ok(calls)
}

/// Threads, and no namespaces on the way.
fn threads() -> Result<Vec<Rule>> {
    let namespaces = NAMESPACES.iter().fold(0, |all, flag| all | flag);
    let thread = libc::CLONE_THREAD | libc::CLONE_VM;
    Ok(vec![all([masked(0, thread | namespaces, thread)?])?])
}

/// No memory that can be run.
fn no_code() -> Result<Rule> {
    all([masked(2, libc::PROT_EXEC, 0)?])
}

const FCNTL: &[c_int] = &[
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_GETFL,
    libc::F_SETFD,
    libc::F_SETFL,
];
const IOCTL: &[c_int] = &[libc::FIONBIO as c_int];
const IOCTL_RESOLVING: &[c_int] = &[libc::FIONBIO as c_int, libc::FIONREAD as c_int];

/// Options of sockets and of TCP, and single ones of IP for listeners and for the resolver. No socket filters: they are
/// programs for the kernel.
fn options(needs: &Needs) -> Result<Vec<Rule>> {
    const FILTERS: &[c_int] = &[
        libc::SO_ATTACH_FILTER,
        libc::SO_ATTACH_BPF,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        libc::SO_ATTACH_REUSEPORT_EBPF,
    ];
    let mut of_sockets = vec![is(1, libc::SOL_SOCKET)?];
    for filter in FILTERS {
        of_sockets.push(condition(2, SeccompCmpOp::Ne, *filter)?);
    }
    let mut rules = vec![all(of_sockets)?, all([is(1, libc::IPPROTO_TCP)?])?];
    let mut one = |level: c_int, option: c_int| -> Result<()> {
        rules.push(all([is(1, level)?, is(2, option)?])?);
        Ok(())
    };
    if !needs.bind.is_none() || needs.resolve {
        one(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    if needs.resolve {
        // glibc gives a name server up when it cannot ask for its errors.
        one(libc::IPPROTO_IP, libc::IP_RECVERR)?;
        one(libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?;
    }
    Ok(rules)
}

/// No connection on the way: Landlock looks at connect(2) only.
fn no_fast_open(flags: u8) -> Result<Rule> {
    all([masked(flags, libc::MSG_FASTOPEN, 0)?])
}

/// TCP proper, since Landlock looks at neither Multipath TCP nor SCTP; UDP for the resolver; Unix streams.
fn sockets(needs: &Needs, network: bool) -> Result<Vec<Rule>> {
    /// `SOCK_TYPE_MASK` of linux/net.h: the rest are flags.
    const TYPE: c_int = 0xf;
    let kind = |domain: c_int, kind: c_int, protocol: c_int| {
        all([is(0, domain)?, masked(1, TYPE, kind)?, is(2, protocol)?])
    };
    let mut rules = Vec::new();
    for domain in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [libc::IPPROTO_IP, libc::IPPROTO_TCP] {
            if network {
                rules.push(kind(domain, libc::SOCK_STREAM, protocol)?);
            }
        }
        for protocol in [libc::IPPROTO_IP, libc::IPPROTO_UDP] {
            if needs.resolve {
                rules.push(kind(domain, libc::SOCK_DGRAM, protocol)?);
            }
        }
    }
    if !needs.connect_unix.is_empty() {
        rules.push(kind(libc::AF_UNIX, libc::SOCK_STREAM, 0)?);
    }
    Ok(rules)
}

fn only_reading(flags: u8) -> Result<Rule> {
    let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    all([masked(flags, writing, libc::O_RDONLY)?])
}

fn this_process() -> c_int {
    nix::unistd::getpid().as_raw()
}

fn one_of(argument: u8, values: &[c_int]) -> Result<Vec<Rule>> {
    values
        .iter()
        .map(|value| all([is(argument, *value)?]))
        .collect()
}

fn all(conditions: impl Into<Vec<SeccompCondition>>) -> Result<Rule> {
    Rule::new(conditions.into())
}

fn is(argument: u8, value: c_int) -> Result<SeccompCondition> {
    condition(argument, SeccompCmpOp::Eq, value)
}

/// Whether the bits of `mask` are those of `value`.
fn masked(argument: u8, mask: c_int, value: c_int) -> Result<SeccompCondition> {
    let mask = u64::from(mask.cast_unsigned());
    condition(argument, SeccompCmpOp::MaskedEq(mask), value)
}

/// All of these arguments are ints to the kernel, or hold their flags in the lower half.
fn condition(argument: u8, operator: SeccompCmpOp, value: c_int) -> Result<SeccompCondition> {
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
