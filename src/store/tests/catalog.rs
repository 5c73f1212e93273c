//! What the catalog promises, one promise at a time.

use super::*;
use crate::store::record::{decode_entry, encode_entry};
use proptest::prelude::*;
use std::sync::mpsc;

#[test]
fn an_object_has_one_slot_and_removals_are_merged_in_order() {
    let home = Home::new();
    let catalog = home.catalog(Role::Sender);
    let put = |object: u64, sequence: u64| {
        let mut entry = file(object, 1, &format!("f{object}"));
        entry.sequence = sequence;
        catalog.update(false, |tables| tables.put(&entry)).unwrap();
    };
    let journal = |after, limit| catalog.read(|view| view.changed_after(after, limit)).unwrap();
    put(2, 1);
    put(3, 2);
    put(4, 3);
    put(2, 4);
    put(3, 2);
    catalog
        .update(false, |tables| tables.remove(ObjectId(4), Some(5)))
        .unwrap();
    put(2, 6);
    let removed = Change::Removed {
        object: ObjectId(4),
        place: place(1, "f4"),
        kind: Kind::File,
        entries: 1,
    };
    let whole = vec![
        (2, Change::Object(ObjectId(3))),
        (5, removed),
        (6, Change::Object(ObjectId(2))),
    ];
    assert_eq!(journal(0, 10), whole);
    assert_eq!(journal(0, 2), whole[..2]);
    assert_eq!(journal(2, 10), whole[1..]);
    assert_eq!(journal(5, 10), whole[2..]);
    assert_eq!(journal(6, 10), []);
    assert_eq!(journal(u64::MAX, 10), []);
    assert_eq!(journal(0, 0), []);

    catalog
        .update(false, |tables| tables.drop_tombstones_through(5))
        .unwrap();
    assert_eq!(journal(0, 10), [whole[0].clone(), whole[2].clone()]);
    assert_eq!(catalog.read(|view| view.last_sequence()).unwrap(), 6);
    assert_eq!(catalog.update(false, |tables| tables.next_sequence()).unwrap(), 7);
}

#[test]
fn a_taken_sequence_is_refused_and_changes_nothing() {
    let home = Home::new();
    let catalog = home.catalog(Role::Sender);
    let mut first = file(2, 1, "a");
    first.sequence = 1;
    catalog
        .update(false, |tables| {
            tables.put(&first)?;
            tables.put(&file(3, 1, "b"))?;
            tables.remove(ObjectId(3), Some(2))
        })
        .unwrap();
    for sequence in [1, 2] {
        let mut second = file(4, 1, "c");
        second.sequence = sequence;
        let put = catalog.update(false, |tables| tables.put(&second));
        assert!(matches!(put, Err(StoreError::SequenceTaken { .. })), "{put:?}");
        let removed = catalog.update(false, |tables| {
            tables.put(&file(5, 1, "d"))?;
            tables.remove(ObjectId(5), Some(sequence))
        });
        assert!(
            matches!(removed, Err(StoreError::SequenceTaken { .. })),
            "{removed:?}"
        );
    }
    assert_eq!(catalog.read(|view| view.count()).unwrap(), 1);
    assert_eq!(catalog.read(|view| view.children(ObjectId(1))).unwrap().len(), 1);
}

#[test]
fn a_number_is_never_given_out_twice() {
    let home = Home::new();
    let catalog = home.catalog(Role::Sender);
    let mut highest = 1;
    let mut take = |catalog: &Catalog, commit: bool| {
        let mut taken = 0;
        let _ = catalog.update(false, |tables| {
            taken = tables.next_object()?.0;
            tables.put(&file(taken, 1, "x"))?;
            if commit {
                Ok(())
            } else {
                Err(StoreError::NumbersExhausted)
            }
        });
        assert!(taken > highest, "{taken} after {highest}");
        highest = taken;
        taken
    };
    assert_eq!(take(&catalog, true), 2);
    assert_eq!(take(&catalog, false), 3);
    assert_eq!(take(&catalog, true), 4);
    // A crash, as far as the disk is concerned: what is there now is what a restart would find.
    let crashed = Home::new();
    std::fs::copy(&home.path, &crashed.path).unwrap();
    drop(catalog);
    let home = crashed;
    take(&home.catalog(Role::Sender), true);
    let catalog = home.catalog(Role::Sender);
    take(&catalog, true);
    catalog.update(false, |tables| tables.clear()).unwrap();
    let after_clear = take(&catalog, true);

    catalog
        .update(false, |tables| {
            tables.put(&file(after_clear + 10, 1, "seen"))?;
            assert_eq!(tables.next_object()?.0, after_clear + 11);
            tables.raise_next_object(ObjectId(1 << 40));
            assert_eq!(tables.next_object()?.0, 1 << 40);
            assert_eq!(tables.next_local()?, ObjectId::FIRST_LOCAL);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_sender_cannot_use_up_the_numbers_of_a_receiver() {
    let home = Home::new();
    let catalog = home.catalog(Role::Receiver);
    let local = ObjectId::FIRST_LOCAL.0;
    catalog
        .update(false, |tables| {
            for (at, object) in [u64::MAX, local - 1, local].into_iter().enumerate() {
                tables.put(&file(object, 1, &format!("f{at}")))?;
            }
            assert_eq!(tables.next_local()?.0, local + 1);
            assert_eq!(tables.next_object()?.0, 2);
            Ok(())
        })
        .unwrap();
    let sender = Home::new().catalog(Role::Sender);
    let ended = sender.update(false, |tables| {
        tables.put(&file(local - 1, 1, "last"))?;
        tables.next_object()
    });
    assert!(matches!(ended, Err(StoreError::NumbersExhausted)), "{ended:?}");
}

#[test]
fn what_is_committed_is_there_after_a_restart_and_what_failed_is_not() {
    let home = Home::new();
    let catalog = home.catalog(Role::Receiver);
    catalog
        .update(true, |tables| {
            tables.set_meta("made", b"yes")?;
            tables.put(&directory(2, 1, "d"))?;
            tables.put(&file(3, 2, "f"))
        })
        .unwrap();
    // Not durable: visible at once.
    catalog
        .update(false, |tables| tables.put(&file(4, 2, "g")))
        .unwrap();
    assert!(catalog.read(|view| view.get(ObjectId(4))).unwrap().is_some());
    let failed: Result<(), _> = catalog.update(true, |tables| {
        tables.remove(ObjectId(3), None)?;
        tables.set_meta("made", b"no")?;
        Err(StoreError::NumbersExhausted)
    });
    assert!(failed.is_err());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        catalog.update(true, |tables| -> Result<(), StoreError> {
            tables.clear()?;
            panic!("as a test")
        })
    }));
    assert!(panicked.is_err());
    drop(catalog);

    let catalog = home.catalog(Role::Receiver);
    catalog
        .read(|view| {
            assert_eq!(view.meta("made")?.as_deref(), Some(&b"yes"[..]));
            assert_eq!(view.meta("other")?, None);
            assert_eq!(view.path_of(ObjectId(3))?, Some(vec![name("d"), name("f")]));
            assert_eq!(
                view.child_entries(ObjectId(2))?,
                [file(3, 2, "f"), file(4, 2, "g")]
            );
            assert!(view.has_children(ObjectId(2))? && !view.has_children(ObjectId(3))?);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_crash_loses_only_what_was_not_durable() {
    let home = Home::new();
    let catalog = home.catalog(Role::Receiver);
    catalog
        .update(true, |tables| tables.put(&file(2, 1, "kept")))
        .unwrap();
    catalog
        .update(false, |tables| tables.put(&file(3, 1, "lost")))
        .unwrap();
    let crashed = Home::new();
    std::fs::copy(&home.path, &crashed.path).unwrap();
    let found = crashed.catalog(Role::Receiver);
    assert_eq!(
        found.read(|view| view.children(ObjectId(1))).unwrap(),
        [(name("kept"), ObjectId(2))]
    );
    // The next durable commit takes the earlier ones along.
    catalog.update(true, |tables| tables.set_meta("k", b"v")).unwrap();
    let crashed = Home::new();
    std::fs::copy(&home.path, &crashed.path).unwrap();
    assert_eq!(
        crashed.catalog(Role::Receiver).read(|view| view.count()).unwrap(),
        2
    );
}

#[test]
fn a_reader_sees_one_commit_while_a_writer_works() {
    let home = Home::new();
    let catalog = &home.catalog(Role::Receiver);
    catalog
        .update(false, |tables| tables.put(&file(2, 1, "a")))
        .unwrap();
    std::thread::scope(|scope| {
        let (tell, wait) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let reader = scope.spawn(move || {
            catalog
                .read(|view| {
                    ready.send(()).unwrap();
                    let before = view.count()?;
                    wait.recv().unwrap();
                    Ok((before, view.count()?, view.children(ObjectId(1))?.len()))
                })
                .unwrap()
        });
        started.recv().unwrap();
        for object in 3..500 {
            catalog
                .update(object % 100 == 0, |tables| {
                    tables.put(&file(object, 1, &format!("{object}")))
                })
                .unwrap();
        }
        tell.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), (1, 1, 1));
    });
    assert_eq!(catalog.read(|view| view.count()).unwrap(), 498);
}

#[test]
fn writers_take_turns() {
    let home = Home::new();
    let catalog = &home.catalog(Role::Sender);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                for _ in 0..50 {
                    catalog
                        .update(false, |tables| {
                            let object = tables.next_object()?;
                            let mut entry = file(object.0, 1, &format!("{}", object.0));
                            entry.sequence = tables.next_sequence()?;
                            tables.put(&entry)
                        })
                        .unwrap();
                }
            });
        }
    });
    let journal = catalog.read(|view| view.changed_after(0, usize::MAX)).unwrap();
    let sequences: Vec<u64> = journal.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences, (1..=200).collect::<Vec<_>>());
}

#[test]
fn a_taken_number_is_refused_by_relabel_and_a_missing_object_is_said() {
    let home = Home::new();
    let catalog = home.catalog(Role::Receiver);
    catalog
        .update(false, |tables| {
            tables.put(&file(2, 1, "a"))?;
            tables.put(&file(3, 1, "b"))?;
            assert!(!tables.relabel(ObjectId(8), ObjectId(9))?);
            assert!(!tables.relabel(ObjectId(8), ObjectId(8))?);
            assert!(tables.relabel(ObjectId(2), ObjectId(2))?);
            let taken = tables.relabel(ObjectId(2), ObjectId(3));
            assert!(matches!(
                taken,
                Err(StoreError::NumberTaken { object: ObjectId(3) })
            ));
            Ok(())
        })
        .unwrap();
    assert_eq!(
        catalog
            .read(|view| view.child_entries(ObjectId(1)))
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_large_directory_is_relabelled_and_removed_whole() {
    let home = Home::new();
    let catalog = home.catalog(Role::Receiver);
    let many = 3_000;
    catalog
        .update(false, |tables| {
            tables.put(&directory(2, 1, "d"))?;
            for object in 10..10 + many {
                tables.put(&file(object, 2, &format!("{object}")))?;
            }
            // Not its child.
            tables.put(&file(5, 3, "other"))?;
            assert!(tables.relabel(ObjectId(2), ObjectId(4))?);
            assert!(!tables.has_children(ObjectId(2))?);
            assert_eq!(tables.child_entries(ObjectId(4))?.len() as u64, many);
            assert_eq!(tables.path_of(ObjectId(10))?, Some(vec![name("d"), name("10")]));
            let mut seen = 0;
            tables.remove_below(ObjectId(1), |_| seen += 1)?;
            assert_eq!(seen, many + 1);
            assert_eq!(tables.count()?, 1);
            Ok(())
        })
        .unwrap();
}

#[test]
fn paths_end_at_a_root_and_circles_have_none() {
    let home = Home::new();
    let catalog = home.catalog(Role::Receiver);
    catalog
        .update(false, |tables| {
            let mut root = directory(1, 0, "root");
            root.place = root_place();
            tables.put(&root)?;
            tables.put(&directory(2, 3, "a"))?;
            tables.put(&directory(3, 2, "b"))?;
            tables.put(&file(4, 77, "orphan"))?;
            assert_eq!(tables.path_of(ObjectId::ROOT)?, Some(vec![]));
            assert_eq!(tables.path_of(ObjectId(2))?, None);
            assert_eq!(tables.path_of(ObjectId(4))?, None);
            assert_eq!(tables.path_of(ObjectId(5))?, None);
            assert_eq!(tables.child_entries(NOWHERE)?.len(), 1);
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_highest_directory_number_has_children_too() {
    let home = Home::new();
    let catalog = home.catalog(Role::Receiver);
    catalog
        .update(false, |tables| {
            tables.put(&file(2, u64::MAX, "a"))?;
            tables.put(&file(3, u64::MAX - 1, "b"))?;
            assert_eq!(tables.children(ObjectId(u64::MAX))?, [(name("a"), ObjectId(2))]);
            assert_eq!(
                tables.children(ObjectId(u64::MAX - 1))?,
                [(name("b"), ObjectId(3))]
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_second_opener_is_told_so() {
    let home = Home::new();
    let _catalog = home.catalog(Role::Sender);
    let second = Catalog::open(&home.path, Role::Sender).err().unwrap();
    assert!(matches!(second, StoreError::InUse { .. }));
    assert!(
        second
            .to_string()
            .ends_with("is in use by another driftless process"),
        "{second}"
    );
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let attributes = (
        0..=u16::MAX,
        any::<u32>(),
        any::<u32>(),
        any::<i64>(),
        0..1_000_000_000u32,
    );
    let rest = (any::<u64>(), any::<Option<[u8; 32]>>(), any::<u64>(), any::<u8>());
    let stamp = proptest::option::of(proptest::collection::vec(
        prop_oneof![Just(0u8), any::<u8>()],
        STAMP_BYTES,
    ));
    let name = proptest::collection::vec(1..=u8::MAX, 1..=255);
    (any::<u64>(), 0..3u8, any::<u64>(), name, attributes, rest, stamp).prop_filter_map(
        "a name",
        |(object, kind, directory, name, (mode, uid, gid, seconds, nanoseconds), rest, stamp)| {
            let (size, digest, sequence, flags) = rest;
            Some(Entry {
                object: ObjectId(object),
                kind: [Kind::File, Kind::Directory, Kind::Symlink][usize::from(kind)],
                place: Place {
                    directory: ObjectId(directory),
                    name: Name::new(name).ok()?,
                },
                attributes: Attributes {
                    mode,
                    uid,
                    gid,
                    mtime: Timestamp::new(seconds, nanoseconds)?,
                    ..Attributes::default()
                },
                size,
                digest: digest.map(Digest),
                stamp: stamp.map(|stamp| stamp.try_into().unwrap()),
                sequence,
                flags,
            })
        },
    )
}

proptest! {
    #[test]
    fn a_record_reads_back_and_a_cut_one_is_refused(entry in any_entry()) {
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        prop_assert_eq!(decode_entry(entry.object, &bytes).unwrap(), entry.clone());
        for cut in 0..bytes.len() {
            prop_assert!(decode_entry(entry.object, &bytes[..cut]).is_err_and(|error| error.is_damage()));
        }
        bytes.push(0);
        prop_assert!(decode_entry(entry.object, &bytes).is_err());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_entry(ObjectId(1), &bytes);
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        let _ = decode_entry(ObjectId(1), &bytes);
    }
}
