//! A dry run that follows, and looks at another machine.

use crate::pairs::{all, set_time};
use crate::{Desk, items};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::support::PATIENCE;
use crate::support::random::Random;

/// A program that goes on, and the lines that it writes.
struct Going {
    child: Child,
    lines: Receiver<String>,
}

impl Going {
    fn start(desk: &Desk, home: &str, words: &[&str]) -> Going {
        let mut child = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .current_dir(desk.path(""))
            .env("DRIFTLESS_HOME", desk.path(home))
            .env_remove("RUST_LOG")
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines() {
                if line.is_err() || sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Going { child, lines }
    }

    /// The next line that begins like this; what comes before is passed over.
    #[track_caller]
    fn says(&self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut passed = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(beginning) => return line,
                Ok(line) => passed.push(line),
                Err(error) => panic!("no {beginning:?} ({error}) after {passed:#?}"),
            }
        }
    }

    /// Interrupts it; gives its exit status.
    fn stop(mut self) -> Option<i32> {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }
}

fn untouched(root: &Path) -> Vec<(std::path::PathBuf, u64, i64, i64)> {
    let mut paths = all(root);
    paths.push(root.to_owned());
    let fact = |path: std::path::PathBuf| {
        let meta = path.symlink_metadata().unwrap();
        (path, meta.ino(), meta.ctime(), meta.ctime_nsec())
    };
    paths.into_iter().map(fact).collect()
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_change_is_told_and_none_is_made() {
    let desk = Desk::new();
    let src = desk.path("src");
    for tree in ["src", "dst"] {
        let tree = desk.path(tree);
        fs::create_dir(tree.join("d")).unwrap();
        fs::write(tree.join("d/same"), "x").unwrap();
        set_time(&tree.join("d/same"), 1_000, 0);
        set_time(&tree.join("d"), 1_000, 0);
        set_time(&tree, 1_000, 0);
    }
    fs::write(desk.path("dst/extra"), "x").unwrap();
    set_time(&desk.path("dst"), 1_000, 0);
    let before = untouched(&desk.path("dst"));
    let dry = Going::start(
        &desk,
        "home",
        &["mirror", "src", "dst", "-n", "--delete", "always"],
    );
    assert_eq!(dry.says("*deleting"), "*deleting   extra");
    dry.says(&format!(
        "{}: dry run",
        desk.path("dst").canonicalize().unwrap().display()
    ));
    fs::write(src.join("new"), "content").unwrap();
    assert_eq!(dry.says(">f"), ">f+++++++++ new");
    fs::rename(src.join("d"), src.join("moved")).unwrap();
    assert_eq!(dry.says("cd"), "cd+++++++++ moved/");
    assert_eq!(dry.says(">f"), ">f+++++++++ moved/same");
    assert_eq!(dry.says("*deleting"), "*deleting   d/same");
    assert_eq!(dry.says("*deleting"), "*deleting   d/");
    fs::remove_file(src.join("new")).unwrap();
    assert_eq!(dry.says(".f"), ".f          new");
    fs::write(src.join("moved/same"), "longer").unwrap();
    fs::create_dir_all(src.join("a/b")).unwrap();
    fs::write(src.join("a/b/c"), "deep").unwrap();
    assert_eq!(dry.says(">f+++++++++ a"), ">f+++++++++ a/b/c");
    assert_eq!(dry.stop(), Some(0));
    assert_eq!(untouched(&desk.path("dst")), before);
    // The real thing does what was told, and the look left nothing in its way.
    let ended = desk.mirror(&["--once"]);
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    crate::support::assert_equal(&src, &desk.path("dst"));
}

#[test]
fn another_machine_is_looked_at_too() {
    let desk = Desk::new();
    let src = desk.path("src");
    fs::create_dir(desk.path("receiver")).unwrap();
    for n in 0..40 {
        fs::create_dir(src.join(format!("d{n}"))).unwrap();
        fs::write(src.join(format!("d{n}/f")), format!("{n}")).unwrap();
    }
    fs::write(desk.path("dst/extra"), "x").unwrap();
    set_time(&src, 1_000, 0);
    let ended = desk.run(&["id"]);
    let sender = ended.out.split_whitespace().last().unwrap().to_owned();
    let words = [
        "receive",
        "dst",
        "--module",
        "m",
        "--listen",
        "127.0.0.1:0",
        "--allow",
        &sender,
    ];
    let receiver = Going::start(&desk, "receiver", &words);
    let line = receiver.says("receiving");
    let after = |word: &str| {
        let rest = line.split(word).nth(1).unwrap_or_else(|| panic!("{line}"));
        rest.split([' ', ';']).next().unwrap().to_owned()
    };
    let (address, fingerprint) = (after(" on "), after("identity "));
    let target = format!("driftless://{fingerprint}@{address}/m");
    let before = untouched(&desk.path("dst"));
    let homes = untouched(&desk.path("receiver"));
    let look = |options: &[&str]| {
        let ended = desk.run(&[&["seed", "src", &target, "--delete", "always"], options].concat());
        assert_eq!(ended.status, Some(0), "{ended:#?}");
        let mut told = items(&ended.out);
        told.sort();
        told
    };
    let announced = look(&["-n"]);
    assert_eq!(announced.len(), 82, "{announced:#?}");
    assert!(
        announced.contains(&"<f+++++++++ d7/f".to_owned()),
        "{announced:#?}"
    );
    assert_eq!(
        untouched(&desk.path("dst")),
        before,
        "a dry run changed the target"
    );
    assert_eq!(
        untouched(&desk.path("receiver")),
        homes,
        "a dry run changed the receiver's home"
    );
    let missing = desk.run(&["seed", "src", &format!("{target}/not/there"), "-n"]);
    assert_eq!(
        (missing.status, items(&missing.out).len()),
        (Some(0), 81),
        "{missing:#?}"
    );
    assert!(!desk.path("dst/not").exists());
    let sending = Going::start(
        &desk,
        "home",
        &["send", "src", &target, "-n", "--delete", "always"],
    );
    let shown = format!("driftless://{address}/m");
    sending.says(&format!("{shown}: *deleting   extra"));
    sending.says(&format!("{shown}: dry run"));
    fs::write(src.join("d9/g"), "new").unwrap();
    sending.says(&format!("{shown}: <f+++++++++ d9/g"));
    assert_eq!(sending.stop(), Some(0));
    assert_eq!(untouched(&desk.path("dst")), before);
    fs::remove_file(src.join("d9/g")).unwrap();
    assert_eq!(look(&["-i"]), announced);
    crate::support::assert_equal(&src, &desk.path("dst"));
    // What somebody changed behind the back of a running receiver: told, and mended by a run that looks.
    fs::write(desk.path("dst/d3/f"), "edited").unwrap();
    fs::remove_file(desk.path("dst/d4/f")).unwrap();
    let told = look(&["-n"]);
    assert_eq!(told, [".d..t...... d4/", "<f+++++++++ d4/f", "<f.st...... d3/f"]);
    assert_eq!(look(&["-i"]), told);
    crate::support::assert_equal(&src, &desk.path("dst"));
    // Whose things are there is asked over there.
    if crate::support::is_root() {
        // By name, where user and group 1 have one.
        std::os::unix::fs::chown(src.join("d8/f"), Some(1), Some(1)).unwrap();
        assert_eq!(look(&["-n"]), [".f....og... d8/f"]);
        assert_eq!(look(&["-i"]), [".f....og... d8/f"]);
        let options = ["--chown", "3:4", "--chmod", "F640"];
        let announced = look(&[&["-n"], &options[..]].concat());
        assert!(
            announced.contains(&".f...pog... d7/f".to_owned())
                && announced.contains(&".d....og... d7/".to_owned()),
            "{announced:#?}"
        );
        assert_eq!(look(&[&["-i"], &options[..]].concat()), announced);
        assert_eq!(look(&[&["-n"], &options[..]].concat()), Vec::<String>::new());
    }
    receiver.stop();
}

#[test]
fn time_limits_end_a_run() {
    let desk = Desk::new();
    fs::write(desk.path("src/large"), Random(5).exactly(3_000_000)).unwrap();
    // It would take five minutes, so the limit is what ends it.
    let words = [
        "mirror",
        "src",
        "dst",
        "--once",
        "--bwlimit",
        "10k",
        "--stop-after",
        "2s",
    ];
    let began = Instant::now();
    let ended = desk.run(&words);
    assert_eq!(ended.status, Some(5), "{ended:#?}");
    assert!(ended.err.contains("time was up"), "{ended:#?}");
    assert!((2..60).contains(&began.elapsed().as_secs()));
    for wrong in [
        &["--stop-after", "0"][..],
        &["--stop-at", "soon"],
        &["--stop-at", "2001-01-01"],
    ] {
        let ended = desk.run(&[&["mirror", "src", "dst", "--once"], wrong].concat());
        assert_eq!(ended.status, Some(2), "{ended:#?}");
    }
    let ended = desk.run(&["mirror", "src", "dst", "--stop-after", "5"]);
    assert_eq!(ended.status, Some(2), "{ended:#?}");
    assert!(ended.err.contains("--once"), "{ended:#?}");
    // The next run goes on, unlimited.
    let ended = desk.mirror(&["--once", "--stop-at", "23:59"]);
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    crate::support::assert_equal(&desk.path("src"), &desk.path("dst"));
}
