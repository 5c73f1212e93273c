//! What must never be guessed.

use super::StoreError;
use super::state_file::{self, MIGRATIONS, SCHEMA};
use super::state_record::{
    decode_binding, decode_cursor, decode_failed, encode_binding, encode_cursor, encode_failed,
};
use driftless_protocol::message::{Cursor, Place};
use driftless_protocol::{Carried, Digest, EntrySum, ObjectId};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use redb::{TableDefinition, WriteTransaction};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
pub(super) const IDENTITIES: TableDefinition<'_, &str, u128> = TableDefinition::new("identities");
pub(super) const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// `None` while it runs.
pub(super) const INCARNATIONS: TableDefinition<'_, u128, Option<u64>> = TableDefinition::new("incarnations");
pub(super) const CURSORS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cursors");
pub(super) const FAILED: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("failed");
pub(super) const INTENTS: TableDefinition<'_, u64, [u8; 32]> = TableDefinition::new("intents");

pub(super) const MIRROR_ID: &str = "mirror";
pub(super) const GENERATION: &str = "generation";
const RUNNING: &str = "running";
const OBJECT_RESERVE: &str = "object-reserve";
const SOURCE: &str = "\0source";
const BINDING: &str = "\0binding";

/// Incarnations remembered. With more, those that no cursor here refers to are forgotten; a target that comes with a
/// forgotten one reconciles.
const INCARNATIONS_MAX: u64 = 4_096;

/// The state of one mirror on the sender, or of one module path on the receiver.
///
/// Every change is on stable storage when its call returns, and no call changes a part of what it should.
pub struct State {
    database: Database,
    path: PathBuf,
    is_new: bool,
}

/// How a run of the sender ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncarnationEnd {
    /// It is the present one.
    Running,
    /// It is over, and gave out no sequence after this one.
    Ended(u64),
}

/// An object that a target could not be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The object.
    pub object: ObjectId,
    /// Where it should stand.
    pub place: Place,
    /// What kind of failure, by the number that the caller gives to it.
    pub kind: u8,
    /// The error, for people.
    pub text: String,
    /// What stands at the place instead.
    pub held: Option<(ObjectId, EntrySum)>,
    /// Unix seconds of the first failure.
    pub since: u64,
    /// Tries so far.
    pub tries: u32,
    /// The number in the journal of the version that was refused, where this run tried it; not kept on disk.
    pub refused: Option<u64>,
}

/// Which mirror a module path belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The mirror's identity.
    pub mirror: u128,
    /// The fingerprint of the sender.
    pub peer: [u8; 32],
    /// What the sender calls its source, for messages.
    pub source: String,
    /// What was agreed to be carried.
    pub carried: Carried,
    /// The generation in which it was bound.
    pub generation: u64,
}

impl State {
    /// Opens the state at `path`. Where there is no file, one is made, with a new mirror identity; the directory must
    /// be there.
    ///
    /// A damaged file is [`StoreError::StateDamaged`], one of a later driftless [`StoreError::StateNewer`]; neither is
    /// touched. One of an earlier driftless is copied to `<path>.v<schema>` and migrated.
    pub fn open(path: &Path) -> Result<State, StoreError> {
        let (database, is_new) = state_file::open(path, SCHEMA, MIGRATIONS)?;
        Ok(State {
            database,
            path: path.to_owned(),
            is_new,
        })
    }

    /// Whether [`State::open`] made the file: nothing is known of earlier runs.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the mirror, made with the file.
    pub fn mirror_id(&self) -> Result<u128, StoreError> {
        self.read(|transaction| {
            let found = transaction.open_table(IDENTITIES)?.get(MIRROR_ID)?;
            let found = found.map(|value| value.value());
            found.ok_or_else(|| StoreError::damaged("the mirror has no identity"))
        })
    }

    /// Begins a new run of the sender and returns its identity. The run before it, if any, is noted to have ended at
    /// `last_sequence_of_previous`: a cursor of that run beyond it is not believed later.
    pub fn begin_incarnation(&self, last_sequence_of_previous: u64) -> Result<u128, StoreError> {
        let incarnation = state_file::random(&self.path)?;
        self.write(true, |transaction| {
            let mut identities = transaction.open_table(IDENTITIES)?;
            let mut incarnations = transaction.open_table(INCARNATIONS)?;
            let previous = identities
                .insert(RUNNING, incarnation)?
                .map(|value| value.value());
            if let Some(previous) = previous {
                incarnations.insert(previous, Some(last_sequence_of_previous))?;
            }
            if incarnations.len()? >= INCARNATIONS_MAX {
                let mut wanted: HashSet<u128> = previous.into_iter().collect();
                for item in transaction.open_table(CURSORS)?.iter()? {
                    wanted.insert(decode_cursor(item?.1.value())?.incarnation);
                }
                incarnations.retain(|incarnation, _| wanted.contains(&incarnation))?;
            }
            incarnations.insert(incarnation, None)?;
            Ok(incarnation)
        })
    }

    /// How far a run went; `None` for one that is not known here.
    pub fn incarnation_end(&self, incarnation: u128) -> Result<Option<IncarnationEnd>, StoreError> {
        self.read(|transaction| {
            let found = transaction.open_table(INCARNATIONS)?.get(incarnation)?;
            Ok(found.map(|end| match end.value() {
                None => IncarnationEnd::Running,
                Some(last) => IncarnationEnd::Ended(last),
            }))
        })
    }

    /// Numbers below this may have been given to objects by some catalog of this mirror; 0 at first. A catalog that
    /// was made anew must start there ([`super::Tables::raise_next_object`]).
    pub fn object_reserve(&self) -> Result<u64, StoreError> {
        self.number(OBJECT_RESERVE)
    }

    /// Notes that numbers below `reserve` may be given out from now on. It never sinks.
    pub fn raise_object_reserve(&self, reserve: u64) -> Result<(), StoreError> {
        self.write(true, |transaction| {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let old = numbers.get(OBJECT_RESERVE)?.map_or(0, |value| value.value());
            numbers.insert(OBJECT_RESERVE, old.max(reserve))?;
            Ok(())
        })
    }

    /// Notes how far a target has acknowledged.
    pub fn set_acknowledged(&self, target: &str, cursor: Cursor) -> Result<(), StoreError> {
        self.write(true, |transaction| {
            let record = encode_cursor(cursor);
            transaction
                .open_table(CURSORS)?
                .insert(target, record.as_slice())?;
            Ok(())
        })
    }

    /// How far a target has acknowledged; `None` if it never did.
    pub fn acknowledged(&self, target: &str) -> Result<Option<Cursor>, StoreError> {
        self.read(|transaction| {
            let record = transaction.open_table(CURSORS)?.get(target)?;
            record.map(|record| decode_cursor(record.value())).transpose()
        })
    }

    /// Every target with a cursor.
    pub fn targets(&self) -> Result<Vec<String>, StoreError> {
        self.read(|transaction| {
            let cursors = transaction.open_table(CURSORS)?;
            let targets = cursors.iter()?.map(|item| Ok(item?.0.value().to_owned()));
            targets.collect()
        })
    }

    /// Forgets a target: its cursor and its failed set.
    pub fn forget_target(&self, target: &str) -> Result<(), StoreError> {
        self.write(true, |transaction| {
            transaction.open_table(CURSORS)?.remove(target)?;
            let of_target = (target, 0)..=(target, u64::MAX);
            transaction
                .open_table(FAILED)?
                .retain_in(of_target, |_, _| false)?;
            Ok(())
        })
    }

    /// What a target could not be given, in the order of the objects' numbers.
    pub fn failed(&self, target: &str) -> Result<Vec<Failed>, StoreError> {
        self.read(|transaction| {
            let failed = transaction.open_table(FAILED)?;
            let of_target = failed.range((target, 0)..=(target, u64::MAX))?;
            let entries = of_target.map(|item| {
                let (key, record) = item?;
                decode_failed(ObjectId(key.value().1), record.value())
            });
            entries.collect()
        })
    }

    /// Adds to the failed set of a target, or replaces what it says of the object.
    pub fn set_failed(&self, target: &str, failed: &Failed) -> Result<(), StoreError> {
        self.write(true, |transaction| {
            let record = encode_failed(failed);
            let mut table = transaction.open_table(FAILED)?;
            table.insert((target, failed.object.0), record.as_slice())?;
            Ok(())
        })
    }

    /// Takes an object from the failed set of a target; says whether it was in it.
    pub fn clear_failed(&self, target: &str, object: ObjectId) -> Result<bool, StoreError> {
        self.write(true, |transaction| {
            Ok(transaction
                .open_table(FAILED)?
                .remove((target, object.0))?
                .is_some())
        })
    }

    /// What tells this source from another one that was put in its place; bytes of the caller's making.
    pub fn source_identity(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.value(SOURCE)
    }

    /// Notes what [`State::source_identity`] says from now on.
    pub fn set_source_identity(&self, identity: &[u8]) -> Result<(), StoreError> {
        self.put_value(SOURCE, identity)
    }

    /// A value that was put here, such as an approval. Keys that begin with a zero byte are the store's own.
    pub fn value(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|transaction| {
            let found = transaction.open_table(VALUES)?.get(key)?;
            Ok(found.map(|value| value.value().to_vec()))
        })
    }

    /// All values whose keys begin with `prefix`, in the order of the keys.
    pub fn values(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|transaction| {
            let mut found = Vec::new();
            for item in transaction.open_table(VALUES)?.range(prefix..)? {
                let (key, value) = item?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                if !key.value().starts_with('\0') {
                    found.push((key.value().to_owned(), value.value().to_vec()));
                }
            }
            Ok(found)
        })
    }

    /// Keeps a value.
    pub fn put_value(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write(true, |transaction| {
            transaction.open_table(VALUES)?.insert(key, value)?;
            Ok(())
        })
    }

    /// Forgets a value; says whether there was one.
    pub fn delete_value(&self, key: &str) -> Result<bool, StoreError> {
        self.write(true, |transaction| {
            Ok(transaction.open_table(VALUES)?.remove(key)?.is_some())
        })
    }

    /// Which mirror this module path belongs to; `None` while it belongs to none.
    pub fn binding(&self) -> Result<Option<Binding>, StoreError> {
        let record = self.value(BINDING)?;
        let binding = record.map(|record| decode_binding(&record)).transpose();
        binding.map_err(|error| error.at_state(&self.path))
    }

    /// Binds this module path, in place of a former binding. To be called before the first entry is written.
    pub fn bind(&self, binding: &Binding) -> Result<(), StoreError> {
        self.put_value(BINDING, &encode_binding(binding))
    }

    /// Forgets the binding, and the intents that belonged to it.
    pub fn unbind(&self) -> Result<(), StoreError> {
        self.write(true, |transaction| {
            transaction.open_table(VALUES)?.remove(BINDING)?;
            transaction.open_table(INTENTS)?.retain(|_, _| false)?;
            Ok(())
        })
    }

    /// Notes what a batch is about to commit, in place of all earlier intents.
    pub fn set_intents(&self, intents: &[(ObjectId, Digest)]) -> Result<(), StoreError> {
        self.write_intents(intents, true)
    }

    /// As [`State::set_intents`], beside earlier ones, for batches that run side by side.
    pub fn add_intents(&self, intents: &[(ObjectId, Digest)]) -> Result<(), StoreError> {
        self.write_intents(intents, false)
    }

    fn write_intents(&self, intents: &[(ObjectId, Digest)], only: bool) -> Result<(), StoreError> {
        // On the way of every change, hence one flush and not two: see `write`.
        self.write(false, |transaction| {
            let mut table = transaction.open_table(INTENTS)?;
            if only {
                table.retain(|_, _| false)?;
            }
            for (object, digest) in intents {
                table.insert(object.0, digest.0)?;
            }
            Ok(())
        })
    }

    /// What was about to be committed, in the order of the objects' numbers.
    pub fn intents(&self) -> Result<Vec<(ObjectId, Digest)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(INTENTS)?;
            let intents = table.iter()?.map(|item| {
                let (object, digest) = item?;
                Ok((ObjectId(object.value()), Digest(digest.value())))
            });
            intents.collect()
        })
    }

    /// Forgets all intents: their commits are in the catalog, durably.
    pub fn clear_intents(&self) -> Result<(), StoreError> {
        self.set_intents(&[])
    }

    /// The generation of this state; 0 at first.
    pub fn generation(&self) -> Result<u64, StoreError> {
        self.number(GENERATION)
    }

    /// Begins the next generation and returns its number.
    pub fn bump_generation(&self) -> Result<u64, StoreError> {
        self.write(true, |transaction| {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let old = numbers.get(GENERATION)?.map_or(0, |value| value.value());
            let new = old.checked_add(1).ok_or(StoreError::NumbersExhausted)?;
            numbers.insert(GENERATION, new)?;
            Ok(new)
        })
    }

    fn number(&self, key: &str) -> Result<u64, StoreError> {
        self.read(|transaction| {
            let found = transaction.open_table(NUMBERS)?.get(key)?;
            Ok(found.map_or(0, |value| value.value()))
        })
    }

    fn read<R>(&self, work: impl FnOnce(&ReadTransaction) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let run = || work(&self.database.begin_read()?);
        run().map_err(|error: StoreError| error.at_state(&self.path))
    }

    /// A durable transaction. With `two_phases` a commit that went bad on the disk later is noticed as damage; with
    /// one phase and one flush, redb would go back to the commit before it after a crash.
    fn write<R>(
        &self,
        two_phases: bool,
        work: impl FnOnce(&WriteTransaction) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let run = || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_two_phase_commit(two_phases);
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error: StoreError| error.at_state(&self.path))
    }
}
