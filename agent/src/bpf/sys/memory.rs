//! The C library's memory.

/// Gives memory that was freed back to the kernel. glibc keeps it otherwise for as long as something
/// above it is in use: after a large list that is several MB.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
