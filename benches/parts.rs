//! Rates of single parts: digests, the codec, the pending set, the catalog, the scan of a tree.
//!
//! `cargo bench --bench parts`. CPU time is that of the whole process, the best of several runs, so that other work on the
//! machine counts little. `cargo bench --bench parts -- 1000000` scans a tree of so many files instead of 100,000, which is
//! made in the directory for temporary files (`TMPDIR`).

#![allow(missing_docs, reason = "a benchmark has no users")]

use driftless::daemon::home::Home;
use driftless::daemon::sender::Source;
use driftless::daemon::{
    Deletes, Gate, SenderOptions, TakenAs, TargetOptions, Turns, WatchChoice, WatchOptions,
};
use driftless::engine::filter::{FileSet, Filter};
use driftless::engine::links::LinkPolicy;
use driftless::engine::mode::ModeChanges;
use driftless::engine::owners::OwnerRules;
use driftless::engine::pending::{Hint, Pending, PendingOptions, WatchEvent};
use driftless::engine::spans::SpansBuilder;
use driftless::net::LinkOptions;
use driftless::store::{Catalog, CatalogRead, Entry, Role};
use driftless_certs::Identity;
use driftless_protocol::codec::{decode, encode};
use driftless_protocol::message::{Content, InlineContent, Op, OpBody, OpFrame, OpMessage, Place};
use driftless_protocol::{Attributes, Digest, Kind, Name, ObjectId, RelPath, Timestamp, Xattrs};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

const RUNS: usize = 5;

fn main() {
    let files = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next();
    digests();
    codec();
    pending();
    catalog();
    scan(files.unwrap_or(100_000));
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The least CPU time of several runs, in seconds.
fn best<T>(mut work: impl FnMut() -> T) -> f64 {
    let runs = (0..RUNS).map(|_| {
        let began = cpu_time();
        black_box(work());
        cpu_time().saturating_sub(began)
    });
    runs.min().unwrap_or_default().as_secs_f64()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn name(text: String) -> Name {
    Name::new(text.into_bytes()).expect("a good name")
}

fn digests() {
    const BYTES: usize = 64 << 20;
    let content = noise(BYTES);
    let rate = |what: &str, seconds: f64| println!("{what:<44} {:>8.0} MB/s", BYTES as f64 / seconds / 1e6);
    rate("digest of 64 MiB", best(|| Digest::of(&content)));
    let small = || {
        content
            .chunks(4 << 10)
            .map(Digest::of)
            .fold(0, |sum, digest| sum ^ digest.0[0])
    };
    rate("digests of files of 4 KiB", best(small));
    let spans = || {
        let mut builder = SpansBuilder::new(1);
        content.chunks(1 << 20).for_each(|piece| builder.push(piece));
        builder.finish()
    };
    rate("digest, sums of spans and of blocks", best(spans));
}

fn attributes() -> Attributes {
    Attributes {
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        mtime: Timestamp::new(1_700_000_000, 123_456_789).expect("a good time"),
        xattrs: None,
        link_group: ObjectId(0),
    }
}

fn codec() {
    const OPS: u64 = 500;
    let content = noise(300);
    let ops = (1..=OPS).map(|number| {
        let place = Place {
            directory: ObjectId(2),
            name: name(format!("document-{number}.html")),
        };
        let body = OpBody::PutFile {
            place,
            object: ObjectId(number + 2),
            attributes: attributes(),
            content: Content::Inline {
                digest: Digest::of(&content),
                bytes: InlineContent(content.clone()),
            },
        };
        OpMessage::Op(Op {
            number,
            after: 0,
            barrier: false,
            body,
            xattrs: Xattrs::default(),
        })
    });
    let frame = OpFrame(ops.collect());
    let bytes = encode(&frame).expect("within the limits");
    let rate = |what: &str, seconds: f64| {
        println!("{what:<44} {:>8.2} million/s", OPS as f64 * 20.0 / seconds / 1e6);
    };
    let encoding = || (0..20).for_each(|_| drop(black_box(encode(&frame))));
    rate("ops of 300 bytes encoded", best(encoding));
    let decoding = || (0..20).for_each(|_| drop(black_box(decode::<OpFrame>(&bytes))));
    rate("ops of 300 bytes decoded", best(decoding));
}

fn pending() {
    const EVENTS: usize = 1_000_000;
    const NAMES: usize = 50_000;
    let names: Vec<Name> = (0..NAMES)
        .map(|number| name(format!("document-{number}")))
        .collect();
    let event = |number: usize| WatchEvent::At {
        directory: ObjectId((number % NAMES / 100) as u64 + 2),
        name: names[number % NAMES].clone(),
        hint: Hint::Closed,
        is_directory: false,
    };
    let taking = || {
        let mut pending = Pending::new(PendingOptions::default());
        let now = Instant::now();
        (0..EVENTS).for_each(|number| pending.handle_event(now, &event(number)));
        let mut looked_at = 0;
        let later = now + Duration::from_secs(3_600);
        while !pending.is_empty() {
            looked_at += pending.poll_ready(later).names.len();
        }
        assert!(looked_at > 0, "something was to be looked at");
    };
    let seconds = best(taking);
    println!(
        "{:<44} {:>8.2} million/s",
        "events taken, 20 a name",
        EVENTS as f64 / seconds / 1e6
    );
}

fn catalog() {
    const ENTRIES: u64 = 200_000;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let entry = |number: u64| Entry {
        object: ObjectId(number + 2),
        kind: Kind::File,
        place: Place {
            directory: ObjectId(number / 100 + 2),
            name: name(format!("document-{:03}.html", number % 100)),
        },
        attributes: attributes(),
        size: 1_234,
        digest: Some(Digest([number as u8; 32])),
        stamp: None,
        sequence: 0,
        flags: 0,
    };
    let mut run = 0;
    let inserting = || {
        run += 1;
        let path = directory.path().join(format!("{run}.redb"));
        let catalog = Catalog::open(&path, Role::Receiver)
            .expect("a new catalog")
            .catalog;
        let outcome = catalog.update(false, |tables| {
            (0..ENTRIES).try_for_each(|number| tables.put(&entry(number)))
        });
        outcome.expect("room on the disk");
    };
    let rate = |what: &str, seconds: f64| {
        println!("{what:<44} {:>8.2} million/s", ENTRIES as f64 / seconds / 1e6);
    };
    rate("entries put into a new catalog", best(inserting));
    let path = directory.path().join("1.redb");
    let catalog = Catalog::open(&path, Role::Receiver).expect("the catalog").catalog;
    let looking = || {
        catalog.read(|view| {
            (0..ENTRIES)
                .try_for_each(|number| view.get(ObjectId(number + 2)).map(|entry| drop(black_box(entry))))
        })
    };
    rate("entries looked up by number", best(looking));
    let listing = || {
        catalog.read(|view| {
            (0..ENTRIES / 100).try_for_each(|number| {
                view.child_entries(ObjectId(number + 2))
                    .map(|entries| drop(black_box(entries)))
            })
        })
    };
    rate("entries listed by directory", best(listing));
}

fn scan(files: usize) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tree = directory.path().join("tree");
    for number in 0..files {
        let inside = tree.join(format!("directory-{:04}", number / 1_000));
        if number % 1_000 == 0 {
            fs::create_dir_all(&inside).expect("a directory");
        }
        File::create(inside.join(format!("document-{:03}.txt", number % 1_000))).expect("a file");
    }
    let options = options(directory.path(), &tree);
    let mut source = Source::open(&options).expect("a source");
    let mut scan = |what: &str| {
        let (began, cpu) = (Instant::now(), cpu_time());
        let found = source.scan().expect("a scan");
        assert!(found.entries as usize >= files, "{found:?}");
        let (wall, cpu) = (began.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
        let rate = |seconds: f64| found.entries as f64 / seconds / 1e6;
        println!(
            "{what:<44} {:>8.2} million/s of CPU time, {:.2} by the clock",
            rate(cpu),
            rate(wall)
        );
    };
    scan("scan of a tree, all of it new");
    for _ in 0..3 {
        scan("scan again, nothing changed");
    }
}

fn options(directory: &Path, tree: &Path) -> SenderOptions {
    let identity = Identity::ephemeral().expect("an identity");
    SenderOptions {
        mirror: None,
        home: Home::at(directory.join("home")),
        source: tree.to_owned(),
        target: TargetOptions {
            display: "nowhere::nothing".to_owned(),
            host: "localhost".to_owned(),
            port: 1,
            fingerprint: identity.fingerprint(),
            module: "nothing".to_owned(),
            path: RelPath::root(),
        },
        identity,
        follow: false,
        quiet: None,
        initial: None,
        deletes: Deletes::Ask,
        delete_limit: None,
        approvals: None,
        requests: None,
        audit: false,
        gate: Gate::default(),
        walks: Turns::default(),
        transfers: Turns::default(),
        readings: None,
        watch: WatchOptions {
            choice: WatchChoice::Poll,
            ..WatchOptions::default()
        },
        pending: PendingOptions::default(),
        large_files: None,
        append_only: FileSet::default(),
        compare: Default::default(),
        look_again: false,
        gives_up: false,
        accept_root: false,
        leaves_root: false,
        filter: Filter::everything(),
        owners: OwnerRules::default(),
        modes: ModeChanges::default(),
        links: LinkPolicy::All,
        taken_as: TakenAs::default(),
        sparing: Default::default(),
        whole_files: false,
        delta_engine: None,
        link: LinkOptions::default(),
    }
}
