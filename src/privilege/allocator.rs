//! How the allocator takes memory, and what it keeps of what nobody has any more.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

// Linked also where it is not the allocator, as in tests: there, nothing is kept.
use mimalloc as _;
use nix::sys::prctl;

#[expect(unsafe_code, reason = "what it is like is said here")]
unsafe extern "C" {
    /// Of mimalloc; its Rust bindings leave it out.
    fn mi_collect(force: bool);
}

/// Gives back to the kernel what this thread has freed. The allocator does so by itself only when it is asked for more, which
/// a thread that turns everybody away does not. Takes up to some milliseconds.
#[expect(unsafe_code, reason = "a call that no crate offers")]
pub fn give_memory_back() {
    // SAFETY: it may be called at any time, by any thread, and touches nothing that is in use.
    unsafe { mi_collect(true) };
}

/// Whether this process was started by one that took small pages only.
static INHERITED: AtomicBool = AtomicBool::new(false);

/// Lets the kernel hand out memory in small pages only, before the allocator has its first one. It asks for transparent huge
/// pages: of those that the first allocations touch, nearly all stays unused, three times what lowport takes up otherwise.
/// And to clear one later takes the kernel up to some milliseconds, in which nobody on that thread is served: with
/// thousands of clients who come at the same time, one in a hundred requests waited for it.
extern "C" fn take_small_pages() {
    // Where the kernel cannot be asked, it is as it was: nothing can be said yet.
    if let Ok(inherited) = prctl::get_thp_disable() {
        INHERITED.store(inherited, Ordering::Relaxed);
        let _ = prctl::set_thp_disable(true);
    }
}

#[expect(
    unsafe_code,
    reason = "nothing else comes before Rust's own first allocation"
)]
#[used]
// A number puts it before the allocator's own, which has none.
#[unsafe(link_section = ".init_array.00001")]
static BEFORE_MAIN: extern "C" fn() = take_small_pages;

/// Whether memory comes in small pages only. Not where the kernel has no PR_SET_THP_DISABLE (before Linux 3.15).
pub fn has_small_pages() -> bool {
    prctl::get_thp_disable().unwrap_or(false)
}

/// For what is started from here on: pages of any size, if this process had them when it was started.
///
/// # Errors
/// The kernel does not let it.
pub fn give_huge_pages_back() -> io::Result<()> {
    match INHERITED.load(Ordering::Relaxed) || !has_small_pages() {
        true => Ok(()),
        false => Ok(prctl::set_thp_disable(false)?),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn whatever_the_allocator_is_it_may_be_asked() {
        let kept = vec![7_u8; 1 << 20];
        super::give_memory_back();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
