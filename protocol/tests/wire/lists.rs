//! Every place of the wire that holds a counted list or bytes, with what stands before and behind it. Made of bytes
//! alone, so that it also says what the encoder would refuse to make.

use crate::dump;
use driftless_protocol::codec::{self, CodecFault};
use driftless_protocol::limits::*;
use driftless_protocol::message::*;

pub(crate) struct List {
    pub(crate) what: &'static str,
    pub(crate) max: usize,
    before: &'static str,
    element: &'static str,
    behind: &'static str,
    decode: fn(&[u8]) -> Result<(), CodecFault>,
}

impl List {
    /// Decodes the message with `elements` elements, of which it claims `count`.
    pub(crate) fn decode(&self, count: u64, elements: usize) -> Result<(), CodecFault> {
        let element = dump::bytes(self.element);
        let body = element.repeat(elements);
        let parts = [
            dump::bytes(self.before),
            dump::number(count),
            body,
            dump::bytes(self.behind),
        ];
        (self.decode)(&parts.concat())
    }
}

fn any<M: codec::Message>(bytes: &[u8]) -> Result<(), CodecFault> {
    codec::decode::<M>(bytes).map(drop)
}

macro_rules! lists {
    ($($type:ident $what:literal $max:ident: $before:literal [$element:literal] $behind:literal;)*) => {
        &[$(List {
            what: concat!(stringify!($type), " ", $what),
            max: $max,
            before: $before,
            element: $element,
            behind: $behind,
            decode: any::<$type>,
        }),*]
    };
}

pub(crate) const LISTS: &[List] = lists! {
    ToReceiver "Open.module" MODULE_NAME_BYTES_MAX: "00 00" ["6d"] "00*17";
    ToReceiver "Open.path" PATH_ELEMENTS_MAX: "00 00 00" ["01 61"] "00*16";
    ToReceiver "Open.path, a name" NAME_BYTES_MAX: "00 00 00 01" ["61"] "00*16";
    ToReceiver "Open.source" TEXT_BYTES_MAX: "00 00 00 00 00" ["61"] "00*14";
    ToReceiver "Open.upstream" RELAYS_MAX: "00*18" ["00*32 01 61"] "00";
    ToReceiver "Open.upstream, a source" TEXT_BYTES_MAX: "00*18 01 00*32" ["61"] "00";
    ToReceiver "List" LIST_DIRECTORIES_MAX: "01" ["fd ff*8"] "";
    ToReceiver "ListDisk" PATH_ELEMENTS_MAX: "02" ["01 61"] "";
    ToReceiver "ListDisk, a name" NAME_BYTES_MAX: "02 01" ["61"] "";
    ToReceiver "Owners" OWNERS_MAX: "04" ["00 07 02 09"] "";
    ToReceiver "Owners, a name" OWNER_NAME_BYTES_MAX: "04 01 01 07 00" ["61"] "";
    ToReceiver "Survey.path" PATH_ELEMENTS_MAX: "05" ["01 61"] "00 00";
    ToReceiver "Survey.path, a name" NAME_BYTES_MAX: "05 01" ["61"] "00 00";
    ToReceiver "ReadContents.path" PATH_ELEMENTS_MAX: "08" ["01 61"] "00 00";
    ToReceiver "ReadContents.names" CONTENTS_NAMES_MAX: "08 00" ["01 61"] "00";
    ToReceiver "Doubt" DOUBTED_PATHS_MAX: "09" ["01 01 61"] "";
    ToReceiver "Doubt, a path" PATH_ELEMENTS_MAX: "09 01" ["01 61"] "";
    ToSender "Opened.root_path" TEXT_BYTES_MAX: "00*8 00*32 01" ["61"] "01 00";
    ToSender "Listing.rows" LISTING_ROWS_MAX: "01" ["01 6e 09 00 00*7 00 00 00*32 00"] "01";
    ToSender "Listing.rows, a name" NAME_BYTES_MAX: "01 01" ["6e"] "09 00 00*7 00 00 00*32 00 01";
    ToSender "ListingFailed" TEXT_BYTES_MAX: "02" ["61"] "";
    ToSender "Signature.part" SIGNATURE_PART_BYTES_MAX: "04 01" ["61"] "00";
    ToSender "Failed.text" TEXT_BYTES_MAX: "06 01 00" ["61"] "00";
    ToSender "Held.spans" HELD_SPANS_MAX: "08 01" ["fd ff*8 00*32"] "";
    ToSender "Owners" OWNERS_MAX: "09" ["00 07 00"] "";
    ToSender "Diverged.path" PATH_ELEMENTS_MAX: "0c" ["01 61"] "00 00 00";
    ToSender "Diverged.path, a name" NAME_BYTES_MAX: "0c 01" ["61"] "00 00 00";
    ToSender "Contents" CONTENTS_NAMES_MAX: "0d" ["01 00*32"] "";
    OpFrame "the list" OPS_PER_FRAME_MAX: "" ["02 01"] "";
    OpFrame "MakeDirectory.place" NAME_BYTES_MAX: "01 00 01 00 00 00 07" ["6e"] "02 00*7 00";
    OpFrame "PutFile.content" INLINE_CONTENT_BYTES_MAX: "01 00 01 00 00 01 07 01 6e 02 00*7 00 00*32" ["61"] "00";
    OpFrame "Patch.literals" PATCH_LITERALS_BYTES_MAX: "01 00 01 00 00 01 07 01 6e 02 00*7 02 00 00*32 00*32 00" ["61"] "00";
    OpFrame "PutSymlink.target" LINK_TARGET_BYTES_MAX: "01 00 01 00 00 02 07 01 6e 02 00*7" ["61"] "00";
    OpFrame "Move.to" NAME_BYTES_MAX: "01 00 01 00 00 04 02 07" ["6e"] "00";
    OpFrame "Owners" OWNERS_MAX: "01 00 01 00 00 0b" ["00 07 02 09"] "00";
    OpFrame "Op.xattrs, a name" XATTR_NAME_BYTES_MAX: "01 00 01 00 00 08 00 01" ["61"] "00";
    OpFrame "Op.xattrs, a value" XATTR_VALUE_BYTES_MAX: "01 00 01 00 00 08 00 01 01 61" ["61"] "";
    BulkFrame "Raw" RANGE_BYTES_MAX: "01 00 01 00" ["61"] "";
    BulkFrame "Zstd" RANGE_BYTES_MAX: "01 00 01 01" ["61"] "";
    BulkFrame "Delta.parts" DELTA_PARTS_MAX: "01 00 01 03" ["00 fd ff*8 fc ff*4"] "00";
    BulkFrame "Delta.literals" RANGE_BYTES_MAX: "01 00 01 03 00" ["61"] "";
    PairRequest "name" TEXT_BYTES_MAX: "00*16" ["61"] "";
    PairReply "module" MODULE_NAME_BYTES_MAX: "" ["61"] "00 00";
    PairReply "name" TEXT_BYTES_MAX: "00" ["61"] "00";
    PullRequest "tree" MODULE_NAME_BYTES_MAX: "" ["61"] "";
    Note "Ended.text" TEXT_BYTES_MAX: "00 07 00" ["61"] "";
};

/// Counts that no sender of ours would claim, the 5 bytes of 4 GiB among them.
pub(crate) fn lies(max: usize) -> [u64; 7] {
    let max = max as u64;
    [
        max + 1,
        2 * max,
        1 << 31,
        u64::from(u32::MAX),
        1 << 32,
        i64::MAX as u64,
        u64::MAX,
    ]
}
