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

/// Has the allocator of the C library keep at most so many heaps apart: it gives each thread one of its own otherwise, up to
/// eight a processor, and what is freed in one is of no use to the others. To be called before there are threads.
#[cfg(target_env = "gnu")]
pub fn limit_heaps(heaps: u16) {
    // SAFETY: the call takes two numbers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, heaps.into());
    }
}

/// Other allocators have no such setting.
#[cfg(not(target_env = "gnu"))]
pub fn limit_heaps(_heaps: u16) {}
