//! Owner, mode and times.

use super::*;
use driftless_protocol::entry::Kind;
use std::os::unix::fs::PermissionsExt;

fn chmod(place: &Place, n: &str, mode: u32) {
    std::fs::set_permissions(place.path().join(n), std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn mode_and_time_of_every_kind_are_set_exactly() {
    let place = Place::new();
    place.write("file", "");
    place.mkdir("dir");
    place.symlink("x", "link");
    let times = [
        time(0, 0),
        time(-1, 999_999_999),
        time(-86_400 * 365, 1),
        time(1_700_000_000, 123_456_789),
    ];
    for mtime in times {
        for mode in [0o000, 0o600, 0o644, 0o755, 0o777, 0o1777, 0o2750, 0o4711, 0o7777] {
            for (n, kind) in [
                ("file", Kind::File),
                ("dir", Kind::Directory),
                ("link", Kind::Symlink),
            ] {
                let wanted = ours(if kind == Kind::Symlink { 0 } else { mode }, mtime);
                for carried in [OWNER, NO_OWNER] {
                    let got = place
                        .dir
                        .set_attributes(&name(n), kind, &wanted, carried)
                        .unwrap();
                    assert_eq!(got.attributes, wanted, "{n}");
                    assert_eq!(place.dir.stat(&name(n)).unwrap(), Some(got));
                }
            }
            let staged = place.staged(b"");
            assert_eq!(
                staged
                    .set_attributes(&ours(mode, mtime), OWNER)
                    .unwrap()
                    .attributes,
                ours(mode, mtime)
            );
            let published = staged.publish(&name("published")).unwrap();
            assert_eq!(published.stat.attributes, ours(mode, mtime));
        }
    }
}

#[test]
fn what_is_right_already_is_not_touched() {
    let place = Place::new();
    place.write("f", "");
    let before = place.dir.stat(&name("f")).unwrap().unwrap();
    for carried in [OWNER, NO_OWNER] {
        let after = place
            .dir
            .set_attributes(&name("f"), Kind::File, &before.attributes, carried)
            .unwrap();
        assert_eq!(after, before, "the ctime moved");
    }
}

#[test]
fn the_directory_itself_can_be_set() {
    let place = Place::new();
    let dir = place.dir.make_dir(&name("d")).unwrap();
    let wanted = ours(0o2711, time(-5, 5));
    assert_eq!(
        dir.set_self_attributes(&wanted, OWNER).unwrap().attributes,
        wanted
    );
    dir.set_self_mtime(time(7, 7)).unwrap();
    assert_eq!(
        dir.stat_self().unwrap().attributes,
        Attributes {
            mtime: time(7, 7),
            ..wanted
        }
    );
}

#[test]
fn the_wrong_kind_or_object_is_left_alone() {
    let place = Place::new();
    place.write("a", "");
    place.write("b", "");
    let wanted = ours(0o777, time(1, 1));
    let kinds = [Kind::Directory, Kind::Symlink];
    for kind in kinds {
        let error = place
            .dir
            .set_attributes(&name("a"), kind, &wanted, OWNER)
            .unwrap_err();
        assert_eq!(error.kind(), FsErrorKind::Substituted);
    }
    let stat = |n: &str| place.dir.stat(&name(n)).unwrap().unwrap();
    let (a, b) = (stat("a"), stat("b"));
    let error = place
        .dir
        .set_attributes_of(&name("a"), Kind::File, &b.stamp, &wanted, OWNER)
        .unwrap_err();
    assert_eq!(error.kind(), FsErrorKind::Substituted);
    assert_eq!(stat("a"), a);
    place
        .dir
        .set_attributes_of(&name("a"), Kind::File, &a.stamp, &wanted, OWNER)
        .unwrap();
    assert_eq!(stat("a").attributes, wanted);
}

/// The kernel reads the highest number as "leave it", and bits above as a file type.
#[test]
fn values_that_mean_something_else_to_the_kernel_are_refused() {
    let place = Place::new();
    place.write("f", "");
    let before = place.dir.stat(&name("f")).unwrap();
    let good = ours(0o644, time(1, 1));
    for bad in [
        Attributes {
            uid: u32::MAX,
            ..good
        },
        Attributes {
            gid: u32::MAX,
            ..good
        },
        Attributes {
            mode: 0o10_0644,
            ..good
        },
    ] {
        let error = place
            .dir
            .set_attributes(&name("f"), Kind::File, &bad, OWNER)
            .unwrap_err();
        assert_eq!(error.kind(), FsErrorKind::Unsupported, "{error}");
        assert!(place.staged(b"").set_attributes(&bad, OWNER).is_err());
    }
    assert_eq!(place.dir.stat(&name("f")).unwrap(), before);
}

#[test]
fn owners_are_changed_by_root_and_refused_to_others() {
    let place = Place::new();
    place.write("f", "");
    place.symlink("x", "l");
    place.mkdir("d");
    for (n, kind, mode) in [
        ("f", Kind::File, 0o6755),
        ("d", Kind::Directory, 0o3770),
        ("l", Kind::Symlink, 0),
    ] {
        let before = place.dir.stat(&name(n)).unwrap().unwrap();
        let wanted = Attributes {
            mode,
            uid: 12_345,
            gid: 54_321,
            mtime: time(9, 9),
            ..Attributes::default()
        };
        let set = place.dir.set_attributes(&name(n), kind, &wanted, OWNER);
        if is_root() {
            // Set-id bits are there although chown clears them.
            assert_eq!(set.unwrap().attributes, wanted);
            let back = Attributes {
                uid: 0,
                gid: 54_321,
                ..wanted
            };
            assert_eq!(
                place
                    .dir
                    .set_attributes(&name(n), kind, &back, OWNER)
                    .unwrap()
                    .attributes,
                back
            );
        } else {
            assert_eq!(set.unwrap_err().kind(), FsErrorKind::Permission);
            let after = place.dir.stat(&name(n)).unwrap().unwrap();
            assert_eq!(
                after.attributes, before.attributes,
                "a refused change leaves the mode as it was"
            );
        }
    }
    let staged = place.staged(b"x");
    let wanted = Attributes {
        mode: 0o4755,
        uid: 12_345,
        gid: 54_321,
        mtime: time(-9, 9),
        ..Attributes::default()
    };
    match staged.set_attributes(&wanted, OWNER) {
        Ok(stat) => assert_eq!(stat.attributes, wanted),
        Err(error) => assert!(!is_root() && error.kind() == FsErrorKind::Permission),
    }
}

/// At rest after every step, judged by whoever then owns it, the mode is within the old one or within the new one.
#[test]
fn no_step_allows_more_than_both_the_old_and_the_new() {
    use crate::fs::meta::steps;
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.write("f", "");
    place.mkdir("d");
    let modes = [
        0o0, 0o600, 0o660, 0o606, 0o777, 0o1777, 0o4755, 0o2750, 0o6711, 0o7777,
    ];
    let owners = [(0, 0), (0, 1_001), (1_002, 1_001), (1_002, 1_002)];
    let all = modes
        .iter()
        .flat_map(|&mode| owners.map(|(uid, gid)| (mode, uid, gid)));
    let all: Vec<_> = all
        .map(|(mode, uid, gid)| Attributes {
            mode,
            uid,
            gid,
            mtime: time(1, 0),
            ..Attributes::default()
        })
        .collect();
    for (n, kind) in [("f", Kind::File), ("d", Kind::Directory)] {
        for old in &all {
            for new in &all {
                place.dir.set_attributes(&name(n), kind, old, OWNER).unwrap();
                steps::take();
                assert_eq!(
                    place
                        .dir
                        .set_attributes(&name(n), kind, new, OWNER)
                        .unwrap()
                        .attributes,
                    *new
                );
                for at in steps::take() {
                    // The sticky bit takes rights away, so losing it is what counts.
                    let within = |b: &Attributes| {
                        (at.uid, at.gid) == (b.uid, b.gid)
                            && at.mode & !0o1000 & !b.mode == 0
                            && b.mode & 0o1000 & !at.mode == 0
                    };
                    assert!(within(old) || within(new), "{n}: {old:?} -> {at:?} -> {new:?}");
                }
            }
        }
    }
}

/// An access ACL with an entry for user 5,000, as the kernel takes it.
fn acl(mode: u16, user: u16, group: u16) -> Vec<u8> {
    let entries = [
        (0x01, mode >> 6 & 7, u32::MAX),
        (0x02, user, 5_000),
        (0x04, group, u32::MAX),
        (0x10, mode >> 3 & 7, u32::MAX),
        (0x20, mode & 7, u32::MAX),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend([u16::to_le_bytes(tag), u16::to_le_bytes(permissions)].concat());
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

/// What the owner, user 5,000, the owning group and everybody else may do.
fn rights(mode: u16, acl: Option<&[u8]>) -> [u16; 4] {
    let (owner, mask, other) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
    let entry = |wanted: u16| {
        acl.unwrap_or_default()
            .get(4..)
            .unwrap_or_default()
            .chunks_exact(8)
            .find_map(|entry| {
                let field = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
                (field(0) == wanted).then(|| field(2))
            })
    };
    match (entry(0x02), entry(0x04)) {
        (Some(user), Some(group)) => [owner, user & mask, group & mask, other],
        _ => [owner, other, mask, other],
    }
}

/// S-20: as above, with ACLs: nobody gets at any step what neither the old nor the new one gives.
#[test]
fn s20_no_step_of_a_change_of_acls_allows_more_than_before_or_after() {
    use crate::fs::meta::{Metadata, steps};
    use driftless_protocol::xattr::{ACL_ACCESS, Xattr, Xattrs};
    let place = Place::new();
    place.write("f", "");
    place.mkdir("d");
    let classes = XattrClasses::USUAL.common(place.dir.holds_xattrs(XattrClasses::ACL));
    if classes.is_empty() {
        return;
    }
    let carried = Carried {
        xattrs: classes,
        ..NO_OWNER
    };
    let mut all = Vec::new();
    for mode in [0o600u16, 0o640, 0o660, 0o604, 0o676, 0o4770, 0o2755] {
        all.push((mode, None));
        for (user, group) in [(7, 0), (0, 7), (4, 2)] {
            all.push((mode, Some(acl(mode, user, group))));
        }
    }
    let set = |n: &str, kind: Kind, (mode, acl): &(u16, Option<Vec<u8>>)| {
        let list = acl.iter().map(|value| Xattr {
            name: ACL_ACCESS.to_vec(),
            value: value.clone(),
        });
        let xattrs = Xattrs::new(list.collect()).unwrap();
        let attributes = ours(*mode, time(1, 0));
        let wanted = Metadata {
            xattrs: Some(std::borrow::Cow::Borrowed(&xattrs)),
            ..Metadata::plain(&attributes, carried)
        };
        let applied = place.dir.set_metadata(&name(n), kind, &wanted).unwrap();
        assert!(applied.refused.is_none(), "{:?}", applied.refused);
        assert_eq!(applied.stat.attributes, attributes);
        assert_eq!(place.dir.xattrs(&name(n), classes).unwrap().xattrs, xattrs);
    };
    for (n, kind) in [("f", Kind::File), ("d", Kind::Directory)] {
        for old in &all {
            for new in &all {
                set(n, kind, old);
                steps::take();
                set(n, kind, new);
                let before = rights(old.0, old.1.as_deref());
                let after = rights(new.0, new.1.as_deref());
                for (at, acl) in steps::take_with_acls() {
                    let now = rights(at.mode, acl.as_deref());
                    let wider = (0..4).find(|&who| now[who] & !(before[who] | after[who]) != 0);
                    assert_eq!(wider, None, "{n}: {old:?} -> {at:?} {acl:?} -> {new:?}");
                }
            }
        }
    }
}

#[test]
fn objects_that_may_not_be_read_can_still_be_set() {
    let place = Place::new();
    place.write("f", "");
    place.mkdir("d");
    for (n, kind) in [("f", Kind::File), ("d", Kind::Directory)] {
        chmod(&place, n, 0);
        let wanted = ours(0o711, time(3, 3));
        assert_eq!(
            place
                .dir
                .set_attributes(&name(n), kind, &wanted, OWNER)
                .unwrap()
                .attributes,
            wanted
        );
    }
}
