//! How the state's file comes to be, is checked, and is brought to a newer schema.
//!
//! The file appears under its name only when it is complete, so that an empty or half-written one is always damage.
//! Before a migration a copy of it, closed and synced, stands beside it as `<path>.v<old>`.
//!
//! What is not noticed: redb keeps two commits and a bit that says which is the later. If that bit goes bad on a file
//! that was not closed, the state is that of one commit before. All other bits of the header were tried.

use super::file::{self, Fault, Worth};
use super::state::{CURSORS, FAILED, IDENTITIES, INTENTS};
use super::state::{GENERATION, INCARNATIONS, MIRROR_ID, NUMBERS, VALUES};
use super::{StoreError, error};
use redb::{Database, ReadableDatabase, WriteTransaction};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The layout of the tables and records.
pub(super) const SCHEMA: u64 = 1;

/// The way from each older schema to the next.
pub(super) const MIGRATIONS: &[Migration] = &[];

const SCHEMA_KEY: &str = "schema";
const CACHE_BYTES: usize = 4 << 20;

/// Brings the tables from one schema to the next, in the transaction that also notes the new schema.
pub(super) struct Migration {
    /// The schema it starts from; it ends at the next one.
    pub(super) from: u64,
    /// What it does.
    pub(super) run: fn(&WriteTransaction) -> Result<(), StoreError>,
}

/// Opens the state at `path`; makes it if there is none. Says whether it was made.
pub(super) fn open(
    path: &Path,
    schema: u64,
    migrations: &[Migration],
) -> Result<(Database, bool), StoreError> {
    let mut is_new = false;
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => is_new = create(path)?,
        Err(source) => return Err(io_error("look at", path, source)),
    }
    let (database, found) = open_checked(path)?;
    if found == schema {
        return Ok((database, is_new));
    }
    if found > schema {
        return Err(StoreError::StateNewer {
            path: path.to_owned(),
            found,
            known: schema,
        });
    }
    // The copy is made of the closed file; whoever gets in between is met by the second look.
    drop(database);
    backup(path, found)?;
    let (database, again) = open_checked(path)?;
    if again != found {
        return Err(StoreError::InUse {
            path: path.to_owned(),
        });
    }
    migrate(&database, found, schema, migrations).map_err(|error| error.at_state(path))?;
    Ok((database, is_new))
}

/// Opens a file that must be whole, and reads its schema.
fn open_checked(path: &Path) -> Result<(Database, u64), StoreError> {
    file::open(path, Worth::Precious, CACHE_BYTES, |database| {
        Ok(schema_of(database)?)
    })
    .map_err(|fault| match fault {
        Fault::Io(source) if error::is_damage(&source) => StoreError::StateDamaged {
            path: path.to_owned(),
            what: source.to_string(),
        },
        fault => fault.into_error(path).at_state(path),
    })
}

fn schema_of(database: &Database) -> Result<u64, StoreError> {
    let transaction = database.begin_read()?;
    let numbers = transaction.open_table(NUMBERS)?;
    let schema = numbers.get(SCHEMA_KEY)?.map(|value| value.value());
    schema.ok_or_else(|| StoreError::damaged("it does not say which schema it has"))
}

fn migrate(database: &Database, found: u64, schema: u64, migrations: &[Migration]) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    for from in found..schema {
        let migration = migrations
            .iter()
            .find(|migration| migration.from == from)
            .ok_or_else(|| StoreError::damaged(format!("there is no way from schema {from} to {schema}")))?;
        (migration.run)(&transaction)?;
    }
    transaction.open_table(NUMBERS)?.insert(SCHEMA_KEY, schema)?;
    Ok(transaction.commit()?)
}

/// Makes a complete file under another name and gives it its own name only if there is none yet. Says whether it did.
fn create(path: &Path) -> Result<bool, StoreError> {
    let new = beside(path, &format!(".new-{:032x}", random(path)?));
    let mirror = random(path)?;
    let made = file::open(&new, Worth::Cache, CACHE_BYTES, |database| {
        Ok(initialise(database, mirror)?)
    })
    .map_err(|fault| fault.into_error(&new).at_state(&new))
    .and_then(|(database, ())| {
        drop(database);
        publish(&new, path).map_err(|source| io_error("make", path, source))
    });
    if !matches!(made, Ok(true)) {
        // Litter at worst; the error that matters is the one above.
        let _ = fs::remove_file(&new);
    }
    made
}

/// A number that nobody else has.
pub(super) fn random(path: &Path) -> Result<u128, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| io_error("get random bytes for", path, io::Error::other(error.to_string())))?;
    Ok(u128::from_be_bytes(bytes))
}

fn initialise(database: &Database, mirror: u128) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert(SCHEMA_KEY, SCHEMA)?;
        numbers.insert(GENERATION, 0)?;
        let mut identities = transaction.open_table(IDENTITIES)?;
        identities.insert(MIRROR_ID, mirror)?;
        transaction.open_table(VALUES)?;
        transaction.open_table(INCARNATIONS)?;
        transaction.open_table(CURSORS)?;
        transaction.open_table(FAILED)?;
        transaction.open_table(INTENTS)?;
    }
    Ok(transaction.commit()?)
}

/// Renames without replacing; `false` if `path` is there by now.
fn publish(new: &Path, path: &Path) -> io::Result<bool> {
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(false),
        // RACE: where the file system has no such rename, two first starts at the same moment can each make a state,
        // and one wins; the other then finds an identity that it did not make, and nothing is lost with its own.
        Err(Errno::INVAL | Errno::NOSYS) if !path.try_exists()? => fs::rename(new, path)?,
        Err(error) => return Err(error.into()),
    }
    sync_directory(path)?;
    Ok(true)
}

/// Copies the closed file to `<path>.v<schema>`, complete or not at all, over an older copy of the same schema.
fn backup(path: &Path, schema: u64) -> Result<(), StoreError> {
    let copy = beside(path, &format!(".v{schema}"));
    let unfinished = beside(path, &format!(".v{schema}.new"));
    let run = || -> io::Result<()> {
        let mut to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        io::copy(&mut File::open(path)?, &mut to)?;
        to.sync_all()?;
        fs::rename(&unfinished, &copy)?;
        sync_directory(&copy)
    };
    run().map_err(|source| io_error("back up to", &copy, source))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
