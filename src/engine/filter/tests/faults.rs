//! Faulty rules: each is found, placed, and never repeated.

use super::super::{
    FilterBuilder, FilterError, NamedPaths, Role, RuleFault, SizeFault, SizeUnit, parse_size,
};
use super::{Files, name, rules};

fn fault(rule: &str) -> (u32, RuleFault) {
    let error = rules(&[rule], &mut Files::of(&[("self", ". self\n"), ("s", "P x\n")])).unwrap_err();
    (error.column, error.fault)
}

#[test]
fn every_fault_is_found_at_its_column() {
    let cases = [
        ("foo", 1, RuleFault::UnknownRule),
        ("excludes foo", 1, RuleFault::UnknownRule),
        ("-q foo", 2, RuleFault::UnknownModifier),
        ("exclude,q foo", 9, RuleFault::UnknownModifier),
        ("-n foo", 2, RuleFault::ModifierNotAllowed),
        ("Hs foo", 2, RuleFault::ModifierNotAllowed),
        (".! foo", 2, RuleFault::ModifierNotAllowed),
        (".-+ foo", 3, RuleFault::ModifierNotAllowed),
        ("-", 2, RuleFault::MissingPattern),
        ("- ", 3, RuleFault::MissingPattern),
        ("! x", 3, RuleFault::ClearWithArgument),
        ("-C x", 4, RuleFault::CvsWithArgument),
        (": a/", 0, RuleFault::BadMergeName),
        (". nowhere", 0, RuleFault::FileMissing),
        (". self", 0, RuleFault::MergeTooDeep),
        (".s s", 1, RuleFault::SideTwice),
    ];
    for (rule, column, expected) in cases {
        assert_eq!(fault(rule), (column, expected), "{rule}");
    }
    let long = format!("- {}", "x".repeat(4_097));
    assert_eq!(fault(&long).1, RuleFault::PatternTooLong);
}

fn message(error: FilterError) -> String {
    error.to_string()
}

/// A file of secrets that is taken for a rule file must not end up in a log.
#[test]
fn messages_name_the_line_but_repeat_nothing() {
    let secret = "hunter2";
    let contents = [
        format!("+ ok\n{secret}\n"),
        format!("-{secret} x\n"),
        format!("! {secret}\n"),
        format!(". {secret}\n"),
        format!(": {secret}/\n"),
    ];
    for content in contents {
        let mut files = Files::of(&[("/etc/rules", &content)]);
        let text = message(rules(&[". /etc/rules"], &mut files).unwrap_err());
        assert!(text.starts_with("/etc/rules, line "), "{text}");
        assert!(!text.contains("hunter"), "{text}");
    }
    let mut files = Files::of(&[("re", &format!("+f^x$\n-*({secret}\n")), ("filter", secret)]);
    let mut builder = FilterBuilder::new(b"");
    let mut texts = vec![
        message(builder.clsync_rules(b"re", &mut files).unwrap_err()),
        message(
            FilterBuilder::new(b"")
                .lsyncd_filter_from(b"filter", &mut files)
                .unwrap_err(),
        ),
        message(
            FilterBuilder::new(b"")
                .exclude_regex(format!("({secret}").as_bytes())
                .unwrap_err(),
        ),
    ];
    files
        .0
        .insert(b"git".to_vec(), [secret.as_bytes(), b"\xff\n"].concat());
    texts.push(message(
        FilterBuilder::new(b"").gitignore(b"git", &mut files).unwrap_err(),
    ));
    for text in texts {
        assert!(!text.contains("hunter"), "{text}");
        assert!(
            text.contains("line ") || text.starts_with("--exclude-re: "),
            "{text}"
        );
    }
}

#[test]
fn files_that_are_missing_or_unreadable_are_faults_where_they_are_named() {
    let mut files = Files::default();
    let error = FilterBuilder::new(b"")
        .exclude_from(b"/denied", &mut files)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "/denied: a rule file can't be read (permission denied); correct its permissions or the name"
    );
    let error = FilterBuilder::new(b"")
        .include_from(b"gone", &mut files)
        .unwrap_err();
    assert_eq!(error.fault, RuleFault::FileMissing);
}

#[test]
fn a_file_in_the_tree_reaches_nothing_outside() {
    for named in ["/etc/shadow", "../../x", "a/../../../x"] {
        let mut files = Files::of(&[
            ("sub/.f", &format!("- ok\n. {named}\n")),
            ("/etc/shadow", "root"),
            ("x", "- y"),
        ]);
        let filter = rules(&[": .f"], &mut files).unwrap();
        let root = filter.root(Role::Both, &mut files).unwrap();
        let error = root.enter(&name("sub"), &mut files).unwrap_err();
        assert_eq!(error.fault, RuleFault::OutsideTree, "{named}");
        assert_eq!(error.place.to_string(), "sub/.f, line 2");
    }
}

#[test]
fn sizes() {
    let good = [
        ("1.5mb-1", 1_499_999),
        ("2g+1", 2_147_483_649),
        ("1K", 1_024),
        ("1KiB", 1_024),
        ("1kb", 1_000),
        ("7", 7),
        ("7b", 7),
        ("0.5", 0),
        (".5k", 512),
        ("8191P", 8_191 << 50),
        ("8192P-1", i64::MAX as u64),
    ];
    for (text, bytes) in good {
        assert_eq!(parse_size(text, SizeUnit::Bytes), Ok(bytes), "{text}");
    }
    assert_eq!(parse_size("100", SizeUnit::Kibibytes), Ok(102_400));
    assert_eq!(parse_size("1.5m", SizeUnit::Kibibytes), Ok(1_572_864));
    for text in [
        "", "k", ".", "1.2.3", "1x", "1kib2", "1+2", "-1x", "1ki", " 1", "1e3", "é",
    ] {
        assert_eq!(
            parse_size(text, SizeUnit::Bytes),
            Err(SizeFault::Malformed),
            "{text}"
        );
    }
    assert_eq!(parse_size("0-1", SizeUnit::Bytes), Err(SizeFault::Negative));
    for text in [
        "8192P",
        "99999999999999999999999",
        "9223372036854775808",
        "18446744073709551616",
    ] {
        assert_eq!(
            parse_size(text, SizeUnit::Bytes),
            Err(SizeFault::TooLarge),
            "{text}"
        );
    }
}

#[test]
fn named_paths_that_lead_out_are_faults() {
    for (list, line) in [("a\n../b\n", 2), ("a/../../b", 1)] {
        let error = NamedPaths::parse(list.as_bytes(), false, false).unwrap_err();
        assert_eq!((error.place.line, error.fault), (line, RuleFault::BadPath));
    }
    let long = "x".repeat(256);
    assert!(NamedPaths::parse(long.as_bytes(), false, false).is_err());
}
