//! How the C library's allocator keeps memory.

/// One arena for all threads, to be called before there are any. glibc gives each
/// thread its own and never moves free memory from one to another, so that a
/// service whose listings each have a thread holds several times what it needs.
/// Elsewhere there is nothing to do.
pub(super) fn use_one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers and locks for itself. It may refuse, which costs
    // memory only.
    #[expect(unsafe_code, reason = "std has no call for the allocator's options")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
