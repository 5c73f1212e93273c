//! Cutting a stream into messages.

use crate::values::{self, Reach};
use driftless_protocol::codec::{self, CodecFault, FRAME_PREFIX_BYTES, FrameReader, Message};
use driftless_protocol::limits::*;
use driftless_protocol::message::*;
use proptest::prelude::*;

fn read_in_chunks<M: Message>(stream: &[u8], chunks: &[usize]) -> Result<Vec<M>, CodecFault> {
    let mut reader = FrameReader::default();
    let mut messages = Vec::new();
    let (mut rest, mut chunks) = (stream, chunks.iter().cycle());
    while !rest.is_empty() {
        let take = (*chunks.next().unwrap()).clamp(1, rest.len());
        let (now, later) = rest.split_at(take);
        reader.push(now);
        while let Some(message) = reader.next()? {
            messages.push(message);
        }
        rest = later;
    }
    assert!(reader.is_empty());
    assert_eq!(reader.next::<M>()?.map(drop), None);
    Ok(messages)
}

fn stream_of<M: Message>(messages: &[M]) -> Vec<u8> {
    messages
        .iter()
        .flat_map(|message| codec::encode_frame(message).unwrap())
        .collect()
}

fn fits<M: Message>(message: &M) -> bool {
    codec::encode(message).is_ok()
}

fn chunks() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1usize..8, 1..8),
        prop::collection::vec(1usize..5_000, 1..8),
        prop::collection::vec(50_000usize..2_000_000, 1..3),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_chunking_of_control_messages_gives_the_same(
        messages in prop::collection::vec(values::to_sender(Reach::Within).prop_filter("fits", fits), 0..6),
        chunks in chunks(),
    ) {
        prop_assert_eq!(read_in_chunks(&stream_of(&messages), &chunks), Ok(messages));
    }

    #[test]
    fn any_chunking_of_op_frames_gives_the_same(
        messages in prop::collection::vec(values::op_frame(Reach::Within).prop_filter("fits", fits), 0..4),
        chunks in chunks(),
    ) {
        prop_assert_eq!(read_in_chunks(&stream_of(&messages), &chunks), Ok(messages));
    }

    #[test]
    fn any_chunking_of_bulk_frames_gives_the_same(
        messages in prop::collection::vec(values::bulk_frame(Reach::Within).prop_filter("fits", fits), 0..4),
        chunks in chunks(),
    ) {
        prop_assert_eq!(read_in_chunks(&stream_of(&messages), &chunks), Ok(messages));
    }
}

/// Every cut of a stream of two frames: the first message as soon as it is whole, the second not before.
#[test]
fn an_incomplete_frame_is_no_error() {
    let messages = [
        ToReceiver::Flush { number: 300 },
        ToReceiver::List(Directories::default()),
    ];
    let stream = stream_of(&messages);
    let first = codec::encode_frame(&messages[0]).unwrap().len();
    for cut in 0..=stream.len() {
        let mut reader = FrameReader::default();
        reader.push(&stream[..cut]);
        let mut seen = Vec::new();
        while let Some(message) = reader.next::<ToReceiver>().unwrap() {
            seen.push(message);
        }
        let whole = usize::from(cut >= first) + usize::from(cut == stream.len());
        assert_eq!(seen, messages[..whole], "cut at {cut}");
        assert_eq!(
            reader.is_empty(),
            cut == 0 || cut == first || cut == stream.len(),
            "cut at {cut}"
        );
        reader.push(&stream[cut..]);
        while let Some(message) = reader.next::<ToReceiver>().unwrap() {
            seen.push(message);
        }
        assert_eq!(seen, messages);
    }
}

#[test]
fn x04_an_announced_length_over_the_limit_is_refused_at_once() {
    fn refused<M: Message>(max: usize) {
        assert_eq!(M::BYTES_MAX, max);
        for length in [max as u32 + 1, 1 << 31, u32::MAX] {
            let mut reader = FrameReader::default();
            let prefix = length.to_be_bytes();
            reader.push(&prefix[..FRAME_PREFIX_BYTES - 1]);
            assert!(matches!(reader.next::<M>(), Ok(None)));
            reader.push(&prefix[FRAME_PREFIX_BYTES - 1..]);
            let fault = reader.next::<M>().err();
            let expected = CodecFault::TooLong {
                what: M::NAME,
                bytes: length as usize,
                limit: max,
            };
            assert_eq!(fault, Some(expected.clone()));
            assert_eq!(
                reader.next::<M>().err(),
                Some(expected),
                "it must not get over it"
            );
        }
        let mut reader = FrameReader::default();
        reader.push(&(max as u32).to_be_bytes());
        assert!(
            matches!(reader.next::<M>(), Ok(None)),
            "a frame at the limit is awaited"
        );
    }
    refused::<ToReceiver>(CONTROL_MESSAGE_BYTES_MAX);
    refused::<ToSender>(CONTROL_MESSAGE_BYTES_MAX);
    refused::<OpFrame>(OP_FRAME_BYTES_MAX);
    refused::<BulkFrame>(BULK_FRAME_BYTES_MAX);
    refused::<PairRequest>(PAIRING_MESSAGE_BYTES_MAX);
    refused::<PairReply>(PAIRING_MESSAGE_BYTES_MAX);
    refused::<PullRequest>(PULL_MESSAGE_BYTES_MAX);
    refused::<Note>(NOTE_BYTES_MAX);
}

/// a frame that is longer or shorter than its message.
#[test]
fn x04_a_frame_holds_exactly_one_message() {
    let next = |bytes: &[u8]| {
        let mut reader = FrameReader::default();
        reader.push(bytes);
        reader.next::<ToReceiver>()
    };
    assert_eq!(
        next(&[0, 0, 0, 2, 3, 7]),
        Ok(Some(ToReceiver::Flush { number: 7 }))
    );
    assert_eq!(
        next(&[0, 0, 0, 3, 3, 7, 0]),
        Err(CodecFault::Trailing {
            what: "control message",
            bytes: 1
        })
    );
    assert!(matches!(
        next(&[0, 0, 0, 1, 3, 7]),
        Err(CodecFault::Malformed { .. })
    ));
    assert!(matches!(next(&[0, 0, 0, 0]), Err(CodecFault::Malformed { .. })));
}
