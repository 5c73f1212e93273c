//! What the state promises.

use super::*;
use crate::store::state_file::{self, Migration};
use driftless_protocol::message::Cursor;
use driftless_protocol::{Carried, EntrySum, TreeSum};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

fn cursor(sequence: u64) -> Cursor {
    Cursor {
        incarnation: u128::MAX - 5,
        sequence,
        sum: TreeSum([9; 32]),
    }
}

fn failed(object: u64) -> Failed {
    Failed {
        object: ObjectId(object),
        place: place(7, "odd\nname"),
        kind: 3,
        text: "cannot write: no space left on device".into(),
        held: object
            .is_multiple_of(2)
            .then_some((ObjectId(4), EntrySum([8; 32]))),
        since: 1_700_000_000,
        tries: 12,
        refused: None,
    }
}

fn binding() -> Binding {
    Binding {
        mirror: 77 << 100,
        peer: [3; 32],
        source: "host:/srv/データ".into(),
        carried: Carried {
            owner: true,
            ..Carried::default()
        },
        generation: 5,
    }
}

#[test]
fn everything_is_there_after_a_restart() {
    let home = Home::new();
    let state = State::open(&home.path).unwrap();
    assert!(state.is_new());
    let mirror = state.mirror_id().unwrap();
    assert_eq!(state.acknowledged("a").unwrap(), None);
    assert_eq!(state.binding().unwrap(), None);
    assert_eq!(state.source_identity().unwrap(), None);
    assert_eq!(state.generation().unwrap(), 0);
    assert_eq!(state.object_reserve().unwrap(), 0);

    state.set_acknowledged("a", cursor(5)).unwrap();
    state.set_acknowledged("a", cursor(6)).unwrap();
    state.set_acknowledged("b", cursor(1)).unwrap();
    for (target, object) in [("a", 2), ("a", 9), ("ab", 3), ("a", u64::MAX), ("b", 4)] {
        state.set_failed(target, &failed(object)).unwrap();
    }
    assert!(state.clear_failed("a", ObjectId(9)).unwrap());
    assert!(!state.clear_failed("a", ObjectId(9)).unwrap());
    state.set_source_identity(b"device and inode").unwrap();
    state.put_value("approval/b", b"1").unwrap();
    state.put_value("approval/a", b"2").unwrap();
    state.put_value("other", b"3").unwrap();
    state.put_value("gone", b"4").unwrap();
    assert!(state.delete_value("gone").unwrap());
    state.bind(&binding()).unwrap();
    assert_eq!(state.bump_generation().unwrap(), 1);
    state.raise_object_reserve(500).unwrap();
    state.raise_object_reserve(400).unwrap();
    let intents = [(ObjectId(2), Digest([1; 32])), (ObjectId(8), Digest([2; 32]))];
    state.set_intents(&intents[1..]).unwrap();
    state.add_intents(&intents[..1]).unwrap();
    drop(state);

    let state = State::open(&home.path).unwrap();
    assert!(!state.is_new());
    assert_eq!(state.mirror_id().unwrap(), mirror);
    assert_eq!(state.acknowledged("a").unwrap(), Some(cursor(6)));
    assert_eq!(state.targets().unwrap(), ["a", "b"]);
    assert_eq!(state.failed("a").unwrap(), [failed(2), failed(u64::MAX)]);
    assert_eq!(
        state.source_identity().unwrap().as_deref(),
        Some(&b"device and inode"[..])
    );
    assert_eq!(state.value("gone").unwrap(), None);
    let approvals = [
        ("approval/a".to_owned(), b"2".to_vec()),
        ("approval/b".to_owned(), b"1".to_vec()),
    ];
    assert_eq!(state.values("approval/").unwrap(), approvals);
    assert_eq!(
        state.values("").unwrap().len(),
        3,
        "the store's own are not listed"
    );
    assert_eq!(state.binding().unwrap(), Some(binding()));
    assert_eq!(state.generation().unwrap(), 1);
    assert_eq!(state.object_reserve().unwrap(), 500);
    assert_eq!(state.intents().unwrap(), intents);
    state.set_intents(&intents[..1]).unwrap();
    assert_eq!(state.intents().unwrap(), intents[..1]);
    state.clear_intents().unwrap();
    assert_eq!(state.intents().unwrap(), []);
    state.set_intents(&intents).unwrap();
    state.unbind().unwrap();
    assert_eq!(
        (state.binding().unwrap(), state.intents().unwrap()),
        (None, vec![])
    );
    state.forget_target("a").unwrap();
    assert_eq!(
        (state.acknowledged("a").unwrap(), state.failed("a").unwrap()),
        (None, vec![])
    );
    assert_eq!(state.failed("ab").unwrap(), [failed(3)]);
    assert_eq!(state.failed("b").unwrap(), [failed(4)]);
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    let home = Home::new();
    let state = State::open(&home.path).unwrap();
    for sequence in 0..5 {
        state.set_acknowledged("a", cursor(sequence)).unwrap();
        state
            .set_intents(&[(ObjectId(sequence), Digest([1; 32]))])
            .unwrap();
        let crashed = Home::new();
        fs::copy(&home.path, &crashed.path).unwrap();
        let found = State::open(&crashed.path).unwrap();
        assert_eq!(found.acknowledged("a").unwrap(), Some(cursor(sequence)));
        assert_eq!(found.intents().unwrap()[0].0, ObjectId(sequence));
        assert_eq!(found.mirror_id().unwrap(), state.mirror_id().unwrap());
    }
}

#[test]
fn an_incarnation_ends_where_the_next_begins() {
    let home = Home::new();
    let state = State::open(&home.path).unwrap();
    let first = state.begin_incarnation(99).unwrap();
    assert_eq!(
        state.incarnation_end(first).unwrap(),
        Some(IncarnationEnd::Running)
    );
    drop(state);
    let state = State::open(&home.path).unwrap();
    let second = state.begin_incarnation(41).unwrap();
    assert_ne!(first, second);
    assert_eq!(
        state.incarnation_end(first).unwrap(),
        Some(IncarnationEnd::Ended(41))
    );
    assert_eq!(
        state.incarnation_end(second).unwrap(),
        Some(IncarnationEnd::Running)
    );
    assert_eq!(state.incarnation_end(1).unwrap(), None);
}

#[test]
fn a_second_opener_is_told_so() {
    let home = Home::new();
    let _state = State::open(&home.path).unwrap();
    let second = State::open(&home.path).err().unwrap();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
}

#[test]
fn nothing_is_made_where_the_directory_is_missing() {
    let home = Home::new();
    let error = State::open(&home.path.join("x")).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn first_starts_at_one_moment_make_one_state() {
    let home = Home::new();
    let path = &home.path;
    let made: Vec<u128> = std::thread::scope(|scope| {
        let open = || loop {
            match State::open(path) {
                Ok(state) => return state.mirror_id().unwrap(),
                Err(StoreError::InUse { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|id| *id == made[0]));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "litter");
}

/// The file of a state that was closed properly.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let home = Home::new();
        let state = State::open(&home.path).unwrap();
        state.set_acknowledged("a", cursor(5)).unwrap();
        state.bind(&binding()).unwrap();
        state.set_failed("a", &failed(2)).unwrap();
        state.set_intents(&[(ObjectId(1), Digest([1; 32]))]).unwrap();
        drop(state);
        fs::read(&home.path).unwrap()
    })
}

/// Opens a damaged state: either it is refused and not touched, or everything is as it was.
fn open_damaged(bytes: &[u8]) {
    let home = Home::new();
    fs::write(&home.path, bytes).unwrap();
    match State::open(&home.path) {
        Ok(state) => {
            assert_eq!(state.acknowledged("a").unwrap(), Some(cursor(5)));
            assert_eq!(state.binding().unwrap(), Some(binding()));
            assert_eq!(state.failed("a").unwrap(), [failed(2)]);
            assert_eq!(state.intents().unwrap(), [(ObjectId(1), Digest([1; 32]))]);
        }
        Err(error) => {
            assert!(matches!(error, StoreError::StateDamaged { .. }), "{error}");
            let text = error.to_string();
            let path = home.path.to_str().unwrap();
            assert!(
                text.contains(path) && text.contains("backup") && text.contains("driftless forget"),
                "{text}"
            );
            assert!(fs::read(&home.path).unwrap() == bytes, "touched");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_damaged_state_is_refused_and_left_alone(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8u8), 1..6),
        early in any::<bool>(),
        cut in proptest::option::weighted(0.3, any::<proptest::sample::Index>()),
    ) {
        let mut bytes = good().to_vec();
        let reach = if early { 8_192 } else { bytes.len() };
        for (at, bit) in flips {
            bytes[at.index(reach)] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        open_damaged(&bytes);
    }
}

#[test]
fn every_byte_of_the_header_may_be_wrong() {
    for at in 0..320 {
        for flip in [0x01, 0x02, 0x80, 0xff] {
            let mut bytes = good().to_vec();
            bytes[at] ^= flip;
            open_damaged(&bytes);
        }
    }
}

#[test]
fn an_empty_state_is_damage_not_a_first_start() {
    open_damaged(b"");
    open_damaged(b"junk");
    open_damaged(&[0; 50_000]);
}

#[test]
fn a_later_schema_is_refused() {
    let home = Home::new();
    drop(State::open(&home.path).unwrap());
    drop(state_file::open(&home.path, 3, &[nothing(1), nothing(2)]).unwrap());
    let error = State::open(&home.path).err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::StateNewer {
                found: 3,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

const NEW: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("new in 2");

fn nothing(from: u64) -> Migration {
    Migration {
        from,
        run: |_| Ok(()),
    }
}

fn backup_of(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".v1");
    name.into()
}

#[test]
fn a_migration_is_backed_up_and_done_once() {
    let home = Home::new();
    let state = State::open(&home.path).unwrap();
    state.set_acknowledged("a", cursor(5)).unwrap();
    drop(state);
    let migrations = [Migration {
        from: 1,
        run: |transaction| {
            transaction.open_table(NEW)?.insert("made", 1)?;
            Ok(())
        },
    }];
    for _ in 0..2 {
        let (database, is_new) = state_file::open(&home.path, 2, &migrations).unwrap();
        assert!(!is_new);
        let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
        assert_eq!(
            transaction
                .open_table(NEW)
                .unwrap()
                .get("made")
                .unwrap()
                .unwrap()
                .value(),
            1
        );
    }
    assert!(matches!(
        State::open(&home.path),
        Err(StoreError::StateNewer { .. })
    ));
    // The backup is a state of the old schema, put back by a mere copy.
    fs::copy(backup_of(&home.path), &home.path).unwrap();
    assert_eq!(
        State::open(&home.path).unwrap().acknowledged("a").unwrap(),
        Some(cursor(5))
    );
}

#[test]
fn a_failed_migration_changes_nothing() {
    let home = Home::new();
    drop(State::open(&home.path).unwrap());
    let migrations = [Migration {
        from: 1,
        run: |transaction| {
            transaction.open_table(NEW)?.insert("made", 1)?;
            Err(StoreError::NumbersExhausted)
        },
    }];
    assert!(state_file::open(&home.path, 2, &migrations).is_err());
    assert!(state_file::open(&home.path, 2, &[]).is_err());
    assert!(!State::open(&home.path).unwrap().is_new());
    assert!(backup_of(&home.path).exists());
}
