//! what a decoder allocates is bounded, whatever the bytes claim. Alone in its process, because it counts
//! all that is allocated in it.

#[path = "wire/dump.rs"]
mod dump;
#[path = "wire/lists.rs"]
mod lists;

use driftless_protocol::codec::{self, FrameReader, Message};
use driftless_protocol::limits::*;
use driftless_protocol::message::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it came; counting touches no memory of others.
// `realloc` and `alloc_zeroed` are the trait's own, which go through `alloc` (so growing counts old and new together).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above, so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// No message may take more, decoded from bytes that are there already.
const DECODED_BYTES_MAX: usize = 4 << 20;

/// What `action` had allocated at its worst moment, over what was there before.
fn peak_of(action: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    action();
    PEAK.load(Ordering::Relaxed) - before
}

fn decode<M: Message>(bytes: &[u8]) -> bool {
    codec::decode::<M>(bytes).is_ok()
}

type Decoder = fn(&[u8]) -> bool;

const DECODERS: [(Decoder, usize); 6] = [
    (decode::<ToReceiver>, ToReceiver::BYTES_MAX),
    (decode::<ToSender>, ToSender::BYTES_MAX),
    (decode::<OpFrame>, OpFrame::BYTES_MAX),
    (decode::<BulkFrame>, BulkFrame::BYTES_MAX),
    (decode::<PairRequest>, PairRequest::BYTES_MAX),
    (decode::<PairReply>, PairReply::BYTES_MAX),
];

/// One test, so that nothing else allocates meanwhile.
#[test]
fn x01_x04_decoding_takes_bounded_memory() {
    lying_counts_allocate_nothing();
    full_messages_stay_below_the_cap();
    repeated_patterns_stay_below_the_cap();
    a_frame_that_lies_allocates_nothing();
    naming_a_message_allocates_nothing();
}

/// The cause's text, the input itself and first elements are all that a refused count may cost.
fn lying_counts_allocate_nothing() {
    for list in lists::LISTS {
        for count in lists::lies(list.max) {
            let peak = peak_of(|| assert!(list.decode(count, 1).is_err()));
            assert!(peak < 4 << 10, "{} that claims {count}: {peak} bytes", list.what);
        }
        // A count within its limit may be believed, but not for more than it could ever be.
        let peak = peak_of(|| assert!(list.decode(list.max as u64, 0).is_err()));
        assert!(
            peak < list.max + (32 << 10),
            "{} that claims {}: {peak} bytes",
            list.what,
            list.max
        );
    }
}

/// The lists of the smallest elements make the most of each byte.
fn full_messages_stay_below_the_cap() {
    for list in lists::LISTS {
        // The input is part of what is counted here.
        let peak = peak_of(|| assert!(list.decode(list.max as u64, list.max).is_ok()));
        assert!(
            peak < DECODED_BYTES_MAX + 3 * BULK_FRAME_BYTES_MAX,
            "{}: {peak} bytes",
            list.what
        );
    }
    let op = "00 fb 2c 01 00 00 01 07 01 6e 02 00*7 00 00*32";
    let content = vec![b'x'; 190];
    let op = [dump::bytes(op), dump::number(190), content, vec![0]].concat();
    let frame = [
        dump::number(OPS_PER_FRAME_MAX as u64),
        op.repeat(OPS_PER_FRAME_MAX),
    ]
    .concat();
    assert!(frame.len() <= OP_FRAME_BYTES_MAX);
    let peak = peak_of(|| assert!(decode::<OpFrame>(&frame)));
    assert!(peak < DECODED_BYTES_MAX, "a full op frame: {peak} bytes");
}

/// Every pattern of one and two bytes, and of counts that lie, to the length of the largest message.
fn repeated_patterns_stay_below_the_cap() {
    let two = [0, 1, 2, 3, 6, 0x61, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
    let pairs = two.iter().flat_map(|&a| two.iter().map(move |&b| vec![a, b]));
    let long = [
        vec![0xfc, 0xff, 0xff, 0xff, 0xff],
        vec![0xfb, 0xff, 0xff],
        vec![0x01, 0x61],
        vec![0xff; 9],
    ];
    let heads = [
        &[][..],
        &[0x01],
        &[0x02],
        &[0x04, 0x01],
        &[0x01, 0x00, 0x01],
        &[0xfb, 0x00, 0x10],
        &[0xfb, 0x00, 0x08],
    ];
    let longest = DECODERS.iter().map(|(_, max)| *max).max().unwrap();
    for pattern in pairs.chain(long) {
        for head in heads {
            let mut bytes = [head, &*pattern.repeat(longest / pattern.len())].concat();
            bytes.resize(longest, 0);
            for (decode, max) in DECODERS {
                let peak = peak_of(|| _ = decode(&bytes[..max]));
                assert!(
                    peak < DECODED_BYTES_MAX,
                    "{head:02x?} and {pattern:02x?}: {peak} bytes"
                );
            }
        }
    }
}

fn a_frame_that_lies_allocates_nothing() {
    let peak = peak_of(|| {
        let mut reader = FrameReader::default();
        reader.push(&u32::MAX.to_be_bytes());
        assert!(reader.next::<OpFrame>().is_err());
        let mut reader = FrameReader::default();
        reader.push(&(OP_FRAME_BYTES_MAX as u32).to_be_bytes());
        assert!(matches!(reader.next::<OpFrame>(), Ok(None)));
    });
    assert!(peak < 1 << 10, "{peak} bytes for two prefixes");
}

/// What an unexpected message is called does not depend on what is in it.
fn naming_a_message_allocates_nothing() {
    let message = ToSender::Signature {
        number: 1,
        part: SignaturePart(vec![7; SIGNATURE_PART_BYTES_MAX]),
        last: true,
    };
    let peak = peak_of(|| assert_eq!(message.kind(), "Signature"));
    assert!(peak < 1 << 10, "{peak} bytes for a name");
}
