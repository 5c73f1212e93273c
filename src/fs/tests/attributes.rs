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
