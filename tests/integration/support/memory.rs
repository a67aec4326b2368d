//! What is in a process's memory, for root to look through.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: u64 = 4096;

/// All that a process has written or may yet write, as it is now.
pub(crate) struct Memory(Vec<Vec<u8>>);

impl Memory {
    /// Reads all of it; what goes away meanwhile is left out.
    ///
    /// # Errors
    /// The process is gone, or may not be looked into.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let open = |name| File::open(format!("/proc/{pid}/{name}"));
        let (memory, pagemap) = (open("mem")?, open("pagemap")?);
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let mut runs = Vec::new();
        for line in maps.lines().filter(|line| !is_of_a_file(line)) {
            let Some((from, to)) = range(line) else {
                continue;
            };
            for (from, to) in present(&pagemap, from, to)? {
                let mut bytes = vec![0; usize::try_from(to - from).expect("it fits in memory")];
                if memory.read_exact_at(&mut bytes, from).is_ok() {
                    runs.push(bytes);
                }
            }
        }
        Ok(Self(runs))
    }

    /// How often each of these is there.
    pub(crate) fn counts(&self, all: &[&[u8]]) -> Vec<usize> {
        assert!(
            all.iter().all(|bytes| bytes.len() >= 16),
            "fewer bytes may be there by chance"
        );
        let mut counts = vec![0; all.len()];
        // One look at each place for all of them.
        let start = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
        let mut by_start = vec![Vec::new(); 1 << 16];
        for (index, bytes) in all.iter().enumerate() {
            by_start[start(bytes)].push(index);
        }
        for run in &self.0 {
            for at in 0..run.len().saturating_sub(1) {
                for index in &by_start[start(&run[at..])] {
                    counts[*index] += usize::from(run[at..].starts_with(all[*index]));
                }
            }
        }
        counts
    }
}

/// The addresses of a line of /proc/PID/maps, see proc_pid_maps(5). Of memory that the process may read; the kernel's own
/// pages are none.
pub(crate) fn range(line: &str) -> Option<(u64, u64)> {
    let (addresses, rest) = line.split_once(' ')?;
    if !rest.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
        return None;
    }
    let (from, to) = addresses.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(from)?, number(to)?))
}

/// Whether it is nothing but a file's own contents.
fn is_of_a_file(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let writable = words.next().is_some_and(|flags| flags.contains('w'));
    let inode = words.nth(2).unwrap_or("0");
    !writable && inode != "0"
}

/// Where memory is, of what is only reserved; see the kernel's documentation of pagemap.
fn present(pagemap: &File, from: u64, to: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut entries = vec![0; usize::try_from((to - from) / PAGE * 8).expect("it fits in memory")];
    pagemap.read_exact_at(&mut entries, from / PAGE * 8)?;
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (index, entry) in entries.chunks_exact(8).enumerate() {
        // In memory, or swapped out.
        if entry[7] & 0b1100_0000 == 0 {
            continue;
        }
        let start = from + index as u64 * PAGE;
        match runs.last_mut().filter(|(_, end)| *end == start) {
            Some((_, end)) => *end += PAGE,
            None => runs.push((start, start + PAGE)),
        }
    }
    Ok(runs)
}
