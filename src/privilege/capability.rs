//! Capabilities: those that lowport has a use for, and all by name.

/// A capability that lowport has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// CAP_DAC_READ_SEARCH: reading what only others may read
    DacReadSearch = 2,
    /// CAP_NET_BIND_SERVICE: binding ports below 1024
    NetBindService = 10,
}

impl Capability {
    /// Its place in a set.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The set of these.
    pub fn set(these: &[Self]) -> u32 {
        these.iter().fold(0, |bits, one| bits | one.bit())
    }
}

/// By number, as capability.h has them.
const NAMES: &[&str] = &[
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];
/// More than these are told by their number.
const MAX_TOLD: usize = 5;

/// The names in a set, such as `cap_chown, cap_kill`; of a large set their number.
pub fn names(set: u64) -> String {
    let count = set.count_ones() as usize;
    if count > MAX_TOLD {
        return format!("{count} capabilities");
    }
    let names: Vec<String> = (0..64_usize)
        .filter(|number| set & (1 << number) != 0)
        .map(|number| match NAMES.get(number) {
            Some(name) => (*name).to_owned(),
            None => format!("capability {number}"),
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_sets_are_counted() {
        assert_eq!(names(0), "");
        assert_eq!(names(1 | 1 << 10), "cap_chown, cap_net_bind_service");
        assert_eq!(names(1 << 63), "capability 63");
        assert_eq!(names(u64::MAX), "64 capabilities");
    }
}
