use super::*;
use crate::engine::delta::Engine;
use std::fs;
use tempfile::TempDir;

/// A configuration in a directory of its own.
struct Written(TempDir);

impl Written {
    fn new(text: &str) -> Written {
        let written = Written(tempfile::tempdir().unwrap());
        fs::write(written.path(), text).unwrap();
        written
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("driftless.toml")
    }

    /// Each fault, from the file's name on.
    fn faults(&self) -> Vec<String> {
        let faults = load(&self.path()).map(drop).unwrap_err();
        let dir = format!("{}/", escaped(self.0.path()));
        faults
            .into_iter()
            .map(|fault| fault.0.replace(&dir, ""))
            .collect()
    }
}

const MIRROR: &str = "[[mirror]]\nname = 'w'\nsource = '/s'\ntargets = ['nas::m']\n";

/// The only fault of a mirror with one more line, its fifth.
#[track_caller]
fn fault_of(line: &str) -> String {
    let mut faults = Written::new(&format!("{MIRROR}{line}\n")).faults();
    assert_eq!(faults.len(), 1, "{line}: {faults:?}");
    faults.remove(0)
}

/// The engine of `[settings]` is that of modules, and of mirrors that say nothing else.
#[test]
fn engines_are_chosen_for_modules_and_for_mirrors() {
    let text = format!("[settings]\ndelta-engine = 'fast_rsync'\n{MIRROR}delta-engine = 'driftless'\n");
    let configuration = load(&Written::new(&text).path()).unwrap();
    assert_eq!(configuration.endpoint.signing.delta_engine, Engine::FastRsync);
    let said = format!("{:?}", configuration.mirrors[0].options);
    assert!(said.contains("delta_engine: Some(Driftless)"), "{said}");
    let whole = load(&Written::new(&format!("{MIRROR}whole-file = true\n")).path()).unwrap();
    let said = format!("{:?}", whole.mirrors[0].options);
    assert!(
        said.contains("whole_file: true") && said.contains("delta_engine: None"),
        "{said}"
    );
    assert!(fault_of("whole-file = true\ndelta-engine = 'driftless'").contains("delta-engine"));
}

#[test]
fn every_option_of_send_is_a_key() {
    let text = "[settings]\nnice = 5\nionice = 'idle'\ndelay = 2\nlisten = ':0'\n".to_owned()
        + MIRROR
        + "delete = 'never'\ndelta-engine = 'fast_rsync'\nmax-delete = 'none'\naccept-root = true\nwatch = 'poll'\nbatch-max = 10\nsettle = '20ms'\n\
           max-delay = '2s'\nwrites = 'close'\nbig-file = '1MiB:10m'\nappend-only = ['*.log', '/a/b']\naudit-interval = 'off'\n\
           congestion = 'cubic'\nbwlimit = '2m'\ncompress = true\ninclude = 'a.o'\nexclude = ['*.o', '-x']\ndir-filters = 2\n\
           cvs-exclude = true\ngitignore = [\".ignore\"]\nmin-size = '1k'\nmax-size = 5000\none-file-system = true\nport = 5000\n\
           timeout = 20\ncontimeout = 7\nmodify-window = 2\n\
           ignore-existing = true\nexisting = true\nupdate = true\n";
    let configuration = load(&Written::new(&text).path()).unwrap();
    let mirror = &configuration.mirrors[0];
    assert_eq!(mirror.options.send.port().port, Some(5000));
    assert_eq!(mirror.options.send.link().connect_timeout.as_secs(), 7);
    let said = format!("{:?}", mirror.options);
    for wanted in [
        "delay: Some(2s)",
        "Never",
        "Poll",
        "batch_max: Some(10)",
        "max_size: Some(5000)",
        "Cubic",
        "delta_engine: Some(FastRsync)",
        "ignore_existing: true",
        " existing: true",
        "update: true",
        "modify_window: Some(2)",
        "timeout: Some(20)",
    ] {
        assert!(said.contains(wanted), "no {wanted} in {said}");
    }
    // Rules in the order of the file; the switch of a count as often as it says.
    let rules = said.split("rules: ").nth(1).unwrap();
    let at = |what: &str| rules.find(what).unwrap_or_else(|| panic!("no {what} in {rules}"));
    assert!(
        at("a.o") < at("*.o")
            && at("*.o") < at("\"-x\"")
            && at("\"-x\"") < at("DirFilters")
            && at("DirFilters") < at(".ignore")
    );
    assert_eq!(rules.matches("DirFilters").count(), 2);
    assert_eq!(configuration.endpoint.endpoint.address().port(), 0);
    let words: Vec<_> = schema::keys::<MirrorOptions>()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    for key in [
        "exclude-from",
        "filter",
        "delete-excluded",
        "files-from",
        "from0",
        "include-re",
        "no-devices",
        "drift",
        "trash",
        "backup",
        "backup-dir",
        "suffix",
        "preallocate",
        "inplace",
        "checksum",
        "size-only",
        "ignore-times",
        "numeric-ids",
        "chmod",
    ] {
        assert!(words.iter().any(|word| word == key), "{key} is not in {words:?}");
    }
}

/// How a target is written: of a module, of a mirror to a directory, and of all of them.
#[test]
fn what_becomes_of_what_is_replaced_is_said_by_keys() {
    use crate::daemon::keeping::{Backup, Drift, OldVersions};
    use std::time::Duration;
    let module = "[[module]]\nname = 'm'\npath = '/m'\n";
    let local = MIRROR.replace("nas::m", "/t");
    let text = format!(
        "[settings]\ndrift = 'keep'\n{module}trash = '7d'\npreallocate = true\n{local}backup = true\nbackup-dir = 'old'\n\
         suffix = '.1'\n[[mirror]]\nname = 'w2'\nsource = '/s2'\ntargets = '/u'\ndrift = 'refuse'\ninplace = true\n"
    )
    .replace("'/u'", "['/u']");
    let configuration = load(&Written::new(&text).path()).unwrap();
    let of = |options: &WritingArgs| options.module("n".to_owned(), "/n".into()).unwrap();
    let module = of(&configuration.modules[0].options.writing);
    let retention = Duration::from_secs(7 * 86_400);
    assert_eq!(
        (module.keeping.drift, module.keeping.old, module.preallocate),
        (Drift::Keep, OldVersions::Trash { retention }, true)
    );
    let [first, second] = [0, 1].map(|at| of(&configuration.mirrors[at].options.writing));
    let backup = Backup {
        directory: Some(driftless_protocol::Name::new(*b"old").unwrap()),
        suffix: b".1".to_vec(),
    };
    assert_eq!(
        (first.keeping.drift, first.keeping.old, first.inplace),
        (Drift::Keep, OldVersions::Backup(backup), false)
    );
    assert_eq!((second.keeping.drift, second.inplace), (Drift::Refuse, true));

    // Of targets elsewhere their receivers decide; nothing is said that would be ignored.
    let fault = fault_of("trash = '7d'");
    assert!(
        fault.starts_with("driftless.toml:5: trash is for targets that are directories here"),
        "{fault}"
    );
    for (lines, said) in [
        (
            "drift = 'ask'",
            "drift: \"ask\" is not one of overwrite, keep, refuse",
        ),
        ("trash = 'soon'", "trash: \"soon\" is not a time span"),
        ("suffix = '.1'", "suffix has no meaning without backup"),
        ("trash = '1d'\nbackup = true", "cannot be used with"),
        ("trash = '1d'\ninplace = true", "cannot be used with"),
        (
            "backup = true\nbackup-dir = '/else/where'",
            "--backup-dir /else/where cannot be used",
        ),
        ("backup = true\nsuffix = ''", "--suffix must not be empty"),
    ] {
        for table in ["[[module]]\nname = 'm'\npath = '/m'\n", &local] {
            let faults = Written::new(&format!("{table}{lines}\n")).faults();
            assert!(
                faults.len() == 1 && faults[0].contains(said),
                "{lines}: {faults:?}"
            );
        }
    }
}

#[test]
fn a_mirror_has_the_settings_but_for_what_it_says_itself() {
    let text = format!(
        "[settings]\ndelay = '1s'\nexclude = ['a']\ncvs-exclude = true\n{MIRROR}exclude = ['b']\ncvs-exclude = false\n"
    );
    let configuration = load(&Written::new(&text).path()).unwrap();
    let said = format!("{:?}", configuration.mirrors[0].options);
    assert!(
        said.contains("delay: Some(1s)") && said.contains("(Exclude, \"b\")"),
        "{said}"
    );
    assert!(
        !said.contains("\"a\"") && said.contains("cvs_exclude: false"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_the_remedy() {
    for (line, said) in [
        (
            "exlude = 'a'",
            "driftless.toml:5: exlude is not a key here: did you mean exclude?",
        ),
        (
            "one_file_system = true",
            "driftless.toml:5: one_file_system is not a key here: did you mean one-file-system?",
        ),
        (
            "frobnicate = 1",
            "driftless.toml:5: frobnicate is not a key here (keys are the long options",
        ),
        ("nice = 5", "driftless.toml:5: nice belongs into [settings]"),
        (
            "listen = ':1'",
            "driftless.toml:5: listen belongs into [settings]",
        ),
        ("path = '/x'", "driftless.toml:5: path belongs into a [[module]]"),
        (
            "dry-run = true",
            "driftless.toml:5: dry-run has no meaning for a daemon: it is for `driftless mirror`",
        ),
        (
            "stop-after = 5",
            "driftless.toml:5: stop-after has no meaning for a daemon",
        ),
        (
            "modify-window = -2",
            "driftless.toml:5: modify-window: -2 is not in -1..",
        ),
        (
            "delay = 'soon'",
            "driftless.toml:5: delay: \"soon\" is not a time span",
        ),
        (
            "delay = true",
            "driftless.toml:5: delay takes a text in quotes, or a number",
        ),
        (
            "delay = ['1s']",
            "driftless.toml:5: delay takes one value, not an array",
        ),
        (
            "delete = 'sometimes'",
            "driftless.toml:5: delete: \"sometimes\" is not one of always, never, startup, running",
        ),
        (
            "accept-root = 'yes'",
            "driftless.toml:5: accept-root takes true or false",
        ),
        ("port = 0", "driftless.toml:5: port: "),
        (
            "batch-max = 5",
            "driftless.toml:5: batch-max has no meaning without delay",
        ),
        (
            "exclude-from = '-'",
            "driftless.toml:5: exclude-from: \"-\" is not a path that begins with a slash",
        ),
        (
            "no-devices = true",
            "driftless.toml:5: no-devices is for targets that are directories here",
        ),
        (
            "dir-filters = -1",
            "driftless.toml:5: dir-filters takes true, false, or how many times",
        ),
        ("name = 'x'", "driftless.toml:5: not TOML: duplicate key"),
    ] {
        let fault = fault_of(line);
        assert!(fault.starts_with(said), "{line}: {fault}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (lines, said) in [
        (
            "delete = 'never'\ndelete-excluded = true",
            "--delete-excluded goes with --delete always only",
        ),
        (
            "min-size = '2k'\nmax-size = '1k'",
            "--min-size is above --max-size",
        ),
        (
            "checksum = true\nsize-only = true",
            "the argument '--checksum' cannot be used with '--size-only'",
        ),
    ] {
        let faults = Written::new(&format!("{MIRROR}{lines}\n")).faults();
        assert!(
            faults.len() == 1 && faults[0].starts_with("driftless.toml:1: ") && faults[0].contains(said),
            "{faults:?}"
        );
    }
}

#[test]
fn all_faults_are_told_at_once_and_drop_ins_are_named() {
    let written = Written::new("[settings]\nlisten = 'nas:80'\n[[module]]\npath = 'rel'\n");
    fs::create_dir(written.0.path().join("mirrors.d")).unwrap();
    let drop_in =
        |name: &str, text: &str| fs::write(written.0.path().join("mirrors.d").join(name), text).unwrap();
    drop_in("b.toml", "[settings]\nnice = 1\n");
    drop_in("a.toml", "[[mirror]]\nname = 'a:b'\ntargets = 'nas::m'\n");
    drop_in(".hidden.toml", "nonsense");
    drop_in("c.toml~", "nonsense");
    let faults = written.faults();
    let begins = [
        "mirrors.d/b.toml:1: [settings] belongs into the main file",
        "driftless.toml:2: listen: write IP:PORT",
        "mirrors.d/a.toml:2: \"a:b\" cannot be a name",
        "mirrors.d/a.toml:1: there is no source here",
        "mirrors.d/a.toml:3: targets takes an array",
        "driftless.toml:3: there is no name here",
        "driftless.toml:4: path: \"rel\" is not the path of a directory",
    ];
    assert_eq!(faults.len(), begins.len(), "{faults:#?}");
    for (fault, begin) in faults.iter().zip(begins) {
        assert!(fault.starts_with(begin), "{begin}: {faults:#?}");
    }
}

/// A mirror of the relations' tests.
fn mirror(name: &str, source: &str, targets: &str) -> String {
    format!("[[mirror]]\nname = '{name}'\nsource = '{source}'\ntargets = [{targets}]\n")
}

#[test]
fn parts_that_get_into_each_others_way_are_refused() {
    let module = |name: &str, path: &str| format!("[[module]]\nname = '{name}'\npath = '{path}'\n");
    let cases = [
        (
            mirror("a", "/a", "'nas::m'") + &mirror("a", "/b", "'nas::n'"),
            "there is a mirror called \"a\" already, at driftless.toml:1",
        ),
        (
            module("m", "/m") + &module("m", "/n"),
            "there is a module called \"m\" already",
        ),
        (module("m", "/m") + &module("n", "/m/n"), "are nested"),
        (module("m", "/m") + &module("n", "/m"), "offer the same directory"),
        (
            mirror("a", "/a", "'nas::m'") + &mirror("b", "/b", "'NAS::m'"),
            "targets: NAS::m is written to by the mirror \"a\" (driftless.toml:4), too",
        ),
        (
            mirror("a", "/a", "'nas::m/x'") + &mirror("b", "/b", "'driftless://nas:4433/m/x/y'"),
            "is written to by",
        ),
        (
            mirror("a", "/a", "'/t'") + &mirror("b", "/b", "'/t/u'"),
            "is written to by",
        ),
        (
            mirror("a", "/a", "'nas::m', 'nas::m'"),
            "are one place (name it once)",
        ),
        (
            mirror("a", "/a", "'/m/x'") + &module("m", "/m"),
            "overlaps the module \"m\"",
        ),
        (mirror("a", "/a", "'/a/b'"), "mirrored into itself"),
        (
            mirror("a", "/a", "'/b'") + &mirror("b", "/b", "'/a'"),
            "the mirrors form a loop, \"a\" to \"b\" to \"a\"",
        ),
        (
            mirror("a", "/a", "'/b/x'") + &mirror("b", "/b", "'/c'") + &mirror("c", "/c/y", "'/a/z'"),
            "the mirrors form a loop, \"a\" to \"b\" to \"c\" to \"a\"",
        ),
    ];
    for (text, said) in cases {
        let faults = Written::new(&text).faults();
        assert!(
            faults.len() == 1 && faults[0].contains(said),
            "{said}: {faults:#?}"
        );
    }
    // A cascade, two sources in one tree, two modules of one host, and names that only begin alike.
    let fine = mirror("a", "/a", "'/b', 'nas::m'")
        + &mirror("b", "/b", "'/c', 'nas::n'")
        + &mirror("c", "/a/x", "'/bb', 'nas::mm', 'driftless://nas:5000/m'")
        + &module("m", "/m");
    load(&Written::new(&fine).path()).unwrap();
}

#[test]
fn links_do_not_hide_that_two_are_one() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
    let (here, there) = (dir.path().join("new"), dir.path().join("link/new"));
    let text = mirror("a", "/a", &format!("'{}'", here.display()))
        + &mirror("b", "/b", &format!("'{}'", there.display()));
    let faults = Written::new(&text).faults();
    assert!(
        faults.len() == 1 && faults[0].contains("is written to by"),
        "{faults:?}"
    );
}

#[test]
fn what_others_could_change_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let written = Written::new(MIRROR);
    fs::set_permissions(written.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let faults = written.faults();
    assert!(
        faults[0].contains("others can change") && faults[0].contains("666"),
        "{faults:?}"
    );
}

#[test]
fn only_what_means_the_same_is_left_alone() {
    let at = |text: &str| load(&Written::new(text).path()).unwrap();
    let one = at(MIRROR);
    let moved = at(&format!("# another place\n\n{MIRROR}"));
    let other = at(&format!("{MIRROR}delay = 1\n"));
    let more = at(&MIRROR.replace("'nas::m'", "'nas::m', 'nas::n'"));
    assert!(
        one.mirrors[0].is_like(&moved.mirrors[0])
            && one.has_process_of(&moved)
            && one.has_endpoint_of(&moved)
    );
    assert!(!one.mirrors[0].is_like(&other.mirrors[0]) && one.mirrors[0].is_like(&more.mirrors[0]));
    let settings = at(&format!("[settings]\nlisten = ':0'\n{MIRROR}"));
    assert!(
        !one.has_endpoint_of(&settings)
            && one.has_process_of(&settings)
            && one.mirrors[0].is_like(&settings.mirrors[0])
    );
}
