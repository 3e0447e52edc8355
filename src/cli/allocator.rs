//! The settings of the C library's allocator.

/// Makes all threads allocate from one arena. Call this before any thread is spawned.
///
/// glibc gives each thread an arena of its own and never moves free memory between arenas. A
/// service, which spawns a thread for each listing, would hold several times the memory that
/// it needs. Does nothing on systems without glibc.
pub(super) fn use_one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers and does its own locking. If it fails, the program
    // only uses more memory.
    #[expect(unsafe_code, reason = "std cannot set the allocator's options")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
