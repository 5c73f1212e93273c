//! What `read` on a notification group answers, taken apart. Pure: bytes in, values out.
//!
//! The bytes are a sequence of events, each with its own length:
//!
//! | bytes | |
//! | --- | --- |
//! | 4 | length of the event, this and all of its records included |
//! | 1, 1 | version, which must be [`VERSION`]; reserved |
//! | 2 | where the records begin |
//! | 8 | mask: what happened |
//! | 4 | a file descriptor; always `FAN_NOFD` in a group that reports handles |
//! | 4 | process id |
//!
//! and records of the same event behind it, each with its own length again:
//!
//! | bytes | |
//! | --- | --- |
//! | 1, 1 | type of the record; padding |
//! | 2 | length of the record, this included, rounded up to 4 |
//! | 8 | file system id |
//! | 4, 4 | length of the handle; its type |
//! | n | the handle |
//! | m | the name, up to a zero byte |
//!
//! Numbers are in the machine's byte order. Records of unknown types are skipped, so that new ones do no harm. All else
//! that does not fit is [`Malformed`]: whoever reads on after that guesses.

use super::sys::HANDLE_BYTES_MAX;

const VERSION: u8 = libc::FANOTIFY_METADATA_VERSION;
const METADATA_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 4;

/// The kernel's bytes are not what they should be: nobody knows what else they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What one event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Event<'a> {
    /// The `FAN_*` bits of what happened, perhaps of several things, in no order.
    pub(super) mask: u64,
    /// Where, unless it is a rename.
    pub(super) place: Option<Place<'a>>,
    /// From where something was renamed.
    pub(super) from: Option<Place<'a>>,
    /// To where something was renamed.
    pub(super) to: Option<Place<'a>>,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// The directory.
    pub(super) directory: HandleRef<'a>,
    /// The name; `.` or nothing for the directory itself.
    pub(super) name: &'a [u8],
}

/// What tells a directory from all others, as long as the file system exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HandleRef<'a> {
    /// The file system's id.
    pub(super) file_system: [u8; 8],
    /// The type of the handle, which is up to the file system.
    pub(super) kind: i32,
    /// The handle, which is up to the file system.
    pub(super) bytes: &'a [u8],
}

/// The events in a buffer. Ends after the first that is malformed.
pub(super) fn events(buffer: &[u8]) -> Events<'_> {
    Events { rest: buffer }
}

/// See [`events`].
#[derive(Debug, Clone)]
pub(super) struct Events<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let event = take_event(&mut self.rest);
        if event.is_none() {
            self.rest = &[];
        }
        Some(event.ok_or(Malformed))
    }
}

/// Takes the event at the front; `None` when it is malformed.
fn take_event<'a>(rest: &mut &'a [u8]) -> Option<Event<'a>> {
    let length = usize::try_from(u32_at(rest, 0)?).ok()?;
    let (event, after) = rest.split_at_checked(length)?;
    let records_at = usize::from(u16_at(event, 6)?);
    let is_right = event.get(4) == Some(&VERSION)
        && records_at >= METADATA_BYTES
        // A descriptor would have to be closed by us. A group like ours is given none.
        && i32_at(event, 16)? == libc::FAN_NOFD;
    if !is_right {
        return None;
    }
    let mut found = Event {
        mask: u64::from_ne_bytes(array_at(event, 8)?),
        ..Event::default()
    };
    let mut records = event.get(records_at..)?;
    while !records.is_empty() {
        take_record(&mut records, &mut found)?;
    }
    *rest = after;
    Some(found)
}

/// Takes the record at the front; `None` when it is malformed.
fn take_record<'a>(records: &mut &'a [u8], event: &mut Event<'a>) -> Option<()> {
    let length = usize::from(u16_at(records, 2)?);
    if length < RECORD_HEADER_BYTES {
        return None;
    }
    let (record, after) = records.split_at_checked(length)?;
    let kind = *record.first()?;
    let slot = match kind {
        libc::FAN_EVENT_INFO_TYPE_DFID_NAME | libc::FAN_EVENT_INFO_TYPE_DFID => Some(&mut event.place),
        libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => Some(&mut event.from),
        libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => Some(&mut event.to),
        _ => None,
    };
    if let Some(slot) = slot {
        *slot = Some(place(record)?);
    }
    *records = after;
    Some(())
}

fn place(record: &[u8]) -> Option<Place<'_>> {
    let length = usize::try_from(u32_at(record, 12)?).ok()?;
    if length > HANDLE_BYTES_MAX {
        return None;
    }
    let (bytes, name) = record.get(20..)?.split_at_checked(length)?;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Some(Place {
        directory: HandleRef {
            file_system: array_at(record, 4)?,
            kind: i32_at(record, 16)?,
            bytes,
        },
        name: name.get(..end)?,
    })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FSID: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

    /// A record as the kernel writes it.
    fn record(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(FSID);
        bytes.extend((handle.len() as u32).to_ne_bytes());
        bytes.extend(0x81i32.to_ne_bytes());
        bytes.extend(handle);
        bytes.extend(name);
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let length = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    fn event(mask: u64, records: &[Vec<u8>]) -> Vec<u8> {
        let records = records.concat();
        let mut bytes = ((METADATA_BYTES + records.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend([VERSION, 0]);
        bytes.extend((METADATA_BYTES as u16).to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend(libc::FAN_NOFD.to_ne_bytes());
        bytes.extend(4711i32.to_ne_bytes());
        bytes.extend(records);
        bytes
    }

    fn at<'a>(handle: &'a [u8], name: &'a [u8]) -> Option<Place<'a>> {
        let directory = HandleRef {
            file_system: FSID,
            kind: 0x81,
            bytes: handle,
        };
        Some(Place { directory, name })
    }

    #[test]
    fn events_of_every_shape() {
        let buffer = [
            event(libc::FAN_CREATE, &[record(2, b"12345678", b"name")]),
            event(libc::FAN_Q_OVERFLOW, &[]),
            event(
                libc::FAN_RENAME,
                &[
                    record(10, b"123456789abc", b"old\n\xff"),
                    record(12, b"x", &[b'n'; 255]),
                    record(1, b"child", b""),
                ],
            ),
            // A type that nobody has heard of, of any length.
            event(libc::FAN_ATTRIB, &[vec![99, 0, 5, 0, 7], record(3, b"dir", b"")]),
        ]
        .concat();
        let found: Vec<_> = events(&buffer).map(Result::unwrap).collect();
        let default = Event::default();
        assert_eq!(
            found,
            [
                Event {
                    mask: libc::FAN_CREATE,
                    place: at(b"12345678", b"name"),
                    ..default
                },
                Event {
                    mask: libc::FAN_Q_OVERFLOW,
                    ..default
                },
                Event {
                    mask: libc::FAN_RENAME,
                    from: at(b"123456789abc", b"old\n\xff"),
                    to: at(b"x", &[b'n'; 255]),
                    ..default
                },
                Event {
                    mask: libc::FAN_ATTRIB,
                    place: at(b"dir", b""),
                    ..default
                },
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_malformed() {
        let good = event(libc::FAN_CREATE, &[record(2, b"12345678", b"name")]);
        let spoilt = |at: usize, bytes: &[u8]| {
            let mut spoilt = good.clone();
            spoilt[at..at + bytes.len()].copy_from_slice(bytes);
            events(&spoilt).last().map(|event| event.map(|event| event.mask))
        };
        assert!(spoilt(0, &[]).unwrap().is_ok());
        for (at, bytes, what) in [
            (0, &0u32.to_ne_bytes()[..], "an event of no length, for ever"),
            (0, &u32::MAX.to_ne_bytes(), "longer than the buffer"),
            (4, &[VERSION + 1], "another version"),
            (6, &8u16.to_ne_bytes(), "records inside of the metadata"),
            (6, &999u16.to_ne_bytes(), "records behind the event"),
            (16, &3i32.to_ne_bytes(), "a descriptor"),
            (26, &0u16.to_ne_bytes(), "a record of no length, for ever"),
            (26, &999u16.to_ne_bytes(), "a record longer than its event"),
            (36, &u32::MAX.to_ne_bytes(), "a handle longer than any"),
            (36, &100u32.to_ne_bytes(), "a handle longer than its record"),
        ] {
            assert_eq!(spoilt(at, bytes), Some(Err(Malformed)), "{what}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        /// Cut short anywhere, what is whole comes out as it was, and the rest is malformed.
        #[test]
        fn a_cut_is_noticed(
            names in prop::collection::vec((prop::collection::vec(1u8.., 1..40), 0usize..129), 1..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole: Vec<Vec<u8>> = names
                .iter()
                .map(|(name, handle)| event(libc::FAN_DELETE, &[record(2, &vec![7; *handle], name)]))
                .collect();
            let buffer = whole.concat();
            let cut = cut.index(buffer.len() + 1);
            let mut ends = 0;
            let complete = whole.iter().take_while(|event| { ends += event.len(); ends <= cut }).count();
            let is_clean = whole[..complete].concat().len() == cut;
            let found: Vec<_> = events(&buffer[..cut]).collect();
            prop_assert_eq!(found.len(), complete + usize::from(!is_clean));
            for (found, (name, handle)) in found.iter().zip(&names).take(complete) {
                let handle = vec![7; *handle];
                prop_assert_eq!(found.unwrap().place, at(&handle, name));
            }
            if !is_clean {
                prop_assert_eq!(found.last(), Some(&Err(Malformed)));
            }
        }

        /// Any bytes at all, and good ones with some bytes changed: it ends, and answers no more events than fit.
        #[test]
        fn garbage_does_no_harm(
            garbage in prop::collection::vec(any::<u8>(), 0..300),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            prop_assert!(events(&garbage).count() <= garbage.len() / METADATA_BYTES + 1);
            let mut buffer = [
                event(libc::FAN_RENAME, &[record(10, b"1234", b"a"), record(12, b"1234", b"b")]),
                event(libc::FAN_ATTRIB, &[record(2, b"12345678", b".")]),
            ]
            .concat();
            for (at, byte) in changes {
                let at = at.index(buffer.len());
                buffer[at] = byte;
            }
            prop_assert!(events(&buffer).count() <= 4);
        }
    }
}
