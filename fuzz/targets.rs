//! Everything that reads bytes which others chose, each as a function of these bytes. What they return is wrong in no case: a
//! panic, a hang, or memory without bound is what is looked for.
//!
//! cargo-fuzz runs them one by one (`fuzz_targets/`); `tests/fuzz_corpus.rs` runs all of them over the corpus, and over
//! mutations of it, with any toolchain.

use driftless::engine::delta::{PeerSignature, RangeDelta, check_parts};
use driftless::engine::filter::{Filter, FilterBuilder, ReadFault, Role, RuleFiles};
use driftless::net::Unpacker;
use driftless_certs::{Fingerprint, PairingCode, Rights, peer_fingerprint};
use driftless_protocol::codec::{FrameReader, Message, decode, encode, encode_frame};
use driftless_protocol::limits::{OP_FRAME_BYTES_MAX, RANGE_BYTES_MAX};
use driftless_protocol::message::*;
use driftless_protocol::version::{HELLO_BYTES, Hello};
use driftless_protocol::{Kind, Name, RelPath};
use std::fmt::Debug;

/// What is fed with bytes.
pub type Target = fn(&[u8]);

/// Names and functions; the names are those of the corpus's directories.
pub const TARGETS: &[(&str, Target)] = &[
    ("messages", messages),
    ("packed", packed),
    ("signature", signature),
    ("delta", delta),
    ("filter_rules", filter_rules),
    ("texts", texts),
    ("configuration", configuration),
    ("certificate", certificate),
];

/// The decoders of the protocol: what is accepted can be sent on, and is the same then.
pub fn messages(bytes: &[u8]) {
    fn survives<M: Message + PartialEq + Debug>(bytes: &[u8]) {
        if let Ok(value) = decode::<M>(bytes) {
            let again = encode(&value).expect("what was decoded can be encoded");
            assert_eq!(decode::<M>(&again).as_ref(), Ok(&value));
        }
        // The same in pieces, as frames.
        let mut frames = FrameReader::default();
        for piece in bytes.chunks(7) {
            frames.push(piece);
            while let Ok(Some(value)) = frames.next::<M>() {
                encode_frame(&value).expect("what was decoded can be encoded");
            }
        }
    }
    survives::<ToReceiver>(bytes);
    survives::<ToSender>(bytes);
    survives::<OpFrame>(bytes);
    survives::<BulkFrame>(bytes);
    survives::<PairRequest>(bytes);
    survives::<PairReply>(bytes);
    if let Some(hello) = bytes.first_chunk::<HELLO_BYTES>() {
        let _ = Hello::from_bytes(hello);
    }
    if let Ok(path) = RelPath::parse(bytes) {
        let _ = path.to_string();
    }
}

/// A compressed stream of messages. The first byte says in which pieces it comes.
pub fn packed(bytes: &[u8]) {
    let Some((&size, stream)) = bytes.split_first() else {
        return;
    };
    let mut unpacker = Unpacker::new().expect("a decoder can be made");
    let mut messages = 0;
    for piece in stream.chunks(usize::from(size).max(1)) {
        let mut count = |frame: OpFrame| {
            assert!(encode(&frame).is_ok_and(|bytes| bytes.len() <= OP_FRAME_BYTES_MAX));
            messages += 1;
            // A bomb of empty frames has no end otherwise.
            messages < 10_000
        };
        if !matches!(unpacker.push(piece, &mut count), Ok(true)) {
            return;
        }
    }
    let _ = unpacker.finish();
}

/// A peer's signature, and a file that is matched with it. The first two bytes are the length of the file.
pub fn signature(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let at = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (file, signature) = rest.split_at(at);
    let Ok(signature) = PeerSignature::parse(signature.to_vec()) else {
        return;
    };
    let mut matcher = signature.matcher();
    let mut ranges: Vec<RangeDelta> = Vec::new();
    for piece in file.chunks(1000) {
        ranges.extend(matcher.push(piece));
    }
    ranges.extend(matcher.finish());
    let made: u64 = ranges.iter().map(|range| u64::from(range.length)).sum();
    assert_eq!(made, file.len() as u64, "the ranges do not cover the file");
    for range in &ranges {
        // Copies of a lying signature may point anywhere; the receiver checks them against its own basis.
        let length = u64::from(range.length);
        let outcome = check_parts(&range.parts, length, range.literals.len(), u64::MAX);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

/// A range as it comes from a peer: checked, and then carried out on a basis of 100,000 bytes.
pub fn delta(bytes: &[u8]) {
    let basis = [7; 100_000];
    let Ok(frame) = decode::<BulkFrame>(bytes) else {
        return;
    };
    let RangeBody::Delta { parts, literals } = frame.body else {
        return;
    };
    let Ok(literals) = zstd::bulk::decompress(&literals.0, RANGE_BYTES_MAX) else {
        return;
    };
    let length = u64::from(frame.length);
    if check_parts(&parts.0, length, literals.len(), basis.len() as u64).is_err() {
        return;
    }
    let (mut made, mut rest) = (0, &literals[..]);
    for part in parts.0 {
        match part {
            DeltaPart::Copy { offset, length } => {
                let start = usize::try_from(offset).expect("a copy is within the basis");
                made += basis[start..start + length as usize].len() as u64;
            }
            DeltaPart::Literal { length } => {
                let (taken, left) = rest.split_at(length as usize);
                (made, rest) = (made + taken.len() as u64, left);
            }
        }
    }
    assert!(made == length && rest.is_empty());
}

/// Rules of all kinds. The first byte chooses the kind; every rule file is the same text again.
pub fn filter_rules(bytes: &[u8]) {
    let Some((&kind, text)) = bytes.split_first() else {
        return;
    };
    let mut files = SameText(text);
    let mut builder = FilterBuilder::new(b"/srv/www");
    let lines = || text.split(|&byte| byte == b'\n').take(100);
    let built = match kind % 8 {
        0 => builder.filter(b". rules", &mut files).is_ok(),
        1 => lines().all(|line| builder.filter(line, &mut SameText(text)).is_ok()),
        2 => lines().all(|line| builder.exclude(line).is_ok()),
        3 => lines().all(|line| builder.exclude_regex(line).is_ok()),
        4 => builder.gitignore(b"rules", &mut files).is_ok(),
        5 => builder.clsync_rules(b"rules", &mut files).is_ok(),
        6 => lines().all(|line| builder.lsyncd_filter(line).is_ok()),
        _ => builder.filter(b": rules", &mut files).is_ok(),
    };
    if !built {
        return;
    }
    if let Ok(filter) = builder.build() {
        judge(&filter, &mut files);
    }
}

fn judge(filter: &Filter, files: &mut SameText<'_>) {
    let Ok(root) = filter.root(Role::Source, files) else {
        return;
    };
    for name in [&b"a"[..], b".git", b"a.o", b"[x]", b"**", b"\xff\n"] {
        let name = Name::new(name).expect("a name");
        for kind in [Kind::File, Kind::Directory] {
            let _ = root.verdict(&name, kind);
        }
        if let Ok(inner) = root.enter(&name, files) {
            let _ = inner.verdict(&name, Kind::File);
        }
    }
    let path = RelPath::parse(b"a/b/c").expect("a path");
    let _ = filter.explain(Role::Source, &path, Kind::File, files);
}

/// Every file has this text.
struct SameText<'a>(&'a [u8]);

impl RuleFiles for SameText<'_> {
    fn named(&mut self, _: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(Some(self.0.to_vec()))
    }

    fn in_tree(&mut self, directory: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        // A text that merges itself in every directory would be as deep as the limit, each time anew.
        Ok((directory.len() < 3).then(|| self.0.to_vec()))
    }

    fn above_tree(&mut self, _: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(None)
    }
}

/// What people paste: pairing codes, fingerprints, rights, limits.
pub fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(code) = text.parse::<PairingCode>() {
        let again = code
            .to_string()
            .parse::<PairingCode>()
            .expect("a code is read again");
        assert_eq!(again.to_string(), code.to_string());
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }
    if let Ok(rights) = text.parse::<Rights>() {
        assert_eq!(rights.to_string().parse(), Ok(rights));
    }
    let _ = text.parse::<driftless::net::Schedule>();
    let _ = text.parse::<driftless::net::Compression>();
    let _ = text.parse::<driftless::engine::fuse::DeleteLimit>();
}

/// A configuration, which an administrator wrote, or something that he pasted. What is said of it is one line, without anything
/// that a terminal obeys.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for fault in driftless::cli::configuration_faults(text) {
        assert!(
            !fault.is_empty() && !fault.contains(char::is_control),
            "{fault:?}"
        );
    }
}

/// The certificate of a peer, before anything is known of it.
pub fn certificate(bytes: &[u8]) {
    let _ = peer_fingerprint(&[rustls::pki_types::CertificateDer::from_slice(bytes)]);
}
