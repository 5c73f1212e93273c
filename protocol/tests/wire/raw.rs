//! The head of a range that is given raw is what the codec makes of the whole, and says what the codec says.

use crate::values::{self, Reach};
use driftless_protocol::codec::{self, FRAME_PREFIX_BYTES};
use driftless_protocol::limits::{FILE_BYTES_MAX, RANGE_BYTES_MAX};
use driftless_protocol::message::{BulkFrame, RangeBody, RangeBytes, RawHead};
use proptest::prelude::*;

/// As much of a frame as the head may take.
fn start(frame: &[u8]) -> &[u8] {
    &frame[..frame.len().min(RawHead::BYTES_MAX)]
}

/// The same by the head, if the frame is of that kind.
fn by_head(frame: &[u8]) -> Option<BulkFrame> {
    let (head, at) = RawHead::decode(start(frame), frame.len())?;
    Some(BulkFrame {
        number: head.number,
        offset: head.offset,
        length: head.length,
        body: RangeBody::Raw(RangeBytes(frame[at..].to_vec())),
    })
}

/// Both ways to read bytes find the same raw range, or none.
pub(crate) fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
    let whole = codec::decode::<BulkFrame>(bytes).ok();
    let raw = whole.filter(|frame| matches!(frame.body, RangeBody::Raw(_)));
    prop_assert_eq!(by_head(bytes), raw);
    Ok(())
}

proptest! {
    #[test]
    fn the_head_is_that_of_the_whole_frame(frame in values::bulk_frame(Reach::Beyond)) {
        let RangeBody::Raw(bytes) = &frame.body else {
            return Ok(());
        };
        let head = RawHead { number: frame.number, offset: frame.offset, length: frame.length };
        let (whole, head) = (codec::encode_frame(&frame), head.encode_frame(bytes.0.len()));
        prop_assert_eq!(head.is_ok(), whole.is_ok());
        if let (Ok(head), Ok(whole)) = (head, whole) {
            prop_assert_eq!(&[&head[..], &bytes.0[..]].concat(), &whole);
        }
    }

    #[test]
    fn both_ways_to_read_agree(frame in values::bulk_frame(Reach::Within), more in prop::collection::vec(any::<u8>(), 0..3)) {
        if let Ok(bytes) = codec::encode(&frame) {
            agrees(&bytes)?;
            agrees(&[&bytes[..], &more].concat())?;
            for at in 0..bytes.len().min(2 * RawHead::BYTES_MAX) {
                agrees(&bytes[..at])?;
            }
        }
    }
}

#[test]
fn the_longest_head_is_as_long_as_it_may_be() {
    let frame = BulkFrame {
        number: u64::MAX,
        offset: FILE_BYTES_MAX - RANGE_BYTES_MAX as u64,
        length: RANGE_BYTES_MAX as u32,
        body: RangeBody::Raw(RangeBytes(vec![7; RANGE_BYTES_MAX])),
    };
    let whole = codec::encode_frame(&frame).unwrap();
    let head = whole.len() - FRAME_PREFIX_BYTES - RANGE_BYTES_MAX;
    assert!(head <= RawHead::BYTES_MAX, "{head}");
    assert_eq!(by_head(&whole[FRAME_PREFIX_BYTES..]), Some(frame));
}
