//! Random trees, and random rules that have a chance to match in them.

use crate::random::Random;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Names of directories. (None with a wildcard: rsync would take it for one in anchored per-directory rules.)
const DIRECTORIES: &[&[u8]] = &[
    b"a", b"b", b"ab", b"foo", b"foo.d", b"a-b", b"CVS", b"x\xff", b"d e",
];

/// Names of files, and of directories.
const FILES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"ab",
    b"abc",
    b"foo",
    b"bar",
    b"foo.o",
    b"a.o",
    b"b~",
    b"[x]",
    b"x*y",
    b"a\\b",
    b"!z",
    b"-a",
    b"#c",
    b"a b",
    b"x\xff",
    b"\xc3\xa9",
    b"core",
    b".h",
    b"tags",
    b"x_y",
    b"A1",
    b"+ b",
    b"q\\",
];

/// Parts of patterns.
const ATOMS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"ab",
    b"foo",
    b"o",
    b".o",
    b".",
    b"x",
    b"\xff",
    b"*",
    b"*",
    b"*",
    b"**",
    b"**",
    b"***",
    b"?",
    b"[ab]",
    b"[!a]",
    b"[^b]",
    b"[a-c]",
    b"[[:alpha:]]",
    b"[[:punct:]x]",
    b"[",
    b"]",
    b"\\",
    b"\\*",
    b"\\[",
    b"/",
    b"/",
    b"/",
    b"-",
    b"_",
    b" ",
    b"!",
    b"#",
    b"[]a]",
    b"[a-]",
    b"[\\]b]",
    b"[[:nope:]]",
    b"[/a]",
    b"[[:]a]",
    b"[b-a]",
];

/// Names of per-directory files.
const MERGE_NAMES: &[&str] = &[".f", ".g", ".rsync-filter", ".cvsignore"];

/// A pair of directories: a source, and a target that is partly like it.
pub struct Tree {
    directory: tempfile::TempDir,
    seed: Option<u64>,
    /// Directories of both sides, relative.
    directories: Vec<PathBuf>,
}

impl Tree {
    pub fn empty() -> Tree {
        Tree {
            directory: tempfile::tempdir().unwrap(),
            seed: None,
            directories: Vec::new(),
        }
    }

    /// Makes the tree of a seed, unless it stands already.
    pub fn make(&mut self, seed: u64) {
        if self.seed.replace(seed) == Some(seed) {
            return;
        }
        *self = Tree {
            seed: Some(seed),
            ..Tree::empty()
        };
        for side in ["source", "target"] {
            fs::create_dir_all(self.directory.path().join("up").join(side)).unwrap();
        }
        let mut random = Random::new(seed ^ 0x7472_6565);
        self.fill(Path::new(""), 0, true, true, &mut random);
    }

    fn side(&self, name: &str) -> PathBuf {
        self.directory.path().join("up").join(name)
    }

    /// Fills a directory that stands on one side or both.
    fn fill(
        &mut self,
        directory: &Path,
        depth: usize,
        in_source: bool,
        in_target: bool,
        random: &mut Random,
    ) {
        self.directories.push(directory.to_owned());
        let mut taken = Vec::new();
        for _ in 0..random.below(7) + 1 {
            let is_directory = depth < 3 && random.one_in(2);
            let name: &[u8] = random.pick(if is_directory { DIRECTORIES } else { FILES });
            if taken.contains(&name) {
                continue;
            }
            taken.push(name);
            let (keep_source, keep_target) = (!random.one_in(4), !random.one_in(4));
            let (in_source, in_target) = (in_source && keep_source, in_target && keep_target);
            let path = directory.join(OsStr::from_bytes(name));
            for (side, present) in [("source", in_source), ("target", in_target)] {
                let place = self.side(side).join(&path);
                match (present, is_directory) {
                    (false, _) => {}
                    (true, true) => fs::create_dir(place).unwrap(),
                    (true, false) => fs::write(place, "").unwrap(),
                }
            }
            if is_directory && (in_source || in_target) {
                self.fill(&path, depth + 1, in_source, in_target, random);
            }
        }
    }
}

/// A set of rules for a tree, as rsync's arguments and files.
pub struct Case {
    pub arguments: Vec<OsString>,
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pub source: PathBuf,
    pub target: PathBuf,
    pub home: PathBuf,
    pub cvsignore: Option<String>,
}

impl Drop for Case {
    fn drop(&mut self) {
        for path in self.files.keys() {
            fs::remove_file(path).unwrap();
        }
    }
}

/// What a file of rules may hold.
#[derive(Clone, Copy, Default)]
struct Syntax {
    /// Patterns without prefixes.
    plain: bool,
    /// Patterns with `+ ` or `- `.
    old: bool,
    words: bool,
    cvs: bool,
    /// The rule that names it fixes the side.
    sided: bool,
    /// It is read once per directory.
    per_directory: bool,
}

impl Case {
    pub fn new(random: &mut Random, tree: &Tree) -> Case {
        let mut case = Case {
            arguments: Vec::new(),
            files: BTreeMap::new(),
            source: tree.side("source"),
            target: tree.side("target"),
            home: tree.directory.path().to_owned(),
            cvsignore: None,
        };
        if random.one_in(6) {
            case.arguments.push("--delete-excluded".into());
        }
        let zeros = random.one_in(8);
        if zeros {
            case.arguments.push("--from0".into());
        }
        // Which per-directory names are in use, and how their files are read.
        let mut merges: Vec<(&str, Syntax)> = Vec::new();
        for _ in 0..random.below(6) + 1 {
            case.option(random, tree, zeros, &mut merges);
        }
        if random.one_in(10) {
            case.arguments.push("-C".into());
            let syntax = Syntax {
                plain: true,
                words: true,
                cvs: true,
                per_directory: true,
                ..Syntax::default()
            };
            merges.push((".cvsignore", syntax));
            if random.one_in(2) {
                case.cvsignore = Some("*.x a~ ! b".into());
            }
            if random.one_in(2) {
                let content = case.rules(random, syntax, zeros, &mut Vec::new());
                case.files.insert(case.home.join(".cvsignore"), content);
            }
        }
        case.merge_files(random, tree, zeros, &mut merges);
        for (path, content) in &case.files {
            fs::write(path, content).unwrap();
        }
        case
    }

    fn push(&mut self, option: &str, value: &[u8]) {
        let mut argument = option.as_bytes().to_vec();
        argument.extend_from_slice(value);
        argument.retain(|&byte| byte != 0);
        self.arguments.push(OsString::from_vec(argument));
    }

    fn option(&mut self, random: &mut Random, tree: &Tree, zeros: bool, merges: &mut Vec<(&str, Syntax)>) {
        let file = tree.directory.path().join(format!("rules{}", self.files.len()));
        match random.below(16) {
            0..=2 => {
                let pattern = old_pattern(random);
                self.push("--exclude=", &pattern);
            }
            3 => {
                let pattern = old_pattern(random);
                self.push("--include=", &pattern);
            }
            4..=8 => {
                let rule = self.rule(random, Syntax::default(), merges);
                self.push("--filter=", &rule);
            }
            9 | 10 => {
                let option = if random.one_in(2) {
                    "--exclude-from="
                } else {
                    "--include-from="
                };
                let syntax = Syntax {
                    old: true,
                    ..Syntax::default()
                };
                let content = self.rules(random, syntax, zeros, merges);
                self.push(option, file.as_os_str().as_bytes());
                self.files.insert(file, content);
            }
            11 => {
                let (modifiers, syntax) = merge_modifiers(random, false);
                let content = self.rules(random, syntax, zeros, merges);
                let rule = [b".", modifiers.as_bytes(), b" ", file.as_os_str().as_bytes()].concat();
                self.push("--filter=", &rule);
                self.files.insert(file, content);
            }
            12..=14 => {
                let rule = dir_merge(random, merges);
                self.push("--filter=", &rule);
            }
            _ => {
                self.arguments.push("-F".into());
                merges.push((
                    ".rsync-filter",
                    Syntax {
                        per_directory: true,
                        ..Syntax::default()
                    },
                ));
            }
        }
    }

    /// Writes per-directory files here and there.
    fn merge_files(
        &mut self,
        random: &mut Random,
        tree: &Tree,
        zeros: bool,
        merges: &mut Vec<(&str, Syntax)>,
    ) {
        // The first rule for a name counts.
        let mut done = Vec::new();
        let mut at = 0;
        while at < merges.len() {
            let (name, syntax) = merges[at];
            at += 1;
            if done.contains(&name) {
                continue;
            }
            done.push(name);
            for side in ["source", "target"] {
                for directory in &tree.directories {
                    let place = tree.side(side).join(directory);
                    if place.is_dir() && random.one_in(3) {
                        // Files may only name further files that are not in use yet, each read one way.
                        let content = self.rules(random, syntax, zeros, merges);
                        self.files.insert(place.join(name), content);
                    }
                }
            }
        }
        if self.arguments.iter().any(|argument| argument == "-F") && random.one_in(2) {
            let syntax = Syntax {
                per_directory: true,
                ..Syntax::default()
            };
            let above = tree.directory.path().join("up/.rsync-filter");
            let content = self.rules(
                random,
                Syntax {
                    sided: false,
                    ..syntax
                },
                zeros,
                &mut vec![(".g", syntax), (".f", syntax)],
            );
            self.files.insert(above, content);
        }
    }

    fn rules(
        &mut self,
        random: &mut Random,
        syntax: Syntax,
        zeros: bool,
        merges: &mut Vec<(&str, Syntax)>,
    ) -> Vec<u8> {
        let mut content = Vec::new();
        for _ in 0..random.below(5) {
            if !syntax.words && random.one_in(8) {
                content.extend_from_slice(random.pick(&[&b"# note"[..], b"; note", b""]));
            } else {
                let rule = self.rule(random, syntax, merges);
                content.extend(rule);
            }
            content.push(match (zeros, syntax.words) {
                (true, false) => 0,
                (true, true) => random.pick(b"\0 \n"),
                (false, true) => random.pick(b"\n \t"),
                (false, false) => random.pick(b"\n\n\n\r"),
            });
        }
        content
    }

    fn rule(&mut self, random: &mut Random, syntax: Syntax, merges: &mut Vec<(&str, Syntax)>) -> Vec<u8> {
        let text = if syntax.plain {
            match random.one_in(12) {
                true => b"!".to_vec(),
                false => pattern(random),
            }
        } else if syntax.old {
            old_pattern(random)
        } else if random.one_in(20) {
            random.pick(&[&b"!"[..], b"clear", b"clear,"]).to_vec()
        } else if syntax.per_directory && !syntax.words && random.one_in(12) {
            dir_merge_within(random, merges)
        } else {
            self.full_rule(random, syntax)
        };
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
        match syntax.words {
            true if text.is_empty() || text.iter().all(blank) => b"a".to_vec(),
            true => text
                .into_iter()
                .map(|byte| if blank(&byte) { b'_' } else { byte })
                .collect(),
            false => text,
        }
    }

    fn full_rule(&mut self, random: &mut Random, syntax: Syntax) -> Vec<u8> {
        let short: &[&str] = if syntax.sided {
            &["-", "+"]
        } else {
            &["-", "-", "+", "H", "S", "P", "R"]
        };
        let long: &[&str] = match syntax.sided {
            true => &["exclude", "include"],
            false => &["exclude", "include", "hide", "show", "protect", "risk"],
        };
        let is_long = random.one_in(5);
        let verb: &str = random.pick(if is_long { long } else { short });
        let has_side = syntax.sided
            || verb
                .chars()
                .next()
                .is_some_and(|first| "HSPRhspr".contains(first));
        let mut modifiers = String::new();
        for modifier in ["/", "!", "p", "x", "s", "r", "C"] {
            let rarity = if matches!(modifier, "x" | "C") { 60 } else { 9 };
            let fits = !(has_side && matches!(modifier, "s" | "r" | "C"));
            if fits && random.one_in(rarity) {
                modifiers.push_str(modifier);
            }
        }
        // Sometimes one that does not exist or does not fit.
        if !syntax.per_directory && random.one_in(80) {
            modifiers.push_str(random.pick(&["q", "n", "e", "s", "-"]));
        }
        // rsync gives all such rules the modifiers of the first one, which we do not follow.
        if modifiers.contains('C') {
            return b"-C".to_vec();
        }
        let comma = if (is_long && !modifiers.is_empty()) || random.one_in(9) {
            ","
        } else {
            ""
        };
        let mut rule = format!("{verb}{comma}{modifiers}").into_bytes();
        rule.push(if random.one_in(4) { b'_' } else { b' ' });
        if modifiers.contains('/') && random.one_in(2) {
            let root = if random.one_in(2) {
                &self.source
            } else {
                &self.target
            };
            rule.extend_from_slice(root.as_os_str().as_bytes());
            rule.push(b'/');
        }
        rule.extend(pattern(random));
        rule
    }
}

fn pattern(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    if random.one_in(4) {
        text.push(b'/');
    }
    match random.below(4) {
        0 => text.extend_from_slice(random.pick(FILES)),
        1 => {
            text.extend_from_slice(random.pick(DIRECTORIES));
            if random.one_in(2) {
                text.extend_from_slice(random.pick(&[&b"/"[..], b"/**", b"/***", b"/*", b"/**/"]));
                text.extend_from_slice(if random.one_in(2) { random.pick(FILES) } else { b"" });
            }
        }
        _ => {
            for _ in 0..random.below(5) + 1 {
                text.extend_from_slice(random.pick(ATOMS));
            }
        }
    }
    if random.one_in(5) {
        text.push(b'/');
    }
    text
}

fn old_pattern(random: &mut Random) -> Vec<u8> {
    let prefix: &[u8] = random.pick(&[&b""[..], b"", b"", b"", b"- ", b"+ "]);
    [prefix, &pattern(random)].concat()
}

/// Modifiers of a merge rule, and what its file may then hold.
fn merge_modifiers(random: &mut Random, per_directory: bool) -> (String, Syntax) {
    let mut syntax = Syntax {
        per_directory,
        ..Syntax::default()
    };
    let mut modifiers = String::new();
    match random.below(8) {
        0 | 1 => (modifiers, syntax.plain) = ("-".into(), true),
        2 => (modifiers, syntax.plain) = ("+".into(), true),
        3 => {
            modifiers = "C".into();
            (syntax.plain, syntax.words, syntax.cvs) = (true, true, true);
        }
        _ => {}
    }
    for modifier in ["n", "e", "w", "p", "/", "s", "r"] {
        if random.one_in(6) {
            modifiers.push_str(modifier);
            match modifier {
                "w" => syntax.words = true,
                "s" | "r" => syntax.sided = true,
                _ => {}
            }
        }
    }
    (modifiers, syntax)
}

fn dir_merge(random: &mut Random, merges: &mut Vec<(&str, Syntax)>) -> Vec<u8> {
    let (modifiers, syntax) = merge_modifiers(random, true);
    let name = random.pick(MERGE_NAMES);
    merges.push((name, syntax));
    let verb = if random.one_in(4) { "dir-merge," } else { ":" };
    format!("{verb}{modifiers} {name}").into_bytes()
}

/// A per-directory file that another one names. Each name is read one way in a case, whoever names it.
fn dir_merge_within(random: &mut Random, merges: &mut Vec<(&str, Syntax)>) -> Vec<u8> {
    let name = random.pick(&[".f", ".g"]);
    if !merges.iter().any(|(known, _)| *known == name) {
        merges.push((
            name,
            Syntax {
                per_directory: true,
                ..Syntax::default()
            },
        ));
    }
    format!(": {name}").into_bytes()
}
