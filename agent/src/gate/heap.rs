//! What reading the kernel's type information leaves in the heap.
//!
//! The loader of programs reads all of it, some 16 MB in tens of thousands of pieces,
//! whether asked or not, and forgets it at once. glibc concludes from the first large block that is
//! freed that more will be wanted, and from then on keeps as much at the end of every heap.
//! So it is told not to conclude that, and once programs are loaded to give back what is
//! free between pieces that are still in use.

/// Bytes that may be free at the end of a thread's heap; what glibc begins with.
#[cfg(target_env = "gnu")]
const FREE: libc::c_int = 128 * 1024;

/// Has every heap give back what is free at its end, whatever was freed before.
pub fn bound_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers, and a lock of its own.
    unsafe {
        // Nothing depends on it.
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE);
    }
}

/// Gives pages of all heaps back that hold nothing.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and the locks of the heaps.
    unsafe {
        libc::malloc_trim(0);
    }
}
