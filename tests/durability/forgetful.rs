//! C-05: a file system that keeps names at once, and of contents what was flushed and nothing else. That is what LazyFS is for; here the
//! supervisor notes what was written and flushed, and takes from each file what was not after the receiver was killed.
//! (Names that are lost without a flush of their directory: C-03, C-04.)

use crate::crash_points::points;
use crate::flips::Flips;
use crate::rig::{Note, Rig, wait_until};
use crate::seed;
use crate::support::random::Random;
use crate::support::supervised::{Call, Verdict};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Moments tried: before and after a name is given.
const POINTS: usize = 24;
/// The power goes so often for a receiver that must be caught: what it writes last need not be among what is published.
const TRIES: usize = 6;

/// A file: inode numbers are used again, so with its birth.
type Inode = (u64, SystemTime);

fn inode(path: &Path) -> Option<(Inode, u64)> {
    let metadata = fs::metadata(path).ok()?;
    let born = metadata.created().ok()?;
    metadata
        .is_file()
        .then(|| ((metadata.ino(), born), metadata.len()))
}

/// How long a file is, and how much of it was flushed: contents that arrive are written from the start, and in the end flushed.
#[derive(Debug, Default, Clone, Copy)]
struct Lengths {
    written: u64,
    flushed: u64,
}

/// What a page cache has.
#[derive(Debug, Default)]
struct Pages(HashMap<Inode, Lengths>);

impl Pages {
    /// Notes a call that is about to be made.
    fn note(&mut self, call: &Call) {
        match call.name {
            "write" | "pwrite64" | "copy_file_range" | "ftruncate" | "fallocate" => {
                if let Some((inode, length)) = inode(&call.descriptor()) {
                    let lengths = self.0.entry(inode).or_default();
                    let end = call.written().map_or(u64::MAX, |range| range.end);
                    lengths.written = lengths.written.max(end).max(length);
                    // What is written over is lost as well, with all that is behind it.
                    let start = call.written().map_or(0, |range| range.start);
                    lengths.flushed = lengths.flushed.min(start);
                }
            }
            "fsync" | "fdatasync" => {
                if let Some((inode, _)) = inode(&call.descriptor())
                    && let Some(lengths) = self.0.get_mut(&inode)
                {
                    lengths.flushed = lengths.written;
                }
            }
            "syncfs" => {
                for lengths in self.0.values_mut() {
                    lengths.flushed = lengths.written;
                }
            }
            _ => {}
        }
    }

    /// Takes from every file below a directory what was not flushed: its pages are zeros, or it is shorter. How many lost something.
    fn lose(&self, root: &Path, random: &mut Random) -> usize {
        let mut lost = 0;
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                if kind.is_dir() {
                    directories.push(path);
                } else if kind.is_file() {
                    lost += usize::from(self.lose_of(&path, random));
                }
            }
        }
        lost
    }

    fn lose_of(&self, path: &Path, random: &mut Random) -> bool {
        let Some((inode, length)) = inode(path) else {
            return false;
        };
        let Some(lengths) = self.0.get(&inode) else {
            return false;
        };
        if lengths.flushed >= length {
            return false;
        }
        let file = File::options().write(true).open(path).unwrap();
        match random.one_in(2) {
            true => file.set_len(lengths.flushed).unwrap(),
            false => {
                let zeros = vec![0; usize::try_from(length - lengths.flushed).unwrap()];
                file.write_all_at(&zeros, lengths.flushed).unwrap();
            }
        }
        true
    }
}

/// When the receiver is killed, counted in calls that give a name in the module.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Never,
    Before(usize),
    /// Before whatever changes something next.
    After(usize),
}

/// What the receiver's file system is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// It exchanges names, and refuses to replace one if asked to.
    has_flags: bool,
    /// Flushes of files do something.
    flushes: bool,
}

#[derive(Debug, Default)]
struct Seen {
    pages: Pages,
    names: usize,
}

/// Judges calls in a module on such a file system.
fn judge(
    module: PathBuf,
    kind: Kind,
    moment: Moment,
    seen: Arc<Mutex<Seen>>,
) -> impl FnMut(&Call) -> Verdict {
    move |call: &Call| {
        if !call.is_in(&module) {
            return Verdict::Pass;
        }
        let Seen { pages, names } = &mut *seen.lock().unwrap();
        if matches!(moment, Moment::After(last) if *names > last) {
            return Verdict::Kill;
        }
        if matches!(call.name, "linkat" | "renameat" | "renameat2") {
            *names += 1;
            if matches!(moment, Moment::Before(last) if *names > last) {
                return Verdict::Kill;
            }
            if call.name == "renameat2" && !kind.has_flags {
                return Verdict::Fail(Errno::INVAL);
            }
        }
        let is_flush = matches!(call.name, "fsync" | "fdatasync" | "syncfs");
        if is_flush && !kind.flushes {
            return Verdict::LeaveOut;
        }
        pages.note(call);
        Verdict::Pass
    }
}

/// One run up to a moment, after which everything is lost that was not flushed. How many names were given before, how many files lost
/// something, and whether the moment came.
fn run(rig: &Rig, kind: Kind, moment: Moment, random: &mut Random) -> (usize, usize, bool) {
    let seen = Arc::<Mutex<Seen>>::default();
    let judge = judge(rig.module.clone(), kind, moment, seen.clone());
    let mut was_killed = true;
    // It may be killed while it starts.
    if let Some(mut receiver) = rig.try_receive_under(judge) {
        let sending = rig.send();
        wait_until("sent or killed", || sending.is_finished() || receiver.has_ended());
        was_killed = receiver.has_ended();
        let _ = sending.stop();
        receiver.kill();
    }
    let Seen { pages, names } = &*seen.lock().unwrap();
    (*names, pages.lose(&rig.module, random), was_killed)
}

fn lose_power_around_names(kind: Kind, points_wanted: usize) {
    let mut rig = Rig::new();
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    let mut random = Random(seed(51));
    flips.flip();
    let (names, lost, _) = run(&rig, kind, Moment::Never, &mut random);
    // What was left for the kernel to write were private names at most.
    rig.check_converged();
    println!("{names} names given, {lost} files not flushed at the end");
    let all = points(2 * names, seed(52));
    let step = (all.len() / points_wanted).max(1);
    let (mut cuts, mut losses) = (0, 0);
    for point in all.into_iter().step_by(step) {
        let moment = match point % 2 {
            0 => Moment::Before(point / 2),
            _ => Moment::After(point / 2),
        };
        let _note = Note(format!("{kind:?}, {moment:?} of {names}"));
        flips.flip();
        rig.expect_source();
        if !kind.has_flags {
            // They are given one after the other.
            rig.may_be_absent(&["kind", "x/one", "x/two"]);
        }
        let (_, lost, was_killed) = run(&rig, kind, moment, &mut random);
        cuts += usize::from(was_killed);
        losses += lost;
        rig.check_old_or_new();
        let _receiver = rig.receive();
        rig.converge();
    }
    println!(
        "{cuts} cuts, {losses} files that lost what was not flushed, none of them with a name of its own"
    );
    assert!(cuts * 10 >= points_wanted * 7, "{cuts} cuts");
}

#[test]
fn c_05_what_has_a_name_was_flushed_before() {
    let kind = Kind {
        has_flags: true,
        flushes: true,
    };
    lose_power_around_names(kind, POINTS);
}

#[test]
fn c_05_what_has_a_name_was_flushed_before_without_exchanges() {
    let kind = Kind {
        has_flags: false,
        flushes: true,
    };
    lose_power_around_names(kind, POINTS / 2);
}

/// The tests above would notice.
#[test]
fn c_05_a_receiver_that_does_not_flush_is_caught() {
    let kind = Kind {
        has_flags: true,
        flushes: false,
    };
    let mut rig = Rig::new();
    let mut flips = Flips::new(rig.src());
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    let mut random = Random(seed(53));
    let caught = (0..TRIES).find_map(|_| {
        flips.flip();
        rig.expect_source();
        let _ = run(&rig, kind, Moment::Never, &mut random);
        rig.first_fault()
    });
    println!(
        "caught: {}",
        caught.expect("a receiver that does not flush lost nothing")
    );
}
