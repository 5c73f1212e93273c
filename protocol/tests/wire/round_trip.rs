//! What is encoded is decoded to the same, and only what is encoded.

use crate::values::{self, Reach};
use driftless_protocol::codec::{self, CodecFault, Message};
use proptest::prelude::*;
use std::fmt::Debug;

/// A value within its limits has an encoding (if it fits its frame), which gives it back.
fn within<M: Message + PartialEq + Debug>(value: &M) -> Result<(), TestCaseError> {
    match codec::encode(value) {
        Ok(bytes) => prop_assert_eq!(&codec::decode::<M>(&bytes).unwrap(), value),
        Err(CodecFault::TooLong { bytes, limit, .. }) => prop_assert!(bytes > limit && limit == M::BYTES_MAX),
        Err(fault) => prop_assert!(false, "{fault}"),
    }
    Ok(())
}

/// Whatever a value holds: the encoder refuses it, or the decoder takes it.
fn beyond<M: Message + PartialEq + Debug>(value: &M) -> Result<(), TestCaseError> {
    if let Ok(bytes) = codec::encode(value) {
        prop_assert_eq!(&codec::decode::<M>(&bytes).unwrap(), value);
    }
    Ok(())
}

/// No beginning of an encoding is one, and none goes on.
fn cut_and_extended<M: Message + PartialEq + Debug>(value: &M, more: &[u8]) -> Result<(), TestCaseError> {
    let Ok(bytes) = codec::encode(value) else {
        return Ok(());
    };
    // Each cut of a long message would be decoded up to there: take all of its ends, and some between.
    let step = bytes.len() / 512 + 1;
    let cuts = (0..bytes.len()).filter(|&at| at % step == 0 || at < 256 || at + 256 > bytes.len());
    for at in cuts {
        let cut = codec::decode::<M>(&bytes[..at]);
        prop_assert!(
            matches!(cut, Err(CodecFault::Malformed { .. })),
            "cut at {at}: {cut:?}"
        );
    }
    let extended = codec::decode::<M>(&[&bytes, more].concat());
    let is_fault = matches!(
        extended,
        Err(CodecFault::Trailing { bytes, .. }) if bytes == more.len()
    );
    prop_assert!(
        is_fault || matches!(extended, Err(CodecFault::TooLong { .. })),
        "{extended:?}"
    );
    Ok(())
}

macro_rules! properties {
    ($($strategy:ident)*) => {$(
        mod $strategy {
            use super::*;

            proptest! {
                #[test]
                fn values_within_limits_round_trip(value in values::$strategy(Reach::Within)) {
                    within(&value)?;
                }

                #[test]
                fn s08_what_is_encoded_is_decoded(value in values::$strategy(Reach::Beyond)) {
                    beyond(&value)?;
                }
            }

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(48))]

                #[test]
                fn x04_cut_and_extended_messages_are_refused(
                    value in values::$strategy(Reach::Within),
                    more in prop::collection::vec(any::<u8>(), 1..9),
                ) {
                    cut_and_extended(&value, &more)?;
                }
            }
        }
    )*};
}

properties! { to_receiver to_sender op_frame bulk_frame pair_request pair_reply pull_request note }
