//! Which run of the kernel this is.

/// A random number that the kernel drew when it was started, where it tells: what a process wrote in this boot and did not
/// flush is still there after the process was killed, but not after the next boot.
pub fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_stays_the_same_and_is_not_zero() {
        let boot = super::boot_id();
        assert_eq!(boot, super::boot_id());
        assert_ne!(boot, Some([0; 16]));
    }
}
