//! Directories, whole paths, changes of rules, fingerprints.

use super::super::{Deletion, Filter, FilterBuilder, NoRuleFiles, Role, changes};
use super::{Files, kind_of, name, path, rules};
use driftless_protocol::{Kind, RelPath};

#[test]
fn explain_names_the_rule_and_the_directory_that_decided() {
    let mut files = Files::of(&[(".f", "# note\n- /sub/\n"), ("/etc/ex", "\n*.o\n")]);
    let mut builder = FilterBuilder::new(b"");
    builder
        .filter(b": .f", &mut files)
        .unwrap()
        .exclude_from(b"/etc/ex", &mut files)
        .unwrap();
    let filter = builder.build().unwrap();
    let mut ask = |text: &str| {
        filter
            .explain(Role::Both, &path(text), Kind::File, &mut files)
            .unwrap()
    };
    let by_file = ask("a/x.o");
    assert!(!by_file.transfer);
    assert_eq!(by_file.by.unwrap().to_string(), "- *.o (/etc/ex, line 2)");
    let below = ask("sub/deep/x.c");
    assert!(!below.transfer && below.delete == Deletion::Protected);
    assert_eq!(below.at, path("sub"));
    assert_eq!(below.by.unwrap().to_string(), "- /sub/ (.f, line 2)");
    let free = ask("a/x.c");
    assert!(free.transfer && free.by.is_none() && free.at == path("a/x.c"));
}

/// What stands below a directory that is hidden but not protected goes with it, except what is protected itself and not
/// perishable.
#[test]
fn deletion_below_a_hidden_directory() {
    let mut files = Files::default();
    let filter = rules(&["H gone", "Pp *.o", "P keep"], &mut files).unwrap();
    let mut delete = |text: &str| {
        let (path, kind) = kind_of(text);
        filter
            .explain(Role::Target, &path, kind, &mut files)
            .unwrap()
            .delete
    };
    assert_eq!(delete("gone/a"), Deletion::AtRisk);
    assert_eq!(delete("gone/x.o"), Deletion::AtRisk);
    assert_eq!(delete("gone/keep"), Deletion::Protected);
    assert_eq!(delete("gone/keep/a"), Deletion::Protected);
    assert_eq!(delete("here/x.o"), Deletion::Protected);
}

#[test]
fn directories_without_rule_files_share_what_they_inherit() {
    let mut files = Files::of(&[("a/.f", "- x\n"), ("a/b/.f", "!\n- y\n")]);
    let filter = rules(&[": .f"], &mut files).unwrap();
    let root = filter.root(Role::Both, &mut files).unwrap();
    let a = root.enter(&name("a"), &mut files).unwrap();
    let c = a.enter(&name("c"), &mut files).unwrap();
    let b = a.enter(&name("b"), &mut files).unwrap();
    let sends = |rules: &super::super::DirRules, text| rules.verdict(&name(text), Kind::File).transfer;
    assert_eq!((sends(&root, "x"), sends(&root, "y")), (true, true));
    assert_eq!((sends(&a, "x"), sends(&a, "y")), (false, true));
    assert_eq!((sends(&c, "x"), sends(&c, "y")), (false, true));
    assert_eq!((sends(&b, "x"), sends(&b, "y")), (true, false));
    assert_eq!(b.path(), b"a/b");
    assert_eq!(b.rule_files().collect::<Vec<_>>(), [b".f"]);
}

/// `-F` looks in the directories above the tree, too; anchored rules there are anchored there.
#[test]
fn files_above_the_tree() {
    let mut files = Files::of(&[
        ("/.rsync-filter", "- /srv/www/one\n- /www/no\n"),
        ("/srv/.rsync-filter", "- /www/two\n"),
        (".rsync-filter", "- /three\n"),
    ]);
    let mut builder = FilterBuilder::new(b"/srv/www");
    builder.dir_filters().unwrap().dir_filters().unwrap();
    let root = builder.build().unwrap().root(Role::Source, &mut files).unwrap();
    let sent = |text| root.verdict(&name(text), Kind::File).transfer;
    assert_eq!(
        [sent("one"), sent("two"), sent("three"), sent(".rsync-filter")],
        [false; 4]
    );
    assert_eq!([sent("no"), sent("four")], [true; 2]);
}

#[test]
fn a_change_of_rules_affects_exactly_what_it_says() {
    let mut files = Files::default();
    let old = rules(&["- *.o", "- tmp/"], &mut files).unwrap();
    let new = rules(&["- *.o", "- *.bak", "P tmp/"], &mut files).unwrap();
    let entries = ["a.o", "a.bak", "d/", "d/b.bak", "d/c", "tmp/", "tmp/x", "tmp/y.o"].map(kind_of);
    let found = changes(&old, &new, Role::Both, entries, &mut files).unwrap();
    let paths: Vec<_> = found.iter().map(|change| change.path.to_string()).collect();
    assert_eq!(paths, ["a.bak", "d/b.bak", "tmp", "tmp/x"]);
    assert!(found[0].before.transfer && !found[0].after.transfer);
    assert_eq!(
        found[0].after.by.as_ref().unwrap().to_string(),
        "- *.bak (--filter)"
    );
    assert!(!found[3].before.transfer && found[3].after.transfer);
    assert_eq!(
        changes(
            &new,
            &new,
            Role::Both,
            [(RelPath::root(), Kind::Directory)],
            &mut files
        ),
        Ok(vec![])
    );
}

#[test]
fn sizes_are_no_rules() {
    let mut builder = FilterBuilder::new(b"");
    builder.min_size(10).max_size(20).one_file_system(true);
    let filter = builder.build().unwrap();
    assert_eq!(
        [9, 10, 20, 21].map(|bytes| filter.admits_size(bytes)),
        [false, true, true, false]
    );
    assert!(filter.one_file_system() && !filter.passes_everything());
    assert!(Filter::everything().passes_everything() && Filter::everything().admits_size(u64::MAX));
}

#[test]
fn attribute_rules_do_not_meet_entries() {
    let mut files = Files::default();
    let filter = rules(&["-x user.secret", "-xr! user.*", "- a"], &mut files).unwrap();
    let root = filter.root(Role::Both, &mut files).unwrap();
    assert!(root.verdict(&name("user.secret"), Kind::File).transfer);
    assert_eq!(root.verdict(&name("b"), Kind::File).delete, Deletion::AtRisk);
    assert!(filter.has_xattr_rules());
    assert!(!filter.admits_xattr(&name("user.secret"), false));
    assert!(filter.admits_xattr(&name("user.a"), false) && filter.admits_xattr(&name("user.a"), true));
    assert!(filter.admits_xattr(&name("trusted.a"), false) && !filter.admits_xattr(&name("trusted.a"), true));
    assert!(!rules(&["- a"], &mut files).unwrap().has_xattr_rules());
}

#[test]
fn fingerprints_follow_the_meaning() {
    let of = |list: &[&str]| {
        rules(list, &mut Files::of(&[("m", "# note\n- a\n\n- b\n")]))
            .unwrap()
            .fingerprint()
    };
    assert_eq!(of(&["- a", "- b"]), of(&["exclude a", "-_b"]));
    assert_eq!(of(&["- a", "- b"]), of(&[". m"]));
    assert_eq!(of(&["- x", "!", "- a"]), of(&["- a"]));
    let different = [
        of(&[]),
        of(&["- a"]),
        of(&["+ a"]),
        of(&["- a/"]),
        of(&["-! a"]),
        of(&["-p a"]),
        of(&["H a"]),
        of(&["P a"]),
        of(&["-/ a/b"]),
        of(&["- a/b"]),
        of(&["- a", "- b"]),
        of(&["- b", "- a"]),
        of(&[": a"]),
        of(&[":n a"]),
        of(&["-C"]),
    ];
    for (at, one) in different.iter().enumerate() {
        assert!(
            different[at + 1..].iter().all(|other| other != one),
            "number {at}"
        );
    }
    let sized = |bytes| {
        let mut builder = FilterBuilder::new(b"");
        builder.max_size(bytes);
        builder.build().unwrap().fingerprint()
    };
    assert_ne!(sized(1), sized(2));
    let at = |root: &[u8]| {
        let mut builder = FilterBuilder::new(root);
        builder.filter(b"-/ /srv/a", &mut NoRuleFiles).unwrap();
        builder.build().unwrap().fingerprint()
    };
    assert_eq!(at(b"/srv"), at(b"/home/x"), "where the tree is does not count");
}

/// Thousands of per-directory names, or rules that include each other, end in a fault and not in exhaustion.
#[test]
fn bounds_hold() {
    use super::super::{DIR_MERGES_MAX, RuleFault};
    let many: Vec<_> = (0..=DIR_MERGES_MAX)
        .map(|number| format!(": .f{number}"))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let error = rules(&many, &mut Files::default()).unwrap_err();
    assert_eq!(error.fault, RuleFault::TooManyDirMerges);
    let mut files = Files::of(&[("a", ". b"), ("b", ". a")]);
    assert_eq!(
        rules(&[". a"], &mut files).unwrap_err().fault,
        RuleFault::MergeTooDeep
    );
}
