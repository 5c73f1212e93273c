//! A ledger that outlives its process: to sum up a large catalog is a good part of a start on a tree where nothing has changed.
//!
//! The catalog keeps it, and drops it with the first change of any object ([`Tables::keep_sum`]). Whoever finds that such a sum
//! differs from the other side's counts anew before he draws conclusions.
//!
//! The owners have a value of their own: the sum is kept with each durable commit, and they hardly ever change.

use super::{Ledger, OwnerIds, element};
use crate::engine::sum::{SUM_STATE_BYTES, SumState};
use crate::store::{Catalog, CatalogRead, Entry, StoreError, Tables, root_place};
use driftless_protocol::limits::OWNERS_TOTAL_MAX;
use driftless_protocol::{Attributes, Carried, Digest, EntrySum, Kind, ObjectId, OwnerKind, XattrClasses};
use std::collections::HashSet;

/// The users and groups that were kept last, and which of all sets of them these are.
const META_OWNERS: &str = "ledger owners";
const META_OWNERS_SUM: &str = "ledger owners sum";

const PROBE_BYTES: usize = 32;

impl Ledger {
    /// What the catalog kept, if that is for these attributes; otherwise the sum of all it has.
    pub fn of_catalog(catalog: &Catalog, carried: Carried) -> Result<Ledger, StoreError> {
        match Ledger::kept_in(catalog)?.filter(|kept| kept.carried == carried) {
            Some(kept) => Ok(kept),
            None => catalog.read(|view| Ledger::of(view, carried)),
        }
    }

    /// What the catalog kept, for whichever attributes.
    pub fn kept_in(catalog: &Catalog) -> Result<Option<Ledger>, StoreError> {
        let Some(bytes) = catalog.kept_sum()? else {
            return Ok(None);
        };
        let owners = catalog.read(|view| view.meta(META_OWNERS))?.unwrap_or_default();
        Ok(Ledger::from_bytes(&bytes, OwnerIds::from_bytes(&owners)))
    }

    /// Counts again, if this is from an earlier run.
    pub fn count_again(&mut self, catalog: &Catalog) -> Result<(), StoreError> {
        if self.is_from_before {
            *self = catalog.read(|view| Ledger::of(view, self.carried))?;
        }
        Ok(())
    }

    /// Has the catalog keep this, which is the sum of what it holds with the end of this transaction.
    pub fn keep(&self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        // No session carries owners of a tree that has more of them. It is summed up again.
        if self.owners.users.len() + self.owners.groups.len() > OWNERS_TOTAL_MAX {
            return Ok(());
        }
        let sum = self.owners.sum.to_be_bytes();
        if tables.meta(META_OWNERS_SUM)?.is_none_or(|kept| kept != sum) {
            tables.set_meta(META_OWNERS, &self.owners.to_bytes())?;
            tables.set_meta(META_OWNERS_SUM, &sum)?;
        }
        tables.keep_sum(&self.to_bytes())
    }

    /// Whether it was made in an earlier run, and only followed every change since.
    pub fn is_from_before(&self) -> bool {
        self.is_from_before
    }

    /// The probe (32 bytes), what is carried (owner, classes of extended attributes, devices, root: a byte each), how many are
    /// unknown and withheld (8 and 8), the sum of the owners (16), and the state of the sum. Integers big endian.
    fn to_bytes(&self) -> Vec<u8> {
        let carried = self.carried;
        let mut bytes = probe().to_vec();
        bytes.extend([
            u8::from(carried.owner),
            carried.xattrs.0,
            u8::from(carried.devices),
            u8::from(carried.leaves_root),
        ]);
        bytes.extend(self.unknown.to_be_bytes());
        bytes.extend(self.withheld.to_be_bytes());
        bytes.extend(self.owners.sum.to_be_bytes());
        bytes.extend(self.sum.to_bytes());
        bytes
    }

    /// Reads what [`Ledger::to_bytes`] wrote, in a program that sums up alike; `None` for anything else, and if these are not the
    /// owners.
    fn from_bytes(bytes: &[u8], owners: OwnerIds) -> Option<Ledger> {
        let rest = bytes.strip_prefix(&probe())?;
        let (&[owner, xattrs, devices, leaves_root], rest) = rest.split_first_chunk()?;
        let (&unknown, rest) = rest.split_first_chunk()?;
        let (&withheld, rest) = rest.split_first_chunk()?;
        let (&of_owners, sum) = rest.split_first_chunk()?;
        if owners.sum != u128::from_be_bytes(of_owners) {
            return None;
        }
        Some(Ledger {
            sum: SumState::from_bytes(sum).filter(|_| sum.len() == SUM_STATE_BYTES)?,
            carried: Carried {
                owner: owner == 1,
                xattrs: XattrClasses(xattrs),
                devices: devices == 1,
                leaves_root: leaves_root == 1,
            },
            unknown: u64::from_be_bytes(unknown),
            withheld: u64::from_be_bytes(withheld),
            owners,
            is_from_before: true,
        })
    }
}

impl OwnerIds {
    /// How many users (4), these, and the groups (4 each). Integers big endian.
    fn to_bytes(&self) -> Vec<u8> {
        let (users, groups) = (sorted(&self.users), sorted(&self.groups));
        let mut bytes = (users.len() as u32).to_be_bytes().to_vec();
        bytes.extend(users.iter().chain(&groups).flat_map(|id| id.to_be_bytes()));
        bytes
    }

    /// Reads that. What is damaged has another sum than those that were kept.
    fn from_bytes(bytes: &[u8]) -> OwnerIds {
        let mut ids = bytes.as_chunks::<4>().0.iter().map(|id| u32::from_be_bytes(*id));
        let users = ids.next().unwrap_or(0);
        let mut owners = OwnerIds::default();
        for (place, id) in (0..).zip(ids) {
            let kind = match place < users {
                true => OwnerKind::User,
                false => OwnerKind::Group,
            };
            owners.note_one(kind, id);
        }
        owners
    }
}

fn sorted(ids: &HashSet<u32>) -> Vec<u32> {
    let mut sorted: Vec<_> = ids.iter().copied().collect();
    sorted.sort_unstable();
    sorted
}

/// The sum of one made-up entry: another version of this program that counts otherwise has another one, and does not take over
/// what this one kept.
fn probe() -> [u8; PROBE_BYTES] {
    let entry = Entry {
        object: ObjectId(7),
        kind: Kind::File,
        place: root_place(),
        attributes: Attributes {
            mode: 0o640,
            uid: 3,
            gid: 4,
            xattrs: Some(Digest([5; 32])),
            ..Attributes::default()
        },
        size: 11,
        digest: Some(Digest([6; 32])),
        stamp: None,
        sequence: 0,
        flags: 0,
    };
    let carried = Carried {
        owner: true,
        xattrs: XattrClasses::ALL,
        devices: true,
        leaves_root: false,
    };
    let digest = entry.digest.unwrap_or_default();
    let sum = EntrySum::of(entry.kind, entry.attributes, carried, entry.size, digest);
    let mut state = SumState::default();
    state.add(&element(&entry, sum));
    state.fold().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Role, STAMP_BYTES};
    use driftless_protocol::Name;
    use driftless_protocol::message::Place;

    type Change = fn(&mut Tables<'_>) -> Result<(), StoreError>;

    fn entry(object: u64, uid: u32) -> Entry {
        Entry {
            object: ObjectId(object),
            kind: Kind::File,
            place: Place {
                directory: ObjectId::ROOT,
                name: Name::new(format!("file-{object}").into_bytes()).unwrap(),
            },
            attributes: Attributes {
                uid,
                gid: 2 * uid,
                ..Attributes::default()
            },
            size: object,
            digest: (!object.is_multiple_of(5)).then(|| Digest::of(&object.to_be_bytes())),
            stamp: None,
            sequence: 0,
            flags: if object.is_multiple_of(7) {
                super::super::flags::WITHHELD
            } else {
                0
            },
        }
    }

    fn change(t: &mut Tables<'_>, how: impl FnOnce(&mut Entry)) -> Result<(), StoreError> {
        let mut entry = entry(3, 1);
        how(&mut entry);
        t.put(&entry)
    }

    fn carried() -> Carried {
        Carried {
            owner: true,
            xattrs: XattrClasses::USER,
            devices: true,
            leaves_root: false,
        }
    }

    fn open(home: &tempfile::TempDir) -> Catalog {
        Catalog::open(&home.path().join("catalog"), Role::Sender)
            .unwrap()
            .catalog
    }

    fn assert_same(kept: &Ledger, counted: &Ledger) {
        assert_eq!(kept.fold(), counted.fold());
        assert_eq!(
            (kept.unknown(), kept.withheld(), kept.carried()),
            (counted.unknown(), counted.withheld(), counted.carried())
        );
        assert_eq!(sorted(&kept.owners.users), sorted(&counted.owners.users));
        assert_eq!(sorted(&kept.owners.groups), sorted(&counted.owners.groups));
    }

    #[test]
    fn what_is_kept_is_what_would_be_counted_until_something_changes() {
        let home = tempfile::tempdir().unwrap();
        let catalog = open(&home);
        catalog
            .update(true, |t| {
                (2..60).try_for_each(|object| t.put(&entry(object, object as u32 % 4)))
            })
            .unwrap();
        let counted = Ledger::of_catalog(&catalog, carried()).unwrap();
        assert!(!counted.is_from_before() && counted.unknown() > 0 && counted.withheld() > 0);
        catalog.update(true, |t| counted.keep(t)).unwrap();
        drop(catalog);

        let catalog = open(&home);
        let kept = Ledger::of_catalog(&catalog, carried()).unwrap();
        assert!(kept.is_from_before());
        assert_same(&kept, &counted);
        // What is only noted beside the objects changes nothing, nor does what no sum covers.
        catalog.update(true, |t| t.set_meta("other", b"value")).unwrap();
        catalog
            .update(true, |t| {
                let mut seen = entry(6, 2);
                (seen.stamp, seen.sequence) = (Some([7; STAMP_BYTES]), t.next_sequence()?);
                t.put(&seen)
            })
            .unwrap();
        assert!(Ledger::of_catalog(&catalog, carried()).unwrap().is_from_before());
        // Other attributes, another sum.
        let others = Carried {
            owner: false,
            ..carried()
        };
        assert!(!Ledger::of_catalog(&catalog, others).unwrap().is_from_before());

        let changes: [Change; 11] = [
            |t| t.put(&entry(70, 9)),
            |t| change(t, |entry| entry.kind = Kind::Symlink),
            |t| change(t, |entry| entry.place.directory = ObjectId(9)),
            |t| change(t, |entry| entry.attributes.mode = 1),
            |t| change(t, |entry| entry.size = 1),
            |t| change(t, |entry| entry.digest = None),
            |t| change(t, |entry| entry.flags = 1),
            |t| t.remove(ObjectId(3), None).map(|_| ()),
            |t| t.relabel(ObjectId(4), ObjectId(400)).map(|_| ()),
            |t| t.remove_below(ObjectId::ROOT, |_| ()),
            |t| t.clear(),
        ];
        let reset: Change = |t| {
            t.remove(ObjectId(70), None)?;
            t.remove(ObjectId(400), None)?;
            t.put(&entry(3, 1))?;
            t.put(&entry(4, 1))
        };
        for change in changes {
            catalog.update(true, reset).unwrap();
            let before = catalog.read(|view| Ledger::of(view, carried())).unwrap();
            // In the same transaction, before what is kept or after it.
            catalog
                .update(false, |t| before.keep(t).and_then(|()| change(t)))
                .unwrap();
            assert_eq!(catalog.kept_sum().unwrap(), None);
            catalog.update(true, reset).unwrap();
            catalog.update(true, |t| before.keep(t)).unwrap();
            assert!(catalog.kept_sum().unwrap().is_some());
            catalog.update(false, change).unwrap();
            assert_eq!(catalog.kept_sum().unwrap(), None);
        }
    }

    /// A change that is given up takes nothing away.
    #[test]
    fn a_transaction_that_fails_leaves_what_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let catalog = open(&home);
        catalog.update(true, |t| Ledger::default().keep(t)).unwrap();
        let failed = catalog.update(true, |t| {
            t.put(&entry(2, 1))?;
            Err::<(), _>(StoreError::NumbersExhausted)
        });
        assert!(failed.is_err());
        assert!(catalog.kept_sum().unwrap().is_some());
    }

    #[test]
    fn what_another_program_kept_is_not_believed() {
        let mut ledger = Ledger::default();
        (2..9).for_each(|object| ledger.replace(None, Some(&entry(object, object as u32))));
        let (bytes, owners) = (ledger.to_bytes(), ledger.owners.to_bytes());
        let read = |bytes: &[u8], owners: &[u8]| Ledger::from_bytes(bytes, OwnerIds::from_bytes(owners));
        assert_same(&read(&bytes, &owners).unwrap(), &ledger);
        let mut other = bytes.clone();
        other[0] ^= 1;
        assert!(read(&other, &owners).is_none());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], &owners).is_none());
        }
        assert!(read(&[bytes.as_slice(), &[0]].concat(), &owners).is_none());
        for length in (0..owners.len()).step_by(4) {
            assert!(read(&bytes, &owners[..length]).is_none());
        }
        let mut other = owners.clone();
        other[3] += 1;
        assert!(read(&bytes, &other).is_none(), "one that was a group");
    }

    #[test]
    fn very_many_owners_are_kept_and_too_many_are_not() {
        let home = tempfile::tempdir().unwrap();
        let catalog = open(&home);
        let mut ledger = Ledger::default();
        (2..30_000).for_each(|object| ledger.replace(None, Some(&entry(object, object as u32))));
        catalog.update(true, |t| ledger.keep(t)).unwrap();
        assert_same(&Ledger::kept_in(&catalog).unwrap().unwrap(), &ledger);
        // Others since: those of before are not taken for them.
        ledger.replace(None, Some(&entry(30_000, 30_000)));
        catalog.update(true, |t| ledger.keep(t)).unwrap();
        assert_same(&Ledger::kept_in(&catalog).unwrap().unwrap(), &ledger);
        let mut more = Ledger::default();
        (2..40_000).for_each(|object| more.replace(None, Some(&entry(object, object as u32))));
        catalog
            .update(true, |t| t.put(&entry(3, 1)).and_then(|()| more.keep(t)))
            .unwrap();
        assert!(Ledger::kept_in(&catalog).unwrap().is_none());
    }
}
