//! Which ops share a frame.
//!
//! What waits is gathered, up to some bytes of content; the last op may be of any size. Both together must fit a frame, or the
//! encoder refuses it and the connection ends. So what an op takes is never underestimated, and what is gathered before the last
//! one is what the largest leaves.

use crossbeam_channel::Receiver;
use driftless_protocol::limits::{
    DELTA_PARTS_MAX, OP_FRAME_BYTES_MAX, OPS_PER_FRAME_MAX, OWNER_NAME_BYTES_MAX, PATCH_LITERALS_BYTES_MAX,
    XATTR_SET_BYTES_MAX, XATTRS_MAX,
};
use driftless_protocol::message::{OpBody, OpFrame, OpMessage};

/// Bytes that a frame gathers before its last op.
const GATHERED_BYTES: usize = 48 << 10;

/// What an op takes beside its content: a name of at most 255 bytes, attributes, digests and numbers.
const OP_BYTES: usize = 512;

/// What an extended attribute takes beside its name and value.
const XATTR_BYTES: usize = 8;

/// The largest op there is: a patch, with as many parts and extended attributes as there may be. See `Content::held_bytes`.
const LARGEST: usize = OP_BYTES
    + PATCH_LITERALS_BYTES_MAX
    + 16 * DELTA_PARTS_MAX
    + XATTR_SET_BYTES_MAX
    + XATTR_BYTES * XATTRS_MAX;

const _: () = assert!(GATHERED_BYTES + LARGEST <= OP_FRAME_BYTES_MAX);

/// Gathers what is waiting into one frame.
pub(super) fn collect_ops(first: OpMessage, waiting: &Receiver<OpMessage>) -> OpFrame {
    let mut bytes = weight(&first);
    let mut frame = vec![first];
    while frame.len() < OPS_PER_FRAME_MAX && bytes < GATHERED_BYTES {
        let Ok(next) = waiting.try_recv() else { break };
        bytes += weight(&next);
        frame.push(next);
    }
    OpFrame(frame)
}

/// What a message takes in a frame, at most.
fn weight(message: &OpMessage) -> usize {
    let OpMessage::Op(op) = message else {
        return OP_BYTES;
    };
    let text = match &op.body {
        OpBody::PutSymlink { target, .. } => target.0.len(),
        OpBody::Owners(rows) => rows.0.len() * (OWNER_NAME_BYTES_MAX + 16),
        _ => 0,
    };
    OP_BYTES + op.held_bytes() + text + XATTR_BYTES * op.xattrs.iter().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use driftless_protocol::codec::encode_frame;
    use driftless_protocol::limits::{INLINE_CONTENT_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
    use driftless_protocol::message::{
        Content, DeltaPart, DeltaParts, InlineContent, Op, PatchLiterals, Place,
    };
    use driftless_protocol::{Attributes, Digest, Name, ObjectId, Xattr, Xattrs};

    fn op(content: Content, xattrs: Xattrs) -> OpMessage {
        OpMessage::Op(Op {
            number: u64::MAX,
            after: u64::MAX,
            barrier: true,
            body: OpBody::PutFile {
                place: Place {
                    directory: ObjectId(u64::MAX),
                    name: Name::new(vec![b'n'; 255]).unwrap(),
                },
                object: ObjectId(u64::MAX),
                attributes: Attributes::default(),
                content,
            },
            xattrs,
        })
    }

    /// As large as one may be.
    fn patch() -> OpMessage {
        let part = DeltaPart::Copy {
            offset: u64::MAX >> 2,
            length: u32::MAX,
        };
        let xattrs = (0..3).map(|number| Xattr {
            name: format!("user.{number}").into_bytes(),
            value: vec![7; XATTR_VALUE_BYTES_MAX],
        });
        let content = Content::Patch {
            size: 1 << 40,
            digest: Digest::of(b"to"),
            basis: Digest::of(b"from"),
            parts: DeltaParts(vec![part; DELTA_PARTS_MAX]),
            literals: PatchLiterals(vec![7; PATCH_LITERALS_BYTES_MAX]),
        };
        op(content, Xattrs::new(xattrs.collect()).unwrap())
    }

    fn inline(length: usize) -> OpMessage {
        let bytes = vec![7; length];
        let content = Content::Inline {
            digest: Digest::of(&bytes),
            bytes: InlineContent(bytes),
        };
        op(content, Xattrs::default())
    }

    /// Patches and attributes count, and the last one is whatever comes.
    #[test]
    fn whatever_waits_its_frame_can_be_encoded() {
        let small = || (0..200).map(|_| inline(100)).collect::<Vec<_>>();
        let mut mixed = small();
        mixed.extend([patch(), patch(), inline(INLINE_CONTENT_BYTES_MAX)]);
        mixed.extend(small());
        mixed.extend([inline(48 << 10), patch(), patch()]);
        mixed.extend((0..80).map(|_| inline(0)));
        mixed.push(patch());
        let (told, waiting) = unbounded();
        let number = mixed.len();
        mixed.into_iter().for_each(|message| told.send(message).unwrap());
        let (mut seen, mut frames) = (0, 0);
        while let Ok(first) = waiting.try_recv() {
            let frame = collect_ops(first, &waiting);
            let encoded = encode_frame(&frame).unwrap();
            let estimated: usize = frame.0.iter().map(weight).sum();
            assert!(encoded.len() <= estimated, "{} of {estimated}", encoded.len());
            seen += frame.0.len();
            frames += 1;
        }
        assert_eq!(seen, number);
        assert!(frames < 30, "small ones share frames: {frames}");
    }
}
