//! How the allocator takes memory, and what it keeps of what nobody has any more.

use std::io;

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

/// Lets the kernel hand out memory in small pages only, to this process and to those that it starts from now on. The
/// allocator asks for transparent huge pages, and to clear one takes the kernel up to some milliseconds, in which nobody
/// on that thread is served: with thousands of clients who come at the same time, one in a hundred requests waited for it.
///
/// # Errors
/// The kernel has no PR_SET_THP_DISABLE.
pub fn take_small_pages() -> io::Result<()> {
    Ok(prctl::set_thp_disable(true)?)
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
