//! What links lead to that are followed: told at one place, seen at others.
//!
//! A link that is followed stands in the tree for something that lies elsewhere, inside or outside of it. What happens there is
//! told of other directories than the link's. So every name that is looked up on the way from a link to what it leads to is
//! kept in mind ([`Hop`]), and directories in which such names are and that do not belong to the tree are watched as
//! *outposts*, with numbers of their own that nobody else ever sees. [`Lookouts::translate`] makes of an event the events at all
//! places that show what it is about. What is mounted over a step of the way is not told, and found by the audit.

use super::{Look, Source};
use crate::engine::pending::Hint;
use crate::fs::{Directory, Hop, Stat};
use crate::watch::WatchEvent;
use driftless_protocol::message::Place;
use driftless_protocol::{Name, ObjectId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::PoisonError;

/// How often a way is looked at anew because it changed before it was watched.
const TRIES: usize = 5;

/// Device and inode.
type Inode = (u64, u64);

/// Where links lead by way of. Empty where none is followed.
#[derive(Debug, Default)]
pub(super) struct Lookouts {
    /// The watched directories, those of the tree and the outposts.
    inodes: HashMap<ObjectId, Inode>,
    /// The tree's, the other way round: one directory can be at several places.
    objects: HashMap<Inode, BTreeSet<ObjectId>>,
    outposts: HashMap<Inode, ObjectId>,
    /// Which links lead by way of a name.
    places: HashMap<Inode, HashMap<Name, HashSet<Place>>>,
    /// And by way of which names a link leads.
    trails: HashMap<Place, Vec<(Inode, Name)>>,
    /// Ways of which a part is not watched any more.
    doubted: HashSet<Place>,
    /// Directories of the tree that stand where a link is.
    followed: HashSet<ObjectId>,
    /// Links that the user was told of.
    told: HashSet<Place>,
    outposts_made: u64,
}

impl Lookouts {
    /// What an event means for all places that show it; `None` if it means what it says and no more.
    fn translate(&self, event: &WatchEvent) -> Option<Vec<WatchEvent>> {
        let mut told = Vec::new();
        match event {
            WatchEvent::At {
                directory,
                name,
                hint,
                is_directory,
            } => self.tell((*directory, name), *hint, *is_directory, &mut told),
            WatchEvent::Renamed {
                from,
                to,
                is_directory,
            } => {
                if self.is_plain((from.0, &from.1)) && self.is_plain((to.0, &to.1)) {
                    return None;
                }
                self.tell((from.0, &from.1), Hint::Vanished, *is_directory, &mut told);
                self.tell((to.0, &to.1), Hint::MovedIn, *is_directory, &mut told);
            }
            WatchEvent::Listing { directory } => {
                self.tell_all(*directory, &mut told, |directory| WatchEvent::Listing {
                    directory,
                });
            }
            WatchEvent::Itself { directory } => {
                self.tell_all(*directory, &mut told, |directory| WatchEvent::Itself {
                    directory,
                });
            }
            WatchEvent::Gone { directory } => {
                self.tell_all(*directory, &mut told, |directory| WatchEvent::Gone { directory });
            }
            WatchEvent::Overflow => return None,
        }
        (told.as_slice() != std::slice::from_ref(event)).then_some(told)
    }

    /// The numbers under which a watched directory is in the tree.
    fn aliases(&self, directory: ObjectId) -> Vec<ObjectId> {
        match self.inodes.get(&directory) {
            Some(inode) => self.objects.get(inode).into_iter().flatten().copied().collect(),
            None => vec![directory],
        }
    }

    fn behind(&self, directory: ObjectId, name: &Name) -> impl Iterator<Item = &Place> {
        let names = self
            .inodes
            .get(&directory)
            .and_then(|inode| self.places.get(inode));
        names.and_then(|names| names.get(name)).into_iter().flatten()
    }

    fn is_plain(&self, (directory, name): (ObjectId, &Name)) -> bool {
        self.aliases(directory) == [directory] && self.behind(directory, name).next().is_none()
    }

    fn tell(
        &self,
        (directory, name): (ObjectId, &Name),
        hint: Hint,
        is_directory: bool,
        told: &mut Vec<WatchEvent>,
    ) {
        let aliases = self
            .aliases(directory)
            .into_iter()
            .map(|directory| (directory, name));
        let behind = self
            .behind(directory, name)
            .map(|place| (place.directory, &place.name));
        told.extend(aliases.chain(behind).map(|(directory, name)| WatchEvent::At {
            directory,
            name: name.clone(),
            hint,
            is_directory,
        }));
    }

    /// Of a whole directory.
    fn tell_all(
        &self,
        directory: ObjectId,
        told: &mut Vec<WatchEvent>,
        event: impl Fn(ObjectId) -> WatchEvent,
    ) {
        told.extend(self.aliases(directory).into_iter().map(event));
        let names = self
            .inodes
            .get(&directory)
            .and_then(|inode| self.places.get(inode));
        let places: HashSet<&Place> = names.into_iter().flat_map(HashMap::values).flatten().collect();
        told.extend(places.into_iter().map(|place| WatchEvent::At {
            directory: place.directory,
            name: place.name.clone(),
            hint: Hint::Attributes,
            is_directory: false,
        }));
    }

    /// A directory of the tree is watched under its number, also if it was an outpost before. Returns the number of that.
    fn note_directory(&mut self, object: ObjectId, inode: Inode) -> Option<ObjectId> {
        if self.inodes.get(&object) != Some(&inode) {
            self.drop_number(object);
            self.inodes.insert(object, inode);
        }
        self.objects.entry(inode).or_default().insert(object);
        let outpost = self.outposts.remove(&inode)?;
        self.inodes.remove(&outpost);
        Some(outpost)
    }

    fn drop_number(&mut self, object: ObjectId) -> Option<Inode> {
        let inode = self.inodes.remove(&object)?;
        if let Some(objects) = self.objects.get_mut(&inode) {
            objects.remove(&object);
            if objects.is_empty() {
                self.objects.remove(&inode);
            }
        }
        Some(inode)
    }

    /// A directory left the tree, and its watch ended. Where else it is, it is watched again; what leads by way of it is looked
    /// at again.
    pub(super) fn drop_directory(&mut self, object: ObjectId, look: &mut Look) {
        self.followed.remove(&object);
        let Some(inode) = self.drop_number(object) else {
            return;
        };
        for &other in self.objects.get(&inode).into_iter().flatten() {
            look.enter.push(other);
            look.shallow.insert(other);
        }
        let names = self.places.get(&inode);
        look.behind
            .extend(names.into_iter().flat_map(HashMap::values).flatten().cloned());
    }

    pub(super) fn note_followed(&mut self, directory: ObjectId, is_followed: bool) {
        match is_followed {
            true => self.followed.insert(directory),
            false => !self.followed.is_empty() && self.followed.remove(&directory),
        };
    }

    /// Whether a directory stands where a link is, as far as this run has seen.
    pub(super) fn is_followed(&self, directory: ObjectId) -> bool {
        self.followed.contains(&directory)
    }

    /// A link leads another way, or is not there any more. Returns the outposts that are not needed now.
    pub(super) fn forget(&mut self, place: &Place) -> Vec<ObjectId> {
        self.doubted.remove(place);
        let Some(trail) = self.trails.remove(place) else {
            return Vec::new();
        };
        for (inode, name) in &trail {
            let Some(names) = self.places.get_mut(inode) else {
                continue;
            };
            if let Some(places) = names.get_mut(name) {
                places.remove(place);
                if places.is_empty() {
                    names.remove(name);
                }
            }
            if names.is_empty() {
                self.places.remove(inode);
            }
        }
        let left = trail.iter().filter(|(inode, _)| !self.places.contains_key(inode));
        let left: BTreeSet<Inode> = left.map(|(inode, _)| *inode).collect();
        left.into_iter()
            .filter_map(|inode| self.drop_outpost(inode))
            .collect()
    }

    fn drop_outpost(&mut self, inode: Inode) -> Option<ObjectId> {
        let outpost = self.outposts.remove(&inode)?;
        self.inodes.remove(&outpost);
        Some(outpost)
    }

    /// A link leads this way. Returns which directories are to be watched for it, with the numbers that they get.
    fn set_trail<'h>(&mut self, place: &Place, hops: &'h [Hop]) -> Vec<(ObjectId, &'h Hop)> {
        let mut unwatched = Vec::new();
        for hop in hops {
            let names = self.places.entry(hop.inode).or_default();
            names.entry(hop.name.clone()).or_default().insert(place.clone());
            if !self.objects.contains_key(&hop.inode) && !self.outposts.contains_key(&hop.inode) {
                self.outposts_made += 1;
                let number = ObjectId(ObjectId::FIRST_LOCAL.0 | self.outposts_made);
                self.outposts.insert(hop.inode, number);
                self.inodes.insert(number, hop.inode);
                unwatched.push((number, hop));
            }
        }
        let trail = hops.iter().map(|hop| (hop.inode, hop.name.clone()));
        self.doubted.remove(place);
        self.trails.insert(place.clone(), trail.collect());
        unwatched
    }

    /// All ways by a directory are looked up anew at the next look.
    fn doubt_trails_by(&mut self, inode: Inode) {
        let names = self.places.get(&inode).into_iter().flat_map(HashMap::values);
        self.doubted.extend(names.flatten().cloned());
    }

    fn is_trail(&self, place: &Place, hops: &[Hop]) -> bool {
        let hops = hops.iter().map(|hop| (hop.inode, &hop.name));
        let known = self.trails.get(place).filter(|_| !self.doubted.contains(place));
        known.is_some_and(|known| known.iter().map(|(inode, name)| (*inode, name)).eq(hops))
    }
}

impl Source {
    /// What an event means where links are followed; `None` if it means what it says.
    pub fn told_behind(&mut self, event: &WatchEvent) -> Option<Vec<WatchEvent>> {
        if self.lookouts.inodes.is_empty() {
            return None;
        }
        let told = self.lookouts.translate(event);
        // What became of it is found out by those who led by way of it. It is watched anew if it is still there.
        if let WatchEvent::Gone { directory } = event
            && directory.is_local()
            && let Some(inode) = self.lookouts.inodes.get(directory).copied()
        {
            self.lookouts.drop_outpost(inode);
            self.lookouts.doubt_trails_by(inode);
            self.watcher().unwatch(*directory);
        }
        told
    }

    /// A directory was watched and listed.
    pub(super) fn note_directory(&mut self, object: ObjectId, stat: &Stat) {
        if self.root.follows_links() {
            let inode = (stat.stamp.device, stat.stamp.inode);
            if let Some(outpost) = self.lookouts.note_directory(object, inode) {
                self.watcher().unwatch(outpost);
            }
        }
    }

    /// Where a link leads that is followed, or would be: the way there is watched. Answers what is there, if that was looked at
    /// before all of the way was.
    pub(super) fn look_behind(
        &mut self,
        handle: &Directory,
        directory: ObjectId,
        name: &Name,
        stat: &Stat,
    ) -> Option<Stat> {
        if !self.root.follows_links() {
            return None;
        }
        let place = Place {
            directory,
            name: name.clone(),
        };
        if let Some(fault) = stat.file_type.unfollowable()
            && self.lookouts.told.insert(place.clone())
        {
            let shown = handle.shown_name(name);
            self.warnings.push(format!("{shown} is left out: {fault}"));
        }
        if !stat.is_followed {
            self.forget_link(&place);
            return None;
        }
        let mut is_news = false;
        for _ in 0..TRIES {
            let (hops, error) = handle.trail(name);
            if self.lookouts.is_trail(&place, &hops) {
                break;
            }
            is_news = true;
            let left = self.lookouts.forget(&place);
            let unwatched = self.lookouts.set_trail(&place, &hops);
            let mut errors = Vec::from_iter(error.map(|error| error.to_string()));
            for (number, hop) in unwatched {
                let watched = self.watcher().watch(number, hop.directory.as_fd());
                errors.extend(watched.err().map(|error| error.to_string()));
            }
            // After the new ones, which may be the same.
            self.unwatch_all(left);
            if let Some(error) = errors.first() {
                let link = handle.shown_name(name);
                self.warnings.push(format!(
                    "not all of the way that the link {link} leads is watched, what changes there is found by the audit: {error}"
                ));
            }
        }
        is_news.then(|| handle.stat(name).ok().flatten()).flatten()
    }

    /// No link is at a place any more.
    pub(super) fn forget_link(&mut self, place: &Place) {
        let left = self.lookouts.forget(place);
        self.unwatch_all(left);
    }

    fn unwatch_all(&mut self, numbers: Vec<ObjectId>) {
        if !numbers.is_empty() {
            let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
            numbers.into_iter().for_each(|number| watcher.unwatch(number));
        }
    }
}
