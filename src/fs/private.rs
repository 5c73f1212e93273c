//! The names of what driftless writes beside its targets.

use driftless_protocol::limits::NAME_BYTES_MAX;
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

/// What a [`parked_name`] ends in.
const PARKED: &[u8] = b"-parked";

/// A new random private name for what makes room for something else, or is to take its place. A directory that holds something is
/// not swept under it: that may be there only ([`Swept::parked`](super::Swept::parked)).
pub fn parked_name() -> Name {
    Name::new([private_name().as_bytes(), PARKED].concat()).expect("a private name has room for more")
}

/// Whether `name` is one that [`parked_name`] could have made.
pub fn is_parked_name(name: &Name) -> bool {
    let private = name.as_bytes().strip_suffix(PARKED);
    private.is_some_and(|private| digits_of(private).is_some())
}

/// Whether `name` is one that [`private_name`] or [`parked_name`] could have made, so that what has it is ours.
pub fn is_private_name(name: &Name) -> bool {
    is_private(name.as_bytes())
}

pub(super) fn is_private(name: &[u8]) -> bool {
    digits_of(name.strip_suffix(PARKED).unwrap_or(name)).is_some()
}

fn digits_of(private: &[u8]) -> Option<&[u8]> {
    private
        .strip_prefix(PREFIX)
        .filter(|rest| rest.len() == DIGITS && rest.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// What an [`unparked_name`] starts with; 16 digits follow.
const UNPARKED: &[u8] = b"driftless-parked-";

/// A new random name that anybody sees, `driftless-parked-` and 16 digits, for a directory that was parked and has no other place.
pub fn unparked_name() -> Name {
    let private = private_name();
    let digits = digits_of(private.as_bytes()).expect("a private name has digits");
    Name::new([UNPARKED, digits].concat()).expect("the parts of names make a name")
}

/// Whether `name` is one that [`unparked_name`] could have made.
pub fn is_unparked_name(name: &Name) -> bool {
    let rest = name.as_bytes().strip_prefix(UNPARKED);
    rest.is_some_and(|rest| digits_of(&[PREFIX, rest].concat()).is_some())
}

/// What the name of something displaced starts with; the name that it had, a hyphen and 16 digits follow.
const DISPLACED: &[u8] = b".driftless-old-";

/// A new random name for something that stood at `name` until it was displaced, in the same directory. Unlike a
/// [`private_name`] it is never swept: what stands there may be the only copy. It says what `name` was, cut if it was
/// longer than 223 bytes, and ends in digits so that no reader of `*.conf` takes it for one.
pub fn displaced_name(name: &Name) -> Name {
    let private = private_name();
    let digits = &private.as_bytes()[PREFIX.len()..];
    let room = NAME_BYTES_MAX - DISPLACED.len() - 1 - DIGITS;
    let cut = &name.as_bytes()[..name.as_bytes().len().min(room)];
    let bytes = [DISPLACED, cut, b"-", digits].concat();
    Name::new(bytes).expect("the parts of names make a name")
}

/// The name that something had until it was displaced, if `name` is one that [`displaced_name`] could have made.
pub fn displaced_from(name: &Name) -> Option<Name> {
    let rest = name.as_bytes().strip_prefix(DISPLACED)?;
    let (was, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS + 1)?)?;
    let digits = digits.strip_prefix(b"-")?;
    let is_hex = digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    Name::new(was).ok().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_names_are_reserved_unique_and_recognised() {
        let (a, b) = (private_name(), private_name());
        assert_ne!(a, b);
        assert!(a.is_reserved() && is_private_name(&a) && is_private_name(&b));
        let parked = parked_name();
        assert!(parked.is_reserved() && is_private_name(&parked));
        assert!(is_parked_name(&parked) && !is_parked_name(&a));
        let unparked = unparked_name();
        assert!(!unparked.is_reserved() && is_unparked_name(&unparked) && !is_unparked_name(&parked));
        assert!(!is_unparked_name(&Name::new(*b"driftless-parked-").unwrap()));
        for other in [
            ".driftless",
            ".driftless-parked",
            ".driftless-0123456789abcdef-parked-parked",
            ".driftless-generation",
            ".driftless-0123456789abcdeF",
            ".driftless-0123456789abcdef0",
        ] {
            assert!(!is_private(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_displaced_name_says_what_it_was_and_is_not_swept() {
        let long = vec![b'x'; 255];
        for (was, kept) in [
            (&b"app.conf"[..], 8),
            (b"a-0123456789abcdef", 18),
            (b"-", 1),
            (b"\xff\n", 2),
            (&long, 223),
        ] {
            let was = Name::new(was).unwrap();
            let displaced = displaced_name(&was);
            assert!(displaced.is_reserved() && !is_private_name(&displaced));
            let found = displaced_from(&displaced).unwrap();
            assert_eq!(found.as_bytes(), &was.as_bytes()[..kept]);
            assert_ne!(displaced, displaced_name(&was));
        }
        for other in [
            ".driftless-old-",
            ".driftless-old-a",
            ".driftless-old--0123456789abcdef",
            ".driftless-old-a-0123456789abcdeg",
            ".driftless-0123456789abcdef",
        ] {
            assert_eq!(
                displaced_from(&Name::new(other.as_bytes()).unwrap()),
                None,
                "{other}"
            );
        }
    }
}
