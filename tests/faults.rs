//! What goes wrong in the middle of a transfer: bases and sources that change under it, and a disk that is full. Each is an
//! error of that file, nothing of it is published, and the file is sent whole the next time.

mod support;

use driftless::daemon::{Deletes, FailedEntry};
use driftless_protocol::limits::SPAN_BYTES;
use driftless_protocol::message::{
    BulkFrame, Content, DeltaPart, DeltaParts, FailureKind, OpBody, Place, RangeBody, RangeBytes, SealOp,
};
use driftless_protocol::{Attributes, Digest, Name, ObjectId, Timestamp};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::peer::{Packed, Peer, opening};
use support::relay::Relay;
use support::{Following, Pair, assert_no_leftovers, is_root, skip, until, wait_equal};

const SIZE: u64 = 300_000;

fn noise(bytes: u64, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes as usize];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

fn attributes() -> Attributes {
    Attributes {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp::new(1_700_000_000, 0).unwrap(),
        xattrs: None,
        link_group: ObjectId(0),
    }
}

/// Offers the file `f`, waits until it is wanted, lets `meanwhile` happen, and sends it as one range.
fn send(
    peer: &mut Peer,
    ops: &mut Packed,
    (number, content): (u64, &[u8]),
    meanwhile: impl FnOnce(),
    body: RangeBody,
) {
    let (size, digest) = (content.len() as u64, Digest::of(content));
    let place = Place {
        directory: ObjectId::ROOT,
        name: Name::new(*b"f").unwrap(),
    };
    let offer = OpBody::PutFile {
        place,
        object: ObjectId(10),
        attributes: attributes(),
        content: Content::Offer {
            size,
            digest: Some(digest),
        },
    };
    peer.send_ops(ops, number, [offer]);
    peer.wait("a need", |peer| peer.needs.iter().any(|need| need.0 == number));
    let has_basis = peer.needs.last() == Some(&(number, true));
    assert!(
        has_basis || !matches!(body, RangeBody::Delta { .. }),
        "there is no basis"
    );
    meanwhile();
    let attributes = attributes();
    peer.seal(
        ops,
        SealOp {
            number,
            size,
            digest,
            attributes,
        },
    );
    peer.send_ranges(&[BulkFrame {
        number,
        offset: 0,
        length: size as u32,
        body,
    }]);
    peer.wait_applied(number);
}

/// Somebody edits, or cuts, the present file after its signature was made and before the delta comes.
#[test]
fn a_basis_that_changes_under_a_delta_is_not_built_from() {
    const { assert!(SIZE <= SPAN_BYTES) };
    let pair = Pair::new();
    let old = noise(SIZE, 1);
    let mut new = old.clone();
    new[7] ^= 1;
    let path = pair.dst().join("f");
    fs::write(&path, &old).unwrap();
    let receiver = pair.receive();
    let (mut peer, _) = Peer::open(&pair, receiver.address(), &opening(b"dst", 7)).unwrap();
    let mut ops = peer.op_stream();
    let delta = || RangeBody::Delta {
        parts: DeltaParts(vec![
            DeltaPart::Literal { length: 8 },
            DeltaPart::Copy {
                offset: 8,
                length: SIZE as u32 - 8,
            },
        ]),
        literals: RangeBytes(zstd::bulk::compress(&new[..8], 1).unwrap()),
    };
    let open = || fs::File::options().write(true).open(&path).unwrap();
    // In place, behind what the delta brings.
    let edit = || open().write_all_at(b"local edit", 200_000).unwrap();
    send(&mut peer, &mut ops, (1, &new), edit, delta());
    assert_eq!(peer.failed.get(&1), Some(&FailureKind::WrongDigest));
    let mut edited = old.clone();
    edited[200_000..200_010].copy_from_slice(b"local edit");
    assert!(fs::read(&path).unwrap() == edited, "nothing of it was published");
    // Shorter than the copies reach.
    let cut = || open().set_len(1_000).unwrap();
    send(&mut peer, &mut ops, (2, &new), cut, delta());
    assert!(
        matches!(
            peer.failed.get(&2),
            Some(FailureKind::Basis | FailureKind::WrongDigest | FailureKind::Io)
        ),
        "{:?}",
        peer.failed
    );
    assert!(fs::read(&path).unwrap() == edited[..1_000]);
    // And whole, whatever stands there.
    let whole = RangeBody::Raw(RangeBytes(new.clone()));
    send(&mut peer, &mut ops, (3, &new), || (), whole);
    assert_eq!(peer.failed.get(&3), None);
    assert!(fs::read(&path).unwrap() == new);
    peer.leave();
    receiver.stop();
    assert_no_leftovers(&pair.dst());
}

/// A file that gets shorter while it is read never appears as something that it never was.
#[test]
fn a_source_that_is_cut_while_it_is_read_is_read_again() {
    let pair = Pair::new();
    // More than can be under way: it is not read to its end before the first of it has passed.
    let content = noise(64 << 20, 2);
    fs::write(pair.src().join("file"), &content).unwrap();
    let receiver = pair.receive();
    let relay = Relay::start(receiver.address(), 16 << 20);
    let following = Following::start(pair.sender_options(relay.address(), true));
    until("a part is on its way", || relay.passed() > 1 << 20);
    let file = fs::File::options()
        .write(true)
        .open(pair.src().join("file"))
        .unwrap();
    file.set_len(5_000_000).unwrap();
    drop(file);
    let arrived = pair.dst().join("file");
    until("it has arrived", || arrived.exists());
    assert!(
        fs::read(&arrived).unwrap() == content[..5_000_000],
        "what appears first is the file as it is now"
    );
    following.stop().unwrap();
    receiver.stop();
    pair.assert_equal();
    assert_no_leftovers(&pair.dst());
}

/// A small file system of its own, until dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, size: &str) -> Option<Small> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(path);
        let is_mounted = is_root() && mount.status().is_ok_and(|status| status.success());
        is_mounted.then(|| Small(path.to_owned()))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The disk is full in the middle of a large file, of a patch of one, and of its copy.
/// The signal that comes with such a write would end the process, at each start anew.
#[test]
fn a_file_beyond_the_limit_of_the_process_is_an_error_of_its_own() {
    let pair = Pair::new();
    let large = fs::File::create(pair.src().join("large")).unwrap();
    large.write_all_at(b"end", 40 << 20).unwrap();
    fs::write(pair.src().join("small"), "small").unwrap();
    let home = pair.path("home-limited");
    let mirror = |limit: &str| {
        let script = format!("ulimit -f {limit}; exec \"$0\" \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_driftless"), "mirror", "--once"])
            .args([pair.src(), pair.dst()])
            .env("DRIFTLESS_HOME", &home)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    // In blocks of 512 bytes: 32 MiB.
    let (status, told) = mirror("65536");
    assert_eq!(status, Some(3), "{told}");
    assert!(told.contains("large") && told.contains("ulimit -f"), "{told}");
    assert!(pair.dst().join("small").exists() && !pair.dst().join("large").exists());
    assert_no_leftovers(&pair.dst());
    let (status, told) = mirror("unlimited");
    assert_eq!(status, Some(0), "{told}");
}

/// A file or directory that nobody may change, until this is dropped.
struct Immutable(fs::File);

impl Immutable {
    fn make(path: &Path) -> Option<Immutable> {
        let file = fs::File::open(path).unwrap();
        set_immutable(&file, true).ok().map(|()| Immutable(file))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = set_immutable(&self.0, false);
    }
}

fn set_immutable(file: &fs::File, is_immutable: bool) -> rustix::io::Result<()> {
    let mut flags = ioctl_getflags(file)?;
    flags.set(IFlags::IMMUTABLE, is_immutable);
    ioctl_setflags(file, flags)
}

/// What an object left at its former place has a number of the target's own, and so is in no sum.
#[test]
fn what_cannot_be_removed_from_a_former_place_stays_in_error_until_it_is_gone() {
    for directory in ["", "d/e/"] {
        let mut pair = Pair::new();
        pair.deletes = Deletes::Always;
        let [old, new] = ["old", "new"].map(|name| format!("{directory}{name}"));
        fs::create_dir_all(pair.src().join("d/e")).unwrap();
        fs::write(pair.src().join(&old), "content").unwrap();
        assert!(pair.seed().unwrap().failed.is_empty());
        let Some(kept) = Immutable::make(&pair.dst().join(&old)) else {
            return skip("nothing can be made immutable here");
        };
        fs::rename(pair.src().join(&old), pair.src().join(&new)).unwrap();
        // Also of a sender, and of a receiver, that only find it there.
        for run in 0..3 {
            let summary = pair.seed().unwrap();
            assert!(pair.dst().join(&new).exists(), "{summary:?}");
            let is_told = |failed: &FailedEntry| failed.path == old && failed.error.contains("cannot remove");
            assert!(summary.failed.iter().any(is_told), "run {run}: {summary:?}");
        }
        drop(kept);
        let summary = pair.seed().unwrap();
        assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
        pair.assert_equal();
    }
}

/// The object is found at its former place whenever both are compared; that it is in error says enough.
#[test]
fn what_cannot_be_moved_is_in_error_and_not_compared_again_and_again() {
    let pair = Pair::new();
    fs::create_dir_all(pair.src().join("from/moved")).unwrap();
    assert!(pair.seed().unwrap().failed.is_empty());
    let Some(kept) = Immutable::make(&pair.dst().join("from")) else {
        return skip("nothing can be made immutable here");
    };
    fs::rename(pair.src().join("from/moved"), pair.src().join("moved")).unwrap();
    let summary = pair.seed().unwrap();
    assert!(
        summary.failed.iter().any(|failed| failed.path == "moved"),
        "{summary:?}"
    );
    drop(kept);
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
}

/// As `docs/durability.md` says of whatever fails: tried again by itself, in the same connection.
#[test]
fn what_could_not_be_removed_or_replaced_is_tried_again() {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Always;
    fs::create_dir(pair.src().join("d")).unwrap();
    for name in ["file", "d/file", "changed"] {
        fs::write(pair.src().join(name), name).unwrap();
    }
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let kept: Vec<_> = ["file", "d", "changed"]
        .iter()
        .filter_map(|name| Immutable::make(&pair.dst().join(name)))
        .collect();
    if kept.is_empty() {
        return skip("nothing can be made immutable here");
    }
    fs::remove_file(pair.src().join("file")).unwrap();
    fs::remove_dir_all(pair.src().join("d")).unwrap();
    fs::write(pair.src().join("changed"), "again").unwrap();
    until("all are in error", || {
        let said = following.watching.said();
        ["dst/file:", "dst/d/file:", "dst/changed:"]
            .iter()
            .all(|path| said.warnings.iter().any(|warning| warning.contains(path)))
    });
    drop(kept);
    wait_equal(&pair.src(), &pair.dst());
    following.watching.wait_in_sync();
    let summary = following.stop().unwrap();
    assert!(summary.failed.is_empty(), "{summary:?}");
    receiver.stop();
}

#[test]
fn a_disk_that_is_full_in_the_middle_keeps_what_it_has() {
    let pair = Pair::new();
    let Some(small) = Small::mount(&pair.dst(), "16m") else {
        return skip("cannot mount a tmpfs");
    };
    let mut content = noise(10 << 20, 3);
    fs::write(pair.src().join("first"), &content).unwrap();
    let receiver = pair.receive();
    let fails = |what: &str| {
        let summary = pair.seed_to(receiver.address()).unwrap();
        assert!(
            summary.failed.iter().any(|failed| failed.error.contains("space")),
            "{what}: {summary:?}"
        );
        assert_no_leftovers(&pair.dst());
    };
    assert!(pair.seed_to(receiver.address()).unwrap().failed.is_empty());
    // Another large file: its ranges.
    fs::write(pair.src().join("second"), noise(10 << 20, 4)).unwrap();
    fails("a new file");
    assert!(!pair.dst().join("second").exists());
    fs::remove_file(pair.src().join("second")).unwrap();
    // A copy of the first.
    fs::write(pair.src().join("copy"), &content).unwrap();
    fails("a copy");
    assert!(!pair.dst().join("copy").exists());
    fs::remove_file(pair.src().join("copy")).unwrap();
    // A page of the first: a patch, which is built aside.
    let old = content.clone();
    content[5_000_000] ^= 1;
    fs::write(pair.src().join("first"), &content).unwrap();
    fails("a patch");
    assert!(
        fs::read(pair.dst().join("first")).unwrap() == old,
        "the old content stays whole"
    );
    small.resize("64m");
    let summary = pair.seed_to(receiver.address()).unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    receiver.stop();
    pair.assert_equal();
    assert_no_leftovers(&pair.dst());
}
