//! Rules of other programs, expressions, and lists of names.

use super::super::{
    Deletion, Filter, FilterBuilder, NamedPaths, NoRuleFiles, Role, differs_from_rsync, split_relative_root,
};
use super::{Files, kind_of, name, path};
use driftless_protocol::Kind;

/// What of `paths` is sent: those that `explain` says are.
fn sent<'a>(filter: &Filter, files: &mut Files, paths: &[&'a str]) -> Vec<&'a str> {
    let is_sent = |text: &str, files: &mut Files| {
        let (path, kind) = kind_of(text);
        filter.explain(Role::Both, &path, kind, files).unwrap().transfer
    };
    paths
        .iter()
        .copied()
        .filter(|text| is_sent(text, files))
        .collect()
}

#[test]
fn expressions_search_the_path_on_bytes() {
    let mut builder = FilterBuilder::new(b"");
    builder.include_regex(b"^keep/.*\\.log$").unwrap();
    builder.exclude_regex(b"\\.log$|^tmp(/|$)").unwrap();
    let filter = builder.build().unwrap();
    let paths = [
        "a.log",
        "keep/",
        "keep/a.log",
        "x/keep/b.log",
        "tmp/",
        "tmp/a",
        "xtmp/",
    ];
    let expected = ["keep/", "keep/a.log", "xtmp/"];
    assert_eq!(sent(&filter, &mut Files::default(), &paths), expected);

    let mut builder = FilterBuilder::new(b"");
    builder.exclude_regex(b"^a.b$").unwrap();
    let root = builder
        .build()
        .unwrap()
        .root(Role::Both, &mut NoRuleFiles)
        .unwrap();
    for odd in [&b"a\nb"[..], b"a\xffb"] {
        let odd = driftless_protocol::Name::new(odd).unwrap();
        assert!(!root.verdict(&odd, Kind::File).transfer, "{odd}");
    }
}

/// The two examples of clsync's manual, and the split between walking, watching and sending.
#[test]
fn clsync_rules() {
    let list = "# which files\n+f^passwd$\n+f^ssh/sshd_config$\n+W^$\n+W^ssh$\n\n-*\n";
    let mut files = Files::of(&[("rules", list)]);
    let mut builder = FilterBuilder::new(b"");
    builder.clsync_rules(b"rules", &mut files).unwrap();
    let filter = builder.build().unwrap();
    let paths = [
        "passwd",
        "group",
        "ssh/",
        "ssh/sshd_config",
        "ssh/moduli",
        "x/",
        "x/passwd",
    ];
    assert_eq!(sent(&filter, &mut files, &paths), ["passwd", "ssh/sshd_config"]);
    let root = filter.root(Role::Both, &mut files).unwrap();
    let ssh = root.verdict(&name("ssh"), Kind::Directory);
    assert!(!ssh.transfer && ssh.descend && ssh.watch);
    assert_eq!(ssh.by.unwrap().to_string(), "-  (rules, line 7)");
    assert!(!root.verdict(&name("x"), Kind::Directory).descend);

    let list = "-m^quiet$\n-w^closed$\n-s^hidden$\n-d^gone$\n";
    let mut files = Files::of(&[("rules", list)]);
    let mut builder = FilterBuilder::new(b"");
    builder.clsync_rules(b"rules", &mut files).unwrap();
    let root = builder.build().unwrap().root(Role::Both, &mut files).unwrap();
    let of = |text| {
        let verdict = root.verdict(&name(text), Kind::Directory);
        (verdict.transfer, verdict.descend, verdict.watch)
    };
    assert_eq!(of("quiet"), (true, true, false));
    assert_eq!(of("closed"), (true, false, true));
    assert_eq!(of("hidden"), (false, true, true));
    assert_eq!(of("gone"), (false, false, false));
    assert_eq!(of("other"), (true, true, true));
    assert!(root.verdict(&name("gone"), Kind::File).transfer);
    let hidden = root.verdict(&name("hidden"), Kind::Directory);
    assert_eq!(hidden.delete, Deletion::Protected);
}

/// POSIX and the `regex` crate differ in brackets, braces and escapes.
#[test]
fn clsync_expressions_are_posix() {
    let excludes = |expression: &str, text: &str| {
        let mut files = Files::of(&[("rules", &format!("-*{expression}\n"))]);
        let mut builder = FilterBuilder::new(b"");
        builder.clsync_rules(b"rules", &mut files).unwrap();
        let root = builder.build().unwrap().root(Role::Both, &mut files).unwrap();
        !root.verdict(&name(text), Kind::File).transfer
    };
    for (expression, text, expected) in [
        ("^[\\.]$", "\\", true),
        ("^[a&&b]$", "&", true),
        ("^[]a]$", "]", true),
        ("^[^]a]$", "b", true),
        ("^[[:alpha:]_]+$", "a_b", true),
        ("^a{2}$", "aa", true),
        ("^a{x$", "a{x", true),
        ("^(a|b)+?$", "abab", true),
        ("^a\\.b$", "a.b", true),
        ("^a\\.b$", "axb", false),
        ("\\<core\\>", "x core", true),
        ("\\<core\\>", "score", false),
        ("^a-b~c#d$", "a-b~c#d", true),
        ("^[a-c]{1,2}$", "abc", false),
    ] {
        assert_eq!(
            excludes(expression, text),
            expected,
            "{expression} against {text}"
        );
    }
}

#[test]
fn lsyncd_patterns_match_as_lsyncd_does() {
    let excludes = |pattern: &str, text: &str| {
        let mut builder = FilterBuilder::new(b"");
        builder.lsyncd_exclude(pattern.as_bytes()).unwrap();
        let filter = builder.build().unwrap();
        sent(&filter, &mut Files::default(), &[text]).is_empty()
    };
    for (pattern, text, expected) in [
        ("foo", "foo", true),
        ("foo", "a/foo", true),
        ("foo", "foo/x", true),
        ("foo", "xfoo", false),
        ("/foo", "foo", true),
        ("/foo", "a/foo", false),
        ("foo/", "foo", false),
        ("foo/", "foo/", true),
        ("a/b", "x/a/b", true),
        ("*.tmp", "x/y.tmp", true),
        ("a*b", "a/b", false),
        ("a**b", "a/x/b", true),
        ("?x", "ax", true),
        ("[ab]", "a", false),
        ("[ab]", "[ab]", true),
        ("a+b.c", "a+b.c", true),
        ("a+b.c", "aabxc", false),
        ("dir/**", "dir/", true),
        ("x$", "x$y", true),
    ] {
        assert_eq!(excludes(pattern, text), expected, "{pattern} against {text}");
    }
    for pattern in ["[ab]", "a\\b", "x$", "dir/**"] {
        assert!(differs_from_rsync(pattern.as_bytes()), "{pattern}");
    }
    assert!(!differs_from_rsync(b"/a*/b?c.txt"));
}

#[test]
fn lsyncd_lists() {
    let mut files = Files::of(&[("ex", "# c\n\n- *.o\n + keep\ntmp/\n"), ("fi", "+ a.o\n- *.o\n")]);
    let mut builder = FilterBuilder::new(b"");
    builder.lsyncd_exclude_from(b"ex", &mut files).unwrap();
    let filter = builder.build().unwrap();
    assert_eq!(
        sent(&filter, &mut files, &["a.o", "keep", "tmp/", "tmp"]),
        ["keep", "tmp"]
    );
    let mut builder = FilterBuilder::new(b"");
    builder.lsyncd_filter_from(b"fi", &mut files).unwrap();
    let filter = builder.build().unwrap();
    assert_eq!(sent(&filter, &mut files, &["a.o", "b.o", "c"]), ["a.o", "c"]);
}

#[test]
fn gitignore_files() {
    let files = [
        (".gitignore", "*.o\n!keep.o\n/build/\n# note\n"),
        ("sub/.gitignore", "!x.o\nlocal\n"),
    ];
    let mut files = Files::of(&files);
    let mut builder = FilterBuilder::new(b"");
    builder
        .dir_gitignore(&name(".gitignore"))
        .unwrap()
        .exclude(b"last")
        .unwrap();
    let filter = builder.build().unwrap();
    let paths = [
        "a.o",
        "keep.o",
        "build/",
        "build/x",
        "sub/build/",
        "sub/x.o",
        "sub/y.o",
        "sub/local",
        "last",
        "local",
    ];
    let expected = ["keep.o", "sub/build/", "sub/x.o", "local"];
    assert_eq!(sent(&filter, &mut files, &paths), expected);
    let explained = filter
        .explain(Role::Both, &path("sub/y.o"), Kind::File, &mut files)
        .unwrap();
    assert_eq!(explained.by.unwrap().to_string(), "- *.o (.gitignore, line 1)");
}

#[test]
fn named_paths_bring_their_parents_and_nothing_else() {
    let list = b"/a/b\nc/d/\n# x\n./e/../f\n\n";
    let paths = [
        "a/", "a/b", "a/b/", "a/b/x", "a/c", "c/", "c/d/", "c/d/x", "c/d/x/", "c/d/x/y", "f", "e", "x",
    ];
    for (recursive, expected) in [
        (
            false,
            vec!["a/", "a/b", "a/b/", "c/", "c/d/", "c/d/x", "c/d/x/", "f"],
        ),
        (
            true,
            vec![
                "a/", "a/b", "a/b/", "a/b/x", "c/", "c/d/", "c/d/x", "c/d/x/", "c/d/x/y", "f",
            ],
        ),
    ] {
        let mut builder = FilterBuilder::new(b"");
        builder.only_named(NamedPaths::parse(list, false, recursive).unwrap());
        let filter = builder.build().unwrap();
        assert_eq!(sent(&filter, &mut Files::default(), &paths), expected);
    }
    let zeros = NamedPaths::parse(b"a\nb\0c", true, false).unwrap();
    let mut builder = FilterBuilder::new(b"");
    builder.only_named(zeros);
    let filter = builder.build().unwrap();
    assert_eq!(
        sent(&filter, &mut Files::default(), &["a\nb", "c", "a"]),
        ["a\nb", "c"]
    );
}

/// Rules hold for named paths, but not for the directories above them; nothing beside them is deleted.
#[test]
fn a_single_file_as_source() {
    let mut builder = FilterBuilder::new(b"");
    builder
        .only_named(NamedPaths::single(&path("etc/hosts")))
        .exclude(b"etc")
        .unwrap();
    let filter = builder.build().unwrap();
    let root = filter.root(Role::Both, &mut NoRuleFiles).unwrap();
    let etc = root.verdict(&name("etc"), Kind::Directory);
    assert!(etc.transfer && etc.descend);
    let below = root.enter(&name("etc"), &mut NoRuleFiles).unwrap();
    assert!(below.verdict(&name("hosts"), Kind::File).transfer);
    let other = below.verdict(&name("passwd"), Kind::File);
    assert_eq!((other.transfer, other.delete), (false, Deletion::Protected));
}

#[test]
fn relative_roots() {
    let cases: [(&str, &str, &str); 6] = [
        ("/srv/./www/a", "/srv", "www/a"),
        ("/./a", "/", "a"),
        ("/a/b", "/", "a/b"),
        ("a/.//b", "a", "b"),
        ("a/b", "", "a/b"),
        ("./a", "", "a"),
    ];
    for (source, root, rest) in cases {
        let split = split_relative_root(source.as_bytes());
        assert_eq!(split, (root.as_bytes(), rest.as_bytes()), "{source}");
    }
}
