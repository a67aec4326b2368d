//! How much of the machine's memory this process has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::unistd::{SysconfVar, sysconf};

use super::allowance::allowance;

/// Memory as the kernel counts it for this process: what `ps` calls RSS. What sockets hold is not in it.
#[derive(Debug)]
pub struct Footprint {
    /// `/proc/self/statm`, open from before the sandbox
    statm: File,
    page: u64,
    /// Bytes that the system has for it, where that is told
    allowance: Option<u64>,
}

impl Footprint {
    /// Of this process, not of one that it forks later.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn open() -> io::Result<Self> {
        let page = sysconf(SysconfVar::PAGE_SIZE)?;
        let page = page.and_then(|page| u64::try_from(page).ok());
        Ok(Self {
            statm: File::open("/proc/self/statm")?,
            page: page.ok_or(io::ErrorKind::Unsupported)?,
            allowance: allowance(),
        })
    }

    /// Bytes that are so many percent of what the system has for this process.
    pub fn share(&self, percent: u8) -> Option<u64> {
        let percent = u64::from(percent);
        self.allowance.map(|allowance| allowance / 100 * percent)
    }

    /// Bytes of it as of now: one system call, of a few microseconds.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn resident(&self) -> io::Result<u64> {
        let mut line = [0; 128];
        let count = self.statm.read_at(&mut line, 0)?;
        let pages = pages(&line[..count]).ok_or(io::ErrorKind::InvalidData)?;
        Ok(pages.saturating_mul(self.page))
    }
}

/// The second number, see proc_pid_statm(5).
fn pages(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_is_resident() {
        let footprint = Footprint::open().unwrap();
        assert!(footprint.share(50) < footprint.share(100));
        let before = footprint.resident().unwrap();
        let size = 256 << 20;
        let memory = vec![1_u8; size];
        let more = footprint.resident().unwrap() - before;
        drop(std::hint::black_box(memory));
        // Other tests take and free theirs meanwhile.
        assert!(more > size as u64 / 2, "{more}");
        assert_eq!(pages(b"10 20 3 4 0 5 0\n"), Some(20));
        assert_eq!(pages(b"10"), None);
        assert_eq!(pages(b"\xff 1"), None);
    }
}
