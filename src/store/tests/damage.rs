//! Files that were cut, flipped, replaced: never a panic, never wrong data taken for right.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;

/// All entries, and the whole journal.
type Whole = (Vec<Entry>, Vec<(u64, Change)>);

/// Everything in a catalog, with every table read.
fn content(catalog: &Catalog) -> Result<Whole, StoreError> {
    catalog.read(|view| {
        let mut entries = Vec::new();
        view.for_each(&mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        let mut by_name = 0;
        for directory in 1..20 {
            by_name += view.child_entries(ObjectId(directory))?.len();
        }
        for entry in &entries {
            let (device, inode) = (5, entry.object.0);
            assert_eq!(view.by_inode(device, inode)?, Some(entry.object));
        }
        assert_eq!(by_name, entries.len());
        Ok((entries, view.changed_after(0, usize::MAX)?))
    })
}

/// A catalog's file, and its content at each of its commits.
fn good() -> &'static (Vec<u8>, Vec<Whole>) {
    static GOOD: OnceLock<(Vec<u8>, Vec<Whole>)> = OnceLock::new();
    GOOD.get_or_init(|| {
        let home = Home::new();
        let catalog = home.catalog(Role::Sender);
        let mut commits = vec![content(&catalog).unwrap()];
        for round in 0..4 {
            catalog
                .update(true, |tables| {
                    for object in 2 + round * 200..402 + round * 200 {
                        let mut entry = file(object, 1 + object % 9, &format!("file number {object}"));
                        entry.sequence = tables.next_sequence()?;
                        entry.stamp = Some(stamp(5, object));
                        tables.put(&entry)?;
                    }
                    let sequence = tables.next_sequence()?;
                    tables.remove(ObjectId(50 + round), Some(sequence))?;
                    Ok(())
                })
                .unwrap();
            commits.push(content(&catalog).unwrap());
        }
        drop(catalog);
        (fs::read(&home.path).unwrap(), commits)
    })
}

/// Opens a damaged catalog: either it is noticed, or everything in it is as it was at one of the commits.
fn open_damaged(bytes: &[u8]) -> bool {
    let home = Home::new();
    fs::write(&home.path, bytes).unwrap();
    let opened = Catalog::open(&home.path, Role::Sender).unwrap();
    let found = content(&opened.catalog).unwrap();
    match &opened.rebuilt {
        Some(_) => assert_eq!(found.0.len(), 0),
        None => assert!(good().1.contains(&found), "wrong data taken for right"),
    }
    opened
        .catalog
        .update(true, |tables| tables.put(&file(9_999, 1, "new")))
        .unwrap();
    drop(opened.catalog);
    home.catalog(Role::Sender);
    opened.rebuilt.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn flipped_bits_are_noticed_or_do_not_matter(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8u8), 1..6),
        early in any::<bool>(),
    ) {
        let mut bytes = good().0.clone();
        let reach = if early { 8_192 } else { bytes.len() };
        for (at, bit) in flips {
            bytes[at.index(reach)] ^= 1 << bit;
        }
        open_damaged(&bytes);
    }

    #[test]
    fn a_cut_or_overwritten_file_is_noticed_or_does_not_matter(
        at in any::<proptest::sample::Index>(),
        filler in proptest::option::of(any::<u8>()),
    ) {
        let mut bytes = good().0.clone();
        let at = at.index(bytes.len());
        match filler {
            None => bytes.truncate(at),
            Some(filler) => {
                let end = (at + 5_000).min(bytes.len());
                bytes[at..end].fill(filler);
            }
        }
        open_damaged(&bytes);
    }
}

#[test]
fn every_byte_of_the_header_may_be_wrong() {
    for at in (0..320).step_by(if cfg!(debug_assertions) { 3 } else { 1 }) {
        for flip in [0x01, 0x02, 0x80, 0xff] {
            let mut bytes = good().0.clone();
            bytes[at] ^= flip;
            open_damaged(&bytes);
        }
    }
}

#[test]
fn what_is_no_catalog_is_kept_aside() {
    let home = Home::new();
    let aside = home.path.with_extension("redb.damaged");
    for junk in [&b"junk"[..], &[0; 100_000], b"redb\x1A\x0A\xA9\x0D\x0A"] {
        fs::write(&home.path, junk).unwrap();
        let opened = Catalog::open(&home.path, Role::Sender).unwrap();
        assert!(opened.rebuilt.unwrap().contains("damaged"));
        assert_eq!(fs::read(&aside).unwrap(), junk);
    }
    // An empty file lost nothing.
    fs::write(&home.path, b"").unwrap();
    home.catalog(Role::Sender);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::remove_file(&home.path).unwrap();
    home.catalog(Role::Sender);
    assert_eq!(mode(&home.path), 0o600);

    fs::remove_file(&home.path).unwrap();
    fs::remove_file(&aside).unwrap();
    fs::create_dir(&home.path).unwrap();
    assert!(Catalog::open(&home.path, Role::Sender).unwrap().rebuilt.is_some());
}

#[test]
fn another_role_or_schema_makes_it_anew() {
    let home = Home::new();
    home.catalog(Role::Sender)
        .update(true, |tables| tables.put(&file(2, 1, "a")))
        .unwrap();
    let opened = Catalog::open(&home.path, Role::Receiver).unwrap();
    assert!(opened.rebuilt.unwrap().contains("role"));
    assert_eq!(opened.catalog.read(|view| view.count()).unwrap(), 0);
    drop(opened.catalog);

    const COUNTERS: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("counters");
    let database = redb::Database::open(&home.path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(COUNTERS)
        .unwrap()
        .insert("schema", 9)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let opened = Catalog::open(&home.path, Role::Receiver).unwrap();
    assert!(opened.rebuilt.unwrap().contains("schema 9"));
    drop(opened.catalog);

    // A redb file that is somebody else's.
    fs::remove_file(&home.path).unwrap();
    let database = redb::Database::create(&home.path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(redb::TableDefinition::<&str, &str>::new("counters"))
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(
        Catalog::open(&home.path, Role::Receiver)
            .unwrap()
            .rebuilt
            .unwrap()
            .contains("damaged")
    );
}

#[test]
fn an_unusable_directory_is_an_error() {
    let home = Home::new();
    let error = Catalog::open(&home.path.join("deeper"), Role::Sender)
        .err()
        .unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().starts_with("cannot open "), "{error}");
}
