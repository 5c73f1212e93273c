//! The catalog's file and its transactions.

use super::file::{self, Fault, Worth};
use super::read::{CatalogRead, View};
use super::tables::{COUNTERS, Counts, KEPT_SUM, Tables};
use super::{StoreError, error};
use redb::{Database, Durability, ReadableDatabase};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The layout of the tables and records. A catalog with another one is replaced.
const SCHEMA: u64 = 2;

/// Memory for pages of the database.
const CACHE_BYTES: usize = 32 << 20;

const SCHEMA_KEY: &str = "schema";
const ROLE_KEY: &str = "role";

/// Whose tree the catalog describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A source; its catalog also finds objects by device and inode.
    Sender,
    /// A module of a receiver.
    Receiver,
}

/// A catalog, and whether it had to be made anew.
pub struct Opened {
    /// The catalog.
    pub catalog: Catalog,
    /// Why the former one was given up, for people; `None` if nothing was lost (also when there was none).
    pub rebuilt: Option<String>,
}

/// What one side knows of its tree; see the module's page.
///
/// All methods take `&self`; readers run beside each other and beside the one writer.
pub struct Catalog {
    database: Database,
    path: PathBuf,
    role: Role,
    counts: Mutex<Counts>,
}

impl Catalog {
    /// Opens the catalog at `path`, or makes an empty one.
    ///
    /// A damaged file is kept beside it as `<path>.damaged` (one of them); one of another schema or role is removed.
    /// The whole file is read and verified. Fails only when another process has the catalog
    /// ([`StoreError::InUse`]), or when the directory or the system's limits do not let us work; a file that may not
    /// be opened for want of permission counts as that, since it is somebody else's.
    pub fn open(path: &Path, role: Role) -> Result<Opened, StoreError> {
        let fault = match open_once(path, role) {
            Ok(catalog) => {
                return Ok(Opened {
                    catalog,
                    rebuilt: None,
                });
            }
            Err(fault) => fault,
        };
        let reason = match fault {
            Fault::Probe(StoreError::Damaged { what, .. }) | Fault::Damaged(what) => {
                Catalog::set_aside(path)?;
                format!("it was damaged: {what}")
            }
            Fault::Io(source) if is_bad_file(&source) => {
                Catalog::set_aside(path)?;
                format!("it could not be read: {source}")
            }
            Fault::Other(what) => {
                fs::remove_file(path).map_err(|source| io_error("remove", path, source))?;
                what
            }
            fault => return Err(fault.into_error(path)),
        };
        let catalog = open_once(path, role).map_err(|fault| fault.into_error(path))?;
        Ok(Opened {
            catalog,
            rebuilt: Some(reason),
        })
    }

    /// Moves a catalog to `<path>.damaged`, in place of one already there, so that the next open makes a new one. To be
    /// used after an error for which [`StoreError::is_damage`] holds, with the catalog closed.
    pub fn set_aside(path: &Path) -> Result<(), StoreError> {
        let mut aside = OsString::from(path);
        aside.push(".damaged");
        match fs::rename(path, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("move aside", path, error)),
            _ => Ok(()),
        }
    }

    /// Runs `work` in the one write transaction that there can be; another caller waits, so `work` must not come back
    /// here. An error, or a panic, leaves everything as it was.
    ///
    /// With `durable` the change is on stable storage when this returns. Without, it is visible at once but lost by a
    /// crash, together with all such changes since the last durable one: never out of order, never in part. The file
    /// grows until a durable commit, so there should be one every few seconds.
    pub fn update<R>(
        &self,
        durable: bool,
        work: impl FnOnce(&mut Tables<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        self.update_inner(durable, work)
            .map_err(|error| error.at(&self.path))
    }

    fn update_inner<R>(
        &self,
        durable: bool,
        work: impl FnOnce(&mut Tables<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut transaction = self.database.begin_write()?;
        // Numbers of a failed transaction were seen by `work`, so they are not given out again either.
        let counts = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tables = Tables::new(&transaction, self.role, counts)?;
        let done = work(&mut tables);
        let Ok(result) = done else {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.objects.next = tables.counts.objects.next;
            counts.locals.next = tables.counts.locals.next;
            drop(tables);
            transaction.abort()?;
            return done;
        };
        let (counts, must_last) = tables.finish()?;
        if !durable && !must_last {
            transaction.set_durability(Durability::None)?;
        }
        // The next writer may start the moment this is committed, and must wait for the counts.
        let mut current = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        transaction.commit()?;
        *current = counts;
        Ok(result)
    }

    /// Runs `work` on the catalog as it is now; commits meanwhile are not seen and not held up.
    pub fn read<R>(&self, work: impl FnOnce(&View<'_>) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let run = || {
            let transaction = self.database.begin_read()?;
            work(&View::new(&transaction))
        };
        run().map_err(|error: StoreError| error.at(&self.path))
    }

    /// What was kept of all objects with [`Tables::keep_sum`], if it still holds.
    pub fn kept_sum(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|view| view.meta(KEPT_SUM))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn role(&self) -> Role {
        self.role
    }
}

fn open_once(path: &Path, role: Role) -> Result<Catalog, Fault> {
    let (database, counts) = file::open(path, Worth::Cache, CACHE_BYTES, |database| {
        prepare(database, role)
    })?;
    Ok(Catalog {
        database,
        path: path.to_owned(),
        role,
        counts: Mutex::new(counts),
    })
}

fn role_number(role: Role) -> u64 {
    match role {
        Role::Sender => 1,
        Role::Receiver => 2,
    }
}

/// Checks schema, role and the types of all tables; makes them in a new file.
fn prepare(database: &Database, role: Role) -> Result<Counts, Fault> {
    let is_new = database
        .begin_read()
        .map_err(StoreError::from)?
        .list_tables()
        .map_err(StoreError::from)?
        .next()
        .is_none();
    if is_new {
        initialise(database, role)?;
    }
    let transaction = database.begin_read().map_err(StoreError::from)?;
    let counters = transaction.open_table(COUNTERS).map_err(StoreError::from)?;
    let value = |key| -> Result<u64, StoreError> { Ok(counters.get(key)?.map_or(0, |value| value.value())) };
    let schema = value(SCHEMA_KEY)?;
    if schema != SCHEMA {
        return Err(Fault::Other(format!(
            "it has schema {schema}, this driftless uses {SCHEMA}"
        )));
    }
    if value(ROLE_KEY)? != role_number(role) {
        return Err(Fault::Other("it belongs to the other role".into()));
    }
    View::new(&transaction).check()?;
    Ok(Counts::load(&counters)?)
}

fn initialise(database: &Database, role: Role) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    {
        let mut counters = transaction.open_table(COUNTERS)?;
        counters.insert(SCHEMA_KEY, SCHEMA)?;
        counters.insert(ROLE_KEY, role_number(role))?;
        let counts = Counts::load(&counters)?;
        drop(counters);
        Tables::new(&transaction, role, counts)?;
    }
    Ok(transaction.commit()?)
}

/// Whether an open failed for what the file is, so that another file in its place would do.
fn is_bad_file(error: &io::Error) -> bool {
    error::is_damage(error)
        || error.kind() == io::ErrorKind::IsADirectory
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
