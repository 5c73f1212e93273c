//! What a source makes of looks that see half of what happened.

use super::*;
use crate::daemon::{Deletes, TargetOptions};
use crate::engine::pending::PendingOptions;
use crate::net::LinkOptions;
use crate::watch::{WatchChoice, WatchOptions};
use driftless_certs::Identity;
use driftless_protocol::RelPath;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

struct Bench {
    directory: TempDir,
    source: Source,
}

impl Bench {
    /// A source with these directories, walked.
    fn new(directories: &[&str]) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("src");
        for name in directories {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let identity = Identity::ephemeral().unwrap();
        let options = SenderOptions {
            home: Home::at(directory.path().join("home")),
            target: TargetOptions {
                display: "test::module".to_owned(),
                host: "localhost".to_owned(),
                port: 1,
                fingerprint: identity.fingerprint(),
                module: "module".to_owned(),
                path: RelPath::root(),
            },
            identity,
            source: root,
            follow: true,
            deletes: Deletes::Ask,
            watch: WatchOptions {
                choice: WatchChoice::Poll,
                ..WatchOptions::default()
            },
            pending: PendingOptions::default(),
            large_files: None,
            filter: crate::engine::filter::Filter::everything(),
            accept_root: false,
            link: LinkOptions::default(),
        };
        let mut source = Source::open(&options).unwrap();
        source.set_carried(Carried { owner: true }).unwrap();
        source.scan().unwrap();
        Bench { directory, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("src").join(name)
    }

    fn object(&self, path: &str) -> ObjectId {
        let names = Path::new(path).iter();
        self.source
            .catalog
            .read(|view| {
                let mut at = ObjectId::ROOT;
                for name in names {
                    at = view.lookup(at, &self::name(name.to_str().unwrap()))?.unwrap();
                }
                Ok(at)
            })
            .unwrap()
    }

    fn look(&mut self, names: &[(ObjectId, &str)]) {
        let names: Vec<_> = names.iter().map(|(at, text)| (*at, name(text))).collect();
        self.source.look(&names, &[], &[]).unwrap();
        let counted = self
            .source
            .catalog
            .read(|view| Ledger::of(view, Carried { owner: true }));
        assert_eq!(
            self.source.ledger.fold(),
            counted.unwrap().fold(),
            "the running sum is not that of the catalog"
        );
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn directories_that_seem_to_be_in_each_other_are_counted_once() {
    let mut bench = Bench::new(&["a/b/c"]);
    let (a, b) = (bench.object("a"), bench.object("a/b"));
    fs::rename(bench.path("a/b"), bench.path("b")).unwrap();
    fs::rename(bench.path("a"), bench.path("b/a")).unwrap();
    // `a` is seen in `b` while `b` still stands in `a`, and then `b` is missed there.
    bench.look(&[(b, "a")]);
    bench.look(&[(a, "b")]);
    bench.look(&[(ObjectId::ROOT, "a"), (ObjectId::ROOT, "b")]);
    for path in ["b", "b/a", "b/c"] {
        bench.object(path);
    }
    let count = bench.source.catalog.read(|view| view.count()).unwrap();
    assert_eq!(count, 4, "the root and three directories");
}
