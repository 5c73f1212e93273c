//! What the allocator keeps of memory that is free.

/// Gives free memory back to the kernel, where the C library's allocator would keep it.
#[cfg(target_env = "gnu")]
pub fn give_memory_back() {
    // SAFETY: the call takes a number and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators see to it themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_memory_back() {}
