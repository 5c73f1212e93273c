//! Wildcards against a plain recursive matcher, and their cost against hostile patterns.

use super::super::pattern::{Origin, Pattern, Subject};
use super::super::wildmatch::{Glob, Start, Token, tokens};
use proptest::prelude::*;

/// The meaning, written down as plainly as possible.
fn plain(tokens: &[Token], text: &[u8]) -> bool {
    match tokens.split_first() {
        None => text.is_empty(),
        Some((Token::Star, rest)) => {
            plain(rest, text) || text.first().is_some_and(|&byte| byte != b'/') && plain(tokens, &text[1..])
        }
        Some((Token::DoubleStar, rest)) => plain(rest, text) || !text.is_empty() && plain(tokens, &text[1..]),
        Some((token, rest)) => match text.split_first() {
            Some((&byte, text)) => one(token, byte) && plain(rest, text),
            None => false,
        },
    }
}

fn one(token: &Token, byte: u8) -> bool {
    Glob::new(std::slice::from_ref(token)).matches(&[&[byte]], Start::Beginning, || {})
}

proptest! {
    #[test]
    fn the_automaton_agrees_with_the_plain_matcher(
        pattern in "[ab*?/\\[\\]!^.-]{0,9}",
        text in "[ab/.-]{0,9}",
        cut in 0..10usize,
    ) {
        if let Some(tokens) = tokens(pattern.as_bytes()) {
            let glob = Glob::new(&tokens);
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            let expected = plain(&tokens, text.as_bytes());
            prop_assert_eq!(glob.matches(&[head, tail], Start::Beginning, || {}), expected);
            let anywhere = expected
                || text.match_indices('/').any(|(at, _)| plain(&tokens, &text.as_bytes()[at + 1..]));
            prop_assert_eq!(glob.matches(&[head, tail], Start::AnyElement, || {}), anywhere);
        }
    }

    /// Patterns that need several machine words mean the same.
    #[test]
    fn long_patterns_agree_with_the_plain_matcher(
        parts in proptest::collection::vec("a{20}|b{30}|\\*|\\?|[ab]{1,3}|/", 4..12),
        text in "(a{20}|b{30}|[ab]{1,3}|/){2,8}",
    ) {
        let tokens = tokens(parts.concat().as_bytes()).unwrap();
        let found = Glob::new(&tokens).matches(&[text.as_bytes()], Start::Beginning, || {});
        prop_assert_eq!(found, plain(&tokens, text.as_bytes()));
    }
}

fn is_match(pattern: &str, text: &str) -> bool {
    let (directory, name) = text.rsplit_once('/').unwrap_or(("", text));
    Pattern::new(pattern.as_bytes(), Origin::Root).matches(Subject {
        directory: directory.as_bytes(),
        name: name.as_bytes(),
        is_directory: false,
    })
}

#[test]
fn classes_and_escapes() {
    let cases = [
        ("[]a]", "]", true),
        ("[!]a-]", "]", false),
        ("[a-]", "-", true),
        ("[a\\-c]", "b", false),
        ("[\\]]x", "]x", true),
        ("[[:digit:]x]?", "7y", true),
        ("[[:digit:]", "7", false),
        ("[[:nope:]x]", "x", false),
        ("[[:a]", ":", true),
        ("a[/]b", "a/b", false),
        ("a[!x]b", "a/b", false),
        ("*\\", "\\", false),
        ("foo\\bar", "foo\\bar", true),
        ("foo\\bar*", "foobar", true),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("[^a]", "b", true),
        // The start of a range was already taken for itself.
        ("[b-a]", "b", true),
        ("[b-a]", "a", false),
    ];
    for (pattern, text, expected) in cases {
        assert_eq!(is_match(pattern, text), expected, "{pattern} against {text}");
    }
}

#[test]
fn names_are_bytes() {
    let matches = |pattern: &[u8], name: &[u8]| {
        Pattern::new(pattern, Origin::Root).matches(Subject {
            directory: b"\xfe",
            name,
            is_directory: false,
        })
    };
    assert!(matches(b"\xff", b"\xff"));
    assert!(matches(b"?", b"\xff"));
    assert!(!matches(b"?", "é".as_bytes()), "a character of two bytes is two");
    assert!(matches(b"[\x80-\xff][\x80-\xff]", "é".as_bytes()));
    assert!(matches(b"/\xfe/*", b"x"));
}

/// The work is bounded by text times pattern words, also where a backtracking matcher would need more steps than there
/// are atoms.
#[test]
fn hostile_patterns_cost_no_more_than_others() {
    let text = "a".repeat(255);
    let long_text = format!("{}{text}", "aaaaaaa/".repeat(480));
    let patterns = [
        "*a".repeat(120) + "b",
        "**a*".repeat(1_000) + "b",
        "*?".repeat(60) + "b",
        "**/*".repeat(200) + "/b",
        "[!b]*".repeat(500) + "b",
    ];
    for pattern in patterns {
        for text in [&text, &long_text] {
            let compiled = Pattern::new(pattern.as_bytes(), Origin::Root);
            let (directory, name) = text.rsplit_once('/').unwrap_or(("", text));
            let subject = Subject {
                directory: directory.as_bytes(),
                name: name.as_bytes(),
                is_directory: false,
            };
            let mut steps = 0;
            assert!(!compiled.matches_counting(subject, || steps += 1));
            let bound = (text.len() + 2) * (pattern.len() / 64 + 1);
            assert!(steps <= bound, "{steps} steps, at most {bound} expected");
        }
    }
}
