//! C-04, C-06: every state that a disk may have after its power went. What the kernel writes below a receiver is noted, with
//! its flushes; a state is all up to some flush, and of what came before the next flush any part, in any order. A machine that
//! was killed, while its host lives on, leaves all writes up to some moment.

use crate::flips::Flips;
use crate::logged::{Event, LoggedDisk};
use crate::rig::{Note, Rig, Tree, look};
use crate::support::image::Mounted;
use crate::support::random::Random;
use crate::support::supervised::{Call, Verdict};
use crate::support::{is_root, skip};
use crate::{seed, soak};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const DISK_BYTES: u64 = 96 << 20;
/// Rounds of changes that are noted.
const ROUNDS: usize = 2;
/// States that are tried of each kind.
const STATES: usize = 24;

/// What was noted while a receiver took some rounds of changes.
struct Noted {
    events: Vec<Event>,
    /// After how many events each tree was durable.
    durable: Vec<(usize, Tree)>,
    /// The disk before.
    before: PathBuf,
    directory: TempDir,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn copy(from: &Path, to: &Path) {
    run(
        "cp",
        &["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()],
    );
}

impl Noted {
    fn new(judge: fn(&Call, &Path) -> Verdict) -> Option<Noted> {
        if !is_root() {
            skip("a disk of one's own needs root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (served, before) = (path("served"), path("before"));
        File::create(&served).unwrap().set_len(DISK_BYTES).unwrap();
        run(
            "mkfs.ext4",
            &["-q", "-F", "-E", "lazy_itable_init=1", served.to_str().unwrap()],
        );
        copy(&served, &before);
        let content = OpenOptions::new().read(true).write(true).open(&served).unwrap();
        let disk = match LoggedDisk::serve(content, &path("fuse")) {
            Ok(disk) => disk,
            Err(reason) => {
                skip(&reason);
                return None;
            }
        };
        let at = path("mounted");
        std::fs::create_dir(&at).unwrap();
        let how = [
            "-t",
            "ext4",
            "-o",
            "loop,noauto_da_alloc",
            disk.file().to_str().unwrap(),
        ]
        .map(str::to_owned);
        let mounted = Mounted::new(&how.each_ref().map(String::as_str), &at).unwrap();
        let mut rig = Rig::at(tempfile::tempdir().unwrap(), &at, &at);
        let mut flips = Flips::new(rig.src());
        let module = rig.module.clone();
        let mut receiver = rig.receive_under(move |call| judge(call, &module));
        let mut durable = Vec::new();
        for round in 0..=ROUNDS {
            if round > 0 {
                flips.flip();
            }
            rig.converge();
            durable.push((disk.noted(), look(&rig.src())));
        }
        receiver.kill();
        mounted.unmount();
        let events = disk.log()[..durable.last().unwrap().0].to_vec();
        Some(Noted {
            events,
            durable,
            before,
            directory,
        })
    }

    /// The first fault of a state: all events before `through`, and of those after it, before `until`, which `is_there` says.
    fn fault(&self, through: usize, until: usize, mut is_there: impl FnMut() -> bool) -> Option<String> {
        let state = self.directory.path().join("state");
        copy(&self.before, &state);
        let disk = OpenOptions::new().write(true).open(&state).unwrap();
        for (n, event) in self.events[..until].iter().enumerate() {
            if let Event::Write(offset, data) = event
                && (n < through || is_there())
            {
                disk.write_all_at(data, *offset).unwrap();
            }
        }
        drop(disk);
        let at = self.directory.path().join("mounted");
        let mounted = Mounted::new(&["-t", "ext4", "-o", "loop", state.to_str().unwrap()], &at).unwrap();
        let found = look(&at.join("dst"));
        mounted.unmount();
        run("e2fsck", &["-fn", state.to_str().unwrap()]);
        // Durable is what was told so before the last flush that counts; what came next may be there or not.
        let last = self.events[..through]
            .iter()
            .rposition(|event| matches!(event, Event::Flush));
        let last = last.map_or(0, |flush| flush + 1);
        let durable = self
            .durable
            .iter()
            .rposition(|(at, _)| self.flushed_before(*at) <= last)?;
        let possible = &self.durable[durable..(durable + 2).min(self.durable.len())];
        let paths = possible.iter().flat_map(|(_, tree)| tree.keys());
        for path in paths.chain(found.keys()) {
            let what = found.get(path);
            if !possible.iter().any(|(_, tree)| tree.get(path) == what) {
                let shown = what.map(|(kind, content)| (kind, content.escape_ascii().to_string()));
                return Some(format!("{} is {shown:?} in round {durable}", path.escape_ascii()));
            }
        }
        None
    }

    /// The number of events up to the last flush among the first `count`.
    fn flushed_before(&self, count: usize) -> usize {
        let flush = self.events[..count]
            .iter()
            .rposition(|event| matches!(event, Event::Flush));
        flush.map_or(0, |flush| flush + 1)
    }

    /// A state from the end of the first round on: up to which flush, and where the next one is.
    fn epoch(&self, random: &mut Random) -> (usize, usize) {
        let first = self.flushed_before(self.durable[0].0);
        let flushes: Vec<usize> = (first..self.events.len())
            .filter(|&n| matches!(self.events[n], Event::Flush))
            .map(|n| n + 1)
            .collect();
        let n = random.below(flushes.len() - 1);
        (flushes[n], flushes[n + 1])
    }
}

#[test]
fn c_04_what_is_durable_survives_any_order_of_the_disks_writes() {
    let Some(noted) = Noted::new(|_, _| Verdict::Pass) else {
        return;
    };
    let mut random = Random(seed(4));
    for round in 0..STATES * soak() {
        let (through, until) = noted.epoch(&mut random);
        let _note = Note(format!(
            "seed {}, round {round}: {through}, then some to {until}",
            seed(4)
        ));
        let percent = [0, 20, 50, 80, 100][round % 5];
        let fault = noted.fault(through, until, || random.below(100) < percent);
        assert_eq!(fault, None);
    }
    let flushes = noted
        .events
        .iter()
        .filter(|event| matches!(event, Event::Flush))
        .count();
    println!("{} writes and flushes, of these {flushes}", noted.events.len());
}

#[test]
fn c_06_what_a_killed_machine_leaves_is_old_or_new() {
    let Some(noted) = Noted::new(|_, _| Verdict::Pass) else {
        return;
    };
    let mut random = Random(seed(6));
    let first = noted.flushed_before(noted.durable[0].0);
    for _ in 0..STATES * soak() {
        let through = first + random.below(noted.events.len() - first);
        let _note = Note(format!("seed {}: the first {through}", seed(6)));
        assert_eq!(noted.fault(through, through, || false), None);
    }
}

/// The tests above would notice: without its flushes the same receiver loses what it called durable.
#[test]
fn c_04_a_receiver_that_does_not_flush_is_caught() {
    let judge = |call: &Call, module: &Path| {
        let is_flush = matches!(call.name, "fsync" | "fdatasync" | "syncfs");
        match is_flush && call.is_in(module) {
            true => Verdict::LeaveOut,
            false => Verdict::Pass,
        }
    };
    let Some(noted) = Noted::new(judge) else {
        return;
    };
    // Without flushes, what was told durable is not even written; the last is looked at.
    let through = noted.events.len();
    let fault = noted.fault(through, through, || false);
    println!(
        "caught: {}",
        fault.expect("a receiver that does not flush lost nothing")
    );
}
