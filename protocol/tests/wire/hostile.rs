//! Bytes that no honest peer sends: an error at worst, never a panic, never a value that could not be sent on.

use crate::{dump, raw, values};
use driftless_protocol::codec::{self, FrameReader, Message};
use driftless_protocol::message::*;
use driftless_protocol::version::{HELLO_BYTES, Hello};
use proptest::prelude::*;
use std::fmt::Debug;

/// What is accepted is a good value: it can be encoded, and is the same after that.
fn survives<M: Message + PartialEq + Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = codec::decode::<M>(bytes) {
        let again = codec::encode(&value);
        prop_assert!(again.is_ok(), "{value:?} was decoded, but {again:?}");
        prop_assert_eq!(codec::decode::<M>(&again.unwrap()), Ok(value));
    }
    let mut reader = FrameReader::default();
    reader.push(bytes);
    while let Ok(Some(value)) = reader.next::<M>() {
        prop_assert!(codec::encode_frame(&value).is_ok());
    }
    Ok(())
}

fn survived_by_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    survives::<ToReceiver>(bytes)?;
    survives::<ToSender>(bytes)?;
    survives::<OpFrame>(bytes)?;
    survives::<BulkFrame>(bytes)?;
    raw::agrees(bytes)?;
    survives::<PairRequest>(bytes)?;
    survives::<PairReply>(bytes)?;
    survives::<PullRequest>(bytes)?;
    survives::<Note>(bytes)
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(u8),
    Flip(u8),
    Insert(Vec<u8>),
    Delete(usize),
    Repeat(usize),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>, at: &prop::sample::Index) {
        let at = at.index(bytes.len() + 1);
        let end = |count: usize, bytes: &[u8]| (at + count).min(bytes.len());
        match self {
            Mutation::Set(byte) => bytes.iter_mut().skip(at).take(1).for_each(|place| *place = *byte),
            Mutation::Flip(bit) => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|place| *place ^= 1 << bit),
            Mutation::Insert(more) => drop(bytes.splice(at..at, more.iter().copied())),
            Mutation::Delete(count) => drop(bytes.drain(at..end(*count, bytes))),
            Mutation::Repeat(count) => {
                let again = bytes[at..end(*count, bytes)].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

/// Tags, markers of long numbers, and their edges are more telling than other bytes.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), 0u8..12, 250u8..=255]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let long = prop_oneof![
        Just(vec![0xfc, 0xff, 0xff, 0xff, 0xff]),
        Just([&[0xfd][..], &[0xff; 8]].concat())
    ];
    prop_oneof![
        3 => byte().prop_map(Mutation::Set),
        2 => (0u8..8).prop_map(Mutation::Flip),
        1 => prop_oneof![prop::collection::vec(byte(), 1..9), long].prop_map(Mutation::Insert),
        1 => (1usize..40).prop_map(Mutation::Delete),
        1 => (1usize..40).prop_map(Mutation::Repeat),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn x01_random_bytes_never_panic(bytes in prop::collection::vec(byte(), 0..600)) {
        survived_by_all(&bytes)?;
    }

    #[test]
    fn x04_mutated_messages_never_panic(
        bytes in values::encoded(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), mutation()), 1..6),
    ) {
        let mut bytes = bytes;
        mutations.iter().for_each(|(at, mutation)| mutation.apply(&mut bytes, at));
        survived_by_all(&bytes)?;
        let prefix = (bytes.len() as u32).to_be_bytes();
        survived_by_all(&[&prefix, &*bytes].concat())?;
    }

    #[test]
    fn x01_random_hellos_never_panic(bytes in any::<[u8; HELLO_BYTES]>(), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic {
            bytes[..8].copy_from_slice(b"drftless");
        }
        if let Ok(hello) = Hello::from_bytes(&bytes) {
            prop_assert_eq!(hello.to_bytes(), bytes);
        }
    }
}

/// S-08: each kind of thing that is not what its place wants.
#[test]
fn s08_malformed_values_are_refused() {
    fn refused<M: Message + Debug>(dumps: &[&str]) {
        for dump in dumps {
            let outcome = codec::decode::<M>(&dump::bytes(dump));
            assert!(outcome.is_err(), "{dump}: {outcome:?}");
        }
    }
    refused::<ToReceiver>(&[
        "",
        "08 00",               // no such variant
        "04 01 02 07 02 09",   // no such kind of owner
        "04 01 00 07 03 09",   // nobody is called like that
        "fb 03 00",            // a variant by a long number, without its field
        "ff",                  // no such marker
        "fd 03 00*7 07",       // a marker that is too wide for a variant
        "03 fe 07 00*15",      // and for a number
        "00 02 00*7",          // no such purpose
        "00 00 00*5 02 00",    // a bool of 2
        "00 00 00*6 02 00*32", // an option of 2
        "00 00 00*6 01 00*31", // a sum that is cut off
    ]);
    refused::<ToSender>(&[
        "0c 01",
        "03 01 02",
        "05 01 01 02",
        "06 01 0a 00 00",
        "06 01 00 00 02",
        "01 00 03",
    ]);
    refused::<OpFrame>(&[
        "01 03 01",
        "01 00 01 00 00 09 00",
        "01 00 01 00 02 08 00",
        "01 00 01 00 00 03 02 fc*2",
    ]);
    refused::<BulkFrame>(&["01 00 00 05", "01 00 fd 00*8 02", "01 00 00 03 01 02 00 00"]);
    // A kind that does not exist.
    refused::<ToSender>(&["01 01 01 6e 09 03 00*5 00 00 00*32 00 01"]);
    refused::<PairRequest>(&["", "00*16", "00*15 01"]);
}

/// Longer forms of numbers are no violation: nothing is computed over encoded messages.
#[test]
fn long_forms_of_numbers_are_understood() {
    for dump in [
        "03 07",
        "03 fb 07 00",
        "03 fc 07 00*3",
        "03 fd 07 00*7",
        "fb 03 00 07",
        "fc 03 00*3 07",
    ] {
        assert_eq!(
            codec::decode(&dump::bytes(dump)),
            Ok(ToReceiver::Flush { number: 7 }),
            "{dump}"
        );
    }
}

#[test]
fn s16_a_pairing_secret_is_not_shown() {
    let request = PairRequest {
        secret: [0xab; 16],
        name: "laptop".into(),
    };
    let shown = format!("{request:?}");
    assert!(
        !shown.contains("171") && !shown.contains("ab, ab") && !shown.contains("secret"),
        "{shown}"
    );
}
