//! How the allocator takes memory, and what it keeps of what nobody has any more.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

// Linked also where it is not the allocator, as in tests: there, nothing is kept.
use mimalloc::MiMalloc;
use nix::sys::prctl;

#[expect(unsafe_code, reason = "what they are like is said here")]
unsafe extern "C" {
    /// Of mimalloc; its Rust bindings leave it out, as they do the others.
    fn mi_collect(force: bool);
    fn mi_malloc(size: usize) -> *mut c_void;
    fn mi_zalloc(size: usize) -> *mut c_void;
    fn mi_realloc(block: *mut c_void, size: usize) -> *mut c_void;
}

/// mimalloc. Its Rust bindings name an alignment with each block that they ask for, which takes it three times as many
/// instructions as when nothing is said: measured over a request, 2 % of all that are not the kernel's.
#[derive(Debug, Clone, Copy)]
pub struct Allocator;

/// What mimalloc aligns everything to that is as large, or larger (`MI_MAX_ALIGN_SIZE`). Smaller blocks to their own size.
const NATURAL: usize = 16;

fn is_natural(size: usize, align: usize) -> bool {
    align <= NATURAL && align <= size
}

#[expect(unsafe_code, reason = "an allocator is asked in no other way")]
// SAFETY: all of it is mimalloc's, which may be asked in both ways about any block of its own. What is asked for without an
// alignment has the one that was wanted: a test looks at each size and alignment.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_natural(layout.size(), layout.align()) {
            // SAFETY: of whoever calls this.
            unsafe { mi_malloc(layout.size()).cast() }
        } else {
            // SAFETY: as above.
            unsafe { MiMalloc.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_natural(layout.size(), layout.align()) {
            // SAFETY: as above.
            unsafe { mi_zalloc(layout.size()).cast() }
        } else {
            // SAFETY: as above.
            unsafe { MiMalloc.alloc_zeroed(layout) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_natural(size, layout.align()) {
            // SAFETY: as above.
            unsafe { mi_realloc(block.cast(), size).cast() }
        } else {
            // SAFETY: as above.
            unsafe { MiMalloc.realloc(block, layout, size) }
        }
    }
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
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "an allocator is asked in no other way")]
    fn every_block_is_aligned_and_keeps_what_is_in_it() {
        let sizes = (1..300).chain((300..9000).step_by(97)).chain([1 << 20]);
        for size in sizes {
            for align in [1, 2, 4, 8, 16, 32, 64, 128] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let grown = Layout::from_size_align(2 * size + 1, align).unwrap();
                let is_fine =
                    |block: *mut u8| !block.is_null() && (block as usize).is_multiple_of(align);
                // SAFETY: no layout is of no size, and each block is given back as what it is.
                unsafe {
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(is_fine(zeroed) && *zeroed.add(size - 1) == 0, "{layout:?}");
                    // Beside others of its kind: the first one of a page would be aligned in any case.
                    let block = Allocator.alloc(layout);
                    assert!(is_fine(block), "{layout:?}");
                    block.write_bytes(7, size);
                    let block = Allocator.realloc(block, layout, grown.size());
                    assert!(is_fine(block), "{layout:?}");
                    assert!(*block == 7 && *block.add(size - 1) == 7, "{layout:?}");
                    let block = Allocator.realloc(block, grown, size);
                    assert!(is_fine(block) && *block.add(size - 1) == 7, "{layout:?}");
                    Allocator.dealloc(block, layout);
                    Allocator.dealloc(zeroed, layout);
                }
            }
        }
    }

    #[test]
    fn whatever_the_allocator_is_it_may_be_asked() {
        let kept = vec![7_u8; 1 << 20];
        give_memory_back();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
