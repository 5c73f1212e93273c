//! Files that change while they are read, that are written without pause, or that change in ways that are hard to see.

use crate::mapping::Mapping;
use crate::mirror::{CHOICES, Mirror, watched_by};
use crate::support::Pair;
use crate::support::churn::OnPanic;
use crate::support::random::Random;
use crate::support::waiting::wait_until;
use crate::{scaled, seed};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const RECORD_BYTES: usize = 4 << 10;

/// A record that says of which write it is, and is sealed by a hash: a block that is put together from two is none.
fn record(version: u64) -> Vec<u8> {
    let mut bytes = Random(version).exactly(RECORD_BYTES - 32);
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

fn check_records(path: &Path) {
    let content = fs::read(path).unwrap();
    assert_eq!(content.len() % RECORD_BYTES, 0);
    for found in content.chunks(RECORD_BYTES) {
        let (bytes, hash) = found.split_at(RECORD_BYTES - 32);
        assert_eq!(hash, blake3::hash(bytes).as_bytes());
    }
}

/// How a writer works on its file until it is told to stop.
#[derive(Debug, Clone, Copy)]
enum Style {
    Grow,
    Shrink,
    InPlace,
    Replace,
    Empty,
}

fn write(path: &Path, style: Style, records: usize, random: &mut Random) {
    let version = random.next();
    let all = |count: usize| record(version).repeat(count);
    match style {
        Style::Grow => {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(&record(version)).unwrap();
        }
        Style::Shrink => {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            match file.metadata().unwrap().len() / RECORD_BYTES as u64 {
                0 => file.write_all_at(&all(records), 0).unwrap(),
                count => file.set_len((count - 1) * RECORD_BYTES as u64).unwrap(),
            }
        }
        Style::InPlace => {
            let mut file = OpenOptions::new().write(true).open(path).unwrap();
            let count = file.metadata().unwrap().len() as usize / RECORD_BYTES;
            let at = random.below(count) * RECORD_BYTES;
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&record(version)).unwrap();
        }
        Style::Replace => {
            let aside = path.with_extension("aside");
            fs::write(&aside, all(records)).unwrap();
            fs::rename(aside, path).unwrap();
        }
        Style::Empty => fs::write(path, all(records)).unwrap(),
    }
}

/// The run goes on, and what was put together from two reads is never taken for clean: then the last state would not arrive.
#[test]
fn d_02_files_that_change_while_they_are_read_converge() {
    let styles = [
        Style::Grow,
        Style::Shrink,
        Style::InPlace,
        Style::Replace,
        Style::Empty,
    ];
    let mirror = Mirror::start(Pair::new());
    let (src, dst) = (mirror.pair.src(), mirror.pair.dst());
    let mut random = Random(seed(2));
    for round in 0..scaled(1) {
        // Smaller and larger than what travels inside an op.
        for records in [40, 2_000] {
            for (number, style) in styles.into_iter().enumerate() {
                let path = src.join(format!("written-{number}-{records}"));
                fs::write(&path, record(1).repeat(records)).unwrap();
                let stop = Arc::new(AtomicBool::new(false));
                let writer = std::thread::spawn({
                    let (stop, path, mut random) = (stop.clone(), path.clone(), Random(random.next()));
                    move || {
                        while !stop.load(Ordering::Relaxed) {
                            write(&path, style, records, &mut random);
                        }
                    }
                });
                let other = format!("other-{round}-{number}-{records}");
                fs::write(src.join(&other), b"other").unwrap();
                wait_until("another file meanwhile", || dst.join(&other).exists());
                std::thread::park_timeout(Duration::from_millis(random.below(200) as u64));
                stop.store(true, Ordering::Relaxed);
                writer.join().unwrap();
                mirror.settle();
                check_records(&dst.join(path.file_name().unwrap()));
            }
        }
    }
    mirror.end_and_compare();
}

/// Ten minutes: `DRIFTLESS_SOAK=150`.
#[test]
fn d_03_a_log_that_is_written_without_pause_is_followed() {
    // Generous: others use this machine, too. One who waits for a pause lags for as long as the test lasts.
    const LAG_MAX: Duration = Duration::from_secs(30);
    const LINE_BYTES: usize = 100;
    let pair = Pair::new();
    let (log, copy) = (pair.src().join("log"), pair.dst().join("log"));
    // Its beginning does not shrink when it is compressed.
    let beginning = Random(3).exactly(8 << 20);
    fs::write(&log, &beginning).unwrap();
    let mut mirror = Mirror::seeded(pair);
    mirror.resume();
    mirror.settle();
    let mut file = OpenOptions::new().append(true).open(&log).unwrap();
    let (began, length) = (Instant::now(), Duration::from_secs(scaled(4) as u64));
    let mut written = beginning.len();
    let mut behind = Duration::ZERO;
    let arrived = || last_line(&copy, beginning.len(), LINE_BYTES);
    while began.elapsed() < length || arrived().is_none() {
        for _ in 0..20 {
            let now = began.elapsed().as_micros();
            writeln!(file, "{now:0width$}", width = LINE_BYTES - 1).unwrap();
            written += LINE_BYTES;
        }
        behind = behind.max(began.elapsed().saturating_sub(arrived().unwrap_or_default()));
        assert!(behind < LAG_MAX, "the receiver is {behind:?} behind");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    drop(file);
    let counters = mirror.end_and_compare().counters;
    let (growth, sent) = ((written - beginning.len()) as u64, counters.wire_bytes_sent);
    // Each update tells its ranges anew and carries what was added; none carries the beginning.
    let updates = counters.files_sent.max(1);
    let allowed = 4 * growth + updates * beginning.len() as u64 / 50;
    assert!(
        sent < allowed.max(200_000) && sent < updates * beginning.len() as u64,
        "{sent} bytes for {growth} of growth in {updates} updates"
    );
}

/// When the last line that has arrived was written.
fn last_line(copy: &Path, beginning: usize, line: usize) -> Option<Duration> {
    let mut file = File::open(copy).ok()?;
    let lines = (file.metadata().ok()?.len() as usize).checked_sub(beginning)? / line;
    let at = beginning + lines.checked_sub(1)? * line;
    file.seek(SeekFrom::Start(at as u64)).ok()?;
    let mut text = String::new();
    file.take(line as u64 - 1).read_to_string(&mut text).ok()?;
    Some(Duration::from_micros(text.parse().ok()?))
}

/// No event tells of a store through a mapping that stays open: an audit has to find it.
#[test]
fn d_04_stores_through_a_mapping_are_found_by_the_audit() {
    let mut pair = Pair::new();
    pair.watch.audit = Some(Duration::from_secs(1));
    fs::write(pair.src().join("mapped"), vec![0; 64 << 10]).unwrap();
    if !Mapping::moves_times(&pair.path("probe")) {
        return crate::support::skip("this file system does not tell of stores through mappings at all");
    }
    let mirror = Mirror::start(pair);
    let mut mapping = Mapping::open(&mirror.pair.src().join("mapped"));
    mapping.bytes()[5] = 1;
    mirror.settle();
    // Written out by the kernel, as it does by itself within half a minute: only then the next store moves the times.
    mapping.write_out();
    mapping.bytes()[40_000] = 2;
    mirror.settle();
    drop(mapping);
    mirror.end_and_compare();
}

/// The first store moves the times; the next, into a page that is dirty already, do not.
#[test]
fn d_04_stores_behind_a_read_are_found_by_the_audit() {
    for bytes in [1_000, 64 << 10, 3 << 20] {
        let mut pair = Pair::new();
        pair.watch.audit = Some(Duration::from_secs(1));
        fs::write(pair.src().join("mapped"), vec![0; bytes]).unwrap();
        let mirror = Mirror::start(pair);
        let mut mapping = Mapping::open(&mirror.pair.src().join("mapped"));
        for at in 5..scaled(10) {
            mapping.bytes()[at] = 1;
            mirror.settle();
        }
        drop(mapping);
        mirror.end_and_compare();
    }
}

/// The last store before the file is closed leaves no trace either.
#[test]
fn d_04_a_mapping_that_ends_is_looked_at() {
    let mut pair = Pair::new();
    pair.watch.audit = None;
    fs::write(pair.src().join("mapped"), vec![0; 64 << 10]).unwrap();
    if !Mapping::moves_times(&pair.path("probe")) {
        return crate::support::skip("this file system does not tell of stores through mappings at all");
    }
    let mirror = Mirror::start(pair);
    let mut mapping = Mapping::open(&mirror.pair.src().join("mapped"));
    mapping.bytes()[5] = 1;
    // Read while it is mapped: by an event of another kind.
    fs::File::open(mirror.pair.src().join("mapped"))
        .unwrap()
        .set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    mirror.settle();
    mapping.bytes()[6] = 2;
    drop(mapping);
    mirror.settle();
    mirror.end_and_compare();
}

/// Neither size nor mtime says that the content is another.
#[test]
fn d_05_edits_that_keep_size_and_time_arrive() {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let mut mirror = Mirror::start(pair);
        let mut random = Random(seed(5));
        let path = mirror.pair.src().join("file");
        fs::write(&path, b"00000000").unwrap();
        mirror.settle();
        for round in 0..scaled(6) {
            let is_stopped = round % 3 == 2;
            if is_stopped {
                mirror.pause().unwrap();
            }
            let before = fs::metadata(&path).unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            // Several within one tick of the clock; the daemon may read between any two of them.
            for _ in 0..1 + random.below(20) {
                file.write_all_at(&random.next().to_le_bytes(), 0).unwrap();
                file.set_modified(before.modified().unwrap()).unwrap();
            }
            drop(file);
            let after = fs::metadata(&path).unwrap();
            assert_eq!(
                (after.size(), after.mtime(), after.mtime_nsec()),
                (before.size(), before.mtime(), before.mtime_nsec())
            );
            if is_stopped {
                mirror.resume();
            }
            mirror.settle();
        }
        mirror.end_and_compare();
    }
}

/// In place, as nobody sees by size and mtime.
fn edit_unseen(path: &Path, random: &mut Random) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&random.next().to_le_bytes(), 0).unwrap();
    file.set_modified(before).unwrap();
}

/// A rename moves ctime as well: it must not be taken for all that happened, whether the sender runs or not.
#[test]
fn d_05_an_edit_that_keeps_size_and_time_beside_a_rename_arrives() {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        let src = pair.src();
        fs::create_dir_all(src.join("other")).unwrap();
        let mut names = [src.join("a"), src.join("other/b")];
        fs::write(&names[0], b"00000000").unwrap();
        let mut mirror = Mirror::start(pair);
        let mut random = Random(seed(55));
        let mut guard = OnPanic(format!("{choice:?}"), Vec::new());
        for round in 0..scaled(12) {
            let is_stopped = round % 4 == 3;
            if is_stopped {
                mirror.pause().unwrap();
            }
            if round % 3 != 1 {
                edit_unseen(&names[0], &mut random);
            }
            fs::rename(&names[0], &names[1]).unwrap();
            if round % 3 != 0 {
                edit_unseen(&names[1], &mut random);
            }
            names.reverse();
            if is_stopped {
                mirror.resume();
            }
            guard.1.push(format!("round {round}"));
            mirror.settle();
        }
        mirror.end_and_compare();
    }
}

/// Out of the tree, edited there, and in again before anybody looked: to a watcher the two halves of one rename.
#[test]
fn d_05_an_edit_outside_that_keeps_size_and_time_arrives() {
    beside_two_renames(|root| {
        let outside = root.with_file_name("outside");
        fs::create_dir(&outside).unwrap();
        outside.join("away")
    });
}

/// Under a name that nobody has seen, as it is gone before anybody looks.
#[test]
fn d_05_an_edit_between_two_renames_that_keeps_size_and_time_arrives() {
    beside_two_renames(|root| root.join("between"));
}

/// In a directory that nobody watched yet.
#[test]
fn d_05_an_edit_in_a_new_directory_that_keeps_size_and_time_arrives() {
    beside_two_renames(|root| {
        fs::create_dir(root.join("new")).unwrap();
        root.join("new/between")
    });
}

/// A file is renamed, edited, and renamed again, all before anybody looks.
fn beside_two_renames(between: fn(&Path) -> PathBuf) {
    for choice in CHOICES {
        let mut pair = Pair::new();
        watched_by(&mut pair, choice);
        pair.pending.delay = Duration::from_millis(500);
        let src = pair.src();
        fs::write(src.join("a"), b"00000000").unwrap();
        fs::write(src.join("c"), b"00000000").unwrap();
        let mirror = Mirror::start(pair);
        let between = between(&src);
        fs::rename(src.join("a"), &between).unwrap();
        edit_unseen(&between, &mut Random(seed(56)));
        fs::rename(&between, src.join("b")).unwrap();
        // And one that stays where it was edited.
        fs::rename(src.join("c"), &between).unwrap();
        edit_unseen(&between, &mut Random(seed(57)));
        mirror.settle();
        mirror.end_and_compare();
    }
}

/// A read that falls between two edits within one tick of the clock leaves the file in doubt.
#[test]
fn d_05_two_edits_within_a_tick_arrive_both() {
    let mirror = Mirror::start(Pair::new());
    let (path, copy) = (mirror.pair.src().join("file"), mirror.pair.dst().join("file"));
    for round in 0..scaled(40) {
        let text = |which: &str| format!("{round:05} {which}");
        fs::write(&path, text("1st")).unwrap();
        // As soon as the first has been read, or not at all.
        if round % 2 == 0 {
            wait_until("the first", || {
                fs::read(&copy).is_ok_and(|found| found == text("1st").as_bytes())
            });
        }
        fs::write(&path, text("2nd")).unwrap();
        wait_until("the second", || {
            fs::read(&copy).is_ok_and(|found| found == text("2nd").as_bytes())
        });
    }
    mirror.end_and_compare();
}
