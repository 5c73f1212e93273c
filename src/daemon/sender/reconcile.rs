//! Comparing the source with a receiver, directory by directory, where sums differ.
//!
//! The outcome is written into the catalog's flags: what the target holds, what it lacks, what only needs new
//! attributes. What the receiver has and the source lacks is returned, to be decided on.

use super::contents::Contents;
use super::extras_in::ExtrasIn;
use super::listing::{Allowance, receive_listing};
use super::source::Source;
use crate::daemon::Stop;
use crate::daemon::ledger::flags;
use crate::daemon::receiver::below_sums;
use crate::engine::compare::{Compare, SourceRow, Verdict, compare};
use crate::net::SenderLink;
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::limits::LIST_DIRECTORIES_MAX;
use driftless_protocol::message::{Directories, Opened, Place, Row, ToReceiver};
use driftless_protocol::{Digest, Kind, Name, ObjectId, TreeSum};
use std::collections::{HashMap, HashSet, VecDeque};

/// Directories asked for in one message: enough to keep the line busy, few enough to start early.
const ASK_AT_A_TIME: usize = if LIST_DIRECTORIES_MAX < 1_024 {
    LIST_DIRECTORIES_MAX
} else {
    1_024
};

/// In the catalog: see [`Source::compared_through`].
const META_COMPARED: &str = "compared";

/// Something on the receiver that the source lacks.
#[derive(Debug, Clone)]
pub struct Extra {
    /// The source's number of the directory in which it stands.
    pub place: Place,
    /// The receiver's number.
    pub object: ObjectId,
    /// What it is.
    pub kind: Kind,
    /// It and everything below it.
    pub entries: u64,
    /// The receiver's sum tells of it: it has a number of the source's, and its content is known.
    pub is_summed: bool,
}

impl Extra {
    /// Whether it is a directory that the mirror made, with something in it.
    pub fn is_tree_of_the_mirror(&self) -> bool {
        self.kind == Kind::Directory && self.entries > 1 && !self.object.is_local()
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Places whose object gets the source's number, parents first, and whether its content is assumed.
    pub adopt: Vec<(Place, ObjectId, bool)>,
    /// What only the receiver has.
    pub extras: Vec<Extra>,
    /// Objects of another kind that stand in the way of the source's.
    pub replaced: Vec<Extra>,
    /// What the receiver counts as the mirror's and is left as it is from now on.
    pub let_go: Vec<(Place, ObjectId)>,
    /// Entries compared.
    pub compared: u64,
    /// What it says of the records of what is gone.
    pub covered: Covered,
}

/// Why a comparison could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The databases.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The link ended.
    #[error("the link ended")]
    Ended,
    /// The receiver cannot list a directory.
    #[error("{0}")]
    Unlisted(String),
    /// The receiver answered with something else.
    #[error("the receiver broke the protocol while listing")]
    Violation,
    /// The receiver lists more than so many entries.
    #[error(
        "the receiver lists more than {0} entries, far more than this mirror ever had: if they are there, give the mirror a directory \
         of its own or move them away; if not, something is wrong with that receiver"
    )]
    TooMany(u64),
    /// Stopping was asked meanwhile.
    #[error("stopped while listing")]
    Stopped,
}

/// What a session knows of the receiver's tree before it is compared.
#[derive(Debug, Clone, Copy)]
pub struct Beforehand<'a> {
    /// It holds nothing, as the receiver said and as long as nothing was sent: nothing is asked, which is a round trip less before the
    /// first entry leaves.
    pub is_empty: bool,
    /// The two have met, and what stands there where something of the source belongs that moved may be removed.
    pub may_move: bool,
    /// Of these an op failed in this session; so the receiver may not have them where it was believed.
    pub tried: &'a HashMap<ObjectId, u32>,
    /// What only the target has may be deleted there.
    pub may_delete: bool,
}

/// Compares everything, unless stopping is asked meanwhile.
pub fn reconcile(
    source: &mut Source,
    link: &SenderLink,
    opened: &Opened,
    beforehand: Beforehand<'_>,
    stop: &Stop,
) -> Result<Reconciled, ReconcileError> {
    let mut outcome = Reconciled::default();
    let mut allowance = Allowance::of_mirror(source.entries_ever()?);
    let carried = opened.carried;
    let contact = Contact {
        is_bound: opened.bound,
        is_first: !opened.bound || !source.has_met()?,
        tried: beforehand.may_move.then_some(beforehand.tried),
    };
    let catalog = source.catalog.clone();
    let mut lookouts = ExtrasIn::read(source)?;
    let sums = catalog.read(|view| below_sums(view, carried, &[ObjectId::ROOT]))?;
    // Pairs of (our directory, theirs).
    let mut ask: VecDeque<(ObjectId, ObjectId)> = VecDeque::from([(ObjectId::ROOT, opened.root)]);
    // Those that the target has at another place.
    let mut astray = Astray::default();
    while !ask.is_empty() {
        let round: Vec<_> = ask.drain(..ask.len().min(ASK_AT_A_TIME)).collect();
        let theirs = Directories(round.iter().map(|&(_, theirs)| theirs).collect());
        if !beforehand.is_empty {
            link.control()
                .send(ToReceiver::List(theirs))
                .map_err(|_| ReconcileError::Ended)?;
        }
        for (ours, theirs) in round {
            lookouts.note_listed(ours);
            let rows = match beforehand.is_empty {
                true => Vec::new(),
                false => receive_listing(link, stop, &mut allowance)?,
            };
            outcome.compared += rows.len() as u64;
            let next = catalog.update(false, |t| {
                let children = t.child_entries(ours)?;
                let listed: Vec<SourceRow> = children
                    .iter()
                    .map(|entry| {
                        let below = sums
                            .get(&entry.object)
                            .map_or(TreeSum::default(), |(sum, _)| *sum);
                        source_row(entry, below)
                    })
                    .collect();
                let verdicts = compare(&listed, &rows, carried);
                let by_number: HashMap<ObjectId, &Row> = rows.iter().map(|row| (row.object, row)).collect();
                let entries: HashMap<ObjectId, Entry> =
                    children.into_iter().map(|entry| (entry.object, entry)).collect();
                let mut next = Vec::new();
                if let Some(tried) = contact.tried {
                    let found = found_astray(t, &listed, &rows, tried, &mut astray.equal)?;
                    // None twice, whatever is listed.
                    let new = found.into_iter().filter(|&found| astray.listed.insert(found));
                    next.extend(new.map(|directory| (directory, directory)));
                }
                // Under another number it becomes what stands at its place.
                if ours == theirs && astray.listed.contains(&ours) {
                    let equal = &mut astray.equal;
                    note_astray(
                        ours,
                        verdicts,
                        &by_number,
                        &mut outcome,
                        (&lookouts, &mut next, equal),
                    );
                    astray.listed.extend(next.iter().map(|(directory, _)| *directory));
                    return Ok(next);
                }
                for verdict in verdicts {
                    note(
                        source,
                        t,
                        ours,
                        verdict,
                        contact,
                        &entries,
                        &by_number,
                        &mut outcome,
                        (&lookouts, &astray, &mut next),
                    )?;
                }
                Ok(next)
            })?;
            ask.extend(next);
        }
    }
    // What the target has was found out anew.
    source.contents = Contents::default();
    let keeps_records = source.start.is_some();
    if beforehand.may_delete {
        // Before the records count as covered that told of it.
        lookouts.find(&outcome);
        lookouts.write(source)?;
    }
    catalog.update(true, |t| {
        // The comparison covers what these stood for, unless there are entries that no comparison touches. They go when all that was
        // found is dealt with: a session that ends before that begins with a comparison, which may find less.
        let through = if keeps_records { 0 } else { t.last_sequence()? };
        let but = match outcome.found_a_tree() {
            true => unreached_records(t, through, &astray)?,
            false => HashSet::new(),
        };
        outcome.covered = Covered { through, but };
        t.set_meta(META_COMPARED, &through.to_be_bytes())
    })?;
    Ok(outcome)
}

/// Records in the journal of what is gone that say nothing new: a comparison found what there is to find.
#[derive(Debug, Default)]
pub struct Covered {
    /// Up to this number.
    pub through: u64,
    /// But not these.
    pub but: HashSet<u64>,
}

impl Covered {
    /// Whether a record is one of them.
    pub fn includes(&self, sequence: u64) -> bool {
        sequence <= self.through && !self.but.contains(&sequence)
    }
}

impl Reconciled {
    /// Whether some tree of the mirror was found where it does not belong, of which no more is known than that.
    fn found_a_tree(&self) -> bool {
        let mut found = self.extras.iter().chain(&self.replaced);
        found.any(Extra::is_tree_of_the_mirror)
    }
}

/// Of the tombstones up to `last` those of what was in a directory whose content on the target was not listed: the target may have that
/// directory at another place, with what is gone still in it. Who is refused, or waits for an approval, would not hear of it again.
fn unreached_records(t: &Tables<'_>, last: u64, astray: &Astray) -> Result<HashSet<u64>, StoreError> {
    let tombstones = t.tombstones_through(last)?;
    let above: HashMap<ObjectId, ObjectId> = tombstones
        .iter()
        .map(|(_, object, place)| (*object, place.directory))
        .collect();
    // Of each directory whether all below it is equal, and whether it was not reached.
    let mut known = HashMap::from([(ObjectId::ROOT, (false, false))]);
    let mut kept = HashSet::new();
    for (number, _, place) in &tombstones {
        if astray.listed.contains(&place.directory) {
            continue;
        }
        let (mut way, mut at) = (Vec::new(), place.directory);
        let mut state = loop {
            if let Some(&known) = known.get(&at) {
                break known;
            }
            let entry = t.get(at)?;
            let is_there = entry
                .as_ref()
                .is_none_or(|entry| entry.flags & (flags::ON_TARGET | flags::MOVED) == flags::ON_TARGET);
            let next = entry.map(|entry| entry.place.directory);
            let next = next.or_else(|| above.get(&at).copied());
            way.push((at, is_there));
            match next.filter(|next| way.iter().all(|(passed, _)| passed != next)) {
                Some(next) => at = next,
                None => break (false, true),
            }
        };
        for (directory, is_there) in way.into_iter().rev() {
            state.0 |= astray.equal.contains(&directory);
            state.1 |= !is_there;
            known.insert(directory, state);
        }
        if state.1 && !state.0 {
            kept.insert(*number);
        }
    }
    Ok(kept)
}

/// Directories that the target has at another place than the source.
#[derive(Debug, Default)]
struct Astray {
    /// What is in them there was listed.
    listed: HashSet<ObjectId>,
    /// All below them is equal.
    equal: HashSet<ObjectId>,
}

/// How well the two ends know each other.
#[derive(Debug, Clone, Copy)]
struct Contact<'a> {
    /// The target knows this mirror.
    is_bound: bool,
    /// They never compared all of what they have, as far as either knows.
    is_first: bool,
    /// What moved here is believed to be where it was there, but for these.
    tried: Option<&'a HashMap<ObjectId, u32>>,
}

#[expect(
    clippy::too_many_arguments,
    reason = "one step of the loop above, cut out to be readable"
)]
fn note(
    source: &mut Source,
    t: &mut Tables<'_>,
    directory: ObjectId,
    verdict: Verdict,
    contact: Contact<'_>,
    ours: &HashMap<ObjectId, Entry>,
    theirs: &HashMap<ObjectId, &Row>,
    outcome: &mut Reconciled,
    (lookouts, astray, next): (&ExtrasIn, &Astray, &mut Vec<(ObjectId, ObjectId)>),
) -> Result<(), StoreError> {
    let (object, present, replaced, content, attributes, descend) = match verdict {
        Verdict::Extra {
            object,
            name,
            entries,
        } => {
            outcome.extras.push(Extra {
                place: Place { directory, name },
                object,
                kind: theirs.get(&object).map_or(Kind::File, |row| row.kind),
                entries,
                is_summed: is_summed(theirs.get(&object)),
            });
            return Ok(());
        }
        Verdict::Present {
            object,
            theirs,
            replaced,
            content,
            attributes,
            descend,
        } => (object, theirs, replaced, content, attributes, descend),
    };
    let Some(entry) = ours.get(&object) else {
        return Ok(());
    };
    let mut updated = entry.clone();
    let row = present.or(replaced).and_then(|number| theirs.get(&number));
    let may_assume = entry.kind == Kind::File && !source.is_device(t, entry)?;
    let assumed = row
        .filter(|_| may_assume)
        .and_then(|row| assumed_content(source.compare, entry, row, contact));
    let differs = content || attributes || present.is_none();
    // One of the same size and time is taken for equal.
    let is_other = (content && assumed.is_none()) || attributes || present.is_none();
    let is_left = is_other && source.leaves(entry, row.copied());
    if is_left || (differs && source.spares(entry, row.copied())) {
        outcome.let_go.extend(
            row.filter(|row| !row.object.is_local())
                .map(|row| (entry.place.clone(), row.object)),
        );
        let in_the_way = row.is_some_and(|row| row.kind == Kind::Directory && row.entries > 0);
        return withhold_all(source, t, entry, is_left && in_the_way);
    }
    updated.flags &= !flags::WITHHELD;
    let moved = flags::ON_TARGET | flags::MOVED;
    // It made room for another there, and did not come to where it belongs: it moves, and what is in it with it.
    let is_found = entry.flags & moved != moved
        && astray.listed.contains(&object)
        && theirs.contains_key(&object)
        && present != Some(object)
        && contact.tried.is_some_and(|tried| !tried.contains_key(&object));
    if is_found {
        updated.flags |= moved;
        if !astray.equal.contains(&object) {
            forget_below(source, t, object)?;
        }
    }
    let Some(number) = present else {
        if let Some(other) = replaced {
            let entries = theirs.get(&other).map_or(0, |row| row.entries).saturating_add(1);
            outcome.replaced.push(Extra {
                place: entry.place.clone(),
                object: other,
                kind: theirs.get(&other).map_or(Kind::File, |row| row.kind),
                entries,
                is_summed: is_summed(theirs.get(&other)),
            });
        }
        if is_found {
            return write_if_changed(source, t, entry, updated);
        }
        forget(source, t, updated)?;
        return if entry.kind == Kind::Directory {
            forget_below(source, t, object)
        } else {
            Ok(())
        };
    };
    if number != object
        && !number.is_local()
        && contact.tried.is_some_and(|tried| !tried.contains_key(&object))
        && entry.kind == Kind::Directory
        && updated.flags & moved == moved
    {
        // Another directory of ours, that is gone here. To fill that with what the target has elsewhere would send all of it once
        // more, and change what perhaps somebody has to be asked about.
        outcome.replaced.push(Extra {
            place: entry.place.clone(),
            object: number,
            kind: Kind::Directory,
            entries: row.map_or(0, |row| row.entries).saturating_add(1),
            is_summed: true,
        });
        return match is_found {
            true => write_if_changed(source, t, entry, updated),
            false => Ok(()),
        };
    }
    if number != object {
        let is_unread = assumed.is_some_and(|digest| digest.is_assumed());
        outcome.adopt.push((entry.place.clone(), object, is_unread));
    }
    updated.flags &= !(flags::MOVED | flags::ATTRIBUTES | flags::ON_TARGET | flags::OFFER);
    if attributes {
        updated.flags |= flags::ATTRIBUTES;
    }
    if let Some(digest) = assumed.filter(|_| content) {
        updated.digest = Some(digest);
        updated.flags &= !(flags::STALE | flags::PARTED);
        updated.flags |= flags::ON_TARGET;
    } else if !content {
        updated.flags |= flags::ON_TARGET;
    } else if let Some(row) = row.filter(|row| entry.kind == Kind::File && row.size == entry.size) {
        // Whatever its time says: a file that was only touched costs no content.
        match row.digest.filter(|digest| !digest.is_assumed()) {
            // Reading our side settles it; nothing is sent if the digest is the receiver's.
            Some(digest) => {
                updated.digest = Some(digest);
                updated.flags |= flags::ON_TARGET | flags::STALE;
                // Nor is it known whether its other names lead to the same file there.
                if entry.attributes.link_group != ObjectId(0) {
                    updated.flags |= flags::PARTED;
                }
            }
            // Both sides read.
            None => updated.flags |= flags::OFFER,
        }
    }
    write_if_changed(source, t, entry, updated)?;
    if descend || entry.kind == Kind::Directory && lookouts.leads_to_one(object) {
        next.push((object, number));
    } else if entry.kind == Kind::Directory {
        confirm_below(source, t, object)?;
    }
    Ok(())
}

/// Directories of the mirror that the receiver lists where they do not belong. Notes those of them that are `equal`, of what belongs in
/// the same directory.
fn found_astray(
    t: &Tables<'_>,
    listed: &[SourceRow],
    rows: &[Row],
    tried: &HashMap<ObjectId, u32>,
    equal: &mut HashSet<ObjectId>,
) -> Result<Vec<ObjectId>, StoreError> {
    let here: HashMap<&Name, &SourceRow> = listed.iter().map(|row| (&row.name, row)).collect();
    let moved = flags::ON_TARGET | flags::MOVED;
    let mut found = Vec::new();
    // Those that stand where another directory of ours belongs, by that.
    let mut waiting: HashMap<ObjectId, &Row> = HashMap::new();
    let is_tree = |row: &&Row| row.kind == Kind::Directory && row.entries > 0 && !row.object.is_local();
    for row in rows.iter().filter(is_tree) {
        let there = here.get(&row.name);
        if there.is_some_and(|ours| ours.object == row.object) {
            continue;
        }
        let known = t.get(row.object)?;
        if !known.is_some_and(|entry| entry.kind == Kind::Directory) {
            continue;
        }
        match there {
            // A directory of ours there becomes that, with all that is in it, unless it comes from elsewhere itself.
            Some(ours) if ours.kind == Kind::Directory => {
                let entry = t.get(ours.object)?;
                match entry.is_some_and(|entry| entry.flags & moved != moved) {
                    true => _ = waiting.insert(ours.object, row),
                    false => found.push(row),
                }
            }
            _ => found.push(row),
        }
    }
    let mut seen = 0;
    while let Some(row) = found.get(seen).copied() {
        seen += 1;
        if !tried.contains_key(&row.object) {
            found.extend(waiting.remove(&row.object));
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let belows: HashMap<ObjectId, TreeSum> = listed.iter().map(|row| (row.object, row.below)).collect();
    for row in &found {
        if belows.get(&row.object) == Some(&row.below) {
            equal.insert(row.object);
        }
    }
    Ok(found.into_iter().map(|row| row.object).collect())
}

/// Notes what goes of a directory that the target has at another place: it comes along when that moves. All else is sent anew.
fn note_astray(
    directory: ObjectId,
    verdicts: Vec<Verdict>,
    theirs: &HashMap<ObjectId, &Row>,
    outcome: &mut Reconciled,
    (lookouts, next, equal): (&ExtrasIn, &mut Vec<(ObjectId, ObjectId)>, &mut HashSet<ObjectId>),
) {
    let extra = |number: ObjectId, name: &Name, kind: Kind| Extra {
        place: Place {
            directory,
            name: name.clone(),
        },
        object: number,
        kind,
        entries: theirs.get(&number).map_or(0, |row| row.entries).saturating_add(1),
        is_summed: is_summed(theirs.get(&number)),
    };
    for verdict in verdicts {
        match verdict {
            Verdict::Extra { object, name, .. } => {
                let kind = theirs.get(&object).map_or(Kind::File, |row| row.kind);
                outcome.extras.push(extra(object, &name, kind));
            }
            Verdict::Present {
                object,
                theirs: Some(number),
                descend,
                ..
            } if object == number => {
                let is_directory = theirs.get(&number).is_some_and(|row| row.kind == Kind::Directory);
                match is_directory && (descend || lookouts.leads_to_one(object)) {
                    true => next.push((object, number)),
                    false if is_directory => drop(equal.insert(object)),
                    false => {}
                }
            }
            Verdict::Present {
                theirs: present,
                replaced,
                ..
            } => {
                let row = present.or(replaced).and_then(|number| theirs.get(&number));
                if let Some(row) = row.filter(|row| row.kind == Kind::Directory) {
                    outcome.replaced.push(extra(row.object, &row.name, row.kind));
                }
            }
        }
    }
}

/// Whether the receiver's sum tells of an entry.
fn is_summed(row: Option<&&Row>) -> bool {
    row.is_some_and(|row| !row.object.is_local() && (row.kind == Kind::Directory || row.digest.is_some()))
}

impl Source {
    /// Where the journal stood at the last comparison. What that found is in no record, and who goes on from an earlier number would
    /// hear nothing of it.
    pub fn compared_through(&self) -> Result<u64, StoreError> {
        let meta = self.catalog.read(|view| view.meta(META_COMPARED))?;
        let bytes = meta.and_then(|bytes| bytes.try_into().ok());
        Ok(bytes.map_or(0, u64::from_be_bytes))
    }

    /// Whether an entry that differs from what the receiver has at its place, if anything, is to be left as it is there.
    fn spares(&self, entry: &Entry, theirs: Option<&Row>) -> bool {
        let Some(row) = theirs else {
            return self.sparing.missing;
        };
        let are_directories = entry.kind == Kind::Directory && row.kind == Kind::Directory;
        // What this run put there is brought to its end.
        let is_own = row.object == entry.object && entry.object >= self.first_of_run;
        let are_files = entry.kind == Kind::File && row.kind == Kind::File;
        (self.sparing.existing && !are_directories && !is_own)
            || (self.sparing.newer && are_files && row.attributes.mtime > entry.attributes.mtime)
    }
}

/// The digest that a file's content counts by although this side did not read it: that of the receiver if it knows one, or one
/// that stands for what nobody read. Only what this mirror knows nothing of is taken on trust: a file that either side
/// remembers in another state is compared by content, and so is one that this side knows nothing of where the target knows
/// this mirror. Notes about it were lost, by one side or by both, and what changed since then may have had its time put back.
fn assumed_content(compare: Compare, ours: &Entry, theirs: &Row, contact: Contact<'_>) -> Option<Digest> {
    let times = (ours.attributes.mtime, theirs.attributes.mtime);
    if ours.kind != Kind::File
        || theirs.kind != Kind::File
        || !compare.assumes((ours.size, theirs.size), times)
    {
        return None;
    }
    let never_read = ours.digest.is_none();
    let is_stranger = theirs.object.is_local() && theirs.digest.is_none();
    let is_known_here = ours.flags & flags::STALE == 0;
    // By an earlier contact that ended in a question to the user.
    let was_assumed = ours.digest == Some(Digest::assumed(ours.object, ours.size));
    match theirs.digest {
        Some(digest) if never_read && !contact.is_bound => Some(digest),
        None if is_stranger && never_read && contact.is_first => {
            Some(Digest::assumed(ours.object, ours.size))
        }
        None if is_stranger && is_known_here && !never_read && (!contact.is_bound || was_assumed) => {
            Some(Digest::assumed(ours.object, ours.size))
        }
        _ => None,
    }
}

fn write_if_changed(
    source: &mut Source,
    t: &mut Tables<'_>,
    old: &Entry,
    new: Entry,
) -> Result<(), StoreError> {
    if new.flags == old.flags && new.digest == old.digest {
        return Ok(());
    }
    with_number(source, t, new)
}

/// Objects that need work must stand in the journal.
fn with_number(source: &mut Source, t: &mut Tables<'_>, mut entry: Entry) -> Result<(), StoreError> {
    if entry.sequence == 0 {
        entry.sequence = t.next_sequence()?;
    }
    source.put(t, &entry)
}

/// Takes an entry out of the sums, with everything below it, until its next change.
fn withhold_all(
    source: &mut Source,
    t: &mut Tables<'_>,
    entry: &Entry,
    is_blocked: bool,
) -> Result<(), StoreError> {
    if entry.kind == Kind::Directory {
        // What changed since the start is sent, and the directories above it with it.
        match source.start.is_some() {
            true => forget_below(source, t, entry.object)?,
            false => for_each_below(t, entry.object, |t, below| withhold_one(source, t, below, false))?,
        }
    }
    withhold_one(source, t, entry.clone(), is_blocked)
}

fn withhold_one(
    source: &mut Source,
    t: &mut Tables<'_>,
    mut entry: Entry,
    is_blocked: bool,
) -> Result<(), StoreError> {
    withhold(&mut entry);
    if is_blocked {
        entry.flags |= flags::OFFER;
    }
    entry.sequence = 0;
    source.put(t, &entry)
}

/// Notes in an entry that the target is left as it is.
pub fn withhold(entry: &mut Entry) {
    entry.flags |= flags::WITHHELD;
    entry.flags &= !(flags::ON_TARGET | flags::MOVED | flags::ATTRIBUTES | flags::OFFER);
}

fn forget(source: &mut Source, t: &mut Tables<'_>, mut entry: Entry) -> Result<(), StoreError> {
    let before = entry.clone();
    entry.flags &= !(flags::ON_TARGET | flags::MOVED | flags::OFFER | flags::WITHHELD);
    write_if_changed(source, t, &before, entry)
}

/// The target has nothing below a directory, and gets all of it but for what is left as it is there.
fn forget_below(source: &mut Source, t: &mut Tables<'_>, directory: ObjectId) -> Result<(), StoreError> {
    for_each_below(t, directory, |t, entry| match source.leaves(&entry, None) {
        true => withhold_one(source, t, entry, false),
        false => forget(source, t, entry),
    })
}

/// Sums below a directory are equal: the target holds all of it, whatever we knew.
fn confirm_below(source: &mut Source, t: &mut Tables<'_>, directory: ObjectId) -> Result<(), StoreError> {
    for_each_below(t, directory, |t, entry| {
        let mut updated = entry.clone();
        updated.flags &= !(flags::MOVED | flags::ATTRIBUTES | flags::WITHHELD);
        updated.flags |= flags::ON_TARGET;
        write_if_changed(source, t, &entry, updated)
    })
}

fn for_each_below(
    t: &mut Tables<'_>,
    directory: ObjectId,
    mut work: impl FnMut(&mut Tables<'_>, Entry) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut directories = vec![directory];
    while let Some(directory) = directories.pop() {
        for entry in t.child_entries(directory)? {
            if entry.kind == Kind::Directory {
                directories.push(entry.object);
            }
            work(t, entry)?;
        }
    }
    Ok(())
}

fn source_row(entry: &Entry, below: TreeSum) -> SourceRow {
    SourceRow {
        name: entry.place.name.clone(),
        object: entry.object,
        kind: entry.kind,
        attributes: entry.attributes,
        size: entry.size,
        digest: entry.digest.filter(|_| entry.flags & flags::STALE == 0),
        below,
    }
}
