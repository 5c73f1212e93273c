//! The names of what driftless writes beside its targets.

use driftless_protocol::name::Name;
use std::io::Write;

/// What a private name starts with; 16 lower-case hexadecimal digits follow.
const PREFIX: &[u8] = b".driftless-";

/// Digits after the prefix.
const DIGITS: usize = 16;

/// A new random name for something of ours that nobody should see: a temporary, or an object parked aside.
///
/// # Panics
///
/// When the kernel has no random numbers, which Linux rules out after boot.
pub fn private_name() -> Name {
    let number = getrandom::u64().expect("the kernel gives random numbers");
    let mut bytes = PREFIX.to_vec();
    write!(bytes, "{number:016x}").expect("writing to memory succeeds");
    Name::new(bytes).expect("a private name is a legal name")
}

/// Whether `name` is one that [`private_name`] could have made, and so may be swept.
pub fn is_private_name(name: &Name) -> bool {
    is_private(name.as_bytes())
}

pub(super) fn is_private(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == DIGITS && rest.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_names_are_reserved_unique_and_recognised() {
        let (a, b) = (private_name(), private_name());
        assert_ne!(a, b);
        assert!(a.is_reserved() && is_private_name(&a) && is_private_name(&b));
        for other in [
            ".driftless",
            ".driftless-generation",
            ".driftless-0123456789abcdeF",
            ".driftless-0123456789abcdef0",
        ] {
            assert!(!is_private(other.as_bytes()), "{other}");
        }
    }
}
